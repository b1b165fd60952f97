"""Sinusoid regression, the first experiment of the MAML paper."""

import math

import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_seed
from mlutils.episodes import Episode

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
X = (-5.0, 5.0)


def sinusoids(shots=10, queries=10, meta_batch=25, seed=0):
    """Endless batches of tasks ``y = amplitude * sin(x - phase)``.

    Each task draws its amplitude from U[0.1, 5] and its phase from U[0, pi]; x is
    drawn from U[-5, 5], separately for support and query set; no noise
    (Finn, Abbeel & Levine 2017, section 5.1).

    Args:
        shots: K, support points per task.
        queries: query points per task.
        meta_batch: tasks per batch.
        seed: 0 to 2**32 - 1.  The same seed gives the same batches, each time they are
            iterated: train and test with different seeds.

    Returns:
        A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)``, float32,
        of shapes ``(meta_batch, shots, 1)`` and ``(meta_batch, queries, 1)``.
    """
    shots, queries = check_count("shots", shots), check_count("queries", queries)
    meta_batch, seed = check_count("meta_batch", meta_batch), check_seed(seed)

    def sample(draws):
        amplitude = draws.uniform((meta_batch, 1, 1), *AMPLITUDE)
        phase = draws.uniform((meta_batch, 1, 1), *PHASE)
        x = draws.uniform((meta_batch, shots + queries, 1), *X)
        y = amplitude * tf.sin(x - phase)
        return Episode(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:]).element

    return endless(sample, seed)
