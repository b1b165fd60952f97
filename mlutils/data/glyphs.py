"""Glyphs: synthetic drawings of characters, rendered from the fonts that matplotlib ships."""

import unicodedata

import numpy as np

from mlutils.data.characters import Characters
from mlutils.data.plumbing import rendering
from mlutils.data.plumbing.cache import cached_arrays
from mlutils.door.numbers import check_option, check_seed

# Scripts and notations, with the ranges of their code points.  No combining marks, digits or
# ready-made combinations; of near-duplicates only the first in this order is kept.
SCRIPTS = {
    "train": {
        "Latin": [(0x41, 0x5B), (0x61, 0x7B), (0xC0, 0x250), (0x2C60, 0x2C80), (0xA722, 0xA800)],
        "Phonetic": [(0x250, 0x2B0), (0x1D00, 0x1DC0)],
        "Cyrillic": [(0x400, 0x530), (0xA640, 0xA6A0)],
        "Canadian syllabics": [(0x1400, 0x1680), (0x18B0, 0x1900)],
        "Letterlike symbols": [(0x2100, 0x2190)],
        "Arrows": [(0x2190, 0x2200), (0x27F0, 0x2800), (0x2900, 0x2980), (0x2B00, 0x2B30)],
        "Mathematical operators": [(0x2200, 0x2300), (0x27C0, 0x27F0), (0x2980, 0x2B00)],
        "Technical symbols": [(0x2300, 0x2336), (0x237B, 0x2400)],
        "Geometric shapes": [(0x25A0, 0x2600)],
        "Miscellaneous symbols": [(0x2600, 0x2700)],
        "Dingbats": [(0x2700, 0x27C0)],
        "Emoticons": [(0x1F600, 0x1F650)],
    },
    "validation": {
        "Greek": [(0x370, 0x3E2), (0x3F0, 0x400)],
        "Coptic": [(0x3E2, 0x3F0), (0x2C80, 0x2D00)],
        "N'Ko": [(0x7C0, 0x800)],
        "Lisu": [(0xA4D0, 0xA500)],
        "Old Italic": [(0x10300, 0x10330)],
        "APL": [(0x2336, 0x237B)],
        "Currency": [(0x24, 0x25), (0xA2, 0xA6), (0x20A0, 0x20D0)],
    },
    "test": {
        "Armenian": [(0x530, 0x590)],
        "Hebrew": [(0x590, 0x600)],
        "Arabic": [(0x600, 0x700), (0x750, 0x780)],
        "Lao": [(0xE80, 0xF00)],
        "Georgian Asomtavruli": [(0x10A0, 0x10D0)],
        "Georgian Mkhedruli": [(0x10D0, 0x1100)],
        "Georgian Nuskhuri": [(0x2D00, 0x2D30)],
        "Ogham": [(0x1680, 0x16A0)],
        "Tifinagh": [(0x2D30, 0x2D80)],
    },
}
RANGES = {script: ranges for part in SCRIPTS.values() for script, ranges in part.items()}

# Two characters are near-duplicates if, in any face that knows both or each in its first face, the
# cosine between their blurred prints, both of one size, is at least this.
DUPLICATE = 0.96


def glyphs(split=None, seed=0):
    """Synthetic drawings of the characters of many scripts, split by script.

    The letters and symbols that the DejaVu fonts know of 28 scripts and notations, near-duplicates
    removed, are drawn 20 times each at 28 x 28 pixels.  The n-th drawings of a script's characters
    have one "drawer": a font face, where it knows the character, and a way of slanting and
    stretching; each drawing adds an affine and an elastic distortion of its own.
    The first call takes some seconds; the arrays are then kept in Keras's cache folder.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``, which share no script; None for all.
        seed: of the distortions, 0 to 2**32 - 1.

    Returns:
        ``Characters``, whose names are the characters themselves.
    """
    check_option("split", split, (None, *SCRIPTS))
    seed = check_seed(seed)
    arrays = cached_arrays(
        f"glyphs-{rendering.recipe(__file__)}-{seed}.npz", lambda: make(seed), fits
    )
    names = tuple(map(chr, arrays["code_points"]))
    scripts = tuple(tuple(RANGES)[i] for i in arrays["scripts"])
    everything = Characters(arrays["images"], names, scripts, rendering.SOURCE)
    return everything if split is None else everything.of_scripts(set(SCRIPTS[split]))


def fits(arrays):
    """Whether a cache file holds what ``make`` makes."""
    shape = (len(arrays["code_points"]), rendering.DRAWINGS, rendering.SIZE, rendering.SIZE, 1)
    images = arrays["images"]
    return images.dtype == np.uint8 and images.shape == shape and len(arrays["scripts"]) == shape[0]


def make(seed):
    """Render and distort all characters: a dict of arrays.

    ``images`` uint8 ``(classes, DRAWINGS, 28, 28, 1)``, ``code_points`` and ``scripts`` int32
    ``(classes,)``, scripts by their position in ``RANGES``.
    """
    random = np.random.default_rng(seed)
    kept = distinct(candidates())
    images = [rendering.drawn(kept[script], random) for script in RANGES]
    return {
        "images": np.concatenate(images)[..., np.newaxis],
        "code_points": np.array([ord(c) for s in RANGES for c in kept[s]], np.int32),
        "scripts": np.repeat(np.arange(len(RANGES)), [len(kept[s]) for s in RANGES]),
    }


def candidates():
    """All characters of each script that a face can draw and that no other ones compose."""
    return {
        script: [
            character
            for start, stop in ranges
            for character in map(chr, range(start, stop))
            if unicodedata.category(character)[0] in "LNS"
            and not character.isdecimal()
            and unicodedata.normalize("NFKD", character) == character
            and rendering.faces_of(character)
        ]
        for script, ranges in RANGES.items()
    }


def distinct(characters):
    """The same dict without near-duplicates, of which the first is kept."""
    members = [(script, c) for script, some in characters.items() for c in some]
    faces = (None, *rendering.FACES)
    alike = np.max([similarity([c for _, c in members], face) for face in faces], axis=0)
    inked = alike.diagonal() > 0  # a character without ink resembles nothing, not even itself
    found, kept = {script: [] for script in characters}, np.zeros(len(members), bool)
    for i, (script, character) in enumerate(members):
        kept[i] = inked[i] and not np.any(alike[i, kept] >= DUPLICATE)
        if kept[i]:
            found[script].append(character)
    return found


def similarity(characters, face=None):
    """The cosines between all characters' blurred prints in a face, 0 where it lacks one.

    With no face given, each character is printed in the first that it has.
    """
    pictures = np.zeros((len(characters), rendering.SIZE**2), np.float32)
    known = {
        i: rendering.printed(c, face or rendering.faces_of(c)[0])
        for i, c in enumerate(characters)
        if face is None or ord(c) in rendering.coverage(face)
    }
    known = {i: picture for i, picture in known.items() if picture is not None}
    pictures[list(known)] = blurred(np.stack(list(known.values())))
    return pictures @ pictures.T


def blurred(prints):
    """Prints at half their resolution, blurred and scaled to length one: ``(n, SIZE²)``."""
    fine = prints.astype(np.float32)
    picture = sum(fine[:, row::2, column::2] for row in (0, 1) for column in (0, 1)) / 4
    for axis in (1, 2):
        weights = ((-2, 1), (-1, 2), (0, 3), (1, 2), (2, 1))  # a triangle of five pixels
        picture = sum(weight * np.roll(picture, shift, axis) for shift, weight in weights)
    flat = picture.reshape(len(prints), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)
