"""Keras's optimizers as baselines: by hand in NumPy, one run at a time, and where they diverge."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import StepSize, run_optimizer, unroll

THETA, PROBLEM = next(iter(mlutils.data.Quadratics(3).problems(4)))


def quadratics(theta, step=None):
    return mlutils.data.Quadratics.values(theta, PROBLEM)


def bowl(theta, step=None):
    return tf.reduce_sum(theta**2, axis=-1)


def sgd(rate=0.1, **options):
    return keras.optimizers.SGD(rate, **options)


# ---------------------------------------------------------------- trajectories


def descent(rate, steps, momentum):
    """f(theta_0) to f(theta_T) of |W theta - y|², whose gradient is 2 W' (W theta - y)."""
    theta, w, y = (np.float64(x) for x in (THETA, *PROBLEM))
    velocity, values = 0, []
    for _ in range(steps + 1):
        residual = np.einsum("fij,fj->fi", w, theta) - y
        values.append(np.sum(residual**2, axis=-1))
        velocity = momentum * velocity - rate * 2 * np.einsum("fij,fi->fj", w, residual)
        theta = theta + velocity
    return values


def test_gradient_descent_by_hand():
    """With momentum; negative control: the runs in the other order."""
    found = run_optimizer(sgd(momentum=0.9), quadratics, THETA, 6, [0.01, 0.03])
    assert found.shape == (2, 7, 4) and found.dtype == np.float64
    expected = [descent(rate, 6, 0.9) for rate in (0.01, 0.03)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(found, expected[::-1], rtol=1e-2)


def one_step_at_a_time(optimizer, variable):
    """An optimizer's run without a graph."""
    variable.assign(THETA)
    values = [quadratics(variable)]
    for _ in range(6):
        with tf.GradientTape() as tape:
            value = quadratics(tf.convert_to_tensor(variable))
        optimizer.apply([tape.gradient(value, variable)], [variable])
        values.append(quadratics(variable))
    return np.array(values)


def averaging(rate):
    return sgd(rate, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)


@pytest.mark.parametrize("make", [averaging, keras.optimizers.Adam])
def test_every_rate_is_a_run_with_a_new_optimizer(make):
    """The state is made anew between rates, also for a rate that comes twice.

    Negative control: one that goes on with the state of its first run ends elsewhere.
    """
    rates, variable = [0.03, 0.01, 0.03], tf.Variable(THETA)
    found = run_optimizer(make(0.5), quadratics, THETA, 6, rates)
    expected = [one_step_at_a_time(make(rate), variable) for rate in rates]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    used = make(0.03)
    first, second = (one_step_at_a_time(used, variable) for _ in range(2))
    assert not np.allclose(first, second, rtol=1e-3)


def test_without_rates_the_optimizers_own_is_used():
    expected = run_optimizer(sgd(), quadratics, THETA, 4, [0.03])
    np.testing.assert_array_equal(run_optimizer(sgd(0.03), quadratics, THETA, 4), expected)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.25, 0.5])
    found = run_optimizer(sgd(schedule), bowl, tf.constant([[8.0]]), 3)
    np.testing.assert_allclose(found[0, :, 0], [64, 16, 4, 0])


@pytest.mark.parametrize("clipnorm", [None, 1.0])
def test_functions_do_not_mix(clipnorm):
    """Negative control: clipping by the norm of all functions' gradients mixes them."""
    w, y = PROBLEM

    def alone(theta, step):
        return mlutils.data.Quadratics.values(theta, (w[:1], y[:1]))

    options = dict(clipnorm=clipnorm)
    found = run_optimizer(keras.optimizers.Adam(0.03, **options), alone, THETA[:1], 5)
    together = run_optimizer(keras.optimizers.Adam(0.03, **options), quadratics, THETA, 5)
    assert np.allclose(found, together[:, :, :1], rtol=1e-5) == (clipnorm is None)


# ---------------------------------------------------------------- steps


def test_the_function_sees_the_steps_from_0_to_T():
    """f = (theta - step)², halfway to the step each time: 8, 4, 5/2, 9/4 from step 0 on."""
    found = run_optimizer(
        sgd(0.25),
        lambda theta, step: tf.reduce_sum((theta - tf.cast(step, theta.dtype)) ** 2, -1),
        tf.constant([[8.0]]),
        3,
    )
    np.testing.assert_allclose(found[0, :, 0], [64, 9, 1 / 4, 9 / 16])


@pytest.mark.parametrize(
    "run", [lambda f: unroll(StepSize(), f, THETA, 3), lambda f: run_optimizer(sgd(), f, THETA, 3)]
)
def test_every_step_is_an_int32_tensor(run):
    seen = []

    def function(theta, step):
        seen.append(getattr(step, "dtype", type(step)))
        return bowl(theta)

    run(function)
    assert set(seen) == {tf.int32}


# ---------------------------------------------------------------- divergence


def test_what_diverges_is_infinite_from_then_on():
    """theta <- (1 - 2 rate) theta: for rate 1e10 over float32's range in the second step.

    The other function starts in its minimum, the other rate converges: both stay finite.
    """
    theta = tf.constant([[1.0], [0.0]])
    found = run_optimizer(sgd(), bowl, theta, 60, [1e10, 0.1])
    assert np.isfinite(found[0, :2, 0]).all() and np.isposinf(found[0, 2:, 0]).all()
    np.testing.assert_array_equal(found[0, :, 1], 0)
    np.testing.assert_allclose(found[1, :, 0], 0.8 ** (2 * np.arange(61)), rtol=1e-4)


def test_a_run_that_comes_back_stays_infinite():
    """The value is not a number at step 1 only."""

    def function(theta, step):
        return bowl(theta) + tf.where(step == 1, np.nan, 0.0)

    found = run_optimizer(sgd(), function, tf.ones((1, 1)), 3)
    np.testing.assert_allclose(found[0, :, 0], [1, np.inf, np.inf, np.inf])


def test_rates_multiply_a_schedule():
    """f = theta² / 2 by hand: theta is multiplied by 1 - rate * (1 - t / 4) in step t.

    Negative control: the rate alone gives other values.
    """
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    start = np.float32([[1.0], [-2.0]])
    half_square = lambda theta, step: tf.reduce_sum(theta**2, axis=1) / 2  # noqa: E731
    found = run_optimizer(keras.optimizers.SGD(decay), half_square, start, 3, [0.5, 0.1])
    constant = run_optimizer(keras.optimizers.SGD(), half_square, start, 3, [0.5, 0.1])
    for rate, values in zip((0.5, 0.1), found, strict=True):
        factors = np.cumprod([1.0, *(1 - rate * (1 - t / 4) for t in range(3))])
        expected = (factors[:, None] * start[:, 0]) ** 2 / 2
        np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], constant[:, 1], rtol=1e-5)
    assert np.abs(found[:, 3] - constant[:, 3]).max() > 0.01
