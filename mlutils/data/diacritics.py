"""Latin letters with marks, described by letter and mark as Unicode takes them apart."""

import collections
import string
import unicodedata

import numpy as np

from mlutils.data import rendering
from mlutils.data.described import described

RANGES = ((0xC0, 0x250), (0x1E00, 0x1F00))  # Latin letters that come ready-made with their marks
LEAST = 5  # a mark is taken if it stands on so many letters or more


def diacritics(seed=0, jitter=0.5):
    """Synthetic drawings of the small Latin letters, plain and with one mark: a, á, ç, ...

    They are printed from the DejaVu fonts and distorted as the glyphs are but less, 20 drawings
    each at 28 x 28 pixels.  A character is described by its canonical decomposition in Unicode's
    database: a 1 for its letter and a 1 for its mark, if it has one.  A mark is among them if at
    least five letters have it.
    The first call takes some seconds; the drawings are then kept in Keras's cache folder.

    Args:
        seed: of the distortions, 0 to 2**32 - 1.
        jitter: their strength; 0 prints, 1 is the strength of the glyphs.

    Returns:
        ``Described``, whose names are the characters themselves; attributes are named
        ``"letter a"`` and ``"mark acute"``.

    Raises:
        ValueError: for a seed out of range or a negative ``jitter``.
    """
    parts = {letter: (letter,) for letter in string.ascii_lowercase} | marked_letters()
    marks = sorted({unicodedata.name(mark) for _, *some in parts.values() for mark in some})
    letter_of = {letter: i for i, letter in enumerate(string.ascii_lowercase)}
    column = letter_of | {unicodedata.lookup(mark): i for i, mark in enumerate(marks, 26)}
    signatures = np.zeros((len(parts), len(column)), np.float32)
    for row, some in zip(signatures, parts.values(), strict=True):
        row[[column[part] for part in some]] = 1
    attributes = [f"letter {letter}" for letter in letter_of]
    attributes += [f"mark {short(mark)}" for mark in marks]
    return described(__file__, list(parts), "Latin", signatures, attributes, seed, jitter)


def marked_letters():
    """A dict from each small letter with a common mark to the letter and the mark."""
    parts = {}
    for character in (chr(point) for start, stop in RANGES for point in range(start, stop)):
        apart = tuple(unicodedata.normalize("NFD", character))
        if len(apart) == 2 and apart[0] in string.ascii_lowercase and rendering.faces_of(character):
            parts[character] = apart
    common = collections.Counter(mark for _, mark in parts.values())
    return {c: (letter, mark) for c, (letter, mark) in parts.items() if common[mark] >= LEAST}


def short(name):
    """``"acute"`` for ``"COMBINING ACUTE ACCENT"``."""
    return name.removeprefix("COMBINING ").removesuffix(" ACCENT").lower()
