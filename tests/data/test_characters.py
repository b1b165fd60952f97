import dataclasses

import numpy as np
import pytest

from mlutils.data import Characters, episodes
from tests.data.helpers import batches

# Three characters of two scripts, four drawings each of 6 x 6 pixels, all different.
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 6, 1), np.uint8)
FEW = Characters(IMAGES, ("a", "b", "c"), ("one", "one", "two"), "made up")


def test_other_images_raise_with_what_they_must_be():
    for wrong in (
        {"images": IMAGES / 255},
        {"images": IMAGES[..., 0]},
        {"names": ("a", "b")},
        {"scripts": ("one", "two")},
        {"images": IMAGES[:0], "names": (), "scripts": ()},
    ):
        with pytest.raises(ValueError, match="images must be uint8"):
            dataclasses.replace(FEW, **wrong)


@pytest.mark.parametrize("kept", [[0, 1], [3], [2, 0, 1, 3]])
@pytest.mark.parametrize("kind", [list, np.array, iter])
def test_some_drawers_only(kind, kept):
    drawers = kind(kept)
    some = FEW.of_drawers(drawers)
    assert some.images.shape == (3, len(kept), 6, 6, 1)
    for position, drawer in enumerate(kept):
        np.testing.assert_array_equal(some.images[:, position], FEW.images[:, drawer])
    assert (some.names, some.scripts, some.source) == (FEW.names, FEW.scripts, FEW.source)


def test_wrong_drawers_raise_with_what_is_allowed():
    """True and False would be a mask, floats no index."""
    for drawers in ([], [0, 0], [4], [-1], range(5), "01", [0.0, 1.0], [True, False], [[0]], 3):
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


@pytest.mark.parametrize("kind", [list, np.array, iter])
def test_a_subset_is_of_these_in_this_order(kind):
    for positions in ([2, 0], [1, 2]):
        some = FEW.subset(kind(positions))
        np.testing.assert_array_equal(some.images, FEW.images[positions])
        assert some.names == tuple("abc"[i] for i in positions)
        assert some.scripts == tuple(("one", "one", "two")[i] for i in positions)
        assert some.source == FEW.source and len(some) == len(positions)


@pytest.mark.parametrize(
    "scripts", ["one", ["one"], iter(["one"])], ids=["name", "list", "iterator"]
)
def test_some_scripts_only(scripts):
    some = FEW.of_scripts(scripts)
    assert (some.names, some.scripts, some.source) == (("a", "b"), ("one", "one"), "made up")
    np.testing.assert_array_equal(some.images, FEW.images[:2])
    with pytest.raises(ValueError, match=r"No such scripts: \['x'\]; there are \['one', 'two'\]"):
        FEW.of_scripts(["one", "x"])


def test_x_and_y_are_all_drawings_and_their_classes():
    np.testing.assert_array_equal(FEW.x, IMAGES.reshape(12, 6, 6, 1))
    assert list(FEW.y) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert repr(FEW) == "3 characters of 2 scripts, 4 drawings each (made up)"
    assert "1 script," in repr(FEW.of_scripts("one"))


def test_episodes_are_of_all_drawings_and_their_classes():
    options = {"ways": 2, "shots": 1, "queries": 2, "meta_batch": 3, "seed": 4}
    found, expected = FEW.episodes(**options), episodes(FEW.x, FEW.y, **options)
    for a, b in zip(batches(found)[0], batches(expected)[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_characters_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FEW.names = ()
