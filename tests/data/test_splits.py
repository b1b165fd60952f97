"""No tested class is among the trained ones: one table of splits, one property.

Whoever adds to ``mlutils.data`` something that deals classes adds a row; whatever else is added is
named in ``NO_DEAL``, with what it does instead.
"""

import dataclasses
import inspect
import itertools
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest

import mlutils.data
from benchmarks import handwriting, lake
from benchmarks import omniglot as few_shot_accuracy
from mlutils.data import (
    Characters,
    Described,
    Pictures,
    braille,
    diacritics,
    folder,
    glyphs,
    handwritten_braille,
    official_lake_runs,
    omniglot,
)
from mlutils.data.glyphs import SCRIPTS
from mlutils.data.omniglot import SPLITS

needs_omniglot = pytest.mark.skipif("MLUTILS_DATA" not in os.environ, reason="needs Omniglot")
pytestmark = pytest.mark.usefixtures("cache")


class Deal(NamedTuple):
    """What is trained on, what is tested, and all drawings of both, if the parts have not all."""

    trained: Characters
    tested: Characters
    whole: Characters | None = None


# ---------------------------------------------------------------- the property


def inked(drawings):
    """As bytes; white paper says nothing of a class."""
    return {drawing.tobytes() for drawing in drawings if drawing.any()}


def classes(characters):
    """As names with their scripts: Braille's a, by hand, is no Latin a."""
    return set(zip(characters.scripts, characters.names, strict=True))


def check_apart(deal):
    """Assert that no tested class is trained on: by name, by any of its drawings, by description.

    A class is known by the drawings of all its drawers, whichever of them are tested.
    """
    trained, tested, whole = deal
    assert len(trained) and len(tested)
    assert not classes(trained) & classes(tested), "a tested class's name is trained on"
    everything = tested.x
    if whole is not None:
        known = [i for i, name in enumerate(whole.names) if name in set(tested.names)]
        assert len(known) == len(tested)
        everything = whole.subset(known).x
        assert inked(tested.x) <= inked(everything)
    assert not inked(trained.x) & inked(everything), "a tested class's drawing is trained on"
    if isinstance(trained, Described) and trained.attributes == getattr(tested, "attributes", None):
        rows = [{row.tobytes() for row in part.signatures} for part in (trained, tested)]
        assert not rows[0] & rows[1], "a tested class's description is trained on"


# ---------------------------------------------------------------- the table


def pairs(make, parts):
    """Each part trained on, and each later one tested."""
    return [Deal(make(one), make(other)) for one, other in itertools.combinations(parts, 2)]


def class_splits(data, most, seeds=5):
    """Of several sizes and seeds: train and unseen, seen and unseen; and one split in another."""
    for unseen, seed in itertools.product((1, most // 3, most), range(seeds)):
        train, seen, new = data.class_split(unseen, seed)
        yield from (Deal(train, new, data), Deal(seen, new, data))
    train, _, new = data.class_split(most // 3, seed=1)
    inner, _, inner_new = train.class_split(most // 3, seed=2)
    yield from (Deal(inner, inner_new, train), Deal(inner, new, data), Deal(inner_new, new, data))


def curve_splits(data, tested, sizes, seeds=10):
    """Ever more seen classes, of splits of one seed, and always the same unseen ones."""
    for seed, size in itertools.product(range(seeds), sizes):
        train = data.class_split(len(data) - size, seed).train
        assert len(train) == size
        yield Deal(train, data.class_split(tested, seed).unseen, data)


def by_scripts(data, seed=0):
    """Half of the scripts, and the others."""
    scripts = np.random.default_rng(seed).permutation(sorted(set(data.scripts))).tolist()
    half = len(scripts) // 2
    return [Deal(data.of_scripts(scripts[:half]), data.of_scripts(scripts[half:]))]


def by_positions(data, seed=0):
    """Half of the classes, and the others."""
    dealt = np.random.default_rng(seed).permutation(len(data))
    half = len(data) // 2
    return [Deal(data.subset(dealt[:half]), data.subset(dealt[half:]))]


def by_folder(read, shares=(0.5, 0.2, 0.3)):
    """Each part of a folder and each later one, of some seeds, by whoever reads the folder."""
    data = glyphs("test").subset(range(0, 100, 4))
    with tempfile.TemporaryDirectory() as path:
        for i, name in enumerate(data.names):
            place = Path(path) / data.scripts[i] / f"{ord(name):x}"
            place.mkdir(parents=True)
            for j, image in enumerate(data.images[i]):
                PIL.Image.fromarray(image[..., 0]).save(place / f"{j}.png")
        for seed in range(3):
            parts = [as_characters(part) for part in read(path, shares, seed)]
            yield from (Deal(*pair) for pair in itertools.combinations(parts, 2))


def by_names(path, shares, seed):
    """The classes of the first third of the scripts, by their folders' names, and the others."""
    pictures = folder(path)
    scripts = sorted({name.split("/")[0] for name in pictures.names})
    third = len(scripts) // 3
    return [pictures.of_classes(scripts[:third]), pictures.of_classes(scripts[third:])]


def as_characters(pictures):
    """Pictures of equally many for each class as ``Characters``."""
    images = pictures.x.reshape(len(pictures), -1, *pictures.x.shape[1:])
    scripts = tuple(name.split("/")[0] for name in pictures.names)
    return Characters(images, pictures.names, scripts, "a folder")


def turned_scripts():
    """Turned characters of training, and those of the test, turned or not."""
    train, test = glyphs("train").turned(), glyphs("test")
    return [Deal(train, test), Deal(train, test.turned())]


def official():
    """Lake's official runs beside what is trained on for them, the background."""
    runs, evaluation = official_lake_runs(), omniglot("evaluation")
    shown = np.concatenate([np.asarray(runs.support_x), np.asarray(runs.query_x)], axis=1)
    shown = np.rint(255 * shown.reshape(-1, 1, *shown.shape[2:])).astype(np.uint8)
    names = tuple(f"drawing {i}" for i in range(len(shown)))
    drawn = Characters(shown, names, ("official",) * len(shown), "the official runs")
    assert inked(drawn.x) <= inked(evaluation.x)
    return [Deal(omniglot("background"), drawn)]


def printed_and_drawn():
    """The printed cells without the letters, and the letters by hand; three printings."""
    hand = handwritten_braille()
    for seed, jitter in itertools.product(range(3), handwriting.JITTERS):
        cells = handwriting.trainings(hand, seed)["no letter"]
        yield Deal(handwriting.six_dots(seed, jitter).subset(cells), hand)


# What deals (as ``module function`` or ``class.method``), and with what: a function that gives
# deals.  The last rows are of the encoder that was pretrained on all glyphs.
TABLE = {
    "glyphs": lambda: pairs(glyphs, SCRIPTS),
    "Characters.of_scripts": lambda: by_scripts(glyphs()),
    "Characters.subset": lambda: by_positions(glyphs()),
    "Characters.turned": turned_scripts,
    "Described.class_split": lambda: class_splits(braille(), 200),
    "Described.class_split of diacritics": lambda: class_splits(diacritics(), 90),
    "Described.class_split, ever larger": lambda: curve_splits(
        braille(), 64, (8, 16, 32, 64, 128, 192)
    ),
    "Described.subset": lambda: by_positions(braille()),
    "Described.of_scripts": lambda: by_scripts(described_scripts()),
    "folder": lambda: by_folder(
        lambda path, shares, seed: folder(path, 28, splits=shares, seed=seed)
    ),
    "Pictures.split": lambda: by_folder(lambda path, *how: folder(path).split(*how)),
    "Pictures.of_classes": lambda: by_folder(by_names),
    "glyphs, then braille": lambda: [Deal(glyphs(), braille())],
    "glyphs, then diacritics": lambda: [Deal(glyphs(), diacritics())],
}
WITH_OMNIGLOT = {
    "omniglot, Lake's": lambda: pairs(omniglot, SPLITS[:2]),
    "omniglot, Vinyals'": lambda: pairs(omniglot, SPLITS[2:]),
    "Characters.of_scripts of omniglot": lambda: by_scripts(omniglot("background")),
    "official_lake_runs": official,
    "Described.class_split of letters by hand": lambda: class_splits(handwritten_braille(), 9),
    "glyphs, then letters by hand": lambda: [Deal(glyphs(), handwritten_braille())],
}
# What measurements beside the package deal by themselves.
OF_BENCHMARKS = {
    "accuracy lake": lambda: [Deal(*lake.characters(28, flag)) for flag in (False, True)],
    "accuracy omniglot": lambda: [
        Deal(*two)
        for protocol in few_shot_accuracy.PROTOCOLS
        for two in itertools.combinations(few_shot_accuracy.characters(protocol), 2)
    ],
    "handwriting": printed_and_drawn,
}
# What deals no classes into trained and tested ones.
NO_DEAL = {
    "Characters.of_drawers": "the same classes, by some of their drawers",
    "Characters.episodes": "tasks of the classes that it is given",
    "ClassSplit": "the three parts that class_split gives",
    "GaussianProcess": "functions, no classes",
    "LinearGaussian": "functions, no classes",
    "NetworkTraining": "functions, no classes",
    "Pictures.at_least": "all its classes that are large enough",
    "Pictures.episodes": "tasks of the classes that it is given",
    "Quadratics": "functions, no classes",
    "Scaling": "location and spread, no classes",
    "TableTasks": "tasks of a table; tests/data/test_table.py holds that it deals tasks",
    "braille": "all its classes",
    "diacritics": "all its classes",
    "digits": "all its classes",
    "episodes": "tasks of the classes that it is given",
    "handwritten_braille": "all its classes",
    "in_colour": "the classes that it is given, in colour",
    "picture": "one picture",
    "lake_runs": "tasks of the classes that it is given",
    "read_lake_runs": "runs of an archive, which are all a test",
    "sinusoids": "functions, no classes",
    "table": "all its tasks",
    "Described.episodes": "tasks of the classes that it is given",
    "Described.turned": "raises",
    "Described.of_drawers": "the same classes, by some of their drawers",
}


def described_scripts():
    """Braille's cells, as if those of each four in a row were a script of their own."""
    data = braille()
    return dataclasses.replace(data, scripts=tuple(f"{i // 4}" for i in range(len(data))))


@pytest.mark.parametrize(
    "row",
    [
        *TABLE,
        *(pytest.param(row, marks=needs_omniglot) for row in {**WITH_OMNIGLOT, **OF_BENCHMARKS}),
    ],
)
def test_no_tested_class_is_trained_on(row):
    deals = list({**TABLE, **WITH_OMNIGLOT, **OF_BENCHMARKS}[row]())
    assert deals
    for deal in deals:
        check_apart(deal)


# ---------------------------------------------------------------- the table is whole


def public(kind):
    """The methods of a class that a user calls, its parents' too."""
    return [
        name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")
    ]


def dealers():
    """All that a user can call in ``mlutils.data``, with the function behind each name."""
    found = {}
    for name in mlutils.data.__all__:
        value = getattr(mlutils.data, name)
        if isinstance(value, type) and issubclass(value, (Characters, Pictures)):
            found |= {f"{name}.{method}": getattr(value, method) for method in public(value)}
        else:
            found[name] = value
    return found


def named(row):
    """``"Described.class_split"`` of ``"Described.class_split of diacritics"``."""
    return row.replace(",", " ").split()[0]


def test_all_that_deals_classes_is_in_the_table():
    """By name in one list or the other, and never in the second if it looks like a split."""
    tested = {named(row) for row in (*TABLE, *WITH_OMNIGLOT)}
    assert not tested & set(NO_DEAL)
    assert set(dealers()) == tested | set(NO_DEAL)
    assert {name for name, value in dealers().items() if looks_like_a_split(name, value)} <= tested


def test_a_new_split_without_a_row_is_noticed(monkeypatch):
    def dealt(part):
        """Half of the glyphs."""

    monkeypatch.setattr(mlutils.data, "dealt", dealt, raising=False)
    monkeypatch.setattr(mlutils.data, "__all__", [*mlutils.data.__all__, "dealt"])
    with pytest.raises(AssertionError):
        test_all_that_deals_classes_is_in_the_table()
    monkeypatch.setitem(NO_DEAL, "dealt", "nothing of the kind")
    with pytest.raises(AssertionError):
        test_all_that_deals_classes_is_in_the_table()
    monkeypatch.delitem(NO_DEAL, "dealt")
    monkeypatch.setitem(TABLE, "dealt", dealt)
    test_all_that_deals_classes_is_in_the_table()


def looks_like_a_split(name, value):
    """Whether it is called so, or asked for a part."""
    if isinstance(value, type):
        return False
    arguments = set(inspect.signature(value).parameters)
    return "split" in name.lower() or bool(
        arguments & {"split", "splits", "part", "unseen", "scripts"}
    )


def test_the_search_finds_the_splits_that_there_are():
    found = {name for name, value in dealers().items() if looks_like_a_split(name, value)}
    assert found == {
        "glyphs",
        "omniglot",
        "Characters.of_scripts",
        "Described.of_scripts",
        "Described.class_split",
        "Pictures.split",
        "folder",
    }


def test_all_parts_of_glyphs_and_of_omniglot_are_in_a_row():
    """Their options are those that the rows take, and they raise for every other."""
    assert list(SCRIPTS) == ["train", "validation", "test"]
    assert SPLITS == ("background", "evaluation", "train", "validation", "test")
    for data in (glyphs, omniglot):
        with pytest.raises(ValueError, match="split must be"):
            data("dev")


# ---------------------------------------------------------------- wrong splits


def same_class_by_others():
    """Seen classes as the test, drawn by others: the usual test, and not that of new classes."""
    train, seen, _ = braille().class_split(64)
    return Deal(train, seen, braille())


def renamed():
    """A trained class that is a tested one by another name, and by other drawers."""
    data = braille()
    train, _, new = data.class_split(64)
    images, names = train.images.copy(), list(train.names)
    images[5] = data.images[data.names.index(new.names[3]), :15]
    names[5] = "new"
    return Deal(dataclasses.replace(train, images=images, names=tuple(names)), new, data)


def letters_among_all():
    """The benchmark on handwriting as it was: all cells of six dots, then the letters by hand.

    The drawings are others, and so are the names: only the descriptions are the same.
    """
    cells = braille().subset(range(64))
    cells = dataclasses.replace(
        cells, signatures=cells.signatures[:, :6], attributes=cells.attributes[:6]
    )
    kept = [1, 3, 9]  # a, b, c
    letters = dataclasses.replace(
        cells.subset(kept), names=tuple("abc"), images=255 - cells.images[kept]
    )
    return Deal(cells, letters)


def other_seed():
    """Unseen classes of one seed, and training of another."""
    data = diacritics()
    return Deal(data.class_split(60, seed=0).train, data.class_split(60, seed=1).unseen, data)


def both_splits_of_omniglot():
    """Vinyals' training, and Lake's test."""
    return Deal(omniglot("train"), omniglot("evaluation"))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (same_class_by_others, "name is trained on"),
        (other_seed, "name is trained on"),
        (renamed, "drawing is trained on"),
        (letters_among_all, "description is trained on"),
        pytest.param(both_splits_of_omniglot, "name is trained on", marks=needs_omniglot),
    ],
)
def test_the_property_catches_a_wrong_split(wrong, message):
    with pytest.raises(AssertionError, match=message):
        check_apart(wrong())


def test_a_class_is_known_by_all_its_drawers():
    """By the tested drawings alone the renamed class would not be found."""
    trained, tested, _ = renamed()
    check_apart(Deal(trained, tested))
