"""Files that are made once and kept in Keras's cache folder."""

import os
import uuid
import warnings
from pathlib import Path

import numpy as np

from mlutils.data.plumbing.archives import remove_leftovers


def cache_folder():
    """Where ``keras.utils.get_file`` caches too: ``KERAS_HOME`` or ``~/.keras``, in ``mlutils``.

    Raises:
        OSError: if ``KERAS_HOME`` is not set and the user has no home directory.
    """
    home = os.environ.get("KERAS_HOME")
    try:
        return (Path(home) if home else Path.home() / ".keras") / "mlutils"
    except RuntimeError as error:
        raise OSError(f"{error} Set KERAS_HOME to a folder that can be written.") from error


def cached_arrays(name, make, fits):
    """The arrays of a file in the cache; made, and the file written whole, where it is not there.

    A file that cannot be read or does not fit is made anew.  Where the folder cannot be
    written, or there is no home directory, the arrays are made each time, and a warning says so.

    Args:
        name: the file's name, ``....npz``.
        make: makes a dict of arrays.
        fits: from such a dict to whether it is what ``make`` makes.

    Returns:
        A dict of arrays.
    """
    path = name
    try:
        path = cache_folder() / name
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        if fits(arrays):
            return arrays
    except Exception:
        pass  # absent, or damaged, for which numpy, zipfile and zlib have many kinds of errors
    arrays = make()
    try:
        path = cache_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
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
