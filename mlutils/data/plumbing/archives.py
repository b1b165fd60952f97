"""Zip archives from elsewhere: fetched whole, checked, and read without being unpacked."""

import contextlib
import glob
import hashlib
import io
import os
import shutil
import socket
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import keras

# What zipfile raises for an archive in memory that is cut off, damaged, encrypted or packed in a
# strange way.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
)
MOST_BYTES, MOST_FILES = 2**26, 100_000  # in an archive
LARGEST = 2**27  # bytes of an archive itself
PATIENCE = 60  # seconds without a byte
OLD = 3600  # seconds in which a writer that is at work has written something
WAYS_OUT = (
    "Try again; or get the archive in another way and name its folder in MLUTILS_DATA; or set "
    "KERAS_HOME to a folder that can be written and has space."
)


def read_archive(path):
    """The files of a zip archive, held in memory; nothing is written anywhere.

    Args:
        path: the archive.

    Returns:
        A dict from names to bytes, in order of the names; folders are left out.

    Raises:
        OSError: if the file cannot be read; ``FileNotFoundError`` if there is none.
        ValueError: if it is no intact zip archive, names a file twice, has more than
            128 MiB, or holds more than 100,000 files or 64 MiB.
    """
    path = Path(path)
    packed = path.stat().st_size
    if packed > LARGEST:
        raise ValueError(f"{path} has {packed:,} bytes; allowed are {LARGEST:,}.")
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            entries = [e for e in archive.infolist() if not e.filename.endswith("/")]
            entries.sort(key=lambda entry: entry.filename)
            size = sum(entry.file_size for entry in entries)
            if size > MOST_BYTES or len(entries) > MOST_FILES:
                raise ValueError(
                    f"it holds {len(entries):,} files of {size:,} bytes; allowed are "
                    f"{MOST_FILES:,} and {MOST_BYTES:,}"
                )
            files = {entry.filename: unpacked(archive, entry) for entry in entries}
    except DAMAGED as error:
        raise ValueError(f"{path} is no zip archive that can be used: {error}.") from error
    if len(files) < len(entries):
        raise ValueError(f"{path} names {len(entries) - len(files)} of its files twice.")
    return files


def unpacked(archive, entry):
    """One file's bytes.  However much is packed, no more than it declares is unpacked."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{entry.filename!r} is compressed in another way than by deflate")
    if not entry.filename:
        raise ValueError("it holds a file without a name")
    with archive.open(entry) as file:
        return file.read(entry.file_size + 1)  # to its end, where the checksum is compared


def digest(files):
    """The SHA-256 of names and contents, in order of the names: however they were packed.

    Args:
        files: a dict from names to bytes.

    Returns:
        64 hexadecimal digits.
    """
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return total.hexdigest()


def checked_archive(path, expected):
    """``read_archive``; contents of another ``digest`` than expected are a ValueError too."""
    files = read_archive(path)
    if digest(files) != expected:
        raise ValueError(
            f"{path} is a zip archive with other contents than expected: their digest is "
            f"{digest(files)}, and {expected} is right."
        )
    return files


def fetched_archive(url, path, expected):
    """The files of an archive that is kept at ``path``; fetched where it is not there.

    Anything else there, damaged or not the archive expected, is replaced.  A new one is written
    beside it, checked, and only then moved to its place, so that whatever happens, and however
    many processes do this at once, ``path`` holds a whole archive or what it held before.

    Args:
        url: where it is on the net.
        path: a ``Path`` where to keep it.
        expected: ``digest`` of its contents.

    Returns:
        A dict as of ``read_archive``.

    Raises:
        OSError: if it cannot be fetched or written.
        ValueError: if what was fetched is not what was expected.
    """
    with contextlib.suppress(OSError, ValueError):
        return checked_archive(path, expected)
    with contextlib.ExitStack() as stack:
        try:
            if path.is_dir():
                raise IsADirectoryError("a folder is in its place")
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            new = stack.enter_context(tempfile.TemporaryDirectory(".new", path.name, path.parent))
            stack.enter_context(patience())
            file = keras.utils.get_file(path.name, url, cache_dir=new, cache_subdir=".")
        except Exception as error:  # Keras raises bare ones
            raise OSError(f"{path} could not be made from {url}: {error}. {WAYS_OUT}") from error
        try:
            files = checked_archive(file, expected)
        except ValueError as error:
            raise ValueError(
                f"{url} sent something else than expected: {error} {WAYS_OUT}"
            ) from error
        os.replace(file, path)
    return files


def remove_leftovers(path):
    """Remove what killed writers of ``path`` left beside it: files and folders ``....new``.

    Those in which something was written within the last hour stay: their writer may be at work.
    """
    for new in path.parent.glob(f"{glob.escape(path.name)}*.new"):
        with contextlib.suppress(OSError):  # another writer may remove it, too
            written = max(p.lstat().st_mtime for p in (new, *new.rglob("*")))
            if time.time() - written > OLD:
                shutil.rmtree(new) if new.is_dir() else new.unlink()


@contextlib.contextmanager
def patience():
    """Connections that are silent for too long fail, instead of hanging forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def own_archives():
    """The folder named in ``MLUTILS_DATA``, where ``~`` is the home directory, or None."""
    folder = os.environ.get("MLUTILS_DATA")
    return Path(os.path.expanduser(folder)) if folder else None
