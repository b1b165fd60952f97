import io
import os
import re
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from mlutils.data.plumbing.cache import cache_folder, cached_arrays
from tests.data.helpers import contents_of, packed

ARRAYS = {"pictures": np.arange(12).reshape(3, 4), "names": np.array([1, 2, 3], np.int32)}


class Maker:
    """Counts how often the arrays are made."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return ARRAYS


def fits(arrays):
    return arrays["pictures"].shape == (3, 4) and len(arrays["names"]) == 3


def get(make):
    return cached_arrays("made.npz", make, fits)


def assert_right(arrays):
    assert arrays.keys() == ARRAYS.keys()
    for key, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], value)
        assert arrays[key].dtype == value.dtype


def assert_made_once():
    make = Maker()
    assert_right(get(make))
    assert_right(get(make))
    assert make.calls == 1


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The cache file's path, in an empty folder; no warning may come, unless it is expected."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "mlutils").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield tmp_path / "mlutils" / "made.npz"


def saved(save=np.savez, *args, **arrays):
    file = io.BytesIO()
    save(file, *args, **arrays)
    return file.getvalue()


RIGHT = saved(**ARRAYS)
MIDDLE, CENTRAL = RIGHT.index(ARRAYS["pictures"].tobytes()), RIGHT.index(b"PK\x01\x02")


def changed(where, value):
    """The right file with one byte changed."""
    return RIGHT[:where] + bytes([value]) + RIGHT[where + 1 :]


def test_the_folder_is_kerass(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "mlutils"
    monkeypatch.setenv("KERAS_HOME", "")
    assert cache_folder() == tmp_path / ".keras" / "mlutils"
    monkeypatch.delenv("KERAS_HOME")
    assert cache_folder() == tmp_path / ".keras" / "mlutils"


def test_made_once_then_read(path):
    path.parent.rmdir()
    assert_made_once()
    assert [p.name for p in path.parent.iterdir()] == ["made.npz"]
    make = Maker()
    cached_arrays("other.npz", make, fits)
    assert make.calls == 1


def claiming(*shape):
    """An array that says it has so many numbers, and holds none."""
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


PETABYTES = packed({"names.npy": claiming(2**40, 2**10)})
START = zipfile.sizeFileHeader + len("names.npy")  # of what is compressed
UNDEFLATABLE = PETABYTES[:START] + b"\xff" + PETABYTES[START + 1 :]
DAMAGED = {
    "empty": b"",
    "garbage": b"no archive at all",
    "garbage that begins like an archive": b"PK\x03\x04" + bytes(200),
    "half": RIGHT[: len(RIGHT) // 2],
    "last byte missing": RIGHT[:-1],
    "a number changed": changed(MIDDLE, 77),
    "an archive of another version": changed(CENTRAL + 6, 97),
    "wrong shape": saved(pictures=np.zeros((3, 5)), names=np.zeros(3)),
    "an array missing": saved(names=np.zeros(3)),
    "pickled objects": saved(pictures=np.array([None]), names=np.zeros(3)),
    "one array, not an archive": saved(np.save, ARRAYS["pictures"]),
    "a number where fits takes a length": saved(pictures=np.zeros((3, 4)), names=np.int32(3)),
    "compressed data changed": UNDEFLATABLE,
    "an array of petabytes": PETABYTES,
}


@pytest.mark.parametrize("content, error", [(UNDEFLATABLE, zlib.error), (PETABYTES, MemoryError)])
def test_what_numpy_raises_is_more_than_it_documents(content, error):
    with np.load(io.BytesIO(content)) as file, pytest.raises(error):
        file["names"]


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_made_anew_and_replaced(path, content):
    path.write_bytes(content)
    assert_made_once()
    assert [p.name for p in path.parent.iterdir()] == ["made.npz"]


def cut_off(error):
    """A np.savez that fails when half of the file is written."""

    def savez(file, **arrays):
        file.write(RIGHT[: len(RIGHT) // 2])
        file.flush()
        raise error

    return savez


def stops(error):
    raise error


@pytest.mark.parametrize("earlier", [None, b"an earlier file"])
@pytest.mark.parametrize("error", [MemoryError("full"), KeyboardInterrupt(), OSError("disk full")])
def test_a_make_or_write_that_is_cut_off_leaves_things_as_they_were(
    path, monkeypatch, earlier, error
):
    """Only a full disk is nothing that should end the program: the arrays are there."""
    if earlier:
        path.write_bytes(earlier)
    with pytest.raises(type(error)):
        get(lambda: stops(error))
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", cut_off(error))
        if isinstance(error, OSError):
            with pytest.warns(UserWarning, match=f"{re.escape(str(path))}.*disk full"):
                assert_right(get(Maker()))
        else:
            with pytest.raises(type(error)):
                get(Maker())
    assert [p.read_bytes() for p in path.parent.iterdir()] == ([earlier] if earlier else [])
    assert_made_once()


def test_the_earlier_file_stays_until_the_new_one_is_whole(path, monkeypatch):
    path.write_bytes(b"an earlier file")
    savez = np.savez

    def looking(file, **arrays):
        savez(file, **arrays)
        assert path.read_bytes() == b"an earlier file"

    monkeypatch.setattr(np, "savez", looking)
    assert_right(get(Maker()))
    assert path.read_bytes() == RIGHT


def test_where_it_cannot_be_kept_come_the_data_and_a_warning(path, tmp_path, monkeypatch):
    """Below a regular file no folder can be made, not even by root; a folder is not replaced."""
    path.mkdir()
    with pytest.warns(UserWarning, match=f"{re.escape(str(path))} could not be written"):
        assert_right(get(Maker()))
    assert [p.name for p in path.parent.iterdir()] == ["made.npz"]
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    monkeypatch.setenv("KERAS_HOME", str(file / "below"))
    make, below = Maker(), re.escape(str(file / "below" / "mlutils" / "made.npz"))
    for calls in (1, 2):
        with pytest.warns(UserWarning, match=f"{below} could not be written.*KERAS_HOME"):
            assert_right(get(make))
        assert make.calls == calls
    assert file.read_bytes() == b"kept"


def test_without_a_home_directory_come_the_data_and_a_warning(path, monkeypatch):
    """A user without a name has none where HOME is not set, either."""
    pwd = pytest.importorskip("pwd")
    for name in ("HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: stops(KeyError(uid)))
    with pytest.raises(OSError, match=r"home directory.*Set KERAS_HOME"):
        cache_folder()
    make = Maker()
    for calls in (1, 2):
        with pytest.warns(UserWarning, match=r"made\.npz could not be written .*home directory"):
            assert_right(get(make))
        assert make.calls == calls


def test_what_killed_writers_left_is_removed_and_a_writer_at_work_keeps_its_own(path):
    """When the next one writes the same name, and it is older than an hour."""
    leftovers = [path.with_name(f"{n}.new") for n in ("made.npz.1", "made.npz.2", "other.npz.1")]
    for seconds, leftover in zip((3700, 3500, 9999), leftovers, strict=True):
        leftover.write_bytes(b"half")
        os.utime(leftover, (time.time() - seconds,) * 2)
    assert_right(get(Maker()))
    assert contents_of(path.parent) == {
        "made.npz": RIGHT,
        "made.npz.2.new": b"half",
        "other.npz.1.new": b"half",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_gives_the_data_and_a_warning(path):
    path.parent.chmod(0o500)
    with pytest.warns(UserWarning, match=re.escape(str(path))):
        assert_right(get(Maker()))
    path.parent.chmod(0o700)
