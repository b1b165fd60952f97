"""Drawings in colour, for networks that expect three channels."""

import numpy as np

from mlutils.door.numbers import check_flag, check_seed
from mlutils.episodes import describe


def in_colour(drawings, seed=0, photographs=False):
    """Each drawing in a dark ink and on a light paper of its own.

    Args:
        drawings: uint8 ``(n, height, width, 1)``, ink 255 and paper 0, such as the ``x`` of
            ``Characters``.
        seed: 0 to 2**32 - 1, of the colours.
        photographs: take for paper a faded piece of the two photographs that scikit-learn ships,
            instead of one colour.  The paper then goes down to 100 and the ink up to 99: the
            contrast may be low.

    Returns:
        uint8 ``(n, height, width, 3)``.

    Raises:
        ValueError: if the drawings are not of that shape and type, ``seed`` is no such integer or
            ``photographs`` no bool.
    """
    photographs = check_flag("photographs", photographs)
    given = isinstance(drawings, np.ndarray) and drawings.ndim == 4 and drawings.shape[-1] == 1
    if not given or drawings.dtype != np.uint8:
        raise ValueError(
            "drawings must be a uint8 array (n, height, width, 1), such as glyphs().x; got "
            f"{describe(drawings)}" + (f" of {drawings.dtype}." if given else ".")
        )
    random, (n, *size, _) = np.random.default_rng(check_seed(seed)), drawings.shape
    ink = random.integers(100, size=(n, 1, 1, 3))
    if photographs:
        paper = 100 + 0.6 * pieces(random, n, size)
    else:
        paper = random.integers(150, 256, size=(n, 1, 1, 3))
    share = drawings / np.float32(255)
    return np.round(share * ink + (1 - share) * paper).astype(np.uint8)


def pieces(random, n, size):
    """Random pieces of scikit-learn's photographs, each made a quarter as wide: ``(n, *size, 3)``.

    Raises:
        ValueError: if the photographs are too small.
    """
    from sklearn.datasets import load_sample_images  # here: importing it takes a second

    images = [image[::4, ::4] for image in load_sample_images().images]
    if min(images[0].shape[0] - size[0], images[0].shape[1] - size[1]) < 0:
        raise ValueError(
            f"Pieces of photographs are at most {images[0].shape[:2]} pixels; the drawings have "
            f"{tuple(size)}."
        )
    found = np.empty((n, *size, 3), np.uint8)
    for piece, corner, which in zip(
        found, random.random((n, 2)), random.integers(len(images), size=n), strict=True
    ):
        top, left = (corner * (np.array(images[which].shape[:2]) - size + 1)).astype(int)
        piece[:] = images[which][top : top + size[0], left : left + size[1]]
    return found
