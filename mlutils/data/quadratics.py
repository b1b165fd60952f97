"""Quadratic functions to minimise: the first experiment of the learned-optimizer paper."""

import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_flag, check_seed
from mlutils.door.tasks import as_tensor, finite
from mlutils.episodes import describe


class Quadratics:
    """Functions ``f(theta) = |W theta - y|²`` (:eq:`eq-quadratic`) with minimum 0.

    W's entries and y's are drawn from N(0, 1) for each function (Andrychowicz et al. 2016,
    section 3.1), theta_0's too.

    Args:
        dimension: d, the number of coordinates.
        rotated: a Gaussian W has no preferred directions.  With False each W is turned (W -> its
            singular values on the diagonal, in falling order) so that the axes of its ellipses
            are the coordinates: the same curvatures, and each coordinate a problem by itself.

    Example:
        >>> family = mlutils.data.Quadratics(dimension=10)
        >>> theta, problem = next(iter(family.problems(functions=8)))
        >>> tuple(theta.shape), tuple(family.values(theta, problem).shape)
        ((8, 10), (8,))
    """

    def __init__(self, dimension=10, rotated=True):
        self.dimension = check_count("dimension", dimension)
        self.rotated = check_flag("rotated", rotated)

    def problems(self, functions=128, seed=0):
        """Endless batches of functions, and where to start on them.

        Args:
            functions: per batch.
            seed: 0 to 2**32 - 1; the same seed gives the same batches.

        Returns:
            A ``tf.data.Dataset`` of ``(theta_0, (W, y))``, float32, of shapes ``(functions, d)``,
            ``(functions, d, d)`` and ``(functions, d)``.
        """
        functions, seed = check_count("functions", functions), check_seed(seed)
        d = self.dimension

        def sample(draws):
            theta, y = draws.normal((functions, d)), draws.normal((functions, d))
            w = draws.normal((functions, d, d))
            if not self.rotated:
                w = tf.linalg.diag(tf.linalg.svd(w, compute_uv=False))
            return theta, (w, y)

        return endless(sample, seed)

    @staticmethod
    def values(theta, problem, step=None):
        """f(theta) of each function.

        Args:
            theta: ``(..., functions, d)``.
            problem: ``(W, y)``.
            step: ignored; here for families whose functions are stochastic.

        Returns:
            ``(..., functions)``.
        """
        theta, w, y = read_quadratic(theta, problem)
        return tf.reduce_sum(tf.square(tf.linalg.matvec(w, theta) - y), axis=-1)

    @staticmethod
    def conjugate_gradients(theta, problem, steps):
        """The values of conjugate gradients: a floor for all that adds up gradients.

        Step t's iterate minimises f over theta_0 plus all combinations of the first t gradients:
        gradient descent, momentum and Nesterov cannot be lower.  (Hestenes & Stiefel 1952)

        Args:
            theta: theta_0, ``(functions, d)``.
            problem: ``(W, y)``.
            steps: how many.

        Returns:
            float64 ``(steps + 1, functions)``: f(theta_0) to f(theta_steps), each step at the
            price of one gradient.
        """
        steps = check_count("steps", steps)
        theta, w, y = (tf.cast(x, tf.float64) for x in read_quadratic(theta, problem))
        residual = y - tf.linalg.matvec(w, theta)
        downhill = tf.linalg.matvec(w, residual, transpose_a=True)  # minus half the gradient
        direction = downhill
        size = tf.reduce_sum(downhill**2, -1, keepdims=True)
        values = [tf.reduce_sum(residual**2, -1)]
        for _ in range(steps):
            moved = tf.linalg.matvec(w, direction)
            length = tf.math.divide_no_nan(size, tf.reduce_sum(moved**2, -1, keepdims=True))
            residual -= length * moved
            downhill = tf.linalg.matvec(w, residual, transpose_a=True)
            old, size = size, tf.reduce_sum(downhill**2, -1, keepdims=True)
            size = tf.where(size < 1e-250, tf.zeros_like(size), size)  # squares underflow: stay
            direction = downhill + tf.math.divide_no_nan(size, old) * direction
            # Beyond convergence there is only rounding, which may add up: keep the lowest.
            values.append(tf.minimum(values[-1], tf.reduce_sum(residual**2, -1)))
        return tf.stack(values)


def read_quadratic(theta, problem):
    """theta ``(..., functions, d)``, W and y as tensors that fit together; or an error."""
    if not isinstance(problem, (tuple, list)) or len(problem) != 2:
        raise ValueError(f"problem must be (W, y), got {describe(problem)}.")
    parts = zip(("theta", "W", "y"), (theta, *problem), strict=True)
    theta, w, y = (finite(name, as_tensor(name, value)) for name, value in parts)
    d = y.shape[-1:]
    fit = y.shape.rank and w.shape[-2:].is_compatible_with(d.concatenate(d))
    if not (fit and theta.shape.rank and theta.shape[-y.shape.rank :].is_compatible_with(y.shape)):
        raise ValueError(
            f"theta has shape {theta.shape}, W {w.shape} and y {y.shape}; allowed are "
            "(functions, d), (functions, d, d) and (functions, d)."
        )
    return theta, w, y
