import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import mlutils
from mlutils import Episode, PrototypicalNetwork
from mlutils.data import Characters, Described, episodes, lake_runs
from tests.data import helpers

LARGE = [9, 7, 12, 8, 10, 7]  # examples of six classes


def labelled(sizes, seed=0):
    """Examples in random order that say what they are: x is (class, index), y is 10 class + 3."""
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return np.stack([classes, np.arange(len(classes))], axis=1), 10 * classes + 3


def batches(number=1, sizes=LARGE, **options):
    return helpers.batches(episodes(*labelled(sizes), **options), number)


def check_tasks(batch, ways, shots, queries):
    """Assert what a batch of N-way K-shot tasks promises, of examples (class, index)."""
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        indices = np.concatenate([support_x, query_x])[:, 1]
        assert len(np.unique(indices)) == ways * (shots + queries), "an example came twice"
        for x, y, each in ((support_x, support_y, shots), (query_x, query_y, queries)):
            assert len(x) == len(y) == ways * each
            _, counts = np.unique(x[:, 0], return_counts=True)
            assert list(counts) == [each] * (ways if each else 0), "not so many of each class"
        labels = np.concatenate([support_y, query_y])
        classes = np.concatenate([support_x, query_x])[:, 0]
        assert set(labels) == set(range(ways)), "labels are not 0..N-1"
        assert len({*zip(labels, classes, strict=True)}) == ways, "a label is not one class"


@st.composite
def cases(draw):
    ways, shots, queries = draw(st.tuples(st.integers(1, 5), st.integers(0, 3), st.integers(1, 3)))
    more = draw(st.lists(st.integers(0, 4), min_size=ways, max_size=ways + 3))
    sizes = [shots + queries + m for m in more]
    return sizes, {
        "ways": ways,
        "shots": shots,
        "queries": queries,
        "meta_batch": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


# A failing case is small as it is; to look for a smaller one would take minutes.
@settings(deadline=None, max_examples=12, derandomize=True, database=None, phases=[Phase.generate])
@given(cases())
def test_tasks_keep_their_promises(case):
    """Museum of bugs, 7: an example in both sets, a class twice, labels that do not fit."""
    sizes, options = case
    ways, shots, queries, meta_batch, _ = options.values()
    s, q = ways * shots, ways * queries
    for batch in batches(2, sizes, **options):
        shapes = [(meta_batch, *rest) for rest in ((s, 2), (s,), (q, 2), (q,))]
        assert [value.shape for value in batch] == shapes
        assert [value.dtype for value in batch] == [np.float32, np.int32] * 2
        check_tasks(batch, ways, shots, queries)


def test_the_check_rejects_the_faults_of_the_museum():
    """The negative control of the property test."""
    (batch,) = batches(ways=4, shots=2, queries=3, meta_batch=5)
    support_x, support_y, query_x, query_y = batch
    one_class = np.stack([np.ones_like(support_x[..., 0]), support_x[..., 1]], axis=-1)
    for message, part, wrong in (
        ("an example came twice", 2, np.concatenate([support_x, query_x[:, 8:]], axis=1)),
        ("not so many of each class", 0, one_class),
        ("a label is not one class", 0, np.roll(support_x, 1, axis=1)),
        ("a label is not one class", 3, 3 - query_y),
        ("labels are not 0..N-1", 1, support_y + 1),
    ):
        with pytest.raises(AssertionError, match=message):
            check_tasks([*batch[:part], wrong, *batch[part + 1 :]], ways=4, shots=2, queries=3)


def test_an_oracle_is_always_right():
    """An encoder that knows the true class has 100 % (museum of bugs, 7).

    Were a query labelled otherwise than its class in the support set, it would not: with label
    n called 3 - n, no query of a 4-way task keeps its label, and the oracle has 0 %.
    """
    inputs = keras.Input((2,))
    known = keras.ops.one_hot(keras.ops.cast(inputs[:, 0], "int32"), len(LARGE))
    oracle = PrototypicalNetwork(keras.Model(inputs, known))
    dataset = episodes(*labelled([12] * len(LARGE)), ways=4, shots=5, queries=7)
    assert str(mlutils.evaluate(oracle, dataset, tasks=100)) == "100.0 ± 0.0 % (100 tasks)"
    wrong = dataset.map(lambda inputs, query_y: (inputs, 3 - query_y))
    assert mlutils.evaluate(oracle, wrong, tasks=100).mean == 0


def assert_uniform(counts, trials, probability):
    """Every count is binomial with this probability: within five standard errors."""
    error = np.sqrt(trials * probability * (1 - probability))
    np.testing.assert_array_less(np.abs(counts - trials * probability), 5 * error + 1e-9)


def table(a, b, shape):
    """How often each pair of numbers occurs together."""
    counts = np.zeros(shape)
    np.add.at(counts, (np.ravel(a).astype(int), np.ravel(b).astype(int)), 1)
    return counts


def check_unbalanced(batch, ways, shots, queries):
    """As ``check_tasks``, with so many queries in all, of whichever classes of the task."""
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        indices = np.concatenate([support_x, query_x])[:, 1]
        assert len(np.unique(indices)) == ways * (shots + queries), "an example came twice"
        _, counts = np.unique(support_x[:, 0], return_counts=True)
        assert list(counts) == [shots] * (ways if shots else 0), "not so many of each class"
        labels = np.concatenate([support_y, query_y])
        classes = np.concatenate([support_x, query_x])[:, 0]
        assert set(labels) <= set(range(ways)), "labels are not 0..N-1"
        pairs = {*zip(labels, classes, strict=True)}
        assert len(pairs) == len(set(labels)) == len(set(classes)), "a label is not one class"


@st.composite
def unbalanced_cases(draw):
    """Classes of just the shots among them, and in some cases not one example more than needed."""
    ways, shots, queries = draw(st.tuples(st.integers(1, 5), st.integers(0, 3), st.integers(1, 3)))
    least = 0 if shots else 1  # a class has an example at least
    more = draw(st.lists(st.integers(least, 6), min_size=ways, max_size=ways + 3))
    while sum(sorted(more)[:ways]) < ways * queries:
        more[draw(st.integers(0, len(more) - 1))] += 1
    return [shots + m for m in more], {
        "ways": ways,
        "shots": shots,
        "queries": queries,
        "meta_batch": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@settings(deadline=None, max_examples=12, derandomize=True, database=None, phases=[Phase.generate])
@given(unbalanced_cases())
def test_unbalanced_tasks_keep_their_promises(case):
    sizes, options = case
    ways, shots, queries, meta_batch, _ = options.values()
    s, q = ways * shots, ways * queries
    for batch in batches(2, sizes, balanced=False, **options):
        shapes = [(meta_batch, *rest) for rest in ((s, 2), (s,), (q, 2), (q,))]
        assert [value.shape for value in batch] == shapes
        check_unbalanced(batch, ways, shots, queries)


def rank_once(sizes, shots, queries, tasks):
    """The wrong sampler that the next test must catch: one draw for both sets.

    An example's rank decides whether it is a shot, and then among the others whether it is a query.
    Where the highest of few ranks are taken, those that are left are lower than elsewhere.
    """
    random, counts = np.random.default_rng(0), np.zeros((tasks, len(sizes)))
    for task in counts:
        ranks = [np.sort(random.random(size))[: size - shots] for size in sizes]
        left = np.concatenate(ranks)
        labels = np.repeat(np.arange(len(sizes)), np.array(sizes) - shots)
        task += np.bincount(labels[np.argsort(-left)[: len(sizes) * queries]], minlength=len(sizes))
    return counts


def test_unbalanced_queries_are_as_frequent_as_what_is_left():
    """Of classes with 3, 6 and 31 examples and 2 shots, 1, 4 and 29 are left: 34 for 6 queries.

    A class's number of queries is hypergeometric: mean ``6 p`` and variance
    ``6 p (1 - p) (34 - 6) / (34 - 1)``, with ``p`` its share of the 34.
    """
    sizes, tasks = (3, 6, 31), 4000
    options = {"ways": 3, "shots": 2, "queries": 2, "meta_batch": tasks, "balanced": False}
    (batch,) = batches(sizes=sizes, **options)
    check_unbalanced(batch, 3, 2, 2)

    def check(counts):
        p = np.array([1, 4, 29]) / 34
        error = np.sqrt(6 * p * (1 - p) * 28 / 33 / tasks)
        np.testing.assert_array_less(np.abs(counts.mean(axis=0) - 6 * p), 5 * error)

    check((batch.query_x[..., :1] == np.arange(3)).sum(axis=1))
    with pytest.raises(AssertionError):
        check(rank_once(sizes, 2, 2, tasks))


def test_unbalanced_queries_are_drawn_from_all_that_is_left():
    """Each example of a class as often as any other, and in each position as often."""
    options = {"ways": 2, "shots": 1, "queries": 2, "meta_batch": TASKS, "balanced": False}
    (batch,) = batches(sizes=[3, 9], **options)
    for size in (3, 9):
        of_class = batch.query_x[..., 0] == {3: 0, 9: 1}[size]
        examples = batch.query_x[of_class][:, 1].astype(int)
        counts = np.bincount(examples)[np.unique(examples)]
        assert len(counts) == size
        assert_uniform(counts, TASKS, len(examples) / TASKS / size)
        share = of_class.mean()
        assert_uniform(of_class.sum(axis=0), TASKS, share)


def test_unbalanced_tasks_need_enough_examples_together():
    x, y = labelled([2, 3, 4, 9])
    options = {"ways": 3, "shots": 2, "balanced": False}
    episodes(x, y, queries=1, **options)  # 0 + 1 + 2 are left of the smallest
    with pytest.raises(ValueError, match=r"3 smallest .* 3 examples .* 2 shots .*queries is 6"):
        episodes(x, y, queries=2, **options)
    episodes(x, y, queries=2, classes=[13, 23, 33], **options)
    with pytest.raises(ValueError, match=r"Class 3 has 2 examples, and shots are 3"):
        episodes(x, y, queries=1, **{**options, "shots": 3})
    with pytest.raises(ValueError, match="balanced must be True or False, got 0"):
        episodes(x, y, balanced=0)


def test_only_some_classes():
    """Their tasks are those of an array that holds nothing else."""
    x, y = labelled(LARGE)
    keep = np.isin(y, [13, 33, 53])
    options = {"ways": 3, "shots": 2, "queries": 3, "meta_batch": 4, "seed": 3}
    for balanced in (True, False):
        (some,) = helpers.batches(
            episodes(x, y, classes=(53, 13, 33), balanced=balanced, **options)
        )
        (alone,) = helpers.batches(episodes(x[keep], y[keep], balanced=balanced, **options))
        for one, other in zip(some, alone, strict=True):
            np.testing.assert_array_equal(one, other)
    assert set(np.unique(some.query_x[..., 0])) == {1, 3, 5}
    for classes in ([13, 14], ["13"]):
        with pytest.raises(ValueError, match=r"No examples of the classes .*; y holds 6, such as"):
            episodes(x, y, classes=classes)
    for classes in ("13", 13):
        with pytest.raises(TypeError, match="classes must be several classes of y, or None"):
            episodes(x, y, classes=classes)
    with pytest.raises(ValueError, match="There are 2 classes, too few for tasks of 3"):
        episodes(x, y, ways=3, classes=[13, 23])


TASKS, WAYS, SHOTS, QUERIES = 3000, 3, 2, 4


@pytest.fixture(scope="module")
def many():
    (batch,) = batches(ways=WAYS, shots=SHOTS, queries=QUERIES, meta_batch=TASKS, seed=7)
    return batch


def test_every_class_gets_every_label_equally_often(many):
    """One of six classes has label n: a sixth of the tasks each, whatever the class's size."""
    classes = [many[0][many[1] == label, 0][::SHOTS] for label in range(WAYS)]
    for chosen in classes:
        assert_uniform(np.bincount(chosen.astype(int), minlength=6), TASKS, 1 / 6)
    # Any two labels: each of the 6 * 5 ordered pairs of different classes.
    for one, two in itertools.combinations(classes, 2):
        together = table(one, two, (6, 6))
        assert not np.trace(together)
        assert_uniform(together[~np.eye(6, dtype=bool)], TASKS, 1 / 30)
    # A task's classes say nothing of the next task's.
    assert_uniform(table(classes[0][:-1], classes[0][1:], (6, 6)), TASKS - 1, 1 / 36)


IMAGES = np.broadcast_to(51 * np.arange(6, dtype=np.uint8), (1, 1, 1, 5, 6)).T
CHARACTERS = Characters(IMAGES, tuple("abcdef"), ("one",) * 6, "made up")
DESCRIBED = Described(
    IMAGES, tuple("abcdef"), ("one",) * 6, "made up", np.eye(6, dtype="f"), tuple("pqrstu")
)
SIZES = {"ways": WAYS, "queries": 1, "meta_batch": TASKS, "seed": 3}
# Every sampler that deals classes; each query's brightness, 0, 0.2, ... 1, says its class.
DEALERS = {
    "episodes": lambda: episodes(IMAGES.reshape(30, -1), np.arange(30) // 5, **SIZES),
    "characters": lambda: CHARACTERS.episodes(**SIZES),
    "described": lambda: DESCRIBED.episodes(**SIZES),
    "within": lambda: lake_runs(CHARACTERS, **SIZES),
    "between": lambda: lake_runs(CHARACTERS, within=False, **SIZES),
}


def classes_of_labels(dataset):
    """The class of each label in each task of the first batch, ``(tasks, ways)``."""
    (batch,) = helpers.batches(dataset)
    brightness = batch.query_x.reshape(batch.query_y.shape)
    order = np.argsort(batch.query_y, axis=1)
    return np.rint(5 * np.take_along_axis(brightness, order, axis=1)).astype(int)


def check_pairs(classes, pools):
    """Assert that any two labels' classes are what independent draws from these pools give.

    Within a task, every pair of different classes occurs equally often; from one task to the
    next, every pair.
    """
    for i, j in itertools.product(range(len(pools)), repeat=2):
        pairs = [*itertools.product(pools[i], pools[j])]
        if i < j:
            together = table(classes[:, i], classes[:, j], (6, 6))
            different = [(a, b) for a, b in pairs if a != b]
            assert_uniform(
                together[tuple(np.transpose(different))], len(classes), 1 / len(different)
            )
        later = table(classes[:-1, i], classes[1:, j], (6, 6))
        assert_uniform(later[tuple(np.transpose(pairs))], len(classes) - 1, 1 / len(pairs))


@pytest.mark.parametrize("dealer", DEALERS)
def test_the_classes_of_a_task_are_drawn_independently(dealer):
    check_pairs(classes_of_labels(DEALERS[dealer]()), [range(6)] * WAYS)


def one_of_each(seeds):
    """A class of each label, its number modulo 3, each from a one-way sampler of its own seed."""
    dealt = []
    for label, seed in enumerate(seeds):
        mine = IMAGES[label::3].reshape(10, -1)
        one_way = episodes(mine, np.arange(10) // 5, **{**SIZES, "ways": 1, "seed": seed})
        dealt.append(classes_of_labels(one_way)[:, 0])
    return np.stack(dealt, axis=1)


def test_samplers_with_one_seed_draw_in_step():
    """The negative control, and a fault that a page of the book had: one seed for all labels.

    Of the 2 * 2 * 2 tasks there are then only two, 0-1-2 and 3-4-5.
    """
    pools = [(0, 3), (1, 4), (2, 5)]
    check_pairs(one_of_each([0, 1, 2]), pools)
    in_step = one_of_each([0, 0, 0])
    assert np.unique(in_step, axis=0).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(AssertionError):
        check_pairs(in_step, pools)


def test_every_example_is_drawn_equally_often(many):
    """In a task with a class of n examples, each is among the support set with chance K / n."""
    for x, each in ((many[0], SHOTS), (many[2], QUERIES)):
        drawn = table(x[..., 0], x[..., 1], (6, sum(LARGE)))
        for c, size in enumerate(LARGE):
            counts = drawn[c][drawn[c] > 0]
            assert len(counts) == size  # all of its own examples, and none of another class
            assert_uniform(counts, counts.sum() / each, each / size)


def test_positions_carry_no_information(many):
    """In each position each label in a third of the tasks, and each class in a sixth."""
    for x, y in ((many[0], many[1]), (many[2], many[3])):
        positions = np.broadcast_to(np.arange(y.shape[1]), y.shape)
        assert_uniform(table(positions, y, (y.shape[1], WAYS)), TASKS, 1 / WAYS)
        assert_uniform(table(positions, x[..., 0], (y.shape[1], 6)), TASKS, 1 / 6)
    # Nor does the order of one set tell that of the other.
    for s, q in itertools.product(range(WAYS * SHOTS), range(WAYS * QUERIES)):
        assert_uniform(table(many[1][:, s], many[3][:, q], (WAYS, WAYS)), TASKS, 1 / WAYS**2)


def test_bytes_become_0_to_1_and_all_else_float32():
    """51 / 255 = 0.2."""
    values = np.array([0, 51, 255, 102])
    for dtype in (np.uint8, np.int64, np.float64, np.float16, bool):
        x = values.astype(dtype)
        dataset = episodes(x, [0, 0, 1, 1], ways=2, meta_batch=1, queries=1)
        (support_x, _, query_x), _ = next(iter(dataset))
        assert support_x.dtype == query_x.dtype == tf.float32
        got = np.sort(np.concatenate([support_x, query_x], axis=1)[0])
        expected = [0, 0.2, 0.4, 1] if dtype == np.uint8 else np.sort(x.astype(np.float32))
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_numbers_on_disk_are_read_as_those_in_memory(tmp_path):
    x, y = labelled(LARGE)
    options = {"ways": 3, "shots": 2, "queries": 3, "meta_batch": 4, "seed": 3}
    for dtype in (np.uint8, np.int64, np.float32, np.float16, bool):
        disk = np.memmap(tmp_path / "x.bin", dtype, "w+", shape=x.shape)
        disk[:] = x
        (read,), (expected,) = (
            helpers.batches(episodes(v, y, **options)) for v in (disk, x.astype(dtype))
        )
        for one, other in zip(read, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError, match="x must be an array of numbers, got one of complex64"):
        episodes(np.memmap(tmp_path / "c.bin", np.complex64, "w+", shape=x.shape), y)


def test_classes_may_be_strings_and_x_images():
    x = np.zeros((6, 4, 3, 2), np.uint8)
    x[:, 0, 0, 0] = [255, 0, 0, 255, 255, 0]
    for y in (["yes", "no", "no", "yes", "yes", "no"], np.array(list("baabba"))):
        dataset = episodes(x, y, ways=2, shots=2, queries=1, meta_batch=50)
        episode = Episode.from_element(next(iter(dataset)))
        assert episode.support_x.shape == (50, 4, 4, 3, 2)
        ink = np.concatenate([episode.support_x, episode.query_x], axis=1)[:, :, 0, 0, 0]
        labels = np.concatenate([episode.support_y, episode.query_y], axis=1)
        same = np.all(ink == labels, axis=1)
        assert np.all(same | np.all(ink == 1 - labels, axis=1)) and 0 < same.sum() < 50


def test_examples_and_classes_must_fit():
    x, y = labelled(LARGE)
    with pytest.raises(ValueError, match=r"x holds 53 examples and y has shape \(52,\).*\(53,\)"):
        episodes(x, y[1:])
    with pytest.raises(ValueError, match=r"y has shape \(53, 6\); y must be one class per"):
        episodes(x, np.eye(6)[y // 10])
    x, y = labelled([3, 2, 4])
    with pytest.raises(ValueError, match=r"Class 13 has 2 examples, and shots \+ queries is 3"):
        episodes(x, y, ways=2, shots=1, queries=2)
    episodes(x, y, ways=3, shots=0, queries=2)
    with pytest.raises(ValueError, match="There are 0 classes"):
        episodes(x[:0], y[:0])
    with pytest.raises(TypeError, match="x must be an array of numbers"):
        episodes(["a", "b"], [0, 1], ways=2)
