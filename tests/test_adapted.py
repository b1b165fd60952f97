"""``mlutils.adapted``: copies, what is held, and what is taken from bytes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.adapted import AdaptedModel, copy_of


def identity(size=1):
    return keras.Sequential([keras.Input((size,)), keras.layers.Identity()])


def test_maml_by_hand():
    """``y = w x + b`` from 0, one step of .25 on (1, 2): both gradients are 2 (0 - 2) = -4, so both
    weights are 1, and the model is a Keras ``Sequential`` with these."""
    layer = keras.layers.Dense(1, kernel_initializer="zeros")
    learner = mlutils.MAML(keras.Sequential([keras.Input((1,)), layer]), inner_lr=0.25)
    learner.compile(loss="mse")
    model = learner.adapted_model([[1.0]], [[2.0]])
    assert type(model) is keras.Sequential
    assert [w.tolist() for w in model.get_weights()] == [[[1.0]], [1.0]]
    assert [w.tolist() for w in learner.get_weights()] == [[[0.0]], [0.0]]
    more = learner.adapted_model([[1.0]], [[2.0]], steps=0)
    assert [w.tolist() for w in more.get_weights()] == [[[0.0]], [0.0]]


def test_anil_moves_the_head_alone_and_frozen_weights_stay():
    network = mlutils.mlp(1, (4, 3), 1, "tanh")
    network.layers[0].trainable = False
    for learner, moved in (
        (mlutils.ANIL(network, 0.1), [False, False, False, False, True, True]),
        (mlutils.MAML(network, 0.1), [False, False, True, True, True, True]),
    ):
        learner.compile(loss="mse")
        model = learner.adapted_model([[1.0], [0.5]], [[2.0], [-1.0]])
        pairs = zip(network.get_weights(), model.get_weights(), strict=True)
        assert [bool(np.any(a != b)) for a, b in pairs] == moved
        assert [layer.trainable for layer in model.layers] == [False, True, True]


def test_proto_maml_is_its_network_and_a_dense_layer():
    """Of prototypes 0 and 2 without a step: kernel ``2 c``, bias ``- c^2``."""
    layer = keras.layers.Dense(1, kernel_initializer="ones")
    learner = mlutils.ProtoMAML(keras.Sequential([keras.Input((1,)), layer]))
    learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model = learner.adapted_model([[0.0], [2.0]], [0, 1], steps=0)
    kernel, bias = model.layers[-1].get_weights()
    assert kernel.tolist() == [[0.0, 4.0]] and bias.tolist() == [0.0, -4.0]


def test_only_what_answers_need_is_held():
    """Prototypes, not the support set; with an encoder that mixes examples, that too."""
    x, y = np.eye(6, dtype="float32"), [0, 0, 0, 1, 1, 1]
    model = mlutils.PrototypicalNetwork(identity(6)).adapted_model(x, y)
    assert [tuple(w.shape) for w in model.kept] == [(1, 2, 6)]
    assert not any(w.trainable for w in model.kept)
    encoder = keras.Sequential([keras.Input((6,)), mlutils.BatchNorm()])
    model = mlutils.PrototypicalNetwork(encoder).adapted_model(x, y)
    assert [tuple(w.shape) for w in model.kept] == [(1, 2, 6), (6, 6)]


def test_some_keep_every_example():
    """Matching networks its embedding, a learner's own ``adapt`` and a norm the example itself."""
    x, y = np.eye(6, dtype="float32"), [0, 0, 0, 1, 1, 1]
    model = mlutils.MatchingNetwork(identity(6)).adapted_model(x, y)
    assert (6, 6) in [tuple(w.shape[-2:]) for w in model.kept]
    layers = [keras.Input((6,)), mlutils.BatchNorm(), keras.layers.Dense(2)]
    maml = mlutils.MAML(keras.Sequential(layers), 0.1, transductive=False)
    maml.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for learner in (Nearest(), maml):
        kept = learner.adapted_model(x, y).kept
        assert any(w.shape == x.shape and np.array_equal(w, x) for w in kept)


class Nearest(mlutils.MetaLearner):
    """A learner that defines ``adapt`` and nothing else."""

    def adapt(self, support_x, support_y, flip=False):
        def predict(query_x):
            near = tf.argmin(tf.abs(query_x - tf.transpose(support_x)), axis=1)
            return tf.cast(tf.gather(support_y, near)[:, tf.newaxis], query_x.dtype)

        return predict


def test_a_learner_of_ones_own_that_defines_adapt_alone():
    """The support set is held, and adapted to at each call."""
    model = Nearest().adapted_model([[0.0], [5.0]], [3, 7])
    assert model(np.array([[1.0], [4.0]])).numpy().tolist() == [[3.0], [7.0]]
    with pytest.raises(NotImplementedError, match=r"takes? \('flip',\).*define keep and recall"):
        Nearest().adapted_model([[0.0]], [3], flip=True)


def test_bytes_are_divided_by_a_learners_model_and_not_by_a_plain_one():
    """As the docstring of MAML's says; both were adapted to bytes."""
    x = np.array([[0], [255]], "uint8")
    learner = mlutils.PrototypicalNetwork(identity())
    model = learner.adapted_model(x, [0, 1])
    for found in (model(x), model.predict(x, verbose=0), learner.adapt(x, [0, 1])(x)):
        np.testing.assert_allclose(found, [[0.0, -1.0], [-1.0, 0.0]])
    layer = keras.layers.Dense(1, kernel_initializer="ones")
    learner = mlutils.MAML(keras.Sequential([keras.Input((1,)), layer]), inner_lr=0.0)
    learner.compile(loss="mse")
    plain = learner.adapted_model(x, [[0.0], [0.0]])
    np.testing.assert_allclose(learner.adapt(x, [[0.0], [0.0]])(x), [[0.0], [1.0]])
    np.testing.assert_allclose(plain(x), [[0.0], [255.0]])


def test_bytes_are_not_divided_by_what_is_exported(tmp_path):
    """As the docstring says; with the division before it the file gives what the model does."""
    x = np.array([[0], [255]], "uint8")
    model = mlutils.PrototypicalNetwork(identity()).adapted_model(x, [0, 1])
    layers = [keras.Input((1,), dtype="uint8"), keras.layers.Rescaling(1 / 255), model]
    for made, expected in (
        (model, [[0.0, -1.0], [-(255.0**2), -(254.0**2)]]),
        (keras.Sequential(layers), [[0.0, -1.0], [-1.0, 0.0]]),
    ):
        made.export(tmp_path / made.name, verbose=False)
        loaded = tf.saved_model.load(str(tmp_path / made.name))
        np.testing.assert_allclose(loaded.serve(x), expected, atol=1e-6)


class NoConfig(mlutils.PrototypicalNetwork):
    def __init__(self, encoder, needed):
        super().__init__(encoder)
        self.needed = needed


def test_what_cannot_be_copied_says_so():
    with pytest.raises(
        NotImplementedError, match=r"NoConfig cannot be copied.*register.*get_config"
    ):
        NoConfig(identity(), 3).adapted_model([[0.0], [1.0]], [0, 1])


def test_one_network_in_two_places_cannot():
    network = mlutils.mlp(2, (3,), 2)
    learner = mlutils.DescribedPrototypes(network, describer=network)
    with pytest.raises(NotImplementedError, match="not stand in two places"):
        learner.adapted_model(np.eye(2))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, tmp_path):
    """What is kept is in single precision, and so are the predictions."""
    keras.config.set_dtype_policy(policy)
    try:
        learners = (
            mlutils.PrototypicalNetwork(mlutils.mlp(2, (4,), 3)),
            mlutils.MAML(mlutils.mlp(2, (4,), 3), 0.1),
        )
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = np.eye(2, dtype="float32"), np.array([0, 1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for learner in learners:
        learner.compile(loss=loss)
        model = learner.adapted_model(x, y)
        np.testing.assert_allclose(model(x), learner.adapt(x, y)(x), rtol=1e-2, atol=1e-2)
        assert {w.dtype for w in model.weights} == {"float32"}
        model.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(
            keras.saving.load_model(tmp_path / "model.keras")(x), model(x)
        )


def test_copy_of_keeps_values_flags_and_custom_layers():
    network = keras.Sequential(
        [keras.Input((2,)), mlutils.BatchNorm(), keras.layers.Dense(3, trainable=False)]
    )
    copy = copy_of(network)
    assert [w.trainable for w in copy.weights] == [w.trainable for w in network.weights]
    for one, other in zip(copy.weights, network.weights, strict=True):
        assert one is not other
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "shape, seen", [((1, 1, 1), "1, 1, 1"), ((2, 7), "2, 7"), ((1,), "1,"), ((0, 1), "0, 1")]
)
def test_wrong_shape_at_the_door(shape, seen):
    """In words of its own, also of ``predict``; no other message speaks of ``learner((...``."""
    model = mlutils.PrototypicalNetwork(identity()).adapted_model([[0.0], [1.0]], [0, 1])
    assert isinstance(model, AdaptedModel)
    words = rf"inputs .* have shape \({seen}\); allowed is \(n, 1\), at least one of them\.$"
    with pytest.raises(ValueError, match=words):
        model(np.zeros(shape))


@pytest.mark.parametrize("size", [7, 2])
def test_wrong_shape_in_predict(size):
    model = mlutils.PrototypicalNetwork(identity()).adapted_model([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match=r"have shape \(.*\); allowed is \(n, 1\)") as raised:
        model.predict(np.zeros((3, size)), verbose=0)
    assert "learner((" not in str(raised.value)


def test_of_a_network_that_does_not_know_any_inputs_are_allowed_but_none():
    model = Nearest().adapted_model([[0.0], [5.0]], [3, 7])
    for wrong in (np.float32(1), np.zeros((0, 1))):
        with pytest.raises(ValueError, match=r"allowed is \(n, \.\.\.\), at least one"):
            model(wrong)
