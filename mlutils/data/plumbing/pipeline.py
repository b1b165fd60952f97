"""What the endless, repeatable pipelines of tasks have in common."""

import itertools

import tensorflow as tf


def endless(sample, seed):
    """A dataset of ``sample(draws)``, endless and the same each time it is iterated.

    Args:
        sample: makes one element from a ``Draws``, whose methods draw float32 tensors, new ones
            at each call.
        seed: 0 to 2**32 - 1.

    Returns:
        A ``tf.data.Dataset``.
    """

    def element(index):
        return sample(Draws(seed, index))

    return tf.data.Dataset.counter().map(element).prefetch(tf.data.AUTOTUNE)


class Draws:
    """Random numbers for one element of a dataset: a stream of its own for every draw."""

    def __init__(self, seed, index):
        self.seed, self.index, self.streams = seed, index, itertools.count()

    def seeds(self):
        stream = self.seed + next(self.streams) * 2**32
        return tf.stack([tf.constant(stream, tf.int64), self.index])

    def uniform(self, shape, low=0.0, high=1.0):
        return tf.random.stateless_uniform(shape, self.seeds(), low, high)

    def normal(self, shape):
        return tf.random.stateless_normal(shape, self.seeds())
