"""The controls beside which every result is shown."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import Episode
from mlutils.controls import FromScratch
from tests.test_evaluation import Constant


def identity(size):
    return keras.Sequential([keras.Input((size,)), keras.layers.Identity()])


def blobs(tasks=50, seed=0):
    """Two-class tasks: class means at random, six examples each, integer labels."""
    random = np.random.default_rng(seed)
    means = random.normal(size=(tasks, 2, 4)) * 3
    labels = np.tile(np.repeat([0, 1], 6), (tasks, 1))
    x = means[np.arange(tasks)[:, None], labels] + random.normal(size=(tasks, 12, 4))
    support, query = [0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]
    x, labels = tf.constant(x, tf.float32), tf.constant(labels)
    return [Episode(*(tf.gather(v, i, axis=1) for i in (support, query) for v in (x, labels)))]


def test_controls_of_a_classifier():
    learner = mlutils.MAML(mlutils.mlp(4, (8,), 2), inner_lr=0.1, inner_steps=5)
    learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    episodes = blobs()
    scores = mlutils.controls(learner, episodes, tasks=50, encoder=identity(4))
    assert list(scores) == [
        "no adaptation",
        "shuffled support labels",
        "trained from scratch",
        "nearest centroid",
    ]
    assert all(score.percent and score.tasks == 50 for score in scores.values())
    # An untrained network knows nothing; centroids and training separate the blobs.
    assert abs(scores["no adaptation"].mean - 0.5) < 0.2
    assert scores["nearest centroid"].mean > 0.95
    assert scores["trained from scratch"].mean > 0.9
    adapted = mlutils.evaluate(learner, episodes, tasks=50)
    assert adapted.mean - adapted.ci95 > scores["shuffled support labels"].mean


def test_training_from_scratch_equals_keras_adam():
    """One task after the other, from ten starts in turn: task 10 begins as task 0 does.

    Negative control: task 1 begins elsewhere.
    """
    episode = Episode.from_element(next(iter(mlutils.data.sinusoids(meta_batch=11))))
    learner = mlutils.MAML(mlutils.mlp(hidden=(4,)))
    learner.compile(loss="mse")
    scratch = FromScratch(learner.model, learner.task_loss, steps=20)
    found = scratch(episode.element[0])

    def by_keras(task, start):
        model = keras.models.clone_model(learner.model)
        model.set_weights([weights[start].numpy() for weights in scratch.starts])
        optimizer = keras.optimizers.Adam(0.01)
        for _ in range(20):
            with tf.GradientTape() as tape:
                loss = learner.task_loss(episode.support_y[task], model(episode.support_x[task]))
            optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
        return model(episode.query_x[task])

    for task in (0, 1, 10):
        np.testing.assert_allclose(found[task], by_keras(task, task % 10), rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(found[1] - by_keras(1, 0))) > 1e-2


def test_a_learner_without_a_model_has_fewer_controls():
    """Options are passed on."""
    episodes = mlutils.data.sinusoids()
    plain, shifted = (mlutils.controls(Constant(), episodes, 25, shift=shift) for shift in (0.0, 9))
    assert list(plain) == ["shuffled support labels"]
    assert shifted["shuffled support labels"].mean > plain["shuffled support labels"].mean + 9


class Subclassed(keras.Model):
    """Keras cannot clone it."""

    def __init__(self, units):
        super().__init__()
        self.head = keras.layers.Dense(units)

    def call(self, x):
        return self.head(x)


def built(model):
    model(tf.zeros((1, 1)))
    return model


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda episodes: dict(episodes=iter(episodes)), "iterated only once"),
        (lambda episodes: dict(encoder=identity(1)), r"float32; classes need \(S,\) integer"),
        (lambda episodes: dict(model=built(Subclassed(1))), "cannot be cloned"),
    ],
)
def test_wrong_input_raises(make, words):
    episodes = mlutils.data.sinusoids()
    with pytest.raises(ValueError, match=words):
        mlutils.controls(
            **{"learner": Constant(), "episodes": episodes, "tasks": 25} | make(episodes)
        )
