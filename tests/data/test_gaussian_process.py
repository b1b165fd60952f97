import math

import numpy as np
import pytest
import tensorflow as tf

from mlutils import gaussian_nll
from mlutils.data import GaussianProcess
from tests.data.helpers import batches, check_normal, standard_errors

PROCESS = GaussianProcess(length=0.7, scale=1.5, noise=0.3)


def batch(process=PROCESS, **options):
    return batches(process.episodes(**options))[0]


def random_inputs(points, seed=0, tasks=4):
    """Any support set at all, float64: the posterior's formula holds for every x and y."""
    random = np.random.default_rng(seed)
    x, query_x = random.uniform(-2, 2, (tasks, points, 1)), random.uniform(-2, 2, (tasks, 5, 1))
    return x, random.normal(size=(tasks, points, 1)), query_x


def mean_and_variance(process, inputs):
    mean, deviation = np.split(process.posterior(inputs), 2, axis=-1)
    return mean[..., 0], deviation[..., 0] ** 2


# ---------------------------------------------------------------- the exact posterior


def test_pocket_numbers():
    """eq-gp-posterior with scale = noise = 2 and one support point (1, 3).

    A query of covariance k with it has mean k y / (s² + n²) = 3 k / 8, and of its variance
    s² + n² = 8 the point explains k² / (s² + n²) = k² / 8.  The length is such that
    exp(-2² / (2 length²)) = 1/2; twice as far away the exponent is four times as large.
    So k = 4, 4 / 2 = 2 and 4 / 2^4 = 1/4 at the point, 2 and 4 away from it.
    """
    process = GaussianProcess(length=math.sqrt(2 / math.log(2)), scale=2, noise=2)
    inputs = np.array([[[1.0]]]), np.array([[[3.0]]]), np.array([[[1.0], [3.0], [5.0]]])
    mean, variance = mean_and_variance(process, inputs)
    np.testing.assert_allclose(mean, [[3 / 2, 3 / 4, 3 / 32]], rtol=1e-12)
    np.testing.assert_allclose(variance, [[6, 7.5, 8 - 1 / 128]], rtol=1e-12)


def joint_covariance(x):
    """Of the y at all x, one pair after the other, in plain Python."""
    pairs = [[1.5**2 * math.exp(-((a - b) ** 2) / (2 * 0.7**2)) for a in x] for b in x]
    return np.array(pairs) + 0.3**2 * np.eye(len(x))


@pytest.mark.parametrize("points", [1, 3, 10])
def test_posterior_is_the_conditional_of_the_joint_law(points):
    """eq-gp-posterior: with P the inverse covariance of support points and a query together,
    given the former the query has variance 1 / P_qq and mean -P_qS y / P_qq.
    """
    inputs = random_inputs(points)
    found = PROCESS.posterior(inputs)
    assert found.shape == (4, 5, 2) and found.dtype == tf.float64
    mean, variance = mean_and_variance(PROCESS, inputs)
    for i, (x, y, query_x) in enumerate(zip(*inputs, strict=True)):
        for j, query in enumerate(query_x):
            precision = np.linalg.inv(joint_covariance([*x[:, 0], query[0]]))
            expected = -precision[-1, :-1] @ y[:, 0] / precision[-1, -1]
            np.testing.assert_allclose(mean[i, j], expected, rtol=1e-8)
            np.testing.assert_allclose(variance[i, j], 1 / precision[-1, -1], rtol=1e-8)


def test_a_small_noise_does_not_drown_in_rounding():
    """eq-gp-posterior with noise 1e-4: no deviation below it, and errors as large as they say."""
    process = GaussianProcess(noise=1e-4)
    episode = batch(process, shots=20, meta_batch=200)
    mean, variance = mean_and_variance(process, episode[:3])
    assert np.all(variance > 1e-8)
    assert 0.8 < np.mean((episode.query_y[..., 0] - mean) ** 2 / variance) < 1.2


SHAPES = "141 131 151, 241 241 151, 41 41 51, 122 121 122, 141 142 151, 441 44 441, 141 141 15"


@pytest.mark.parametrize("shapes", SHAPES.split(", "))
def test_shapes_that_do_not_fit_raise(shapes):
    with pytest.raises(ValueError, match="allowed"):
        PROCESS.posterior([tf.zeros([int(size) for size in shape]) for shape in shapes.split()])


# ---------------------------------------------------------------- the tasks are its draws


def test_a_single_point():
    """x is uniform on [-2, 2], of variance 4² / 12; y is normal, of variance s² + n²."""
    episode = batch(shots=1, queries=1, meta_batch=20_000)
    for x, y in (episode[:2], episode[2:]):
        assert np.min(x) >= -2 and np.max(x) <= 2
        assert np.mean(x) == pytest.approx(0, abs=5 * np.sqrt(4 / 3 / 20_000))
        assert np.mean(x**2) == pytest.approx(4 / 3, rel=0.05)
        check_normal(y, variance=1.5**2 + 0.3**2)


def test_covariance_at_a_distance_of_one_length():
    """s² exp(-1/2), among the tasks whose two points happen to be so far apart.

    Within five standard errors; with a length of 0.5 instead of 0.7 it would be
    s² exp(-(7/5)² / 2), which is more than five away.
    """
    x, y, other_x, other_y = batch(shots=1, queries=1, meta_batch=200_000)
    products = (y * other_y)[np.abs(np.abs(x - other_x) - 0.7) < 0.02]
    assert abs(standard_errors(products - 1.5**2 * math.exp(-1 / 2))) < 5
    assert abs(standard_errors(products - 1.5**2 * math.exp(-(1.4**2) / 2))) > 5


@pytest.mark.parametrize("shots", [1, (3, 10)])
def test_calibration(shots):
    """eq-gp-posterior: given the support set, the query is normal with this mean and deviation.

    Negative controls: the posteriors of other processes.  They give the queries a lower likelihood,
    too, by more than four standard errors.
    """
    episode = batch(shots=shots, queries=1, meta_batch=20_000, seed=1)

    def standardised(process):
        mean, variance = mean_and_variance(process, episode[:3])
        return (episode.query_y[..., 0] - mean) / np.sqrt(variance)

    def nats(process):
        return gaussian_nll(episode.query_y, process.posterior(episode[:3])).numpy()[:, 0]

    check_normal(standardised(PROCESS))
    for wrong in ({"length": 0.5}, {"length": 1}, {"noise": 0.2}, {"noise": 0.5}, {"scale": 1}):
        other = GaussianProcess(**{"length": 0.7, "scale": 1.5, "noise": 0.3, **wrong})
        assert standard_errors(nats(other) - nats(PROCESS)) > 4
        with pytest.raises(AssertionError):
            check_normal(standardised(other))


# ---------------------------------------------------------------- the pipeline


def test_shapes_and_defaults():
    episode = batch(shots=5)
    assert [v.shape for v in episode] == [(16, 5, 1), (16, 5, 1), (16, 10, 1), (16, 10, 1)]
    assert all(v.dtype == np.float32 for v in episode)
    process = GaussianProcess()
    assert (process.length, process.scale, process.noise) == (0.4, 1.0, 0.02)
    assert process.posterior(batch(process)[:3]).dtype == tf.float32


def test_each_batch_draws_its_number_of_shots():
    """3 to 10 by default, all alike: of 800 batches 100 each, within five times sqrt(800 7/64)."""

    def counts(number, **options):
        return [e.support_x.shape[1] for e in batches(PROCESS.episodes(**options), number)]

    drawn = counts(800, meta_batch=2)
    found = np.bincount(drawn, minlength=12)
    assert found[3:11].sum() == 800 and np.all(np.abs(found[3:11] - 100) < 47)
    assert counts(20, meta_batch=2) == drawn[:20] != counts(20, meta_batch=2, seed=4)
    assert counts(5, shots=(4, 4)) == 5 * [4]
