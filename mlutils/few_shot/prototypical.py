"""Prototypical networks: classify by the nearest class mean in a learned embedding."""

import keras
import numpy as np
import tensorflow as tf

from mlutils.few_shot.encoder_learner import EncoderLearner


@keras.saving.register_keras_serializable(package="mlutils")
class PrototypicalNetwork(EncoderLearner):
    """Prototypical network (Snell, Swersky & Zemel, NeurIPS 2017): a learned metric.

    ``adapt`` embeds the support set and averages each class into a prototype
    (:eq:`eq-prototype`); a query's logits are minus the squared Euclidean distances of its
    embedding to the prototypes (:eq:`eq-prototype-logits`); compile with
    ``SparseCategoricalCrossentropy(from_logits=True)``.
    All that is learned is the encoder; no weight changes during adaptation.

    Labels ``support_y`` are ``(S,)`` integers 0..N-1, at least one of each, in any order.  The
    numbers of ways and shots may differ from those in training.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened; it is used and trained in place.

    Raises:
        TypeError: if ``encoder`` is not a Keras model.
        ValueError: if it is not built, or holds a trainable ``BatchNormalization``.
    """

    def summarize(self, support, labels):
        """The prototypes ``(tasks, N, features)`` (:eq:`eq-prototype`)."""
        return class_means(support, labels)

    def answer(self, summary, queries):
        """The logits ``(tasks, Q, N)`` (:eq:`eq-prototype-logits`)."""
        return minus_squared_distances(queries, summary)


def class_means(embeddings, labels):
    """The mean embedding of each class (:eq:`eq-prototype`).

    Args:
        embeddings: ``(tasks, S, features)``.
        labels: ``(tasks, S)`` integers 0..N-1, at least one of each in every task.

    Returns:
        ``(tasks, N, features)``.

    Raises:
        ValueError: if the labels are not of that kind (where only running the graph shows it,
            TensorFlow's ``InvalidArgumentError``; XLA drops assertions, and a class without
            examples then gets NaN).
    """
    ways = count_ways(labels)
    of_class = tf.one_hot(tf.cast(labels, tf.int32), ways, dtype=embeddings.dtype)  # (tasks, S, N)
    sums = tf.matmul(of_class, embeddings, transpose_a=True)
    return sums / tf.reduce_sum(of_class, axis=1)[..., tf.newaxis]


def minus_squared_distances(queries, prototypes):
    """Minus the squared Euclidean distances (:eq:`eq-prototype-logits`).

    Args:
        queries: ``(tasks, Q, features)``.
        prototypes: ``(tasks, N, features)``.

    Returns:
        ``(tasks, Q, N)``.
    """
    differences = queries[:, :, tf.newaxis] - prototypes[:, tf.newaxis]
    return -tf.reduce_sum(tf.square(differences), axis=-1)


def count_ways(labels):
    """N of a batch of tasks with labels ``(tasks, S)``; raises as ``class_means`` says."""
    if not labels.dtype.is_integer or labels.shape.rank not in (2, None):
        raise ValueError(
            f"support_y has shape {labels.shape[1:]} and dtype {labels.dtype.name}; classes need "
            "(S,) integer labels 0..N-1."
        )
    ways = tf.cast(tf.reduce_max(labels), tf.int32) + 1
    present = tf.reduce_any(
        tf.one_hot(tf.cast(labels, tf.int32), ways) > 0, axis=1
    )  # a negative label: nowhere
    complete = tf.reduce_all(present) & (tf.reduce_min(labels) >= 0)
    message = "Every task needs support examples of every class, labelled 0..N-1"
    if not tf.executing_eagerly():
        tf.debugging.assert_equal(complete, True, message)
    elif not complete:
        raise ValueError(f"{message}; the labels are {np.unique(labels)}.")
    return ways
