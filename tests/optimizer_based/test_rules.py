"""Update rules: values by hand, the LSTM written once more in NumPy, and wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import AdamRule, LSTMRule, MLPRule, StepSize
from mlutils.optimizer_based import log_and_sign

SMALL = math.exp(-10)

# ---------------------------------------------------------------- a gradient as two numbers

BY_HAND = [
    (1.0, (0, 1)),
    (-1.0, (0, -1)),
    (SMALL, (-1, 1)),
    (-SMALL, (-1, -1)),
    (0.0, (-1, 0)),
    (1e-6, (-1, math.exp(10) * 1e-6)),
    (-1e-6, (-1, -math.exp(10) * 1e-6)),
    (10.0, (math.log(10) / 10, 1)),
    (-math.exp(20), (2, -1)),
]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-14)])
def test_log_and_sign_by_hand(dtype, tolerance):
    """eq-log-and-sign for p = 10: (log|g| / 10, sign g) from exp(-10) on, else (-1, exp(10) g).

    For p = 2: 1/2 is large, 1/10 < exp(-2) = 0.135 is small.
    """
    gradients, expected = zip(*BY_HAND, strict=True)
    found = log_and_sign(tf.constant(gradients, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    found = log_and_sign(tf.constant([[0.5, -0.1]], dtype), p=2)
    expected = [[(-math.log(2) / 2, 1), (-1, -0.1 * math.exp(2))]]
    np.testing.assert_allclose(found, expected, rtol=tolerance)


def jump(preprocess, p, sign):
    """How much ``preprocess`` changes over a relative distance of 2e-9 around +-exp(-p)."""
    around = sign * math.exp(-p) * np.array([1 - 1e-9, 1 + 1e-9])
    below, above = preprocess(tf.constant(around), p).numpy()
    return np.max(np.abs(above - below))


@pytest.mark.parametrize("p", [0.5, 2.0, 10.0])
def test_log_and_sign_is_continuous(p):
    """eq-log-and-sign: its two pieces meet.  A piece (-1, g) for small gradients jumps."""

    def wrong(gradient, p):
        large = tf.abs(gradient)[..., tf.newaxis] >= math.exp(-p)
        return tf.where(
            large, log_and_sign(gradient, p), tf.stack([-1 + 0 * gradient, gradient], -1)
        )

    for sign in (-1, 1):
        assert jump(log_and_sign, p, sign) < 1e-8
        assert jump(wrong, p, sign) > 0.1


def derivatives(preprocess, gradient, dtype="float64"):
    """The derivatives of both outputs by the gradient, ``(..., 2)``."""
    gradient = tf.constant(gradient, dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(gradient)
        log, direction = tf.unstack(preprocess(gradient), axis=-1)
    return tf.stack([tape.gradient(log, gradient), tape.gradient(direction, gradient)], -1).numpy()


def test_the_derivative_of_log_and_sign_is_finite():
    """eq-log-and-sign: (1 / (10 g), 0) from exp(-10) on, else (0, exp(p)), at 0 for every p.

    Negative control: without the maximum inside the logarithm 0 gives 0 / 0.
    """
    large = np.array([-1e30, -1.0, -1e-4, 1e-4, 0.5, 1e30])
    found = derivatives(log_and_sign, large)
    np.testing.assert_allclose(found, np.stack([0.1 / large, 0 * large], -1), rtol=1e-12)
    small = np.array([-4e-5, -1e-30, 0.0, 1e-300, 1e-6])
    found = derivatives(log_and_sign, small)
    np.testing.assert_allclose(found, [(0, math.exp(10))] * len(small), rtol=1e-12)
    assert np.isfinite(derivatives(log_and_sign, [SMALL, -SMALL])).all()
    for dtype in ("float32", "float64"):
        for p in (0.1, 10, 80):
            found = derivatives(lambda g, p=p: log_and_sign(g, p), 0.0, dtype)
            np.testing.assert_allclose(found, [0, math.exp(p)], rtol=1e-5)

    def wrong(gradient):
        large = tf.abs(gradient) >= SMALL
        log = tf.where(large, tf.math.log(tf.abs(gradient)) / 10, -1)
        return tf.stack([log, tf.where(large, tf.sign(gradient), gradient / SMALL)], -1)

    everywhere = [-1.0, 0.0, 1e-6, 10.0]
    np.testing.assert_allclose(*(f(tf.constant(everywhere)) for f in (wrong, log_and_sign)))
    assert np.isnan(derivatives(wrong, everywhere)).any()


# ---------------------------------------------------------------- step sizes and Adam


def test_a_step_size_of_each_coordinate():
    """eq-step-size: g = -alpha grad; alpha = (1, 10, 100) multiplies the last axis.

    A shape is that of the last axes; negative alphas are allowed.
    """
    rule = StepSize(0.25, coordinates=3)
    np.testing.assert_array_equal(rule.alpha, [0.25] * 3)
    rule.alpha.assign([1.0, 10.0, 100.0])
    gradient = tf.constant([[[1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]]])
    update, state = rule(gradient, ())
    np.testing.assert_array_equal(update, [[[-1, -20, -300], [1, 0, -100]]])
    assert state == ()
    rule = StepSize(coordinates=(2, 3))
    rule.alpha.assign([[1.0, 2.0, 3.0], [-4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(rule(gradient)[0], [[[-1, -4, -9], [-4, 0, -6]]])


def test_a_step_size_of_each_step():
    """eq-step-size with alpha = (1, 10): later steps take the last; of each coordinate, too."""
    rule, per_coordinate = StepSize(steps=2), StepSize(coordinates=3, steps=2)
    rule.alpha.assign([1.0, 10.0])
    per_coordinate.alpha.assign([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    updates, _ = follow(rule, np.ones((4, 1, 3), np.float32))
    np.testing.assert_array_equal(updates[:, 0, 0], [-1, -10, -10, -10])
    updates, _ = follow(per_coordinate, np.ones((3, 1, 3), np.float32))
    np.testing.assert_array_equal(updates[:, 0], [[-1, -2, -3], [-4, -5, -6], [-4, -5, -6]])


@pytest.mark.parametrize("options", [{}, dict(coordinates=2), dict(steps=2)])
def test_the_initial_step_size_is_exact(float64, options):
    """In double precision alpha is 0.1, not the float32 next to it."""
    np.testing.assert_array_equal(StepSize(0.1, **options).alpha, 0.1)


def test_adam_can_be_differentiated_at_a_zero_gradient(float64):
    """The first update is -r g / sqrt(g^2 + e^2 / (1 - b)), b = beta_2: at 0 its slope is

    -r sqrt(1 - b) / e, and its second derivative, odd, is 0.  Negative control: with epsilon
    outside the root, as in Keras, 0 gives 0 / 0.
    """

    def slopes(update):
        gradient = tf.constant(0.0, tf.float64)
        with tf.GradientTape() as outer:
            outer.watch(gradient)
            with tf.GradientTape() as inner:
                inner.watch(gradient)
                value = update(gradient)
            slope = inner.gradient(value, gradient)
        return float(slope), float(outer.gradient(slope, gradient))

    rule = AdamRule(0.01, epsilon=1e-3)
    found = slopes(lambda g: rule(g, rule.initial_state(()))[0])
    assert found == pytest.approx((-0.01 * math.sqrt(0.001) / 1e-3, 0))
    assert np.isnan(slopes(lambda g: -0.01 * g / (tf.sqrt(g**2) + 1e-3))).any()


# ---------------------------------------------------------------- the LSTM


def lstm_rule(**options):
    """A rule whose weights are all random, biases too."""
    rule = LSTMRule(**{"units": 3, **options})
    random = np.random.default_rng(0)
    rule.set_weights([random.normal(size=w.shape) for w in rule.get_weights()])
    return rule


def random_gradients(shape=(2, 4), steps=4, seed=1):
    """Magnitudes from about exp(-15) to exp(2): both pieces of eq-log-and-sign are used."""
    random = np.random.default_rng(seed)
    shape = (steps, *shape)
    return np.exp(random.uniform(-15, 2, shape)) * random.choice([-1, 1], shape)


def follow(rule, gradients):
    """The updates of one gradient after the other, and the last state."""
    gradients = np.asarray(gradients)
    state, updates = rule.initial_state(gradients.shape[1:]), []
    for gradient in gradients:
        update, state = rule(tf.constant(gradient), state)
        updates.append(update.numpy())
    return np.stack(updates), [s.numpy() for s in state]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_in_numpy(weights, gradients, output_scale, p, order="ifco"):
    """eq-lstm-rule for one coordinate: its gradients to its updates and its last state."""
    *layers, head, head_bias = weights
    layers = [layers[i : i + 3] for i in range(0, len(layers), 3)]
    state = [np.zeros(len(recurrent)) for _, recurrent, _ in layers for _ in "hc"]
    updates = []
    for g in gradients:
        large = abs(g) >= np.exp(-p)
        x = np.array([np.log(abs(g)) / p, np.sign(g)] if large else [-1, np.exp(p) * g])
        for layer, (kernel, recurrent, bias) in enumerate(layers):
            h, c = state[2 * layer : 2 * layer + 2]
            gates = np.split(x @ kernel + h @ recurrent + bias, 4)
            gates = dict(zip(order, gates, strict=True))
            c = sigmoid(gates["f"]) * c + sigmoid(gates["i"]) * np.tanh(gates["c"])
            x = sigmoid(gates["o"]) * np.tanh(c)
            state[2 * layer : 2 * layer + 2] = x, c
        updates.append(output_scale * (x @ head + head_bias).item())
    return updates, state


@pytest.mark.parametrize("layers, shape", [(1, ()), (2, (2, 4)), (3, (2, 1, 2))])
def test_the_lstm_in_numpy(float64, layers, shape):
    """eq-lstm-rule with eq-log-and-sign: each coordinate by itself, the weights the same for all.

    Negative control: gates in another order than Keras's i, f, c, o.
    """
    rule = lstm_rule(layers=layers, output_scale=0.3, p=7)
    gradients = random_gradients(shape, steps=3)
    updates, state = follow(rule, gradients)
    for i in np.ndindex(*shape):
        arguments = rule.get_weights(), gradients[:, *i], 0.3, 7
        expected, expected_state = lstm_in_numpy(*arguments)
        np.testing.assert_allclose(updates[:, *i], expected, rtol=1e-10)
        np.testing.assert_allclose([s[i] for s in state], expected_state, rtol=1e-10)
        wrong, _ = lstm_in_numpy(*arguments, order="ifoc")
        assert np.max(np.abs(updates[:, *i] - wrong)) > 1e-3


# ---------------------------------------------------------------- the class, and keeping a rule


def test_a_mixed_policy_is_not_for_rules():
    """A rule has the precision of floatx, so that its updates fit the theta of a family."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for rule in (StepSize(), LSTMRule(units=2), AdamRule()):
            update, state = rule(tf.ones((2, 3)), rule.initial_state((2, 3)))
            assert {x.dtype for x in (update, *state)} == {tf.float32}
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_rule_that_comes_with_the_package():
    """It is loaded anew each time, so that training one does not change the next."""
    rule, another = (mlutils.trained_rule("digits") for _ in range(2))
    assert type(rule) is LSTMRule
    gradients = random_gradients().astype("float32")
    updates, _ = follow(rule, gradients)
    assert np.isfinite(updates).all() and np.abs(updates).max() > 0
    another.set_weights([0 * w for w in another.get_weights()])
    np.testing.assert_array_equal(follow(rule, gradients)[0], updates)
    np.testing.assert_array_equal(follow(mlutils.trained_rule("digits"), gradients)[0], updates)


# ---------------------------------------------------------------- the MLP rule

FEATURES = ("g", "m .5", "m .9", "m .99", "size", "t / 10", "t / 100")


def linear_rule(row, column=0):
    """An MLP rule without hidden layers whose direction, or size, is a single feature."""
    rule = MLPRule(hidden=(), dtype="float64")
    kernel = np.zeros((7, 2))
    kernel[row, column] = 1.0
    rule.set_weights([kernel, np.array([1.0 * column, 0.0])])  # a size is read with direction 1
    return rule


def by_hand(row, gradients, corrected=True):
    """eq-mlp-rule, in loops: one feature of one coordinate."""
    means, square = dict.fromkeys((0.5, 0.9, 0.99), 0.0), 0.0
    for g in gradients:
        means = {b: b * m + (1 - b) * g for b, m in means.items()}
        square = 0.99 * square + 0.01 * g**2
    t = len(gradients)
    if corrected:
        means = {b: m / (1 - b**t) for b, m in means.items()}
        square = square / (1 - 0.99**t)
    root = np.sqrt(square + np.exp(-20))
    values = [gradients[-1] / root, *(m / root for m in means.values())]
    return [*values, np.log(root) / 10, np.tanh(t / 10), np.tanh(t / 100)][row]


@pytest.mark.parametrize("row", range(7), ids=FEATURES)
def test_each_feature_of_the_mlp_rule_by_hand(float64, row):
    """Negative control: means that are not corrected for their start at 0."""
    gradients = [0.3, -0.1, 1e-6, 20.0, 0.0]
    for column in (0, 1):
        rule = linear_rule(row, column)
        state = rule.initial_state((2,))
        for t, g in enumerate(gradients, start=1):
            update, state = rule(tf.constant([g, -g], tf.float64), state)
            expected = by_hand(row, gradients[:t])
            expected = expected if column == 0 else np.exp(expected)
            assert float(update[0]) == pytest.approx(0.1 * expected, rel=1e-9, abs=1e-15)
    if row < 5:
        wrong = by_hand(row, gradients[:4], corrected=False)
        assert abs(wrong - by_hand(row, gradients[:4])) > 0.01


def test_the_mlp_rule_sees_a_factor_on_the_loss_in_one_feature_only(float64):
    gradients = np.array([0.3, -0.1, 0.2])
    for row in range(7):
        one, other = (by_hand(row, factor * gradients) for factor in (1.0, 1000.0))
        rule = linear_rule(row)
        updates = []
        for factor in (1.0, 1000.0):
            state = rule.initial_state((1,))
            for g in factor * gradients:
                update, state = rule(tf.constant([g], tf.float64), state)
            updates.append(float(update[0]) / 0.1)
        np.testing.assert_allclose(updates, [one, other], rtol=1e-9)
        changed = np.log(1000) / 10 if row == 4 else 0.0
        assert other - one == pytest.approx(changed, abs=1e-6)


def test_adam_is_an_mlp_rule(float64):
    """Without hidden layers, direction -0.1 m(.9) / sqrt v; another decay is not Adam."""
    kernel = np.zeros((7, 2))
    kernel[2, 0] = -0.1
    gradients = np.random.default_rng(0).normal(size=(6, 4))

    def updates(rule):
        state, found = rule.initial_state((4,)), []
        for g in gradients:
            update, state = rule(tf.constant(g), state)
            found.append(update)
        return np.array(found)

    rule = MLPRule(hidden=(), dtype="float64")
    rule.set_weights([kernel, np.zeros(2)])
    adam = AdamRule(0.01, 0.9, 0.99, dtype="float64")
    np.testing.assert_allclose(updates(rule), updates(adam), rtol=1e-6)
    other = AdamRule(0.01, 0.99, 0.99, dtype="float64")
    assert np.abs(updates(rule) - updates(other)).max() > 5e-4


@pytest.mark.parametrize(
    "options, words",
    [
        ({"hidden": 16}, "hidden must be a tuple of integers"),
        ({"hidden": (0,)}, "hidden must be an integer of at least 1"),
        ({"decays": ()}, "decays must be a tuple of shares, at least one"),
        ({"decays": (0.5, 1.0)}, "decays must be at least 0 and less than 1"),
        ({"square_decay": -1}, "square_decay must be at least 0"),
        ({"output_scale": 0}, "output_scale must be a finite positive number"),
        ({"p": 100}, "p must be at most 80"),
    ],
)
def test_wrong_options_of_the_mlp_rule_raise(options, words):
    with pytest.raises(ValueError, match=words):
        MLPRule(**options)
