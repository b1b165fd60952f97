import importlib
import io
import re
import time
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from mlutils.data import omniglot
from mlutils.data.omniglot import DIGESTS, DRAWINGS, PIXELS, SPLITS, VALIDATION
from mlutils.data.plumbing.archives import digest, own_archives
from tests.data.helpers import NOWHERE, averaged, contents_of, packed, png, sends, serving

MODULE = importlib.import_module("mlutils.data.omniglot")  # its name in the package is the function

# A small Omniglot, of the official layout: characters per alphabet, of Lake's two parts.
LAYOUT = {
    "images_background": {"Armenian": 2, "Greek": 3},
    "images_evaluation": {"Angelic": 1, "Tibetan": 2},
}
NAMES = tuple(
    f"{alphabet}/character{number + 1:02}"
    for alphabets in LAYOUT.values()
    for alphabet, count in alphabets.items()
    for number in range(count)
)
INK = np.random.default_rng(0).random((len(NAMES), DRAWINGS, PIXELS, PIXELS)) < 0.1


@pytest.fixture(scope="module")
def files():
    """Its files by archive, in a random order."""
    random, archives = np.random.default_rng(0), {}
    for stem, alphabets in LAYOUT.items():
        of_stem = [
            # The official number of a character does not follow the order of names.
            (f"{stem}/{name}/{len(NAMES) - index:04}_{drawer + 1:02}.png", png(ink))
            for index, name in enumerate(NAMES)
            for drawer, ink in enumerate(INK[index])
            if name.split("/")[0] in alphabets
        ]
        archives[stem] = dict(of_stem[i] for i in random.permutation(len(of_stem)))
    return archives


@pytest.fixture(scope="module")
def archives(files):
    """Its two archives by file name, with folders."""
    return {f"{s}.zip": packed({f"{s}/": b"", f"{s}/Armenian/": b"", **files[s]}) for s in files}


@pytest.fixture
def cache(files, tmp_path, monkeypatch):
    """The small one is the official one, to be had nowhere; the cache is empty.

    No warning may come, unless it is expected.
    """
    monkeypatch.setattr(MODULE, "DIGESTS", {stem: digest(files[stem]) for stem in files})
    monkeypatch.setattr(MODULE, "BACKGROUND", 5)
    monkeypatch.setattr(MODULE, "TRAINING", 6)
    monkeypatch.setattr(MODULE, "FROM", NOWHERE)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("MLUTILS_DATA", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield tmp_path / "keras" / "mlutils"


@pytest.fixture
def site(cache, archives, monkeypatch):
    """A server that has the archives: the list of paths asked for."""
    with serving(lambda handler: sends(archives[handler.path[1:]])(handler)) as (url, requests):
        monkeypatch.setattr(MODULE, "FROM", url)
        yield requests


@pytest.fixture
def own(cache, archives, tmp_path, monkeypatch):
    """A folder with the archives, named in MLUTILS_DATA."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, content in archives.items():
        (folder / name).write_bytes(content)
    monkeypatch.setenv("MLUTILS_DATA", str(folder))
    return folder


def never(size):
    raise AssertionError("made a second time")


def assert_right(characters, size=28):
    assert characters.images.dtype == np.uint8
    assert characters.images.shape == (len(NAMES), DRAWINGS, size, size, 1)
    np.testing.assert_array_equal(characters.images[..., 0], averaged(INK, size))
    assert characters.names == NAMES
    assert characters.scripts == tuple(name.split("/")[0] for name in NAMES)
    assert characters.source == "Omniglot"


# ---------------------------------------------------------------- ink


@pytest.mark.parametrize("number, size", [(3, 1), (3, 28), (3, 84), (3, 105), (3, 147), (401, 15)])
def test_drawings_are_averaged_over_exact_areas_and_stay_in_their_order(number, size):
    """They need not be square, and it takes no time: stacks of small products, which wake up the
    threads each, can be a thousand times slower than flat ones."""
    ink = np.random.default_rng(size).random((number, 105, 105)) < 0.3
    result = MODULE.resized(ink, size)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, averaged(ink, size))
    oblong = ink[:2, :30, :70]
    expected = oblong.reshape(2, 10, 3, 10, 7).mean((2, 4))
    np.testing.assert_array_equal(MODULE.resized(oblong, 10), np.rint(255 * expected))
    start = time.process_time()
    MODULE.resized(np.resize(ink, (100, 105, 105)), 28)
    assert time.process_time() - start < 0.5  # 0.01 to 0.05


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_ink_is_where_a_picture_is_black(mode):
    white = np.random.default_rng(0).random((5, 7)) < 0.5
    result = MODULE.ink_of(Image.fromarray(white).convert(mode))
    assert result.dtype == bool
    np.testing.assert_array_equal(result, ~white)


# ---------------------------------------------------------------- the small one, from the net


def test_downloaded_once_then_read(site, cache, archives, monkeypatch):
    """Other sizes are made of the same download; the arrays alone are enough."""
    assert_right(omniglot())
    assert site == ["/images_background.zip", "/images_evaluation.zip"]
    (arrays,) = {p.name for p in cache.iterdir()} - archives.keys()
    assert re.fullmatch(r"omniglot-[0-9a-f]{8}-28\.npz", arrays)
    assert {name: (cache / name).read_bytes() for name in archives} == archives
    for size in (35, 105):
        assert_right(omniglot(size=size), size)
    assert len(site) == 2 and len(list(cache.glob("*.npz"))) == 3
    monkeypatch.setattr(MODULE, "make", never)
    for name in archives:
        (cache / name).unlink()
    assert_right(omniglot())
    for split in SPLITS:
        omniglot(split)
    assert len(site) == 2 and len(list(cache.iterdir())) == 3


def test_only_what_fits_is_taken(site, cache, monkeypatch):
    """Neither arrays nor archives of other contents; an archive that is there is not fetched."""
    omniglot()
    (arrays,) = cache.glob("*.npz")
    images = np.zeros((len(NAMES), DRAWINGS, 28, 28, 1), np.uint8)
    for wrong in (images[:, 1:], images[:-1], images[..., 0], images.astype(float)):
        np.savez(arrays, images=wrong, names=NAMES)
        assert_right(omniglot())
    arrays.unlink()
    (cache / "images_evaluation.zip").write_bytes(b"PK")
    assert_right(omniglot())
    assert [path[8:12] for path in site] == ["back", "eval", "eval"]
    monkeypatch.setattr(MODULE, "DIGESTS", {stem: "0" * 64 for stem in LAYOUT})
    with pytest.raises(ValueError, match=r"images_background\.zip.*" + "0" * 64):
        omniglot()
    monkeypatch.setattr(MODULE, "FROM", NOWHERE)
    with pytest.raises(OSError, match=r"images_background\.zip.*MLUTILS_DATA.*KERAS_HOME"):
        omniglot()


# ---------------------------------------------------------------- the small one, one's own


def test_own_archives_are_read_where_they_are(own, cache, archives, monkeypatch):
    assert_right(omniglot())
    assert contents_of(own) == archives
    assert [p.suffix for p in cache.iterdir()] == [".npz"]
    # Below a regular file no folder can be made, not even by root.
    monkeypatch.setenv("KERAS_HOME", str(own / "images_background.zip"))
    with pytest.warns(UserWarning, match="could not be written.*KERAS_HOME"):
        assert_right(omniglot())


def missing(own, archives):
    (own / "images_background.zip").unlink()


def swapped(own, archives):
    for name, content in zip(archives, reversed(archives.values()), strict=True):
        (own / name).write_bytes(content)


@pytest.mark.parametrize("damage, kind", [(missing, FileNotFoundError), (swapped, ValueError)])
def test_own_archives_that_are_none_raise_and_leave_the_cache(
    site, own, cache, archives, damage, kind
):
    """Nothing is downloaded in their place; what was made before still serves."""
    omniglot(size=14)
    before = contents_of(cache)
    damage(own, archives)
    with pytest.raises(kind) as caught:
        omniglot()
    for says in (str(own / "images_background.zip"), f"MLUTILS_DATA is {str(own)!r}"):
        assert says in str(caught.value)
    assert contents_of(cache) == before and site == []
    assert omniglot(size=14).names == NAMES


def test_splits_of_the_small_one(own):
    """Which characters each has; Armenian is one of the five alphabets for validation."""
    everything = omniglot()
    for split, positions in {
        "background": [0, 1, 2, 3, 4],
        "evaluation": [5, 6, 7],
        "train": [2, 3, 4, 5],
        "validation": [0, 1],
        "test": [6, 7],
    }.items():
        part = omniglot(split)
        assert part.names == tuple(NAMES[i] for i in positions) and part.source == "Omniglot"
        np.testing.assert_array_equal(part.images, everything.images[positions])


# ---------------------------------------------------------------- the real one


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real Omniglot's folder, with a cache of the module's own, empty at first."""
    folder = own_archives()
    if folder is None or not all((folder / f"{stem}.zip").is_file() for stem in DIGESTS):
        pytest.skip("MLUTILS_DATA names no folder with the real archives of Omniglot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        yield folder


@pytest.fixture(scope="module")
def everything(real):
    """Loading takes some seconds, on all of this process's threads together, and only once."""
    start = time.process_time()
    omniglot()
    loaded = time.process_time()
    images = omniglot()
    assert loaded - start < 30 and time.process_time() - loaded < 1
    return images


def test_the_splits_share_nothing_and_are_everything(everything):
    """With the published numbers of characters, and of alphabets where those are not shared."""
    parts = {split: omniglot(split) for split in SPLITS} | {None: everything}
    counts = {s: (len(p), len(set(p.scripts))) for s, p in parts.items()}
    assert counts["background"] == (964, 30) and counts["evaluation"] == (659, 20)
    assert counts["validation"] == (172, 5) and counts[None] == (1623, 50)
    assert (counts["train"][0], counts["test"][0]) == (1028, 423)
    for splits in (("train", "validation", "test"), ("background", "evaluation")):
        names = [name for split in splits for name in parts[split].names]
        assert len(names) == len(set(names)) and set(names) == set(everything.names)
    scripts = {split: set(part.scripts) for split, part in parts.items()}
    assert scripts["validation"] == set(VALIDATION) and not scripts["train"] & set(VALIDATION)
    assert not scripts["background"] & scripts["evaluation"]


def test_names_are_alphabets_and_numbers(everything):
    assert len(set(everything.names)) == 1623
    for name, script in zip(everything.names, everything.scripts, strict=True):
        assert re.fullmatch(rf"{re.escape(script)}/character\d\d", name)
    of_greek = [name for name in everything.names if name.startswith("Greek/")]
    assert of_greek == [f"Greek/character{number:02}" for number in range(1, 25)]
    assert repr(everything) == "1623 characters of 50 scripts, 20 drawings each (Omniglot)"


def originals(folder, stem, name):
    """A character's drawings by number, ink True, read without the package."""
    drawings = {}
    with zipfile.ZipFile(folder / f"{stem}.zip") as archive:
        for file in archive.namelist():
            match = re.fullmatch(rf"{stem}/{name}/\d{{4}}_(\d\d)\.png", file)
            if match:
                image = Image.open(io.BytesIO(archive.read(file)))
                drawings[int(match[1])] = np.asarray(image.convert("L")) < 128
    assert sorted(drawings) == list(range(1, 21))
    return drawings


def test_drawings_are_the_originals_averaged(real, everything):
    """The file's name tells the character and who drew it."""
    assert everything.images.shape == (1623, 20, 28, 28, 1)
    for part, name in (
        ("background", "Alphabet_of_the_Magi/character01"),
        ("background", "Greek/character17"),
        ("background", "Tifinagh/character55"),
        ("evaluation", "Angelic/character01"),
        ("evaluation", "ULOG/character26"),
    ):
        images = everything.images[everything.names.index(name), ..., 0]
        for number, ink in originals(real, f"images_{part}", name).items():
            np.testing.assert_array_equal(images[number - 1], averaged(ink, 28))
    assert np.min(everything.images.max(axis=(2, 3, 4))) > 127


def test_the_one_drawing_that_is_there_twice(everything):
    """Braille's first, by drawers 3 and 19; so the drawings are in their order."""
    braille = everything.images[everything.names.index("Braille/character01")]
    np.testing.assert_array_equal(braille[2], braille[18])
    assert len({drawing.tobytes() for drawing in everything.x}) == 20 * 1623 - 1
