"use strict";
/* Boxes with one drawing each, a pad for a new one, and the network's answer after each stroke. */

const PAD = 100; // units of a pad's side, whatever its size on the screen

function element(name, attributes = {}, ...children) {
  const kind = ["svg", "polyline"].includes(name) ? "2000/svg" : "1999/xhtml";
  const made = document.createElementNS(`http://www.w3.org/${kind}`, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function line(stroke) {
  const points = stroke.length > 1 ? stroke : [...stroke, ...stroke];
  return element("polyline", { points: points.join(" ") });
}

/* A square with a drawing; with `changed`, which is called after each stroke, one to draw in. */
class Pad {
  constructor(name, changed) {
    this.name = name;
    this.svg = element("svg", { viewBox: `0 0 ${PAD} ${PAD}`, role: "img" });
    this.show([]);
    if (changed) this.listen(changed);
  }

  show(strokes) {
    if (strokes !== this.strokes) this.embedding = null;
    this.strokes = strokes;
    this.svg.replaceChildren(...strokes.map(line));
    this.svg.setAttribute("aria-label", this.name + (strokes.length ? "" : ", empty"));
  }

  listen(changed) {
    let [stroke, pointer, shown] = [null, null, null];
    const add = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY);
      const at = place.matrixTransform(this.svg.getScreenCTM().inverse());
      const [x, y] = [at.x, at.y].map((v) => Math.min(PAD, Math.max(0, v)));
      const [lastX, lastY] = stroke.at(-1) ?? [Infinity, Infinity];
      if (Math.hypot(x - lastX, y - lastY) > 0.5) stroke.push([x, y]);
    };
    const end = (event) => {
      if (!stroke || event.pointerId !== pointer) return;
      this.show([...this.strokes, stroke]);
      stroke = null;
      changed();
    };
    this.svg.classList.add("draw-here");
    this.svg.addEventListener("pointerdown", (event) => {
      if (stroke || event.button !== 0) return;
      event.preventDefault();
      [stroke, pointer] = [[], event.pointerId];
      this.svg.setPointerCapture(pointer);
      add(event);
      shown = this.svg.appendChild(line(stroke));
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (!stroke || event.pointerId !== pointer) return;
      event.getCoalescedEvents().forEach(add);
      add(event);
      if (stroke.length > 1) shown.setAttribute("points", stroke.join(" "));
    });
    this.svg.addEventListener("pointerup", end);
    this.svg.addEventListener("pointercancel", end);
  }

  picture() {
    return pictureOf(this.strokes, PAD);
  }

  /* Where the drawing lies; null if there is none. */
  embedded() {
    if (this.strokes.length) this.embedding ??= embeddingOf(this.picture());
    return this.embedding;
  }
}

/* One box for each character, with its drawing, its name, its bar and its distance. */
class Box {
  constructor(name, changed) {
    this.pad = new Pad(name, changed);
    [this.bar, this.share, this.distance] = [element("span"), element("b"), element("span")];
    const numbers = element("div", { class: "draw-numbers" }, this.share, this.distance);
    const bar = element("div", { class: "draw-bar" }, this.bar);
    const title = element("div", { class: "draw-name" }, name);
    this.root = element("div", { class: "draw-box" }, this.pad.svg, title, bar, numbers);
  }

  tell(share, square, nearest = false) {
    this.root.classList.toggle("draw-nearest", nearest);
    this.bar.style.width = `${100 * (share ?? 0)}%`;
    this.share.textContent = share >= 0.01 ? percent(share) : "";
    this.distance.textContent = square?.toFixed(1) ?? "";
  }
}

function percent(share) {
  if (share < 0.01) return "< 1 %";
  return share > 0.99 ? "> 99 %" : `${Math.round(100 * share)} %`;
}

class Playground {
  /* `characters` are examples, with names and drawings; with `own` the boxes are for drawing. */
  constructor(root, characters, own) {
    [this.characters, this.own, this.turn, this.history] = [characters, own, 0, []];
    const changed = () => this.changed();
    const names = characters.map((one, i) => (own ? `sign ${i + 1}` : one.name));
    this.boxes = names.map((name) => new Box(name, own && changed));
    this.query = new Pad("The new drawing", changed);
    this.pads = [...this.boxes.map((box) => box.pad), this.query];
    this.seen = element("canvas", { width: SIZE, height: SIZE, role: "img" });
    this.seen.setAttribute("aria-label", "What the network sees: the new drawing, 28 x 28 pixels");
    this.answer = element("p", { role: "status", class: "draw-answer" });
    root.replaceChildren(...this.parts());
    if (!own) this.boxes.forEach((box, i) => box.pad.show(characters[i].drawings[0]));
    this.state = this.pads.map((pad) => pad.strokes);
    this.tell();
    this.pads.forEach((pad) => setTimeout(() => pad.embedded())); // one by one, in idle moments
  }

  parts() {
    const button = (text, act) => {
      const made = element("button", { type: "button" }, text);
      made.addEventListener("click", () => act());
      return made;
    };
    const buttons = [
      button("Show an example", () => this.example()),
      button("Undo", () => this.undo()),
      button("Clear the new drawing", () => this.clear([this.query])),
    ];
    if (this.own) buttons.push(button("Clear all", () => this.clear(this.pads)));
    const seen = element("div", { class: "draw-seen" }, "what the network sees", this.seen);
    return [
      element("div", { class: "draw-boxes" }, ...this.boxes.map((box) => box.root)),
      element(
        "div",
        { class: "draw-new" },
        element("div", { class: "draw-name" }, "draw one of them here"),
        this.query.svg,
        seen,
      ),
      this.answer,
      element("div", { class: "draw-buttons" }, ...buttons),
    ];
  }

  /* After each stroke and each button. */
  changed() {
    this.history.push(this.state);
    this.state = this.pads.map((pad) => pad.strokes);
    this.tell();
  }

  undo() {
    const before = this.history.pop();
    if (!before) return;
    this.state = before;
    this.pads.forEach((pad, i) => pad.show(before[i]));
    this.tell();
  }

  clear(pads) {
    if (!pads.some((pad) => pad.strokes.length)) return;
    pads.forEach((pad) => pad.show([]));
    this.changed();
  }

  /* Another character each time. */
  example() {
    if (this.own) this.boxes.forEach((box, i) => box.pad.show(this.characters[i].drawings[0]));
    const [, ...others] = this.characters[this.turn % this.boxes.length].drawings;
    this.query.show(others[Math.floor(this.turn / this.boxes.length) % others.length]);
    this.turn += 1;
    this.changed();
  }

  /* Compare the new drawing with those in the boxes, and show the answer. */
  tell() {
    this.paint();
    const taught = this.boxes.filter((box) => box.pad.embedded());
    this.boxes.forEach((box) => box.tell());
    if (taught.length < 2) {
      this.answer.textContent = "Draw a sign into each of two small fields or more.";
    } else if (!this.query.embedded()) {
      this.answer.textContent = "Now draw one of them again, in the large field.";
    } else {
      const others = taught.map((box) => box.pad.embedding);
      const { squares, shares } = compared(this.query.embedding, others);
      const order = shares.map((_, i) => i).sort((i, j) => squares[i] - squares[j]);
      taught.forEach((box, i) => box.tell(shares[i], squares[i], i === order[0]));
      const [first, second] = order.map((i) => `${taught[i].pad.name} (${percent(shares[i])})`);
      this.answer.textContent = `The network says ${first}; next comes ${second}.`;
    }
  }

  /* The picture that the network sees. */
  paint() {
    const image = new ImageData(SIZE, SIZE);
    const picture = this.query.strokes.length ? this.query.picture() : new Float32Array(SIZE ** 2);
    picture.forEach((ink, i) => image.data.fill(255 * (1 - ink), 4 * i, 4 * i + 3));
    picture.forEach((_, i) => (image.data[4 * i + 3] = 255));
    this.seen.getContext("2d").putImageData(image, 0, 0);
  }
}

const PLAYGROUNDS = [
  new Playground(document.getElementById("draw-own"), SIGNS, true),
  new Playground(document.getElementById("draw-script"), SCRIPT, false),
];

/* Paper shows an example where nobody has done anything yet. */
window.addEventListener("beforeprint", () => {
  PLAYGROUNDS.filter((one) => !one.history.length).forEach((one) => one.example());
});
