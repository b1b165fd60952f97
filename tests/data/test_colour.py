"""Drawings in colour."""

import numpy as np
import pytest

from mlutils.data import in_colour

DRAWINGS = np.zeros((40, 6, 7, 1), np.uint8)
DRAWINGS[:, 2:4, 3] = 255
DRAWINGS[:, 5, 5] = 51  # a fifth


@pytest.mark.parametrize("photographs", [False, True])
def test_ink_is_dark_and_paper_light(photographs):
    pictures = in_colour(DRAWINGS, 3, photographs)
    assert pictures.shape == (40, 6, 7, 3) and pictures.dtype == np.uint8
    ink, paper = pictures[:, 2, 3], pictures[:, 0]
    assert ink.max() < 100 <= paper.min()
    np.testing.assert_array_equal(pictures[:, 3, 3], ink)  # one ink in a drawing
    assert len(np.unique(ink, axis=0)) > 30 and len(np.unique(paper.reshape(-1, 3), axis=0)) > 30
    assert (len(np.unique(paper[0], axis=0)) > 1) == photographs  # one paper, or many


def test_grey_is_between_by_its_share():
    pictures = in_colour(DRAWINGS).astype(int)
    expected = (pictures[:, 2, 3] + 4 * pictures[:, 0, 0]) / 5
    assert np.abs(pictures[:, 5, 5] - expected).max() <= 0.5


def test_same_seed_same_colours():
    first = in_colour(DRAWINGS, 1, True)
    np.testing.assert_array_equal(first, in_colour(DRAWINGS, 1, True))
    assert (first != in_colour(DRAWINGS, 2, True)).any()
    assert in_colour(DRAWINGS[:0]).shape == (0, 6, 7, 3)


@pytest.mark.parametrize(
    "drawings, seed, says",
    [
        (DRAWINGS / 255, 0, "uint8 array .* of float64"),
        (DRAWINGS[..., 0], 0, r"got ndarray of shape \(40, 6, 7\)"),
        (DRAWINGS.tolist(), 0, "got a list of 40"),
        (DRAWINGS, -1, "seed"),
    ],
)
def test_wrong_input_raises(drawings, seed, says):
    with pytest.raises(ValueError, match=says):
        in_colour(drawings, seed)


@pytest.mark.parametrize("wrong", ["no", 1, None])
def test_photographs_are_wanted_or_not(wrong):
    with pytest.raises(ValueError, match="photographs must be True or False"):
        in_colour(DRAWINGS, photographs=wrong)


def test_photographs_have_a_size():
    with pytest.raises(ValueError, match=r"at most \(107, 160\) pixels; .* \(28, 200\)"):
        in_colour(np.zeros((1, 28, 200, 1), np.uint8), photographs=True)
