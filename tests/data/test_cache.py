import io
import os
import re
import warnings

import numpy as np
import pytest

from mlutils.data.cache import cache_folder, cached_arrays

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


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The cache file's path, in an empty folder; no warning may come, unless it is expected."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield tmp_path / "mlutils" / "made.npz"


def saved(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def single_array():
    file = io.BytesIO()
    np.save(file, ARRAYS["pictures"])
    return file.getvalue()


def changed(where, value):
    """The right file with one byte changed."""
    file = bytearray(saved(**ARRAYS))
    file[where] = value
    return bytes(file)


def test_the_folder_is_kerass(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "mlutils"
    monkeypatch.setenv("KERAS_HOME", "")
    assert cache_folder() == tmp_path / ".keras" / "mlutils"
    monkeypatch.delenv("KERAS_HOME")
    assert cache_folder() == tmp_path / ".keras" / "mlutils"


def test_made_once_then_read(path):
    make = Maker()
    assert_right(get(make))
    assert_right(get(make))
    assert make.calls == 1
    assert [p.name for p in path.parent.iterdir()] == ["made.npz"]
    cached_arrays("other.npz", make, fits)
    assert make.calls == 2


RIGHT = saved(**ARRAYS)
MIDDLE = RIGHT.index(ARRAYS["pictures"].tobytes())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no archive at all", id="garbage"),
        pytest.param(bytes(range(256)) * 10, id="binary garbage"),
        pytest.param(b"PK\x03\x04" + bytes(200), id="garbage that begins like an archive"),
        pytest.param(RIGHT[:10], id="first bytes only"),
        pytest.param(RIGHT[: len(RIGHT) // 2], id="half"),
        pytest.param(RIGHT[:-1], id="last byte missing"),
        pytest.param(changed(MIDDLE, 77), id="a number changed"),
        pytest.param(saved(pictures=np.zeros((3, 5)), names=np.zeros(3)), id="wrong shape"),
        pytest.param(saved(names=np.zeros(3)), id="an array missing"),
        pytest.param(saved(pictures=np.array([None]), names=np.zeros(3)), id="pickled objects"),
        pytest.param(
            single_array(),
            id="one array, not an archive",
        ),
        pytest.param(
            saved(pictures=np.zeros((3, 4)), names=np.int32(3)),
            id="a number where fits takes a length",
        ),
        pytest.param(
            changed(RIGHT.index(b"PK\x01\x02") + 6, 97),
            id="an archive of another version",
        ),
    ],
)
def test_a_damaged_file_is_made_anew_and_replaced(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    make = Maker()
    assert_right(get(make))
    assert make.calls == 1
    assert_right(get(make))
    assert make.calls == 1
    assert [p.name for p in path.parent.iterdir()] == ["made.npz"]


def cut_off(error):
    """A np.savez that fails when half of the file is written."""

    def savez(file, **arrays):
        file.write(RIGHT[: len(RIGHT) // 2])
        file.flush()
        raise error

    return savez


@pytest.mark.parametrize("earlier", [None, b"an earlier file"])
def test_a_make_that_raises_leaves_things_as_they_were(path, earlier):
    def make():
        raise ZeroDivisionError

    if earlier:
        path.parent.mkdir()
        path.write_bytes(earlier)
    with pytest.raises(ZeroDivisionError):
        get(make)
    assert [p.read_bytes() for p in path.parent.glob("*")] == ([earlier] if earlier else [])


@pytest.mark.parametrize("earlier", [None, b"an earlier file"])
@pytest.mark.parametrize("error", [MemoryError("full"), KeyboardInterrupt(), OSError("disk full")])
def test_a_write_that_is_cut_off_leaves_things_as_they_were(path, monkeypatch, earlier, error):
    """Only a full disk is nothing that should end the program: the arrays are there."""
    if earlier:
        path.parent.mkdir()
        path.write_bytes(earlier)
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", cut_off(error))
        if isinstance(error, OSError):
            with pytest.warns(UserWarning, match=f"{re.escape(str(path))}.*disk full"):
                assert_right(get(Maker()))
        else:
            with pytest.raises(type(error)):
                get(Maker())
    assert [p.read_bytes() for p in path.parent.iterdir()] == ([earlier] if earlier else [])
    make = Maker()
    assert_right(get(make))
    assert_right(get(make))
    assert make.calls == 1


def test_the_earlier_file_stays_until_the_new_one_is_whole(path, monkeypatch):
    path.parent.mkdir()
    path.write_bytes(b"an earlier file")
    savez = np.savez

    def looking(file, **arrays):
        savez(file, **arrays)
        assert path.read_bytes() == b"an earlier file"

    monkeypatch.setattr(np, "savez", looking)
    assert_right(get(Maker()))
    assert path.read_bytes() == RIGHT


def test_a_folder_that_cannot_be_gives_the_data_and_a_warning(tmp_path, monkeypatch):
    """Below a regular file no folder can be made, not even by root."""
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    monkeypatch.setenv("KERAS_HOME", str(file / "below"))
    make = Maker()
    for calls in (1, 2):
        message = f"{re.escape(str(file / 'below' / 'mlutils' / 'made.npz'))} could not be written"
        with pytest.warns(UserWarning, match=f"{message}.*KERAS_HOME"):
            assert_right(get(make))
        assert make.calls == calls
    assert file.read_bytes() == b"kept"


def test_a_folder_in_the_files_place_gives_the_data_and_a_warning(path):
    path.mkdir(parents=True)
    with pytest.warns(UserWarning, match=re.escape(str(path))):
        assert_right(get(Maker()))
    assert [p.name for p in path.parent.iterdir()] == ["made.npz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_gives_the_data_and_a_warning(path):
    path.parent.mkdir()
    path.parent.chmod(0o500)
    with pytest.warns(UserWarning, match=re.escape(str(path))):
        assert_right(get(Maker()))
    path.parent.chmod(0o700)
