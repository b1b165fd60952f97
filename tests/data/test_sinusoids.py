import math

import numpy as np
import pytest

import mlutils
from mlutils import Episode


def batch(**options):
    return Episode.from_element(next(iter(mlutils.data.sinusoids(**options))))


def test_shapes():
    episode = batch(shots=5, queries=7, meta_batch=3)
    assert [value.shape for value in episode] == [(3, 5, 1), (3, 5, 1), (3, 7, 1), (3, 7, 1)]


def test_each_task_is_one_sinusoid_in_the_papers_range():
    """y = A sin(x - phase) is linear in A cos(phase) and A sin(phase): solve for both."""
    episode = batch(shots=10, queries=10, meta_batch=500)
    amplitudes, phases = [], []
    for support_x, support_y, query_x, query_y in zip(*(v.numpy() for v in episode), strict=True):
        features = np.concatenate([np.sin(support_x), -np.cos(support_x)], axis=1)
        (cosine, sine), *_ = np.linalg.lstsq(features, support_y[:, 0], rcond=None)
        predicted = cosine * np.sin(query_x) - sine * np.cos(query_x)
        np.testing.assert_allclose(predicted, query_y, atol=1e-4)
        amplitudes.append(math.hypot(cosine, sine))
        phases.append(math.atan2(sine, cosine))
    x = np.concatenate([episode.support_x, episode.query_x], axis=1)
    for values, low, high in ((amplitudes, 0.1, 5.0), (phases, 0.0, math.pi), (x, -5.0, 5.0)):
        assert low - 1e-4 <= np.min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < np.max(values) <= high + 1e-4
        # A uniform law's mean, within five standard errors.
        error = 5 * (high - low) / math.sqrt(12 * np.size(values))
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=error)


def test_same_seed_same_tasks_other_seed_others():
    first, again, other = batch(seed=3), batch(seed=3), batch(seed=4)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.all(np.abs(a - c) > 0)


def test_batches_differ_and_support_and_query_are_disjoint():
    first, second = (Episode.from_element(e) for e in mlutils.data.sinusoids().take(2))
    assert not np.intersect1d(first.support_x, first.query_x).size
    assert not np.intersect1d(first.support_x, second.support_x).size


@pytest.mark.parametrize("option", ["shots", "queries", "meta_batch"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_wrong_sizes_raise(option, value):
    with pytest.raises(ValueError, match=f"{option} must be an integer of at least 1, got"):
        mlutils.data.sinusoids(**{option: value})


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, None])
def test_wrong_seed_raises(seed):
    with pytest.raises(ValueError, match="seed must be"):
        mlutils.data.sinusoids(seed=seed)


def test_numpy_integers_are_integers():
    assert batch(shots=np.int64(2)).support_x.shape == (25, 2, 1)
