"""Files that are made once and kept in Keras's cache folder."""

import os
import uuid
import warnings
import zipfile
from pathlib import Path

import numpy as np

# What numpy raises for a file that is absent, cut off, or something else altogether.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
)


def cache_folder():
    """Where ``keras.utils.get_file`` caches too: ``KERAS_HOME`` or ``~/.keras``, in ``mlutils``."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "mlutils"


def cached_arrays(name, make, fits):
    """The arrays of a file in the cache; made, and the file written whole, where it is not there.

    A file that cannot be read or does not fit is made anew.  Where the folder cannot be
    written, the arrays are made each time, and a warning says so.

    Args:
        name: the file's name, ``....npz``.
        make: makes a dict of arrays.
        fits: from such a dict to whether it is what ``make`` makes.

    Returns:
        A dict of arrays.
    """
    path = cache_folder() / name
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        if fits(arrays):
            return arrays
    except UNREADABLE:
        pass  # absent or damaged: make it anew
    arrays = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{name}.{uuid.uuid4().hex}.new")  # each writer has its own
        try:
            with new.open("wb") as file:
                np.savez(file, **arrays)
            os.replace(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        warnings.warn(
            f"{path} could not be written ({error}); the data are made anew each time. Set "
            "KERAS_HOME to a folder that can be written.",
            stacklevel=3,
        )
    return arrays
