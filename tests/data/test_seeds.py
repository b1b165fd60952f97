"""Every family of tasks: one seed, one sequence of batches; nothing is drawn twice."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from mlutils import data

IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 2, 2, 1)
CHARACTERS = data.Characters(IMAGES, tuple("abcdef"), ("one",) * 6, "made up")
DESCRIBED = data.Described(
    IMAGES, tuple("abcdef"), ("one",) * 6, "made up", np.eye(6, dtype="f"), tuple("pqrstu")
)
X = np.random.default_rng(0).normal(size=(6, 2))


def theta_of(problems):
    return problems.map(lambda theta, key: theta)


# Of numbers from a continuous law all change with the seed, but for those that are always 0.
CONTINUOUS = {
    "sinusoids": lambda seed: data.sinusoids(meta_batch=4, seed=seed),
    "linear": lambda seed: data.LinearGaussian([1.0, 2.0]).episodes(meta_batch=4, seed=seed),
    "process": lambda seed: data.GaussianProcess().episodes(5, meta_batch=4, seed=seed),
    "quadratics": lambda seed: data.Quadratics(3).problems(5, seed),
    "unrotated": lambda seed: data.Quadratics(3, rotated=False).problems(5, seed),
    "training": lambda seed: theta_of(data.NetworkTraining(X, [0, 1] * 3).problems(3, seed)),
}
DISCRETE = {
    "episodes": lambda seed: CHARACTERS.episodes(ways=3, shots=1, queries=2, seed=seed),
    "described": lambda seed: DESCRIBED.episodes(ways=3, queries=2, seed=seed),
    "within": lambda seed: data.lake_runs(CHARACTERS, 4, meta_batch=8, seed=seed),
    "between": lambda seed: data.lake_runs(CHARACTERS, 4, False, meta_batch=8, seed=seed),
}


@pytest.mark.parametrize("family", [*CONTINUOUS, *DISCRETE])
def test_same_seed_same_batches_other_seed_others(family):
    """Each time they are iterated, and in a dataset built anew."""
    make = (CONTINUOUS | DISCRETE)[family]
    dataset = make(3)
    first, again, anew, other = (
        [tf.nest.flatten(e) for e in some.take(3).as_numpy_iterator()]
        for some in (dataset, dataset, make(3), make(2**32 - 1))
    )
    for a, b, c in zip(*map(itertools.chain.from_iterable, (first, again, anew)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    enough = np.all if family in CONTINUOUS else np.any
    for one, two in itertools.combinations(first + other, 2):
        assert all(enough((a != b)[a != 0]) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("family", CONTINUOUS)
def test_no_number_is_used_for_two_purposes(family):
    arrays = [a for e in CONTINUOUS[family](3).take(2) for a in tf.nest.flatten(e)]
    for a, b in itertools.combinations([a[a != 0] for a in arrays], 2):
        assert not np.intersect1d(a, b).size
