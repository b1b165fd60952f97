"use strict";
/* The picture of a drawing and its embedding.  The same in Python: benchmarks/strokes.py and the
   encoder of benchmarks/results/draw.keras; tests/browser/test_draw.py holds the two together. */

const SIZE = 28; // pixels of a picture's side
const BOX = 20; // of a drawing's longer side
const LINE = 2; // width of the line
const DOT = 0.1; // what is smaller than this part of the pad is not enlarged further

/* Strokes [[x, y], ...] in the picture: the box around them goes to its middle, the longer side to
   20 pixels. */
function placed(strokes, pad) {
  const points = strokes.flat();
  const ends = [0, 1].map((axis) => {
    const values = points.map((point) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  });
  const scale = BOX / Math.max(...ends.map(([low, high]) => high - low), DOT * pad);
  const move = (value, axis) => (value - (ends[axis][0] + ends[axis][1]) / 2) * scale + SIZE / 2;
  return strokes.map((stroke) => stroke.map((point) => point.map(move)));
}

/* A pixel whose middle is d from the line is 1.5 - d black, at most 1 and at least 0. */
function pictureOf(strokes, pad) {
  const nearest = new Float64Array(SIZE * SIZE).fill(Infinity); // squared distances
  for (const stroke of placed(strokes, pad)) {
    for (let i = 0; i < Math.max(1, stroke.length - 1); i++) {
      const [start, end] = [stroke[i], stroke[i + 1] ?? stroke[i]];
      for (let pixel = 0; pixel < nearest.length; pixel++) {
        const square = squareTo((pixel % SIZE) + 0.5, Math.floor(pixel / SIZE) + 0.5, start, end);
        if (square < nearest[pixel]) nearest[pixel] = square;
      }
    }
  }
  const reach = LINE / 2 + 0.5;
  return Float32Array.from(nearest, (square) => Math.min(1, Math.max(0, reach - Math.sqrt(square))));
}

/* The squared distance from a point to a straight piece of line. */
function squareTo(x, y, start, end) {
  const [dx, dy] = [end[0] - start[0], end[1] - start[1]];
  const [right, down] = [x - start[0], y - start[1]];
  const share = (right * dx + down * dy) / Math.max(dx * dx + dy * dy, 1e-12);
  const along = Math.min(1, Math.max(0, share));
  return (right - along * dx) ** 2 + (down - along * dy) ** 2;
}

/* Four times: a 3 x 3 convolution, ReLU, and the largest of each 2 x 2 pixels. */
function embeddingOf(picture) {
  let [values, side, channels] = [picture, SIZE, 1];
  for (const { kernel, bias } of ENCODER) {
    values = pooled(convolved(values, side, channels, kernel, bias), side, bias.length);
    [side, channels] = [side >> 1, bias.length];
  }
  return Array.from(values);
}

/* Kernels are as Keras has them: row, column, channel in, channel out. */
function convolved(values, side, channels, kernel, bias) {
  const filters = bias.length;
  const out = new Float32Array(side * side * filters);
  const sum = new Float64Array(filters);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      sum.set(bias);
      for (let k = 0; k < 9; k++) {
        const [y, x] = [row + Math.floor(k / 3) - 1, column + (k % 3) - 1];
        if (y < 0 || x < 0 || y >= side || x >= side) continue;
        const from = (y * side + x) * channels;
        for (let channel = 0; channel < channels; channel++) {
          const value = values[from + channel];
          if (value === 0) continue; // most are: paper, and what ReLU has cut
          const weights = (k * channels + channel) * filters;
          for (let f = 0; f < filters; f++) sum[f] += value * kernel[weights + f];
        }
      }
      out.set(sum, (row * side + column) * filters);
    }
  }
  return out;
}

/* The ReLU is in it: the largest of four numbers and zero. */
function pooled(values, side, filters) {
  const half = side >> 1;
  const out = new Float32Array(half * half * filters);
  for (let row = 0; row < 2 * half; row++) {
    for (let column = 0; column < 2 * half; column++) {
      const from = (row * side + column) * filters;
      const to = ((row >> 1) * half + (column >> 1)) * filters;
      for (let f = 0; f < filters; f++) out[to + f] = Math.max(out[to + f], values[from + f]);
    }
  }
  return out;
}

/* Squared distances of an embedding to others, and the softmax of minus them. */
function compared(embedding, others) {
  const squares = others.map((other) =>
    other.reduce((sum, value, i) => sum + (value - embedding[i]) ** 2, 0),
  );
  const least = Math.min(...squares);
  const weights = squares.map((square) => Math.exp(least - square));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return { squares, shares: weights.map((weight) => weight / total) };
}

/* Text to the numbers of 16 bits each that it stands for (IEEE 754, no infinities). */
function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float32Array.from(new Uint16Array(bytes.buffer), (bits) => {
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction;
    return bits >> 15 ? -size : size;
  });
}
