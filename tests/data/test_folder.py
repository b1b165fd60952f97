import io
import os
import warnings

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from mlutils import PrototypicalNetwork
from mlutils.data import Pictures, episodes, folder, glyphs, omniglot, picture
from tests.data import helpers

module = __import__("mlutils.data.folder", fromlist=["folder"])  # its name is the function's too
needs_omniglot = pytest.mark.skipif("MLUTILS_DATA" not in os.environ, reason="needs Omniglot")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for each test; no warning may come, unless it is expected."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="`shuffle=True` was passed")  # as setup does
        yield tmp_path / "keras" / "mlutils"


def save(path, values, mode=None, **options):
    """Write an array as a picture; a value of one picture is not another's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = values if isinstance(values, PIL.Image.Image) else PIL.Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def root(tmp_path):
    """Grey and colour, of several sizes and kinds, in classes of 3, 2 and 1; and no pictures."""
    root = tmp_path / "pictures"
    save(root / "cat" / "1.png", noise(1, 40, 30, 3))
    save(root / "cat" / "2.JPG", noise(2, 200, 300, 3))
    save(root / "cat" / "3.tiff", noise(3, 28, 28))
    save(root / "dog" / "small" / "1.gif", noise(4, 9, 50))
    save(root / "dog" / "small" / "2.webp", noise(5, 50, 9, 3))
    save(root / "dog" / "large" / "1.BMP", noise(6, 99, 98))
    for junk in ("Thumbs.db", "notes.txt", "cat/notes.txt", "cat/.3.png", ".git/1.png"):
        (root / junk).parent.mkdir(exist_ok=True)
        (root / junk).write_bytes(b"no picture")
    (root / "empty").mkdir()
    return root


# ------------------------------------------------------------------ what is read


def test_classes_are_the_folders_that_hold_pictures(root):
    pictures = folder(root)
    assert pictures.names == ("cat", "dog/large", "dog/small")
    assert pictures.files == (
        "cat/1.png",
        "cat/2.JPG",
        "cat/3.tiff",
        "dog/large/1.BMP",
        "dog/small/1.gif",
        "dog/small/2.webp",
    )
    assert pictures.y.tolist() == [0, 0, 0, 1, 2, 2] and len(pictures) == 3
    assert pictures.x.shape == (6, 28, 28, 1) and pictures.x.dtype == np.uint8
    assert repr(pictures) == "6 pictures of 3 classes, 1 to 3 of each, 28 x 28 grey"
    colour = folder(str(root), image_size=(20, 32), color=True)
    assert colour.x.shape == (6, 20, 32, 3)
    assert repr(colour) == "6 pictures of 3 classes, 1 to 3 of each, 20 x 32 in colour"


def test_a_picture_of_the_right_size_stays_as_it_is(root):
    np.testing.assert_array_equal(folder(root).x[2, ..., 0], noise(3, 28, 28))
    np.testing.assert_array_equal(picture(root / "cat" / "3.tiff")[..., 0], noise(3, 28, 28))
    colour = noise(7, 28, 28, 3)
    save(root / "dog" / "large" / "2.png", colour)
    np.testing.assert_array_equal(folder(root, color=True).x[4], colour)


def test_one_picture_is_read_as_the_folder_is(root):
    for options in ({}, {"color": True, "image_size": (9, 31), "frame": "pad"}):
        pictures = folder(root, **options)
        for file, x in zip(pictures.files, pictures.x, strict=True):
            np.testing.assert_array_equal(picture(root / file, **options), x)
            opened = io.BytesIO((root / file).read_bytes())
            np.testing.assert_array_equal(picture(opened, **options), x)


STRIPES = np.repeat(np.array([0, 100, 200], np.uint8), 8)  # three stripes of eight pixels


def test_crop_keeps_the_middle_and_pad_keeps_all(tmp_path):
    """Three upright stripes, twice as wide as high: the crop has a third less on each side."""
    path = tmp_path / "a.png"
    save(path, np.tile(STRIPES, (8, 1)))
    cropped = picture(path, image_size=8)
    np.testing.assert_array_equal(cropped[..., 0], np.full((8, 8), 100))
    padded = picture(path, image_size=24, frame="pad")[..., 0]
    np.testing.assert_array_equal(padded[8:16], np.tile(STRIPES, (8, 1)))
    # 0, 100 and 200 are equally often on the edge of top and bottom, and so is each side's: the
    # median of 8 + 8 + 8 zeros, 16 hundreds and 24 two hundreds is 100.
    assert set(np.unique(padded[:8])) == set(np.unique(padded[16:])) == {100}
    tall = tmp_path / "b.png"
    save(tall, np.tile(STRIPES, (8, 1)).T)
    np.testing.assert_array_equal(picture(tall, image_size=8)[..., 0], np.full((8, 8), 100))


def test_colour_becomes_grey_as_in_PIL_and_grey_colour(tmp_path):
    """ITU-R 601-2: 0.299 red + 0.587 green + 0.114 blue."""
    path = tmp_path / "a.png"
    save(path, np.full((4, 4, 3), (200, 100, 50), np.uint8))
    assert set(np.unique(picture(path, 4))) == {round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)}
    save(path, noise(0, 4, 4))
    np.testing.assert_array_equal(picture(path, 4, color=True), noise(0, 4, 4)[..., None] + [0] * 3)


def transparent(mode):
    """Left half black and opaque, right half transparent, and black below."""
    image = PIL.Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (2, 0, 4, 2))
    if mode == "P":
        image = image.convert("RGB").convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=2)
        image = PIL.Image.fromarray(np.array([[0, 0, 1, 1]] * 2, np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.info["transparency"] = 1
    return image if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("color", [False, True])
def test_what_is_transparent_lies_on_white_paper(tmp_path, mode, color):
    path = tmp_path / "a.png"
    save(path, transparent(mode))
    assert PIL.Image.open(path).mode == mode
    for row in picture(path, image_size=(2, 4), color=color):
        assert row.tolist() == [[v] * (3 if color else 1) for v in (0, 0, 255, 255)]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_scaled(tmp_path, suffix):
    """0 to 65535 become 0 to 255, 257 to one; PIL alone would make 255 of all above 255."""
    path, values = tmp_path / f"a.{suffix}", np.array([[0, 257, 128, 129], [32768, 65535, 1, 385]])
    save(path, values.astype(np.uint16))
    assert PIL.Image.open(path).mode.startswith("I;16")
    assert picture(path, (2, 4))[..., 0].tolist() == [[0, 1, 0, 1], [128, 255, 0, 1]]


def test_12_bits_in_16_are_told(root):
    """4095 of 65535 would be 16 of 255."""
    for file in (root / "cat").iterdir():
        file.unlink()
    save(root / "cat" / "1.png", np.array([[0, 4095]], np.uint16))
    for _ in range(2):  # decoded, and from the cache
        with pytest.warns(UserWarning, match=r"brightest .* 16 bits is 4095 of 65535.*by 16"):
            pictures = folder(root)
    assert pictures.x[0].max() == 16
    save(root / "cat" / "2.png", np.array([[0, 40000]], np.uint16))
    folder(root)


def test_16_bits_that_begin_at_the_other_end(tmp_path):
    path, values = tmp_path / "a.tif", np.array([[0, 257], [514, 65535]], np.uint16)
    image = PIL.Image.frombytes("I;16B", (2, 2), values.astype(">u2").tobytes())
    image.save(path)
    assert picture(path, 2)[..., 0].tolist() == [[0, 1], [2, 255]]


def test_it_is_turned_as_the_camera_says(tmp_path):
    """Orientation 6: the picture's first row is the right side of what was seen."""
    path = tmp_path / "a.png"
    image = PIL.Image.fromarray(np.array([[10, 20], [30, 40]], np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    save(path, image, exif=exif)
    assert picture(path, 2)[..., 0].tolist() == [[30, 10], [40, 20]]


def test_other_kinds_of_colour(tmp_path):
    for mode, suffix in (("1", "png"), ("CMYK", "jpg"), ("P", "gif")):
        path = tmp_path / f"a.{suffix}"
        save(path, noise(1, 30, 30, 3), mode)
        assert PIL.Image.open(path).mode == mode
        assert picture(path).shape == (28, 28, 1) and picture(path, color=True).std() > 10


# ------------------------------------------------------------------ what is wrong


def spoil(root):
    """Three files that are no pictures: cut off, empty, and text."""
    whole = (root / "cat" / "1.png").read_bytes()
    (root / "cat" / "half.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "small" / "none.jpg").write_bytes(b"")
    (root / "dog" / "small" / "text.png").write_text("hello")
    return {"cat/half.png", "dog/small/none.jpg", "dog/small/text.png"}


def test_broken_pictures_are_all_named_at_once(root):
    whole, broken = folder(root), spoil(root)
    for _ in range(2):  # decoded, and from the cache
        with pytest.raises(ValueError, match=r"3 of the pictures .*skip_broken=True") as error:
            folder(root)
        assert all(f"{file} (" in str(error.value) for file in broken)
    for _ in range(2):
        with pytest.warns(UserWarning, match="3 pictures are left out: cat/half.png"):
            pictures = folder(root, skip_broken=True)
        assert pictures.files == whole.files
        np.testing.assert_array_equal(pictures.x, whole.x)
    for i in range(7):
        (root / "cat" / f"more{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"10 of the pictures.* and 5 more\. Mend"):
        folder(root)


def test_a_class_of_which_no_picture_is_left_is_named(root):
    (root / "cat" / "1.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 picture is left out: cat/1.png \(.*\)\.$"):
        folder(root, skip_broken=True)
    (root / "dog" / "large" / "1.BMP").write_bytes(b"")
    told = r"2 pictures are .*\. No picture is left of these classes: dog/large\.$"
    for _ in range(2):  # decoded, and from the cache
        with pytest.warns(UserWarning, match=told):
            pictures = folder(root, skip_broken=True)
        assert pictures.names == ("cat", "dog/small") and set(pictures.y) == {0, 1}


def test_a_link_that_leads_nowhere_is_broken_and_circles_end(root):
    (root / "cat" / "4.png").symlink_to(root / "gone.png")
    (root / "cat" / "again").symlink_to(root)
    with pytest.raises(ValueError, match=r"1 of the pictures .*cat/4.png"):
        folder(root)
    (root / "cat" / "4.png").unlink()
    assert len(folder(root)) == 3


def test_where_all_are_broken_none_can_be_skipped(tmp_path):
    (tmp_path / "p" / "cat").mkdir(parents=True)
    (tmp_path / "p" / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of the pictures in .* cannot be read"):
        folder(tmp_path / "p", skip_broken=True)


@pytest.mark.parametrize("values", [np.eye(4, dtype=np.int32), np.eye(4, dtype=np.float32)])
def test_numbers_without_a_known_white_are_refused(tmp_path, values):
    save(tmp_path / "a.tif", values)
    with pytest.raises(ValueError, match=r"a.tif is no picture .*known white: save it with 8"):
        picture(tmp_path / "a.tif")


def test_folders_that_are_none(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        folder(root / "nowhere")
    with pytest.raises(NotADirectoryError, match=r"1.png is a file; needed is the folder"):
        folder(root / "cat" / "1.png")
    with pytest.raises(ValueError, match=r"outside of any class: 1.png, 2.JPG, 3.tiff\. Put each"):
        folder(root / "cat")
    with pytest.raises(ValueError, match=r"empty holds no pictures in folders of classes"):
        folder(root / "empty")
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere.png"):
        picture(root / "nowhere.png")
    with pytest.raises(ValueError, match=r"notes.txt is no picture that can be read: cannot id"):
        picture(root / "notes.txt")
    with pytest.raises(IsADirectoryError, match=r"cat is a folder; needed is one picture's file"):
        picture(root / "cat")


@pytest.mark.parametrize("value, got", [(None, "None"), (b"a", "bytes"), (3, "int")])
def test_what_is_no_path(value, got):
    with pytest.raises(TypeError, match=f"path must be a path, got {got}"):
        folder(value)
    with pytest.raises(TypeError, match=rf"file must be a path .*in io.BytesIO\), got {got}"):
        picture(value)
    with pytest.raises(TypeError, match=r"in io.BytesIO\), got ndarray of shape \(2, 2\)"):
        picture(np.zeros((2, 2)))


def test_train_and_test_are_no_classes(root):
    for part in ("train", "Test"):
        save(root.parent / "parts" / part / "cat" / "1.png", noise(len(part), 28, 28))
    with pytest.warns(UserWarning, match="holds folders test, train, and below them classes"):
        assert len(folder(root.parent / "parts")) == 2


def test_the_same_picture_twice_is_named(root):
    save(root / "cat" / "9.png", noise(3, 28, 28))
    with pytest.warns(
        UserWarning, match=r"1 pair of pictures is .* of one class: .*: cat/3.tiff = cat/9.png\."
    ):
        folder(root)
    save(root / "dog" / "large" / "9.png", noise(3, 28, 28))
    for _ in range(2):  # decoded, and from the cache
        with pytest.warns(UserWarning) as told:
            folder(root)
        assert len(told) == 2
        assert "of two classes" in str(told[1].message)
        assert "cat/3.tiff = dog/large/9.png." in str(told[1].message)
        assert told[0].filename == __file__


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 0}, "image_size must be an integer of at least 1, got 0"),
        ({"image_size": (28,)}, r"image_size must be a number or \(height, width\), got \(28,\)"),
        ({"image_size": "28"}, "image_size must be an integer of at least 1, got '28'"),
        ({"color": "yes"}, "color must be True or False, got 'yes'"),
        ({"frame": "stretch"}, r"frame must be one of \('crop', 'pad'\), got 'stretch'"),
        ({"skip_broken": 1}, "skip_broken must be True or False"),
        ({"splits": 0.8}, r"splits must be numbers such as \(0.6, 0.2, 0.2\), got 0.8"),
        ({"splits": (0.8, 0.3)}, r"splits must sum to 1, and \(0.8, 0.3\) sum to 1.1"),
        ({"splits": (1.2, -0.2)}, "each of splits must be a finite positive number, got -0.2"),
        ({"splits": (0.9, 0.1)}, r"3 classes are too few for splits of \(0.9, 0.1\)"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_wrong_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        folder(root, **options)


# ------------------------------------------------------------------ the cache


def count_reads(monkeypatch):
    """Which files are decoded from now on."""
    files, read = [], module.read

    def counted(file, *options):
        files.append(file.name)
        return read(file, *options)

    monkeypatch.setattr(module, "read", counted)
    return files


def test_decoded_once_and_anew_when_something_changes(root, cache, monkeypatch):
    files = count_reads(monkeypatch)
    first = folder(root)
    assert len(files) == 6 and len(list(cache.iterdir())) == 1
    np.testing.assert_array_equal(folder(root, splits=(0.5, 0.5))[0].x[0], first.x[0])
    assert len(files) == 6
    save(root / "cat" / "3.tiff", noise(99, 28, 28))
    os.utime(root / "cat" / "3.tiff", ns=(1, 1))
    np.testing.assert_array_equal(folder(root).x[2, ..., 0], noise(99, 28, 28))
    assert len(files) == 12
    for options in ({"color": True}, {"image_size": 27}, {"frame": "pad"}):
        folder(root, **options)
    assert len(files) == 30
    (root / "cat" / "3.tiff").rename(root / "cat" / "4.tiff")
    assert folder(root).files[2] == "cat/4.tiff"


@pytest.mark.parametrize("damage", ["cut", "no numbers", "no json", "other json", "gone"])
def test_a_damaged_cache_is_made_anew(root, cache, damage):
    first = folder(root)
    (place,) = cache.iterdir()
    if damage == "cut":
        (place / "pictures.bin").write_bytes((place / "pictures.bin").read_bytes()[:-1])
    elif damage == "no numbers":
        (place / "pictures.bin").unlink()
    elif damage == "gone":
        (place / "about.json").unlink()
    else:
        text = {"no json": "{", "other json": "[1]"}[damage]
        (place / "about.json").write_text(text)
    np.testing.assert_array_equal(folder(root).x, first.x)
    assert [p.name for p in cache.iterdir()] == [place.name]


def test_a_decoding_that_is_stopped_leaves_nothing(root, cache, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "read", stop)
        with pytest.raises(KeyboardInterrupt):
            folder(root)
    assert list(cache.iterdir()) == []
    assert len(folder(root)) == 3


def test_without_a_cache_come_the_pictures_and_a_warning(root, tmp_path, monkeypatch):
    first = folder(root)
    (tmp_path / "file").write_bytes(b"kept")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="could not be written .*held in memory. Set KERAS_HOME"):
        np.testing.assert_array_equal(folder(root).x, first.x)


# ------------------------------------------------------------------ larger than memory


def test_what_is_large_stays_on_disk_with_the_same_numbers(root, monkeypatch):
    options = {"ways": 2, "shots": 1, "queries": 1, "meta_batch": 3, "seed": 5}
    small = folder(root)
    parts = small.at_least(2), *small.split((0.5, 0.5))
    monkeypatch.setattr(module, "LARGE", 0)
    large = folder(root)
    on_disk = large.at_least(2), *large.split((0.5, 0.5))
    for one, other in zip((small, *parts), (large, *on_disk), strict=True):
        assert type(one.x) is np.ndarray and type(other.x) is np.memmap
        np.testing.assert_array_equal(one.x, other.x)
        assert one.files == other.files and one.names == other.names
    for one, other in ((parts[0], on_disk[0]), (parts[0], large)):
        tasks = other.episodes(classes=("cat", "dog/small"), **options)
        (a,), (b,) = helpers.batches(one.episodes(**options)), helpers.batches(tasks)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert tasks.element_spec[0][0].shape == (3, 2, 28, 28, 1)


def test_a_terabyte_can_be_drawn_from(tmp_path):
    """A million pictures of a megabyte, all of them a hole in a file: no memory would hold them.

    The file is only read: whoever writes into a hole fills the disk.
    """
    path = tmp_path / "x.bin"
    with path.open("wb") as file:
        file.write(b"\x33" * 2**20)  # 51, which is 0.2
        file.truncate(2**40)
    x = np.memmap(path, np.uint8, "r", shape=(2**20, 2**20))
    tasks = episodes(x, np.arange(2**20) // 2**18, ways=4, shots=1, queries=1, meta_batch=1)
    (batch,) = helpers.batches(tasks)
    assert batch.support_x.shape == (1, 4, 2**20) and batch.support_x.dtype == np.float32
    assert not batch.support_x.any()
    tasks = episodes(x[:2], [0, 1], ways=2, shots=0, queries=1, meta_batch=1)
    (batch,) = helpers.batches(tasks)
    np.testing.assert_allclose(np.sort(batch.query_x[0, :, -1]), [0, 0.2], rtol=1e-6)


# ------------------------------------------------------------------ Pictures


def drawn(counts, names=None):
    """Pictures that say which they are."""
    n = sum(counts)
    x = np.broadcast_to(np.arange(n, dtype=np.uint8), (1, 2, 3, n)).T
    y = np.repeat(np.arange(len(counts)), counts)
    names = names or tuple("abcdefghij"[: len(counts)])
    return Pictures(x, y, names, tuple(f"{i}.png" for i in range(n)))


def test_some_classes_are_numbered_anew():
    pictures = drawn([3, 1, 2])
    kept = pictures.of_classes(["c", "a"])
    assert kept.names == ("a", "c") and kept.y.tolist() == [0, 0, 0, 1, 1]
    assert kept.x[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]
    assert kept.files == ("0.png", "1.png", "2.png", "4.png", "5.png")
    assert kept.counts.tolist() == [3, 2]
    assert pictures.of_classes("b").y.tolist() == [0]
    assert pictures.at_least(2).names == ("a", "c") and pictures.at_least(1) is pictures
    with pytest.raises(ValueError, match="No class has 4 pictures; the largest has 3"):
        pictures.at_least(4)


def test_a_folder_above_names_all_classes_in_it():
    pictures = drawn([1, 1, 1, 1], ("Greek/a", "Greek/b", "Greek2/a", "Greek"))
    assert pictures.of_classes("Greek").names == ("Greek/a", "Greek/b", "Greek")
    assert pictures.of_classes(["Greek/b", "Greek2"]).names == ("Greek/b", "Greek2/a")
    with pytest.raises(ValueError, match="No such classes: Gree, 3; there are Greek/a, Greek/b"):
        pictures.of_classes(["Gree", 3])
    with pytest.raises(TypeError, match="names must be names of classes, got 3"):
        pictures.of_classes(3)
    for none in ([], (), iter([])):
        with pytest.raises(ValueError, match="names must be one class or more, got none"):
            pictures.of_classes(none)


@pytest.mark.parametrize("shares", [(0.6, 0.2, 0.2), (0.5, 0.5), (1.0,), (0.1, 0.9)])
def test_splits_share_no_class_and_lose_none(shares):
    pictures = drawn([2, 3, 1, 2, 5, 4, 1, 1, 2, 3])
    parts = pictures.split(shares, seed=3)
    assert [len(part) for part in parts] == [round(10 * share) for share in shares]
    assert sorted(name for part in parts for name in part.names) == list(pictures.names)
    for part in parts:
        for x, y, file in zip(part.x[:, 0, 0, 0], part.y, part.files, strict=True):
            assert file == f"{x}.png" and pictures.names[pictures.y[x]] == part.names[y]


@pytest.mark.parametrize(
    "shares, message",
    [
        (0.8, r"shares must be numbers such as \(0.6, 0.2, 0.2\), got 0.8"),
        ((0.8, 0.3), r"shares must sum to 1, and \(0.8, 0.3\) sum to 1.1"),
        ((1.2, -0.2), "each of shares must be a finite positive number, got -0.2"),
        ((0.9, 0.1), r"3 classes are too few for shares of \(0.9, 0.1\)"),
    ],
)
def test_wrong_shares_are_called_so(shares, message):
    with pytest.raises(ValueError, match=message):
        drawn([1, 1, 1]).split(shares=shares)


def test_the_seed_deals():
    pictures = drawn([1] * 10)
    dealt = {pictures.split((0.5, 0.5), seed)[0].names for seed in range(20)}
    assert len(dealt) > 15
    assert pictures.split((0.5, 0.5), 7)[0].names == pictures.split((0.5, 0.5), 7)[0].names


def test_episodes_name_the_class_that_is_too_small():
    pictures = drawn([3, 1, 4])
    with pytest.raises(ValueError, match="Class b has 1 examples, and shots"):
        pictures.episodes(ways=2, queries=2)
    pictures.episodes(ways=2, queries=2, classes=["a", "c"])


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"x": np.zeros((3, 2, 2, 1))}, ValueError, "x must be uint8 .*got float64"),
        ({"x": np.zeros((3, 2, 2, 2), "uint8")}, ValueError, r"1 or 3 channels.*\(3, 2, 2, 2\)"),
        ({"x": [1, 2, 3]}, TypeError, "x must be an array"),
        ({"names": "ab"}, TypeError, "names a tuple of strings"),
        ({"y": [0, 1]}, ValueError, r"y must be 3 integers.*\(2,\)"),
        ({"y": [0.0, 1.0, 1.0]}, ValueError, "y must be 3 integers.*float64"),
        ({"files": ("1",)}, ValueError, "as many strings; got .* and 1"),
        ({"y": [0, 0, 0]}, ValueError, "There are 2 names, so y must hold each of 0 to 1.*holds 0"),
        ({"y": [0, 1, 2]}, ValueError, "holds 0, 1, 2"),
        ({"names": ("a", "a")}, ValueError, "names must differ; more than once there is a"),
    ],
)
def test_what_does_not_fit_together(change, error, message):
    right = {"x": np.zeros((3, 2, 2, 1), "uint8"), "y": [0, 0, 1], "names": ("a", "b")}
    right["files"] = ("1", "2", "3")
    Pictures(**right)
    with pytest.raises(error, match=message):
        Pictures(**{**right, **change})


# ------------------------------------------------------------------ folders that people have


def written_characters(root, characters):
    """Characters written out as Omniglot's archives have them: black on white, script/character."""
    for i, (name, script) in enumerate(zip(characters.names, characters.scripts, strict=True)):
        for j, image in enumerate(characters.images[i]):
            save(root / script / f"{i:03d}-{ord(name[0]):x}" / f"{j:02d}.png", 255 - image[..., 0])


def learn(root, image_size=28, color=False):
    """What a user does: read, split, fit, save, name a picture.  The learner's accuracy.

    The first classes have 5 pictures each to learn from.
    """
    train, validation, test = folder(root, image_size, color, splits=(0.6, 0.2, 0.2))
    shape = test.x.shape[1:]
    inside = [keras.layers.AveragePooling2D(2), keras.layers.Flatten(), keras.layers.Dense(32)]
    encoder = keras.Sequential([keras.Input(shape), *inside])
    learner = PrototypicalNetwork(encoder, scale=0.1)
    learner.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tasks = train.episodes(ways=3, queries=3, meta_batch=4)
    ahead = validation.episodes(ways=3, queries=3, meta_batch=4)
    learner.fit(tasks, steps_per_epoch=30, verbose=0, validation_data=ahead, validation_steps=2)
    learner.save(root.parent / "learner.keras")
    learner = keras.saving.load_model(root.parent / "learner.keras")
    shown = np.concatenate([np.flatnonzero(test.y == n)[:5] for n in range(len(test))])
    rest = np.setdiff1d(np.arange(len(test.x)), shown)
    predict = learner.adapt(test.x[shown], test.y[shown])
    one = picture(root / test.files[rest[0]], image_size, color)[np.newaxis]
    np.testing.assert_allclose(predict(one)[0], predict(test.x[rest])[0], rtol=1e-3, atol=1e-3)
    assert tf.reduce_sum(tf.nn.softmax(predict(one))).numpy() == pytest.approx(1)
    return np.mean(np.argmax(predict(test.x[rest]), axis=1) == test.y[rest])


def test_a_folder_of_glyphs(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")  # where glyphs are cached
    some = glyphs("test").subset(range(0, 150, 6))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    written_characters(tmp_path / "glyphs", some)
    assert learn(tmp_path / "glyphs") > 2 / 5  # of five classes


@needs_omniglot
def test_a_folder_of_omniglot(tmp_path):
    whole = omniglot("background", size=28).subset(range(0, 200, 8))
    written_characters(tmp_path / "omniglot", whole)
    assert learn(tmp_path / "omniglot") > 2 / 5
    pictures = folder(tmp_path / "omniglot")
    np.testing.assert_array_equal(255 - pictures.x, whole.x)  # as it was, with ink 0
    assert sorted(set(whole.scripts)) == sorted({n.split("/")[0] for n in pictures.names})


def crops(root, classes=15, each=8):
    """Colour photographs of different sizes: jittered crops around places of two photographs."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    for c in range(classes):
        photo = load_sample_images().images[c % 2]
        top, left = random.integers(0, (250, 460))
        for i in range(each):
            y, x = random.integers((top, left), (top + 20, left + 20))
            height, width = random.integers(90, 140, 2)
            save(root / f"place {c}" / f"{i}.jpg", photo[y : y + height, x : x + width])


def test_a_folder_of_colour_photographs(tmp_path):
    crops(tmp_path / "photographs")
    assert learn(tmp_path / "photographs", image_size=32, color=True) > 2 / 3
