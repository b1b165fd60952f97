"""Latin letters with marks, described by letter and mark as Unicode takes them apart."""

import collections
import string
import unicodedata

import numpy as np

from mlutils.data.described import draw_described
from mlutils.data.plumbing import rendering

RANGES = ((0xC0, 0x250), (0x1E00, 0x1F00))  # Latin letters that come ready-made with their marks
LEAST = 5  # a mark is taken if it stands on so many letters or more


def diacritics(seed=0, jitter=0.5):
    """Synthetic drawings of small Latin letters, each with one mark: á, ç, ñ, ...

    They are printed from the DejaVu fonts and distorted as the glyphs are but less, 20 drawings
    each at 28 x 28 pixels.  A character is described by its canonical decomposition in Unicode's
    database: a 1 for its letter and a 1 for its mark.  A mark is among them if at least five
    letters have it.
    The first call takes some seconds; the drawings are then kept in Keras's cache folder.

    Args:
        seed: of the distortions, 0 to 2**32 - 1.
        jitter: their strength; 0 prints, 1 is the strength of the glyphs.

    Returns:
        ``Described``, whose names are the characters themselves; attributes are named
        ``"letter a"`` and ``"mark acute"``.
    """
    parts = marked_letters()
    letters, marks = (sorted(set(some)) for some in zip(*parts.values(), strict=True))
    column = {part: i for i, part in enumerate([*letters, *marks])}
    signatures = np.zeros((len(parts), len(column)), np.float32)
    for row, both in zip(signatures, parts.values(), strict=True):
        row[[column[part] for part in both]] = 1
    attributes = [f"letter {letter}" for letter in letters]
    attributes += [f"mark {short(mark)}" for mark in marks]
    return draw_described(__file__, list(parts), "Latin", signatures, attributes, seed, jitter)


def marked_letters():
    """A dict from each small letter with a common mark to the letter and the mark."""
    parts = {}
    for character in (chr(point) for start, stop in RANGES for point in range(start, stop)):
        apart = tuple(unicodedata.normalize("NFD", character))
        if len(apart) == 2 and apart[0] in string.ascii_lowercase and rendering.faces_of(character):
            parts[character] = apart
    common = collections.Counter(mark for _, mark in parts.values())
    return {c: (letter, mark) for c, (letter, mark) in parts.items() if common[mark] >= LEAST}


def short(mark):
    """``"acute"`` for the combining acute accent."""
    return unicodedata.name(mark).removeprefix("COMBINING ").replace(" ACCENT", "").lower()
