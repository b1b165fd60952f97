import importlib
import unicodedata

import numpy as np
import pytest

from mlutils.data import Characters, Described, braille, handwritten_braille
from mlutils.data.plumbing import rendering

MODULE = importlib.import_module("mlutils.data.braille")  # its name in the package is the function
ONE_DOT = [1 << bit for bit in range(8)]  # the cells of dot 1, 2, ..., 8


@pytest.fixture(scope="module")
def cells(cache):
    return braille()


@pytest.fixture(scope="module")
def printed(cache):
    return braille(jitter=0)


def dots_of(data):
    """The dots of each name, as ``"145"``."""
    rows = zip(data.names, data.signatures, strict=True)
    return {name: "".join(str(n + 1) for n in np.flatnonzero(row)) for name, row in rows}


def test_the_256_cells_of_unicode_and_a_1_for_each_dot(cells):
    """BRAILLE PATTERN DOTS-1245 has these four."""
    assert isinstance(cells, Described) and len(cells) == 256
    assert cells.names == tuple(map(chr, range(0x2800, 0x2900)))
    assert set(cells.scripts) == {"Braille"} and cells.source == rendering.SOURCE
    assert cells.images.dtype == np.uint8 and cells.images.shape == (256, 20, 28, 28, 1)
    assert cells.attributes == tuple(f"dot {n}" for n in range(1, 9))
    dots = dots_of(cells)
    assert len(set(dots.values())) == 256 and dots["\u2800"] == "" and dots["\u2813"] == "125"
    for name in cells.names[1:]:
        assert unicodedata.name(name) == f"BRAILLE PATTERN DOTS-{dots[name]}"


def test_only_the_blank_cell_is_white(cells, printed):
    """A small dot of five pixels of ink at the least."""
    for some in (cells, printed):
        assert not some.images[0].any()
        assert np.min(some.images[1:].sum(axis=(2, 3, 4), dtype=int)) > 5 * 255


def check_layout(pictures):
    """Assert that one-dot cells ``(8, 28, 28)`` have 1, 2, 3, 7 at the left and 4, 5, 6, 8."""
    ink = pictures.astype(float)
    rows, columns = (ink.sum(axis) @ np.arange(28) / ink.sum((1, 2)) for axis in (2, 1))
    left, right = [0, 1, 2, 6], [3, 4, 5, 7]
    assert np.max(columns[left]) < 13.5 < np.min(columns[right]), "not in its column"
    for column in (left, right):
        assert np.min(np.diff(rows[column])) > 3, "not below the one before"
        np.testing.assert_allclose(columns[column], columns[column[0]], atol=0.1)
    np.testing.assert_allclose(rows[left], rows[right], atol=0.1)


def test_the_ink_lies_where_the_dots_are(printed):
    for drawer in range(20):
        check_layout(printed.images[ONE_DOT, drawer, :, :, 0])


def test_the_check_rejects_dots_counted_otherwise(printed):
    """Four down the left, then four; row by row; highest bit first."""
    for order in ([0, 1, 2, 6, 3, 4, 5, 7], [0, 3, 1, 4, 2, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0]):
        with pytest.raises(AssertionError, match=r"not in its column|not below"):
            check_layout(printed.images[ONE_DOT, 0, :, :, 0][order])


def test_a_cell_is_the_sum_of_its_dots(printed):
    """In the frame of the full cell no dot moves when others come; each pixel is rounded once."""
    one_dot = printed.images[ONE_DOT].astype(int)
    for cell, picture in enumerate(printed.images):
        dots = [n for n in range(8) if cell >> n & 1]
        assert np.max(np.abs(one_dot[dots].sum(axis=0) - picture)) <= max(1, len(dots))


def test_without_the_frame_all_one_dot_cells_would_be_the_same():
    """The wrong version: a print in the box of its own ink."""
    for face in rendering.faces_of(MODULE.FULL):
        alone = [rendering.printed(chr(0x2800 + cell), face) for cell in ONE_DOT]
        assert np.max(np.abs(np.diff(np.stack(alone).astype(int), axis=0))) < 40
        framed = [rendering.printed(chr(0x2800 + cell), face, MODULE.FULL) for cell in ONE_DOT]
        assert not np.any(np.stack(framed).astype(int)[1:] * framed[0])


def test_dots_are_square_or_round(printed):
    """At its corner a square has as much ink as its sides have together, a disc has less.

    In the box of dot 1, three or four pixels a side, whose sides are pale where they end within
    a pixel; a corner pixel of a square has the product of both shares.
    """
    squareness = []
    for picture in printed.images[1, :, :, :, 0].astype(float):
        rows, columns = (np.flatnonzero(picture.max(axis) > 64) for axis in (1, 0))
        box = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        middles = (box[0, 1:-1].mean() * box[1:-1, 0].mean()) / 255
        squareness.append(box[0, 0] / middles)
    squareness = np.array(squareness)
    assert np.any(squareness > 0.9) and np.any(squareness < 0.6)
    assert np.all((squareness > 0.9) | (squareness < 0.6))


def test_jitter_makes_each_drawing_another(cells, printed):
    """Drawn, the twenty of a cell all differ; printed, they are of four kinds at the most."""
    full = [{d.tobytes() for d in some.images[255]} for some in (cells, printed)]
    assert len(full[0]) == 20 and 2 <= len(full[1]) <= 4
    assert np.all(np.any(printed.images != cells.images, axis=(1, 2, 3, 4))[1:])
    np.testing.assert_array_equal(printed.signatures, cells.signatures)
    np.testing.assert_array_equal(braille(jitter=-0.0).images, printed.images)


# ---------------------------------------------------------------- letters, by hand


def test_letters_by_hand_are_described_by_six_dots(monkeypatch):
    """Louis Braille's letters: k is a with dot 3, u is a with dots 3 and 6; w stands alone.

    For the download stand 26 characters of Braille, after one of another script.
    """

    def few(subset, size):
        assert subset == "background"
        images = np.zeros((27, 20, size, size, 1), np.uint8)
        images[:] = np.arange(27).reshape(27, 1, 1, 1, 1)
        names = tuple(f"character{n:02d}" for n in range(27))
        return Characters(images, names, ("Greek", *["Braille"] * 26), "stand-in")

    monkeypatch.setattr(MODULE, "omniglot", few)
    letters = handwritten_braille(size=14)
    assert letters.names == tuple("abcdefghijklmnopqrstuvwxyz") and letters.source == "stand-in"
    assert letters.attributes == tuple(f"dot {n}" for n in range(1, 7))
    np.testing.assert_array_equal(letters.images[:, 0, 0, 0, 0], np.arange(1, 27))
    assert letters.images.shape == (26, 20, 14, 14, 1)
    dots = dots_of(letters)
    by_hand = {"a": "1", "c": "14", "j": "245", "k": "13", "t": "2345", "u": "136", "v": "1236"}
    by_hand |= {"w": "2456", "x": "1346", "y": "13456", "z": "1356", "g": "1245", "q": "12345"}
    assert {name: dots[name] for name in by_hand} == by_hand
    assert len(set(dots.values())) == 26
