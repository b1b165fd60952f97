"""The stored result on handwriting: the page shows it, and with Omniglot at hand it comes again."""

import ast
import json
import os

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import handwriting
from mlutils import SplitScore
from mlutils.data import handwritten_braille
from mlutils.data.braille import DOTS_OF
from tools.notebooks import ROOT

RESULTS = json.loads(handwriting.RESULTS.read_text(encoding="utf-8"))
PAGE = json.loads((ROOT / "chapters/zero_shot/attributes.ipynb").read_text(encoding="utf-8"))
JITTERS = [f"print to hand, jitter {jitter}" for jitter in handwriting.JITTERS]
omniglot = pytest.mark.skipif("MLUTILS_DATA" not in os.environ, reason="needs Omniglot")


@pytest.fixture(scope="module")
def hand():
    return handwritten_braille()


def table_of(name):
    """A dict that the page writes down, ``name = {...}``."""
    trees = [
        ast.parse("".join(cell["source"]))
        for cell in PAGE["cells"]
        if "".join(cell["source"]).startswith(f"{name} = {{")
    ]
    ((assignment, *_),) = [tree.body for tree in trees]
    return ast.literal_eval(assignment.value)


def stored(of, *keys):
    """A stored mean and interval."""
    entry = RESULTS[of]
    for key in keys:
        entry = entry[key]
    return entry["accuracy"], entry["ci95"]


def test_the_page_shows_it():
    """Without the letters' cells; pixels, encoder, and the difference."""
    learned_from = [("hand to hand",), *((j, "no letter") for j in JITTERS)]
    columns = ("pixels", "encoder", "encoder - pixels")
    shown = list(table_of("handwriting").values())
    assert shown == [[stored(column, *keys) for column in columns] for keys in learned_from]


def test_the_page_shows_what_the_leak_was_worth():
    """Pixels and encoder at one strength of the distortion, then at the other."""
    rows = {
        "38 cells, no letter": "no letter",
        "all 64 cells": "all cells",
        "all 64 cells: gain": "all cells - no letter",
        "38 cells, 26 of them letters": "the letters among as many",
        "38 cells, 26 of them letters: gain": "the letters among as many - no letter",
    }
    columns = [(encoder, jitter) for jitter in JITTERS for encoder in ("pixels", "encoder")]
    assert table_of("leak") == {
        row: [stored(encoder, jitter, name) for encoder, jitter in columns]
        for row, name in rows.items()
    }


def test_it_says_how_it_was_made():
    assert RESULTS["command"] == "python -m benchmarks.handwriting"
    assert (RESULTS["splits"], RESULTS["people"], RESULTS["printings"]) == (20, 20, 10)
    assert RESULTS["ways"] == {"hand to hand": 6, "print to hand": 26}
    assert list(RESULTS["cells trained"].values()) == [38, 38, 64]
    source = "\n".join("".join(cell["source"]) for cell in PAGE["cells"])
    assert RESULTS["command"] in source


def test_differences_are_those_of_the_means():
    for encoder in ("pixels", "encoder"):
        for jitter in JITTERS:
            for name in handwriting.TRAININGS[1:]:
                gain, _ = stored(encoder, jitter, f"{name} - no letter")
                with_leak, _ = stored(encoder, jitter, name)
                honest, _ = stored(encoder, jitter, "no letter")
                assert gain == pytest.approx(with_leak - honest, abs=0.11)  # each is rounded


def test_what_the_page_says_of_it():
    """The encoder reads more, but for one interval; its leak was worth points, pixels' hardly."""
    for keys, beyond_doubt in (
        (("hand to hand",), True),
        ((JITTERS[0], "no letter"), True),
        ((JITTERS[1], "no letter"), False),
    ):
        mean, ci95 = stored("encoder - pixels", *keys)
        assert mean > 0 and (mean > ci95) == beyond_doubt
    for jitter in JITTERS:
        for name in handwriting.TRAININGS[1:]:
            mean, ci95 = stored("encoder", jitter, f"{name} - no letter")
            assert mean - ci95 > 1
            honest, _ = stored("encoder", jitter, "no letter")
            assert mean > honest / 5
            assert stored("pixels", jitter, f"{name} - no letter")[0] < 1.5


def test_the_prose_has_the_same_numbers():
    """Of the leak with the encoder, and of the first comparison."""
    prose = "\n".join("".join(c["source"]) for c in PAGE["cells"] if c["cell_type"] == "markdown")
    for jitter in JITTERS:
        for name in handwriting.TRAININGS[1:]:
            mean, ci95 = stored("encoder", jitter, f"{name} - no letter")
            assert f"{mean} ± {ci95}" in prose
    pixels, encoder = (stored(of, JITTERS[0], "no letter")[0] for of in ("pixels", "encoder"))
    assert f"{pixels} or {encoder} %" in prose
    gains = [
        stored("pixels", jitter, f"{name} - no letter")[0]
        for jitter in JITTERS
        for name in handwriting.TRAININGS[1:]
    ]
    assert f"it is {min(gains)} to {max(gains)} points" in prose


# ---------------------------------------------------------------- nothing leaks


def check_apart(printed, letters):
    """Assert that no printed cell that is learned from has a letter's dots."""
    trained, tested = ({row.tobytes() for row in part.signatures} for part in (printed, letters))
    assert not trained & tested, "a letter's own cell is in training"
    names = {chr(0x2800 + sum(2 ** (int(n) - 1) for n in dots)) for dots in DOTS_OF.values()}
    assert not set(printed.names) & names, "a letter's own character is in training"
    for dot in printed.signatures.T:
        assert set(dot) == {0, 1}, "a dot that cannot be learned"


@omniglot
def test_the_printed_cells_and_the_letters_share_nothing(hand):
    """Neither a description nor a character; the earlier edition, all 64 cells, is caught."""
    cells, by_name = handwriting.six_dots(0, 0.5), handwriting.trainings(hand)
    assert tuple(by_name) == handwriting.TRAININGS
    assert {name: len(some) for name, some in by_name.items()} == RESULTS["cells trained"]
    check_apart(cells.subset(by_name["no letter"]), hand)
    for leak in handwriting.TRAININGS[1:]:
        with pytest.raises(AssertionError, match="a letter's own cell is in training"):
            check_apart(cells.subset(by_name[leak]), hand)


@omniglot
def test_the_leak_holds_all_letters_and_as_many_cells(hand):
    cells = handwriting.six_dots(0, 0.5)
    letters = {row.tobytes() for row in hand.signatures}
    for seed in (0, 1):
        _, among, every = handwriting.trainings(hand, seed).values()
        assert len(set(among)) == 38 and set(every) == set(range(64))
        assert letters <= {row.tobytes() for row in cells.signatures[among]}
    assert handwriting.trainings(hand, 0) != handwriting.trainings(hand, 1)


# ---------------------------------------------------------------- it comes again


@omniglot
def test_people_drew_the_dots_that_the_letters_have():
    """As many blots as dots, in nine of ten drawings: the order of the letters is a to z."""
    hand = handwritten_braille(size=105)
    dots = np.repeat(hand.signatures.sum(axis=1), hand.images.shape[1])
    blots = [ndimage.label(x[..., 0] > 0, np.ones((3, 3)))[1] for x in hand.x]
    assert np.mean(blots == dots) > 0.9
    assert np.mean(np.roll(blots, 20) == dots) < 0.5  # the letter before


@omniglot
@pytest.mark.parametrize("training", ["no letter", "all cells"])
def test_print_to_hand_comes_again(hand, training):
    pixels = handwriting.encoders()["pixels"]
    again = SplitScore(handwriting.from_print(pixels, hand, 0.5, training))
    expected = stored("pixels", "print to hand, jitter 0.5", training)
    assert (100 * again.mean, 100 * again.ci95) == pytest.approx(expected, abs=1)
