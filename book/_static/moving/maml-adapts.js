// MAML adapting to five points that the reader drags: forward pass, gradient and inner step.
"use strict";

(function (moving) {
  const data = moving.data["maml-adapts"];
  const STEPS = 10;

  // ------------------------------------------------------------ the network and its inner step

  // What each layer puts out, the input first; weights are kernel and bias of three layers.
  function outputs(weights, x) {
    const found = [[x]];
    for (let layer = 0; layer < 3; layer++) {
      const [kernel, bias] = weights.slice(2 * layer);
      const sums = bias.slice();
      found[layer].forEach((value, i) => {
        if (value) kernel[i].forEach((weight, j) => (sums[j] += value * weight));
      });
      found.push(layer < 2 ? sums.map((value) => Math.max(value, 0)) : sums);
    }
    return found;
  }

  const predict = (weights, x) => outputs(weights, x)[3][0];

  function loss(weights, points) {
    return points.reduce((sum, [x, y]) => sum + (predict(weights, x) - y) ** 2, 0) / points.length;
  }

  // The weights minus the inner step size times the gradient of the mean squared error.
  function innerStep(weights, points, innerLr) {
    const next = weights.map((w) => (Array.isArray(w[0]) ? w.map((row) => row.slice()) : w.slice()));
    for (const [x, y] of points) {
      const values = outputs(weights, x);
      let slopes = [(2 * (values[3][0] - y)) / points.length];
      for (let layer = 2; layer >= 0; layer--) {
        const kernel = weights[2 * layer], before = values[layer];
        const move = slopes.map((slope) => innerLr * slope);
        move.forEach((m, j) => (next[2 * layer + 1][j] -= m));
        before.forEach((value, i) => move.forEach((m, j) => (next[2 * layer][i][j] -= value * m)));
        slopes = before.map((value, i) =>
          value > 0 ? slopes.reduce((sum, slope, j) => sum + slope * kernel[i][j], 0) : 0);
      }
    }
    return next;
  }

  // The weights after 0 to 10 inner steps from a start, "maml" or "joint".
  function adapt(start, points) {
    const path = [data.weights[start]];
    for (let step = 0; step < STEPS; step++) {
      path.push(innerStep(path[step], points, data.innerLr[start]));
    }
    return path;
  }

  // A task as the networks were trained on: points of a sine wave, and its amplitude and phase.
  function newTask() {
    const amplitude = 0.1 + 4.9 * Math.random(), phase = Math.PI * Math.random();
    const points = data.points.map(() => {
      const x = 10 * Math.random() - 5;
      return [x, amplitude * Math.sin(x - phase)];
    });
    return { points, wave: (x) => amplitude * Math.sin(x - phase) };
  }

  moving.maml = { adapt, predict, loss };

  // ------------------------------------------------------------ the picture

  const place = moving.mount("maml-adapts");
  if (!place) return;

  const NAMES = { maml: "learned by MAML", joint: "of joint training" };
  const X = Array.from({ length: 201 }, (_, i) => -5 + i / 20);
  let task = { points: data.points, wave: null }, start = "maml", paths = {};

  const plane = new moving.Plane(place, {
    label: "Five points, and a network's curve through them",
    x: [-5, 5], y: [-6, 6], ratio: (width) => (width < 500 ? 0.75 : 0.5), redraw: draw,
    xTicks: [-4, -2, 0, 2, 4], yTicks: [-4, -2, 0, 2, 4], xLabel: "x", yLabel: "y",
  });
  const wave = moving.svg(plane.inside, "path", { class: "wave" });
  const before = moving.svg(plane.inside, "path", { class: "before" });
  const curve = moving.svg(plane.inside, "path");
  const dots = task.points.map((_, i) =>
    new moving.DragPoint(plane, `Point ${i + 1}`, (at) => {
      const points = task.points.slice();
      points[i] = at;
      setTask({ points, wave: null });
    }));

  const key = moving.html(place, "p", { class: "key" });
  moving.html(key, "span", { class: "before" }, "before any step");
  const after = moving.html(key, "span");
  const wavy = moving.html(key, "span", { class: "wave" }, "the wave that the points are from");
  const losses = moving.html(place, "table");

  const controls = moving.html(place, "div", { class: "controls" });
  moving.button(controls, "New task", () => setTask(newTask()));
  const player = new moving.Player(controls, "Inner steps", STEPS, 1, draw);
  moving.choose(controls, "Start", NAMES, (value) => {
    start = value;
    draw();
  });

  function setTask(value) {
    task = value;
    for (const name in NAMES) paths[name] = adapt(name, task.points);
    draw();
  }

  function drawLosses() {
    losses.replaceChildren();
    const head = moving.html(losses, "tr");
    const steps = player.step === 1 ? "after 1 step" : `after ${player.step} steps`;
    for (const text of ["Mean squared error on the points", "before", steps]) {
      moving.html(head, "th", { scope: "col" }, text);
    }
    for (const [name, text] of Object.entries(NAMES)) {
      const row = moving.html(losses, "tr", { class: name });
      moving.html(row, "th", { scope: "row" }, `start ${text}, step size ${data.innerLr[name]}`);
      for (const step of [0, player.step]) {
        moving.html(row, "td", {}, moving.number(loss(paths[name][step], task.points)));
      }
    }
  }

  function draw() {
    const line = (f) => plane.line(X.map((x) => [x, f(x)]));
    const path = paths[start];
    before.setAttribute("d", line((x) => predict(path[0], x)));
    curve.setAttribute("d", line((x) => predict(path[player.step], x)));
    curve.setAttribute("class", `curve ${start}`);
    wave.setAttribute("d", task.wave ? line(task.wave) : "");
    wavy.hidden = !task.wave;
    after.textContent = `after ${player.step} inner step${player.step === 1 ? "" : "s"}`;
    after.className = start;
    task.points.forEach((point, i) => dots[i].draw(point));
    drawLosses();
  }

  setTask(task);
})(window.mlutilsMoving);
