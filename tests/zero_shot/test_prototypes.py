"""Prototypes from descriptions: by hand, by a plain loop, by finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.zero_shot import DescribedPrototypes
from tests.few_shot.tasks import (
    check_meta_gradients,
    compiled,
    identity,
    one_at_a_time,
    tanh_encoder,
)
from tests.few_shot.test_prototypical import loop_logits
from tests.zero_shot.tasks import EVEN, random_tasks


def line(slope, offset):
    """A describer of one attribute: slope * a + offset."""
    describer = mlutils.mlp(1, ())
    describer.set_weights([np.array([[slope]]), np.array([offset])])
    return describer


def element(seed=0):
    """Two tasks of three classes: descriptions and inputs of length 2."""
    random = np.random.default_rng(seed)
    signatures, query_x = random.normal(size=(2, 3, 2)), random.normal(size=(2, 6, 2))
    labels, query_y = np.array([[1, 2, 0], [2, 1, 0]]), np.array([[0, 1, 2, 0, 1, 2]] * 2)
    return tuple(map(tf.constant, (signatures, labels, query_x))), tf.constant(query_y)


# ---------------------------------------------------------------- wrong versions


class SameNetwork(DescribedPrototypes):
    """Wrong: the encoder for descriptions too, which fits if they are as long as inputs."""

    def class_vectors(self, signatures):
        return tf.map_fn(self.encoder, signatures)


class Undescribed(DescribedPrototypes):
    """Wrong: the signature itself as a prototype, which fits if it is as long as an embedding."""

    def class_vectors(self, signatures):
        return signatures


class Unsquared(DescribedPrototypes):
    """Wrong: the distance without its square."""

    def answer(self, summary, queries):
        return -tf.sqrt(-super().answer(summary, queries))


class ConstantPrototypes(DescribedPrototypes):
    """Wrong: no gradient to the describer."""

    def class_vectors(self, signatures):
        return tf.stop_gradient(super().class_vectors(signatures))


# ---------------------------------------------------------------- values derived by hand


@pytest.mark.parametrize(
    "kind, right",
    [(DescribedPrototypes, True), (SameNetwork, False), (Undescribed, False), (Unsquared, False)],
)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_pocket_numbers(kind, right, scale):
    """eq-described-prototype and eq-prototype-logits with g(a) = 2 a + 1: 0 and 2 become 1 and 5.

    Query 3 is 2 and 2 away: -4 and -4.  Query -2: -9 and -49.  A scale of 1/2 halves them.
    """
    learner = kind(identity(), line(2.0, 1.0), scale=scale)
    found = learner.adapt([[0.0], [2.0]])(tf.constant([[3.0], [-2.0]]))
    expected = scale * np.array([[-4, -4], [-9, -49]])
    assert np.allclose(found, expected, rtol=1e-6) == right


def test_squares_add_up_over_features():
    """eq-prototype-logits: g doubles (1, 0) and (0, 1); from (5, 4) it is 9 + 16 and 25 + 4."""
    describer = mlutils.mlp(2, (), 2)
    describer.set_weights([2 * np.eye(2), np.zeros(2)])
    predict = DescribedPrototypes(identity(2), describer).adapt(np.eye(2))
    np.testing.assert_array_equal(predict(tf.constant([[5.0, 4.0]])), [[-25, -29]])


@pytest.mark.parametrize(
    "kind, right", [(DescribedPrototypes, True), (SameNetwork, False), (Unsquared, False)]
)
def test_plain_loop(float64, kind, right):
    """eq-described-prototype and eq-prototype-logits: a batch of tasks."""
    learner, (inputs, _) = kind(tanh_encoder(), tanh_encoder(), scale=1.5), element()
    found, errors = learner(inputs), []
    for logits, rows, order, x in zip(found, *inputs, strict=True):
        prototypes = learner.describer(rows.numpy()[np.argsort(order)]).numpy()
        by_loop = 1.5 * loop_logits(learner.encoder(x).numpy(), prototypes)
        errors.append(np.abs(logits - by_loop).max())
    assert max(errors) < 1e-12 if right else min(errors) > 1e-2


def embedded_together(encoder, x):
    """Wrong: the descriptions of all tasks as one batch."""
    return tf.reshape(encoder(tf.reshape(x, (-1, 4)), training=False), (3, 4, -1))


@pytest.mark.parametrize("together", [False, True])
def test_a_describer_that_normalises_sees_one_task_at_a_time(float64, monkeypatch, together):
    """eq-described-prototype with ``BatchNorm`` in the describer."""
    layers = [keras.layers.Dense(4), mlutils.BatchNorm(), keras.layers.Dense(4)]
    describer = keras.Sequential([keras.Input((4,)), *layers])
    learner, inputs = DescribedPrototypes(identity(4), describer), random_tasks()
    expected = one_at_a_time(learner, inputs)
    if together:
        monkeypatch.setattr("mlutils.zero_shot.prototypes.embed", embedded_together)
    difference = np.abs(learner(inputs) - np.array(expected)).max()
    assert difference > 1e-2 if together else difference < 1e-12


# ---------------------------------------------------------------- gradients


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-prototype-logits and eq-described-prototype, of both networks' weights."""
    networks, wrong = (tanh_encoder(), tanh_encoder()), (ConstantPrototypes, SameNetwork, Unsquared)
    learners = [compiled(kind(*networks)) for kind in (DescribedPrototypes, *wrong)]
    assert len(learners[0].trainable_variables) == 8
    check_meta_gradients(*learners, episode=element())


# ---------------------------------------------------------------- training


def test_both_networks_are_trained():
    """In place: the networks that were passed."""
    networks = mlutils.mlp(4, (), 3), mlutils.mlp(4, (), 3)
    before = [network.get_weights()[0] for network in networks]
    compiled(DescribedPrototypes(*networks)).fit(EVEN, np.arange(8), EVEN, verbose=0)
    for network, weights in zip(networks, before, strict=True):
        assert np.abs(network.get_weights()[0] - weights).max() > 1e-4
