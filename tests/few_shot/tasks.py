"""What these tests share: an encoder that does nothing, and tasks of random numbers."""

import keras
import numpy as np
import tensorflow as tf

from mlutils import Episode


def identity(size=1):
    """An encoder whose embeddings are its inputs."""
    return keras.Sequential([keras.Input((size,)), keras.layers.Identity()])


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
