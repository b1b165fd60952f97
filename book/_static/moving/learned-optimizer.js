// A learned optimizer beside Adam, step by step, on valleys of two coordinates.
"use strict";

(function (moving) {
  const data = moving.data["learned-optimizer"];
  const STEPS = data.steps;

  // ------------------------------------------------------------ valleys

  // How far a point lies along a valley's floor and across it.
  function coordinates(valley, [x, y]) {
    const cos = Math.cos(valley.angle), sin = Math.sin(valley.angle);
    const [dx, dy] = [x - valley.centre[0], y - valley.centre[1]];
    const along = cos * dx + sin * dy;
    return { cos, sin, along, across: cos * dy - sin * dx - valley.bend * along ** 2 };
  }

  function value(valley, theta) {
    const { along, across } = coordinates(valley, theta);
    return (valley.flat * along ** 2 + valley.steep * across ** 2) / 2;
  }

  function gradient(valley, theta) {
    const { cos, sin, along, across } = coordinates(valley, theta);
    const byAcross = valley.steep * across;
    const byAlong = valley.flat * along - 2 * valley.bend * along * byAcross;
    return [cos * byAlong - sin * byAcross, sin * byAlong + cos * byAcross];
  }

  function between([low, high]) {
    return low + (high - low) * Math.random();
  }

  // A valley of a kind, and where to start in it, drawn as in training.
  function newValley(kind) {
    const { steeper, bend } = data.kinds[kind], limits = data.limits;
    const curvature = (range) => steeper * Math.exp(between(range.map(Math.log)));
    const inside = (size) => [between([-size, size]), between([-size, size])];
    const valley = {
      centre: inside(limits.centre), angle: between([0, 2 * Math.PI]),
      flat: curvature(limits.flat), steep: curvature(limits.steep), bend: between(bend),
    };
    return { valley, start: inside(limits.start) };
  }

  // ------------------------------------------------------------ the two rules, for one coordinate

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  // One step of an LSTM layer; Keras keeps its four parts in this order.
  function lstm(inputs, state, [kernel, recurrent, bias]) {
    const units = state.output.length, sums = bias.slice();
    inputs.forEach((x, i) => kernel[i].forEach((w, j) => (sums[j] += x * w)));
    state.output.forEach((x, i) => recurrent[i].forEach((w, j) => (sums[j] += x * w)));
    const part = (i) => sums.slice(i * units, (i + 1) * units);
    const [write, keep, fresh, show] = [0, 1, 2, 3].map(part);
    const memory = state.memory.map(
      (m, j) => sigmoid(keep[j]) * m + sigmoid(write[j]) * Math.tanh(fresh[j]));
    return { memory, output: memory.map((m, j) => sigmoid(show[j]) * Math.tanh(m)) };
  }

  // A gradient as its size on a logarithmic scale and its sign.
  function logAndSign(g) {
    const size = Math.abs(g), smallest = Math.exp(-10);
    return size < smallest ? [-1, g / smallest] : [Math.log(size) / 10, Math.sign(g)];
  }

  function learnedRule() {
    const weights = data.weights, [kernel, bias] = weights.slice(6);
    const zeros = weights[1].map(() => 0);
    const states = [0, 1].map(() => ({ output: zeros, memory: zeros }));
    return (g) => {
      let inputs = logAndSign(g);
      for (const layer of [0, 1]) {
        states[layer] = lstm(inputs, states[layer], weights.slice(3 * layer, 3 * layer + 3));
        inputs = states[layer].output;
      }
      return data.rule.output_scale * inputs.reduce((sum, x, i) => sum + x * kernel[i][0], bias[0]);
    };
  }

  function adamRule() {
    const { rate, beta_1, beta_2, end } = data.adam;
    let mean = 0, square = 0, steps = 0;
    return (g) => {
      const now = rate * (end + (1 - end) * (1 - steps / STEPS));
      steps += 1;
      mean += (1 - beta_1) * (g - mean);
      square += (1 - beta_2) * (g * g - square);
      const scale = Math.sqrt(1 - beta_2 ** steps) / (1 - beta_1 ** steps);
      return (-now * scale * mean) / (Math.sqrt(square) + 1e-7);
    };
  }

  // The points of all steps from a start, and f at each.
  function run(makeRule, valley, start) {
    const rules = [makeRule(), makeRule()], points = [start];
    for (let step = 0; step < STEPS; step++) {
      const slopes = gradient(valley, points[step]);
      points.push(points[step].map((x, i) => x + rules[i](slopes[i])));
    }
    return { points, values: points.map((theta) => value(valley, theta)) };
  }

  const RULES = { learned: learnedRule, adam: adamRule };
  moving.optimizer = { run: (name, valley, start) => run(RULES[name], valley, start) };

  // ------------------------------------------------------------ height lines

  // The segments on which f is at a level, on a grid: in each triangle one, or none.
  function heightLine(grid, level) {
    const segments = [];
    const cut = (a, b) => {
      const share = (level - a[2]) / (b[2] - a[2]);
      return [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
    };
    const triangle = (corners) => {
      const ends = [];
      for (let i = 0; i < 3; i++) {
        const a = corners[i], b = corners[(i + 1) % 3];
        if (a[2] < level !== b[2] < level) ends.push(cut(a, b));
      }
      if (ends.length) segments.push(ends);
    };
    for (let i = 1; i < grid.length; i++) {
      for (let j = 1; j < grid.length; j++) {
        triangle([grid[i - 1][j - 1], grid[i][j - 1], grid[i][j]]);
        triangle([grid[i - 1][j - 1], grid[i - 1][j], grid[i][j]]);
      }
    }
    return segments;
  }

  function gridOf(valley, plane) {
    const cells = 80, at = ([low, high], i) => low + ((high - low) * i) / cells;
    return Array.from({ length: cells + 1 }, (_, i) =>
      Array.from({ length: cells + 1 }, (_, j) => {
        const theta = [at(plane.x, i), at(plane.y, j)];
        return [...theta, value(valley, theta)];
      }));
  }

  // ------------------------------------------------------------ the picture

  const place = moving.mount("learned-optimizer");
  if (!place) return;

  const NAMES = { learned: "learned optimizer", adam: "Adam, tuned" };
  const KINDS = { trained: "as in training", bent: "bent", steeper: "10 times as steep" };
  const LEVELS = [0.01, 0.05, 0.2, 0.6, 1.5, 3.5, 8, 16, 30];
  const LOWEST = 1e-8;
  let kind = "trained", scene = data.scene, runs = {};

  const pair = moving.html(place, "div", { class: "pair" });
  const ticks = [-3, -2, -1, 0, 1, 2, 3], powers = [-8, -6, -4, -2, 0, 2];
  const map = new moving.Plane(moving.html(pair, "div"), {
    label: "A valley from above, with the paths of both optimizers",
    x: [-3.3, 3.3], y: [-3.3, 3.3], ratio: () => 1, redraw: drawAll,
    xTicks: ticks, yTicks: ticks, xLabel: "θ₁", yLabel: "θ₂",
  });
  const heights = new moving.Plane(moving.html(pair, "div"), {
    label: "f after each step, on a logarithmic scale",
    x: [0, STEPS], y: [-8, 2.5], redraw: drawAll,
    ratio: (width) => (width > 0.7 * place.clientWidth ? 0.6 : 1), // on a phone it stands below
    xTicks: [0, 5, 10, 15, 20], yTicks: powers, xLabel: "step", yLabel: "f",
    tick: moving.power,
  });
  const lines = moving.svg(map.inside, "path", { class: "heights" });
  const floor = moving.svg(map.inside, "path", { class: "floor" });
  const drawn = {};
  for (const name of ["adam", "learned"]) {
    drawn[name] = [map, heights].map((plane) => ({
      line: moving.svg(plane.inside, "path", { class: `curve ${name}` }),
      marks: moving.svg(plane.inside, "path", { class: `marks ${name}` }),
    }));
  }
  const handle = new moving.DragPoint(map, "Start", (at) => setScene({ ...scene, start: at }));

  const key = moving.html(place, "p", { class: "key" });
  const found = {};
  for (const [name, text] of Object.entries(NAMES)) {
    moving.html(key, "span", { class: name }, text);
    found[name] = moving.html(key, "b", { class: "number" });
  }
  const controls = moving.html(place, "div", { class: "controls" });
  moving.button(controls, "New valley", () => setScene(newValley(kind)));
  const player = new moving.Player(controls, "Steps", STEPS, STEPS, drawPaths);
  moving.choose(controls, "Valleys", KINDS, (value) => {
    kind = value;
    setScene(newValley(kind));
  });

  function setScene(value) {
    scene = value;
    for (const name in RULES) runs[name] = run(RULES[name], scene.valley, scene.start);
    drawAll();
  }

  function drawAll() {
    const grid = gridOf(scene.valley, map);
    const levels = LEVELS.map((level) => level * data.kinds[kind].steeper);
    const segments = levels.flatMap((level) => heightLine(grid, level));
    lines.setAttribute("d", segments.map((segment) => map.line(segment)).join(""));
    const [x, y] = map.place(scene.valley.centre);
    floor.setAttribute("d", `M${x - 6} ${y}h12M${x} ${y - 6}v12`);
    handle.draw(scene.start);
    drawPaths();
  }

  function drawPaths() {
    for (const name in RULES) {
      const { points, values } = runs[name];
      const logs = values.map((f, step) => [step, Math.log10(Math.max(f, LOWEST))]);
      [points, logs].forEach((all, i) => {
        const plane = [map, heights][i], shown = all.slice(0, player.step + 1);
        drawn[name][i].line.setAttribute("d", plane.line(shown));
        const marks = shown.map((point) => plane.line([point]) + "h0");
        drawn[name][i].marks.setAttribute("d", marks.join(""));
      });
      found[name].textContent = `f = ${moving.number(values[player.step])}`;
    }
  }

  setScene(scene);
})(window.mlutilsMoving);
