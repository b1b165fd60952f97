"""Prototypical networks: the equations by hand, by plain loops, and beside wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import PrototypicalNetwork
from mlutils.classes import class_means, minus_squared_distances
from tests.few_shot.tasks import (
    check_meta_gradients,
    compiled,
    identity,
    one_task,
    orders,
    predictions,
    random_episode,
    random_labels,
    tanh_encoder,
)

LINE = [[0.0], [2.0], [10.0]], [0, 0, 1]

# ---------------------------------------------------------------- values derived by hand


@orders
@pytest.mark.parametrize("options, scale", [(dict(), 1), (dict(scale=2.0), 2)])
def test_pocket_numbers(order, dtype, options, scale):
    """eq-prototype and eq-prototype-logits on a line: 0 and 2 of class 0, 10 of class 1.

    c_0 = (0 + 2) / 2 = 1 and c_1 = 10.  Query 4: -(4 - 1)^2 = -9 and -(4 - 10)^2 = -36.
    Query 7: -(7 - 1)^2 = -36 and -(7 - 10)^2 = -9.  All times the scale, which is 1 by default.
    """
    support_x, support_y = (tf.gather(values, order) for values in LINE)
    learner = PrototypicalNetwork(identity(), **options)
    predict = learner.adapt(support_x, tf.cast(support_y, dtype))
    expected = scale * np.array([[-9, -36], [-36, -9]])
    np.testing.assert_array_equal(predict(tf.constant([[4.0], [7.0]])), expected)


def test_squares_add_up_over_features():
    """eq-prototype-logits in the plane: from (0, 0) to (3, 4) and (1, 0), -25 and -1."""
    predict = PrototypicalNetwork(identity(2)).adapt([[1.0, 0.0], [3.0, 4.0]], [1, 0])
    np.testing.assert_array_equal(predict(tf.zeros((1, 2))), [[-25, -1]])


def test_the_distance_is_between_embeddings():
    """With the encoder z = 3 x, all distances of the line are three times as long."""
    encoder = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    encoder.set_weights([np.array([[3.0]])])
    predict = PrototypicalNetwork(encoder).adapt(*LINE)
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
    no_class = predictions(learner, task)
    no_class -= 2 * queries @ prototypes.T - np.sum(prototypes**2, axis=1)
    spread = np.max(np.ptp(no_class, axis=1))
    assert spread < 1e-12 if linear else spread > 0.1


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


# ---------------------------------------------------------------- gradients


class ConstantPrototypes(PrototypicalNetwork):
    """Wrong: no gradient through the prototypes."""

    def summarize(self, support, labels):
        return tf.stop_gradient(super().summarize(support, labels))


class SmallPrototypes(PrototypicalNetwork):
    """Wrong: the sum of a class over the size of the whole support set."""

    def summarize(self, support, labels):
        of_class = tf.one_hot(labels, 3, dtype=support.dtype)
        return tf.matmul(of_class, support, transpose_a=True) / support.shape[1]


@pytest.mark.parametrize("options", [dict(), dict(distance="cosine", scale=3.5)])
def test_meta_gradient_equals_finite_differences(float64, options):
    """Through eq-prototype-logits or cosines, and eq-prototype, beside wrong versions of it.

    To a cosine the length of a prototype is nothing.
    """
    kinds, encoder = [PrototypicalNetwork, ConstantPrototypes, SmallPrototypes], tanh_encoder()
    learners = [compiled(kind(encoder, **options)) for kind in kinds[: 2 if options else 3]]
    check_meta_gradients(*learners, episode=random_episode())
