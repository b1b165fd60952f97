"""Braille: cells of eight dots, each described by which dots it has; printed, and by hand."""

import numpy as np

from mlutils.data.described import Described, draw_described
from mlutils.data.omniglot import omniglot

FIRST = 0x2800  # the blank cell; the bits above it say which dots a cell has
DOTS = 8
FULL = chr(FIRST + 2**DOTS - 1)
NAMES = tuple(f"dot {n}" for n in range(1, DOTS + 1))

# The dots of a to j.  The next ten letters add dot 3, the last ones dots 3 and 6; only w, which
# French did not have when Braille wrote it down, stands outside the system.
A_TO_J = ("1", "12", "14", "145", "15", "124", "1245", "125", "24", "245")
DOTS_OF = dict(zip("abcdefghij", A_TO_J, strict=True))
DOTS_OF |= {letter: dots + "3" for letter, dots in zip("klmnopqrst", A_TO_J, strict=True)}
DOTS_OF |= {letter: dots + "36" for letter, dots in zip("uvxyz", A_TO_J, strict=False)}
DOTS_OF["w"] = "2456"


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
    """
    cells = np.arange(2**DOTS)
    return draw_described(
        __file__,
        [chr(FIRST + cell) for cell in cells],
        "Braille",
        signatures=cells[:, np.newaxis] >> np.arange(DOTS) & 1,
        attributes=NAMES,
        seed=seed,
        jitter=jitter,
        frame=FULL,
    )


def handwritten_braille(size=28):
    """The letters a to z in Braille as twenty people drew them for Omniglot, described by dots.

    Nobody drew a frame: where on the paper the dots stand says nothing.
    The data are those of ``omniglot``, downloaded at the first call.

    Args:
        size: as for ``omniglot``.

    Returns:
        ``Described``, whose names are the letters; six dots.
    """
    drawn = omniglot("background", size).of_scripts("Braille")
    letters = sorted(DOTS_OF)
    return Described(
        drawn.images,
        tuple(letters),
        drawn.scripts,
        drawn.source,
        np.array([[str(n) in DOTS_OF[c] for n in range(1, 7)] for c in letters], np.float32),
        NAMES[:6],
    )
