"""Keras's optimizers as baselines: by hand in NumPy, one run at a time, and where they diverge."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import LearnedOptimizer, LSTMRule, StepSize, run_optimizer, unroll

THETA, PROBLEM = next(iter(mlutils.data.Quadratics(3).problems(4)))
RATES = [0.01, 0.03]


def quadratics(theta, step=None):
    return mlutils.data.Quadratics.values(theta, PROBLEM)


def bowl(theta, step=None):
    return tf.reduce_sum(theta**2, axis=-1)


def sgd(rate=0.1, **options):
    return keras.optimizers.SGD(rate, **options)


# ---------------------------------------------------------------- trajectories


def descent(rate, steps, momentum=0.0):
    """f(theta_0) to f(theta_T) of |W theta - y|², whose gradient is 2 W' (W theta - y)."""
    theta, w, y = (np.float64(x) for x in (THETA, *PROBLEM))
    velocity, values = 0, []
    for _ in range(steps + 1):
        residual = np.einsum("fij,fj->fi", w, theta) - y
        values.append(np.sum(residual**2, axis=-1))
        velocity = momentum * velocity - rate * 2 * np.einsum("fij,fi->fj", w, residual)
        theta = theta + velocity
    return values


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradient_descent_by_hand(momentum):
    found = run_optimizer(sgd(momentum=momentum), quadratics, THETA, 6, RATES)
    assert found.shape == (2, 7, 4) and found.dtype == np.float64
    expected = [descent(rate, 6, momentum) for rate in RATES]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(found, expected[::-1], rtol=1e-2)


def one_step_at_a_time(optimizer, theta=THETA, steps=6):
    """An optimizer's run without a graph."""
    variable = tf.Variable(theta)
    values = [quadratics(variable)]
    for _ in range(steps):
        with tf.GradientTape() as tape:
            value = quadratics(tf.convert_to_tensor(variable))
        optimizer.apply([tape.gradient(value, variable)], [variable])
        values.append(quadratics(variable))
    return np.array(values)


MAKERS = {
    "momentum": lambda rate: sgd(rate, momentum=0.9),
    "Nesterov": lambda rate: sgd(rate, momentum=0.9, nesterov=True),
    "averages": lambda rate: sgd(rate, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "accumulation": lambda rate: sgd(rate, gradient_accumulation_steps=2),
    "Adam": keras.optimizers.Adam,
    "Nadam": keras.optimizers.Nadam,
    "AdamW": keras.optimizers.AdamW,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_rate_is_a_run_with_a_new_optimizer(kind):
    """The state is made anew between rates, also for a rate that comes twice."""
    rates = [0.03, 0.01, 0.03]
    found = run_optimizer(MAKERS[kind](0.5), quadratics, THETA, 6, rates)
    expected = [one_step_at_a_time(MAKERS[kind](rate)) for rate in rates]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_state_carried_over_is_seen():
    """Negative control of the test above: Adam's second run is not its first."""
    optimizer, variable = keras.optimizers.Adam(0.03), tf.Variable(THETA)
    runs = []
    for _ in range(2):
        variable.assign(THETA)
        for _ in range(6):
            with tf.GradientTape() as tape:
                value = quadratics(tf.convert_to_tensor(variable))
            optimizer.apply([tape.gradient(value, variable)], [variable])
        runs.append(quadratics(variable))
    assert not np.allclose(runs[0], runs[1], rtol=1e-3)


def test_without_rates_the_optimizers_own_is_used():
    expected = run_optimizer(sgd(), quadratics, THETA, 4, [0.03])
    np.testing.assert_array_equal(run_optimizer(sgd(0.03), quadratics, THETA, 4), expected)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.25, 0.5])
    found = run_optimizer(sgd(schedule), bowl, tf.constant([[8.0]]), 3)
    np.testing.assert_allclose(found[0, :, 0], [64, 16, 4, 0])


@pytest.mark.parametrize(
    "make, same",
    [(lambda: keras.optimizers.Adam(0.03), True), (lambda: sgd(0.03, clipnorm=1.0), False)],
    ids=["Adam", "clipped"],
)
def test_functions_do_not_mix(make, same):
    """Negative control: clipping by the norm of all functions' gradients mixes them."""
    w, y = PROBLEM

    def alone(theta, step):
        return mlutils.data.Quadratics.values(theta, (w[:1], y[:1]))

    found = run_optimizer(make(), alone, THETA[:1], 5)
    together = run_optimizer(make(), quadratics, THETA, 5)
    assert np.allclose(found, together[:, :, :1], rtol=1e-5) == same


def test_the_given_theta_is_left_alone():
    theta = np.ones((2, 3))
    found = run_optimizer(sgd(), bowl, theta, 3)
    np.testing.assert_array_equal(theta, 1)
    np.testing.assert_allclose(found[0, :, 0], 3 * 0.8 ** (2 * np.arange(4)), rtol=1e-6)


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


def test_every_step_is_an_int32_tensor():
    """As for ``unroll``."""
    seen = []

    def function(theta, step):
        seen.append(step)
        return bowl(theta)

    for run in (
        lambda: unroll(StepSize(), function, THETA, 3),
        lambda: run_optimizer(sgd(), function, THETA, 3),
    ):
        seen.clear()
        run()
        assert {getattr(step, "dtype", type(step)) for step in seen} == {tf.int32}


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


# ---------------------------------------------------------------- learned optimizers


def test_a_learned_optimizer_runs_as_unroll():
    """Also at the second rate, with the states at zero again; at 1/2 it is another run."""
    rule = LSTMRule(units=3, output_scale=1.0)
    values, _, _ = unroll(rule, quadratics, THETA, 6)
    found = run_optimizer(LearnedOptimizer(rule), quadratics, THETA, 6, [1.0, 0.5, 1.0])
    np.testing.assert_allclose(found[0], values, rtol=1e-5)
    np.testing.assert_array_equal(found[2], found[0])
    assert not np.allclose(found[1], found[0], rtol=1e-2)


def test_a_scaled_loss_changes_nothing():
    """``loss_scale_factor`` divides the gradients of a loss that it multiplied."""
    found = run_optimizer(sgd(0.03, loss_scale_factor=8.0), quadratics, THETA, 4)
    np.testing.assert_allclose(found, run_optimizer(sgd(0.03), quadratics, THETA, 4), rtol=1e-5)


# ---------------------------------------------------------------- wrong input


def test_a_used_optimizer_raises():
    optimizer = sgd()
    run_optimizer(optimizer, bowl, THETA, 1)
    with pytest.raises(ValueError, match="make a new one"):
        run_optimizer(optimizer, bowl, THETA, 1)


@pytest.mark.parametrize("steps", [0, -1, 1.5, "3"])
def test_wrong_steps_raise(steps):
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        run_optimizer(sgd(), bowl, THETA, steps)


def test_rates_for_a_schedule_raise():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    with pytest.raises(TypeError, match="not settable"):
        run_optimizer(sgd(schedule), bowl, THETA, 1, [0.1])
