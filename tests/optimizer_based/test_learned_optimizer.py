"""A rule as a Keras optimizer: by hand, in mixed precision, and through saving."""

import base64
import contextlib
import copy
import json
import marshal
import os
import re
import zipfile

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


class Mine(StepSize):
    """A rule that is not registered."""


def test_loading_what_is_no_rule_raises(tmp_path):
    path = tmp_path / "rule.keras"
    network().save(path)
    with pytest.raises(TypeError, match=f"{re.escape(str(path))} holds Sequential.*UpdateRule"):
        LearnedOptimizer.load(path)
    Mine(0.1).save(path)
    with keras.saving.custom_object_scope({"Mine": Mine}):
        assert isinstance(LearnedOptimizer.load(path).rule, Mine)
    with pytest.raises(TypeError, match=r"holds Mine.*registered"):
        LearnedOptimizer.load(path)
    StepSize(coordinates=3).save(path)
    with pytest.raises(ValueError, match="has 3 step sizes"):
        LearnedOptimizer.load(path)


def assert_refused(path, says="cannot be read as a rule"):
    says = rf"(?s){re.escape(str(path))} {says}.*Allowed is .*\.keras"
    with pytest.raises(ValueError, match=says) as caught:
        LearnedOptimizer.load(path)
    return caught.value


def test_only_a_file_keras_is_loaded(tmp_path):
    """A rule in another format would be read by code that takes no care: not even looked at."""
    path = tmp_path / "rule.keras"
    assert isinstance(assert_refused(path).__cause__, FileNotFoundError)
    path.mkdir()
    assert isinstance(assert_refused(path).__cause__, OSError)
    StepSize(0.1).save(tmp_path / "right.keras")
    for name in ("rule.h5", "rule.hdf5", "rule", "rule.KERAS", "rule.keras.zip"):
        (tmp_path / name).write_bytes((tmp_path / "right.keras").read_bytes())
        assert_refused(tmp_path / name, r"does not end in \.keras")
        assert_refused(str(tmp_path / name), r"does not end in \.keras")


def test_a_damaged_archive_is_refused_with_its_path(tmp_path):
    """Cut off anywhere, with a file missing, or with a byte changed where it matters."""
    path = tmp_path / "rule.keras"
    StepSize(0.1).save(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    damaged = [b"", b"no archive", *(whole[:n] for n in range(1, len(whole), len(whole) // 7))]
    for content in damaged:
        path.write_bytes(content)
        assert_refused(path)
    for name, content in files.items():
        if name != "metadata.json":
            for changed in (None, content[:-9], b"[]", b'{"class_name": 1}'):
                write_archive(path, {**files, name: changed})
                assert_refused(path)
    write_archive(path, files)
    assert isinstance(LearnedOptimizer.load(path).rule, StepSize)


# ---------------------------------------------------------------- hostile files


def write_archive(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)


def calling(function, path, arguments=None, **inputs):
    """Write a model to ``path`` that calls a function when it is made; ``inputs`` are its first."""
    first = {"module": "keras.layers", "class_name": "InputLayer", "name": "first"}
    first["config"] = {"batch_shape": [None, 2], "name": "first"}
    second = {"module": "keras.layers", "class_name": "Lambda", "name": "second"}
    second["config"] = {"name": "second", "function": function, "arguments": arguments or {}}
    nodes = [{"args": [], "kwargs": inputs}]
    ends = {"input_layers": [["first", 0, 0]], "output_layers": [["first", 0, 0]]}
    layers = [{**first, "inbound_nodes": []}, {**second, "inbound_nodes": nodes}]
    config = {"module": "keras.models", "class_name": "Model", "registered_name": "Functional"}
    config["config"] = {"name": "model", "layers": layers, **ends}
    write_archive(path, {"metadata.json": "{}", "config.json": json.dumps(config)})


def with_code(path, mark):
    """A Lambda layer with marshalled code."""
    code = marshal.dumps((lambda folder: __import__("os").mkdir(folder)).__code__)
    code = {"code": base64.b64encode(code).decode(), "defaults": None, "closure": None}
    calling({"class_name": "__lambda__", "config": code}, path, inputs=str(mark))


def with_a_name(path, mark):
    """A Lambda layer with a function of another module (CVE-2025-1550)."""
    function = {"module": os.mkdir.__module__, "class_name": "function", "config": "mkdir"}
    calling({**function, "registered_name": "function"}, path, inputs=str(mark))


def with_a_tool(path, mark):
    """A Lambda layer with a function of Keras that fetches a file (CVE-2025-8747)."""
    function = {"module": "keras.utils", "class_name": "function", "config": "get_file"}
    options = {"origin": path.as_uri(), "cache_dir": str(mark.parent), "cache_subdir": "."}
    calling({**function, "registered_name": "function"}, path, options, inputs=mark.name)


@pytest.mark.parametrize("load", [LearnedOptimizer.load, keras.saving.load_model])
@pytest.mark.parametrize("write", [with_code, with_a_name, with_a_tool])
def test_a_hostile_file_is_refused_and_runs_nothing(write, load, tmp_path):
    """Here nothing of it is made; and the oldest Keras that is allowed refuses it by itself."""
    path, mark = tmp_path / "rule.keras", tmp_path / "mark"
    write(path, mark)
    with pytest.raises((TypeError, ValueError)):
        load(path)
    assert not mark.exists()


def test_the_hostile_files_would_do_harm(tmp_path):
    """Negative control: where Keras is told to trust them, they do."""
    path = tmp_path / "rule.keras"
    for write, options in ((with_code, dict(safe_mode=False)), (with_a_name, {})):
        mark = tmp_path / write.__name__
        write(path, mark)
        names = {"mkdir": os.mkdir} if write is with_a_name else {}
        with keras.saving.custom_object_scope(names), contextlib.suppress(ValueError):
            keras.saving.load_model(path, **options)
        assert mark.is_dir()
