"""A rule as a Keras optimizer: beside SGD, beside ``unroll``, by hand, and through saving."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import LearnedOptimizer, LSTMRule, StepSize, UpdateRule, unroll

X = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def lstm(seed=5, layers=1, **options):
    """A rule with random weights and updates large enough to see."""
    keras.utils.set_random_seed(seed)
    return LSTMRule(units=3, layers=layers, output_scale=1.0, **options)


def network(seed=0, dtype=None):
    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Dense(2, "tanh", use_bias=False, dtype=dtype),
        keras.layers.Dense(1, use_bias=False, dtype=dtype),
    ]
    return keras.Sequential([keras.Input((2,)), *layers])


def compiled(optimizer, model=None, **options):
    model = network() if model is None else model
    model.compile(optimizer, "mse", **options)
    return model


def losses(model, epochs=2, callbacks=(), x=X, y=Y):
    """The losses of epochs of three steps, always in the same order."""
    options = dict(batch_size=-(-len(x) // 3), shuffle=False, verbose=0)
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **options).history["loss"]


class Run(NamedTuple):
    """A model after two epochs, saved in each way, and the losses with which it then went on."""

    folder: Path
    weights: list
    states: list
    continued: list


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    model, folder = compiled(LearnedOptimizer(lstm())), tmp_path_factory.mktemp("run")
    losses(model)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    states = [s.numpy() for state in model.optimizer.states for s in state]
    return Run(folder, model.get_weights(), states, losses(model))


def assert_close(found, expected, rtol=1e-5, atol=1e-6):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def differ(found, expected):
    return max(np.max(np.abs(a - b)) for a, b in zip(found, expected, strict=True)) > 1e-3


# ---------------------------------------------------------------- without a model


def start():
    """A matrix, two vectors of the same shape and a scalar."""
    random, shapes = np.random.default_rng(1), [(2, 3), (4,), (4,), ()]
    return [tf.Variable(random.normal(size=shape), dtype="float32") for shape in shapes]


def loss_of(variables):
    """Of every coordinate by itself, with another curvature in each variable."""
    terms = [(i + 1) * tf.reduce_sum(v**2 + tf.sin(3 * v)) for i, v in enumerate(variables)]
    return tf.add_n(terms)


def step(optimizer, variables, loss=loss_of):
    with tf.GradientTape() as tape:
        value = loss(variables)
    optimizer.apply(tape.gradient(value, variables), variables)


def minimise(optimizer, variables, steps=4, loss=loss_of):
    for _ in range(steps):
        step(optimizer, variables, loss)
    return [v.numpy() for v in variables]


OPTIONS = [
    dict(weight_decay=0.5),
    dict(clipnorm=0.3),
    dict(clipvalue=0.1),
    dict(global_clipnorm=0.3),
    dict(loss_scale_factor=4.0),
    dict(gradient_accumulation_steps=2),
    dict(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_options_are_as_for_sgd(options):
    """-1 * gradient times the learning rate is SGD, and no option is ignored."""
    found = minimise(LearnedOptimizer(StepSize(1.0), learning_rate=0.05, **options), start())
    expected = minimise(keras.optimizers.SGD(0.05, **options), start())
    assert_close(found, expected)
    assert differ(expected, minimise(keras.optimizers.SGD(0.05), start()))


def test_averages_replace_the_weights_at_the_end():
    results = []
    options = dict(use_ema=True, ema_momentum=0.5)
    for optimizer in (
        LearnedOptimizer(StepSize(0.05), **options),
        keras.optimizers.SGD(0.05, **options),
    ):
        variables = start()
        last = minimise(optimizer, variables)
        optimizer.finalize_variable_values(variables)
        results.append([v.numpy() for v in variables])
        assert differ(results[-1], last)
    assert_close(*results)


def test_weight_decay_follows_the_learning_rate_not_the_rule():
    """With updates of 0, four steps leave (1 - 0.5 * 0.1)^4 of theta."""
    optimizer = LearnedOptimizer(StepSize(0.0), learning_rate=0.5, weight_decay=0.1)
    assert_close(minimise(optimizer, start()), [0.95**4 * v.numpy() for v in start()])


def test_variables_can_be_excluded_from_weight_decay():
    variables = start()
    optimizer = LearnedOptimizer(StepSize(0.0), weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=variables[:1])
    found = minimise(optimizer, variables)
    assert_close(found[:1], start()[:1])
    assert differ(found[1:], start()[1:])


@pytest.mark.parametrize("layers", [1, 2])
def test_the_trajectory_is_that_of_unroll(layers):
    """One variable that holds theta of four functions: where ``unroll`` is after 1 to 6 steps."""
    rule = lstm(layers=layers)
    theta, problem = next(iter(mlutils.data.Quadratics(3).problems(4)))

    def function(theta, step=None):
        return mlutils.data.Quadratics.values(theta, problem)

    variable, optimizer = tf.Variable(theta), LearnedOptimizer(rule)
    for steps in range(1, 7):
        minimise(optimizer, [variable], 1, lambda variables: function(variables[0]))
        _, expected, state = unroll(rule, function, theta, steps)
        assert_close([variable], [expected])
        assert_close(optimizer.states[0], state)
    _, other, _ = unroll(lstm(6, layers), function, theta, 6)
    assert differ([variable], [other])


def test_variables_together_move_as_each_alone():
    together = minimise(LearnedOptimizer(lstm()), start())
    for i, variable in enumerate(start()):
        optimizer = LearnedOptimizer(lstm())
        alone = minimise(optimizer, [variable], loss=lambda v, i=i: (i + 1) * loss_of(v))
        assert_close(alone, [together[i]])


def test_every_coordinate_has_its_own_state():
    """A matrix moves as its six entries do, each a variable and an optimizer of its own."""
    matrix = start()[:1]
    entries = [tf.Variable(value) for value in matrix[0].numpy().ravel()]
    alone = [minimise(LearnedOptimizer(lstm()), [entry], 3)[0] for entry in entries]
    assert_close([np.ravel(*minimise(LearnedOptimizer(lstm()), matrix, 3))], [alone])


def test_coordinates_with_other_pasts_move_differently():
    """Negative control: the last gradients are equal, the first ones are not."""
    variable, optimizer = tf.Variable([0.0, 0.0]), LearnedOptimizer(lstm())
    optimizer.apply([tf.constant([1.0, -1.0])], [variable])
    before = variable.numpy()
    optimizer.apply([tf.constant([1.0, 1.0])], [variable])
    moves = variable.numpy() - before
    assert abs(moves[0] - moves[1]) > 1e-3


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_variable_without_a_gradient_stays_and_so_does_its_state():
    optimizer, variables = LearnedOptimizer(lstm()), start()
    minimise(optimizer, variables, steps=2)
    kept = [variables[1].numpy(), *(s.numpy() for s in optimizer.states[1])]
    optimizer.apply([tf.ones((2, 3)), None, tf.ones(4), tf.ones(())], variables)
    assert_close([variables[1], *optimizer.states[1]], kept, rtol=0, atol=0)
    assert optimizer.iterations == 3


def test_optimizers_with_the_same_rule_have_their_own_states():
    rule = lstm()
    one, other = LearnedOptimizer(rule), LearnedOptimizer(rule)
    first = minimise(one, start())
    assert_close(minimise(other, start()), first)


def test_a_rule_trained_further_is_used_at_once():
    variable, optimizer = tf.Variable(1.0), LearnedOptimizer(StepSize(0.0))
    one_step = tf.function(lambda: optimizer.apply([tf.constant(1.0)], [variable]))
    one_step()
    optimizer.rule.alpha.assign(0.25)
    one_step()
    assert variable.numpy() == 0.75


def test_states_move_on_only_when_gradients_were_accumulated():
    """Two halves of a gradient, accumulated, are one step with their mean."""
    whole, parts = LearnedOptimizer(lstm()), LearnedOptimizer(lstm(), gradient_accumulation_steps=2)
    one, other = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 2.0])
    for gradient in np.random.default_rng(0).normal(size=(4, 2)).astype("float32"):
        whole.apply([tf.constant(gradient)], [one])
        for part in (0.25, 1.75):
            parts.apply([tf.constant(part * gradient)], [other])
        assert_close([other, *parts.states[0]], [one, *whole.states[0]])
    assert whole.iterations == parts.iterations == 4


# ---------------------------------------------------------------- learning rates


def moved(**options):
    """Where one step with gradients 3 and -1/2 moves zeros."""
    variable = tf.Variable([0.0, 0.0])
    LearnedOptimizer(lstm(), **options).apply([tf.constant([3.0, -0.5])], [variable])
    return variable


def test_the_learning_rate_multiplies_the_update():
    """It is 1 unless given."""
    rule = lstm()
    update, _ = rule(tf.constant([3.0, -0.5]), rule.initial_state((2,)))
    np.testing.assert_allclose(moved(), update, rtol=1e-5)
    np.testing.assert_allclose(moved(learning_rate=0.25), 0.25 * update, rtol=1e-5)
    assert LearnedOptimizer(lstm()).learning_rate == 1.0


RATES = [0.1, 0.1, 0.02, 0.02, 0.01]


def test_a_schedule_sees_the_steps():
    """A constant gradient of 1: theta falls by the rates of a piecewise constant schedule."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.02, 0.01])
    variable, optimizer = tf.Variable(0.0), LearnedOptimizer(StepSize(1.0), schedule)
    path = [minimise(optimizer, [variable], 1, lambda v: v[0])[0] for _ in RATES]
    np.testing.assert_allclose(path, -np.cumsum(RATES), rtol=1e-5)


def test_a_learning_rate_can_be_assigned_later():
    variable, optimizer = tf.Variable(0.0), LearnedOptimizer(StepSize(1.0))
    one_step = tf.function(lambda: optimizer.apply([tf.constant(1.0)], [variable]))
    for rate in RATES:
        optimizer.learning_rate = rate
        one_step()
    np.testing.assert_allclose(variable, -sum(RATES), rtol=1e-5)


def test_callbacks_change_the_learning_rate():
    """ReduceLROnPlateau halves it after each epoch but the first: the loss stays."""
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model = compiled(LearnedOptimizer(StepSize(1.0), learning_rate=0.2))
    reference = compiled(keras.optimizers.SGD(0.2))
    assert losses(model, 3, [halve]) == pytest.approx(losses(reference, 3, [halve]), rel=1e-5)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.2 / 8)
    model = compiled(LearnedOptimizer(StepSize(0.0)))
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e-4)
    losses(model, 3, [plateau])
    assert float(model.optimizer.learning_rate) == 1 / 4


# ---------------------------------------------------------------- models


def images(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Conv2D(2, 3, activation="tanh"), keras.layers.GlobalMaxPooling2D()]
    return keras.Sequential([keras.Input((4, 4, 1)), *layers])


IMAGES = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype("float32")
TASKS = {"dense": (network, X, Y), "conv": (images, IMAGES, IMAGES[:, :2, 0, 0])}


def by_hand(rule, model, x, y, steps, sign=1, remember=True):
    """The model's weights after theta <- theta + g(gradient, state), step by step."""
    variables = model.trainable_variables
    states = [rule.initial_state(v.shape) for v in variables]
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        for i, gradient in enumerate(tape.gradient(loss, variables)):
            update, state = rule(gradient, states[i])
            variables[i].assign_add(sign * update)
            states[i] = state if remember else states[i]
    return model.get_weights()


@pytest.mark.parametrize("task", TASKS)
def test_a_models_weights_move_by_the_rules_updates(task):
    """eq-update-rule: four steps of ``fit`` are four times theta + g(gradient, state).

    Negative controls: theta - g, and a state that stays the initial one, end elsewhere.
    The rule's own weights stay, and are none of the model's.
    """
    make, x, y = TASKS[task]
    rule = lstm()
    before = rule.get_weights()
    model = compiled(LearnedOptimizer(rule), make())
    model.fit(x, y, batch_size=len(x), epochs=4, verbose=0)
    assert_close(model.get_weights(), by_hand(rule, make(), x, y, 4), rtol=1e-4, atol=1e-5)
    for wrong in (dict(sign=-1), dict(remember=False)):
        assert differ(model.get_weights(), by_hand(rule, make(), x, y, 4, **wrong))
    assert_close(rule.get_weights(), before, rtol=0, atol=0)
    assert len(model.variables) == len(make().variables)


@pytest.mark.parametrize("options", [{}, dict(use_ema=True, ema_momentum=0.5)])
def test_fit_with_a_step_size_is_fit_with_sgd(options):
    model = compiled(LearnedOptimizer(StepSize(0.1), **options))
    reference = compiled(keras.optimizers.SGD(0.1, **options))
    assert losses(model) == pytest.approx(losses(reference), rel=1e-5)
    assert_close(model.get_weights(), reference.get_weights())
    assert differ(model.get_weights(), network().get_weights())


@pytest.mark.parametrize("task", TASKS)
def test_fit_lowers_the_loss_with_a_sensible_step_size(task):
    make, x, y = TASKS[task]
    history = losses(compiled(LearnedOptimizer(StepSize(0.05)), make()), 5, x=x, y=y)
    assert history == sorted(history, reverse=True)


@pytest.mark.parametrize(
    "options",
    [dict(run_eagerly=True), dict(jit_compile=True), dict(steps_per_execution=3)],
    ids=["eager", "compiled", "looped"],
)
def test_eager_compiled_and_looped_steps_are_the_same(run, options):
    model = compiled(LearnedOptimizer(lstm()), **options)
    losses(model)
    assert_close(model.get_weights(), run.weights, rtol=1e-4, atol=1e-5)


def test_steps_in_a_function_are_the_same_as_eager_ones():
    """The function makes the optimizer's variables when it is first called."""
    variables, optimizer = start(), LearnedOptimizer(lstm())
    one_step = tf.function(lambda: step(optimizer, variables))
    for _ in range(4):
        one_step()
    assert_close(variables, minimise(LearnedOptimizer(lstm()), start()))


class Fading(UpdateRule):
    """Adds 1, then 1/2, then 1/4, whatever the gradient: three steps add 7/4."""

    def initial_state(self, shape):
        return (tf.ones(shape),)

    def call(self, gradient, state):
        return state[0], (state[0] / 2,)


@pytest.mark.parametrize("how", ["fit", "fit eagerly", "train_on_batch"])
def test_a_state_may_begin_with_other_values_than_zero(how):
    model = compiled(LearnedOptimizer(Fading()), run_eagerly=how == "fit eagerly")
    before = model.get_weights()
    if how == "train_on_batch":
        for _ in range(3):
            model.train_on_batch(X, Y)
    else:
        losses(model, 1)
    assert_close(model.get_weights(), [w + 7 / 4 for w in before])


@pytest.mark.parametrize("wrap", [tf.function, lambda function: function], ids=["graph", "eager"])
def test_a_state_may_begin_so_in_a_loop_of_ones_own(wrap):
    variable, optimizer = tf.Variable(0.0), LearnedOptimizer(Fading())
    one_step = wrap(lambda: optimizer.apply([tf.constant(1.0)], [variable]))
    for _ in range(3):
        one_step()
    assert variable.numpy() == 7 / 4


def test_frozen_layers_stay():
    model = network()
    model.layers[0].trainable = False
    before = model.get_weights()
    losses(compiled(LearnedOptimizer(StepSize(0.1)), model), 1)
    assert_close(model.get_weights()[:1], before[:1], rtol=0, atol=0)
    assert differ(model.get_weights()[1:], before[1:])
    assert len(model.optimizer.states) == 1


def test_a_second_model_needs_a_second_optimizer():
    optimizer = LearnedOptimizer(StepSize())
    losses(compiled(optimizer), 1)
    with pytest.raises(ValueError, match="recreate a new optimizer"):
        losses(compiled(optimizer), 1)


def test_the_variables_are_the_counter_the_rate_the_rules_and_the_states():
    """An LSTM layer has an output and a memory, each of every coordinate three numbers."""
    optimizer, variables = LearnedOptimizer(lstm(layers=2)), start()
    minimise(optimizer, variables, steps=3)
    assert optimizer.iterations == 3
    states = [s for state in optimizer.states for s in state]
    shapes = [s.shape for s in states]
    assert shapes == 4 * [(2, 3, 3)] + 8 * [(4, 3)] + 4 * [(3,)]
    own = [optimizer.iterations, optimizer.learning_rate, *optimizer.rule.variables, *states]
    assert list(map(id, optimizer.variables)) == list(map(id, own))


WORDS = np.array([[0, 1, 1], [2, 1, 0], [5, 5, 5], [0, 0, 3]])


def embedding(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Embedding(6, 2), keras.layers.Flatten(), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((3,), dtype="int32"), *layers])


@pytest.mark.parametrize("options", [{}, dict(gradient_accumulation_steps=2)])
def test_sparse_gradients_are_as_dense_ones(options):
    """Rows 1 and 5 occur repeatedly, row 4 never: its gradient is 0, its update need not be."""
    results = []
    for dense in (False, True):
        model, optimizer = embedding(), LearnedOptimizer(lstm(), **options)
        for _ in range(4):
            with tf.GradientTape() as tape:
                value = tf.reduce_mean((model(WORDS) - 1.0) ** 2)
            gradients = tape.gradient(value, model.trainable_variables)
            assert isinstance(gradients[0], tf.IndexedSlices)
            if dense:
                gradients = [tf.convert_to_tensor(g) for g in gradients]
            optimizer.apply(gradients, model.trainable_variables)
        results.append(model.get_weights())
    assert_close(*results)
    assert differ([results[0][0][4]], [embedding().get_weights()[0][4]])


def test_embeddings_are_fitted_as_with_sgd():
    optimizer = LearnedOptimizer(StepSize(1.0), learning_rate=0.1, clipnorm=0.1)
    model = compiled(optimizer, embedding())
    reference = compiled(keras.optimizers.SGD(0.1, clipnorm=0.1), embedding())
    for one in (model, reference):
        one.fit(WORDS, tf.ones((4, 1)), epochs=4, verbose=0)
    assert_close(model.get_weights(), reference.get_weights())
    assert differ(model.get_weights(), embedding().get_weights())


# ---------------------------------------------------------------- precisions


@pytest.fixture
def mixed():
    """Mixed precision, as Keras's guide turns it on."""
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


def test_mixed_precision_is_as_with_sgd(mixed):
    """Keras scales the loss and leaves out steps whose gradients overflow."""
    model, reference = (
        compiled(LearnedOptimizer(StepSize(0.1))),
        compiled(keras.optimizers.SGD(0.1)),
    )
    assert losses(model) == pytest.approx(losses(reference), rel=1e-3)
    assert differ(model.get_weights(), network().get_weights())


def test_mixed_precision_with_an_lstm(mixed, tmp_path):
    """Finite float32 weights that move; and saved and loaded it goes on exactly."""
    model = compiled(LearnedOptimizer(lstm(dtype="float32")))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    losses(model)
    weights = model.get_weights()
    assert all(w.dtype == "float32" and np.isfinite(w).all() for w in weights)
    assert differ(weights, network().get_weights())
    model.save(tmp_path / "model.keras")
    assert losses(keras.models.load_model(tmp_path / "model.keras")) == losses(model)


@pytest.mark.parametrize("gradient", [1e-9, 1e6])
def test_a_rule_made_under_mixed_precision_reads_float32_gradients(mixed, gradient):
    """float16 ends at 6e-8 and at 65504; the gradients that come, of float32 weights, do not."""
    variable = tf.Variable(0.0)
    LearnedOptimizer(StepSize(0.5)).apply([tf.constant(gradient)], [variable])
    assert variable.numpy() == pytest.approx(-gradient / 2)


@pytest.mark.parametrize("of_rule, of_model", [("float32", "float64"), ("float64", "float32")])
def test_rule_and_model_of_different_precision(of_rule, of_model):
    """Weights keep their dtype and move as when all is float32; the states have the rule's."""
    rule = lstm(dtype=of_rule)
    rule.set_weights(lstm().get_weights())
    model = network(dtype=of_model)
    model.set_weights(network().get_weights())
    optimizer = LearnedOptimizer(rule)
    found = by_optimizer(optimizer, model)
    assert {w.dtype for w in found} == {np.dtype(of_model)}
    assert {s.dtype for state in optimizer.states for s in state} == {of_rule}
    assert_close(found, by_optimizer(LearnedOptimizer(lstm()), network()), rtol=1e-4, atol=1e-4)


def by_optimizer(optimizer, model, steps=3):
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X) - Y) ** 2)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
    return model.get_weights()


def test_all_in_float64(float64):
    """float64 all the way is more exact than float32: compared with the rule by hand."""
    rule = lstm()
    model = compiled(LearnedOptimizer(rule))
    for _ in range(3):
        model.train_on_batch(X.astype("float64"), Y.astype("float64"))
    expected = by_hand(rule, network(), X.astype("float64"), Y.astype("float64"), 3)
    assert_close(model.get_weights(), expected, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- saving


def test_a_loaded_rule_gives_the_same_updates(tmp_path):
    LearnedOptimizer(lstm()).save(tmp_path / "rule.keras")
    loaded = LearnedOptimizer.load(tmp_path / "rule.keras", learning_rate=0.5, clipvalue=0.1)
    expected = minimise(LearnedOptimizer(lstm(), learning_rate=0.5, clipvalue=0.1), start(), 2)
    assert_close(minimise(loaded, start(), 2), expected, rtol=0, atol=0)
    assert differ(minimise(LearnedOptimizer(lstm()), start(), 2), expected)


def test_a_trained_step_size_is_saved(tmp_path):
    optimizer = LearnedOptimizer(StepSize(0.1))
    optimizer.rule.alpha.assign(0.7)
    optimizer.save(tmp_path / "rule.keras")
    loaded = LearnedOptimizer.load(str(tmp_path / "rule.keras"))
    assert loaded.rule.alpha.numpy() == np.float32(0.7)


def test_a_saved_model_goes_on_exactly(run):
    """As without the interruption; and not as with a new optimizer, whose states are zeros."""
    loaded = keras.models.load_model(run.folder / "model.keras")
    assert loaded.optimizer.iterations == 6
    assert_close(loaded.optimizer.rule.get_weights(), lstm().get_weights(), rtol=0, atol=0)
    states = [s for state in loaded.optimizer.states for s in state]
    assert_close(states, run.states, rtol=0, atol=0)
    assert losses(loaded) == run.continued
    fresh = compiled(LearnedOptimizer(lstm()))
    fresh.set_weights(run.weights)
    assert abs(losses(fresh)[0] - run.continued[0]) > 1e-3


def test_loaded_weights_go_on_exactly(run):
    """They bring the states and the rule's weights with them: another rule is overwritten."""
    model = compiled(LearnedOptimizer(lstm(6)), network(9))
    model.optimizer.build(model.trainable_variables)
    model.load_weights(run.folder / "model.weights.h5")
    assert losses(model) == run.continued
    assert_close(model.optimizer.rule.get_weights(), lstm().get_weights(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@pytest.mark.parametrize("optimizer", [None, "adam"])
def test_weights_that_another_optimizer_wrote_can_be_loaded(optimizer, tmp_path):
    """Keras warns and loads the model's; states are new, and the rule keeps its weights."""
    elsewhere = network(9)
    if optimizer is not None:
        compiled(optimizer, elsewhere).optimizer.build(elsewhere.trainable_variables)
    elsewhere.save_weights(tmp_path / "elsewhere.weights.h5")
    model = compiled(LearnedOptimizer(lstm()))
    model.optimizer.build(model.trainable_variables)
    model.load_weights(tmp_path / "elsewhere.weights.h5")
    assert_close(model.get_weights(), elsewhere.get_weights(), rtol=0, atol=0)
    assert_close(model.optimizer.rule.get_weights(), lstm().get_weights(), rtol=0, atol=0)
    assert not any(np.any(s) for state in model.optimizer.states for s in state)


def test_a_model_saved_before_its_first_step_keeps_the_rule(tmp_path):
    model = compiled(LearnedOptimizer(lstm(seed=5)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer.rule
    assert_close(loaded.get_weights(), lstm(seed=5).get_weights(), rtol=0, atol=0)


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedError


@pytest.fixture(scope="module")
def backup(tmp_path_factory):
    """The folder of a fit's backup, interrupted after two epochs of four."""
    folder = tmp_path_factory.mktemp("backup")
    callback = keras.callbacks.BackupAndRestore(folder)
    with pytest.raises(InterruptedError):
        losses(compiled(LearnedOptimizer(lstm())), 4, [callback, Stop()])
    return folder


@pytest.mark.parametrize("seed", [5, 6])
def test_an_interrupted_fit_goes_on_from_its_backup(run, backup, tmp_path, seed):
    """In a new model, and also with a rule of other weights: the backup restores the rule's."""
    callback = keras.callbacks.BackupAndRestore(shutil.copytree(backup, tmp_path / "backup"))
    model = compiled(LearnedOptimizer(lstm(seed)), network(9))
    assert losses(model, 4, [callback]) == run.continued
    assert_close(model.optimizer.rule.get_weights(), lstm().get_weights(), rtol=0, atol=0)


def test_a_new_process_goes_on_exactly(run, tmp_path):
    """One that imports mlutils, and nothing that made the model."""
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    code = (
        "import mlutils, keras, numpy as np\n"
        f"data = np.load({str(tmp_path / 'data.npz')!r})\n"
        f"model = keras.models.load_model({str(run.folder / 'model.keras')!r})\n"
        "options = dict(batch_size=4, epochs=2, shuffle=False, verbose=0)\n"
        "print(model.fit(data['x'], data['y'], **options).history['loss'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == str(run.continued), result.stderr


COPIES = {
    "get_config": lambda one: LearnedOptimizer.from_config(one.get_config()),
    "optimizers": lambda one: keras.optimizers.deserialize(keras.optimizers.serialize(one)),
    "saving": lambda one: keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(one)
    ),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_by_config_has_all_options_but_new_weights_in_the_rule(how):
    """As a layer's copy has: who wants the rule's weights sets them."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    original = LearnedOptimizer(lstm(p=7.0), schedule, clipnorm=0.5, use_ema=True, name="mine")
    made = COPIES[how](original)
    assert isinstance(made, LearnedOptimizer) and made.rule is not original.rule
    assert made.get_config() == original.get_config()
    assert differ(made.rule.get_weights(), original.rule.get_weights())
    made.rule.set_weights(original.rule.get_weights())
    assert_close(minimise(made, start(), 2), minimise(original, start(), 2), rtol=0, atol=0)


def test_a_clone_of_a_model_has_a_rule_with_new_weights():
    """``clone_model`` copies the optimizer by its config."""
    original = compiled(LearnedOptimizer(lstm(), learning_rate=0.5))
    made = keras.models.clone_model(original).optimizer
    assert made.get_config() == original.optimizer.get_config()
    assert differ(made.rule.get_weights(), original.optimizer.rule.get_weights())


def test_a_deep_copy_keeps_the_rules_weights():
    """Of an optimizer that was not used yet."""
    original = LearnedOptimizer(lstm(), learning_rate=0.5)
    made = copy.deepcopy(original)
    assert made.rule is not original.rule
    assert_close(minimise(made, start(), 2), minimise(original, start(), 2), rtol=0, atol=0)


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: LearnedOptimizer("lstm"), TypeError, "mlutils.UpdateRule, got str"),
        (lambda: LearnedOptimizer(LSTMRule), TypeError, "mlutils.UpdateRule, got type"),
        (lambda: LearnedOptimizer(network()), TypeError, "mlutils.UpdateRule, got Sequential"),
        (lambda: LearnedOptimizer(keras.optimizers.SGD()), TypeError, "got SGD"),
        (lambda: LearnedOptimizer(StepSize(coordinates=3)), ValueError, "has 3 step sizes"),
        (lambda: LearnedOptimizer(StepSize(), learning_rate="fast"), ValueError, "learning_rate"),
        (lambda: LearnedOptimizer(StepSize(), momentum=0.9), ValueError, "momentum"),
        (lambda: LearnedOptimizer(StepSize(), clipnorm=1, clipvalue=1), ValueError, "Only one"),
    ],
)
def test_wrong_optimizer_raises(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_loading_what_is_not_there_raises(tmp_path):
    with pytest.raises(ValueError, match="File not found"):
        LearnedOptimizer.load(tmp_path / "rule.keras")
    (tmp_path / "rule.keras").write_text("no archive")
    with pytest.raises(ValueError, match=r"accessible `\.keras` zip"):
        LearnedOptimizer.load(tmp_path / "rule.keras")


@pytest.mark.parametrize("make", [network, lambda: compiled(LearnedOptimizer(StepSize()))])
def test_loading_something_else_than_a_rule_raises(make, tmp_path):
    make().save(tmp_path / "model.keras")
    with pytest.raises(TypeError, match="UpdateRule, got Sequential"):
        LearnedOptimizer.load(tmp_path / "model.keras")


def test_loading_a_rule_for_one_function_raises(tmp_path):
    StepSize(coordinates=3).save(tmp_path / "rule.keras")
    with pytest.raises(ValueError, match="has 3 step sizes"):
        LearnedOptimizer.load(tmp_path / "rule.keras")
