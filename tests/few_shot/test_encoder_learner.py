"""What all learners with an encoder do alike, each test with every one of them."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import (
    MANN,
    ContextTransformer,
    Episode,
    MatchingNetwork,
    PrototypicalNetwork,
    RecurrentLearner,
    RelationNetwork,
    SiameseNetwork,
)
from mlutils.episodes import shape_of
from mlutils.few_shot.encoder_learner import EncoderLearner
from tests.few_shot.tasks import identity, one_task, random_episode


def relation(encoder):
    """With a relation network for the encoder's output; for a wrong encoder, any."""
    _, *rest, features = shape_of(encoder, "output_shape") or [None, 1]
    pair = keras.Input((*rest, 2 * features))
    layers = [keras.layers.Flatten(), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    return RelationNetwork(encoder, keras.Sequential([pair, *layers]))


def matching(encoder):
    return MatchingNetwork(encoder, scale=10.0)


def weighted(encoder):
    return SiameseNetwork(encoder, "weighted")


def recurrent(encoder):
    return RecurrentLearner(encoder, outputs=3, units=4)


def mann(encoder):
    return MANN(encoder, outputs=3, units=4, slots=5, width=3, decay=0.8)


def transformer(encoder):
    return ContextTransformer(encoder, outputs=3, units=4, heads=2, blocks=2)


COMPARING = [PrototypicalNetwork, matching, SiameseNetwork, weighted]
FLATTENING = [*COMPARING, recurrent, mann, transformer]
every = pytest.mark.parametrize("make", [*FLATTENING, relation])
comparing = pytest.mark.parametrize("make", [*COMPARING, relation])


@functools.cache
def clouds(shots=2):
    """A batch of four tasks: three clouds of points in the plane, named anew for each task."""
    random = np.random.default_rng(0)
    x = random.normal(size=(3, 40, 2)) / 2 + np.array([[[2, 0]], [[-2, 0]], [[0, 2]]])
    y = np.repeat([0, 1, 2], 40)
    return next(iter(mlutils.data.episodes(x.reshape(120, 2), y, 3, shots, meta_batch=4)))


def one_at_a_time(learner, inputs):
    """The predictions ``(tasks, Q, outputs)`` by ``adapt``."""
    return np.stack([learner.adapt(x, y)(query_x) for x, y, query_x in zip(*inputs, strict=True)])


# ---------------------------------------------------------------- which examples meet, and where


def embed_tasks_together(self, x):
    """Wrong: all tasks as one batch of the encoder."""
    embeddings = self.encoder(tf.reshape(x, (-1, x.shape[2])), training=False)
    return tf.reshape(embeddings, (x.shape[0], x.shape[1], -1))


@every
def test_a_batch_equals_one_task_at_a_time(float64, monkeypatch, make):
    """Also where the encoder normalises by the examples beside it."""
    layers = [keras.layers.Dense(4), mlutils.BatchNorm(), keras.layers.Dense(3, "tanh")]
    learner = make(keras.Sequential([keras.Input((2,)), *layers]))
    inputs, _ = random_episode(tasks=4).element
    expected = one_at_a_time(learner, inputs)
    assert learner(inputs).shape == (4, 5, 3)
    np.testing.assert_allclose(learner(inputs), expected, atol=1e-12)
    monkeypatch.setattr(EncoderLearner, "embed", embed_tasks_together)
    assert np.abs(learner(inputs) - expected).max() > 1e-2


@every
def test_queries_do_not_see_each_other(float64, make):
    """Alone, again, in any order, each query has the same prediction."""
    learner, task = make(mlutils.mlp(2, (4,), 3)), one_task()
    predict = learner.adapt(task.support_x, task.support_y)
    together = predict(task.query_x)
    for i in (3, 0, 2, 4, 1, 3):
        np.testing.assert_allclose(predict(task.query_x[i : i + 1])[0], together[i], atol=1e-12)
    np.testing.assert_allclose(predict(task.query_x[::-1]), together[::-1], atol=1e-12)


@pytest.mark.parametrize("make", FLATTENING)
def test_embeddings_of_more_axes_are_flattened(make):
    """Not by the relation network, which pairs feature maps channel by channel."""
    image = [keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)]
    learner = make(keras.Sequential(image))
    flat = make(keras.Sequential([*image, keras.layers.Flatten()]))
    flat.set_weights(learner.get_weights())
    x, query_x = np.random.default_rng(0).normal(size=(2, 2, 6, 4, 4, 1)).astype("float32")
    inputs = x, np.array([[0, 1, 2, 0, 1, 2], [2, 1, 1, 0, 2, 1]]), query_x
    assert learner(inputs).shape == (2, 6, 3)
    np.testing.assert_allclose(learner(inputs), flat(inputs), rtol=1e-5, atol=1e-6)


@every
def test_shapes_and_labels_unknown_to_the_graph(make):
    """``evaluate`` and a graph for any numbers agree with one task at a time, eagerly."""
    learner, (inputs, query_y) = make(mlutils.mlp(2, (4,), 3)), clouds()
    expected = one_at_a_time(learner, inputs)
    points, labels = tf.TensorSpec((None, None, 2)), tf.TensorSpec((None, None), tf.int32)
    in_graph = tf.function(lambda *task: learner(task), input_signature=[points, labels, points])
    np.testing.assert_allclose(in_graph(*inputs), expected, rtol=1e-4, atol=1e-5)
    right = np.mean(np.argmax(expected, axis=2) == query_y, axis=1)
    np.testing.assert_allclose(mlutils.evaluate(learner, [clouds()], tasks=4).values, right)


# ---------------------------------------------------------------- Keras citizens


@every
def test_logged_validation_and_hand_computed_loss_agree(make):
    """The objective: minus the log softmax, averaged over all queries of all tasks.

    With an encoder with dropout, which is inert: in fit, and when asked for.
    """
    layers = [*mlutils.mlp(2, (4,), 3).layers, keras.layers.Dropout(0.9)]
    learner = make(keras.Sequential([keras.Input((2,)), *layers]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=keras.optimizers.SGD(0.0), loss=loss)
    inputs, query_y = element = clouds()
    logits = one_at_a_time(learner, inputs)
    np.testing.assert_allclose(learner(inputs, training=True), logits, rtol=1e-4, atol=1e-6)
    log_softmax = logits - np.log(np.sum(np.exp(logits), axis=2, keepdims=True))
    by_hand = -np.mean(np.take_along_axis(log_softmax, query_y.numpy()[..., np.newaxis], axis=2))
    batches = tf.data.Dataset.from_tensors(element)
    history = learner.fit(batches, validation_data=batches, verbose=0).history
    assert history["loss"][0] == pytest.approx(by_hand, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(by_hand, rel=1e-5)
    for episode in (element, Episode.from_element(element)):
        assert float(learner.meta_loss(episode)) == pytest.approx(by_hand, rel=1e-5)


def compiled(learner):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss)
    return learner


@every
def test_saved_and_loaded_learner_goes_on_exactly(tmp_path, make):
    learner, element = compiled(make(mlutils.mlp(2, (4,), 3))), clouds()
    batches = tf.data.Dataset.from_tensors(element).repeat(3)
    learner.fit(batches, verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded) is type(learner)
    assert loaded.get_config().keys() == learner.get_config().keys()
    for _ in range(2):
        np.testing.assert_array_equal(learner(element[0]), loaded(element[0]))
        for one in (learner, loaded):
            one.fit(batches, verbose=0)


@comparing
def test_other_ways_and_shots_than_in_training(make):
    """Where nothing has a fixed number of outputs."""
    learner = compiled(make(mlutils.mlp(2, (4,), 3)))
    learner.fit(*clouds(shots=2), verbose=0)
    for ways, support in ((2, 8), (5, 9)):
        inputs, query_y = random_episode(tasks=4, ways=ways, support=support).element
        inputs = tuple(tf.cast(x, tf.float32) if x.dtype.is_floating else x for x in inputs)
        assert learner(inputs).shape == (4, 5, ways)
        loss = learner.evaluate(inputs, query_y, verbose=0)
        assert loss == pytest.approx(float(learner.meta_loss((inputs, query_y))), rel=1e-5)


@every
def test_adapting_leaves_the_weights_alone(make):
    learner, (inputs, _) = make(mlutils.mlp(2, (4,), 3)), clouds()
    before = learner.get_weights()
    one_at_a_time(learner, inputs)
    learner(inputs)
    for old, new in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# ---------------------------------------------------------------- wrong input


def built(*layers):
    return keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])


@every
@pytest.mark.parametrize(
    "encoder, error, words",
    [
        (lambda: "conv4", TypeError, "encoder must be a keras.Model, got str"),
        (lambda: keras.layers.Dense(2), TypeError, "encoder must be a keras.Model, got Dense"),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), ValueError, "keras.Input"),
        (lambda: built(keras.layers.BatchNormalization()), ValueError, "mlutils.BatchNorm"),
    ],
)
def test_wrong_encoder_raises(make, encoder, error, words):
    with pytest.raises(error, match=words):
        make(encoder())


@every
def test_frozen_batch_normalization_is_allowed(make):
    layer = keras.layers.BatchNormalization()
    layer.trainable = False
    make(built(layer))


@every
@pytest.mark.parametrize(
    "x, y, words",
    [
        ((0, 2), (0,), "at least 1"),
        ((5, 2), (4,), "the same in both"),
        ((), (), "first axis counts"),
        ((5, 3), (5,), r"the model takes \(None, 2\)"),
        ((3, 5, 2), (3, 5), r"the model takes \(None, 2\)"),
        ((5, 2), (5, 1), "support_y has shape"),
        ((5, 2), (5, 3), "support_y has shape"),
    ],
)
def test_wrong_support_set_raises(make, x, y, words):
    with pytest.raises(ValueError, match=words):
        make(identity(2)).adapt(tf.zeros(x), tf.zeros(y, tf.int32))


def predict_eagerly(learner, element):
    learner(element[0])


def predict_in_graph(learner, element):
    mlutils.evaluate(learner, [element], tasks=4)


@every
@pytest.mark.parametrize("predict", [predict_eagerly, predict_in_graph])
def test_tasks_without_support_raise(make, predict):
    with pytest.raises(ValueError, match="at least 1"):
        predict(make(identity(2)), clouds(shots=0))


@every
def test_an_episode_instead_of_its_element_raises(make):
    with pytest.raises(ValueError, match="A learner takes"):
        make(identity(2))(tuple(random_episode()))


@comparing
@pytest.mark.parametrize("labels", [[0.0, 1.0], [True, False]])
def test_labels_that_are_no_integers_raise(make, labels):
    learner = make(identity())
    with pytest.raises(ValueError, match="integer labels"):
        learner.adapt(tf.zeros((2, 1)), tf.constant(labels))
    with pytest.raises(ValueError, match="integer labels"):
        learner((tf.zeros((1, 2, 1)), tf.constant([labels]), tf.zeros((1, 2, 1))))


@comparing
@pytest.mark.parametrize("labels", [[0, 2, 2], [1, 1, 2], [-1, 0, 1], [0, 1, 1]])
def test_a_class_without_examples_raises(make, labels):
    """In a batch, beside a task that has all three; eagerly, and in a graph: ``evaluate`` of the
    package, and Keras's own.  Alone, 0, 1, 1 are two classes."""
    learner = compiled(make(identity()))
    support_x, query_x = tf.zeros((2, 3, 1)), tf.zeros((2, 1, 1))
    inputs = support_x, tf.constant([[0, 1, 2], labels]), query_x
    query_y = tf.constant([[0], [0]])
    with pytest.raises(ValueError, match="every class"):
        learner(inputs)
    with pytest.raises(tf.errors.InvalidArgumentError, match="every class"):
        mlutils.evaluate(learner, [(inputs, query_y)], tasks=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="every class"):
        learner.evaluate(inputs, query_y, verbose=0)
    if labels != [0, 1, 1]:
        with pytest.raises(ValueError, match="every class"):
            learner.adapt(support_x[0], tf.constant(labels))


@comparing
def test_no_prediction_without_a_support_set(make):
    with pytest.raises(NotImplementedError, match="without a support set"):
        make(identity()).unadapted()
