"""The page on which one draws: its pictures, its strokes, its file and its numbers."""

import json
import re

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import strokes
from tools import draw
from tools.notebooks import ROOT

RESULTS = json.loads((ROOT / "benchmarks/results/draw.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "book/draw.md").read_text(encoding="utf-8")
ZIGZAG = [np.array([(1.0, 3.0), (2.0, 1.0), (3.0, 3.0)]), np.array([(1.5, 2.0), (4.0, 2.5)])]

# ---------------------------------------------------------------- pictures


def test_a_level_line_by_hand():
    """It goes from 4 to 24 in the middle, 14, is two pixels wide and has round ends."""
    ink = strokes.picture([[(0, 0), (5, 0)]])[..., 0]
    expected = np.zeros((28, 28))
    expected[13:15, 4:24] = 1
    expected[13:15, [3, 24]] = 1.5 - np.hypot(0.5, 0.5)
    expected[[12, 15], 4:24] = 0
    np.testing.assert_allclose(ink, expected, atol=1e-6)


def test_a_dot_and_what_is_hardly_larger():
    dot = strokes.picture([[(0.3, 0.7)]])[..., 0]
    assert dot[13, 13] == pytest.approx(1.5 - np.hypot(0.5, 0.5))
    assert np.count_nonzero(dot) == 4
    short = strokes.picture([[(0.0, 0.0), (0.05, 0.0)]])[..., 0]  # half of a tenth: 10 pixels
    assert np.flatnonzero(short[13] == 1).tolist() == list(range(9, 19))


def test_place_and_size_do_not_matter_and_shape_does():
    one = strokes.picture(ZIGZAG)
    moved = strokes.picture([7 * stroke + (100, -3) for stroke in ZIGZAG], pad=10)
    np.testing.assert_allclose(moved, one, atol=1e-6)
    back = strokes.picture([stroke[::-1] for stroke in ZIGZAG[::-1]])
    np.testing.assert_allclose(back, one, atol=1e-6)
    assert abs(strokes.picture([stroke * (1, -1) for stroke in ZIGZAG]) - one).mean() > 0.05
    assert one.dtype == np.float32 and one.shape == (28, 28, 1)


# ---------------------------------------------------------------- strokes of pictures


@pytest.fixture(scope="module")
def ink():
    """A ring with a bar through it, thick."""
    y, x = np.mgrid[:60, :60] - 30
    return (abs(np.hypot(x, y) - 18) < 3) | ((abs(x) < 3) & (abs(y) < 28))


def test_thinned_lines_are_in_the_ink_thin_and_of_as_many_pieces(ink):
    thin = strokes.thinned(np.stack([ink, ~ink]))
    assert not np.any(thin[0] & ~ink) and not np.any(thin[1] & ink)
    block = np.lib.stride_tricks.sliding_window_view(thin[0], (2, 2)).sum(axis=(2, 3))
    assert block.max() < 4
    paper = ndimage.label(~thin[0])[1]
    assert ndimage.label(thin[0], np.ones((3, 3)))[1] == 1 and paper == 3  # outside, two halves
    assert ndimage.distance_transform_edt(~thin[0])[ink].max() < 5


def test_traced_strokes_go_over_all_pixels_and_nothing_else(ink):
    thin = strokes.thinned(ink[np.newaxis])[0]
    drawing = strokes.traced(thin)
    points = np.concatenate(drawing)
    rows, columns = np.floor(points).astype(int)[:, ::-1].T
    assert thin[rows, columns].all()
    start, end = strokes.segments(drawing)
    assert np.abs(end - start).max() == 1
    pixels = np.argwhere(thin)[:, ::-1] + 0.5
    apart = np.linalg.norm(pixels[:, np.newaxis] - points, axis=2).min(axis=1)
    assert apart.max() <= 1 and np.mean(apart == 0) > 0.85
    assert len(drawing) <= 5


def test_a_crossing_is_two_strokes():
    thin = np.eye(21, dtype=bool) | np.eye(21, dtype=bool)[::-1]
    assert sorted(map(len, strokes.traced(thin)))[-1] == 21
    assert len(strokes.traced(thin)) <= 3


def test_simplified_strokes_stay_near():
    along = np.linspace(0, 2 * np.pi, 200)
    stroke = np.stack([along, np.sin(along)], axis=1)
    few = strokes.simplified(stroke, 0.05)
    assert len(few) < 20
    between = np.interp(stroke[:, 0], few[:, 0], few[:, 1])
    assert 0.01 < abs(between - stroke[:, 1]).max() < 0.08
    assert len(strokes.simplified(stroke[:1], 0.05)) == 1
    ring = np.stack([np.cos(along), np.sin(along)], axis=1)
    assert len(strokes.simplified(ring, 0.05)) > 6


def test_areas_are_no_line_drawings():
    assert strokes.of_print("■", "DejaVuSans") is None
    assert len(strokes.of_print("L", "DejaVuSans")) == 1


def test_another_hand_draws_the_same_otherwise():
    one, again, other = (strokes.redrawn(ZIGZAG, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.allclose(one[0], other[0])
    same, weak, strong = (
        abs(
            strokes.picture(strokes.redrawn(ZIGZAG, np.random.default_rng(2), strength))
            - strokes.picture(ZIGZAG)
        ).mean()
        for strength in (0, 0.3, 1)
    )
    assert same < 1e-6 < weak < strong
    dot = strokes.redrawn([np.array([(4.5, 4.5)])], np.random.default_rng(0))
    assert np.isfinite(dot).all() and np.shape(dot) == (1, 1, 2)


# ---------------------------------------------------------------- the file and the numbers


def test_the_file_of_the_page_is_made_of_the_stored_learner():
    text = draw.TARGET.read_text(encoding="utf-8")
    assert text == draw.contents()
    assert len(text) < 1_000_000 and "://" not in text


def test_weights_that_the_page_would_round_are_refused():
    assert draw.text(np.float32([1.5, -0.25])) == "AD4AtA=="
    with pytest.raises(ValueError, match="16 bits"):
        draw.text(np.float32([0.1]))


def test_the_page_shows_the_stored_numbers():
    test, phone = RESULTS["test"], RESULTS["phone"]
    kinds = [*test["accuracy"]["trained"]]
    for name in ("trained", "untrained", "pixels"):
        cells = [test["accuracy"][name][kind] for kind in kinds] + [test["page"][name]]
        row = " | ".join(f"{cell['accuracy']} ± {cell['ci95']}" for cell in cells)
        assert f"| {row} |" in PAGE, name
    sure = test["sure"]["20 of one alphabet"]
    assert f"{sure['answers']} % of the answers" in PAGE and f"{sure['right']} % of them" in PAGE
    slow = phone["milliseconds"]["slowed 6 times"]["median"]
    assert f"{slow} milliseconds" in PAGE
    assert phone["bytes"] == draw.TARGET.stat().st_size
    assert f"{round(phone['bytes'] / 1000)} kB" in PAGE
    half, now = RESULTS["choose"]["validation"].values()
    for one in (half, now, RESULTS["train"]["validation"]):
        assert f"{one['accuracy']} ± {one['ci95']} %" in PAGE
    assert now["accuracy"] - half["accuracy"] > now["ci95"] + half["ci95"]
    commands = set(re.findall(r"python -m benchmarks\.draw \w+", PAGE))
    assert commands == {RESULTS[part]["command"] for part in RESULTS}


def test_the_landing_page_shows_the_stored_numbers():
    right = RESULTS["test"]["accuracy"]
    none, other = (
        right[name]["20 of one alphabet"]["accuracy"] for name in ("untrained", "trained")
    )
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    assert f"names {none:.0f} in a hundred of new drawings, and {other:.0f} once" in text
