"""Prototypical networks: classify by the nearest class mean in a learned embedding."""

import keras
import numpy as np
import tensorflow as tf

from mlutils.checks import check_option, check_positive
from mlutils.few_shot.encoder_learner import EncoderLearner

DISTANCES = ("euclidean", "cosine")


@keras.saving.register_keras_serializable(package="mlutils")
class PrototypicalNetwork(EncoderLearner):
    """Prototypical network (Snell, Swersky & Zemel, NeurIPS 2017): a learned metric.

    ``adapt`` embeds the support set and averages each class into a prototype
    (:eq:`eq-prototype`); a query's logits are minus the squared Euclidean distances of its
    embedding to the prototypes (:eq:`eq-prototype-logits`), or its cosines with them, times
    ``scale``: compile with ``SparseCategoricalCrossentropy(from_logits=True)``.
    With distances it is a linear classifier on the embedding (:eq:`eq-prototype-linear`).
    All that is learned is the encoder; no weight changes during adaptation.  Not trained at all,
    on a pretrained encoder, it is the nearest-centroid control.

    Labels ``support_y`` are ``(S,)`` integers 0..N-1, at least one of each, in any order.  The
    numbers of ways and shots may differ from those in training.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened; it is used and trained in place.
        distance: ``"euclidean"`` (squared) or ``"cosine"``.
        scale: what distances or cosines are multiplied by, positive.  None is 1 for distances, as
            in the paper, and 10 for cosines, which never exceed 1.  It changes no decision, and
            decides how well training goes: embeddings of length 8, as ``RMSNormalization`` makes
            them of 64 features, are up to 256 apart, and want a scale of about 0.1.

    Raises:
        TypeError: if ``encoder`` is not a Keras model.
        ValueError: if it is not built, or holds a trainable ``BatchNormalization``; for an unknown
            ``distance`` or a ``scale`` that is not positive.
    """

    def __init__(self, encoder, distance="euclidean", scale=None, **kwargs):
        super().__init__(encoder, **kwargs)
        self.distance = check_option("distance", distance, DISTANCES)
        if scale is None:
            scale = 10.0 if distance == "cosine" else 1.0
        self.scale = check_positive("scale", scale)

    def summarize(self, support, labels):
        """The prototypes ``(tasks, N, features)`` (:eq:`eq-prototype`)."""
        return class_means(support, labels)

    def answer(self, summary, queries):
        """The logits ``(tasks, Q, N)`` (:eq:`eq-prototype-logits`)."""
        alike = cosines if self.distance == "cosine" else minus_squared_distances
        return self.scale * alike(queries, summary)

    def get_config(self):
        return {**super().get_config(), "distance": self.distance, "scale": self.scale}


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
    of_class = class_members(labels, embeddings.dtype)
    sums = tf.matmul(of_class, embeddings, transpose_a=True)
    return sums / tf.reduce_sum(of_class, axis=1)[..., tf.newaxis]


def class_members(labels, dtype):
    """Labels ``(tasks, S)`` as one-hot vectors ``(tasks, S, N)``; raises as ``class_means``."""
    return tf.one_hot(tf.cast(labels, tf.int32), count_ways(labels), dtype=dtype)


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
    queries, keys = (tf.math.l2_normalize(x, axis=-1) for x in (queries, keys))
    return tf.matmul(queries, keys, transpose_b=True)


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
