"""What these tests share: small encoders, random tasks and learners, tasks to learn from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import Episode
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, relative_error

# Three support examples in different orders, and the types that labels may have.
orders = pytest.mark.parametrize(
    "order, dtype", [([0, 1, 2], "uint8"), ([2, 1, 0], "int32"), ([1, 2, 0], "int64")]
)


def identity(size=1):
    """An encoder whose embeddings are its inputs."""
    return keras.Sequential([keras.Input((size,)), keras.layers.Identity()])


def tanh_encoder():
    return mlutils.mlp(input_size=2, hidden=(4,), outputs=3, activation="tanh")


def randomized(model):
    """Weights and biases so large that nothing is nearly linear, and no label goes unnoticed."""
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    return model


def compiled(learner, rate=1e-2, loss=None):
    """With Adam, for logits unless another loss is given; without XLA, which takes longer here."""
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    return learner


# ---------------------------------------------------------------- random tasks


def random_labels(random, tasks, ways, examples):
    """``(tasks, examples)``: every class in every task, how often and where differs."""
    each = np.tile(np.arange(ways), (tasks, 1))
    others = random.integers(ways, size=(tasks, examples - ways))
    return random.permuted(np.concatenate([each, others], axis=1), axis=1)


def random_episode(tasks=3, ways=3, support=8, queries=5, regression=False, seed=0):
    """Inputs of length 2; with ``regression`` targets of length ``ways`` instead of labels."""
    random = np.random.default_rng(seed)

    def examples(number):
        x = random.normal(size=(tasks, number, 2))
        if regression:
            return tf.constant(x), tf.constant(random.normal(size=(tasks, number, ways)))
        return tf.constant(x), tf.constant(random_labels(random, tasks, ways, number))

    return Episode(*examples(support), *examples(queries))


def one_task(**options):
    return Episode(*(value[0] for value in random_episode(**options)))


def as_vectors(labels):
    """Integer labels of three classes as one-hot, targets as they are."""
    labels = np.asarray(labels)
    return labels if labels.ndim > 1 else np.eye(3)[labels]


# ---------------------------------------------------------------- what learners do


def predictions(learner, task):
    return learner.adapt(task.support_x, task.support_y)(task.query_x).numpy()


def one_at_a_time(learner, inputs):
    """The predictions ``(tasks, Q, outputs)`` by ``adapt``."""
    return np.stack([learner.adapt(x, y)(query_x) for x, y, query_x in zip(*inputs, strict=True)])


def check_meta_gradients(right, *wrong, episode):
    """The meta-gradient equals finite differences in three random directions of all the weights.

    That of each wrong version, which has the same weights in the same order, does not.
    """
    variables, random = right.trainable_variables, np.random.default_rng(0)
    start = [variable.numpy() for variable in variables]
    directions = [random.normal(size=(3, *values.shape)) for values in start]
    steps = tf.Variable(np.zeros(3))

    def moved_loss():
        for variable, values, ways in zip(variables, start, directions, strict=True):
            variable.assign(values + tf.tensordot(steps, ways, 1))
        return right.meta_loss(episode)

    reference, errors = finite_differences(moved_loss, [steps]), []
    for variable, values in zip(variables, start, strict=True):
        variable.assign(values)
    for learner in (right, *wrong):
        learner.run_eagerly = True  # once, which takes less time than making a graph
        _, gradients = learner.meta_gradients(episode)
        along = [np.tensordot(d, g, g.ndim) for d, g in zip(directions, gradients, strict=True)]
        errors.append(relative_error(sum(along), reference))
    assert errors[0] < RELATIVE_TOLERANCE
    assert min(errors[1:]) > 1e-2


# ---------------------------------------------------------------- tasks to learn from


def blobs(ways=3, shots=2, seed=0, **options):
    """Tasks from twenty classes: two inputs tell them apart, six more are noise."""
    random = np.random.default_rng(seed)
    centres = np.pad(2 * random.normal(size=(20, 1, 2)), ((0, 0), (0, 0), (0, 6)))
    x = centres + random.normal(size=(20, 30, 8)) * np.repeat([0.3, 3.0], [2, 6])
    return mlutils.data.episodes(
        x.reshape(600, 8), np.repeat(np.arange(20), 30), ways, shots, seed=seed, **options
    )


def named_anew(**options):
    """Two clouds of points whose names 0 and 1 are drawn anew for each task, one shot."""
    x = np.random.default_rng(0).normal(size=(2, 40, 2)) / 2 + np.array([[[2, 0]], [[-2, 0]]])
    return mlutils.data.episodes(x.reshape(80, 2), np.repeat([0, 1], 40), 2, 1, **options)
