import errno
import hashlib
import itertools
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import keras
import pytest

from mlutils.data.plumbing import archives
from mlutils.data.plumbing.archives import checked_archive, digest, fetched_archive, own_archives
from mlutils.data.plumbing.archives import read_archive as read
from tests.data.helpers import NOWHERE, contents_of, packed, sends, serving

FILES = {
    "b/2.txt": b"second " * 9,
    "a.txt": b"first",
    "b/1.bin": bytes(range(256)) * 3,
    "b/empty": b"",
    "\N{GREEK SMALL LETTER ALPHA}": b"no ASCII",
}
RIGHT = packed(FILES)
HALF = RIGHT[: len(RIGHT) // 2]
DIFFERENT = packed({**FILES, "a.txt": b"other"})
DOWNLOAD_URL = re.compile(r"http://127\.0\.0\.1:\d+/made\.zip")


def changed(where, values, content=RIGHT):
    """The archive with some bytes changed."""
    return content[:where] + bytes(values) + content[where + len(values) :]


def forged(content, size, claimed):
    """The archive with ``size`` replaced by ``claimed`` wherever it is declared."""
    assert content.count(struct.pack("<I", size)) == 2
    return content.replace(struct.pack("<I", size), struct.pack("<I", claimed))


def falls_silent(handler):
    """Half of it, and then nothing, while the connection stays."""
    sends(HALF, length=len(RIGHT))(handler)
    handler.wfile.flush()
    handler.server.over.wait(60)


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy between a test and its server, also in processes that the test starts."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def path(tmp_path):
    """Where the archive is, or will be: the only thing in a folder."""
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept" / "made.zip"


def fetch(url, path):
    return fetched_archive(url + "made.zip", path, digest(FILES))


def assert_refused(path, says=""):
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{says}"):
        read(path)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_read_in_order_of_names_without_folders(path, compression):
    path.write_bytes(packed({"b/": b"", **FILES, "a/": b""}, compression))
    assert read(path) == read(str(path)) == FILES
    alpha = "\N{GREEK SMALL LETTER ALPHA}"
    assert list(read(path)) == ["a.txt", "b/1.bin", "b/2.txt", "b/empty", alpha]
    path.write_bytes(packed({}))
    assert read(path) == {}
    path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        read(path)
    path.mkdir()
    with pytest.raises(OSError, match=re.escape(str(path))):
        read(path)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"no archive at all", ""),
        (packed({"a.txt": b"first"}, zipfile.ZIP_BZIP2), "compressed in another way"),
        (RIGHT.replace(b"a.txt", b"\0.txt"), "without a name"),
        (forged(packed({"a": b"1234" * 99}), 396, 395), ""),
    ],
    ids=["garbage", "bzip2", "no name", "a size smaller than it is"],
)
def test_a_damaged_archive_is_refused_with_its_path(path, content, says):
    path.write_bytes(content)
    assert_refused(path, says)


def test_a_truncated_archive_is_refused_wherever_it_ends(path):
    for length in range(0, len(RIGHT), 3):
        path.write_bytes(RIGHT[:length])
        assert_refused(path)
    path.write_bytes(RIGHT[:-1])
    assert_refused(path)


def test_any_changed_bit_is_harmless_or_refused(path):
    """Never another kind of error, never other contents of a file.

    Among them are encrypted ones, unknown compressions, and lists of files at another place.
    """
    files = {"a": b"first " * 3, "b/c": bytes(range(9))}
    content = packed(files)
    outcomes, others, said = {"harmless": 0, "refused": 0}, {}, ""
    for where, bit in itertools.product(range(len(content)), range(8)):
        path.write_bytes(changed(where, [content[where] ^ 1 << bit], content))
        try:
            assert read(path).items() <= files.items()
            outcomes["harmless"] += 1
        except ValueError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
            said += str(error)
        except Exception as error:
            others[where, bit] = repr(error)
    assert others == {}
    assert min(outcomes.values()) > 100
    assert "encrypted" in said and "compressed in another way" in said and "Bad magic" in said


def test_a_name_twice_is_refused(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(packed([("a.txt", b"first"), ("b.txt", b"second"), ("a.txt", b"third")]))
    assert_refused(path, "names 1 of its files twice")


def test_so_many_files_and_bytes_are_allowed_and_no_more(path, monkeypatch):
    assert (archives.MOST_FILES, archives.MOST_BYTES) == (100_000, 64 * 2**20)
    assert archives.LARGEST == 128 * 2**20
    content = packed({"a": b"123", "b": b"4567", "folder/": b""})
    path.write_bytes(content)
    for name, most, says in (
        ("MOST_FILES", 2, "2 files of 7 bytes"),
        ("MOST_BYTES", 7, "2 files of 7 bytes"),
        ("LARGEST", len(content), f"has {len(content):,} bytes"),
    ):
        monkeypatch.setattr(archives, name, most)
        assert read(path) == {"a": b"123", "b": b"4567"}
        with monkeypatch.context() as patched:
            patched.setattr(archives, name, most - 1)
            assert_refused(path, says)


def bomb(compression):
    """It says that it is small."""
    size = 2**21 + 0x123456
    return forged(packed({"bomb": bytes(size)}, compression), size, 10)


@pytest.mark.parametrize(
    "content, most",
    [
        pytest.param(packed([("small", b"1"), ("large", bytes(2**20))]), 2**18, id="honest"),
        pytest.param(bomb(zipfile.ZIP_DEFLATED), 2**20, id="deflate"),
        pytest.param(bomb(zipfile.ZIP_BZIP2), 2**20, id="bzip2"),
        pytest.param(bomb(zipfile.ZIP_LZMA), 2**20, id="LZMA"),
    ],
)
def test_a_bomb_is_refused_before_it_fills_the_memory(path, monkeypatch, content, most):
    monkeypatch.setattr(archives, "MOST_BYTES", 2**20)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert_refused(path)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_names_and_links_that_point_elsewhere_are_but_keys(tmp_path, monkeypatch):
    """Nothing is written anywhere."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    absolute = str(tmp_path / "absolute")
    names = ["../above", absolute, "./here", "a/../../b", r"C:\x", "link/below", "CON"]
    path = tmp_path / "made.zip"
    path.write_bytes(packed([*((n, n.encode()) for n in names), (link, b"/etc/passwd")]))
    expected = {**{name: name.encode() for name in names}, "link": b"/etc/passwd"}
    assert read(path) == checked_archive(path, digest(expected)) == expected
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["here", "made.zip"]


def test_the_digest_is_of_names_and_contents_in_order_of_names(path):
    """Other contents than expected are refused with both digests."""

    def sha(content):
        return hashlib.sha256(content)

    first, second = sha(b"first").digest(), sha(b"\0second").digest()
    by_hand = sha(b"a/b\0" + first + "\N{GREEK SMALL LETTER ALPHA}\0".encode() + second)
    files = {"\N{GREEK SMALL LETTER ALPHA}": b"\0second", "a/b": b"first"}
    assert digest(files) == by_hand.hexdigest() and digest({}) == sha(b"").hexdigest()
    path.write_bytes(RIGHT)
    with pytest.raises(ValueError, match=f"{path} .*{digest(FILES)}.*{digest({})}"):
        checked_archive(path, digest({}))


# ---------------------------------------------------------------- fetching


@pytest.mark.parametrize("length", [None, False], ids=["with a length", "without a length"])
def test_fetched_once_then_read(path, length):
    path = path.parent / "not" / "there" / path.name
    with serving(sends(RIGHT, length=length)) as (url, requests):
        assert fetch(url, path) == FILES
        assert contents_of(path.parent) == {"made.zip": RIGHT}
        assert fetch(url, path) == FILES
        assert requests == ["/made.zip"]
    assert fetch(NOWHERE, path) == FILES  # there is no server any more


@pytest.mark.parametrize("earlier", [HALF, DIFFERENT], ids=["cut off", "another"])
def test_what_is_damaged_is_replaced_when_the_new_one_is_checked(path, monkeypatch, earlier):
    """It is written beside its place, not to Keras's other caches, and then moved there: who reads
    the earlier one meanwhile is not disturbed."""
    path.write_bytes(earlier)
    get_file, written, seen = keras.utils.get_file, [], []

    def spy_get_file(*args, **options):
        written.append(Path(get_file(*args, **options)).resolve())
        return written[-1]

    def spy_digest(files):
        seen.append(path.read_bytes())
        return digest(files)

    monkeypatch.setattr(keras.utils, "get_file", spy_get_file)
    monkeypatch.setattr(archives, "digest", spy_digest)
    with serving(sends(RIGHT)) as (url, requests), path.open("rb") as reader:
        assert fetch(url, path) == FILES
        assert reader.read() == earlier
        assert seen and set(seen) == {earlier}
        assert fetch(url, path) == FILES
    assert len(requests) == len(written) == 1
    assert path.parent.resolve() in written[0].parents and not written[0].exists()
    assert contents_of(path.parent) == {"made.zip": RIGHT}


def assert_says_what_to_do(error, path):
    message = str(error)
    assert str(path) in message or DOWNLOAD_URL.search(message)
    assert "MLUTILS_DATA" in message and "KERAS_HOME" in message


FAULTS = {
    "no server": (None, OSError, "refused"),
    "not found": (sends(b"gone", 404), OSError, "404"),
    "server error": (sends(RIGHT, 500), OSError, "500"),
    "half-way": (sends(HALF, length=len(RIGHT)), OSError, "retrieval"),
    "half, of no length": (sends(HALF, length=False), ValueError, "zip"),
    "an empty file": (sends(b""), (OSError, ValueError), None),
    "a page": (sends(b"<html>Sign in!</html>"), ValueError, "zip"),
    "another archive": (sends(DIFFERENT), ValueError, "digest"),
    "a damaged archive": (sends(changed(30, b"c")), ValueError, "zip"),
    "no answer": (lambda handler: None, OSError, None),
    "no HTTP": (lambda handler: handler.wfile.write(b"220 ESMTP\r\n" * 3), OSError, None),
    "silent": (falls_silent, OSError, "timed out"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("earlier", [{}, {"made.zip": HALF}], ids=["nothing", "cut off"])
def test_a_failed_download_leaves_things_as_they_were(path, monkeypatch, earlier, fault):
    """It says what can be done, and a second call fetches it if the server is well again."""
    answer, kind, says = FAULTS[fault]
    for name, content in earlier.items():
        path.with_name(name).write_bytes(content)
    with monkeypatch.context() as patched, serving(answer) as (url, requests):
        if answer is falls_silent:
            patched.setattr(archives, "PATIENCE", 0.2)
        with pytest.raises(kind, match=says) as caught:
            fetch(url if answer else NOWHERE, path)
        assert requests == (["/made.zip"] if answer else [])
    assert_says_what_to_do(caught.value, path)
    assert contents_of(path.parent) == earlier
    with serving(sends(RIGHT)) as (url, _):
        assert fetch(url, path) == FILES
    assert contents_of(path.parent) == {"made.zip": RIGHT}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_is_cut_off_leaves_things_as_they_were(path, monkeypatch, error):
    """A full disk, with advice; and whoever stops the program just stops it.  The patience of
    other connections is as before, too."""

    def cut_off(fname, origin, cache_dir, cache_subdir):
        with open(os.path.join(cache_dir, cache_subdir, fname), "wb") as file:
            file.write(HALF)
        assert socket.getdefaulttimeout() == 60
        raise error

    path.write_bytes(HALF)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(7.0)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(keras.utils, "get_file", cut_off)
            with pytest.raises(type(error)) as caught:
                fetch(NOWHERE, path)
        assert socket.getdefaulttimeout() == 7.0
        assert contents_of(path.parent) == {"made.zip": HALF}
        with serving(sends(RIGHT)) as (url, _):
            assert fetch(url, path) == FILES
        assert socket.getdefaulttimeout() == 7.0
    finally:
        socket.setdefaulttimeout(before)
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value)
        assert_says_what_to_do(caught.value, path)


def test_where_it_cannot_be_kept_it_says_what_to_do(tmp_path):
    """Below a regular file no folder can be made, not even by root; a folder is not replaced."""
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    with serving(sends(RIGHT)) as (url, _):
        for place in ("file/made.zip", "file/below/made.zip", "folder"):
            with pytest.raises(OSError) as caught:
                fetch(url, tmp_path / place)
            assert_says_what_to_do(caught.value, tmp_path / place)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"


# The module alone, and a get_file without Keras: to import that takes seconds.
FETCH = """
import pathlib, runpy, sys, types, urllib.request
def get_file(name, url, cache_dir, cache_subdir):
    return urllib.request.urlretrieve(url, pathlib.Path(cache_dir) / name)[0]
sys.modules["keras"] = types.SimpleNamespace(utils=types.SimpleNamespace(get_file=get_file))
module = runpy.run_path(sys.argv[1])
files = module["fetched_archive"](sys.argv[2] + "made.zip", pathlib.Path(sys.argv[3]), sys.argv[4])
print("got", module["digest"](files))
"""


def test_two_processes_at_once_get_it_and_leave_one_file(path, monkeypatch):
    """Each answer's second half waits until both have asked, so that both write at once."""
    path.write_bytes(HALF)
    monkeypatch.setattr(archives, "PATIENCE", 120)  # until the other process is there
    both = threading.Barrier(2, timeout=120)

    def answer(handler):
        sends(HALF, length=len(RIGHT))(handler)
        handler.wfile.flush()
        both.wait()
        handler.wfile.write(RIGHT[len(HALF) :])

    with serving(answer) as (url, requests):
        command = [sys.executable, "-c", FETCH, archives.__file__, url, str(path), digest(FILES)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert fetch(url, path) == FILES
            output, _ = other.communicate()
    assert other.returncode == 0 and output.splitlines()[-1] == f"got {digest(FILES)}"
    assert len(requests) == 2
    assert contents_of(path.parent) == {"made.zip": RIGHT}


def test_what_killed_downloads_left_is_removed_and_one_at_work_keeps_its_own(path, tmp_path):
    """When the next one fetches the same archive, and all of it is older than an hour.

    What a link there points to stays.
    """
    (tmp_path / "kept" / "elsewhere").mkdir()
    for name, folder, file in (
        ("made.zip1.new", 3700, 3700),
        ("made.zip2.new", 3700, 3500),
        ("made.zip3.new", 3500, 3700),
        ("other.zip1.new", 9999, 9999),
    ):
        new = path.with_name(name)
        new.mkdir()
        (new / "made.zip").write_bytes(HALF)
        for where, seconds in ((new / "made.zip", file), (new, folder)):
            os.utime(where, (time.time() - seconds,) * 2)
    link = path.with_name("made.zip4.new")
    link.symlink_to("elsewhere")
    os.utime(link, (0, 0), follow_symlinks=False)
    with serving(sends(RIGHT)) as (url, _):
        assert fetch(url, path) == FILES
    left = {p.name for p in path.parent.iterdir() if not p.is_symlink()}
    assert left == {"made.zip", "made.zip2.new", "made.zip3.new", "other.zip1.new", "elsewhere"}


def test_the_own_archives_are_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MLUTILS_DATA", str(tmp_path))
    assert own_archives() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLUTILS_DATA", "~/archives")
    assert own_archives() == tmp_path / "archives"
    monkeypatch.setenv("MLUTILS_DATA", "")
    assert own_archives() is None
    monkeypatch.delenv("MLUTILS_DATA")
    assert own_archives() is None
