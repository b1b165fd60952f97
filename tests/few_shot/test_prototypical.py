"""Prototypical networks: the equations by hand, by plain loops, and beside wrong versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import Episode, PrototypicalNetwork
from mlutils.few_shot import prototypical
from mlutils.few_shot.prototypical import class_means, minus_squared_distances
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def identity(size=1):
    """An encoder whose embeddings are its inputs."""
    return keras.Sequential([keras.Input((size,)), keras.layers.Identity()])


def tanh_encoder():
    return mlutils.mlp(input_size=2, hidden=(4,), outputs=3, activation="tanh")


def classifier(encoder, optimizer="sgd"):
    learner = PrototypicalNetwork(encoder)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=optimizer, loss=loss)
    return learner


def random_labels(random, ways, support, tasks=()):
    """Labels with every class, of unequal sizes, in an order that differs between tasks."""
    sizes = np.arange(ways) + 1
    sizes[-1] += support - sizes.sum()
    labels = np.broadcast_to(np.repeat(np.arange(ways), sizes), (*tasks, support))
    return random.permuted(labels, axis=-1)


def random_episode(tasks=3, ways=3, support=8, queries=5, seed=0):
    random = np.random.default_rng(seed)
    return Episode(
        tf.constant(random.normal(size=(tasks, support, 2))),
        tf.constant(random_labels(random, ways, support, (tasks,))),
        tf.constant(random.normal(size=(tasks, queries, 2))),
        tf.constant(random.integers(0, ways, size=(tasks, queries))),
    )


def one_task(**options):
    return Episode(*(value[0] for value in random_episode(**options)))


# ---------------------------------------------------------------- values derived by hand


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_pocket_numbers(order, dtype):
    """eq-prototype and eq-prototype-logits on a line: 0 and 2 of class 0, 10 of class 1.

    c_0 = (0 + 2) / 2 = 1 and c_1 = 10.  Query 4: -(4 - 1)^2 = -9 and -(4 - 10)^2 = -36.
    Query 7: -(7 - 1)^2 = -36 and -(7 - 10)^2 = -9.
    """
    support_x = tf.gather([[0.0], [2.0], [10.0]], order)
    support_y = tf.cast(tf.gather([0, 0, 1], order), dtype)
    predict = PrototypicalNetwork(identity()).adapt(support_x, support_y)
    np.testing.assert_array_equal(predict(tf.constant([[4.0], [7.0]])), [[-9, -36], [-36, -9]])


def test_squares_add_up_over_features():
    """eq-prototype-logits in the plane: from (0, 0) to (3, 4) and (1, 0), -25 and -1."""
    predict = PrototypicalNetwork(identity(2)).adapt([[1.0, 0.0], [3.0, 4.0]], [1, 0])
    np.testing.assert_array_equal(predict(tf.zeros((1, 2))), [[-25, -1]])


def test_the_distance_is_between_embeddings():
    """With the encoder z = 3 x, all distances of the line are three times as long."""
    encoder = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    encoder.set_weights([np.array([[3.0]])])
    predict = PrototypicalNetwork(encoder).adapt([[0.0], [2.0], [10.0]], [0, 0, 1])
    np.testing.assert_allclose(predict(tf.constant([[4.0]])), [[-81, -324]], rtol=1e-6)


# ---------------------------------------------------------------- plain loops


def loop_prototypes(embeddings, labels, ways):
    """eq-prototype for one task, in plain Python."""
    prototypes = []
    for n in range(ways):
        members = [z for z, label in zip(embeddings, labels, strict=True) if label == n]
        prototypes.append(sum(members) / len(members))
    return np.array(prototypes)


def loop_logits(queries, prototypes):
    """eq-prototype-logits for one task, in plain Python."""
    return np.array([[-sum((z - c) ** 2) for c in prototypes] for z in queries])


@pytest.mark.parametrize("tasks", [(), (3,), (2, 3)])
def test_plain_loop(tasks):
    """eq-prototype and eq-prototype-logits with no, one and two axes of tasks in front."""
    random = np.random.default_rng(0)
    ways, support, features = 4, 13, 5
    embeddings = random.normal(size=(*tasks, support, features))
    queries = random.normal(size=(*tasks, 6, features))
    labels = random_labels(random, ways, support, tasks)
    prototypes = class_means(tf.constant(embeddings), tf.constant(labels), ways)
    logits = minus_squared_distances(tf.constant(queries), prototypes)
    assert logits.shape == (*tasks, 6, ways)
    for task in np.ndindex(tasks):
        by_loop = loop_prototypes(embeddings[task], labels[task], ways)
        np.testing.assert_allclose(prototypes[task], by_loop, atol=1e-12)
        np.testing.assert_allclose(logits[task], loop_logits(queries[task], by_loop), atol=1e-12)


def test_a_batch_equals_one_task_at_a_time(float64):
    learner = PrototypicalNetwork(tanh_encoder())
    episode = random_episode(tasks=4)
    together = learner(episode.element[0])
    assert together.shape == (4, 5, 3)
    for task in range(4):
        predict = learner.adapt(episode.support_x[task], episode.support_y[task])
        np.testing.assert_allclose(together[task], predict(episode.query_x[task]), atol=1e-12)


# ---------------------------------------------------------------- what the equations imply


def spread_over_classes(logits, queries, prototypes):
    """How far ``logit - (2 c . z - |c|^2)`` is from being the same for all classes."""
    linear = 2 * queries @ prototypes.T - np.sum(prototypes**2, axis=1)
    return float(np.max(np.ptp(logits - linear, axis=1)))


def test_a_linear_classifier_on_the_embedding(float64):
    """eq-prototype-logits: -|z - c|^2 = 2 c . z - |c|^2 - |z|^2, whose last term is no class's.

    Negative control: the distance without its square is not linear (museum of bugs, 10).
    """
    learner, task = PrototypicalNetwork(tanh_encoder()), one_task()
    logits = learner.adapt(task.support_x, task.support_y)(task.query_x).numpy()
    queries = learner.embed(task.query_x).numpy()
    prototypes = loop_prototypes(learner.embed(task.support_x).numpy(), task.support_y.numpy(), 3)
    assert spread_over_classes(logits, queries, prototypes) < 1e-12
    assert spread_over_classes(-np.sqrt(-logits), queries, prototypes) > 0.1


def test_one_shot_is_the_nearest_neighbour(float64):
    learner = PrototypicalNetwork(tanh_encoder())
    task = one_task(queries=50)
    support_x, support_y = task.support_x[:5], tf.constant([3, 0, 4, 1, 2])
    found = np.argmax(learner.adapt(support_x, support_y)(task.query_x), axis=1)
    for query, label in zip(learner.embed(task.query_x), found, strict=True):
        distances = np.linalg.norm(learner.embed(support_x) - query, axis=1)
        assert label == support_y[np.argmin(distances)]
    assert len(set(found)) > 1


def test_the_order_of_the_support_set_does_not_matter(float64):
    """eq-prototype is a mean.  Negative control: moving the inputs without their labels."""
    learner, task = PrototypicalNetwork(tanh_encoder()), one_task()
    order = np.random.default_rng(1).permutation(8)
    support_x, support_y = tf.gather(task.support_x, order), tf.gather(task.support_y, order)
    before = learner.adapt(task.support_x, task.support_y)(task.query_x)
    np.testing.assert_allclose(learner.adapt(support_x, support_y)(task.query_x), before)
    assert np.abs(learner.adapt(support_x, task.support_y)(task.query_x) - before).max() > 1e-2


def test_renaming_the_classes_renames_the_logits(float64):
    learner, task = PrototypicalNetwork(tanh_encoder()), one_task()
    before = learner.adapt(task.support_x, task.support_y)(task.query_x).numpy()
    names = [2, 0, 1]  # class 0 is now called 2
    after = learner.adapt(task.support_x, tf.gather(names, task.support_y))(task.query_x)
    np.testing.assert_allclose(after.numpy()[:, names], before, atol=1e-12)
    assert np.abs(after - before).max() > 1e-2


def test_a_lone_query_predicts_as_in_its_batch(float64):
    learner, task = PrototypicalNetwork(tanh_encoder()), one_task()
    predict = learner.adapt(task.support_x, task.support_y)
    together = predict(task.query_x)
    for i in range(5):
        np.testing.assert_allclose(predict(task.query_x[i : i + 1])[0], together[i], atol=1e-12)


def test_embeddings_of_more_axes_are_flattened():
    """A distance per channel or place would have more axes, or be another number."""
    image = [keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)]
    encoder = keras.Sequential(image)
    flat = keras.Sequential([*image, keras.layers.Flatten()])
    flat.set_weights(encoder.get_weights())
    random = np.random.default_rng(0)
    x, query_x = random.normal(size=(2, 2, 6, 4, 4, 1)).astype("float32")
    inputs = x, np.array([[0, 1, 2, 0, 1, 2], [2, 1, 1, 0, 2, 1]]), query_x
    logits = PrototypicalNetwork(encoder)(inputs)
    assert logits.shape == (2, 6, 3)
    np.testing.assert_allclose(logits, PrototypicalNetwork(flat)(inputs), rtol=1e-6)


# ---------------------------------------------------------------- finite differences


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-prototype-logits and both its embeddings, of queries and of prototypes."""
    learner, episode = classifier(tanh_encoder()), random_episode()
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    _, gradients = learner.meta_gradients(episode)
    assert relative_error(flatten(gradients), reference) < RELATIVE_TOLERANCE


WRONG_MEANS = {
    "no gradient through the prototypes": lambda embeddings, labels, ways: tf.stop_gradient(
        class_means(embeddings, labels, ways)
    ),
    "sums of classes over the whole support set": lambda embeddings, labels, ways: (
        tf.matmul(tf.one_hot(labels, ways, dtype=embeddings.dtype), embeddings, transpose_a=True)
        / tf.cast(tf.shape(embeddings)[-2], embeddings.dtype)
    ),
}


@pytest.mark.parametrize("wrong", WRONG_MEANS)
def test_wrong_prototypes_fail_the_check(float64, monkeypatch, wrong):
    """Negative controls of eq-prototype."""
    learner, episode = classifier(tanh_encoder()), random_episode()
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    monkeypatch.setattr(prototypical, "class_means", WRONG_MEANS[wrong])
    _, gradients = learner.meta_gradients(episode)
    assert relative_error(flatten(gradients), reference) > 1e-2


# ---------------------------------------------------------------- a Keras citizen


def blobs(ways=3, shots=2, seed=0, **options):
    """Tasks from twenty classes: two inputs tell them apart, six more are noise."""
    random = np.random.default_rng(seed)
    centres = np.pad(2 * random.normal(size=(20, 1, 2)), ((0, 0), (0, 0), (0, 6)))
    x = centres + random.normal(size=(20, 30, 8)) * np.repeat([0.3, 3.0], [2, 6])
    return mlutils.data.episodes(
        x.reshape(600, 8), np.repeat(np.arange(20), 30), ways, shots, seed=seed, **options
    )


def test_logged_validation_and_hand_computed_loss_agree():
    """eq-prototype-logits in the objective: minus the log softmax, averaged over all queries."""
    learner = classifier(mlutils.mlp(8, (4,), 2), keras.optimizers.SGD(0.0))
    batches = blobs(meta_batch=4)
    episode = Episode.from_element(next(iter(batches)))
    by_hand = []
    for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
        prototypes = loop_prototypes(learner.embed(support_x).numpy(), support_y.numpy(), 3)
        logits = loop_logits(learner.embed(query_x).numpy(), prototypes)
        log_softmax = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
        by_hand.extend(-log_softmax[np.arange(len(logits)), query_y.numpy()])
    by_hand = np.mean(by_hand)
    history = learner.fit(
        batches, steps_per_epoch=1, validation_data=batches, validation_steps=1, verbose=0
    ).history
    assert history["loss"][0] == pytest.approx(by_hand, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(by_hand, rel=1e-5)
    assert float(learner.meta_loss(episode)) == pytest.approx(by_hand, rel=1e-5)


def test_fit_learns_which_inputs_matter():
    """On new classes, with its 95 % interval; distances between the inputs know no better."""
    learner = classifier(mlutils.mlp(8, (16,), 2), keras.optimizers.Adam(1e-2))
    new = blobs(seed=1)
    before = mlutils.evaluate(learner, new)
    learner.fit(blobs(), steps_per_epoch=300, verbose=0)
    after = mlutils.evaluate(learner, new)
    for worse in (before, mlutils.evaluate(PrototypicalNetwork(identity(8)), new)):
        difference = mlutils.Score(after.values - worse.values)
        assert difference.mean > 0.1 + difference.ci95


def test_other_ways_and_shots_than_in_training():
    learner = classifier(mlutils.mlp(8, (4,), 2))
    learner.fit(blobs(ways=2, shots=2, meta_batch=4), steps_per_epoch=2, verbose=0)
    for ways, shots in ((5, 1), (3, 4)):
        batches = blobs(ways, shots, meta_batch=4)
        loss = learner.evaluate(batches, steps=1, verbose=0)
        element = next(iter(batches))
        assert learner(element[0]).shape == (4, 5 * ways, ways)
        assert loss == pytest.approx(float(learner.meta_loss(element)), rel=1e-5)


def test_label_values_unknown_to_the_graph():
    """``evaluate`` and a graph for any shape agree with one task at a time, eagerly."""
    learner = classifier(mlutils.mlp(8, (4,), 2))
    batches = blobs(meta_batch=4)
    inputs, query_y = next(iter(batches))
    by_hand = [learner.adapt(x, y)(query) for x, y, query in zip(*inputs, strict=True)]
    any_shape = [
        tf.TensorSpec((None, None, 8)),
        tf.TensorSpec((None, None), tf.int32),
        tf.TensorSpec((None, None, 8)),
    ]
    in_graph = tf.function(lambda *task: learner(task), input_signature=any_shape)
    np.testing.assert_allclose(in_graph(*inputs), by_hand, rtol=1e-4, atol=1e-5)
    right = np.mean(np.argmax(by_hand, axis=2) == query_y, axis=1)
    np.testing.assert_allclose(mlutils.evaluate(learner, batches, tasks=4).values, right)


def test_ways_may_be_told():
    """As ``evaluate(..., ways=3)`` does; they are the same that the labels tell."""
    learner, task = PrototypicalNetwork(mlutils.mlp(8, (4,), 2)), next(iter(blobs()))[0]
    np.testing.assert_allclose(learner(task, ways=3), learner(task))


def test_a_convolutional_encoder_with_norm():
    """fit lowers the loss of conv4 on images of a bright row or column."""
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 20, 8, 8, 1)) / 4
    for i in range(4):
        x[i, :, 2 * i] += 1
        x[4 + i, :, :, 2 * i] += 1
    batches = mlutils.data.episodes(
        x.reshape(160, 8, 8, 1), np.repeat(np.arange(8), 20), ways=3, shots=2, meta_batch=4
    )
    encoder = mlutils.conv4((8, 8, 1), filters=4, downsample="stride", norm=True)
    learner = classifier(encoder, keras.optimizers.Adam(1e-2))
    losses = learner.fit(batches, epochs=3, steps_per_epoch=15, verbose=0).history["loss"]
    assert losses[2] < 0.5 * losses[0]


def test_saved_and_loaded_learner_goes_on_exactly(tmp_path):
    batches = blobs()
    learner = classifier(mlutils.mlp(8, (4,), 2), keras.optimizers.Adam(1e-2))
    learner.fit(batches, steps_per_epoch=3, verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    inputs, _ = next(iter(batches))
    np.testing.assert_array_equal(learner(inputs), loaded(inputs))
    for one in (learner, loaded):
        one.fit(batches, steps_per_epoch=3, verbose=0)
    np.testing.assert_array_equal(learner(inputs), loaded(inputs))


def test_dropout_is_inert():
    encoder = keras.Sequential([*mlutils.mlp(8, (4,), 2).layers, keras.layers.Dropout(0.9)])
    encoder.build((None, 8))
    learner = classifier(encoder, keras.optimizers.SGD(0.0))
    element = next(iter(blobs()))
    loss = float(learner.meta_loss(element))
    assert learner.fit(*element, verbose=0).history["loss"][0] == pytest.approx(loss, rel=1e-5)
    np.testing.assert_array_equal(learner(element[0], training=True), learner(element[0]))


def test_adapting_leaves_the_encoder_alone():
    learner, task = PrototypicalNetwork(tanh_encoder()), one_task()
    before = learner.get_weights()
    learner.adapt(tf.cast(task.support_x, tf.float32), task.support_y)
    for old, new in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# ---------------------------------------------------------------- wrong input


def built(*layers):
    return keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])


@pytest.mark.parametrize(
    "encoder, error, words",
    [
        (lambda: "conv4", TypeError, "encoder must be a keras.Model, got str"),
        (lambda: keras.layers.Dense(2), TypeError, "encoder must be a keras.Model, got Dense"),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), ValueError, "keras.Input"),
        (lambda: built(keras.layers.BatchNormalization()), ValueError, "mlutils.BatchNorm"),
    ],
)
def test_wrong_encoder_raises(encoder, error, words):
    with pytest.raises(error, match=words):
        PrototypicalNetwork(encoder())


def test_frozen_batch_normalization_is_allowed():
    layer = keras.layers.BatchNormalization()
    layer.trainable = False
    PrototypicalNetwork(built(layer))


@pytest.mark.parametrize(
    "shapes, words",
    [
        (((0, 2), (0,)), "at least 1"),
        (((5, 2), (4,)), "the same in both"),
        (((), ()), "first axis counts"),
        (((5, 3), (5,)), r"the model takes \(None, 2\)"),
        (((3, 5, 2), (3, 5)), r"the model takes \(None, 2\)"),
        (((5, 2), (5, 1)), "support_y"),
        (((5, 2), (5, 3)), "support_y"),
    ],
)
def test_wrong_support_set_raises(shapes, words):
    x, y = shapes
    with pytest.raises(ValueError, match=words):
        PrototypicalNetwork(identity(2)).adapt(tf.zeros(x), tf.zeros(y, tf.int32))


@pytest.mark.parametrize("labels", [[0.0, 1.0], [True, False]])
def test_labels_that_are_no_integers_raise(labels):
    learner = PrototypicalNetwork(identity())
    with pytest.raises(ValueError, match="integer labels"):
        learner.adapt(tf.zeros((2, 1)), tf.constant(labels))
    with pytest.raises(ValueError, match="integer labels"):
        learner((tf.zeros((1, 2, 1)), tf.constant([labels]), tf.zeros((1, 2, 1))))


MISSING = [[0, 2, 2], [1, 1, 2], [-1, 0, 1]]


@pytest.mark.parametrize("options", [{}, dict(ways=3)])
@pytest.mark.parametrize("labels", MISSING)
def test_a_class_without_examples_raises(labels, options):
    with pytest.raises(ValueError, match="every class"):
        PrototypicalNetwork(identity()).adapt(tf.zeros((3, 1)), tf.constant(labels), **options)


def test_fewer_ways_than_the_labels_have_raise():
    """Else the examples of the others were left out without a word."""
    with pytest.raises(ValueError, match="label"):
        PrototypicalNetwork(identity()).adapt(tf.zeros((3, 1)), tf.constant([0, 1, 2]), ways=2)


def batch_of(labels):
    """Two tasks on a line: one with the classes 0, 1 and 2, and one with these labels."""
    support_x, query_x = tf.zeros((2, 3, 1)), tf.zeros((2, 1, 1))
    return (support_x, tf.constant([[0, 1, 2], labels]), query_x), tf.constant([[0], [0]])


@pytest.mark.parametrize("labels", [*MISSING, [0, 1, 1]])
def test_a_task_of_a_batch_without_all_its_classes_raises(labels):
    inputs, _ = batch_of(labels)
    with pytest.raises(ValueError, match="every class"):
        PrototypicalNetwork(identity())(inputs)


@pytest.mark.parametrize("labels", [[0, 1, 1], [-1, 0, 1]])
def test_labels_are_checked_in_graphs_too(labels):
    """``evaluate`` of the package, and Keras's own."""
    learner, element = classifier(identity()), batch_of(labels)
    with pytest.raises(tf.errors.InvalidArgumentError, match="every class"):
        mlutils.evaluate(learner, [element], tasks=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="every class"):
        learner.evaluate(*element, verbose=0)


def predict_eagerly(learner, batches):
    learner(next(iter(batches))[0])


def predict_in_graph(learner, batches):
    mlutils.evaluate(learner, batches, tasks=16)


@pytest.mark.parametrize("predict", [predict_eagerly, predict_in_graph])
def test_tasks_without_support_raise(predict):
    with pytest.raises(ValueError, match="at least 1"):
        predict(PrototypicalNetwork(identity(8)), blobs(shots=0))


def test_no_prediction_without_a_support_set():
    with pytest.raises(NotImplementedError, match="without a support set"):
        PrototypicalNetwork(identity()).unadapted()


def test_an_episode_instead_of_its_element_raises():
    with pytest.raises(ValueError, match="A learner takes"):
        PrototypicalNetwork(tanh_encoder())(tuple(random_episode()))
