"""Matching networks: the equations by hand, by plain loops, and beside wrong versions."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import MatchingNetwork
from mlutils.few_shot.prototypical import class_members
from tests.few_shot.tasks import identity, one_task, random_episode
from tests.few_shot.test_prototypical import blobs, classifier, tanh_encoder
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def predictions(learner, task):
    return learner.adapt(task.support_x, task.support_y)(task.query_x).numpy()


# ---------------------------------------------------------------- values derived by hand


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
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
    support_x = tf.gather([[2.0, 0.0], [-1.0, 0.0], [0.0, 3.0]], order)
    support_y = tf.cast(tf.gather([0, 0, 1], order), dtype)
    predict = MatchingNetwork(identity(2), scale).adapt(support_x, support_y)
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
    support_x = tf.constant([[2.0, 0.0], [-1.0, 0.0], [0.0, 3.0]])
    found = MatchingNetwork(identity(2)).adapt(support_x, [0, 0, 1])(tf.zeros((1, 2)))
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


@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("kind, right", [(MatchingNetwork, True), (MeanOfLogs, False)])
def test_plain_loop(float64, scale, kind, right):
    """eq-cosine-attention and eq-matching: a batch of tasks with one to several shots per class."""
    learner, episode = kind(tanh_encoder(), scale), random_episode()
    found = learner(episode.element[0])
    assert found.shape == (3, 5, 3)
    errors = []
    for task in range(3):
        support, queries = (learner.encoder(x[task]).numpy() for x in (episode[0], episode[2]))
        attention = np.exp(learner.log_attention(support[np.newaxis], queries[np.newaxis])[0])
        labels = episode.support_y[task].numpy()
        for q, query in enumerate(queries):
            by_loop = loop_attention(support, query, scale)
            np.testing.assert_allclose(attention[q], by_loop, atol=1e-12)
            expected = loop_probabilities(support, labels, query, scale, ways=3)
            errors.append(np.abs(np.exp(found[task, q]) - expected).max())
    assert max(errors) < 1e-12 if right else max(errors) > 0.1


# ---------------------------------------------------------------- what the equations imply


@pytest.mark.parametrize("kind, right", [(MatchingNetwork, True), (MeanOfLogs, False)])
def test_attention_and_predictions_are_probabilities(float64, kind, right):
    """eq-cosine-attention and eq-matching: each adds up to one."""
    learner, (inputs, _) = kind(tanh_encoder(), scale=10.0), random_episode().element
    attention = tf.exp(learner.log_attention(learner.embed(inputs[0]), learner.embed(inputs[2])))
    assert attention.shape == (3, 5, 8)
    np.testing.assert_allclose(tf.reduce_sum(attention, axis=2), np.ones((3, 5)), atol=1e-12)
    off = np.abs(tf.reduce_sum(tf.exp(learner(inputs)), axis=2) - 1).max()
    assert off < 1e-12 if right else off > 0.1


def test_a_class_without_attention_has_no_nan():
    """eq-matching with the scale 1000, on the axes: log probabilities 0 and -1000."""
    learner = classifier(identity(2), kind=functools.partial(MatchingNetwork, scale=1000.0))
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


def test_one_shot_is_the_nearest_neighbour_by_cosine(float64):
    """eq-matching with one example per class.  Negative control: the nearest by distance."""
    learner, task = MatchingNetwork(identity(2)), one_task(queries=50)
    support_x, support_y = task.support_x[:5].numpy(), np.array([3, 0, 4, 1, 2])
    found = np.argmax(learner.adapt(support_x, support_y)(task.query_x), axis=1)
    by_cosine, by_distance = [], []
    for query in task.query_x.numpy():
        cosines = support_x @ query / np.linalg.norm(support_x, axis=1)
        by_cosine.append(support_y[np.argmax(cosines)])
        by_distance.append(support_y[np.argmin(np.linalg.norm(support_x - query, axis=1))])
    np.testing.assert_array_equal(found, by_cosine)
    assert np.mean(found == by_distance) < 0.9 and len(set(found)) > 1


def test_the_order_of_the_support_set_does_not_matter(float64):
    """eq-matching is a sum.  Negative control: moving the inputs without their labels."""
    learner, task = MatchingNetwork(tanh_encoder()), one_task()
    order = np.random.default_rng(1).permutation(8)
    moved = task._replace(support_x=tf.gather(task.support_x, order))
    both_moved = moved._replace(support_y=tf.gather(task.support_y, order))
    before = predictions(learner, task)
    np.testing.assert_allclose(predictions(learner, both_moved), before)
    assert np.abs(predictions(learner, moved) - before).max() > 1e-2


def test_renaming_the_classes_renames_the_logits(float64):
    """eq-matching."""
    learner, task = MatchingNetwork(tanh_encoder()), one_task()
    names = [2, 0, 1]  # class 0 is now called 2
    before = predictions(learner, task)
    after = predictions(learner, task._replace(support_y=tf.gather(names, task.support_y)))
    np.testing.assert_allclose(after[:, names], before, atol=1e-12)
    assert np.abs(after - before).max() > 1e-2


# ---------------------------------------------------------------- finite differences


class ConstantSupport(MatchingNetwork):
    """Wrong: no gradient through the support set's embeddings."""

    def summarize(self, support, labels):
        return tf.stop_gradient(support), class_members(labels, support.dtype)


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-matching and eq-cosine-attention, beside wrong versions."""
    encoder, episode, errors = tanh_encoder(), random_episode(), []
    right, *wrong = (
        classifier(encoder, kind=functools.partial(kind, scale=2.5))
        for kind in (MatchingNetwork, ConstantSupport, MeanOfLogs, DotProduct)
    )
    reference = finite_differences(lambda: right.meta_loss(episode), encoder.trainable_variables)
    for learner in (right, *wrong):
        _, gradients = learner.meta_gradients(episode)
        errors.append(relative_error(flatten(gradients), reference))
    assert errors[0] < RELATIVE_TOLERANCE
    assert min(errors[1:]) > 1e-2


# ---------------------------------------------------------------- training


def sharp(encoder):
    """With a scale that lets it be certain."""
    return MatchingNetwork(encoder, scale=10.0)


def test_fit_learns_which_inputs_matter():
    """On new classes, with its 95 % interval; cosines of the inputs know no better."""
    learner = classifier(mlutils.mlp(8, (16,), 2), keras.optimizers.Adam(1e-2), sharp)
    new = blobs(seed=1)
    before = mlutils.evaluate(learner, new)
    learner.fit(blobs(), steps_per_epoch=100, verbose=0)
    after = mlutils.evaluate(learner, new)
    for worse in (before, mlutils.evaluate(sharp(identity(8)), new)):
        difference = mlutils.Score(after.values - worse.values)
        assert difference.mean > 0.1 + difference.ci95


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf, "x", None, True])
def test_wrong_scale_raises(scale):
    with pytest.raises(ValueError, match="scale must be a finite positive number"):
        MatchingNetwork(identity(), scale=scale)
