"""Relation networks: the equation by hand, by a plain loop, and beside wrong versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import PrototypicalNetwork, RelationNetwork
from tests.few_shot.tasks import (
    check_meta_gradients,
    compiled,
    identity,
    one_at_a_time,
    orders,
    random_episode,
    tanh_encoder,
)
from tests.few_shot.test_prototypical import LINE, loop_prototypes


def linear(kernel, bias=0.0, shape=None):
    """A relation network that weighs the numbers of a pair, of ``shape`` or one axis, and adds."""
    layers = [keras.layers.Flatten(), keras.layers.Dense(1)]
    relation = keras.Sequential([keras.Input(shape or (len(kernel),)), *layers])
    relation.set_weights([np.array(kernel, float)[:, np.newaxis], np.array([bias])])
    return relation


def tanh_relation():
    """For the embeddings of ``tanh_encoder``."""
    return mlutils.mlp(input_size=6, hidden=(4,), activation="tanh")


# ---------------------------------------------------------------- values derived by hand


@orders
def test_pocket_numbers(order, dtype):
    """eq-relation on a line with the relation r(c, z) = 2 c + 3 z + 1.

    The support set is 0 and 2 of class 0, 10 of class 1: c_0 = 1 and c_1 = 10.
    Query 4: 2 + 12 + 1 = 15 and 20 + 12 + 1 = 33.  Query -7: 2 - 21 + 1 = -18 and 20 - 20 = 0.
    """
    support_x, support_y = (tf.gather(values, order) for values in LINE)
    learner = RelationNetwork(identity(), linear([2, 3], 1))
    predict = learner.adapt(support_x, tf.cast(support_y, dtype))
    np.testing.assert_array_equal(predict(tf.constant([[4.0], [-7.0]])), [[15, 33], [-18, 0]])


def test_the_class_comes_first():
    """eq-relation in the plane: with the weights 1000, 100, 10 and 1 a score spells its pair."""
    learner = RelationNetwork(identity(2), linear([1000, 100, 10, 1]))
    predict = learner.adapt([[5.0, 6.0], [1.0, 2.0]], [1, 0])
    found = predict(tf.constant([[3.0, 4.0], [7.0, 8.0]]))
    np.testing.assert_array_equal(found, [[1234, 5634], [1278, 5678]])


def test_feature_maps_are_paired_channel_by_channel():
    """eq-relation for embeddings of shape (1, 2, 2): two places of two channels.

    The class has (1, 2) and (3, 4), the query (5, 6) and (7, 8); side by side at each place that is
    (1, 2, 5, 6) and (3, 4, 7, 8), which weights of 10^7 to 1 spell.
    """
    encoder = keras.Sequential([keras.Input((1, 2, 2)), keras.layers.Identity()])
    relation = linear([10**i for i in range(7, -1, -1)], shape=(1, 2, 4))
    predict = RelationNetwork(encoder, relation).adapt([[[[1.0, 2.0], [3.0, 4.0]]]], [0])
    found = predict(tf.constant([[[[5.0, 6.0], [7.0, 8.0]]]]))
    np.testing.assert_array_equal(found, [[12563478]])


def test_a_distance_is_one_relation_of_many():
    """eq-relation with r(c, z) = -relu(c - z) - relu(z - c) = -|c - z|, class means 1 and 10."""
    relation = mlutils.mlp(2, (2,))
    kernel = np.array([[1.0, -1.0], [-1.0, 1.0]])
    relation.set_weights([kernel, np.zeros(2), np.array([[-1.0], [-1.0]]), np.zeros(1)])
    predict = RelationNetwork(identity(), relation).adapt(*LINE)
    np.testing.assert_array_equal(predict(tf.constant([[4.0], [7.0]])), [[-3, -6], [-6, -3]])


# ---------------------------------------------------------------- plain loops


class QueryFirst(RelationNetwork):
    """Wrong: the query's embedding before the class's."""

    def answer(self, summary, queries):
        return tf.transpose(super().answer(queries, summary), (0, 2, 1))


class SumOfClass(RelationNetwork):
    """Wrong here, though the paper's: the sum of a class instead of its mean."""

    def summarize(self, support, labels):
        return tf.matmul(tf.one_hot(labels, 3, dtype=support.dtype), support, transpose_a=True)


def loop_scores(learner, support_x, labels, query_x, ways=3):
    """eq-relation for one task, one pair at a time."""
    means = loop_prototypes(learner.encoder(support_x).numpy(), labels.numpy(), ways)
    queries = learner.encoder(query_x).numpy()
    pairs = [[np.concatenate([mean, z], axis=-1) for mean in means] for z in queries]
    return np.array([[learner.relation(r[np.newaxis])[0, 0] for r in row] for row in pairs])


@pytest.mark.parametrize(
    "kind, right", [(RelationNetwork, True), (QueryFirst, False), (SumOfClass, False)]
)
def test_plain_loop(float64, kind, right):
    """eq-relation: a batch of tasks with one to several shots per class."""
    learner, (inputs, _) = kind(tanh_encoder(), tanh_relation()), random_episode().element
    expected = [loop_scores(learner, *task) for task in zip(*inputs, strict=True)]
    error = np.abs(learner(inputs) - expected).max()
    assert error < 1e-12 if right else error > 1e-2


@pytest.mark.parametrize("kind, right", [(RelationNetwork, True), (QueryFirst, False)])
def test_plain_loop_with_feature_maps(float64, kind, right):
    """eq-relation with convolutions: embeddings (4, 4, 2), pairs (4, 4, 4)."""
    encoder = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3)])
    layers = [keras.layers.Conv2D(3, 3, activation="tanh"), keras.layers.Flatten()]
    relation = keras.Sequential([keras.Input((4, 4, 4)), *layers, keras.layers.Dense(1)])
    learner, random = kind(encoder, relation), np.random.default_rng(0)
    x, query_x = (tf.constant(random.normal(size=(2, n, 6, 6, 1))) for n in (7, 4))
    inputs = x, tf.constant([[0, 1, 2, 0, 1, 2, 0], [2, 2, 1, 1, 1, 0, 0]]), query_x
    expected = [loop_scores(learner, *task) for task in zip(*inputs, strict=True)]
    error = np.abs(learner(inputs) - expected).max()
    assert error < 1e-12 if right else error > 1e-2


# ---------------------------------------------------------------- what the equation implies


def test_dropout_of_the_relation_network_is_inert():
    """In fit, whose loss is that of ``meta_loss``, and when asked for."""
    relation = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.9), linear([1] * 4)])
    learner = compiled(RelationNetwork(identity(2), relation), rate=0.0)
    element = random_episode().element
    np.testing.assert_array_equal(learner(element[0], training=True), learner(element[0]))
    loss = learner.fit(tf.data.Dataset.from_tensors(element), verbose=0).history["loss"][0]
    assert loss == pytest.approx(float(learner.meta_loss(element)), rel=1e-5)


def test_a_relation_network_that_normalises_sees_one_task_at_a_time(float64):
    """A batch equals one task at a time, also with ``BatchNorm`` in the relation network."""
    layers = [keras.layers.Dense(4), mlutils.BatchNorm(), keras.layers.Dense(1)]
    relation = keras.Sequential([keras.Input((4,)), *layers])
    learner, (inputs, _) = RelationNetwork(identity(2), relation), random_episode().element
    np.testing.assert_allclose(learner(inputs), one_at_a_time(learner, inputs), atol=1e-12)


# ---------------------------------------------------------------- gradients, training


class ConstantMeans(RelationNetwork):
    """Wrong: no gradient through the class means."""

    def summarize(self, support, labels):
        return tf.stop_gradient(super().summarize(support, labels))


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-relation, of both networks' weights, beside wrong versions."""
    networks, kinds = (tanh_encoder(), tanh_relation()), [ConstantMeans, QueryFirst, SumOfClass]
    right, *wrong = (compiled(kind(*networks)) for kind in (RelationNetwork, *kinds))
    assert len(right.trainable_variables) == 8
    check_meta_gradients(right, *wrong, episode=random_episode())


def quarter_turns(tasks, seed=0):
    """Support c of class 0 and -c of class 1 on a circle; each one's query is a quarter turn on."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, size=(tasks, 1))
    angles = np.concatenate([angle, angle + np.pi], axis=1)
    labels = np.tile([0, 1], (tasks, 1))

    def points(angles):
        return np.stack([np.cos(angles), np.sin(angles)], axis=2).astype("float32")

    return (points(angles), labels, points(angles + np.pi / 2)), labels


def test_fit_learns_a_relation_that_is_no_distance():
    """Quarter turns T: a query belongs to c if it is Tc, and to -c if it is -Tc.

    A distance d of embeddings would need d(c, Tc) < d(-c, Tc) for every c.  With Tc, -c and -Tc in
    the place of c that is d(Tc, -c) < d(-Tc, -c), d(-c, -Tc) < d(c, -Tc), d(-Tc, c) < d(Tc, c): a
    circle of four, one of which is false.  On average no encoder is right on more than 3/4.
    """
    encoders = [mlutils.mlp(2, (16,), 4) for _ in range(2)]
    relating = RelationNetwork(encoders[0], mlutils.mlp(8, (16,)))
    scores = []
    for learner in (relating, PrototypicalNetwork(encoders[1])):
        compiled(learner, rate=2e-2).fit(*quarter_turns(3200), batch_size=32, epochs=1, verbose=0)
        scores.append(mlutils.evaluate(learner, [quarter_turns(600, seed=1)]))
    assert scores[0].mean > 0.9
    assert scores[1].mean < 0.75 + scores[1].ci95
