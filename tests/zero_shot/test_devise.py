"""DeViSE and its loss: by hand, by a plain loop, by finite differences, beside wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.zero_shot import DeViSE, HingeRankLoss
from tests.few_shot.tasks import check_meta_gradients, identity, tanh_encoder
from tests.zero_shot.tasks import EVEN, ODD, built, drawings, pixels, unseen_accuracy


def with_kernel(kind, kernel):
    """One whose linear layer is given; inputs are embeddings."""
    learner = kind(identity(len(kernel)), np.shape(kernel)[1])
    learner.project.set_weights([np.array(kernel)])
    return learner


def described_tasks(seed=0):
    """Two tasks of three classes: descriptions of length 3, inputs of length 2, as an element."""
    random = np.random.default_rng(seed)
    signatures, query_x = random.normal(size=(2, 3, 3)), random.normal(size=(2, 6, 2))
    labels, query_y = np.array([[1, 0, 2], [2, 1, 0]]), np.array([[0, 1, 2, 0, 1, 2]] * 2)
    inputs = map(tf.constant, (signatures, labels, query_x))
    return tuple(inputs), tf.constant(query_y)


# ---------------------------------------------------------------- the loss


class OwnToo(HingeRankLoss):
    """Wrong: the true class counts as if it were another, and costs the margin."""

    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) + self.margin


class NoMargin(HingeRankLoss):
    """Wrong: to be ahead is enough."""

    def call(self, y_true, y_pred):
        own = tf.one_hot(tf.cast(y_true, tf.int32), y_pred.shape[-1], dtype=y_pred.dtype)
        right = tf.reduce_sum(own * y_pred, axis=-1, keepdims=True)
        return tf.reduce_sum(tf.maximum(y_pred - right, 0), axis=-1)


class WorstOther(HingeRankLoss):
    """Wrong here: only the best of the other classes counts, not their sum."""

    def call(self, y_true, y_pred):
        own = tf.one_hot(tf.cast(y_true, tf.int32), y_pred.shape[-1], dtype=y_pred.dtype)
        right = tf.reduce_sum(own * y_pred, axis=-1)
        best = tf.reduce_max(y_pred - 1e9 * own, axis=-1)
        return tf.maximum(self.margin - right + best, 0)


LOSSES = [(HingeRankLoss, True), (OwnToo, False), (NoMargin, False), (WorstOther, False)]


@pytest.mark.parametrize("kind, right", LOSSES)
@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_hinge_rank_by_hand(kind, right, dtype):
    """eq-hinge-rank, margin .1: the true class at .5 and others at .45, .2 and .7.

    .1 - .5 + .45 = .05, nothing for .2, and .1 - .5 + .7 = .3: .35.  All alike: three times .1.
    """
    scores = [[[0.5, 0.45, 0.2, 0.7], [0.0, 0.0, 0.0, 0.0]]]
    found = float(kind()(np.array([[0, 3]], dtype), np.array(scores, np.float32)))
    assert (found == pytest.approx((0.35 + 0.3) / 2, rel=1e-5)) == right


@pytest.mark.parametrize("kind, right", LOSSES)
def test_hinge_rank_by_a_plain_loop(float64, kind, right):
    """eq-hinge-rank, margin .3: the mean over all queries of all tasks."""
    random = np.random.default_rng(0)
    labels, scores, costs = random.integers(4, size=(3, 5)), random.normal(size=(3, 5, 4)), []
    for label, row in zip(labels.ravel(), scores.reshape(15, 4), strict=True):
        costs.append(sum(max(0, 0.3 - row[label] + row[k]) for k in range(4) if k != label))
    found = float(kind(margin=0.3)(labels, scores))
    assert (found == pytest.approx(np.mean(costs), rel=1e-10)) == right


def test_a_margin_ahead_costs_nothing():
    """eq-hinge-rank and its gradient are 0 beyond the margin, and are not just before it."""
    for gap, cost in ((0.11, 0.0), (0.09, 0.01)):
        scores = tf.Variable([[0.0, gap]])
        with tf.GradientTape() as tape:
            loss = HingeRankLoss()(tf.constant([1]), scores)
        assert float(loss) == pytest.approx(cost, abs=1e-6)
        np.testing.assert_array_equal(tape.gradient(loss, scores), [[cost > 0, -(cost > 0)]])


# ---------------------------------------------------------------- the score


class AnyLength(DeViSE):
    """Wrong: signatures as they came, so that a class with much to say wins."""

    def class_vectors(self, signatures):
        return signatures


class Cosines(DeViSE):
    """Wrong: the embedding at length one too."""

    def answer(self, summary, queries):
        return tf.matmul(
            tf.math.l2_normalize(self.project(queries), axis=-1), summary, transpose_b=True
        )


SCORES = [(DeViSE, True), (AnyLength, False), (Cosines, False)]


@pytest.mark.parametrize("kind, right", SCORES)
def test_pocket_numbers(kind, right):
    """eq-compatibility: x = (3, 4) is mapped to (2 * 3, 4) = (6, 4).

    (3, 4) at length one is (.6, .8): 3.6 + 3.2 = 6.8.  (0, 0) scores 0.  (-2, 0) is (-1, 0): -6.
    """
    learner = with_kernel(kind, [[2.0, 0.0], [0.0, 1.0]])
    found = learner.adapt([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]])(tf.constant([[3.0, 4.0]]))
    assert float(found[0, 1]) == 0
    assert np.allclose(found, [[6.8, 0, -6]], rtol=1e-6) == right


@pytest.mark.parametrize("kind, right", SCORES)
def test_plain_loop(float64, kind, right):
    """eq-compatibility with the signature at length one: a batch of tasks."""
    learner, (inputs, _) = kind(tanh_encoder(), 3), described_tasks()
    V, found, errors = learner.project.kernel.numpy(), learner(inputs), []
    for scores, rows, order, x in zip(found, *inputs, strict=True):
        rows, z = rows.numpy()[np.argsort(order)], learner.encoder(x).numpy()
        by_loop = [[embedding @ V @ a / math.sqrt(a @ a) for a in rows] for embedding in z]
        errors.append(np.abs(scores - by_loop).max())
    assert max(errors) < 1e-12 if right else min(errors) > 1e-2


@pytest.mark.parametrize("kind, right", [(DeViSE, True), (AnyLength, False)])
def test_the_length_of_a_signature_does_not_matter(float64, kind, right):
    """eq-compatibility: three times a description says the same."""
    learner, ((signatures, _, query_x), _) = kind(tanh_encoder(), 3), described_tasks()
    change = np.abs(
        learner.adapt(3 * signatures[0])(query_x[0]) - learner.adapt(signatures[0])(query_x[0])
    ).max()
    assert change < 1e-12 if right else change > 1e-2


def test_there_is_no_bias():
    """eq-compatibility is bilinear: an embedding of zeros scores 0 with every class."""
    learner, nothing = built(DeViSE), np.zeros((1, 4), np.float32)
    np.testing.assert_array_equal(learner.adapt(ODD)(nothing), np.zeros((1, 8)))
    assert [v.shape for v in learner.trainable_variables] == [(4, 4)]


# ---------------------------------------------------------------- gradients


class ConstantEmbedding(DeViSE):
    """Wrong: no gradient to the encoder."""

    def answer(self, summary, queries):
        return super().answer(summary, tf.stop_gradient(queries))


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-hinge-rank and eq-compatibility, by every weight; no score is at a kink here."""
    learners, encoder = [], tanh_encoder()
    for kind, loss in (
        (DeViSE, HingeRankLoss),
        (AnyLength, HingeRankLoss),
        (ConstantEmbedding, HingeRankLoss),
        (DeViSE, NoMargin),
        (DeViSE, WorstOther),
    ):
        learners.append(kind(encoder, 3))
        learners[-1].project.set_weights(learners[0].project.get_weights())
        learners[-1].compile("sgd", loss(margin=0.4))
    check_meta_gradients(*learners, episode=described_tasks())


# ---------------------------------------------------------------- training, saving


def test_fit_on_episodes():
    """Keras's ``fit``, by steps: the loss of eq-hinge-rank falls, unseen classes are recognised."""
    learner, tasks = built(DeViSE, pixels()), drawings(EVEN, seed=0).episodes(4)
    assert unseen_accuracy(learner).mean < 0.8
    losses = learner.fit(tasks, epochs=2, steps_per_epoch=30, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    assert unseen_accuracy(learner).mean > 0.8


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_is_not_trained(frozen):
    encoder = mlutils.mlp(4, (), 4)
    encoder.trainable = not frozen
    learner, before = built(DeViSE, encoder), encoder.get_weights()[0]
    projection = learner.project.get_weights()[0]
    learner.fit(EVEN, np.arange(8), EVEN, verbose=0)
    assert np.array_equal(encoder.get_weights()[0], before) == frozen
    assert np.abs(learner.project.get_weights()[0] - projection).max() > 1e-3


def test_saved_and_loaded_with_its_loss(tmp_path):
    learner = built(DeViSE)
    learner.compile("adam", HingeRankLoss(margin=0.7))
    learner.optimizer.build(learner.trainable_variables)
    learner.save(tmp_path / "learner.keras")
    loss = keras.models.load_model(tmp_path / "learner.keras").loss
    assert (type(loss), loss.margin) == (HingeRankLoss, 0.7)
    assert HingeRankLoss().margin == 0.1


def test_labels_that_do_not_fit_the_scores_raise():
    with pytest.raises(ValueError, match="labels must have the scores' shape"):
        HingeRankLoss()(np.array([[0, 1, 0]]), np.array([[[1.0, 2.0]]]))
