import dataclasses

import numpy as np
import pytest

from mlutils.data import Characters

# Three characters of two scripts, four drawings each of 6 x 6 pixels, all different.
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 6, 1), np.uint8)
FEW = Characters(IMAGES, ("a", "b", "c"), ("one", "one", "two"), "made up")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"images": IMAGES / 255}, id="floats"),
        pytest.param({"images": IMAGES[..., 0]}, id="four axes"),
        pytest.param({"names": ("a", "b")}, id="a name missing"),
        pytest.param({"scripts": ("one", "two")}, id="a script missing"),
        pytest.param({"images": IMAGES[:0], "names": (), "scripts": ()}, id="no class"),
    ],
)
def test_other_images_raise_with_what_they_must_be(wrong):
    with pytest.raises(ValueError, match="images must be uint8"):
        dataclasses.replace(FEW, **wrong)


@pytest.mark.parametrize(
    "drawers, kept",
    [
        (range(2), [0, 1]),
        ([3], [3]),
        ((2, 0, 1, 3), [2, 0, 1, 3]),
        (np.array([1, 3]), [1, 3]),
        (iter([2, 0]), [2, 0]),
    ],
    ids=["range", "list", "tuple", "array", "iterator"],
)
def test_some_drawers_only(drawers, kept):
    some = FEW.of_drawers(drawers)
    assert some.images.shape == (3, len(kept), 6, 6, 1)
    for position, drawer in enumerate(kept):
        np.testing.assert_array_equal(some.images[:, position], FEW.images[:, drawer])
    assert (some.names, some.scripts, some.source) == (FEW.names, FEW.scripts, FEW.source)


@pytest.mark.parametrize(
    "drawers",
    [
        [],
        [0, 0],
        [4],
        [-1],
        range(5),
        ["0"],
        "01",
        [0.5],
        [0.0, 1.0],
        [True, False],
        [None],
        [[0]],
        3,
        None,
    ],
    ids=str,
)
def test_wrong_drawers_raise_with_what_is_allowed(drawers):
    """True and False would be a mask, floats no index."""
    with pytest.raises(ValueError, match="drawers must be different numbers from 0 to 3"):
        FEW.of_drawers(drawers)


def test_turned_characters_are_new_ones_of_new_scripts():
    turned = FEW.turned()
    assert len(turned) == 12 and turned.images.shape == (12, 4, 6, 6, 1)
    assert turned.images.dtype == np.uint8 and turned.source == FEW.source
    for quarters, mark in enumerate(("", " turned 90", " turned 180", " turned 270")):
        part = slice(3 * quarters, 3 * quarters + 3)
        assert turned.names[part] == tuple(name + mark for name in FEW.names)
        assert turned.scripts[part] == tuple(script + mark for script in FEW.scripts)
        np.testing.assert_array_equal(turned.images[part].sum((2, 3)), FEW.images.sum((2, 3)))
    assert len(set(turned.names)) == 12 and len(set(turned.scripts)) == 8


def test_turned_is_to_the_left():
    """The stroke along the upper edge, from the left corner, goes down the left edge from below."""
    image = np.zeros((1, 1, 5, 5, 1), np.uint8)
    image[0, 0, 0, :3] = np.array([[10], [20], [30]])
    one = Characters(image, ("a",), ("one",), "made up")
    images = one.turned().images[:, 0, :, :, 0]
    expected = np.zeros((4, 5, 5), int)
    expected[0, 0, :3] = [10, 20, 30]
    expected[1, :, 0] = [0, 0, 30, 20, 10]
    expected[2, 4] = [0, 0, 30, 20, 10]
    expected[3, :3, 4] = [10, 20, 30]
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize(
    "kept, positions",
    [
        ([2, 0], [2, 0]),
        (range(1, 3), [1, 2]),
        (np.array([0, 2]), [0, 2]),
        (iter([1, 0]), [1, 0]),
    ],
    ids=["list", "range", "array", "iterator"],
)
def test_a_subset_is_of_these_in_this_order(kept, positions):
    some = FEW.subset(kept)
    np.testing.assert_array_equal(some.images, FEW.images[positions])
    assert some.names == tuple("abc"[i] for i in positions)
    assert some.scripts == tuple(("one", "one", "two")[i] for i in positions)
    assert some.source == FEW.source and len(some) == len(positions)


def test_one_script_may_be_named_by_a_string():
    some = FEW.of_scripts("one")
    assert some.names == ("a", "b")
    np.testing.assert_array_equal(some.images, FEW.images[:2])
