"""What known methods predict along a sequence: by hand, by other code, beside wrong versions."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from mlutils import LinearAttention, descent_along, pool_along, ridge_along
from mlutils.data import LinearGaussian


def sequences(tasks=4, length=9, d=3, noise=0.5, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(tasks, length, d))
    y = x @ random.normal(size=(tasks, d, 1)) + noise * random.normal(size=(tasks, length, 1))
    return x, y


def at_each_place(predict, x, y):
    """``predict(x, y, query_x)`` on the examples before each place."""
    tasks, length, _ = x.shape
    found = np.empty((tasks, length, 1))
    for task, t in itertools.product(range(tasks), range(length)):
        found[task, t] = predict(x[task, :t], y[task, :t], x[task, t])
    return found


# ---------------------------------------------------------------- ridge regression


def test_ridge_along_is_the_bayes_predictor():
    """eq-linear-bayes with a belief of zero: ridge is noise² / spread², which no other is."""
    family = LinearGaussian(np.zeros(3), spread=0.7, noise=0.5)
    x, y = sequences()

    def bayes(x, y, query_x):
        inputs = (tf.constant(v[np.newaxis]) for v in (x, y, query_x[np.newaxis]))
        return family.bayes(tuple(inputs))[0, 0]

    expected = at_each_place(bayes, x, y)
    np.testing.assert_allclose(ridge_along(x, y, 0.25 / 0.49), expected, atol=1e-9)
    for wrong in (0.25, 0.49 / 0.25, 0.5 / 0.7):
        assert np.abs(ridge_along(x, y, wrong) - expected).max() > 1e-2


def test_hardly_any_ridge_is_least_squares():
    x, y = sequences()
    expected = at_each_place(lambda x, y, q: q @ np.linalg.pinv(x) @ y if len(x) else 0, x, y)
    np.testing.assert_allclose(ridge_along(x, y, 1e-8), expected, atol=1e-4)


# ---------------------------------------------------------------- descent


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_descent_along_is_linear_attention(float64, steps):
    """eq-attention-step and eq-attention-layers, on the examples before each."""
    x, y = sequences()
    learner = LinearAttention(3, steps, step=0.3)
    expected = at_each_place(
        lambda x, y, q: learner.adapt(x, y)(q[np.newaxis])[0] if len(x) else 0, x, y
    )
    found = descent_along(x, y, 0.3, steps)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert np.abs(descent_along(x, y, 0.3, steps + 1) - expected).max() > 1e-2


def test_a_step_size_for_each_number_of_examples():
    x, y = sequences()
    steps = np.linspace(0, 0.8, 9)
    found = descent_along(x, y, steps, 2)
    for t, step in enumerate(steps):
        np.testing.assert_allclose(found[:, t], descent_along(x, y, step, 2)[:, t])


# ---------------------------------------------------------------- the Bayes predictor of a pool


def without_likelihood(x, y, pool, noise):
    """Wrong: the mean of the pool, whatever was seen."""
    return x @ np.mean(pool, axis=0)[:, np.newaxis]


def sharper(x, y, pool, noise):
    """Wrong: the 2 of the exponent forgotten."""
    return pool_along(x, y, pool, noise / np.sqrt(2))


def seeing_the_target(x, y, pool, noise):
    """Wrong: the weights have seen the target that they predict."""
    twice = np.repeat(x, 2, axis=1), np.repeat(y, 2, axis=1)
    weights_of_all = pool_along(*twice, pool, noise * np.sqrt(2))
    return weights_of_all[:, 1::2]


@pytest.mark.parametrize(
    "predict, right",
    [(pool_along, True), (without_likelihood, False), (sharper, False), (seeing_the_target, False)],
)
def test_pool_along_is_the_posterior_mean(predict, right):
    """eq-pool-bayes, by enumeration with the Gaussian density itself."""
    x, y = sequences()
    pool = np.random.default_rng(1).normal(size=(6, 3))

    def bayes(x, y, query_x):
        errors = y - x @ pool.T  # (examples, M)
        densities = np.exp(-(errors**2) / (2 * 0.8**2)) / (0.8 * np.sqrt(2 * np.pi))
        joint = np.prod(densities, axis=0) / len(pool)
        return (joint / joint.sum()) @ (pool @ query_x)

    error = np.abs(predict(x, y, pool, 0.8) - at_each_place(bayes, x, y)).max()
    assert error < 1e-10 if right else error > 1e-2


def test_a_pool_by_hand():
    """eq-pool-bayes: weights 1 and -1, x = 1, noise 1, and y = 1 once.

    The misfits are 0 and 4/2 = 2, the first's share is 1 / (1 + exp(-2)) = .8808, and the mean
    .8808 - .1192 = .7616.
    """
    x, y = np.ones((1, 2, 1)), np.ones((1, 2, 1))
    found = pool_along(x, y, [[1.0], [-1.0]], 1.0)
    np.testing.assert_allclose(found[0, :, 0], [0, 0.76159], atol=1e-5)


def test_a_large_pool_is_nearly_a_gaussian():
    """eq-pool-bayes with ever more tasks draws near to ridge regression."""
    x, y = sequences(length=6, d=2)
    random = np.random.default_rng(2)
    expected = ridge_along(x, y, 0.25)
    far, near = (
        np.mean((pool_along(x, y, random.normal(size=(m, 2)), 0.5) - expected) ** 2)
        for m in (10, 100_000)
    )
    assert near < 1e-2 and far > 10 * near


def test_only_the_examples_before_are_seen():
    x, y = sequences()
    other = y.copy()
    other[:, 5:] += 10
    methods = (
        lambda y: ridge_along(x, y, 0.25),
        lambda y: descent_along(x, y, 0.3, 2),
        lambda y: pool_along(x, y, np.eye(3), 0.5),
    )
    for method in methods:
        change = np.abs(method(other) - method(y))
        assert change[:, :6].max() < 1e-12 and change[:, 6:].max() > 1e-2


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, y: ridge_along(x[0], y, 1.0), r"allowed are \(tasks, T, d\)"),
        (lambda x, y: ridge_along(x, y[..., 0], 1.0), r"allowed are \(tasks, T, d\)"),
        (lambda x, y: ridge_along(x, y, 0.0), "ridge must be .* positive number, got 0.0"),
        (lambda x, y: descent_along(x, y, -0.1), "step must be .* got -0.1"),
        (lambda x, y: descent_along(x, y, [0.1, 0.2]), "holds 2 step sizes; allowed are 1 and 9"),
        (lambda x, y: descent_along(x, y, 0.1, 0), "steps must be .* 1, got 0"),
        (lambda x, y: pool_along(x, y, np.eye(2), 1.0), r"shape \(2, 2\); allowed is \(M, 3\)"),
        (lambda x, y: pool_along(x, y, np.eye(3), 0), "noise must be .* positive number, got 0"),
    ],
)
def test_wrong_input_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call(*sequences())
