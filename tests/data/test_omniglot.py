import importlib
import io
import math
import os
import re
import time
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from mlutils.data import omniglot
from mlutils.data.archives import digest, own_archives
from mlutils.data.omniglot import (
    DIGESTS,
    DRAWINGS,
    PIXELS,
    SPLITS,
    VALIDATION,
    areas,
    ink_of,
    resized,
)
from tests.data.test_archives import NOWHERE, contents_of, packed, sends, serving

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


def averaged(ink, size):
    """Means over areas in integers: each pixel is repeated until equal blocks make a new pixel."""
    common = math.gcd(PIXELS, size)
    fine = np.repeat(np.repeat(ink, size // common, axis=-2), size // common, axis=-1)
    block = PIXELS // common
    sums = fine.reshape(*ink.shape[:-2], size, block, size, block).sum((-3, -1), dtype=int)
    assert block % 2, "an even block would have means that are halfway between two bytes"
    return (2 * 255 * sums + block**2) // (2 * block**2)


def png(ink):
    file = io.BytesIO()
    Image.fromarray(~ink).save(file, "PNG")
    assert Image.open(file).mode == "1"
    return file.getvalue()


@pytest.fixture(scope="module")
def drawings():
    """The small Omniglot's ink, ``(characters, drawings, height, width)``."""
    random = np.random.default_rng(0)
    return random.random((len(NAMES), DRAWINGS, PIXELS, PIXELS)) < 0.1


@pytest.fixture(scope="module")
def files(drawings):
    """Its files by archive, in a random order and with folders."""
    archives = {}
    for stem, alphabets in LAYOUT.items():
        of_stem = {}
        for index, name in enumerate(NAMES):
            if name.split("/")[0] in alphabets:
                for drawer in range(DRAWINGS):
                    # The official number of a character does not follow the order of names.
                    file = f"{stem}/{name}/{len(NAMES) - index:04}_{drawer + 1:02}.png"
                    of_stem[file] = png(drawings[index, drawer])
        order = np.random.default_rng(0).permutation(list(of_stem))
        archives[stem] = {str(file): of_stem[file] for file in order}
    return archives


@pytest.fixture(scope="module")
def archives(files):
    """Its two archives by file name."""
    folders = {stem: {f"{stem}/": b"", f"{stem}/Armenian/": b""} for stem in files}
    return {f"{stem}.zip": packed({**folders[stem], **files[stem]}) for stem in files}


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


def assert_right(characters, drawings, size=28):
    assert characters.images.dtype == np.uint8
    assert characters.images.shape == (len(NAMES), DRAWINGS, size, size, 1)
    np.testing.assert_array_equal(characters.images[..., 0], averaged(drawings, size))
    assert characters.names == NAMES
    assert characters.scripts == tuple(name.split("/")[0] for name in NAMES)
    assert characters.source == "Omniglot"


def test_areas_by_hand():
    """105 to 28: a new pixel is 3.75 old ones wide."""
    by_hand = np.zeros((4, 16))
    by_hand[0, :4] = [4, 4, 4, 3]
    by_hand[1, 3:8] = [1, 4, 4, 4, 2]
    by_hand[2, 7:12] = [2, 4, 4, 4, 1]
    by_hand[3, 11:15] = [3, 4, 4, 4]
    result = areas(105, 28)
    assert result.shape == (28, 105) and result.dtype == np.float32
    np.testing.assert_allclose(result[:4, :16], by_hand / 15, atol=1e-7)
    assert not result[:4, 16:].any()
    np.testing.assert_allclose(result[4:8, 15:31], by_hand / 15, atol=1e-6)


@pytest.mark.parametrize("size", [1, 20, 28, 35, 84, 105, 147])
def test_drawings_are_averaged_over_exact_areas(size):
    ink = np.random.default_rng(size).random((3, 105, 105)) < 0.3
    result = resized(ink, size)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, averaged(ink, size))


@pytest.mark.parametrize("number", [1, 199, 200, 401, 600])
def test_many_drawings_stay_in_their_order(number):
    ink = np.random.default_rng(number).random((number, 105, 105)) < 0.3
    np.testing.assert_array_equal(resized(ink, 15), averaged(ink, 15))


def test_averaging_takes_no_time():
    """Stacks of small products can be a thousand times slower than flat ones: each wakes up the
    threads."""
    ink = np.random.default_rng(0).random((100, 105, 105)) < 0.3
    start = time.process_time()
    resized(ink, 28)
    assert time.process_time() - start < 0.5  # 0.01 to 0.05


def test_drawings_need_not_be_square():
    ink = np.random.default_rng(0).random((2, 30, 70)) < 0.3
    expected = ink.reshape(2, 10, 3, 10, 7).mean((2, 4))
    np.testing.assert_array_equal(resized(ink, 10), np.rint(255 * expected))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_ink_is_where_a_picture_is_black(mode):
    white = np.random.default_rng(0).random((5, 7)) < 0.5
    result = ink_of(Image.fromarray(white).convert(mode))
    assert result.dtype == bool
    np.testing.assert_array_equal(result, ~white)


@pytest.mark.parametrize("split", ["dev", "Train", "", 0, ["train"]])
def test_an_unknown_split_raises_with_what_is_allowed(cache, split):
    allowed = ".*".join(map(repr, SPLITS))
    with pytest.raises(ValueError, match=rf"split must be one of .*None.*{allowed}") as caught:
        omniglot(split)
    assert f"got {split!r}" in str(caught.value)


@pytest.mark.parametrize(
    "size, says",
    [
        (0, "at least 1"),
        (-1, "at least 1"),
        (28.0, "integer"),
        (True, "integer"),
        ("28", "integer"),
        (None, "integer"),
        (106, "at most 105"),
        (2**40, "at most 105"),
    ],
)
def test_a_wrong_size_raises_with_what_is_allowed(cache, size, says):
    with pytest.raises(ValueError, match=rf"size must be .*{says}.*got {re.escape(repr(size))}"):
        omniglot(size=size)


def test_downloaded_once_then_read(site, cache, archives, drawings, monkeypatch):
    assert_right(omniglot(), drawings)
    assert site == ["/images_background.zip", "/images_evaluation.zip"]
    names = {p.name for p in cache.iterdir()}
    (arrays,) = names - archives.keys()
    assert re.fullmatch(r"omniglot-[0-9a-f]{8}-28\.npz", arrays)
    assert {name: (cache / name).read_bytes() for name in archives} == archives
    monkeypatch.setattr(MODULE, "make", never)
    assert_right(omniglot(), drawings)
    for split in SPLITS:
        omniglot(split)
    assert len(site) == 2 and {p.name for p in cache.iterdir()} == names


def test_another_size_is_made_from_the_same_download(site, cache, drawings):
    omniglot()
    for size in (35, 105, 28):
        assert_right(omniglot(size=size), drawings, size)
    assert len(site) == 2
    assert len(list(cache.glob("*.npz"))) == 3


def test_the_arrays_alone_are_enough(site, cache, archives, drawings, monkeypatch):
    omniglot()
    for name in archives:
        (cache / name).unlink()
    monkeypatch.setattr(MODULE, "FROM", NOWHERE)
    assert_right(omniglot(), drawings)


def test_arrays_that_are_damaged_are_made_anew_without_a_download(site, cache, drawings):
    omniglot()
    (arrays,) = cache.glob("*.npz")
    right = arrays.read_bytes()
    arrays.write_bytes(right[: len(right) // 2])
    assert_right(omniglot(), drawings)
    assert arrays.read_bytes() == right and len(site) == 2


def test_arrays_of_other_contents_are_not_taken(site, cache, drawings, monkeypatch):
    omniglot()
    monkeypatch.setattr(MODULE, "DIGESTS", {stem: "0" * 64 for stem in LAYOUT})
    with pytest.raises(ValueError, match="0" * 64):
        omniglot()


def test_a_damaged_archive_in_the_cache_is_replaced(site, cache, archives, drawings):
    cache.mkdir(parents=True)
    (cache / "images_background.zip").write_bytes(archives["images_background.zip"][:-1])
    (cache / "images_evaluation.zip").write_bytes(archives["images_evaluation.zip"])
    assert_right(omniglot(), drawings)
    assert site == ["/images_background.zip"]
    assert {name: (cache / name).read_bytes() for name in archives} == archives


def test_a_download_that_failed_at_the_second_archive_goes_on_there(
    cache, archives, drawings, monkeypatch
):
    well = []

    def answer(handler):
        if handler.path == "/images_evaluation.zip" and not well:
            sends(b"gone", 404)(handler)
        else:
            sends(archives[handler.path[1:]])(handler)

    with serving(answer) as (url, requests):
        monkeypatch.setattr(MODULE, "FROM", url)
        with pytest.raises(OSError, match=r"images_evaluation\.zip.*404.*MLUTILS_DATA.*KERAS_HOME"):
            omniglot()
        assert list(contents_of(cache)) == ["images_background.zip"]
        well.append(True)
        assert_right(omniglot(), drawings)
        assert [path[8:12] for path in requests] == ["back", "eval", "eval"]


def test_other_contents_on_the_net_are_refused(cache, archives, monkeypatch):
    """Lake's smaller sets, or the two archives swapped, for example."""
    swapped = dict(zip(archives, reversed(archives.values()), strict=True))
    with serving(lambda handler: sends(swapped[handler.path[1:]])(handler)) as (url, _):
        monkeypatch.setattr(MODULE, "FROM", url)
        with pytest.raises(ValueError, match=rf"{url}images_background\.zip.*MLUTILS_DATA"):
            omniglot()
    assert contents_of(cache) == {}


def test_without_network_it_says_what_to_do(cache):
    with pytest.raises(OSError, match=r"images_background\.zip.*MLUTILS_DATA.*KERAS_HOME"):
        omniglot()
    assert contents_of(cache) == {}


def test_own_archives_are_read_where_they_are(own, cache, archives, drawings):
    assert_right(omniglot(), drawings)
    assert contents_of(own) == archives
    assert [p.suffix for p in cache.iterdir()] == [".npz"]


def missing_second(own, archives):
    (own / "images_evaluation.zip").unlink()


def swapped(own, archives):
    for name, content in zip(archives, reversed(archives.values()), strict=True):
        (own / name).write_bytes(content)


def one_byte_changed(own, archives):
    content = bytearray(archives["images_background.zip"])
    content[len(content) // 2] ^= 1
    (own / "images_background.zip").write_bytes(content)


def no_folder(own, archives):
    own.rename(own.with_name("renamed"))


@pytest.mark.parametrize(
    "damage, kind",
    [
        (missing_second, FileNotFoundError),
        (swapped, ValueError),
        (one_byte_changed, ValueError),
        (no_folder, FileNotFoundError),
    ],
)
def test_own_archives_that_are_none_raise_and_leave_the_cache(
    site, own, cache, archives, damage, kind
):
    """Nothing is downloaded in their place; what was made before still serves."""
    omniglot(size=14)
    before = contents_of(cache)
    damage(own, archives)
    file = own / f"images_{'evaluation' if damage is missing_second else 'background'}.zip"
    with pytest.raises(kind) as caught:
        omniglot()
    assert str(file) in str(caught.value) and f"MLUTILS_DATA is {str(own)!r}" in str(caught.value)
    assert contents_of(cache) == before and site == []
    assert omniglot(size=14).names == NAMES


def test_where_no_cache_can_be_own_archives_serve_with_a_warning(own, drawings, monkeypatch):
    """Below a regular file no folder can be made, not even by root."""
    monkeypatch.setenv("KERAS_HOME", str(own / "images_background.zip"))
    with pytest.warns(UserWarning, match="could not be written.*KERAS_HOME"):
        assert_right(omniglot(), drawings)


def test_where_no_cache_can_be_a_download_says_what_to_do(site, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"kept")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"images_background\.zip.*MLUTILS_DATA.*KERAS_HOME"):
        omniglot()
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_only_be_read_serves_what_it_has(site, cache, drawings):
    omniglot()
    cache.chmod(0o500)
    try:
        assert_right(omniglot(), drawings)
        with pytest.warns(UserWarning, match="could not be written"):
            assert_right(omniglot(size=35), drawings, 35)
    finally:
        cache.chmod(0o700)
    assert len(site) == 2


def test_splits_of_the_small_one(own):
    """Which characters each has; Armenian is one of the five alphabets for validation."""
    everything = omniglot()
    expected = {
        "background": [0, 1, 2, 3, 4],
        "evaluation": [5, 6, 7],
        "train": [2, 3, 4, 5],
        "validation": [0, 1],
        "test": [6, 7],
    }
    for split, positions in expected.items():
        part = omniglot(split)
        assert part.names == tuple(NAMES[i] for i in positions)
        assert part.scripts == tuple(NAMES[i].split("/")[0] for i in positions)
        np.testing.assert_array_equal(part.images, everything.images[positions])
        assert part.source == "Omniglot"


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
def seconds(real):
    """How long the first call takes this process, on all its threads together."""
    start = time.process_time()
    omniglot()
    return time.process_time() - start


@pytest.fixture(scope="module")
def everything(seconds):
    return omniglot()


def originals(folder, name):
    """A character's drawings by number, ink True, read without the package."""
    drawings = {}
    for stem in DIGESTS:
        with zipfile.ZipFile(folder / f"{stem}.zip") as archive:
            for file in archive.namelist():
                if file.startswith(f"{stem}/{name}/"):
                    number = int(re.fullmatch(r"\d{4}_(\d\d)\.png", file.split("/")[-1])[1])
                    with Image.open(io.BytesIO(archive.read(file))) as image:
                        assert image.size == (105, 105)
                        drawings[number] = np.asarray(image.convert("L")) < 128
    assert sorted(drawings) == list(range(1, 21))
    return drawings


def test_loading_takes_some_seconds_and_only_once(seconds, everything, monkeypatch):
    monkeypatch.setattr(MODULE, "make", never)
    start = time.process_time()
    omniglot()
    assert seconds < 30 and time.process_time() - start < 1


@pytest.mark.parametrize(
    "split, characters, alphabets",
    [
        ("background", 964, 30),
        ("evaluation", 659, 20),
        ("train", 1028, None),
        ("validation", 172, 5),
        ("test", 423, None),
        (None, 1623, 50),
    ],
)
def test_counts(everything, split, characters, alphabets):
    part = omniglot(split)
    assert len(part) == len(part.names) == len(part.scripts) == characters
    assert part.images.shape == (characters, 20, 28, 28, 1)
    if alphabets:
        assert len(set(part.scripts)) == alphabets


def test_the_splits_share_nothing_and_are_everything(everything):
    for splits in (("train", "validation", "test"), ("background", "evaluation")):
        names = [name for split in splits for name in omniglot(split).names]
        assert len(names) == len(set(names)) and set(names) == set(everything.names)
    assert set(omniglot("validation").scripts) == set(VALIDATION)
    assert not set(omniglot("train").scripts) & set(VALIDATION)
    assert not set(omniglot("background").scripts) & set(omniglot("evaluation").scripts)


def test_names_are_alphabets_and_numbers(everything):
    assert "Greek/character01" in everything.names
    assert len(set(everything.names)) == 1623
    for name, script in zip(everything.names, everything.scripts, strict=True):
        assert re.fullmatch(rf"{re.escape(script)}/character\d\d", name)
    of_greek = [name for name in everything.names if name.startswith("Greek/")]
    assert of_greek == [f"Greek/character{number:02}" for number in range(1, 25)]
    assert repr(everything) == "1623 characters of 50 scripts, 20 drawings each (Omniglot)"


def test_drawings_are_ink_on_paper(everything):
    assert everything.images.dtype == np.uint8 and everything.images.nbytes < 60e6
    assert everything.images.min() == 0 and everything.images.max() == 255
    assert 0.03 < everything.images.mean() / 255 < 0.12
    assert np.median(everything.images[:, :, [0, -1]]) == 0
    assert np.min(everything.images.max(axis=(2, 3, 4))) > 127


@pytest.mark.parametrize(
    "name",
    [
        "Alphabet_of_the_Magi/character01",
        "Greek/character17",
        "Tifinagh/character55",
        "Angelic/character01",
        "ULOG/character26",
    ],
)
def test_drawings_are_the_originals_averaged(real, everything, name):
    """The file's name tells the character and who drew it."""
    images = everything.images[everything.names.index(name), ..., 0]
    drawings = originals(real, name)
    for number in (1, 2, 10, 20):
        fine = np.repeat(np.repeat(drawings[number], 4, axis=0), 4, axis=1)
        means = fine.reshape(28, 15, 28, 15).mean((1, 3))
        np.testing.assert_array_equal(images[number - 1], np.rint(255 * means))


def test_the_one_drawing_that_is_there_twice(everything):
    """Braille's first, by drawers 3 and 19; so the drawings are in their order."""
    braille = everything.images[everything.names.index("Braille/character01")]
    np.testing.assert_array_equal(braille[2], braille[18])
    assert len({drawing.tobytes() for drawing in everything.x}) == 20 * 1623 - 1
