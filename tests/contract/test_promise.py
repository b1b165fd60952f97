"""What Keras promises of every model, kept by every learner; and bytes, lists and lone batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import confusion_matrix

import mlutils
from mlutils import Episode
from tests.contract.learners import LEARNERS, compiled, element, every, having, network

CLASSIFIERS = [n for n, r in LEARNERS.items() if r.kind in ("classes", "described")]
classifiers = pytest.mark.parametrize("name", CLASSIFIERS)
TRAINED = ["MAML", "Reptile", "prototypical", "Siamese", "transformer", "DeViSE"]


def test_bytes_mean_the_same_at_every_door(row=LEARNERS["prototypical"]):
    """By adapt and its predictor, call, fit, Keras's and our evaluate, meta_loss: 255 is 1."""
    (x, y, query_x), query_y = element("classes")
    x, query_x = (np.uint8(np.clip(100 + 50 * v, 0, 255)) for v in (x, query_x))
    scaled = x / np.float32(255), y, query_x / np.float32(255)
    learner = compiled(row)
    expected = learner(scaled)
    np.testing.assert_allclose(learner((x, y, query_x)), expected, rtol=1e-5)
    np.testing.assert_allclose(learner.adapt(x[0], y[0])(query_x[0]), expected[0], rtol=1e-5)
    np.testing.assert_allclose(
        learner.predict((x, y, query_x), verbose=0), expected, rtol=1e-4, atol=1e-6
    )
    batches = [((x, y, query_x), query_y), (scaled, query_y)]
    for function in (
        learner.meta_loss,
        lambda batch: learner.evaluate(*batch, verbose=0),
        lambda batch: mlutils.evaluate(learner, [batch], 4).mean,
        lambda batch: learner.fit(*batch, verbose=0).history["loss"][0],
    ):
        weights = learner.get_weights()
        one, other = ((learner.set_weights(weights), function(batch))[1] for batch in batches)
        np.testing.assert_allclose(one, other, rtol=1e-4)
    # Not divided, they would give something else.
    assert np.abs(learner((np.float32(x), y, np.float32(query_x))) - expected).max() > 1e-2


def test_a_network_that_takes_integers_gets_its_bytes():
    tokens = keras.Sequential(
        [keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 3), keras.layers.Flatten()]
    )
    learner = mlutils.PrototypicalNetwork(tokens)
    x, y = np.random.default_rng(0).integers(9, size=(6, 4)), [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(
        learner.adapt(np.uint8(x), y)(np.uint8(x)), learner.adapt(x, y)(x)
    )


@every
def test_lists_and_double_precision_are_taken(row):
    learner = compiled(row)
    inputs, _ = element(row.kind, tasks=2, support=3, queries=2)
    lists = [v.tolist() for v in inputs]
    np.testing.assert_allclose(learner(lists), learner(inputs), rtol=1e-6)
    doubles = [v.astype("float64") if v.dtype == "float32" else v for v in inputs]
    assert learner(doubles).dtype == learner(inputs).dtype


@every
def test_a_single_batched_episode_is_scored_whole(row):
    learner, batch = compiled(row), element(row.kind)
    metric = "log likelihood" if row.loss() is mlutils.gaussian_nll else None
    alone = mlutils.evaluate(learner, Episode.from_element(batch), metric=metric)
    assert alone.tasks == 4
    again = mlutils.evaluate(learner, [batch], 4, metric)
    np.testing.assert_allclose(alone.values, again.values, rtol=1e-6)


@pytest.mark.parametrize("name", ["MAML", "matching", "MANN"])
def test_a_metric_of_ones_own_and_the_confusion_of_classes(name):
    learner, batch = compiled(LEARNERS[name]), element("classes")
    top = keras.metrics.sparse_top_k_categorical_accuracy
    found = mlutils.evaluate(learner, [batch], 4, lambda y, p: top(y, p, k=1))
    accuracy = mlutils.evaluate(learner, [batch], 4)
    np.testing.assert_allclose(found.values, accuracy.values, rtol=1e-6)
    y, predicted = mlutils.predictions(learner, [batch], 3)
    np.testing.assert_array_equal(y, batch[1][:3])
    confusion = confusion_matrix(y.ravel(), predicted.argmax(axis=-1).ravel(), labels=range(3))
    np.testing.assert_allclose(np.trace(confusion) / confusion.sum(), accuracy.values[:3].mean())


@classifiers
def test_one_hot_targets_have_an_accuracy_when_asked(name):
    learner, (inputs, query_y) = compiled(LEARNERS[name]), element(LEARNERS[name].kind)
    vectors = np.eye(3, dtype="float32")[query_y]
    with pytest.raises(ValueError, match="looks one-hot"):
        mlutils.evaluate(learner, [(inputs, vectors)], 4)
    found = mlutils.evaluate(learner, [(inputs, vectors)], 4, "accuracy")
    expected = mlutils.evaluate(learner, [(inputs, query_y)], 4)
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("name", TRAINED)
def test_top_k_metrics(name):
    """Keras's need a number of outputs that is known before the labels are."""
    row = LEARNERS[name]
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")
    learner, batch = compiled(row, metrics=[top, "accuracy"]), element(row.kind)
    data = tf.data.Dataset.from_tensors(batch)
    assert "top" in learner.fit(data, verbose=0).history
    found = learner.evaluate(data, return_dict=True, verbose=0)
    order = np.argsort(-learner(batch[0]).numpy(), axis=-1)
    right = order == batch[1][..., None]
    np.testing.assert_allclose(found["top"], right[..., :2].any(axis=-1).mean(), rtol=1e-6)
    np.testing.assert_allclose(found["accuracy"], right[..., 0].mean(), rtol=1e-6)


@pytest.mark.parametrize("name", ["MAML", "prototypical", "MANN", "MAML, numbers"])
def test_sample_weights_are_of_tasks_or_of_queries(name):
    row = LEARNERS[name]
    learner, (inputs, query_y) = compiled(row), element(row.kind)
    losses = np.stack(
        [
            [learner.task_loss(t, p) for t, p in zip(*task, strict=True)]
            for task in zip(query_y[:, :, None], learner(inputs)[:, :, None], strict=True)
        ]
    )
    random = np.random.default_rng(0)
    for weights in (random.random((4, 1)), random.random((4, 5))):
        given = weights[:, 0] if weights.shape[1] == 1 else weights
        found = learner.evaluate(inputs, query_y, sample_weight=given.astype("float32"), verbose=0)
        np.testing.assert_allclose(found, (losses * weights).mean(), rtol=1e-4)
    with pytest.raises(ValueError, match="sample_weight has shape"):
        learner.evaluate(inputs, query_y, sample_weight=np.ones((4, 3), "float32"), verbose=0)


@pytest.mark.parametrize("name", ["MAML", "prototypical", "transformer", "neural process"])
def test_an_exported_learner_takes_other_sizes(name, tmp_path):
    row = LEARNERS[name]
    learner = compiled(row)
    learner.fit(*element(row.kind), verbose=0)
    learner.export(tmp_path / "saved", verbose=False)
    inputs, _ = element(row.kind, tasks=2, support=9, queries=3, seed=1)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(saved.serve(inputs), learner(inputs), rtol=1e-5, atol=1e-6)


@having("training", "XLA")
def test_a_wrong_label_stops_a_compiled_training_before_its_step(xla, row):
    """Of the support set and of the queries; weights stay numbers (XLA drops assertions)."""
    if row.kind == "numbers":
        pytest.skip("targets are no labels")
    learner = compiled(row, jit_compile=True)
    (x, y, query_x), query_y = element(row.kind)
    before = learner.get_weights()
    for batch in (
        ((x, np.where(y == 2, 5, y), query_x), query_y),
        ((x, y, query_x), np.where(query_y == 2, 3, query_y)),
    ):
        with pytest.raises(ValueError, match=r"label"):
            learner.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
        for old, new in zip(before, learner.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["prototypical", "matching", "relation", "MAML"])
def test_one_way_tasks(name):
    """With a single class there is nothing to tell apart, and nothing to lose."""
    row = LEARNERS[name]
    net = network(outputs=1) if name == "MAML" else network()
    learner = compiled(row, row.make(net))
    (x, y, query_x), query_y = element("classes")
    if name == "MAML":
        with pytest.raises(ValueError, match="one output"):
            learner((x, 0 * y, query_x))
        return
    loss, _ = learner.meta_gradients(((x, 0 * y, query_x), 0 * query_y))
    assert loss == 0


@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_an_encoder_that_loops_is_trained(kind):
    encoder = keras.Sequential([keras.Input((7, 2)), getattr(keras.layers, kind)(3)])
    learner = compiled(LEARNERS["prototypical"], mlutils.PrototypicalNetwork(encoder))
    random = np.random.default_rng(0)
    x, query_x = (random.normal(size=(4, n, 7, 2)).astype("float32") for n in (6, 3))
    y, query_y = np.tile([0, 1, 2, 0, 1, 2], (4, 1)), np.tile([0, 1, 2], (4, 1))
    before = learner.get_weights()
    learner.fit((x, y, query_x), query_y, verbose=0)
    assert all((a != b).any() for a, b in zip(before, learner.get_weights(), strict=True))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", ["MAML", "prototypical", "transformer", "MAML, numbers"])
def test_what_is_no_number_in_a_dataset_stops_the_training(xla, name, jit_compile):
    """In each tensor of floats; before the weights have become NaN.  ReLU would swallow it."""
    row = LEARNERS[name]
    learner = compiled(row, jit_compile=jit_compile)
    before = learner.get_weights()
    for place in range(4):
        (x, y, query_x), query_y = element(row.kind)
        tensors = [x, y, query_x, query_y]
        if tensors[place].dtype.kind == "f":
            tensors[place][1, 0, 0] = np.nan
            data = tf.data.Dataset.from_tensors((tuple(tensors[:3]), tensors[3]))
            with pytest.raises(ValueError, match="finite numbers"):
                learner.fit(data, verbose=0)
    for old, new in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint64"])
@pytest.mark.parametrize("name", ["MAML", "prototypical", "Siamese", "MANN"])
def test_labels_of_any_integers_are_trained_on(name, dtype):
    row = LEARNERS[name]
    (x, y, query_x), query_y = element(row.kind)
    losses = [
        compiled(row, learner, optimizer=keras.optimizers.SGD(0.0))
        .fit((x, y.astype(kind), query_x), query_y.astype(kind), verbose=0)
        .history["loss"][0]
        for learner in [row.make(network())]
        for kind in (dtype, "int32")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_single_batches_meet_the_same_door(row=LEARNERS["prototypical"]):
    learner, (inputs, query_y) = compiled(row), element("classes")
    with pytest.raises(ValueError, match="class_weight is refused"):
        learner.train_on_batch(inputs, query_y, class_weight={0: 0.0, 1: 1.0, 2: 1.0})
    for call in (learner.train_on_batch, learner.test_on_batch):
        with pytest.raises(ValueError, match="labels in query_y run from 1 to 3"):
            call(inputs, query_y + 1)
    logged = learner.test_on_batch(inputs, query_y)
    assert learner.train_on_batch(inputs, query_y) == pytest.approx(logged, rel=1e-5)


def test_a_metric_that_is_no_number_per_task_raises(row=LEARNERS["prototypical"]):
    learner, batch = compiled(row), element("classes")
    for axis in (0, (0, 1)):
        with pytest.raises(ValueError, match="metric gives shape"):
            mlutils.evaluate(
                learner, [batch], 4, lambda y, p, axis=axis: tf.reduce_mean(p[..., 0], axis)
            )


@pytest.mark.parametrize("name", ["MAML", "prototypical"])
def test_a_norm_that_is_unfrozen_later_is_refused(name):
    norm = keras.layers.BatchNormalization(trainable=False)
    learner = LEARNERS[name].make(network(norm))
    compiled(LEARNERS[name], learner)
    norm.trainable = True
    with pytest.raises(ValueError, match="a trainable keras"):
        compiled(LEARNERS[name], learner)


class CallsATracedMethod(keras.layers.Layer):
    """What a user may write: a layer whose ``call`` uses a method that is a ``tf.function``."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3))

    @tf.function
    def product(self, x):
        return x @ self.kernel

    def call(self, x):
        return self.product(x)


@pytest.mark.parametrize("name", ["MAML", "prototypical"])
def test_a_layer_with_a_traced_method_is_refused(name):
    with pytest.raises(ValueError, match="traced with"):
        LEARNERS[name].make(network(CallsATracedMethod()))
