"""A rule as a Keras optimizer: by hand, in mixed precision, and through saving."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils import LearnedOptimizer, LSTMRule, StepSize, UpdateRule

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


def losses(model, epochs=2):
    """The losses of epochs of three steps, always in the same order."""
    options = dict(batch_size=4, shuffle=False, verbose=0)
    return model.fit(X, Y, epochs=epochs, **options).history["loss"]


def assert_close(found, expected, rtol=1e-5, atol=1e-6):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def assert_same(found, expected):
    assert_close(found, expected, rtol=0, atol=0)


def differ(found, expected):
    return max(np.max(np.abs(a - b)) for a, b in zip(found, expected, strict=True)) > 1e-3


# ---------------------------------------------------------------- without a model


def start():
    """A matrix, two vectors of the same shape and a scalar."""
    random, shapes = np.random.default_rng(1), [(2, 3), (4,), (4,), ()]
    return [tf.Variable(random.normal(size=shape), dtype="float32") for shape in shapes]


def minimise(optimizer, variables, steps=2):
    """The sum over coordinates, with another curvature in each variable."""
    for _ in range(steps):
        with tf.GradientTape() as tape:
            terms = [i * tf.reduce_sum(v**2 + tf.sin(3 * v)) for i, v in enumerate(variables, 1)]
            value = tf.add_n(terms)
        optimizer.apply(tape.gradient(value, variables), variables)
    return [v.numpy() for v in variables]


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_variable_without_a_gradient_stays_and_so_does_its_state():
    optimizer, variables = LearnedOptimizer(lstm()), start()
    minimise(optimizer, variables)
    kept = [variables[1].numpy(), *(s.numpy() for s in optimizer.states[1])]
    optimizer.apply([tf.ones((2, 3)), None, tf.ones(4), tf.ones(())], variables)
    assert_same([variables[1], *optimizer.states[1]], kept)
    assert optimizer.iterations == 3


def test_the_rule_and_the_learning_rate_can_be_changed_later():
    variable, optimizer = tf.Variable(1.0), LearnedOptimizer(StepSize(0.0))
    one_step = tf.function(lambda: optimizer.apply([tf.constant(1.0)], [variable]))
    for alpha, rate, expected in [(0.0, 1.0, 1.0), (0.25, 1.0, 0.75), (0.25, 2.0, 0.25)]:
        optimizer.rule.alpha.assign(alpha)
        optimizer.learning_rate = rate
        one_step()
        assert variable.numpy() == expected


class Fading(UpdateRule):
    """Adds 1, then 1/2, then 1/4, whatever the gradient: three steps add 7/4."""

    def initial_state(self, shape):
        return (tf.ones(shape),)

    def call(self, gradient, state):
        return state[0], (state[0] / 2,)


@pytest.mark.parametrize("options", [{}, dict(run_eagerly=True), dict(jit_compile=True)])
def test_a_state_may_begin_with_other_values_than_zero(options):
    """``fit`` makes it within a graph, which may be XLA's."""
    model = compiled(LearnedOptimizer(Fading()), **options)
    before = model.get_weights()
    losses(model, 1)
    assert_close(model.get_weights(), [w + 7 / 4 for w in before])


def test_the_variables_are_the_counter_the_rate_the_rules_and_the_states():
    """An LSTM layer has an output and a memory, each of every coordinate three numbers."""
    optimizer = LearnedOptimizer(lstm(layers=2))
    minimise(optimizer, start())
    states = [s for state in optimizer.states for s in state]
    shapes = [s.shape for s in states]
    assert shapes == 4 * [(2, 3, 3)] + 8 * [(4, 3)] + 4 * [(3,)]
    own = [optimizer.iterations, optimizer.learning_rate, *optimizer.rule.variables, *states]
    assert list(map(id, optimizer.variables)) == list(map(id, own))


# ---------------------------------------------------------------- models


def by_hand(rule, rate, sign=1, remember=True):
    """The model's weights after four times theta + rate * g(gradient, state)."""
    model = network()
    variables = model.trainable_variables
    states = [rule.initial_state(v.shape) for v in variables]
    for _ in range(4):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X) - Y) ** 2)
        for i, gradient in enumerate(tape.gradient(loss, variables)):
            update, state = rule(gradient, states[i])
            variables[i].assign_add(sign * rate * update)
            states[i] = state if remember else states[i]
    return model.get_weights()


@pytest.mark.parametrize("options, rate", [({}, 1.0), (dict(learning_rate=0.5), 0.5)])
def test_a_models_weights_move_by_the_rules_updates(options, rate):
    """eq-update-rule: four steps of ``fit`` are four times theta + rate * g(gradient, state).

    Negative controls: theta - g, and a state that stays the initial one, end elsewhere.
    The rule's own weights stay, and are none of the model's.
    """
    rule = lstm()
    before = rule.get_weights()
    model = compiled(LearnedOptimizer(rule, **options))
    model.fit(X, Y, batch_size=len(X), epochs=4, verbose=0)
    assert_close(model.get_weights(), by_hand(rule, rate), rtol=1e-4, atol=1e-5)
    for wrong in (dict(sign=-1), dict(remember=False)):
        assert differ(model.get_weights(), by_hand(rule, rate, **wrong))
    assert_same(rule.get_weights(), before)
    assert len(model.variables) == len(network().variables)


def test_sparse_gradients_are_as_dense_ones():
    """Row 2 occurs twice, row 1 never: its gradient is 0, its update need not be."""
    values, rows = tf.constant([[1.0, -2.0], [0.5, 3.0], [4.0, -1.0]]), tf.constant([2, 0, 2])
    sparse = tf.IndexedSlices(values, rows, dense_shape=tf.constant([3, 2]))
    moved = []
    for gradient in (sparse, tf.convert_to_tensor(sparse)):
        variable, optimizer = tf.Variable(tf.zeros((3, 2))), LearnedOptimizer(lstm())
        for _ in range(2):
            optimizer.apply([gradient], [variable])
        moved.append(variable.numpy())
    assert_close([moved[0]], [moved[1]])
    assert differ([moved[0][1]], [np.zeros(2)])


# ---------------------------------------------------------------- precisions


@pytest.fixture
def mixed():
    """Mixed precision, as Keras's guide turns it on."""
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


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


# ---------------------------------------------------------------- saving


def test_a_loaded_optimizer_has_the_trained_rule_and_the_options(tmp_path):
    optimizer = LearnedOptimizer(StepSize(0.1))
    optimizer.rule.alpha.assign(0.75)
    optimizer.save(tmp_path / "rule.keras")
    loaded = LearnedOptimizer.load(str(tmp_path / "rule.keras"), learning_rate=0.5, clipvalue=1.0)
    variable = tf.Variable(0.0)
    loaded.apply([tf.constant(8.0)], [variable])
    assert variable.numpy() == -0.5 * 0.75 * 1.0


def test_loaded_weights_go_on_exactly(tmp_path):
    """They bring the states and the rule's weights with them: another rule is overwritten.

    Negative control: a new optimizer, whose states are zeros, goes on otherwise.
    """
    model, loaded, fresh = (
        compiled(LearnedOptimizer(lstm(seed)), network(seed)) for seed in (5, 6, 5)
    )
    losses(model)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh.set_weights(model.get_weights())
    loaded.optimizer.build(loaded.trainable_variables)
    loaded.load_weights(tmp_path / "model.weights.h5")
    continued = losses(model)
    assert losses(loaded) == continued
    assert_same(loaded.optimizer.rule.get_weights(), lstm().get_weights())
    assert abs(losses(fresh)[0] - continued[0]) > 1e-3


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
    assert_same(model.get_weights(), elsewhere.get_weights())
    assert_same(model.optimizer.rule.get_weights(), lstm().get_weights())
    assert not any(np.any(s) for state in model.optimizer.states for s in state)


def test_a_model_saved_before_its_first_step_keeps_the_rule(tmp_path):
    compiled(LearnedOptimizer(lstm())).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer.rule
    assert_same(loaded.get_weights(), lstm().get_weights())


def test_a_copy_by_config_has_all_options_but_new_weights_in_the_rule():
    """As a layer's copy has: who wants the rule's weights sets them.  A deep copy keeps them."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    original = LearnedOptimizer(lstm(p=7.0), schedule, clipnorm=0.5, use_ema=True, name="mine")
    made = keras.optimizers.deserialize(keras.optimizers.serialize(original))
    assert isinstance(made, LearnedOptimizer) and made.rule is not original.rule
    assert made.get_config() == original.get_config()
    assert differ(made.rule.get_weights(), original.rule.get_weights())
    made.rule.set_weights(original.rule.get_weights())
    deep = copy.deepcopy(original)
    assert deep.rule is not original.rule
    found = [minimise(one, start()) for one in (original, made, deep)]
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


def test_loading_what_is_no_rule_raises(tmp_path):
    path = tmp_path / "rule.keras"
    with pytest.raises(ValueError, match="File not found"):
        LearnedOptimizer.load(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match=r"accessible `\.keras` zip"):
        LearnedOptimizer.load(path)
    network().save(path)
    with pytest.raises(TypeError, match="UpdateRule, got Sequential"):
        LearnedOptimizer.load(path)
    StepSize(coordinates=3).save(path)
    with pytest.raises(ValueError, match="has 3 step sizes"):
        LearnedOptimizer.load(path)
