"""Prototypical networks: the equations by hand, by plain loops, and beside wrong versions."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import PrototypicalNetwork
from mlutils.few_shot.prototypical import class_means, minus_squared_distances
from tests.few_shot.tasks import identity, one_task, random_episode, random_labels
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def tanh_encoder():
    return mlutils.mlp(input_size=2, hidden=(4,), outputs=3, activation="tanh")


def classifier(encoder, optimizer="sgd", kind=PrototypicalNetwork):
    learner = kind(encoder)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=optimizer, loss=loss)
    return learner


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


@pytest.mark.parametrize("options, scale", [(dict(), 10), (dict(scale=5.0), 5)])
def test_pocket_cosines(options, scale):
    """eq-prototype, then scaled cosines: (6, 0) and (0, 8) of class 0, (0, 5) of class 1.

    c_0 = (3, 4), of length 5, and c_1 = (0, 5).  Query (5, 0): the cosines 15 / 25 = 3/5 and 0.
    Query (0, 2): 8 / 10 = 4/5 and 1.  The default scale is 10.
    """
    learner = PrototypicalNetwork(identity(2), distance="cosine", **options)
    predict = learner.adapt([[6.0, 0.0], [0.0, 8.0], [0.0, 5.0]], [0, 0, 1])
    found = predict(tf.constant([[5.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_allclose(found, scale * np.array([[3 / 5, 0], [4 / 5, 1]]), rtol=1e-6)


def test_pocket_distances_with_a_scale():
    """eq-prototype-logits times the scale, which is 1 by default: -9 and -36 become -18 and -72."""
    for scale, expected in ((2.0, [[-18, -72]]), (None, [[-9, -36]])):
        learner = PrototypicalNetwork(identity(), scale=scale)
        predict = learner.adapt([[0.0], [2.0], [10.0]], [0, 0, 1])
        np.testing.assert_allclose(predict(tf.constant([[4.0]])), expected, rtol=1e-6)


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


@pytest.mark.parametrize("tasks", [1, 3])
def test_plain_loop(tasks):
    """eq-prototype and eq-prototype-logits."""
    random = np.random.default_rng(0)
    embeddings, queries = random.normal(size=(tasks, 13, 5)), random.normal(size=(tasks, 6, 5))
    labels = random_labels(random, tasks, ways=4, examples=13)
    prototypes = class_means(tf.constant(embeddings), tf.constant(labels))
    logits = minus_squared_distances(tf.constant(queries), prototypes)
    assert logits.shape == (tasks, 6, 4)
    for task in range(tasks):
        by_loop = loop_prototypes(embeddings[task], labels[task], ways=4)
        np.testing.assert_allclose(prototypes[task], by_loop, atol=1e-12)
        np.testing.assert_allclose(logits[task], loop_logits(queries[task], by_loop), atol=1e-12)


def loop_cosines(queries, prototypes):
    """The cosines for one task, in plain Python."""
    return np.array([[z @ c / math.sqrt((z @ z) * (c @ c)) for c in prototypes] for z in queries])


class MeanOfCosines(PrototypicalNetwork):
    """Wrong: the mean of directions instead of the direction of eq-prototype."""

    def summarize(self, support, labels):
        return super().summarize(tf.math.l2_normalize(support, axis=-1), labels)


@pytest.mark.parametrize("kind, right", [(PrototypicalNetwork, True), (MeanOfCosines, False)])
def test_plain_loop_with_cosines(float64, kind, right):
    """eq-prototype, then cosines times the scale."""
    learner = kind(tanh_encoder(), distance="cosine", scale=3.5)
    episode, errors = random_episode(), []
    found = learner(episode.element[0])
    for task in range(3):
        support, queries = (learner.encoder(x[task]).numpy() for x in (episode[0], episode[2]))
        prototypes = loop_prototypes(support, episode.support_y[task].numpy(), ways=3)
        errors.append(np.abs(found[task] - 3.5 * loop_cosines(queries, prototypes)).max())
    assert max(errors) < 1e-12 if right else max(errors) > 1e-2


# ---------------------------------------------------------------- what the equations imply


class Unsquared(PrototypicalNetwork):
    """Wrong: the distance without its square (museum of bugs, 10)."""

    def answer(self, summary, queries):
        return -tf.sqrt(-super().answer(summary, queries))


@pytest.mark.parametrize("kind, linear", [(PrototypicalNetwork, True), (Unsquared, False)])
def test_a_linear_classifier_on_the_embedding(float64, kind, linear):
    """eq-prototype-linear: 2 c . z - |c|^2, weights and a bias for each class.

    eq-prototype-logits is -|z - c|^2 = 2 c . z - |c|^2 - |z|^2, whose last term is no class's.
    """
    learner, task = kind(tanh_encoder()), one_task()
    support, queries = (learner.encoder(x).numpy() for x in (task.support_x, task.query_x))
    prototypes = loop_prototypes(support, task.support_y.numpy(), ways=3)
    logits = learner.adapt(task.support_x, task.support_y)(task.query_x)
    no_class = logits - (2 * queries @ prototypes.T - np.sum(prototypes**2, axis=1))
    spread = np.max(np.ptp(no_class, axis=1))
    assert spread < 1e-12 if linear else spread > 0.1


def test_one_shot_is_the_nearest_neighbour(float64):
    learner, task = PrototypicalNetwork(tanh_encoder()), one_task(queries=50)
    support_x, support_y = task.support_x[:5], tf.constant([3, 0, 4, 1, 2])
    found = np.argmax(learner.adapt(support_x, support_y)(task.query_x), axis=1)
    support = learner.encoder(support_x)
    for query, label in zip(learner.encoder(task.query_x), found, strict=True):
        distances = np.linalg.norm(support - query, axis=1)
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


@pytest.mark.parametrize("distance, matters", [("cosine", False), ("euclidean", True)])
def test_the_length_of_an_embedding_does_not_matter_to_cosines(float64, distance, matters):
    learner, task = PrototypicalNetwork(identity(2), distance), one_task()
    predict = learner.adapt(task.support_x, task.support_y)
    change = np.abs(predict(3 * task.query_x) - predict(task.query_x)).max()
    assert change > 1 if matters else change < 1e-12


def test_untrained_it_is_the_nearest_centroid_control(float64):
    """``mlutils.controls`` on the same tasks.  Negative control: another encoder's centroids."""
    encoder, other = tanh_encoder(), tanh_encoder()
    learner, tasks = PrototypicalNetwork(encoder), [random_episode(tasks=50)]
    score = mlutils.evaluate(learner, tasks, tasks=50)
    same, another = (
        mlutils.controls(learner, tasks, tasks=50, encoder=one)["nearest centroid"]
        for one in (encoder, other)
    )
    np.testing.assert_array_equal(same.values, score.values)
    assert np.any(another.values != score.values)


# ---------------------------------------------------------------- finite differences


class ConstantPrototypes(PrototypicalNetwork):
    """Wrong: no gradient through the prototypes."""

    def summarize(self, support, labels):
        return tf.stop_gradient(super().summarize(support, labels))


class SmallPrototypes(PrototypicalNetwork):
    """Wrong: the sum of a class over the size of the whole support set."""

    def summarize(self, support, labels):
        of_class = tf.one_hot(labels, 3, dtype=support.dtype)
        return tf.matmul(of_class, support, transpose_a=True) / support.shape[1]


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-prototype-logits and eq-prototype, beside wrong versions of the latter."""
    learner, episode = classifier(tanh_encoder()), random_episode()
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    errors = []
    for kind in (PrototypicalNetwork, ConstantPrototypes, SmallPrototypes):
        _, gradients = classifier(learner.encoder, kind=kind).meta_gradients(episode)
        errors.append(relative_error(flatten(gradients), reference))
    right, *wrong = errors
    assert right < RELATIVE_TOLERANCE
    assert min(wrong) > 1e-2


def test_meta_gradient_of_cosines_equals_finite_differences(float64):
    """Through the cosines and eq-prototype, beside a wrong version of the latter."""
    encoder, episode, errors = tanh_encoder(), random_episode(), []
    right, wrong = (
        classifier(encoder, kind=functools.partial(kind, distance="cosine", scale=3.5))
        for kind in (PrototypicalNetwork, ConstantPrototypes)
    )
    reference = finite_differences(lambda: right.meta_loss(episode), encoder.trainable_variables)
    for learner in (right, wrong):
        _, gradients = learner.meta_gradients(episode)
        errors.append(relative_error(flatten(gradients), reference))
    assert errors[0] < RELATIVE_TOLERANCE
    assert errors[1] > 1e-2


# ---------------------------------------------------------------- training


def blobs(ways=3, shots=2, seed=0, **options):
    """Tasks from twenty classes: two inputs tell them apart, six more are noise."""
    random = np.random.default_rng(seed)
    centres = np.pad(2 * random.normal(size=(20, 1, 2)), ((0, 0), (0, 0), (0, 6)))
    x = centres + random.normal(size=(20, 30, 8)) * np.repeat([0.3, 3.0], [2, 6])
    return mlutils.data.episodes(
        x.reshape(600, 8), np.repeat(np.arange(20), 30), ways, shots, seed=seed, **options
    )


def test_fit_learns_which_inputs_matter():
    """On new classes, with its 95 % interval; distances between the inputs know no better."""
    learner = classifier(mlutils.mlp(8, (16,), 2), keras.optimizers.Adam(1e-2))
    new = blobs(seed=1)
    before = mlutils.evaluate(learner, new)
    learner.fit(blobs(), steps_per_epoch=100, verbose=0)
    after = mlutils.evaluate(learner, new)
    for worse in (before, mlutils.evaluate(PrototypicalNetwork(identity(8)), new)):
        difference = mlutils.Score(after.values - worse.values)
        assert difference.mean > 0.1 + difference.ci95


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


def test_saved_and_loaded_cosines_and_their_scale(tmp_path):
    learner = PrototypicalNetwork(tanh_encoder(), distance="cosine", scale=3.5)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert (loaded.distance, loaded.scale) == ("cosine", 3.5)
    inputs, _ = random_episode().element
    np.testing.assert_array_equal(learner(inputs), loaded(inputs))


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    "options, words",
    [
        (
            dict(distance="manhattan"),
            r"distance must be one of \('euclidean', 'cosine'\), got 'man",
        ),
        (dict(distance=None), "distance must be one of .* got None"),
        (dict(scale=0), "scale must be a finite positive number, got 0"),
        (dict(scale=-1.0), "scale must be a finite positive number, got -1"),
        (dict(scale=math.nan), "scale must be a finite positive number, got nan"),
        (dict(distance="cosine", scale="x"), "scale must be a finite positive number, got 'x'"),
    ],
)
def test_wrong_options_raise(options, words):
    with pytest.raises(ValueError, match=words):
        PrototypicalNetwork(identity(), **options)
