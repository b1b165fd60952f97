"""What known methods predict along a sequence: what a network that learns in context may do."""

import numpy as np

from mlutils.door.numbers import check_count, check_positive, check_rate


def ridge_along(x, y, ridge):
    """Predict each target by ridge regression on the examples before it.

    With ``ridge`` = noise² / spread² that is the Bayes predictor of tasks whose weights have mean
    zero (:eq:`eq-linear-bayes` with a belief of 0), and no method has a smaller expected squared
    error.  With a very small one it is least squares, the shortest weights where there are several.

    Args:
        x: ``(tasks, T, d)``.
        y: ``(tasks, T, 1)``.
        ridge: positive, what is added to the diagonal of ``X'X``.

    Returns:
        Predictions ``(tasks, T, 1)``, float64, as of ``SequenceLearner.predict_sequence``.

    Example:
        >>> x, y = np.ones((1, 3, 1)), np.full((1, 3, 1), 2.0)
        >>> print(mlutils.ridge_along(x, y, ridge=1.0)[0, :, 0].round(2))  # 0, 2/2, 4/3
        [0.   1.   1.33]
    """
    x, y = read_sequences(x, y)
    squares, products = before(x, y)
    squares = squares + check_positive("ridge", ridge) * np.eye(x.shape[-1])
    return answers(x, np.linalg.solve(squares, products))


def descent_along(x, y, step, steps=1):
    """Predict each target by steps of gradient descent, from zero, on the examples before it.

    Each is on half the mean squared error of all examples so far (:eq:`eq-attention-step`,
    :eq:`eq-attention-layers`).

    Args:
        x: ``(tasks, T, d)``.
        y: ``(tasks, T, 1)``.
        step: alpha, 0 or more; one, or a list of T, for each number of examples before.
        steps: how many.

    Returns:
        Predictions ``(tasks, T, 1)``, float64.

    Example:
        >>> x, y = np.ones((1, 3, 1)), np.full((1, 3, 1), 2.0)
        >>> print(mlutils.descent_along(x, y, step=0.5, steps=2)[0, :, 0])  # 0, 1 + .5, the same
        [0.  1.5 1.5]
    """
    x, y = read_sequences(x, y)
    step = [check_rate("step", alpha) for alpha in np.ravel(step).tolist()]
    if len(step) not in (1, x.shape[1]):
        raise ValueError(f"step holds {len(step)} step sizes; allowed are 1 and {x.shape[1]}.")
    step = np.reshape(step, (-1, 1, 1))
    squares, products = before(x, y)
    count = np.maximum(np.arange(x.shape[1]), 1).reshape(-1, 1, 1)
    theta = np.zeros_like(products)
    for _ in range(check_count("steps", steps)):
        theta = theta - step * (squares @ theta - products) / count
    return answers(x, theta)


def pool_along(x, y, pool, noise):
    """Predict each target by who knows that the task is one of a pool.

    It is the Bayes predictor of tasks whose weights are drawn from the pool, each as likely: the
    posterior mean of :eq:`eq-pool-bayes`.

    Args:
        x: ``(tasks, T, d)``.
        y: ``(tasks, T, 1)``.
        pool: ``(M, d)``, the weights of M tasks.
        noise: sigma, positive.

    Returns:
        Predictions ``(tasks, T, 1)``, float64.

    Example:
        >>> x, y = np.ones((1, 2, 1)), np.full((1, 2, 1), 1.0)
        >>> print(mlutils.pool_along(x, y, pool=[[1.0], [-1.0]], noise=1.0)[0, :, 0].round(2))
        [0.   0.76]
    """
    x, y = read_sequences(x, y)
    pool = np.asarray(pool, np.float64)
    if pool.ndim != 2 or len(pool) == 0 or pool.shape[1] != x.shape[2]:
        raise ValueError(
            f"pool has shape {pool.shape}; allowed is (M, {x.shape[2]}), M at least 1."
        )
    guesses = x @ pool.T  # (tasks, T, M)
    misfit = (y - guesses) ** 2 / (2 * check_positive("noise", noise) ** 2)
    misfit = np.cumsum(misfit, axis=1) - misfit  # of the examples before
    weights = np.exp(misfit.min(axis=2, keepdims=True) - misfit)
    weights /= weights.sum(axis=2, keepdims=True)
    return np.sum(weights * guesses, axis=2, keepdims=True)


def before(x, y):
    """``X'X`` ``(tasks, T, d, d)`` and ``X'y`` ``(tasks, T, d, 1)`` of the examples before each."""
    squares, products = x[..., :, None] * x[..., None, :], x[..., None] * y[..., None, :]
    return (np.cumsum(v, axis=1) - v for v in (squares, products))


def answers(x, theta):
    """``x . theta`` at each place, ``(tasks, T, 1)``."""
    return (x[..., None, :] @ theta)[..., 0]


def read_sequences(x, y):
    """``x`` and ``y`` in float64, or a ValueError that says what came."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 3 or y.shape != (*x.shape[:2], 1) or 0 in x.shape:
        raise ValueError(
            f"x and y have shapes {x.shape} and {y.shape}; allowed are (tasks, T, d) and "
            "(tasks, T, 1)."
        )
    return x, y
