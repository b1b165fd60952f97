"""The modified Hausdorff distance between drawings: the classical yardstick of Lake's test."""

import keras
import tensorflow as tf

from mlutils.classes import class_members, count_classes
from mlutils.compiled import as_graph
from mlutils.door.numbers import check_rate
from mlutils.door.tasks import check_classes, one_task
from mlutils.learner import MetaLearner


@keras.saving.register_keras_serializable(package="mlutils")
class ModifiedHausdorff(MetaLearner):
    """Nearest drawing by the modified Hausdorff distance (Dubuisson & Jain, ICPR 1994).

    Nothing is learned.  A drawing is the set of its inked pixels, moved so that their mean is the
    origin, as in the baseline that Lake published with Omniglot.  Two drawings are as far apart as
    a pixel of the one is, on average, from the nearest of the other, whichever way round is more
    (:eq:`eq-modified-hausdorff`).  A query's logit for a class is minus the distance to the class's
    nearest support drawing, in pixels.

    Inputs are floats ``(S, height, width, 1)``, labels ``(S,)`` integers 0..N-1, at least one of
    each.  A blank drawing has distance NaN from all.

    Args:
        threshold: a pixel with more than this is ink.

    Example:
        >>> upright, level = np.zeros((1, 5, 5, 1)), np.zeros((1, 5, 5, 1))
        >>> upright[:, :, 2], level[:, 2] = 1, 1
        >>> predict = mlutils.ModifiedHausdorff().adapt(np.concatenate([upright, level]), [0, 1])
        >>> print(predict(upright).numpy().round(2))
        [[-0.  -1.2]]
    """

    def __init__(self, threshold=0.5, **kwargs):
        super().__init__(**kwargs)
        self.threshold = check_rate("threshold", threshold)
        self.built = True

    @one_task
    def adapt(self, support_x, support_y):
        """Keep one task's drawings; returns a predictor to logits ``(Q, N)``."""
        points = self.points(support_x)
        of_class = class_members(support_y[tf.newaxis], support_x.dtype)[0] > 0

        def predict(query_x):
            return tf.map_fn(
                lambda query: nearest_class(query, points, of_class),
                self.points(query_x),
                fn_output_signature=points[0].dtype,
            )

        return predict

    @as_graph
    def solve(self, support_x, support_y, query_x):
        """One task after another."""
        return tf.map_fn(
            lambda task: self.adapt(*task[:2])(task[2]),
            (support_x, support_y, query_x),
            fn_output_signature=support_x.dtype,
        )

    def check_tasks(self, support_x, support_y):
        check_classes(support_y)

    def classes(self, support_y):
        return count_classes(support_y)

    def points(self, drawings):
        """The inked pixels of ``(n, height, width, 1)``: a pair of tensors.

        Positions ``(n, most, 2)`` about their mean, and whether each is ink, bool ``(n, most)``:
        ``most`` is the largest number of inked pixels among these drawings, at least 1.
        """
        drawn = drawings.shape.rank == 4 and drawings.shape[-1] == 1
        if not drawn or not drawings.dtype.is_floating:
            raise ValueError(
                "Drawings must be floats (n, height, width, 1), ink 1 and paper 0; got "
                f"{drawings.dtype.name} {drawings.shape}."
            )
        height, width = drawings.shape[1:3]
        ink = tf.reshape(drawings > self.threshold, (-1, height * width))
        most = tf.maximum(tf.reduce_max(tf.math.count_nonzero(ink, axis=1)), 1)
        first = tf.argsort(tf.cast(~ink, tf.int32), axis=1, stable=True)[:, :most]
        ink = tf.gather(ink, first, batch_dims=1)
        there = tf.cast(ink, drawings.dtype)[..., tf.newaxis]
        places = tf.cast(tf.stack([first // width, first % width], axis=-1), drawings.dtype)
        count = tf.reduce_sum(there, axis=1, keepdims=True)
        return places - tf.reduce_sum(there * places, axis=1, keepdims=True) / count, ink

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


def nearest_class(query, support, of_class):
    """Minus the distances of one query to each class's nearest drawing, ``(N,)``."""
    distances = modified_hausdorff(query, support)
    far = tf.constant(distances.dtype.max, distances.dtype)
    return -tf.reduce_min(tf.where(of_class, distances[:, tf.newaxis], far), axis=0)


def modified_hausdorff(one, others):
    """The distances between one set of points and each of others (:eq:`eq-modified-hausdorff`).

    Args:
        one: places ``(n, 2)``, and which of them count, bool ``(n,)``.
        others: the same with a leading axis ``(S, ...)``.

    Returns:
        ``(S,)``.
    """
    (a, in_a), (b, in_b) = one, others
    squares = (
        tf.reduce_sum(tf.square(a), axis=-1)[:, tf.newaxis]
        - 2 * tf.matmul(a, b, transpose_b=True)
        + tf.reduce_sum(tf.square(b), axis=-1)[:, tf.newaxis]
    )
    far = tf.constant(squares.dtype.max, squares.dtype)
    squares = tf.where(in_a[:, tf.newaxis] & in_b[:, tf.newaxis], tf.maximum(squares, 0), far)
    return tf.maximum(
        mean_where(in_a, tf.sqrt(tf.reduce_min(squares, axis=2))),
        mean_where(in_b, tf.sqrt(tf.reduce_min(squares, axis=1))),
    )


def mean_where(true, values):
    """The mean of the values where a mask is true, over the last axis."""
    weights = tf.cast(true, values.dtype)
    return tf.reduce_sum(tf.where(true, values, 0), axis=-1) / tf.reduce_sum(weights, axis=-1)
