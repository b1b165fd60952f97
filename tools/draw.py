"""Write what the page on which one draws needs: ``python -m tools.draw``.

The encoder of ``benchmarks/results/draw.keras``, and drawings to begin with, go into
``book/_static/draw/trained.js``: a script, so that the page works from a file as well.
"""

import base64
import json
import unicodedata

import mlutils  # noqa: F401  first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
from scipy.interpolate import CubicSpline

from benchmarks import strokes
from mlutils.data import glyphs
from tools.notebooks import ROOT

LEARNER = ROOT / "benchmarks" / "results" / "draw.keras"
TARGET = ROOT / "book" / "_static" / "draw" / "trained.js"
SCRIPT, CHARACTERS = "Georgian Asomtavruli", 20  # of the test scripts of the glyphs
PAD = 100  # units of a pad's side
OTHERS = 3  # drawings of each character by other hands
# Signs to try the page with, on a pad of 8 x 8.
SIGNS = {
    "house": [[(1, 8), (1, 4), (4, 1), (7, 4), (7, 8), (1, 8)], [(3, 8), (3, 5), (5, 5), (5, 8)]],
    "fish": [[(8, 2), (6, 5), (3, 6), (1, 4), (3, 2), (6, 3), (8, 6)]],
    "star": [[(2, 7), (4, 1), (6, 7), (1, 3), (7, 3), (2, 7)]],
    "tree": [[(4, 8), (4, 1)], [(2, 3), (4, 1), (6, 3)], [(1, 6), (4, 3), (7, 6)]],
    "spiral": [[(4, 4), (5, 4), (5, 5), (3, 5), (3, 3), (6, 3), (6, 6), (2, 6), (2, 2), (7, 2)]],
    "cup": [[(1, 2), (1.5, 7), (5, 7), (5.5, 2), (1, 2)], [(5.5, 3), (7.5, 3), (7, 5), (5.2, 5.5)]],
}


def encoder(learner):
    """Kernels and biases of the convolutions, in the order in which they are applied."""
    layers = [x for x in learner.encoder.layers if isinstance(x, keras.layers.Conv2D)]
    return [{"kernel": text(x.kernel), "bias": text(x.bias)} for x in layers]


def text(weights):
    """Weights as numbers of 16 bits in base64, row by row; they must be such numbers."""
    weights = np.asarray(weights)
    half = weights.astype("<f2")
    if not np.array_equal(half.astype(weights.dtype), weights):
        raise ValueError("The weights are no numbers of 16 bits; python -m benchmarks.draw train")
    return base64.b64encode(half.tobytes()).decode()


def characters(originals, seed):
    """Names, and drawings on a pad: the original first, then by other hands."""
    random = np.random.default_rng(seed)
    return [
        {
            "name": name,
            "drawings": [
                placed(original),
                *(placed(strokes.redrawn(original, random, 0.8)) for _ in range(OTHERS)),
            ],
        }
        for name, original in originals.items()
    ]


def placed(drawing):
    """A drawing in the middle of a pad, rounded, as lists."""
    points = np.concatenate(drawing)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = 0.7 * PAD / (high - low).max()
    drawing = [strokes.simplified((s - (low + high) / 2) * scale + PAD / 2, 0.3) for s in drawing]
    return [np.round(stroke, 1).tolist() for stroke in drawing]


def script():
    """The first characters of the script, by name, as strokes of their print."""
    known = glyphs("test").of_scripts(SCRIPT).names[:CHARACTERS]
    return {
        unicodedata.name(c).split()[-1].lower(): strokes.of_print(c, "DejaVuSans") for c in known
    }


def signs():
    """The signs, with smooth strokes where they have many points."""
    return {
        name: [curve(stroke) if len(stroke) > 6 else np.array(stroke, float) for stroke in drawing]
        for name, drawing in SIGNS.items()
    }


def curve(points):
    """A smooth stroke through some points."""
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return CubicSpline(along, points)(np.linspace(0, along[-1], 60))


def contents():
    """The script's text."""
    layers = encoder(keras.saving.load_model(LEARNER))
    lines = [
        "// Made by python -m tools.draw of benchmarks/results/draw.keras and mlutils.data.glyphs."
    ]
    lines += ["const ENCODER = ["]
    lines += [
        f'  {{ kernel: decoded("{layer["kernel"]}"), bias: decoded("{layer["bias"]}") }},'
        for layer in layers
    ]
    lines += ["];"]
    for name, some in (("SIGNS", characters(signs(), 0)), ("SCRIPT", characters(script(), 1))):
        rows = [f"  {json.dumps(one, separators=(',', ':'))}," for one in some]
        lines += [f"const {name} = [", *rows, "];"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(contents(), encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size:,} bytes")
