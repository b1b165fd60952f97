"""Braille: 256 cells of eight dots, each described by which dots it has."""

import numpy as np

from mlutils.data.described import described

FIRST = 0x2800  # the blank cell; the bits above it say which dots a cell has
DOTS = 8
FULL = chr(FIRST + 2**DOTS - 1)


def braille(seed=0, jitter=0.5):
    """Synthetic drawings of the 256 Braille cells of eight dots, described by their dots.

    They are printed from the DejaVu fonts, square dots or round ones, and distorted as the glyphs
    are but less, 20 drawings each at 28 x 28 pixels.  A cell is shown where it stands in its
    line, in the frame of the full one; the empty cell is white paper.
    A signature has a 1 for each dot that is there, in Unicode's order: dots 1, 2, 3 down the left
    side, 4, 5, 6 down the right, then 7 and 8 below them.
    The first call takes some seconds; the drawings are then kept in Keras's cache folder.

    Args:
        seed: of the distortions, 0 to 2**32 - 1.
        jitter: their strength; 0 prints, 1 is the strength of the glyphs.

    Returns:
        ``Described``, whose names are the characters themselves.

    Raises:
        ValueError: for a seed out of range or a negative ``jitter``.
    """
    cells = np.arange(2**DOTS)
    return described(
        __file__,
        [chr(FIRST + cell) for cell in cells],
        "Braille",
        signatures=cells[:, np.newaxis] >> np.arange(DOTS) & 1,
        attributes=[f"dot {n}" for n in range(1, DOTS + 1)],
        seed=seed,
        jitter=jitter,
        frame=FULL,
    )
