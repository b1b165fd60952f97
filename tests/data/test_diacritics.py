import unicodedata

import numpy as np
import pytest

from mlutils.data import Described, diacritics
from mlutils.data.plumbing import rendering

# From Unicode's chart of combining diacritical marks.
NAMES = (
    "grave, acute, circumflex, tilde, macron, breve, dot above, diaeresis, hook above, caron, "
    "double grave, inverted breve, dot below, cedilla, ogonek, circumflex below, macron below"
)
POINTS = "0300 0301 0302 0303 0304 0306 0307 0308 0309 030c 030f 0311 0323 0327 0328 032d 0331"
MARKS = {
    name: chr(int(point, 16)) for name, point in zip(NAMES.split(", "), POINTS.split(), strict=True)
}


@pytest.fixture(scope="module")
def letters(cache):
    return diacritics()


def test_sizes_and_ink(letters):
    assert isinstance(letters, Described) and len(letters) >= 150
    assert len(set(letters.names)) == len(letters)
    assert set(letters.scripts) == {"Latin"} and letters.source == rendering.SOURCE
    assert letters.images.dtype == np.uint8
    assert letters.images.shape == (len(letters), 20, 28, 28, 1)
    assert np.min(letters.images.sum(axis=(2, 3, 4), dtype=int)) > 10 * 255
    assert len({drawing.tobytes() for drawing in letters.x}) == 20 * len(letters)


def test_attributes_are_letters_then_marks(letters):
    """In the alphabet's order, q without a mark, and in Unicode's order."""
    expected = [f"letter {letter}" for letter in "abcdefghijklmnoprstuvwxyz"]
    assert letters.attributes == (*expected, *(f"mark {mark}" for mark in MARKS))


def check_descriptions(names, signatures, attributes):
    """Assert that each name is the composition of its letter and its mark."""
    for name, signature in zip(names, signatures, strict=True):
        assert sorted(signature) == [0] * (len(attributes) - 2) + [1, 1], "not two ones"
        letter, mark = (attributes[i] for i in np.flatnonzero(signature))
        assert letter.startswith("letter ") and mark.startswith("mark "), "not one of each"
        apart = letter.removeprefix("letter ") + MARKS[mark.removeprefix("mark ")]
        assert unicodedata.normalize("NFD", name) == apart, "not what it is made of"
        assert unicodedata.normalize("NFC", apart) == name, "not what it is made of"


def test_each_is_composed_of_its_letter_and_its_mark(letters):
    check_descriptions(letters.names, letters.signatures, letters.attributes)
    assert len(np.unique(letters.signatures, axis=0)) == len(letters)


def test_the_check_rejects_other_descriptions(letters):
    """Named alphabetically, but numbered by code point; all ones; all zeros."""
    wrong = tuple(sorted(letters.attributes))
    with pytest.raises(AssertionError, match="not what it is made of"):
        check_descriptions(letters.names, letters.signatures, wrong)
    for row in (np.ones_like, np.zeros_like):
        signatures = np.concatenate([letters.signatures[:-1], row(letters.signatures[-1:])])
        with pytest.raises(AssertionError, match="not two ones"):
            check_descriptions(letters.names, signatures, letters.attributes)


def test_some_by_hand(letters):
    by_hand = {
        "á": ("a", "acute"),
        "é": ("e", "acute"),
        "ç": ("c", "cedilla"),
        "ñ": ("n", "tilde"),
        "ü": ("u", "diaeresis"),
        "ř": ("r", "caron"),
        "ȃ": ("a", "inverted breve"),
        "ạ": ("a", "dot below"),
        "ṱ": ("t", "circumflex below"),
        "ę": ("e", "ogonek"),
    }
    for name, (letter, mark) in by_hand.items():
        signature = letters.signatures[letters.names.index(name)]
        found = {letters.attributes[i] for i in np.flatnonzero(signature)}
        assert found == {f"letter {letter}", f"mark {mark}"}


def test_not_among_them(letters):
    """No mark, no ready-made mark, two marks, a capital, no Latin letter of twenty-six; and a mark
    that stands on four letters only (a ring on a, u, w, y), or two (a comma on s, t)."""
    assert set("aøđłǘǭÁẛåůẘẙșțőű").isdisjoint(letters.names)


def test_each_mark_stands_on_five_letters_and_each_letter_has_one(letters):
    counts = dict(zip(letters.attributes, letters.signatures.sum(axis=0), strict=True))
    assert min(n for name, n in counts.items() if name.startswith("mark")) >= 5
    assert min(counts.values()) >= 1
    assert counts["letter f"] == 1  # ḟ: a split at random would lose it


def test_none_is_missing(letters):
    """Of all that Unicode has, and a face: one small letter of a to z with one of these marks."""
    found = []
    for character in map(chr, range(0x80, 0x10000)):
        apart = unicodedata.decomposition(character)
        parts = [chr(int(part, 16)) for part in apart.split()] if apart[:1] != "<" else []
        if len(parts) == 2 and "a" <= parts[0] <= "z" and parts[1] in MARKS.values():
            found.append(character)
    assert letters.names == tuple(c for c in found if rendering.faces_of(c))
