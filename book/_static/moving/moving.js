// What the moving pictures share: elements, a plane with axes, points to drag, a player of steps.
"use strict";

window.mlutilsMoving = { data: {} };

(function (moving) {
  // ------------------------------------------------------------ elements

  function add(parent, node, attributes, text) {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  }

  moving.html = function (parent, tag, attributes = {}, text) {
    return add(parent, document.createElement(tag), attributes, text);
  };

  moving.svg = function (parent, tag, attributes = {}, text) {
    return add(parent, document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, text);
  };

  // The place of a moving picture, in front of its caption; null on a page without its figure.
  moving.mount = function (name) {
    const figure = document.querySelector(`figure.moving.${name}`);
    if (!figure) return null;
    const place = document.createElement("div");
    place.className = "moving-live";
    figure.insertBefore(place, figure.querySelector("figcaption"));
    figure.classList.add("is-live");
    return place;
  };

  moving.button = function (parent, text, action) {
    const button = moving.html(parent, "button", { type: "button" }, text);
    button.addEventListener("click", action);
    return button;
  };

  // Radio buttons; choices maps values to texts, and action gets the value that was chosen.
  moving.choose = function (parent, title, choices, action) {
    const group = moving.html(parent, "fieldset");
    moving.html(group, "legend", {}, title);
    Object.entries(choices).forEach(([value, text], i) => {
      const label = moving.html(group, "label");
      const input = moving.html(label, "input", { type: "radio", name: title, value });
      input.checked = i === 0;
      input.addEventListener("change", () => action(value));
      label.append(text);
    });
  };

  // ------------------------------------------------------------ a plane

  const MARGIN = { left: 44, right: 10, top: 8, bottom: 38 };
  let planes = 0;

  // options: label for screen readers; x and y, the limits; xTicks, yTicks, xLabel, yLabel;
  // ratio, from the width to height / width; tick, from a number on the y axis to its text;
  // redraw, called when the size changes.
  moving.Plane = class {
    constructor(parent, options) {
      Object.assign(this, { tick: moving.minus, width: 0 }, options);
      const id = `moving-plane-${++planes}`;
      this.root = moving.svg(parent, "svg", { role: "group", "aria-label": options.label });
      const clip = moving.svg(this.root, "clipPath", { id });
      this.frame = moving.svg(clip, "rect");
      this.axes = moving.svg(this.root, "g", { class: "axes", "aria-hidden": "true" });
      this.inside = moving.svg(this.root, "g", { "clip-path": `url(#${id})` });
      this.resize();
      new ResizeObserver(() => {
        if (this.root.clientWidth !== this.width) {
          this.resize();
          this.redraw();
        }
      }).observe(this.root);
    }

    resize() {
      this.width = this.root.clientWidth;
      this.across = Math.max(this.width - MARGIN.left - MARGIN.right, 1);
      this.down = this.across * this.ratio(this.width);
      this.root.style.height = `${this.down + MARGIN.top + MARGIN.bottom}px`;
      const area = { x: MARGIN.left, y: MARGIN.top, width: this.across, height: this.down };
      for (const [name, value] of Object.entries(area)) this.frame.setAttribute(name, value);
      this.drawAxes();
    }

    // From data to pixels, and back.
    place([x, y]) {
      return [
        MARGIN.left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * this.across,
        MARGIN.top + ((this.y[1] - y) / (this.y[1] - this.y[0])) * this.down,
      ];
    }

    find(event) {
      const box = this.root.getBoundingClientRect();
      const right = (event.clientX - box.left - MARGIN.left) / this.across;
      const down = (event.clientY - box.top - MARGIN.top) / this.down;
      return [
        this.x[0] + right * (this.x[1] - this.x[0]),
        this.y[1] - down * (this.y[1] - this.y[0]),
      ];
    }

    drawAxes() {
      this.axes.replaceChildren();
      const bottom = MARGIN.top + this.down, right = MARGIN.left + this.across;
      const line = (x1, y1, x2, y2) => moving.svg(this.axes, "line", { x1, y1, x2, y2 });
      const text = (x, y, anchor, content) =>
        moving.svg(this.axes, "text", { x, y, "text-anchor": anchor }, content);
      for (const value of this.xTicks) {
        const [x] = this.place([value, 0]);
        line(x, MARGIN.top, x, bottom);
        text(x, bottom + 16, "middle", moving.minus(value));
      }
      for (const value of this.yTicks) {
        const [, y] = this.place([0, value]);
        line(MARGIN.left, y, right, y);
        text(MARGIN.left - 6, y + 4, "end", this.tick(value));
      }
      text(MARGIN.left + this.across / 2, bottom + 33, "middle", this.xLabel);
      const middle = MARGIN.top + this.down / 2;
      const upright = text(13, middle, "middle", this.yLabel);
      upright.setAttribute("transform", `rotate(-90 13 ${middle})`);
    }

    // The attribute d of a line through points; it ends where they are no numbers any more.
    line(points) {
      const last = points.findIndex((point) => !point.every(Number.isFinite));
      return points
        .slice(0, last < 0 ? undefined : last)
        .map((point) => this.place(point).map((v) => Math.max(-1e4, Math.min(1e4, v)).toFixed(2)))
        .map((place, i) => (i ? "L" : "M") + place.join(" "))
        .join("");
    }
  };

  // ------------------------------------------------------------ a point to drag

  // A point of a plane that mouse, finger and arrow keys move; changed gets its new place.
  moving.DragPoint = class {
    constructor(plane, label, changed) {
      Object.assign(this, { plane, changed, at: [0, 0] });
      this.root = moving.svg(plane.root, "g", {
        class: "drag",
        role: "slider",
        tabindex: 0,
        "aria-label": `${label}; arrow keys move it`,
        "aria-valuemin": plane.y[0],
        "aria-valuemax": plane.y[1],
      });
      moving.svg(this.root, "circle", { r: 18, class: "hit" });
      moving.svg(this.root, "circle", { r: 7, class: "dot" });
      // Or the page scrolls under a finger: touch-action does nothing for a part of a drawing.
      const keep = (event) => event.preventDefault();
      this.root.addEventListener("touchstart", keep, { passive: false });
      this.root.addEventListener("pointerdown", (event) => {
        this.root.setPointerCapture(event.pointerId);
      });
      this.root.addEventListener("pointermove", (event) => {
        if (this.root.hasPointerCapture(event.pointerId)) this.move(plane.find(event));
      });
      this.root.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      const directions = {
        ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1],
      };
      const direction = directions[event.key];
      if (!direction) return;
      event.preventDefault();
      const size = event.shiftKey ? 1 : 0.2;
      this.move(this.at.map((v, i) => v + size * direction[i]));
    }

    move(to) {
      const limits = [this.plane.x, this.plane.y];
      this.at = to.map((v, i) => Math.max(limits[i][0], Math.min(limits[i][1], v)));
      this.changed(this.at);
    }

    draw(at) {
      this.at = at;
      this.root.setAttribute("transform", `translate(${this.plane.place(at).join(" ")})`);
      const [x, y] = at.map((v) => v.toFixed(1));
      this.root.setAttribute("aria-valuenow", y);
      this.root.setAttribute("aria-valuetext", `${x} across, ${y} up`);
    }
  };

  // ------------------------------------------------------------ a player

  // A slider of steps 0 to last with a button that plays them; changed gets the step.  Nothing
  // plays before somebody asks for it.
  moving.Player = class {
    constructor(parent, name, last, first, changed) {
      Object.assign(this, { last, changed, timer: null });
      this.play = moving.button(parent, "Play", () => (this.timer ? this.stop() : this.start()));
      moving.button(parent, "Step", () => {
        this.stop();
        this.set(this.step === last ? 0 : this.step + 1);
      });
      const label = moving.html(parent, "label", { class: "steps" }, name);
      const range = { type: "range", min: 0, max: last, step: 1 };
      this.slider = moving.html(label, "input", range);
      this.number = moving.html(label, "span", { class: "number" });
      this.slider.addEventListener("input", () => {
        this.stop();
        this.set(Number(this.slider.value));
      });
      this.show(first);
    }

    show(step) {
      this.step = step;
      this.slider.value = step;
      this.number.textContent = step;
    }

    set(step) {
      this.show(step);
      this.changed(step);
    }

    start() {
      this.set(this.step === this.last ? 0 : this.step);
      this.play.textContent = "Pause";
      this.timer = setInterval(() => {
        this.set(this.step + 1);
        if (this.step === this.last) this.stop();
      }, 450);
    }

    stop() {
      clearInterval(this.timer);
      this.timer = null;
      this.play.textContent = "Play";
    }
  };

  moving.minus = (value) => String(value).replace("-", "−");

  moving.power = function (n) {
    const digits = [...String(Math.abs(n))].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
    return `10${n < 0 ? "⁻" : ""}${digits.join("")}`;
  };

  // Three digits; what is no number any more has diverged.
  moving.number = function (value) {
    if (!Number.isFinite(value)) return "diverged";
    if (value === 0 || (value >= 0.001 && value < 1000)) return value.toPrecision(3);
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits} · ${moving.power(Number(power))}`;
  };
})(window.mlutilsMoving);
