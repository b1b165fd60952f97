"""Noisy sine waves, and the best answers of those who believe in a frequency."""

import numpy as np
from scipy.special import log_ndtr, ndtr

from mlutils.data.sinusoids import AMPLITUDE, PHASE, X
from mlutils.door.numbers import check_count, check_positive, check_seed


def noisy_sines(tasks, points, frequency=1.0, noise=0.3, seed=0):
    """Tasks ``y = a sin(w x - phi) + noise`` (:eq:`eq-noisy-sine`).

    The amplitude a is drawn from U[0.1, 5], the phase phi from U[0, pi] and x from U[-5, 5], as in
    ``mlutils.data.sinusoids``.

    Args:
        tasks: how many.
        points: of each task.
        frequency: w, positive, the same in all tasks.
        noise: sigma, the standard deviation of what is added to y, positive.
        seed: 0 to 2**32 - 1.

    Returns:
        ``x``, ``y`` and ``truth``, which is y without noise, each ``(tasks, points, 1)``, float32.

    Example:
        >>> x, y, truth = mlutils.noisy_sines(tasks=200, points=40)
        >>> y.shape, round(float(np.std(y - truth)), 1)
        ((200, 40, 1), 0.3)
    """
    random = np.random.default_rng(check_seed(seed))
    size = (check_count("tasks", tasks), 1, 1)
    amplitude, phase = random.uniform(*AMPLITUDE, size), random.uniform(*PHASE, size)
    x = random.uniform(*X, (tasks, check_count("points", points), 1))
    truth = amplitude * np.sin(check_positive("frequency", frequency) * x - phase)
    y = truth + check_positive("noise", noise) * random.normal(size=x.shape)
    return tuple(v.astype(np.float32) for v in (x, y, truth))


def sine_bayes(x, y, query_x, frequency=1.0, noise=0.3, phases=400):
    """The posterior mean of noisy sine waves, for who believes in a frequency.

    Given the phase, ``y`` is linear in the amplitude, whose posterior is a Gaussian cut at the ends
    of its range: its mean and the evidence for the phase are known in closed form.  What is left is
    a sum over a grid of phases (:eq:`eq-sine-bayes`).

    Args:
        x, y: examples ``(tasks, n, 1)``; n may be 0.
        query_x: ``(tasks, Q, 1)``.
        frequency: what is believed: one positive number, or some that are equally likely.
        noise: sigma, positive.
        phases: the number of phases of the grid.

    Returns:
        Predictions ``(tasks, Q, 1)``, float64: with the right belief none has a smaller expected
        squared error.

    Example:
        >>> x, y, truth = mlutils.noisy_sines(tasks=100, points=30)
        >>> found = mlutils.sine_bayes(x[:, :20], y[:, :20], x[:, 20:])
        >>> bool(np.mean((found - truth[:, 20:]) ** 2) < 0.02)
        True
    """
    x, y, query_x = (np.asarray(v, np.float64) for v in (x, y, query_x))
    shapes = x.shape, y.shape, query_x.shape
    if x.ndim != 3 or shapes[0] != shapes[1] or query_x.ndim != 3 or len(query_x) != len(x):
        raise ValueError(
            f"x, y and query_x have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}; allowed are "
            "(tasks, n, 1) twice and (tasks, Q, 1)."
        )
    believed = [check_positive("frequency", w) for w in np.ravel(frequency).tolist()]
    sigma, (low, high) = check_positive("noise", noise), AMPLITUDE
    phi = PHASE[0] + (np.arange(check_count("phases", phases)) + 0.5) / phases * np.ptp(PHASE)
    logs, means = [], []
    for w in believed:
        waves = np.sin(w * x - phi)  # (tasks, n, phases)
        products = np.sum(waves * y, axis=1)
        squares = np.maximum(np.sum(waves**2, axis=1), 1e-12)
        best, spread = products / squares, sigma / np.sqrt(squares)
        a, b = (low - best) / spread, (high - best) / spread
        mass = log_interval(a, b)
        logs.append(mass + np.log(spread) + best**2 / (2 * spread**2))
        ends = np.exp(-(a**2) / 2 - mass) - np.exp(-(b**2) / 2 - mass)
        means.append(np.clip(best + spread * ends / np.sqrt(2 * np.pi), low, high))
    logs = np.stack(logs, axis=-1)  # (tasks, phases, frequencies)
    weights = np.exp(logs - logs.max(axis=(1, 2), keepdims=True))
    weights *= np.stack(means, axis=-1) / weights.sum(axis=(1, 2), keepdims=True)
    found = sum(
        np.einsum("tqp,tp->tq", np.sin(w * query_x - phi), weights[..., i])
        for i, w in enumerate(believed)
    )
    return found[..., np.newaxis]


def log_interval(a, b):
    """``log P(a < z < b)`` of a standard normal z, also far out."""
    a, b = np.where(a > 0, -b, a), np.where(a > 0, -a, b)  # the same mass, at the left
    upper, lower = log_ndtr(b), log_ndtr(a)
    return np.where(
        b > 0,
        np.log(np.maximum(ndtr(b) - ndtr(a), 1e-300)),
        upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-15))),
    )
