"""Prototypical networks: classify by the nearest class mean in a learned embedding."""

import math

import keras
import numpy as np
import tensorflow as tf

from mlutils.episodes import check_support
from mlutils.learner import MetaLearner
from mlutils.networks import check_network


@keras.saving.register_keras_serializable(package="mlutils")
class PrototypicalNetwork(MetaLearner):
    """Prototypical network (Snell, Swersky & Zemel, NeurIPS 2017): a learned metric.

    ``adapt`` embeds the support set and averages each class into a prototype
    (:eq:`eq-prototype`); a query's logits are minus the squared Euclidean distances of its
    embedding to the prototypes (:eq:`eq-prototype-logits`).
    All that is learned is the encoder; no weight changes during adaptation.

    The number of ways and shots may differ from task to task and from training.
    The encoder is always run with ``training=False``: dropout is inert.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened; it is used and trained in place.

    Raises:
        TypeError: if ``encoder`` is not a Keras model.
        ValueError: if it is not built, or holds a trainable ``BatchNormalization``.
    """

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        check_network(encoder, "encoder")
        self.encoder = encoder
        self.built = True

    def adapt(self, support_x, support_y, ways=None):
        """Compute one task's prototypes (:eq:`eq-prototype`).

        Args:
            support_x: ``(S, ...)``.
            support_y: ``(S,)`` integers 0..N-1, at least one of each, in any order.
            ways: N; by default the largest label plus one.

        Returns:
            A predictor from query inputs ``(Q, ...)`` to logits ``(Q, N)``.

        Raises:
            ValueError: if the support set is empty, has not one integer label per input, or
                a class without examples.
        """
        support_x, support_y = tf.convert_to_tensor(support_x), tf.convert_to_tensor(support_y)
        check_support(support_x, support_y, self.encoder)
        check_integers(support_y)
        if ways is None:
            ways = count_ways(support_y)
        prototypes = class_means(self.embed(support_x), support_y, ways)
        return lambda query_x: minus_squared_distances(self.embed(query_x), prototypes)

    def call(self, inputs, training=None, ways=None):
        """As ``MetaLearner.call``; all tasks of a batch have the same number of ways."""
        if ways is None and isinstance(inputs, (tuple, list)) and len(inputs) == 3:
            ways = count_ways(check_integers(tf.convert_to_tensor(inputs[1])))
        return super().call(inputs, training, ways=ways)

    def embed(self, x):
        """The embeddings ``(batch, features)`` of inputs ``(batch, ...)``."""
        return flat(self.encoder(x, training=False))

    def get_config(self):
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**super().get_config(), "encoder": encoder}

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})


def flat(embeddings):
    """``(batch, ...)`` as ``(batch, features)``."""
    return tf.reshape(embeddings, (tf.shape(embeddings)[0], math.prod(embeddings.shape[1:])))


def class_means(embeddings, labels, ways):
    """The prototypes c_n (:eq:`eq-prototype`), for one task or with leading axes for many.

    Args:
        embeddings: ``(..., S, features)``.
        labels: ``(..., S)`` integers 0..N-1, at least one of each.
        ways: N.

    Returns:
        ``(..., N, features)``.
    """
    of_class = tf.one_hot(labels, ways, dtype=embeddings.dtype)  # (..., S, N)
    sums = tf.matmul(of_class, embeddings, transpose_a=True)
    return sums / tf.reduce_sum(of_class, axis=-2)[..., tf.newaxis]


def minus_squared_distances(queries, prototypes):
    """The logits of :eq:`eq-prototype-logits`, for one task or with leading axes for many.

    Args:
        queries: ``(..., Q, features)``.
        prototypes: ``(..., N, features)``.

    Returns:
        ``(..., Q, N)``.
    """
    differences = queries[..., :, tf.newaxis, :] - prototypes[..., tf.newaxis, :, :]
    return -tf.reduce_sum(tf.square(differences), axis=-1)


def check_integers(support_y):
    """``support_y`` if it holds integers.

    Raises:
        ValueError: if not.
    """
    if not support_y.dtype.is_integer:
        raise ValueError(
            f"support_y has dtype {support_y.dtype.name}; classes need integer labels 0..N-1."
        )
    return support_y


def count_ways(labels):
    """N, one more than the largest label of one task ``(S,)`` or of a batch ``(tasks, S)``.

    Raises:
        ValueError: if a task has no example of some class (in a graph, TensorFlow's
            ``InvalidArgumentError``).
    """
    ways = tf.cast(tf.reduce_max(labels) + 1, tf.int32)
    present = tf.reduce_any(tf.one_hot(labels, ways) > 0, axis=-2)  # a negative label: nowhere
    complete = tf.reduce_all(present) & (tf.reduce_min(labels) >= 0)
    message = "Every task needs support examples of every class, labelled 0..N-1"
    if not tf.executing_eagerly():
        tf.debugging.assert_equal(complete, True, message)
    elif not complete:
        raise ValueError(f"{message}; the labels are {np.unique(labels)}.")
    return ways
