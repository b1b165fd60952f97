"""Update rules: values by hand, the LSTM written once more in NumPy, and wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import mlutils
from mlutils import LSTMRule, StepSize, UpdateRule
from mlutils.optimizer_based import log_and_sign

SMALL = math.exp(-10)

# ---------------------------------------------------------------- a gradient as two numbers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "gradient, expected",
    [
        (1.0, (0, 1)),
        (-1.0, (0, -1)),
        (SMALL, (-1, 1)),
        (-SMALL, (-1, -1)),
        (0.0, (-1, 0)),
        (1e-6, (-1, math.exp(10) * 1e-6)),
        (-1e-6, (-1, -math.exp(10) * 1e-6)),
        (10.0, (math.log(10) / 10, 1)),
        (-math.exp(20), (2, -1)),
    ],
)
def test_log_and_sign_by_hand(gradient, expected, dtype):
    """eq-log-and-sign for p = 10: (log|g| / 10, sign g) from exp(-10) on, else (-1, exp(10) g)."""
    found = log_and_sign(tf.constant(gradient, dtype))
    assert found.dtype == dtype
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_log_and_sign_with_another_p():
    """eq-log-and-sign for p = 2: 1/2 is large, 1/10 < exp(-2) = 0.135 is small."""
    found = log_and_sign(tf.constant([[0.5, -0.1]], tf.float64), p=2)
    expected = [[(-math.log(2) / 2, 1), (-1, -0.1 * math.exp(2))]]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def jump(preprocess, p, sign):
    """How much ``preprocess`` changes over a relative distance of 2e-9 around +-exp(-p)."""
    around = sign * math.exp(-p) * np.array([1 - 1e-9, 1 + 1e-9])
    below, above = preprocess(tf.constant(around), p).numpy()
    return np.max(np.abs(above - below))


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("p", [0.5, 2.0, 10.0])
def test_log_and_sign_is_continuous(p, sign):
    """eq-log-and-sign: its two pieces meet.  A piece (-1, g) for small gradients jumps."""

    def wrong(gradient, p):
        large = tf.abs(gradient)[..., tf.newaxis] >= math.exp(-p)
        return tf.where(
            large, log_and_sign(gradient, p), tf.stack([-1 + 0 * gradient, gradient], -1)
        )

    assert jump(log_and_sign, p, sign) < 1e-8
    assert jump(wrong, p, sign) > 0.1


def derivatives(preprocess, gradient):
    """The derivatives of both outputs by the gradient, ``(..., 2)``."""
    gradient = tf.constant(gradient, tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(gradient)
        log, direction = tf.unstack(preprocess(gradient), axis=-1)
    return tf.stack([tape.gradient(log, gradient), tape.gradient(direction, gradient)], -1).numpy()


def test_the_derivative_of_log_and_sign_is_finite():
    """eq-log-and-sign: (1 / (10 g), 0) from exp(-10) on, else (0, exp(10)), also at 0.

    Negative control: without the maximum inside the logarithm 0 gives 0 / 0.
    """
    large = np.array([-1e30, -1.0, -1e-4, 1e-4, 0.5, 1e30])
    found = derivatives(log_and_sign, large)
    np.testing.assert_allclose(found, np.stack([0.1 / large, 0 * large], -1), rtol=1e-12)
    small = np.array([-4e-5, -1e-30, 0.0, 1e-300, 1e-6])
    found = derivatives(log_and_sign, small)
    np.testing.assert_allclose(found, [(0, math.exp(10))] * len(small), rtol=1e-12)
    assert np.isfinite(derivatives(log_and_sign, [SMALL, -SMALL])).all()

    def wrong(gradient):
        large = tf.abs(gradient) >= SMALL
        log = tf.where(large, tf.math.log(tf.abs(gradient)) / 10, -1)
        return tf.stack([log, tf.where(large, tf.sign(gradient), gradient / SMALL)], -1)

    everywhere = [-1.0, 0.0, 1e-6, 10.0]
    np.testing.assert_allclose(*(f(tf.constant(everywhere)) for f in (wrong, log_and_sign)))
    assert np.isnan(derivatives(wrong, everywhere)).any()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    gradient=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    p=st.floats(0.01, 80),
)
def test_log_and_sign_of_any_gradient(gradient, p):
    """eq-log-and-sign: finite, the first number even and at least -1, the second odd, in [-1, 1].

    And it keeps the order of the gradients: only one of the numbers changes at a time.
    """
    gradient = np.array(gradient)
    log, direction = log_and_sign(gradient, p).numpy().T
    assert np.isfinite(log).all() and (log >= -1 - 1e-12).all()
    assert (np.abs(direction) <= 1).all()
    mirrored = log_and_sign(-gradient, p).numpy().T
    np.testing.assert_array_equal(mirrored, [log, -direction])
    order = np.argsort(gradient)
    assert (np.diff(direction[order]) >= 0).all()
    both = (direction * (log + 1))[order]
    assert (np.diff(both) >= -1e-12 * np.maximum(1, np.abs(both[1:]))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.1, 10, 80])
def test_a_zero_gradient_is_finite_for_every_p(p, dtype):
    """eq-log-and-sign: zero is (-1, 0), with a derivative of (0, exp(p))."""
    gradient = tf.zeros((), dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(gradient)
        log, direction = tf.unstack(log_and_sign(gradient, p))
    np.testing.assert_allclose([log, direction], [-1, 0], rtol=1e-6)
    found = [tape.gradient(x, gradient) for x in (log, direction)]
    np.testing.assert_allclose(found, [0, math.exp(p)], rtol=1e-5)


@pytest.mark.parametrize("p", [0, -1, math.nan, math.inf, "10", None, True, 81, 1000])
def test_a_wrong_p_raises(p):
    """With more than 80 exp(-p) would be too near to 0 for float32, and log(0) infinite."""
    for use in (lambda: log_and_sign(tf.ones(3), p), lambda: LSTMRule(p=p)):
        with pytest.raises(ValueError, match=r"^p must be"):
            use()


# ---------------------------------------------------------------- step sizes


def test_one_step_size():
    """eq-step-size: g = -alpha grad; alpha = 1/2 takes (1, -2, 4) to (-1/2, 1, -2)."""
    rule = StepSize(0.5)
    update, state = rule(tf.constant([[1.0, -2.0, 4.0]]), rule.initial_state((1, 3)))
    np.testing.assert_array_equal(update, [[-0.5, 1, -2]])
    assert state == ()
    assert rule(tf.constant(3.0))[0].numpy() == -1.5
    rule.alpha.assign(-2.0)
    np.testing.assert_array_equal(rule(tf.constant([1.0, 3.0]))[0], [2, 6])


def test_a_step_size_of_each_coordinate():
    """eq-step-size: alpha = (1, 10, 100) multiplies the last axis, of as many rows as there are."""
    rule = StepSize(0.25, coordinates=3)
    np.testing.assert_array_equal(rule.alpha, [0.25] * 3)
    rule.alpha.assign([1.0, 10.0, 100.0])
    gradient = tf.constant([[[1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]]])
    update, state = rule(gradient, ())
    np.testing.assert_array_equal(update, [[[-1, -20, -300], [1, 0, -100]]])
    assert state == ()


@pytest.mark.parametrize("coordinates", [None, 2])
def test_the_initial_step_size_is_exact(float64, coordinates):
    """In double precision alpha is 0.1, not the float32 next to it."""
    np.testing.assert_array_equal(StepSize(0.1, coordinates).alpha, 0.1)


@pytest.mark.parametrize("shape", [(), (2,), (3, 1), (3, 2), (1,)])
def test_a_gradient_with_other_coordinates_raises(shape):
    with pytest.raises(ValueError) as raised:
        StepSize(coordinates=3)(tf.ones(shape))
    for words in ("3 step sizes", str(shape), "last axis"):
        assert words in str(raised.value)


@pytest.mark.parametrize("initial", [math.nan, math.inf, "0.1", None, True])
def test_wrong_initial_step_size_raises(initial):
    with pytest.raises(ValueError, match=r"^initial must be"):
        StepSize(initial)


@pytest.mark.parametrize("coordinates", [0, -1, 1.5, "2", True])
def test_wrong_number_of_step_sizes_raises(coordinates):
    with pytest.raises(ValueError, match=r"^coordinates must be"):
        StepSize(coordinates=coordinates)


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


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_lstm_in_numpy(float64, layers):
    """eq-lstm-rule with eq-log-and-sign: each coordinate by itself, the weights the same for all.

    Negative control: gates in another order than Keras's i, f, c, o.
    """
    rule = lstm_rule(layers=layers, output_scale=0.3, p=7)
    gradients = random_gradients(steps=3)
    updates, state = follow(rule, gradients)
    for i in np.ndindex(2, 4):
        arguments = rule.get_weights(), gradients[:, *i], 0.3, 7
        expected, expected_state = lstm_in_numpy(*arguments)
        np.testing.assert_allclose(updates[:, *i], expected, rtol=1e-10)
        np.testing.assert_allclose([s[i] for s in state], expected_state, rtol=1e-10)
        wrong, _ = lstm_in_numpy(*arguments, order="ifoc")
        assert np.max(np.abs(updates[:, *i] - wrong)) > 1e-3


def test_the_output_scale_multiplies_the_update(float64):
    (one, state), (four, same) = (
        follow(lstm_rule(output_scale=scale), random_gradients()) for scale in (0.1, 0.4)
    )
    np.testing.assert_allclose(four, 4 * one, rtol=1e-12)
    np.testing.assert_array_equal(same, state)


def test_a_head_of_zeros_updates_nothing():
    rule = lstm_rule()
    assert np.abs(follow(rule, random_gradients())[0]).min() > 0
    rule.head.set_weights([np.zeros((3, 1)), np.zeros(1)])
    updates, state = follow(rule, random_gradients())
    np.testing.assert_array_equal(updates, 0 * updates)
    assert np.abs(state).min() > 0


class Averaging(UpdateRule):
    """Wrong: after each step the states are averaged over an axis of the gradients."""

    def __init__(self, rule, axis):
        super().__init__()
        self.rule, self.axis = rule, axis

    def initial_state(self, shape):
        return self.rule.initial_state(shape)

    def call(self, gradient, state):
        update, state = self.rule(gradient, state)
        return update, tuple(
            tf.zeros_like(s) + tf.reduce_mean(s, self.axis, keepdims=True) for s in state
        )


def mixing(rule, axis):
    """How much a rule's updates change if only one index of an axis is given to it."""
    gradients = random_gradients()
    together, _ = follow(rule, gradients)
    errors = []
    for i in range(together.shape[axis + 1]):
        alone, _ = follow(rule, np.take(gradients, [i], axis + 1))
        errors.append(np.max(np.abs(alone - np.take(together, [i], axis + 1))))
    return max(errors)


@pytest.mark.parametrize("axis", [0, 1])
def test_problems_and_coordinates_do_not_mix(float64, axis):
    """eq-lstm-rule: each function alone (axis 0), or each coordinate (1), gives the same updates.

    Negative control: a rule that averages the states over that axis is caught.
    """
    rule = lstm_rule()
    assert mixing(rule, axis) < 1e-13
    assert mixing(Averaging(rule, axis), axis) > 1e-4


def test_permuting_coordinates_permutes_updates_and_states(float64):
    """eq-lstm-rule: the weights are shared, so a coordinate's number does not matter.

    Negative control: a step size of each coordinate is not shared.
    """
    gradients, order = random_gradients(), np.array([2, 0, 3, 1])
    rule = lstm_rule()
    updates, state = follow(rule, gradients)
    permuted, permuted_state = follow(rule, gradients[..., order])
    np.testing.assert_allclose(permuted, updates[..., order], rtol=1e-12)
    for found, expected in zip(permuted_state, state, strict=True):
        np.testing.assert_allclose(found, expected[:, order], rtol=1e-12)
    wrong = StepSize(coordinates=4)
    wrong.alpha.assign([1.0, 2.0, 3.0, 4.0])
    updates, permuted = (follow(wrong, g)[0] for g in (gradients, gradients[..., order]))
    assert np.max(np.abs(permuted - updates[..., order])) > 0.1


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (3, 3, 2, 4)])
def test_shapes_of_updates_and_states(float64, shape):
    """eq-lstm-rule: a state for each entry of a gradient of any shape."""
    rule, gradients = lstm_rule(), random_gradients(shape, steps=2)
    for value in rule.initial_state(shape):
        np.testing.assert_array_equal(value, np.zeros((*shape, 3)))
    updates, state = follow(rule, gradients)
    assert updates.shape == (2, *shape)
    assert [s.shape for s in state] == [(*shape, 3)] * 4
    flat, flat_state = follow(rule, gradients.reshape(2, -1))
    np.testing.assert_allclose(np.ravel(updates), np.ravel(flat), rtol=1e-12)
    np.testing.assert_allclose(np.ravel(state), np.ravel(flat_state), rtol=1e-12)
    update, state = StepSize()(tf.ones(shape, tf.float64))
    assert update.shape == shape and state == ()


@pytest.mark.parametrize("make", [StepSize, lstm_rule])
def test_a_step_is_pure(make):
    """eq-update-rule: (g_t, h_t) = m_phi(grad, h_{t-1}), a function; nothing is kept in the rule.

    Negative control: with the new state the LSTM's update is another one.
    """
    rule, gradient = make(), tf.constant(random_gradients()[0], tf.float32)
    state = rule.initial_state(gradient.shape)
    variables = [v.numpy() for v in rule.variables]
    update, new = rule(gradient, state)
    again, new_again = rule(gradient, state)
    np.testing.assert_array_equal(update, again)
    for one, two in zip(new, new_again, strict=True):
        np.testing.assert_array_equal(one, two)
    for value in state:
        np.testing.assert_array_equal(value, tf.zeros_like(value))
    for old, now in zip(variables, rule.variables, strict=True):
        np.testing.assert_array_equal(old, now)
    later, _ = rule(gradient, new)
    assert np.array_equal(later, update) == (make is StepSize)


def test_a_graph_for_any_number_of_functions():
    """eq-lstm-rule inside one tf.function whose leading dimension is not known."""
    rule = lstm_rule()
    state = tf.TensorSpec([None, 4, 3])

    @tf.function(input_signature=[tf.TensorSpec([None, 4]), (state,) * 4])
    def step(gradient, state):
        update, new = rule(gradient, state)
        assert update.shape.as_list() == [None, 4]
        return update, new

    for functions in (1, 3):
        gradient = tf.constant(random_gradients((functions, 4))[0], tf.float32)
        state = rule.initial_state((functions, 4))
        for _ in range(2):
            expected, expected_state = rule(gradient, state)
            update, state = step(gradient, state)
            np.testing.assert_allclose(update, expected, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(state, expected_state, rtol=1e-5, atol=1e-7)
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "options",
    [
        dict(units=0),
        dict(units=1.5),
        dict(layers=0),
        dict(layers=-1),
        dict(layers="2"),
        dict(output_scale=0),
        dict(output_scale=-0.1),
        dict(output_scale=math.nan),
    ],
)
def test_wrong_option_raises(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name} must be"):
        LSTMRule(**options)


# ---------------------------------------------------------------- the class, and keeping a rule


def test_a_rule_without_its_methods_says_so():
    class Unfinished(UpdateRule):
        pass

    with pytest.raises(NotImplementedError, match=r"Unfinished does not define initial_state"):
        Unfinished().initial_state((2,))
    with pytest.raises(NotImplementedError, match=r"Unfinished does not define call"):
        Unfinished()(tf.ones(2), ())


def test_a_mixed_policy_is_not_for_rules():
    """A rule has the precision of floatx, so that its updates fit the theta of a family."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for rule in (StepSize(), LSTMRule(units=2)):
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


@pytest.mark.parametrize("name", ["numbers", "", None, "../trained/digits"])
def test_an_unknown_trained_rule_raises(name):
    with pytest.raises(ValueError, match=r"^name must be one of \('digits',"):
        mlutils.trained_rule(name)


def test_names_of_the_package():
    for name in ("UpdateRule", "StepSize", "LSTMRule", "trained_rule"):
        assert getattr(mlutils, name) is getattr(mlutils.optimizer_based, name)
        assert name in mlutils.__all__


@pytest.mark.parametrize(
    "make, options",
    [
        (StepSize, dict(initial=-0.5)),
        (StepSize, dict(initial=0.3, coordinates=4)),
        (LSTMRule, dict(units=2, layers=3, output_scale=0.7, p=3.0, name="mine")),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_and_loaded_rule_gives_the_same_updates(tmp_path, make, options, dtype):
    """Weights and options come back, in a process of another precision too."""
    rule = make(**options, dtype=dtype)
    random = np.random.default_rng(0)
    rule.set_weights([random.normal(size=w.shape) for w in rule.get_weights()])
    rule.save(tmp_path / "rule.keras")
    loaded = keras.saving.load_model(tmp_path / "rule.keras")
    assert type(loaded) is make
    assert loaded.get_config() == rule.get_config()
    assert options.items() <= loaded.get_config().items()
    gradients = random_gradients().astype(dtype)
    (updates, state), (same, same_state) = (follow(r, gradients) for r in (rule, loaded))
    assert updates.dtype == same.dtype == dtype
    np.testing.assert_array_equal(same, updates)
    for one, two in zip(same_state, state, strict=True):
        np.testing.assert_array_equal(one, two)
    fresh, _ = follow(make(**options, dtype=dtype), gradients)
    assert np.max(np.abs(fresh - updates)) > 1e-3
