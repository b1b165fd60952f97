"""Classes and their members: one-hot labels, class means, and how alike embeddings are."""

import numpy as np
import tensorflow as tf


def class_means(embeddings, labels):
    """The mean embedding of each class (:eq:`eq-prototype`).

    Args:
        embeddings: ``(tasks, S, features)``.
        labels: as for ``class_members``.

    Returns:
        ``(tasks, N, features)``.
    """
    of_class = class_members(labels, embeddings.dtype)
    sums = tf.matmul(of_class, embeddings, transpose_a=True)
    return sums / tf.reduce_sum(of_class, axis=1)[..., tf.newaxis]


def class_members(labels, dtype):
    """Which examples are of which class, as one-hot vectors.

    N of integer labels is read off their values.  XLA needs a program of its own for each value
    that a shape depends on: give it ``(tasks, S, N)`` bools, as a learner's ``fit`` does.

    Args:
        labels: ``(tasks, S)`` integers 0..N-1, at least one of each in every task; or
            ``(tasks, S, N)`` bools, true where an example is of a class.
        dtype: of the result.

    Returns:
        ``(tasks, S, N)``.

    Raises:
        ValueError: if the labels are not of that kind (where only running the graph shows it,
            TensorFlow's ``InvalidArgumentError``; XLA drops assertions).
    """
    if labels.dtype == tf.bool and labels.shape.rank == 3:
        return tf.cast(labels, dtype)
    return tf.one_hot(tf.cast(labels, tf.int32), count_ways(labels), dtype=dtype)


def count_ways(labels):
    """N of integer labels ``(tasks, S)``; raises as ``class_members`` says."""
    if not labels.dtype.is_integer or labels.shape.rank not in (2, None):
        raise ValueError(
            f"support_y has shape {labels.shape[1:]} and dtype {labels.dtype.name}; classes need "
            "(S,) integer labels 0..N-1."
        )
    ways = tf.cast(tf.reduce_max(labels), tf.int32) + 1
    members = tf.one_hot(tf.cast(labels, tf.int32), ways)  # a negative label: nowhere
    complete = tf.reduce_all(tf.reduce_any(members > 0, axis=1)) & (tf.reduce_min(labels) >= 0)
    message = "Every task needs support examples of every class, labelled 0..N-1"
    if tf.executing_eagerly():
        if not complete:
            raise ValueError(f"{message}; the labels are {np.unique(labels)}.")
        return ways
    with tf.control_dependencies([tf.debugging.assert_equal(complete, True, message)]):
        return tf.identity(ways)


def true_class(labels, scores):
    """Labels ``(..., Q)`` as one-hot vectors beside scores ``(..., Q, N)``."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank is not None and not labels.shape.is_compatible_with(scores.shape[:-1]):
        raise ValueError(
            f"The labels have shape {labels.shape} and the scores {scores.shape}; the labels must "
            "have the scores' shape without its last axis."
        )
    if scores.shape[-1] is not None:
        check_range(labels, scores.shape[-1])
    return tf.one_hot(tf.cast(labels, tf.int32), tf.shape(scores)[-1], dtype=scores.dtype)


def check_range(labels, ways):
    """Raise if integer labels, where their values are known, are not 0..ways-1."""
    if not tf.executing_eagerly():
        return
    low, high = int(tf.reduce_min(labels)), int(tf.reduce_max(labels))
    if low < 0 or high >= ways:
        raise ValueError(
            f"The labels run from {low} to {high}; allowed are 0 to {ways - 1}, because there are "
            f"{ways} outputs."
        )


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


def cosines(queries, keys):
    """The cosines between ``(..., Q, features)`` and ``(..., n, features)``: ``(..., Q, n)``.

    A vector of zeros has cosine 0 with everything.
    """
    queries = tf.convert_to_tensor(queries)
    units = [tf.math.l2_normalize(at_least_single(x), axis=-1) for x in (queries, keys)]
    return tf.cast(tf.matmul(*units, transpose_b=True), queries.dtype)


def at_least_single(x):
    """Numbers of half precision in single precision, in which sums are safe; others as they are."""
    x = tf.convert_to_tensor(x)
    half = x.dtype.is_floating and x.dtype.size < 4
    return tf.cast(x, tf.float32) if half else x
