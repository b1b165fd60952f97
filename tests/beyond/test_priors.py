"""The two priors: the exact one by hand and by quadrature, the other by what it promises."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from mlutils import GaussianClasses, RandomTables

# ---------------------------------------------------------------- Gaussian classes


def test_pocket_clouds():
    """eq-gaussian-classes: spread 1, one number, the example 2 of class 0 and none of class 1.

    The mean of class 0 is then 1 with variance 1/2, that of class 1 is 0 with variance 1.  At 1 the
    densities are 1 / sqrt(2 pi 3/2) and exp(-1/4) / sqrt(2 pi 2).
    """
    family = GaussianClasses(features=1, classes=2, spread=1.0)
    found = family.posterior(([[[2.0]]], [[0]], [[[1.0]]]))
    one, two = 1 / math.sqrt(1.5), math.exp(-1 / 4) / math.sqrt(2)
    np.testing.assert_allclose(found, [[[one / (one + two), two / (one + two)]]], rtol=1e-6)


def test_posterior_by_quadrature():
    """eq-gaussian-classes and eq-posterior-predictive: the integral over the means of the classes,
    on a grid.  Wrong: the mean not pulled to 0; its variance forgotten."""
    family = GaussianClasses(features=1, classes=3, spread=2.0)
    (x, y, query), _ = next(iter(family.episodes(shots=5, queries=4, meta_batch=3, seed=1)))
    grid = np.linspace(-15, 15, 6001)

    def integral(points, q):
        """The density of ``points`` and ``q`` in one class."""
        values = np.prod(stats.norm.pdf(np.append(points, q)[:, None], grid), axis=0)
        return np.sum(values * stats.norm.pdf(grid, scale=2.0))

    x, y, query = x.numpy()[..., 0], y.numpy(), query.numpy()[..., 0]
    expected, unpulled, certain = np.zeros((3, 3, 4, 3))
    for task, place, c in np.ndindex(3, 4, 3):
        points, q = x[task][y[task] == c], query[task, place]
        expected[task, place, c] = integral(points, q) / integral(points, [])
        n, total = len(points), points.sum()
        unpulled[task, place, c] = stats.norm.pdf(
            q, total / max(n, 1), math.sqrt(1 + 1 / (n + 0.25))
        )
        certain[task, place, c] = stats.norm.pdf(q, total / (n + 0.25), 1)
    expected, unpulled, certain = (
        v / v.sum(axis=2, keepdims=True) for v in (expected, unpulled, certain)
    )
    found = family.posterior((x[..., None], y, query[..., None]))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for wrong in (unpulled, certain):
        assert np.abs(wrong - expected).max() > 1e-2


def test_no_other_belief_has_a_lower_loss():
    family = GaussianClasses()
    inputs, y = next(iter(family.episodes(shots=6, queries=20, meta_batch=500)))

    def losses(spread):
        p = GaussianClasses(spread=spread).posterior(inputs)
        return -np.log(np.take_along_axis(p.numpy(), y.numpy()[..., None], 2)).mean(axis=(1, 2))

    for spread in (1.0, 4.0):
        worse = losses(spread) - losses(2.0)
        assert worse.mean() > 2 * worse.std() / math.sqrt(500)


def test_clouds_refuse_what_does_not_fit():
    family = GaussianClasses()
    right = np.zeros((1, 4, 2)), np.zeros((1, 4), int), np.zeros((1, 3, 2))
    for place, value, words in (
        (0, np.zeros((1, 4, 3)), r"allowed are \(tasks, S, 2\)"),
        (1, np.zeros((1, 4)), "integer labels"),
        (1, np.full((1, 4), 3), "allowed are 0 to 2"),
    ):
        inputs = [*right]
        inputs[place] = value
        with pytest.raises(ValueError, match=words):
            family.posterior(tuple(inputs))
    with pytest.raises(ValueError, match="spread must be"):
        GaussianClasses(spread=0)


# ---------------------------------------------------------------- random tables


def tables(shots=40, queries=60, meta_batch=200, seed=0, **sizes):
    (x, y, query_x), query_y = next(
        iter(RandomTables(**sizes).episodes(shots, queries, meta_batch, seed))
    )
    return np.concatenate([x, query_x], axis=1), np.concatenate([y, query_y], axis=1)


def test_columns_and_classes_are_as_many_as_promised():
    """Every number of columns and of classes comes up, and columns that are not there are 0."""
    x, y = tables(features=6, classes=4)
    assert x.dtype == np.float32 and np.isfinite(x).all() and y.dtype == np.int32
    columns = (x.std(axis=1) > 0).sum(axis=1)
    assert set(columns) == {2, 3, 4, 5, 6}
    for table, number in zip(x, columns, strict=True):
        assert not table[:, number:].any()
    classes = [len(set(labels)) for labels in y]
    assert set(classes) <= {1, 2, 3, 4} and min(np.bincount(classes)[2:]) > 20
    assert y.max() == 3


def test_a_class_can_be_told_from_the_columns():
    """By five neighbours, far more often than where the same labels stand at other rows."""
    x, y = tables(meta_batch=40)
    random = np.random.default_rng(0)
    right = {True: [], False: []}
    for rows, labels in zip(x, y, strict=True):
        rows = rows / (rows.std(axis=0) + 1e-9)
        for theirs in right:
            of = labels if theirs else random.permutation(labels)
            nearest = KNeighborsClassifier().fit(rows[:40], of[:40])
            right[theirs].append(nearest.score(rows[40:], of[40:]))
    assert np.mean(right[True]) - np.mean(right[False]) > 0.15


def test_the_same_seed_gives_the_same_tables():
    for one, other in zip(tables(seed=5), tables(seed=5), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (tables(seed=6)[0] != tables(seed=5)[0]).any()


def test_tables_of_a_batch_are_of_different_networks():
    """No table's columns are another's, and rows are drawn anew for support and queries."""
    x, _ = tables(meta_batch=10)
    assert len({table[:, 0].tobytes() for table in x}) == 10
    assert len(np.unique(x[0], axis=0)) == len(x[0])


def test_too_many_or_too_few_are_refused():
    for wrong, words in (
        (dict(features=1), "features must be"),
        (dict(features=37), "at most 36"),
        (dict(classes=1), "classes must be"),
    ):
        with pytest.raises(ValueError, match=words):
            RandomTables(**wrong)
    assert isinstance(RandomTables(features=36).episodes(), tf.data.Dataset)
