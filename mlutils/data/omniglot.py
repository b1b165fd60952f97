"""Omniglot: 1,623 handwritten characters of 50 alphabets, by 20 people each."""

import io

import numpy as np
from PIL import Image

from mlutils.data.characters import Characters
from mlutils.data.plumbing.archives import checked_archive, fetched_archive, own_archives
from mlutils.data.plumbing.cache import cache_folder, cached_arrays
from mlutils.door.numbers import check_count, check_option

SOURCE = "Omniglot"
FROM = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
DIGESTS = {
    "images_background": "07356096b8076fcf915341f8715e94822249e2a4d5b999fd2d0f6cf9ebffebd5",
    "images_evaluation": "f5165eb5f20d18e13c6515650b69a42a2c0507506969d410ba5e4a1c572bd542",
}
PIXELS, DRAWINGS = 105, 20  # of an original drawing, a side; of a character

# The first two are Lake's; the last three those of Vinyals et al. (2016), as Snell et al. (2017)
# published them: of the first 1,200 characters all but five alphabets, those five, and the rest.
SPLITS = ("background", "evaluation", "train", "validation", "test")
VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
BACKGROUND, TRAINING = 964, 1200


def omniglot(split=None, size=28):
    """The drawings of Omniglot (Lake, Salakhutdinov & Tenenbaum, Science 2015; MIT licence).

    The n-th drawings of an alphabet's characters are by one person.  For each pixel the ink of the
    original, 105 x 105 and black on white, is averaged over the pixel's exact area.

    The two official archives, 15 MB, are downloaded at the first call, and checked; they and the
    arrays are kept in Keras's cache folder, ``mlutils`` in ``KERAS_HOME`` or ``~/.keras``.
    Whoever has the archives already names their folder in ``MLUTILS_DATA``.

    Args:
        split: ``"background"`` (30 alphabets, 964 characters) or ``"evaluation"`` (20 alphabets,
            659), Lake's; ``"train"``, ``"validation"`` or ``"test"`` (1,028, 172 and 423
            characters), those of Vinyals et al. (NeurIPS 2016) as Snell et al. published them;
            None for all 1,623.  The two must not be mixed: ``"train"`` holds 236 characters of
            Lake's evaluation alphabets, and shares the alphabet Gurmukhi with ``"test"``.
        size: pixels a side, 1 to 105; the arrays of all have 25 MB at 28, 358 MB at 105.

    Returns:
        ``Characters``, whose names are like ``"Greek/character01"`` and whose scripts are the
        alphabets.

    Raises:
        ValueError: if an archive is damaged or has other contents.
        OSError: if an archive cannot be fetched, read or written.
    """
    check_option("split", split, (None, *SPLITS))
    if check_count("size", size) > PIXELS:
        raise ValueError(f"size must be at most {PIXELS}, the originals' size; got {size}.")
    content = "".join(DIGESTS.values())[::16]
    arrays = cached_arrays(f"omniglot-{content}-{size}.npz", lambda: make(size), fits(size))
    names = tuple(arrays["names"].tolist())
    scripts = tuple(name.split("/")[0] for name in names)
    everything = Characters(arrays["images"], names, scripts, SOURCE)
    return everything if split is None else everything.subset(members(split, scripts))


def members(split, scripts):
    """The positions of a split's characters."""
    validation = [i for i, script in enumerate(scripts) if script in VALIDATION]
    return {
        "background": range(BACKGROUND),
        "evaluation": range(BACKGROUND, len(scripts)),
        "train": [i for i in range(TRAINING) if scripts[i] not in VALIDATION],
        "validation": validation,
        "test": range(TRAINING, len(scripts)),
    }[split]


def fits(size):
    """Whether a cache file holds what ``make(size)`` makes."""

    def fits(arrays):
        shape = (len(arrays["names"]), DRAWINGS, size, size, 1)
        return arrays["images"].dtype == np.uint8 and arrays["images"].shape == shape

    return fits


def make(size):
    """Read the archives: a dict of ``images`` and ``names``, as ``Characters`` has them."""
    images, names = [], []
    for stem in DIGESTS:
        files = archive(stem)
        drawings = [ink_of(Image.open(io.BytesIO(png))) for png in files.values()]
        names += [name.split("/", 1)[1].rsplit("/", 1)[0] for name in list(files)[::DRAWINGS]]
        images.append(resized(np.stack(drawings), size))
    images = np.concatenate(images).reshape(-1, DRAWINGS, size, size, 1)
    return {"images": images, "names": np.array(names)}


def archive(stem):
    """One of the two archives' files, in order, from ``MLUTILS_DATA``, the cache or the net."""
    name, own = f"{stem}.zip", own_archives()
    if own is None:
        return fetched_archive(FROM + name, cache_folder() / name, DIGESTS[stem])
    try:
        return checked_archive(own / name, DIGESTS[stem])
    except (OSError, ValueError) as error:
        raise type(error)(
            f"{error} MLUTILS_DATA is {str(own)!r}: name the folder that holds the official "
            f"{name}, or unset it to download that."
        ) from error


def ink_of(image):
    """Where a picture is black, bool ``(height, width)``."""
    return ~np.asarray(image.convert("1", dither=Image.Dither.NONE))


def resized(ink, size):
    """Average over areas: bool ``(n, height, width)`` to uint8 ``(n, size, size)``, ink 255."""
    rows, columns = (areas(pixels, size) for pixels in ink.shape[1:])
    # A few at a time: as floats all drawings would take gigabytes.
    parts = np.array_split(ink, max(1, len(ink) // 200))
    return np.concatenate(
        [np.rint(255 * averages(part, rows, columns)).astype(np.uint8) for part in parts]
    )


def averages(part, rows, columns):
    """``rows @ part @ columns.T`` as two large products: many small ones can be very slow."""
    n, height, width = part.shape
    wide = part.reshape(-1, width).astype(np.float32) @ columns.T
    turned = wide.reshape(n, height, -1).swapaxes(1, 2).reshape(-1, height) @ rows.T
    return turned.reshape(n, len(columns), len(rows)).swapaxes(1, 2)


def areas(pixels, size):
    """The share of each of ``pixels`` old pixels in ``size`` new ones, float32 (size, pixels)."""
    edges = np.arange(size + 1) * pixels / size
    old = np.arange(pixels)
    covered = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return (np.maximum(covered, 0) * size / pixels).astype(np.float32)
