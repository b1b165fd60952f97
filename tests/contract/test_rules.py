"""The table of update rules, and of optimizers made of them, times what each must hold."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import (
    AdamRule,
    LearnedOptimizer,
    LSTMRule,
    MLPRule,
    MomentumRule,
    RuleTrainer,
    StepSize,
    unroll,
)
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error

RULES = {
    "step size": lambda: StepSize(0.1),
    "step size per coordinate": lambda: StepSize(0.1, coordinates=3),
    "step size per step": lambda: StepSize(0.1, steps=2),
    "momentum": lambda: MomentumRule(0.1, 0.5),
    "Adam": lambda: AdamRule(0.1),
    "LSTM": lambda: LSTMRule(3, 2),
    "MLP": lambda: MLPRule((3,), (0.5, 0.9)),
}
every = pytest.mark.parametrize("name", RULES)
learned = pytest.mark.parametrize("name", [n for n, make in RULES.items() if make().weights])
# A rule that all coordinates share can train a Keras model.
shared = pytest.mark.parametrize("name", [n for n in RULES if "coordinate" not in n])


def gradients(steps=3, dtype="float32", seed=0):
    """Gradients of two functions of three coordinates, of very different sizes, some of them 0."""
    random = np.random.default_rng(seed)
    sizes = 10.0 ** random.integers(-6, 2, size=(steps, 2, 3))
    return (random.normal(size=(steps, 2, 3)) * sizes * (random.random((2, 3)) > 0.2)).astype(dtype)


def updates(rule, some):
    state, found = rule.initial_state(some[0].shape), []
    for gradient in some:
        update, state = rule(gradient, state)
        found.append(update)
    return tf.stack(found)


def quartic(theta, step=0):
    """Values ``(functions,)``, each with curvatures of its own."""
    scale = tf.constant([[1.0], [0.3]], theta.dtype)
    return tf.reduce_sum(scale * theta**2 + theta**4 / 4, axis=1)


START = np.array([[0.5, -1.0, 0.2], [1.5, 0.1, -0.7]])


@every
def test_it_is_pure(name):
    """The same in, the same out; nothing is kept."""
    rule, some = RULES[name](), gradients()
    first = updates(rule, some)
    updates(rule, gradients(seed=1))
    np.testing.assert_array_equal(first, updates(rule, some))


@every
def test_each_coordinate_goes_its_own_way(name):
    """Two functions together, and in another order, are each as alone."""
    rule, some = RULES[name](), gradients()
    together = updates(rule, some)
    np.testing.assert_allclose(together[:, 1:], updates(rule, some[:, 1:]), rtol=1e-5, atol=1e-9)
    if "coordinate" not in name:
        turned = updates(rule, some[..., ::-1])
        np.testing.assert_allclose(together[..., ::-1], turned, rtol=1e-5, atol=1e-9)


@every
def test_saved_loaded_and_copied_it_is_the_same(tmp_path, name):
    rule, some = RULES[name](), gradients()
    expected = updates(rule, some)
    rule.save(tmp_path / "rule.keras")
    loaded = keras.saving.load_model(tmp_path / "rule.keras")
    np.testing.assert_array_equal(updates(loaded, some), expected)
    copy = type(rule).from_config(rule.get_config())
    if rule.weights:
        copy.set_weights(rule.get_weights())
    np.testing.assert_array_equal(updates(copy, some), expected)


@every
@pytest.mark.parametrize("steps", [3, 9])
def test_eagerly_in_a_graph_and_by_xla(xla, name, steps):
    """Nine steps are a loop of the graph, three are not."""
    rule, theta = RULES[name](), tf.constant(START, tf.float32)
    run = lambda theta: unroll(rule, quartic, theta, steps)[:2]  # noqa: E731
    eagerly = run(theta)
    signature = [tf.TensorSpec((None, 3), tf.float32)]
    for found in (
        tf.function(run, input_signature=signature)(theta),
        tf.function(run, jit_compile=True)(theta),
    ):
        for one, other in zip(found, eagerly, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@learned
@pytest.mark.parametrize("steps", [3, 7])
def test_the_gradient_by_the_rules_weights(float64, name, steps):
    """eq-unrolled-gradient against finite differences; without the path through the gradients it
    is another."""
    rule = RULES[name]()
    batch = tf.constant(START), ()

    def trainer(first_order):
        made = RuleTrainer(
            rule, lambda theta, _, step: quartic(theta, step), steps, first_order=first_order
        )
        made.compile("sgd")
        return made

    whole = trainer(False)
    loss = lambda: whole.meta_loss(batch)  # noqa: E731
    reference = finite_differences(loss, rule.trainable_variables)
    found = flatten(whole.meta_gradients(batch)[1])
    assert relative_error(found, reference) < RELATIVE_TOLERANCE
    assert relative_error(flatten(trainer(True).meta_gradients(batch)[1]), reference) > 1e-4


@every
def test_in_maml_every_rule_is_differentiated_through(float64, name):
    """eq-update-rule in the inner loop: the gradient by theta, and by the rule's weights."""
    if "coordinate" in name:
        pytest.skip("its coordinates are those of one function, not of several weights")
    model = mlutils.mlp(2, (3,), 1, "tanh")
    learner = mlutils.MAML(model, inner_steps=2, rule=RULES[name]())
    learner.compile(loss="mse")
    x, y = np.random.default_rng(0).normal(size=(2, 2, 4, 2))
    batch = (x, y[..., :1], x[:, ::-1]), y[..., 1:]
    loss = lambda: learner.meta_loss(batch)  # noqa: E731
    reference = finite_differences(loss, learner.trainable_variables)
    _, found = learner.meta_gradients(batch)
    assert relative_error(flatten(found), reference) < RELATIVE_TOLERANCE


# ---------------------------------------------------------------- as optimizers of Keras


@shared
def test_as_a_keras_optimizer_it_takes_the_same_steps(name):
    rule, steps = RULES[name](), 4
    optimizer, variable = LearnedOptimizer(rule), tf.Variable(START, dtype=tf.float32)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            value = quartic(variable)
        optimizer.apply([tape.gradient(value, variable)], [variable])
    _, theta, _ = unroll(rule, quartic, START.astype("float32"), steps)
    np.testing.assert_allclose(variable, theta, rtol=1e-4, atol=1e-6)


@shared
@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_trains_a_model_with_more_than_a_few_weights(xla, name, jit_compile):
    """By XLA too, whose programs may not hold larger constants: 900 numbers of state and more.

    Negative control: with learning rate 0 nothing moves.
    """
    x = np.random.default_rng(0).normal(size=(8, 20)).astype("float32")

    def trained(rate):
        keras.utils.set_random_seed(0)
        model = mlutils.mlp(20, (15,), 1)
        optimizer = LearnedOptimizer(RULES[name](), learning_rate=rate)
        model.compile(optimizer, "mse", jit_compile=jit_compile)
        before = model.get_weights()
        model.fit(x, x[:, :1], epochs=2, verbose=0)
        return max(np.abs(b - w).max() for b, w in zip(before, model.get_weights(), strict=True))

    assert 0 < trained(0.01) < np.inf
    assert trained(0.0) == 0


@shared
def test_a_saved_training_goes_on_exactly(tmp_path, name):
    x = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    model = mlutils.mlp(2, (3,), 1)
    model.compile(LearnedOptimizer(RULES[name](), learning_rate=0.1), "mse")
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        one.fit(x, x[:, :1], epochs=2, verbose=0, shuffle=False)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_run_optimizer_leaves_nothing_behind():
    """Functions and optimizers come and go, and the number of objects stays."""
    counts = []
    for _ in range(5):
        mlutils.run_optimizer(keras.optimizers.SGD(0.1), quartic, START.astype("float32"), 3)
        gc.collect()
        counts.append(len(gc.get_objects()))
    assert counts[-1] - counts[1] < 50
