"""Siamese networks and their losses: by hand, pair by pair, and beside wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import ContrastiveLoss, PairCrossEntropy, SiameseNetwork
from tests.few_shot.tasks import (
    blobs,
    check_meta_gradients,
    compiled,
    identity,
    one_task,
    orders,
    predictions,
    random_episode,
    tanh_encoder,
)

LOSSES = {"distance": ContrastiveLoss, "weighted": PairCrossEntropy}


def weighted(features, weights, bias):
    learner = SiameseNetwork(identity(features), "weighted")
    learner.weigh.set_weights([np.reshape(weights, (-1, 1)), np.array([bias])])
    return learner


# ---------------------------------------------------------------- values derived by hand


@orders
def test_pocket_numbers(order, dtype):
    """eq-pair-distance: (3, 4) and (0, 2) of class 0, (0, 1) of class 1.

    From (0, 0) they are 5, 2 and 1 away, and class 0's nearer one counts: 2 and 1.  From (3, 2)
    they are 2, 3 and sqrt(10).
    """
    support_x = tf.gather([[3.0, 4.0], [0.0, 2.0], [0.0, 1.0]], order)
    support_y = tf.cast(tf.gather([0, 0, 1], order), dtype)
    found = SiameseNetwork(identity(2)).adapt(support_x, support_y)(
        tf.constant([[0.0, 0.0], [3.0, 2.0]])
    )
    np.testing.assert_allclose(found, [[-2, -1], [-2, -math.sqrt(10)]], rtol=1e-6)


def test_pocket_numbers_of_koch():
    """eq-siamese with weights -1 and -3 and bias 2.

    (3, 4) differs from (0, 0) by 3 and 4: 2 - 3 - 12 = -13; (0, 1) by 0 and 1: 2 - 3 = -1.  The
    order of a pair does not matter: (-3, 4) scores like (3, 4).
    """
    learner = weighted(2, [-1.0, -3.0], 2.0)
    found = learner.adapt(tf.constant([[3.0, 4.0], [0.0, 1.0]]), [0, 1])(tf.zeros((1, 2)))
    np.testing.assert_allclose(found, [[-13, -1]], rtol=1e-6)
    mirrored = learner.adapt(tf.constant([[-3.0, 4.0], [0.0, 1.0]]), [0, 1])(tf.zeros((1, 2)))
    np.testing.assert_allclose(mirrored, found)


def test_before_training_weighted_is_the_city_block_distance():
    """eq-siamese: minus the mean of |z - z'| over the features."""
    learner, task = SiameseNetwork(identity(2), "weighted"), one_task(support=3, ways=3)
    found = predictions(learner, task)
    order = np.argsort(task.support_y)
    differences = task.query_x.numpy()[:, None] - task.support_x.numpy()[order]
    np.testing.assert_allclose(found, -np.abs(differences).mean(-1), rtol=1e-5)


def test_contrastive_loss_by_hand():
    """eq-contrastive, margin 2: own class .5 away, others 1 and 3.

    Half of .5 squared, .125; and half of the mean of (2 - 1) squared and 0, .25.
    """
    loss = ContrastiveLoss(margin=2.0)(np.array([[1]]), np.array([[[-1.0, -0.5, -3.0]]]))
    assert float(loss) == pytest.approx(0.375)
    assert float(ContrastiveLoss()(np.array([[0]]), np.array([[[-3.0, -1.0]]]))) == pytest.approx(
        4.5
    )


def test_pair_cross_entropy_by_hand():
    """eq-pair-cross-entropy: log-odds 0 everywhere cost log 2.

    With log 3 for the own class p = 3/4; with -log 4 and 0 for the others 1 - p = 4/5 and 1/2.
    """
    assert float(PairCrossEntropy()(np.array([[1]]), np.zeros((1, 1, 3)))) == pytest.approx(
        math.log(2)
    )
    loss = PairCrossEntropy()(np.array([[0]]), np.log([[[3.0, 1 / 4, 1.0]]]))
    expected = -math.log(3 / 4) / 2 - (math.log(4 / 5) + math.log(1 / 2)) / 4
    assert float(loss) == pytest.approx(expected)


# ---------------------------------------------------------------- pair by pair


def score_of_pair(learner, left, right):
    """eq-pair-distance and eq-siamese in plain Python."""
    if learner.comparison == "distance":
        return -math.sqrt(sum((a - b) ** 2 for a, b in zip(left, right, strict=True)))
    weights, bias = (np.ravel(value) for value in learner.weigh.get_weights())
    return bias[0] + sum(w * abs(a - b) for w, a, b in zip(weights, left, right, strict=True))


def cost_of_pair(comparison, score, same, margin=1.0):
    """eq-contrastive and eq-pair-cross-entropy in plain Python."""
    if comparison == "distance":
        return score**2 if same else max(0.0, margin + score) ** 2
    p = 1 / (1 + math.exp(-score))
    return -math.log(p if same else 1 - p)


class WorstPair(SiameseNetwork):
    """Wrong: a class's worst pair counts."""

    def answer(self, summary, queries):
        support, of_class = summary
        scores = self.compare(queries[:, :, tf.newaxis], support[:, tf.newaxis])
        far = tf.where(of_class[:, tf.newaxis] > 0, scores[..., tf.newaxis], scores.dtype.max)
        return tf.reduce_min(far, axis=2)


def loop_scores(learner, task):
    """The best score of each query's pairs with each class, ``(Q, N)``."""
    support, queries = (learner.encoder(x).numpy() for x in (task.support_x, task.query_x))
    labels = task.support_y.numpy()
    return [
        [
            max(score_of_pair(learner, z, support[i]) for i in range(len(labels)) if labels[i] == n)
            for n in range(labels.max() + 1)
        ]
        for z in queries
    ]


@pytest.mark.parametrize("comparison", LOSSES)
@pytest.mark.parametrize("kind, right", [(SiameseNetwork, True), (WorstPair, False)])
def test_plain_loop(float64, comparison, kind, right):
    """eq-pair-distance and eq-siamese: a batch of tasks with one to several shots per class."""
    learner, episode = kind(tanh_encoder(), comparison), random_episode()
    found = learner(episode.element[0])
    tasks = [type(episode)(*task) for task in zip(*episode, strict=True)]
    expected = [loop_scores(learner, task) for task in tasks]
    assert (np.abs(found - np.array(expected)).max() < 1e-10) == right


def unbalanced(y_true, y_pred):
    """Wrong: every pair counts alike, so that nearly all are of different classes."""
    own = tf.one_hot(y_true, y_pred.shape[-1], dtype=y_pred.dtype)
    far = tf.square(tf.maximum(1 + y_pred, 0))
    return tf.reduce_mean(own * tf.square(y_pred) + (1 - own) * far)


@pytest.mark.parametrize("comparison", LOSSES)
def test_losses_pair_by_pair(float64, comparison):
    """eq-contrastive and eq-pair-cross-entropy: as many pairs of one class as of two, by weight."""
    learner, episode = SiameseNetwork(tanh_encoder(), comparison), random_episode()
    inputs, query_y = episode.element
    scores, costs = learner(inputs).numpy(), []
    for labels, task in zip(query_y.numpy(), scores, strict=True):
        for label, pairs in zip(labels, task, strict=True):
            cost = [cost_of_pair(comparison, s, n == label) for n, s in enumerate(pairs)]
            others = [c for n, c in enumerate(cost) if n != label]
            costs.append((cost[label] + sum(others) / len(others)) / 2)
    found = LOSSES[comparison]()(query_y, scores)
    assert float(found) == pytest.approx(np.mean(costs), rel=1e-10)
    if comparison == "distance":
        assert float(unbalanced(query_y, scores)) != pytest.approx(float(found), rel=1e-2)


# ---------------------------------------------------------------- gradients


class ConstantSupport(SiameseNetwork):
    """Wrong: no gradient through the support set's embeddings."""

    def summarize(self, support, labels):
        return super().summarize(tf.stop_gradient(support), labels)


@pytest.mark.parametrize("comparison", LOSSES)
def test_meta_gradients_by_finite_differences(float64, comparison):
    """eq-contrastive and eq-pair-cross-entropy by every weight; the distances have no kink here."""
    encoder, kinds, loss = tanh_encoder(), (SiameseNetwork, ConstantSupport), LOSSES[comparison]
    learners = [compiled(kind(encoder, comparison), loss=loss()) for kind in kinds]
    check_meta_gradients(*learners, episode=random_episode(tasks=2))


class PlainRoot(SiameseNetwork):
    """Wrong: the derivative of the root is infinite at 0, and 0 times infinity is no number."""

    def compare(self, left, right):
        return -tf.sqrt(tf.reduce_sum(tf.square(left - right), axis=-1))


@pytest.mark.parametrize("kind, right", [(SiameseNetwork, True), (PlainRoot, False)])
def test_equal_drawings_of_two_classes_have_a_gradient(kind, right):
    """eq-pair-distance where it is 0 and should not be."""
    learner = compiled(kind(mlutils.mlp(2, (4,), 3)), loss=ContrastiveLoss())
    x, y = tf.constant([[[1.0, 2.0], [3.0, 4.0]]]), tf.constant([[0, 1]])
    _, gradients = learner.meta_gradients(((x, y, x), 1 - y))
    assert all(np.isfinite(gradient).all() for gradient in gradients) == right


# ---------------------------------------------------------------- training, saving, wrong input


@pytest.mark.parametrize("comparison", LOSSES)
def test_fit_learns_which_inputs_matter(comparison):
    """The blobs differ in few of their coordinates."""
    learner = SiameseNetwork(mlutils.mlp(8, (), 2), comparison)
    compiled(learner, rate=5e-2, loss=LOSSES[comparison]())
    new = [next(iter(blobs(seed=1, meta_batch=200)))]
    before = mlutils.evaluate(learner, new, tasks=200)
    learner.fit(blobs(), steps_per_epoch=40, verbose=0)
    after = mlutils.evaluate(learner, new, tasks=200)
    difference = mlutils.Score(after.values - before.values)
    assert difference.mean > 0.1 + difference.ci95


def test_a_loss_is_saved_with_its_margin(tmp_path):
    learner = compiled(SiameseNetwork(tanh_encoder()), loss=ContrastiveLoss(margin=3.0))
    learner.optimizer.build(learner.trainable_variables)
    learner.save(tmp_path / "learner.keras")
    loss = keras.models.load_model(tmp_path / "learner.keras").loss
    assert type(loss) is ContrastiveLoss and loss.get_config()["margin"] == 3


def test_wrong_options_raise():
    with pytest.raises(ValueError, match=r"comparison must be one of .*'distance', 'weighted'"):
        SiameseNetwork(identity(), "cosine")
    with pytest.raises(ValueError, match="margin must be a finite positive number, got 0"):
        ContrastiveLoss(margin=0)
    encoder = keras.Sequential([keras.Input((None, 1)), keras.layers.Conv1D(2, 3)])
    with pytest.raises(ValueError, match="known length"):
        SiameseNetwork(encoder, "weighted")


def test_a_single_class_has_no_pairs():
    """Eagerly, and in ``fit``, which does not know how many classes there are."""
    for loss in (ContrastiveLoss(), PairCrossEntropy()):
        with pytest.raises(ValueError, match="2 ways or more"):
            loss(np.array([[0]]), np.array([[[-1.0]]]))
    learner = compiled(SiameseNetwork(mlutils.mlp(8, (), 2)), loss=ContrastiveLoss())
    with pytest.raises(ValueError, match="2 ways or more"):
        learner.fit(blobs(ways=1), steps_per_epoch=1, verbose=0)


def test_labels_that_do_not_fit_the_scores_raise():
    with pytest.raises(ValueError, match="shape without its last axis"):
        PairCrossEntropy()(np.zeros((4, 1), int), np.zeros((4, 5, 3)))
