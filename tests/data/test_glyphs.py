import importlib
import time
import unicodedata

import keras
import numpy as np
import pytest

import mlutils
from mlutils import PrototypicalNetwork
from mlutils.data import Characters, glyphs
from mlutils.data.glyphs import DUPLICATE, RANGES, SCRIPTS, blurred, fits, make
from mlutils.data.plumbing import rendering
from mlutils.data.plumbing.rendering import DRAWINGS

MODULE = importlib.import_module("mlutils.data.glyphs")  # its name in the package is the function


@pytest.fixture(scope="module")
def seconds(cache):
    """How long the first call takes this thread, whatever else the machine does."""
    assert not list(cache.glob("glyphs-*"))
    start = time.thread_time()
    glyphs()
    return time.thread_time() - start


@pytest.fixture(scope="module")
def everything(seconds):
    return glyphs()


def test_making_takes_some_seconds_and_only_once(seconds, cache, monkeypatch):
    def never(seed):
        raise AssertionError("made a second time")

    assert seconds < 60  # 8 to 20 on the machines we know, the slower while it worked on more
    monkeypatch.setattr(MODULE, "make", never)
    for split in (None, *SCRIPTS):
        glyphs(split)
    (file,) = cache.glob("glyphs-*")
    assert file.name == f"glyphs-{rendering.recipe(MODULE.__file__)}-0.npz"
    with pytest.raises(AssertionError, match="made a second time"):
        glyphs(seed=1)


def test_sizes(everything):
    assert len(everything) >= 1500 and len(set(everything.scripts)) >= 25
    assert len(everything.names) == len(everything.scripts) == len(everything)
    assert everything.images.dtype == np.uint8
    assert everything.images.shape == (len(everything), 20, 28, 28, 1)
    assert everything.images.min() == 0 and everything.images.max() == 255
    assert isinstance(everything, Characters)
    assert repr(everything) == (
        f"{len(everything)} characters of {len(RANGES)} scripts, 20 drawings each "
        "(synthetic: rendered from the DejaVu fonts and distorted)"
    )
    assert "synthetic" in repr(glyphs("test"))


def test_the_splits_share_no_script_and_are_everything(everything):
    parts = {split: glyphs(split) for split in ("train", "validation", "test")}
    for split, part in parts.items():
        assert set(part.scripts) == set(SCRIPTS[split])
    scripts = [script for part in parts.values() for script in sorted(set(part.scripts))]
    assert len(scripts) == len(set(scripts)) and set(scripts) == set(everything.scripts)
    names = [name for part in parts.values() for name in part.names]
    assert sorted(names) == sorted(everything.names)
    images = np.concatenate([part.images for part in parts.values()])
    order, expected = np.argsort(names), np.argsort(everything.names)
    np.testing.assert_array_equal(images[order], everything.images[expected])


def test_every_drawing_has_ink_and_is_unlike_the_others(everything):
    pictures = everything.images.reshape(len(everything), DRAWINGS, -1)
    assert np.min(pictures.max(axis=-1)) > 127
    # Ten pixels of ink at least: half of a thin stroke that is as long as a print's longer side.
    assert np.min(np.sum(pictures, axis=-1, dtype=int)) > 10 * 255
    for drawings in pictures:
        assert len({drawing.tobytes() for drawing in drawings}) == DRAWINGS


def test_characters_are_distinct_and_whole(everything):
    """One code point each, that no two others compose and that is no mark on another."""
    assert len(set(everything.names)) == len(everything)
    for name, script in zip(everything.names, everything.scripts, strict=True):
        assert len(name) == 1
        assert any(start <= ord(name) < stop for start, stop in RANGES[script])
        assert unicodedata.decomposition(name) == "" and not unicodedata.combining(name)
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            assert unicodedata.normalize(form, name) == name
        assert unicodedata.category(name)[0] in "LNS" and not name.isdecimal()
    points = [p for ranges in RANGES.values() for start, stop in ranges for p in range(start, stop)]
    assert len(points) == len(set(points)), "a code point is of two scripts"


@pytest.mark.parametrize("face", [None, *rendering.FACES])
def test_no_two_characters_look_the_same(everything, face):
    """In no face, nor each in the first face that it has: a drawing's face is drawn at random."""
    faces = [face or rendering.faces_of(c)[0] for c in everything.names]
    prints = [
        rendering.printed(c, f)
        for c, f in zip(everything.names, faces, strict=True)
        if f in rendering.faces_of(c)
    ]
    pictures = blurred(np.stack([p for p in prints if p is not None]))
    np.testing.assert_allclose(np.linalg.norm(pictures, axis=1), 1, rtol=1e-5)
    similarity = pictures @ pictures.T
    np.fill_diagonal(similarity, 0)
    assert np.max(similarity) < DUPLICATE + 1e-6


def test_alike_in_some_faces_only_is_alike(everything):
    """Latin K and Cyrillic Ka differ in Sans and are one glyph in Mono."""
    latin, cyrillic = "K", "\N{CYRILLIC CAPITAL LETTER KA}"
    cosines = {
        face: np.prod(blurred(np.stack([rendering.printed(c, face) for c in (latin, cyrillic)])), 0)
        for face in ("DejaVuSans", "DejaVuSansMono")
    }
    assert cosines["DejaVuSans"].sum() < DUPLICATE < cosines["DejaVuSansMono"].sum()
    assert latin in everything.names and cyrillic not in everything.names
    # Of three in all faces alike the first is kept; of B and P, alike in most of their ink, both.
    for alpha in "\N{GREEK CAPITAL LETTER ALPHA}\N{CYRILLIC CAPITAL LETTER A}":
        assert alpha not in everything.names
    assert {"A", "B", "P"} <= set(everything.names)


def test_same_seed_same_pictures_other_seed_others(everything, monkeypatch):
    """Of the first scripts: what comes after them makes no difference."""
    few = dict(list(RANGES.items())[:2])
    monkeypatch.setattr(MODULE, "RANGES", few)
    again, other = make(0), make(1)
    count = len(again["images"])
    assert set(everything.scripts[:count]) == set(few) and everything.scripts[count] not in few
    np.testing.assert_array_equal(again["images"], everything.images[:count])
    assert tuple(map(chr, again["code_points"])) == everything.names[:count]
    for key in ("code_points", "scripts"):
        np.testing.assert_array_equal(again[key], other[key])
    different = np.any(again["images"] != other["images"], axis=(2, 3, 4))
    assert np.mean(different) > 0.999


def test_a_cache_file_must_hold_all_of_it(everything):
    images, zeros = everything.images, np.zeros(len(everything), np.int32)
    arrays = {"images": images, "code_points": zeros, "scripts": zeros}
    assert fits(arrays)
    for wrong in (images[1:], images[:, 1:], images[..., 0], images.view(np.int8)):
        assert not fits({**arrays, "images": wrong})
    assert not fits({**arrays, "code_points": zeros[1:]})
    assert not fits({**arrays, "scripts": zeros[1:]})


@pytest.mark.parametrize("ways, queries, low, high", [(5, 5, 0.40, 0.46), (20, 2, 0.18, 0.26)])
def test_pixels_tell_characters_apart_about_as_well_as_omniglots(
    everything, ways, queries, low, high
):
    """The nearest neighbour in pixels: 44 % and 24 % on Omniglot, chance is 20 % and 5 %."""
    flatten = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    episodes = everything.episodes(ways=ways, shots=1, queries=queries)
    result = mlutils.evaluate(PrototypicalNetwork(flatten), episodes, tasks=600)
    assert low < result.mean < high and result.ci95 < 0.01
