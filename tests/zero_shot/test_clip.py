"""Images and descriptions by contrast: by hand, by a plain loop, by finite differences."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.classes import class_means
from mlutils.zero_shot import CLIP, InfoNCE
from tests.few_shot.tasks import check_meta_gradients, identity, tanh_encoder
from tests.zero_shot.tasks import EVEN, ODD, drawings, pixels, unseen_accuracy
from tests.zero_shot.test_prototypes import element

# ---------------------------------------------------------------- the loss


class ImagesOnly(InfoNCE):
    """Wrong: only which description goes with an image."""

    def call(self, y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


class InOrder(InfoNCE):
    """Wrong: query k is of class k, as in the paper's pseudocode, whatever the labels say."""

    def call(self, y_true, y_pred):
        return super().call(tf.range(tf.shape(y_pred)[-2]) + 0 * tf.cast(y_true, tf.int32), y_pred)


class OwnClassToo(InfoNCE):
    """Wrong: other images of the same class are rivals."""

    def call(self, y_true, y_pred):
        own = tf.one_hot(tf.cast(y_true, tf.int32), y_pred.shape[-1], dtype=y_pred.dtype)
        right = tf.reduce_sum(own * y_pred, axis=-1)
        columns = tf.reduce_logsumexp(y_pred, axis=-2, keepdims=True)
        of_image = tf.reduce_logsumexp(y_pred, axis=-1) - right
        return (of_image + tf.reduce_sum(own * columns, axis=-1) - right) / 2


LOSSES = [(InfoNCE, True), (ImagesOnly, False), (InOrder, False), (OwnClassToo, False)]


@pytest.mark.parametrize("kind, right", [*LOSSES[:3], (OwnClassToo, True)])
@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_infonce_by_hand(kind, right, dtype):
    """eq-infonce: images of classes 1 and 0, logits (log 2, log 6) and (log 2, log 1).

    Their descriptions get 6/8 and 2/3.  In its column one image gets 6/7, the other 2/4.
    """
    scores = np.log([[2.0, 6.0], [2.0, 1.0]]).astype(np.float32)
    found = float(kind()(np.array([1, 0], dtype), scores))
    expected = -(math.log(6 / 8) + math.log(2 / 3) + math.log(6 / 7) + math.log(2 / 4)) / 4
    assert (found == pytest.approx(expected, rel=1e-5)) == right


@pytest.mark.parametrize("kind, right", LOSSES)
def test_infonce_by_a_plain_loop(float64, kind, right):
    """eq-infonce: classes with one query, with several and with none."""
    random = np.random.default_rng(0)
    labels, scores, costs = random.integers(4, size=(3, 4)), random.normal(size=(3, 4, 4)), []
    for own, table in zip(labels, scores, strict=True):
        for q, k in enumerate(own):
            rivals = [j for j in range(4) if own[j] != k]
            image = math.exp(table[q, k]) / sum(math.exp(table[q, n]) for n in range(4))
            text = math.exp(table[q, k]) / sum(math.exp(table[j, k]) for j in [q, *rivals])
            costs.append(-(math.log(image) + math.log(text)) / 2)
    found = float(kind()(labels, scores))
    assert (found == pytest.approx(np.mean(costs), rel=1e-10)) == right


def test_chance_costs_the_logarithm_of_the_batch(float64):
    """eq-infonce: N classes, one query each, all scores alike: log N."""
    assert float(InfoNCE()(np.arange(7), np.zeros((7, 7)))) == pytest.approx(math.log(7))


def test_a_task_of_one_class_has_a_gradient():
    """No rivals: nothing to learn, and no nan."""
    scores = tf.Variable([[1.0], [2.0]])
    with tf.GradientTape() as tape:
        loss = InfoNCE()(tf.constant([0, 0]), scores)
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, scores), [[0.0], [0.0]])


# ---------------------------------------------------------------- the score


class AnyLength(CLIP):
    """Wrong: inner products of embeddings as they came."""

    def answer(self, summary, queries):
        return self.scale * tf.exp(self.log_gain) * tf.matmul(queries, summary, transpose_b=True)


class Squared(CLIP):
    """Wrong: the cosines squared."""

    def answer(self, summary, queries):
        return super().answer(summary, queries) ** 2 / self.scale


class FixedScale(CLIP):
    """Wrong: the scale gets no gradient."""

    def answer(self, summary, queries):
        return super().answer(summary, queries) / tf.exp(self.log_gain)


SCORES = [(CLIP, True), (AnyLength, False), (Squared, False)]


def doubling():
    """A describer that doubles vectors of length 2."""
    describer = mlutils.mlp(2, (), 2)
    describer.set_weights([2 * np.eye(2), np.zeros(2)])
    return describer


@pytest.mark.parametrize("kind, right", SCORES)
def test_pocket_numbers(kind, right):
    """eq-clip-score, scale 10: (3, 4) has cosines .6 and .96 with (1, 0) and (.6, .8) doubled.

    (.6, .8) and (3, 4) point the same way: 1, and 10 in all.
    """
    predict = kind(identity(2), doubling(), scale=10.0).adapt([[1.0, 0.0], [0.6, 0.8]])
    assert np.allclose(predict(tf.constant([[3.0, 4.0]])), [[6, 10]], rtol=1e-5) == right


class MeanOfDescriptions(CLIP):
    """Wrong: averages descriptions, the numbers of words say, before anybody reads them."""

    def summarize(self, descriptions, labels):
        return self.class_vectors(class_means(tf.cast(descriptions, self.compute_dtype), labels))


@pytest.mark.parametrize("kind, right", [(CLIP, True), (MeanOfDescriptions, False)])
def test_several_descriptions_of_a_class(kind, right):
    """(3, 0) and (0, 1) become (1, 0) and (0, 1), whose mean is as far from either; scale 1."""
    predict = kind(identity(2), doubling(), scale=1.0).adapt([[3.0, 0.0], [0.0, 1.0]], [0, 0])
    cosines = predict(tf.constant([[1.0, 0.0], [0.0, 1.0]]))
    assert np.allclose(cosines, [[math.sqrt(0.5)]] * 2, rtol=1e-5) == right


@pytest.mark.parametrize("kind, right", SCORES)
def test_plain_loop(float64, kind, right):
    """eq-clip-score: a batch of tasks."""
    learner, (inputs, _) = kind(tanh_encoder(), tanh_encoder(), scale=3.0), element()
    found, errors = learner(inputs), []
    for logits, rows, order, x in zip(found, *inputs, strict=True):
        texts = learner.describer(rows.numpy()[np.argsort(order)]).numpy()
        images = learner.encoder(x).numpy()
        by_loop = [[3 * z @ t / math.sqrt((z @ z) * (t @ t)) for t in texts] for z in images]
        errors.append(np.abs(logits - by_loop).max())
    assert max(errors) < 1e-12 if right else min(errors) > 1e-2


def test_the_scale_stops_at_a_hundred():
    learner = CLIP(identity(2), doubling(), scale=1e4)
    assert learner.adapt([[1.0, 0.0]])(tf.constant([[2.0, 0.0]])).numpy() == pytest.approx(100)


# ---------------------------------------------------------------- gradients


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-clip-score and eq-infonce, of both networks' weights and of the scale."""
    networks = tanh_encoder(), tanh_encoder()
    learners = [kind(*networks, scale=2.0) for kind in (CLIP, AnyLength, FixedScale)]
    for learner in learners:
        learner.compile(loss=InfoNCE())
    assert len(learners[0].trainable_variables) == 9
    check_meta_gradients(*learners, episode=element())


# ---------------------------------------------------------------- training


def test_unseen_classes_are_found_by_their_descriptions():
    """Sixteen classes of four bits: trained on half of them, tested on the other half."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([pixels(), keras.layers.Flatten(), keras.layers.Dense(4)])
    learner = CLIP(encoder, mlutils.mlp(4, (), 4))
    before = unseen_accuracy(learner).mean
    learner.compile(keras.optimizers.Adam(0.05), InfoNCE(), jit_compile=False)
    tasks = drawings(EVEN, seed=0).episodes(ways=8, queries=1, meta_batch=2)
    learner.fit(tasks, steps_per_epoch=100, verbose=0)
    after = unseen_accuracy(learner)
    assert len(ODD) == 8 and before < 0.6 and after.mean - after.ci95 > 0.9
    assert abs(float(learner.log_gain)) > 1e-3
