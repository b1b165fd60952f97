import contextlib
import errno
import hashlib
import io
import itertools
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keras
import pytest

from mlutils.data import archives
from mlutils.data.archives import checked_archive, digest, fetched_archive, own_archives
from mlutils.data.archives import read_archive as read

FILES = {
    "b/2.txt": b"second " * 9,
    "a.txt": b"first",
    "b/1.bin": bytes(range(256)) * 3,
    "b/empty": b"",
    "\N{GREEK SMALL LETTER ALPHA}": b"no ASCII",
}
NOWHERE = "http://127.0.0.1:1/"
DOWNLOAD_URL = re.compile(r"http://127\.0\.0\.1:\d+/made\.zip")


def packed(files, compression=zipfile.ZIP_DEFLATED):
    """A zip archive of the files, in their order; names and contents may come as pairs too."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as file:
        for name, content in files.items() if isinstance(files, dict) else files:
            file.writestr(name, content)
    return archive.getvalue()


RIGHT = packed(FILES)
CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"  # what an entry of the list of files, and its end, have


def changed(where, values, content=RIGHT):
    """The archive with some bytes changed."""
    content = bytearray(content)
    content[where : where + len(values)] = values
    return bytes(content)


def in_both_headers(local, values):
    """The archive of one file with a field changed in both of its headers."""
    content = packed({"a.txt": b"first"})
    return changed(content.index(CENTRAL) + local + 2, values, changed(local, values, content))


def forged(content, size, claimed):
    """The archive with ``size`` replaced by ``claimed`` wherever it is declared."""
    assert content.count(struct.pack("<I", size)) == 2
    return content.replace(struct.pack("<I", size), struct.pack("<I", claimed))


@contextlib.contextmanager
def serving(answer):
    """A server that only this machine reaches; gives its URL and the list of paths asked for."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.over = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", requests
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def sends(content, status=200, length=None):
    """An answer; ``length`` is what its header says, None for the truth."""

    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", len(content) if length is None else length)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def sends_without_length(content):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def falls_silent(*beginning):
    """Sends some bytes and then nothing, while the connection stays."""

    def answer(handler):
        for content in beginning:
            sends(content, length=len(RIGHT))(handler)
            handler.wfile.flush()
        handler.server.over.wait(60)

    return answer


def closes(handler):
    """No answer at all."""


def speaks_no_http(handler):
    handler.wfile.write(b"220 mail.example.org ESMTP\r\n" * 3)


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


def contents_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def assert_refused(path):
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read(path)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflate"]
)
def test_an_archive_is_read_in_order_of_names_without_folders(path, compression):
    path.write_bytes(packed({"b/": b"", **FILES, "a/": b""}, compression))
    files = read(path)
    assert files == FILES
    assert list(files) == ["a.txt", "b/1.bin", "b/2.txt", "b/empty", "\N{GREEK SMALL LETTER ALPHA}"]
    assert read(str(path)) == FILES


def test_an_empty_archive_is_one(path):
    path.write_bytes(packed({}))
    assert read(path) == {}


def test_a_missing_file_is_not_found(path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        read(path)


def test_a_folder_in_its_place_is_an_oserror(path):
    path.mkdir()
    with pytest.raises(OSError, match=re.escape(str(path))):
        read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_oserror(path):
    path.write_bytes(RIGHT)
    path.chmod(0)
    with pytest.raises(PermissionError, match=re.escape(str(path))):
        read(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no archive at all", id="garbage"),
        pytest.param(in_both_headers(6, b"\1"), id="encrypted"),
        pytest.param(in_both_headers(8, b"\x63"), id="unknown method of compression"),
        pytest.param(RIGHT.replace(b"a.txt", b"\0.txt"), id="a file without a name"),
        pytest.param(
            changed(RIGHT.index(END) + 16, b"\xff\xff\xff\x7f"), id="a list beyond the end"
        ),
        pytest.param(
            changed(RIGHT.index(END) + 16, struct.pack("<I", RIGHT.index(CENTRAL) + 8)),
            id="a list at another place",
        ),
        pytest.param(
            forged(packed({"a": b"1234" * 99}), 396, 395), id="a size smaller than it declares"
        ),
    ],
)
def test_a_damaged_archive_is_refused_with_its_path(path, content):
    path.write_bytes(content)
    assert_refused(path)


def test_other_compressions_are_refused(path):
    path.write_bytes(packed({"a.txt": b"first"}, zipfile.ZIP_BZIP2))
    with pytest.raises(ValueError, match="is compressed in another way"):
        read(path)


def test_a_truncated_archive_is_refused_wherever_it_ends(path):
    for length in range(len(RIGHT)):
        path.write_bytes(RIGHT[:length])
        assert_refused(path)


def test_any_changed_bit_is_harmless_or_refused(path):
    """Never another kind of error, never other contents of a file."""
    files = {"a": b"first " * 3, "b/c": bytes(range(40))}
    content = packed(files)
    outcomes = {"harmless": 0, "refused": 0}
    others = {}
    for where, bit in itertools.product(range(len(content)), range(8)):
        path.write_bytes(changed(where, [content[where] ^ 1 << bit], content))
        try:
            assert read(path).items() <= files.items()
            outcomes["harmless"] += 1
        except ValueError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
        except Exception as error:
            others[where, bit] = repr(error)
    assert others == {}
    assert min(outcomes.values()) > 100


def test_a_name_twice_is_refused(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(packed([("a.txt", b"first"), ("b.txt", b"second"), ("a.txt", b"third")]))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} names 1 of its files twice"):
        read(path)


def test_so_many_files_and_bytes_are_allowed_and_no_more(path, monkeypatch):
    assert (archives.MOST_FILES, archives.MOST_BYTES) == (100_000, 64 * 2**20)
    path.write_bytes(packed({"a": b"123", "b": b"4567", "folder/": b""}))
    monkeypatch.setattr(archives, "MOST_FILES", 2)
    monkeypatch.setattr(archives, "MOST_BYTES", 7)
    assert read(path) == {"a": b"123", "b": b"4567"}
    for name, most in (("MOST_FILES", 1), ("MOST_BYTES", 6)):
        with monkeypatch.context() as patched:
            patched.setattr(archives, name, most)
            with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*2 files of 7 bytes"):
                read(path)


def test_a_file_of_so_many_bytes_is_read_and_no_larger_one(path, monkeypatch):
    assert archives.LARGEST == 128 * 2**20
    path.write_bytes(RIGHT)
    monkeypatch.setattr(archives, "LARGEST", len(RIGHT))
    assert read(path) == FILES
    monkeypatch.setattr(archives, "LARGEST", len(RIGHT) - 1)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} has {len(RIGHT):,} bytes"):
        read(path)


def peak_of_reading(path):
    """The most memory that refusing it took, in bytes."""
    tracemalloc.start()
    try:
        assert_refused(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_is_refused_before_anything_is_unpacked(path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 2**20)
    path.write_bytes(packed([("small", b"1"), ("large", bytes(2**20))]))
    assert peak_of_reading(path) < 2**18


@pytest.mark.parametrize(
    "compression",
    [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
    ids=["deflate", "bzip2", "LZMA"],
)
def test_a_bomb_that_says_it_is_small_is_refused_before_it_fills_the_memory(
    path, monkeypatch, compression
):
    monkeypatch.setattr(archives, "MOST_BYTES", 2**20)
    size = 2**21 + 0x123456
    path.write_bytes(forged(packed({"bomb": bytes(size)}, compression), size, 10))
    assert peak_of_reading(path) < 2**20


def test_names_and_links_that_point_elsewhere_are_but_keys(tmp_path, monkeypatch):
    """Nothing is written anywhere."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    absolute = str(tmp_path / "absolute")
    names = ["../above", absolute, "./here", "a/../../b", r"C:\x", "link/below", "CON"]
    content = packed([*((name, name.encode()) for name in names), (link, b"/etc/passwd")])
    path = tmp_path / "made.zip"
    path.write_bytes(content)
    expected = {**{name: name.encode() for name in names}, "link": b"/etc/passwd"}
    assert read(path) == expected
    assert checked_archive(path, digest(expected)) == expected
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["here", "made.zip"]


def test_the_digest_is_of_names_and_contents_in_order_of_names():
    def sha(content):
        return hashlib.sha256(content)

    first, second = sha(b"first").digest(), sha(b"\0second").digest()
    by_hand = sha(b"a/b\0" + first + "\N{GREEK SMALL LETTER ALPHA}\0".encode() + second)
    files = {"\N{GREEK SMALL LETTER ALPHA}": b"\0second", "a/b": b"first"}
    assert digest(files) == by_hand.hexdigest()
    assert digest({}) == sha(b"").hexdigest()


def test_other_contents_than_expected_are_refused_with_both_digests(path):
    path.write_bytes(RIGHT)
    assert checked_archive(path, digest(FILES)) == FILES
    other = digest({})
    message = rf"{re.escape(str(path))} .*{digest(FILES)}.*{other}"
    with pytest.raises(ValueError, match=message):
        checked_archive(path, other)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(sends(RIGHT), id="with a length"),
        pytest.param(sends_without_length(RIGHT), id="without a length"),
    ],
)
def test_fetched_once_then_read(path, answer):
    folder = path.parent / "not" / "there"
    path = folder / path.name
    with serving(answer) as (url, requests):
        assert fetch(url, path) == FILES
        assert contents_of(folder) == {"made.zip": RIGHT}
        assert fetch(url, path) == FILES
        assert requests == ["/made.zip"]
    assert fetch(NOWHERE, path) == FILES  # there is no server any more


def test_it_is_written_beside_its_place_not_to_kerass_other_caches(path, monkeypatch):
    get_file, written = keras.utils.get_file, []

    def looking(*args, **options):
        written.append(Path(get_file(*args, **options)).resolve())
        return written[-1]

    monkeypatch.setattr(keras.utils, "get_file", looking)
    with serving(sends(RIGHT)) as (url, _):
        fetch(url, path)
    (file,) = written
    assert path.parent.resolve() in file.parents and not file.exists()


HALF = RIGHT[: len(RIGHT) // 2]
DIFFERENT = packed({**FILES, "a.txt": b"other"})


@pytest.mark.parametrize("earlier", [None, HALF, DIFFERENT], ids=["nothing", "cut off", "another"])
def test_what_is_damaged_is_replaced(path, earlier):
    if earlier is not None:
        path.write_bytes(earlier)
    with serving(sends(RIGHT)) as (url, requests):
        assert fetch(url, path) == FILES
        assert fetch(url, path) == FILES
    assert len(requests) == 1
    assert contents_of(path.parent) == {"made.zip": RIGHT}


def assert_says_what_to_do(error, path):
    message = str(error)
    assert str(path) in message or DOWNLOAD_URL.search(message)
    assert "MLUTILS_DATA" in message and "KERAS_HOME" in message


@pytest.mark.parametrize(
    "earlier, answer, kind, says",
    [
        pytest.param(HALF, None, OSError, "refused", id="no server"),
        pytest.param(HALF, sends(b"gone", 404), OSError, "404", id="not found"),
        pytest.param(HALF, sends(RIGHT, 500), OSError, "500", id="server error"),
        pytest.param(HALF, sends(HALF, length=len(RIGHT)), OSError, "retrieval", id="half-way"),
        pytest.param(None, sends(HALF, length=len(RIGHT)), OSError, "retrieval", id="for nothing"),
        pytest.param(HALF, sends_without_length(HALF), ValueError, "zip", id="half, of no length"),
        pytest.param(HALF, sends(b""), (OSError, ValueError), None, id="an empty file"),
        pytest.param(HALF, sends(b"<html>Sign in!</html>"), ValueError, "zip", id="a page"),
        pytest.param(HALF, sends(DIFFERENT), ValueError, "digest", id="another archive"),
        pytest.param(HALF, sends(changed(30, b"c")), ValueError, "zip", id="a damaged archive"),
        pytest.param(HALF, closes, OSError, None, id="no answer"),
        pytest.param(HALF, speaks_no_http, OSError, None, id="no HTTP"),
        pytest.param(HALF, falls_silent(), OSError, "timed out", id="silent"),
        pytest.param(HALF, falls_silent(HALF), OSError, "timed out", id="silent half-way"),
    ],
)
def test_a_failed_download_leaves_things_as_they_were(
    path, monkeypatch, earlier, answer, kind, says
):
    """It says what can be done, and a second call fetches it if the server is well again."""
    if earlier is not None:
        path.write_bytes(earlier)
    with monkeypatch.context() as patched, serving(answer) as (url, requests):
        if says == "timed out":
            patched.setattr(archives, "PATIENCE", 0.5)
        with pytest.raises(kind, match=says) as caught:
            fetch(url if answer else NOWHERE, path)
        assert requests == (["/made.zip"] if answer else [])
    assert_says_what_to_do(caught.value, path)
    assert contents_of(path.parent) == ({} if earlier is None else {"made.zip": earlier})
    with serving(sends(RIGHT)) as (url, _):
        assert fetch(url, path) == FILES
    assert contents_of(path.parent) == {"made.zip": RIGHT}


def cut_off(error):
    """A download that fails when half of the file is written."""

    def get_file(fname, origin, cache_dir, cache_subdir):
        with open(os.path.join(cache_dir, cache_subdir, fname), "wb") as file:
            file.write(HALF)
        raise error

    return get_file


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_is_cut_off_leaves_things_as_they_were(path, monkeypatch, error):
    """A full disk, with advice; and whoever stops the program just stops it."""
    path.write_bytes(HALF)
    with monkeypatch.context() as patched:
        patched.setattr(keras.utils, "get_file", cut_off(error))
        with pytest.raises(type(error)) as caught:
            fetch(NOWHERE, path)
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value)
        assert_says_what_to_do(caught.value, path)
    assert contents_of(path.parent) == {"made.zip": HALF}
    with serving(sends(RIGHT)) as (url, _):
        assert fetch(url, path) == FILES


def test_the_earlier_file_stays_until_the_new_one_is_checked(path, monkeypatch):
    """Then that is moved to its place: who reads the earlier one meanwhile is not disturbed."""
    path.write_bytes(DIFFERENT)
    seen = []

    def looking(files):
        seen.append(path.read_bytes())
        return digest(files)

    monkeypatch.setattr(archives, "digest", looking)
    with serving(sends(RIGHT)) as (url, _), path.open("rb") as reader:
        assert fetch(url, path) == FILES
        assert reader.read() == DIFFERENT
    assert len(seen) >= 2 and set(seen) == {DIFFERENT}
    assert contents_of(path.parent) == {"made.zip": RIGHT}


def test_below_a_regular_file_it_says_what_to_do(tmp_path):
    """No folder can be made there, not even by root."""
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    with serving(sends(RIGHT)) as (url, _):
        for path in (file / "made.zip", file / "below" / "made.zip"):
            with pytest.raises(OSError) as caught:
                fetch(url, path)
            assert_says_what_to_do(caught.value, path)
    assert contents_of(tmp_path) == {"file": b"kept"}


def test_a_folder_in_its_place_stays_and_it_says_what_to_do(path):
    path.mkdir()
    with serving(sends(RIGHT)) as (url, _), pytest.raises(OSError) as caught:
        fetch(url, path)
    assert_says_what_to_do(caught.value, path)
    assert [p.name for p in path.parent.iterdir()] == ["made.zip"] and path.is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_serves_what_it_has_and_else_says_what_to_do(path):
    other = path.with_name("other.zip")
    path.write_bytes(RIGHT)
    path.parent.chmod(0o500)
    try:
        with serving(sends(RIGHT)) as (url, requests):
            assert fetch(url, path) == FILES
            with pytest.raises(OSError) as caught:
                fetch(url, other)
        assert requests == []
    finally:
        path.parent.chmod(0o700)
    assert_says_what_to_do(caught.value, other)
    assert contents_of(path.parent) == {"made.zip": RIGHT}


FETCH = """
import pathlib, sys
from mlutils.data.archives import digest, fetched_archive
files = fetched_archive(sys.argv[1] + "made.zip", pathlib.Path(sys.argv[2]), sys.argv[3])
print("got", digest(files))
"""


def test_two_processes_at_once_get_it_and_leave_one_file(path, monkeypatch):
    """Each answer's second half waits until both have asked, so that both write at once."""
    path.write_bytes(HALF)
    monkeypatch.setattr(archives, "PATIENCE", 120)  # until the other process has imported Keras
    both = threading.Barrier(2, timeout=120)

    def answer(handler):
        sends(HALF, length=len(RIGHT))(handler)
        handler.wfile.flush()
        both.wait()
        handler.wfile.write(RIGHT[len(HALF) :])

    with serving(answer) as (url, requests):
        command = [sys.executable, "-c", FETCH, url, str(path), digest(FILES)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert fetch(url, path) == FILES
            output, _ = other.communicate()
    assert other.returncode == 0 and output.splitlines()[-1] == f"got {digest(FILES)}"
    assert len(requests) == 2
    assert contents_of(path.parent) == {"made.zip": RIGHT}


def test_the_patience_of_other_connections_is_as_before(path, monkeypatch):
    unpatched = socket.getdefaulttimeout()
    socket.setdefaulttimeout(7.0)
    try:
        with serving(sends(RIGHT)) as (url, _):
            fetch(url, path)
        assert socket.getdefaulttimeout() == 7.0
        path.unlink()
        monkeypatch.setattr(keras.utils, "get_file", cut_off(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fetch(NOWHERE, path)
        assert socket.getdefaulttimeout() == 7.0
    finally:
        socket.setdefaulttimeout(unpatched)


def test_the_own_archives_are_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MLUTILS_DATA", str(tmp_path))
    assert own_archives() == tmp_path
    monkeypatch.setenv("MLUTILS_DATA", "")
    assert own_archives() is None
    monkeypatch.delenv("MLUTILS_DATA")
    assert own_archives() is None
