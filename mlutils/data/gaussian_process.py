"""Smooth random functions whose best predictor is known exactly."""

import numpy as np
import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_positive, check_seed
from mlutils.door.tasks import Anyone, as_tensor, read_inputs
from mlutils.episodes import Episode

X = (-2.0, 2.0)


class GaussianProcess:
    """Tasks that are draws from a Gaussian process on [-2, 2], and their exact ceiling.

    The covariance of two points is ``scale² exp(-(x - x')² / (2 length²))``, plus ``noise²`` of a
    point with itself.  The posterior (:eq:`eq-gp-posterior`) is the ceiling: no other predictor
    gives the queries a higher likelihood on average.  The defaults are those of the neural process
    papers.

    Args:
        length: over which a function changes, positive.
        scale: standard deviation of its values, positive.
        noise: standard deviation of the noise on y, at least a millionth of ``scale``: with less,
            covariances of close points cannot be told from singular ones.

    Example:
        >>> family = mlutils.data.GaussianProcess()
        >>> inputs, query_y = next(iter(family.episodes(shots=5, queries=10, meta_batch=16)))
        >>> tuple(family.posterior(inputs).shape)  # a mean and a standard deviation for each query
        (16, 10, 2)
    """

    def __init__(self, length=0.4, scale=1.0, noise=0.02):
        self.length, self.scale = check_positive("length", length), check_positive("scale", scale)
        self.noise = check_positive("noise", noise)
        if self.noise < 1e-6 * self.scale:
            raise ValueError(f"noise must be at least 1e-6 times scale, got {noise!r}.")

    def episodes(self, shots=(3, 10), queries=10, meta_batch=16, seed=0):
        """Endless batches of tasks.

        Args:
            shots: K, support points per task, or the least and the most of them: then each
                batch draws its own number.
            queries: query points per task.
            meta_batch: tasks per batch.
            seed: 0 to 2**32 - 1; the same seed gives the same batches.

        Returns:
            A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)``, float32, of
            shapes ``(meta_batch, points, 1)``.
        """
        if not isinstance(shots, (tuple, list)):
            shots = (shots, shots)
        if len(shots) != 2:
            raise ValueError(f"shots must be a number, or the least and the most; got {shots!r}.")
        least, most = shots
        least = check_count("shots", least)
        most, queries = check_count("shots", most, least), check_count("queries", queries)
        meta_batch, seed = check_count("meta_batch", meta_batch), check_seed(seed)

        def sample(draws):
            x = draws.uniform((meta_batch, most + queries, 1), *X)
            root = tf.linalg.cholesky(self.covariance(x) + self.noisy(most + queries))
            normal = tf.cast(draws.normal((meta_batch, most + queries, 1)), root.dtype)
            y = tf.cast(root @ normal, tf.float32)
            kept = least
            if most > least:
                kept += tf.cast(draws.uniform(()) * (most + 1 - least), tf.int32)
            return Episode(x[:, :kept], y[:, :kept], x[:, most:], y[:, most:]).element

        return endless(sample, seed)

    def posterior(self, inputs):
        """The exact posterior (:eq:`eq-gp-posterior`): the ceiling, for ``evaluation.score``.

        Args:
            inputs: ``(support_x, support_y, query_x)``, a batch of tasks.

        Returns:
            ``(tasks, Q, 2)``: mean and standard deviation of each query's y, noise included.
        """
        dtype = as_tensor("support_x", tf.nest.flatten(inputs)[0]).dtype
        support_x, support_y, query_x = read_inputs(Anyone(dtype), inputs)
        shapes = [value.shape for value in (support_x, support_y, query_x)]
        if not all(shape.is_compatible_with((None, None, 1)) for shape in shapes):
            raise ValueError(
                f"support_x, support_y and query_x have shapes {shapes[0]}, {shapes[1]} and "
                f"{shapes[2]}; allowed are (tasks, S, 1), (tasks, S, 1) and (tasks, Q, 1)."
            )
        cross = self.covariance(query_x, support_x)
        covariance = self.covariance(support_x) + self.noisy(tf.shape(support_x)[1])
        weights = tf.linalg.matrix_transpose(
            tf.linalg.solve(covariance, tf.linalg.matrix_transpose(cross))
        )
        mean = weights @ tf.cast(support_y, tf.float64)
        explained = tf.reduce_sum(weights * cross, axis=-1, keepdims=True)
        deviation = tf.sqrt(self.scale**2 + self.noise**2 - explained)
        return tf.cast(tf.concat([mean, deviation], axis=-1), support_x.dtype)

    def covariance(self, x, other=None):
        """``(..., n, 1)`` and ``(..., m, 1)`` to ``(..., n, m)``, without the noise, in float64:
        in float32 a small noise would drown in rounding."""
        x, other = (tf.cast(x if v is None else v, tf.float64) for v in (x, other))
        distance = (x - tf.linalg.matrix_transpose(other)) / self.length
        return self.scale**2 * tf.exp(-tf.square(distance) / 2)

    def noisy(self, points):
        return np.float64(self.noise**2) * tf.eye(points, dtype=tf.float64)
