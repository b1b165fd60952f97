"""Classes and their members: one-hot labels, class means, and how alike embeddings are."""

import tensorflow as tf

from mlutils.door.tasks import check_classes, check_labels


class AnyWays:
    """What learners do that take any number of ways; stands before ``MetaLearner`` in the bases.

    Labels ``support_y`` are ``(S,)`` integers 0..N-1, at least one of each, in any order.
    """

    def check_tasks(self, support_x, support_y):
        check_classes(support_y)

    def classes(self, support_y):
        return count_classes(support_y)

    def predicts(self):
        return tf.TensorShape([None])

    def prepare(self, element):
        """The element with support labels as bools, whose number of classes is a shape."""
        (support_x, support_y, query_x), query_y, *others = super().prepare(element)
        support_y = class_members(support_y, tf.float32) > 0
        return (support_x, support_y, query_x), query_y, *others

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Keras's, some of whose metrics need to know the number of outputs before it is read off
        labels: one for each support example, those beyond the classes lowest."""
        most = x[1].shape[1]
        if y_pred.shape[-1] is None and most is not None and y.dtype.is_integer:
            beyond = [[0, 0], [0, 0], [0, most - tf.shape(y_pred)[-1]]]
            y_pred = tf.pad(y_pred, beyond, constant_values=y_pred.dtype.min)
            y_pred = tf.ensure_shape(y_pred, [None, None, most])
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def logits(self):
        return True


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
        tf.errors.InvalidArgumentError: where only running a graph shows that labels are not of
            that kind; XLA drops assertions.
    """
    if labels.dtype == tf.bool:
        return tf.cast(labels, dtype)
    ways = count_classes(labels)
    return tf.one_hot(tf.cast(labels, tf.int32), ways, dtype=dtype)


def count_classes(labels):
    """N of labels as ``class_members`` takes them: a number, or in a graph a tensor."""
    if labels.dtype == tf.bool:
        return labels.shape[2] or tf.shape(labels)[2]
    values = tf.get_static_value(labels)
    if values is not None:
        return int(values.max()) + 1
    labels = tf.cast(labels, tf.int64)
    highest = tf.reduce_max(labels)
    sensible = (tf.reduce_min(labels) >= 0) & (highest < tf.shape(labels, tf.int64)[1])
    ways = tf.where(sensible, tf.cast(highest, tf.int32) + 1, 1)
    members = tf.one_hot(tf.cast(labels, tf.int32), ways) > 0
    complete = sensible & tf.reduce_all(tf.reduce_any(members, axis=1))
    message = "Every task needs support examples of every class, labelled 0..N-1"
    with tf.control_dependencies([tf.debugging.Assert(complete, [message])]):
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
        check_labels("targets", labels, scores.shape[-1])
    return tf.one_hot(tf.cast(labels, tf.int32), tf.shape(scores)[-1], dtype=scores.dtype)


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
