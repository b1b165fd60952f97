"""The stored result on handwriting: the page shows it, and with Omniglot at hand it comes again."""

import ast
import json
import os

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import handwriting
from mlutils.data import handwritten_braille
from tools.notebooks import ROOT

RESULTS = json.loads(handwriting.RESULTS.read_text(encoding="utf-8"))
omniglot = pytest.mark.skipif("MLUTILS_DATA" not in os.environ, reason="needs Omniglot")


def test_the_page_shows_it():
    page = json.loads((ROOT / "chapters/zero_shot/attributes.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in page["cells"]]
    (cell,) = [source for source in sources if source.startswith("handwriting = {")]
    shown = ast.literal_eval(cell.partition("Table(")[0].removeprefix("handwriting = "))
    stored = {}
    for name, entry in RESULTS.items():
        hand, printed = entry["hand to hand"], entry["print to hand"].values()
        stored[name] = hand["accuracy"], hand["ci95"], *(p["accuracy"] for p in printed)
    assert shown == stored


@omniglot
def test_people_drew_the_dots_that_the_letters_have():
    """As many blots as dots, in nine of ten drawings: the order of the letters is a to z."""
    hand = handwritten_braille(size=105)
    dots = np.repeat(hand.signatures.sum(axis=1), hand.images.shape[1])
    blots = [ndimage.label(x[..., 0] > 0, np.ones((3, 3)))[1] for x in hand.x]
    assert np.mean(blots == dots) > 0.9
    assert np.mean(np.roll(blots, 20) == dots) < 0.5  # the letter before


@omniglot
def test_print_to_hand_comes_again():
    pixels = handwriting.encoders()["pixels"]
    again = handwriting.from_print(pixels, handwritten_braille(), jitter=0.5)
    stored = RESULTS["pixels"]["print to hand"]["jitter 0.5"]["accuracy"]
    assert 100 * again == pytest.approx(stored, abs=1)
