import math

import numpy as np
import pytest

from mlutils.data import sinusoids
from tests.data.helpers import batches


def test_each_task_is_one_sinusoid_in_the_papers_range():
    """y = A sin(x - phase) is linear in A cos(phase) and A sin(phase): solve for both."""
    (episode,) = batches(sinusoids(shots=10, queries=np.int64(7), meta_batch=500))
    assert [v.shape for v in episode] == [(500, 10, 1), (500, 10, 1), (500, 7, 1), (500, 7, 1)]
    amplitudes, phases = [], []
    for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
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
