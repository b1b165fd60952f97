import dataclasses
import importlib
import math
import re

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mlutils.data import ClassSplit, Described, braille, described, diacritics
from mlutils.data.plumbing import rendering
from tests.data import helpers

# A drawing says what it is: its first pixel is the class, the others are the drawing's number.
IMAGES = np.zeros((5, 4, 3, 3, 1), np.uint8)
IMAGES[:] = np.arange(4).reshape(4, 1, 1, 1)
IMAGES[:, :, 0, 0, 0] = np.arange(5)[:, np.newaxis]
SIGNATURES = np.array([[0, 1, 0.5], [1, 0, 0.25], [1, 1, 0], [0, 0, 0.75], [1, 0, 1]], np.float32)
SCRIPTS = ("one", "one", "two", "two", "three")
FEW = Described(IMAGES, tuple("abcde"), SCRIPTS, "made up", SIGNATURES, ("round", "tall", "dark"))


@pytest.fixture(scope="module")
def letters(cache):
    """Real drawings, no two of which are equal, and different signatures."""
    return diacritics()


# ---------------------------------------------------------------- descriptions


def test_other_signatures_raise_with_what_they_must_be():
    for wrong, found in (
        (SIGNATURES.astype(float), "float64 (5, 3)"),
        (SIGNATURES[1:], "float32 (4, 3)"),
        (SIGNATURES.T, "float32 (3, 5)"),
        (SIGNATURES[0], "float32 (3,)"),
    ):
        says = f"signatures must be float32 (classes, attributes), here (5, 3); got {found}"
        with pytest.raises(ValueError, match=re.escape(says)):
            dataclasses.replace(FEW, signatures=wrong)
    with pytest.raises(ValueError, match=r"here \(5, 2\); got float32 \(5, 3\)"):
        dataclasses.replace(FEW, attributes=("round", "tall"))
    with pytest.raises(ValueError, match="images must be uint8"):
        dataclasses.replace(FEW, names=("a", "b"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_missing_number_is_named(value):
    """The class and the attribute, so that it can be found in a large table."""
    signatures = SIGNATURES.copy()
    signatures[3, 1] = value
    with pytest.raises(ValueError, match=f"description of 'd' lacks 'tall': it is {value}"):
        dataclasses.replace(FEW, signatures=signatures)


def test_a_part_keeps_its_descriptions():
    """A class's row of the signatures goes with its drawings, whose first pixel is the class."""
    for some, classes in (
        (FEW.subset(iter([4, 1])), [4, 1]),
        (FEW.of_scripts("two"), [2, 3]),
        (FEW.of_scripts(["three", "one"]), [0, 1, 4]),
        (FEW.of_drawers([2, 0]), [0, 1, 2, 3, 4]),
    ):
        assert isinstance(some, Described) and some.attributes == FEW.attributes
        assert some.names == tuple("abcde"[c] for c in classes) and some.source == "made up"
        np.testing.assert_array_equal(some.signatures, SIGNATURES[classes])
        np.testing.assert_array_equal(some.images[:, 0, 0, 0, 0], classes)


def test_turned_characters_are_not_described():
    """Their signatures would be those of others: rather an error than wrong descriptions."""
    with pytest.raises(ValueError, match="turned ones have none"):
        FEW.turned()
    assert repr(FEW) == "5 characters of 3 scripts, 4 drawings each (made up)"


@pytest.mark.parametrize("make", [braille, diacritics])
def test_drawn_once_for_each_seed_and_jitter(make, cache, monkeypatch):
    def never(*_):
        raise AssertionError("made a second time")

    first, others = make(), (make(seed=1), make(jitter=0.25))
    white = ~first.images.any(axis=(1, 2, 3, 4))
    for other in others:
        assert np.all(np.any(other.images != first.images, axis=(1, 2, 3, 4)) | white)
        assert other.names == first.names
        np.testing.assert_array_equal(other.signatures, first.signatures)
    monkeypatch.setattr(rendering, "drawn", never)
    np.testing.assert_array_equal(make(0, 0.5).images, first.images)
    file = importlib.import_module(make.__module__).__file__
    name = f"{make.__name__}-{rendering.recipe(file, described.__file__)}"
    assert {f"{name}-{end}.npz" for end in ("0-0.5", "1-0.5", "0-0.25")} <= {
        file.name for file in cache.iterdir()
    }
    for other in ({"seed": 2}, {"jitter": 0.125}):
        with pytest.raises(AssertionError, match="made a second time"):
            make(**other)


# ---------------------------------------------------------------- seen and unseen classes


def bytes_of(rows):
    return {row.tobytes() for row in rows}


def check_split(data, split, unseen, held_out=5):
    """Assert what a split promises, of data without two equal drawings or descriptions."""
    train, seen, new = split
    drawings = data.images.shape[1]
    assert len(new) == unseen, "not so many are unseen"
    assert train.names == seen.names, "the seen classes are not those of training"
    assert sorted(train.names + new.names) == sorted(data.names), "not each class in one part"
    everything = dict(zip(data.names, data.images, strict=True))
    assert not set(train.names) & set(new.names), "an unseen class is in training"
    leaked = bytes_of(train.x) & bytes_of(d for name in new.names for d in everything[name])
    assert not leaked, "a drawing of an unseen class is in training"
    assert not bytes_of(train.signatures) & bytes_of(new.signatures), "a description is in both"
    parts = [bytes_of(part.x) for part in split]
    assert len(set.union(*parts)) == sum(map(len, parts)), "a drawing is in two parts"
    early, late = slice(drawings - held_out), slice(drawings - held_out, None)
    for part, drawers in zip(split, (early, late, late), strict=True):
        expected = np.stack([everything[name][drawers] for name in part.names])
        assert np.array_equal(part.images, expected), "the drawers are not these"
    described = {n: s.tobytes() for n, s in zip(data.names, data.signatures, strict=True)}
    for part in split:
        found = [row.tobytes() for row in part.signatures]
        assert found == [described[name] for name in part.names], "a description of another"
    check_learnable(train, new)


def check_learnable(train, new):
    """Assert that every attribute can be learned from the seen classes."""
    values = [len(np.unique(column)) for column in train.signatures.T]
    assert min(values) >= 2, "an attribute has one value among the seen classes"
    assert not (new.signatures.any(axis=0) & ~train.signatures.any(axis=0)).any(), (
        "an unseen class has an attribute that no seen one has"
    )


@settings(deadline=None, max_examples=20, derandomize=True, database=None, phases=[Phase.generate])
@given(
    unseen=st.integers(1, 130), seed=st.integers(0, 2**32 - 1), held_out=st.sampled_from([1, 5, 19])
)
def test_a_split_keeps_its_promises_and_comes_again(letters, unseen, seed, held_out):
    split = letters.class_split(unseen, seed, held_out)
    assert isinstance(split, ClassSplit) and all(isinstance(p, Described) for p in split)
    check_split(letters, split, unseen, held_out)
    for part, again in zip(split, letters.class_split(unseen, seed, held_out), strict=True):
        assert part.names == again.names
        np.testing.assert_array_equal(part.images, again.images)


def put_together(data, seen, unseen):
    """A split of these classes, without a question, the last five drawers held out."""
    known, new = data.subset(seen), data.subset(unseen)
    early, late = range(15), range(15, 20)
    return ClassSplit(known.of_drawers(early), known.of_drawers(late), new.of_drawers(late))


@pytest.mark.parametrize("seed", range(3))
def test_the_check_rejects_a_split_at_random(letters, seed):
    """Of 173 letters 100 dealt blindly: the only f with a mark, or both that stand on j, go.

    It accepts a right split that is made otherwise, of the same classes.
    """
    new = [letters.names.index(name) for name in letters.class_split(100, seed).unseen.names]
    known = [i for i in range(len(letters)) if i not in new]
    check_split(letters, put_together(letters, known, new), 100)
    dealt = np.random.default_rng(seed).permutation(len(letters))
    with pytest.raises(AssertionError, match="one value among the seen classes"):
        check_split(letters, put_together(letters, dealt[100:], dealt[:100]), 100)


def test_the_check_rejects_other_faults(letters):
    """A right split, and one thing done to it."""
    train, seen, new = letters.class_split(60)
    known = letters.subset(letters.names.index(name) for name in train.names)
    every = letters.of_drawers(range(15)), letters.of_drawers(range(15, 20))
    shuffled = dataclasses.replace(train, signatures=np.roll(train.signatures, 1, axis=0))
    # Training, whose first class shows the drawings of an unseen one.
    images = train.images.copy()
    images[0] = letters.images[letters.names.index(new.names[0]), :15]
    renamed = dataclasses.replace(train, images=images)
    first = known.of_drawers(range(5, 20)), known.of_drawers(range(5))
    for fault, message in (
        ((*every, new), "not each class in one part"),
        ((renamed, seen, new), "a drawing of an unseen class is in training"),
        ((train, train.of_drawers(range(5)), new), "a drawing is in two parts"),
        ((*first, new), "the drawers are not these"),
        ((shuffled, seen, new), "a description of another"),
        ((train, seen.subset(range(1, len(seen))), new), "the seen classes are not those of train"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_split(letters, ClassSplit(*fault), 60)


def test_another_seed_deals_otherwise(letters):
    dealt = {letters.class_split(20, seed).unseen.names for seed in range(5)}
    assert len(dealt) == 5


# Only d lacks the first attribute, and only e has the second: they cannot be spared.
NEEDED = dataclasses.replace(
    FEW,
    signatures=np.array([[1, 0], [1, 0], [1, 0], [0, 0], [1, 1]], np.float32),
    attributes=("round", "tall"),
)


def test_a_class_that_an_attribute_hangs_on_stays_seen():
    """Of the other three each is unseen at times; all three can be."""
    once = {NEEDED.class_split(1, seed, held_out=1).unseen.names for seed in range(30)}
    assert once == {("a",), ("b",), ("c",)}
    for seed in range(30):
        split = NEEDED.class_split(3, seed, held_out=1)
        assert split.unseen.names == ("a", "b", "c") and split.train.names == ("d", "e")


def test_too_many_unseen_classes_raise():
    """Another order may spare more: the message does not say that no order can."""
    for seed in range(5):
        says = f"unseen is 4; of these 5 classes only 3 can be spared in the order of seed {seed} "
        with pytest.raises(ValueError, match=says):
            NEEDED.class_split(4, seed, held_out=1)
    # Five classes, of which three can be spared in some orders and two in others.
    uneven = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    uneven, spared = dataclasses.replace(FEW, signatures=uneven), set()
    for seed in range(20):
        with pytest.raises(ValueError, match=f"in the order of seed {seed} ") as caught:
            uneven.class_split(4, seed, held_out=1)
        spared.add(str(caught.value).split("only ")[1][0])
    assert spared == {"2", "3"}
    same = dataclasses.replace(NEEDED, signatures=np.ones((5, 2), np.float32))
    with pytest.raises(ValueError, match="unseen is 1; of these 5 classes only 0 can be spared"):
        same.class_split(1, held_out=1)


# ---------------------------------------------------------------- episodes


def batches(number=2, **options):
    options = {"ways": 3, "queries": 2, "meta_batch": 8, **options}
    return helpers.batches(FEW.episodes(**options), number)


def check_tasks(batch):
    """Assert that descriptions, labels and query drawings are of one class each."""
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        assert sorted(support_y) == list(range(len(support_y))), "not each label once"
        of_label = dict(zip(support_y, support_x, strict=True))
        classes = np.rint(255 * query_x[:, 0, 0, 0]).astype(int)
        drawings = np.rint(255 * query_x[:, 2, 2, 0]).astype(int)
        assert len({*zip(classes, drawings, strict=True)}) == len(classes), "a drawing came twice"
        assert set(query_y) == set(support_y), "a class without a query"
        for label, class_ in zip(query_y, classes, strict=True):
            right = np.array_equal(of_label[label], SIGNATURES[class_])
            assert right, "a description of another class"


@pytest.mark.parametrize("ways, queries", [(1, 1), (3, 2), (5, 3)])
def test_an_episode_describes_the_classes_of_its_queries(ways, queries):
    """Drawings of 0..1, whose first pixel is the class; a row of SIGNATURES describes it."""
    (support_x, _, query_x), _ = FEW.episodes(ways, queries, 8).element_spec
    assert support_x.shape == (8, ways, 3) and query_x.shape == (8, ways * queries, 3, 3, 1)
    for batch in batches(ways=ways, queries=queries):
        shapes = [(8, ways, 3), (8, ways), (8, ways * queries, 3, 3, 1), (8, ways * queries)]
        assert [value.shape for value in batch] == shapes
        assert [value.dtype for value in batch] == [np.float32, np.int32] * 2
        assert batch[2].min() >= 0 and batch[2].max() == pytest.approx(4 / 255, rel=1e-6)
        check_tasks(batch)


def test_the_check_rejects_descriptions_that_do_not_fit():
    """Put in the order of the labels; put in another order; a label twice."""
    (support_x, support_y, query_x, query_y), _ = batches()
    for wrong in (np.roll(support_x, 1, axis=1), support_x[::-1]):
        with pytest.raises(AssertionError, match="a description of another class"):
            check_tasks([wrong, support_y, query_x, query_y])
    with pytest.raises(AssertionError, match="a description of another class"):
        check_tasks([support_x, np.sort(support_y), query_x, query_y])
    with pytest.raises(AssertionError, match="not each label once"):
        check_tasks([support_x, np.zeros_like(support_y), query_x, query_y])


def test_support_and_queries_are_shuffled_and_classes_drawn_at_random():
    (batch,) = batches(1, meta_batch=200)
    support_x, support_y, query_x, query_y = batch
    # All 6 orders of three labels; of 90 orders of six queries 200 tasks have many.
    assert len({*map(tuple, support_y)}) == 6 and len({*map(tuple, query_y)}) > 50
    # Each of 10 sets of three classes out of five is drawn.
    classes = np.rint(255 * query_x[:, :, 0, 0, 0]).astype(int)
    assert len({frozenset(task) for task in classes}) == 10
    # And each label stands for each class: for each of five descriptions.
    for label in range(3):
        assert len(np.unique(support_x[support_y == label], axis=0)) == 5
