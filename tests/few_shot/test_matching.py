"""Matching networks: the equations by hand, by plain loops, and beside wrong versions."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mlutils import MatchingNetwork
from mlutils.classes import class_members
from tests.few_shot.tasks import (
    check_meta_gradients,
    compiled,
    identity,
    one_task,
    orders,
    predictions,
    random_episode,
    tanh_encoder,
)

PLANE = [[2.0, 0.0], [-1.0, 0.0], [0.0, 3.0]], [0, 0, 1]

# ---------------------------------------------------------------- values derived by hand


@orders
@pytest.mark.parametrize(
    "scale, expected",
    [
        (math.log(2), [[5 / 7, 2 / 7], [1 / 2, 1 / 2]]),
        (5 * math.log(2), [[1025 / 1057, 32 / 1057], [2 / 34, 32 / 34]]),
    ],
)
def test_pocket_numbers(order, dtype, scale, expected):
    """eq-cosine-attention and eq-matching: (2, 0) and (-1, 0) of class 0, (0, 3) of class 1.

    The query (5, 0) has the cosines 1, -1 and 0 with them, (0, 1) has 0, 0 and 1.  With the scale
    log 2, exp(scale cos) is 2^cos: 2, 1/2 and 1, of which class 0 has 5/2 of 7/2; and 1, 1 and 2,
    of which it has 2 of 4.  With 5 log 2 it is 32^cos: 32, 1/32 and 1; and 1, 1 and 32.
    """
    support_x, support_y = (tf.gather(values, order) for values in PLANE)
    predict = MatchingNetwork(identity(2), scale).adapt(support_x, tf.cast(support_y, dtype))
    found = predict(tf.constant([[5.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)


def test_cosines_between_the_axes():
    """eq-matching with (1, 0) of class 0, (0, 1) of class 1: (3, 4) has the cosines 3/5 and 4/5.

    With the scale 5 log 2, 2^3 = 8 and 2^4 = 16: a third and two thirds.
    """
    predict = MatchingNetwork(identity(2), 5 * math.log(2)).adapt(tf.eye(2), [0, 1])
    found = np.exp(predict(tf.constant([[3.0, 4.0]])))
    np.testing.assert_allclose(found, [[1 / 3, 2 / 3]], rtol=1e-5)


def test_with_scale_1_nothing_is_certain():
    """eq-cosine-attention, 5-way 1-shot, one example ahead and four behind: e / (e + 4 / e).

    That is e^2 / (e^2 + 4) = .6488.
    """
    support_x = tf.constant([[1.0, 0.0], *[[-1.0, 0.0]] * 4])
    found = MatchingNetwork(identity(2)).adapt(support_x, tf.range(5))(tf.constant([[9.0, 0.0]]))
    assert np.exp(found)[0, 0] == pytest.approx(math.e**2 / (math.e**2 + 4), rel=1e-5)
    assert np.exp(found)[0, 0] == pytest.approx(0.6488, abs=1e-4)


def test_a_vector_of_zeros_attends_to_all_alike():
    """eq-cosine-attention where the cosine is 0 with all three: 2/3 for the class with two."""
    found = MatchingNetwork(identity(2)).adapt(*PLANE)(tf.zeros((1, 2)))
    np.testing.assert_allclose(np.exp(found), [[2 / 3, 1 / 3]], rtol=1e-5)


# ---------------------------------------------------------------- plain loops


def loop_attention(support, query, scale):
    """eq-cosine-attention of one query, in plain Python."""
    cosines = [z @ query / math.sqrt((z @ z) * (query @ query)) for z in support]
    votes = [math.exp(scale * cosine) for cosine in cosines]
    return [vote / sum(votes) for vote in votes]


def loop_probabilities(support, labels, query, scale, ways):
    """eq-matching for one query, in plain Python."""
    probabilities = [0.0] * ways
    for a, label in zip(loop_attention(support, query, scale), labels, strict=True):
        probabilities[label] += a
    return probabilities


class MeanOfLogs(MatchingNetwork):
    """Wrong: the mean of the logarithms of a class's attention, not the logarithm of the sum."""

    def answer(self, summary, queries):
        support, of_class = summary
        of_class /= tf.reduce_sum(of_class, axis=1, keepdims=True)
        return tf.matmul(self.log_attention(support, queries), of_class)


@pytest.mark.parametrize("kind, right", [(MatchingNetwork, True), (MeanOfLogs, False)])
def test_plain_loop(float64, kind, right):
    """eq-cosine-attention and eq-matching: a batch of tasks with one to several shots per class.

    Both are probabilities, which add up to one.
    """
    learner, episode = kind(tanh_encoder(), scale=7.5), random_episode()
    found, errors = np.exp(learner(episode.element[0])), []
    for task in range(3):
        support, queries = (learner.encoder(x[task]).numpy() for x in (episode[0], episode[2]))
        one = (learner.embed(x[task : task + 1]) for x in episode[::2])
        attention = learner.log_attention(*one)
        labels = episode.support_y[task].numpy()
        for q, query in enumerate(queries):
            by_loop = loop_attention(support, query, 7.5)
            np.testing.assert_allclose(np.exp(attention[0, q]), by_loop, atol=1e-12)
            expected = loop_probabilities(support, labels, query, 7.5, ways=3)
            errors.append(np.abs(found[task, q] - expected).max())
    assert max(errors) < 1e-12 if right else max(errors) > 0.1
    off = np.abs(np.sum(found, axis=2) - 1).max()
    assert off < 1e-12 if right else off > 0.1


# ---------------------------------------------------------------- what the equations imply


def test_a_class_without_attention_has_no_nan():
    """eq-matching with the scale 1000, on the axes: log probabilities 0 and -1000."""
    learner = compiled(MatchingNetwork(identity(2), scale=1000.0))
    x, y = tf.eye(2), tf.constant([0, 1])
    np.testing.assert_allclose(learner.adapt(x, y)(x), [[0, -1000], [-1000, 0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = learner.task_loss(y[::-1], learner.adapt(x, y)(x))
    assert float(loss) == 1000
    assert np.all(np.isfinite(tape.gradient(loss, x)))


class DotProduct(MatchingNetwork):
    """Wrong: attends by dot products, which grow with the embeddings' length."""

    def log_attention(self, support, queries):
        return tf.nn.log_softmax(self.scale * tf.matmul(queries, support, transpose_b=True))


@pytest.mark.parametrize("kind, matters", [(MatchingNetwork, False), (DotProduct, True)])
@pytest.mark.parametrize("longer", ["support_x", "query_x"])
def test_the_length_of_an_embedding_does_not_matter(float64, kind, matters, longer):
    """eq-cosine-attention: of queries three times as long, or of such support examples."""
    learner, task = kind(identity(2)), one_task()
    scaled = task._replace(**{longer: 3 * getattr(task, longer)})
    change = np.abs(predictions(learner, scaled) - predictions(learner, task)).max()
    assert change > 0.1 if matters else change < 1e-12


class ConstantSupport(MatchingNetwork):
    """Wrong: no gradient through the support set's embeddings."""

    def summarize(self, support, labels):
        return tf.stop_gradient(support), class_members(labels, support.dtype)


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-matching and eq-cosine-attention, beside wrong versions."""
    encoder, kinds = tanh_encoder(), (MatchingNetwork, ConstantSupport, MeanOfLogs, DotProduct)
    learners = [compiled(kind(encoder, scale=2.5)) for kind in kinds]
    check_meta_gradients(*learners, episode=random_episode())
