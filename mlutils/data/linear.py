"""Linear regression tasks whose best learner is known exactly."""

import numpy as np
import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_rate, check_seed
from mlutils.door.tasks import Anyone, as_inputs, read_inputs
from mlutils.episodes import Episode


class LinearGaussian:
    """Tasks ``y = theta . x + noise`` (:eq:`eq-linear-task`), and their exact ceiling.

    Each task has a theta of its own from N(mean, spread² I); x is drawn from N(0, I), the
    noise from N(0, noise²).  Who knows mean, spread and noise can do no better on a support set
    than the Bayes predictor.

    A family with another mean is a learner with a wrong belief, which costs it
    :eq:`eq-belief-cost`.  If the belief is the mean of other tasks' weights, the error falls with
    their number by :eq:`eq-task-curve`; without a support set it gets below the error of a belief
    in zero once there are more of them than :eq:`eq-tasks-needed` says.

    Args:
        mean: mu, the ``(d,)`` weights that the tasks have in common.
        spread: tau, 0 or more: how far a task's theta strays from mu in each direction.
        noise: sigma, positive: the standard deviation of the noise on y.

    Example:
        >>> family = mlutils.data.LinearGaussian(mean=[1.0, 2.0])
        >>> tasks = family.episodes(shots=5, meta_batch=25)
        >>> (support_x, support_y, query_x), query_y = next(iter(tasks))
        >>> tuple(support_x.shape), tuple(support_y.shape)
        ((25, 5, 2), (25, 5, 1))
    """

    def __init__(self, mean, spread=1.0, noise=0.5):
        mean = as_inputs("mean", mean, tf.float32).numpy().astype(np.float32)
        if mean.ndim != 1 or mean.size == 0 or not np.isfinite(mean).all():
            raise ValueError(f"mean must be a vector of finite numbers, got {mean!r}.")
        self.mean = mean
        self.spread, self.noise = check_rate("spread", spread), check_rate("noise", noise)
        if self.noise == 0:
            raise ValueError("noise must be positive, got 0.")

    def episodes(self, shots=5, queries=10, meta_batch=25, seed=0):
        """Endless batches of tasks.

        Args:
            shots: K, support points per task; 0 gives an empty support set.
            queries: query points per task.
            meta_batch: tasks per batch.
            seed: 0 to 2**32 - 1; the same seed gives the same batches.

        Returns:
            A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)``, float32, of
            shapes ``(meta_batch, points, d)`` for x and ``(meta_batch, points, 1)`` for y.
        """
        shots, queries = check_count("shots", shots, least=0), check_count("queries", queries)
        meta_batch, seed = check_count("meta_batch", meta_batch), check_seed(seed)
        d = self.mean.size

        def sample(draws):
            theta = self.mean[:, None] + self.spread * draws.normal((meta_batch, d, 1))
            x = draws.normal((meta_batch, shots + queries, d))
            y = x @ theta + self.noise * draws.normal((meta_batch, shots + queries, 1))
            return Episode(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:]).element

        return endless(sample, seed)

    def bayes(self, inputs):
        """The Bayes predictor (:eq:`eq-linear-bayes`): the ceiling, for ``evaluation.score``.

        Args:
            inputs: ``(support_x, support_y, query_x)``, a batch of tasks.

        Returns:
            Predictions ``(tasks, Q, 1)``.
        """
        # In float32 a small noise would drown in rounding, and the ceiling would be none.
        support_x, support_y, query_x = read_inputs(Anyone(tf.float64), inputs)
        d = self.mean.size
        shapes = support_x.shape[2:], support_y.shape[2:], query_x.shape[2:]
        if shapes != ([d], [1], [d]):
            raise ValueError(
                f"support_x, support_y and query_x have shapes {support_x.shape}, "
                f"{support_y.shape} and {query_x.shape}; allowed are (tasks, S, {d}), "
                f"(tasks, S, 1) and (tasks, Q, {d})."
            )
        mean = self.mean[:, None].astype(np.float64)
        surprise = support_y - support_x @ mean
        predictions = query_x @ (mean + self._gain(support_x) @ surprise)
        return tf.cast(predictions, tf.convert_to_tensor(inputs[0]).dtype)

    def floor(self, support_x):
        """The squared error that the Bayes predictor expects to make (:eq:`eq-linear-floor`).

        Args:
            support_x: ``(tasks, S, d)``.

        Returns:
            ``(tasks,)``, averaged over theta, the noise, and a query x from N(0, I).
        """
        exact = as_inputs("support_x", support_x, tf.float64)
        if exact.shape.rank != 3 or exact.shape[2] != self.mean.size:
            raise ValueError(
                f"support_x has shape {exact.shape}; allowed is (tasks, S, {self.mean.size})."
            )
        explained = tf.linalg.trace(self._gain(exact) @ exact)
        floor = self.noise**2 + self.spread**2 * (self.mean.size - explained)
        return tf.cast(floor, tf.convert_to_tensor(support_x).dtype)

    def _gain(self, support_x):
        """``tau² X' (tau² X X' + sigma² I)^-1``: how an error on S moves theta, (tasks, d, S)."""
        cross = self.spread**2 * support_x
        points = tf.shape(support_x)[-2]
        covariance = cross @ tf.linalg.matrix_transpose(support_x)
        covariance += self.noise**2 * tf.eye(points, dtype=support_x.dtype)
        return tf.linalg.matrix_transpose(tf.linalg.solve(covariance, cross))
