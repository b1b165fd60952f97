import math

import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import Episode, gaussian_nll
from mlutils.data import GaussianProcess

PROCESS = GaussianProcess(length=0.7, scale=1.5, noise=0.3)
WRONG_LENGTH = GaussianProcess(length=0.5, scale=1.5, noise=0.3)


def batch(process=PROCESS, **options):
    return Episode.from_element(next(iter(process.episodes(**options))))


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


@pytest.mark.parametrize("points", [1, 2, 3, 10])
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


def test_far_from_all_points_it_is_the_prior():
    """eq-gp-posterior with covariances of zero: mean 0 and variance s² + n²."""
    x, y, query_x = random_inputs(5)
    mean, variance = mean_and_variance(PROCESS, (x, y, query_x + 100))
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(variance, 1.5**2 + 0.3**2, rtol=1e-12)


def test_at_a_support_point_it_is_nearly_that_point():
    """eq-gp-posterior: the noise hides the point by n at most, and the query has its own."""
    process = GaussianProcess(noise=0.01)
    x, y, _, _ = batch(process)
    mean, variance = mean_and_variance(process, (x, y, x))
    np.testing.assert_allclose(mean, y[..., 0], atol=5 * 0.01)
    assert np.all((variance > 0.01**2) & (variance < 2 * 0.01**2))


def test_more_points_leave_less_variance():
    x, y, query_x = random_inputs(50)
    variances = [
        mean_and_variance(PROCESS, (x[:, :points], y[:, :points], query_x))[1]
        for points in (1, 2, 5, 10, 50)
    ]
    assert np.all(np.diff(variances, axis=0) < 0) and np.all(variances[-1] > 0.3**2)


def test_a_small_noise_does_not_drown_in_rounding():
    """eq-gp-posterior with noise 1e-4: no deviation below it, and errors as large as they say."""
    process = GaussianProcess(noise=1e-4)
    episode = batch(process, shots=20, meta_batch=200)
    mean, variance = mean_and_variance(process, episode[:3])
    assert np.all(variance > 1e-8)
    assert 0.8 < np.mean((episode.query_y[..., 0] - mean) ** 2 / variance) < 1.2


# ---------------------------------------------------------------- the tasks are its draws


def check_normal(values, mean=0, variance=1):
    """Independent, normal, of this mean and variance, within five standard errors.

    The fourth moment of a normal law is three times its squared variance, and has variance
    (105 - 9) / n.
    """
    n, z = np.size(values), (values - mean) / np.sqrt(variance)
    assert np.mean(z) == pytest.approx(0, abs=5 / np.sqrt(n))
    assert np.mean(z**2) == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    assert np.mean(z**4) == pytest.approx(3, abs=5 * np.sqrt(96 / n))


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
    here = np.abs(np.abs(x - other_x) - 0.7) < 0.02
    products = (y * other_y).numpy()[here]
    error = np.std(products) / np.sqrt(len(products))
    assert abs(np.mean(products) - 1.5**2 * math.exp(-1 / 2)) < 5 * error
    assert abs(np.mean(products) - 1.5**2 * math.exp(-(1.4**2) / 2)) > 5 * error


def standardised(process, shots):
    """One query of each of many tasks of PROCESS, less the mean and over the deviation."""
    episode = batch(shots=shots, queries=1, meta_batch=20_000, seed=1)
    mean, variance = mean_and_variance(process, episode[:3])
    return (episode.query_y[..., 0] - mean) / np.sqrt(variance)


@pytest.mark.parametrize("shots", [1, 5, (3, 10)])
def test_calibration(shots):
    """eq-gp-posterior: given the support set, the query is normal with this mean and deviation.

    Negative control: the posterior of a process of another length.
    """
    check_normal(standardised(PROCESS, shots))
    with pytest.raises(AssertionError):
        check_normal(standardised(WRONG_LENGTH, shots))


@pytest.mark.parametrize(
    "wrong",
    [dict(length=0.5), dict(length=1.0), dict(noise=0.2), dict(noise=0.5), dict(scale=1.0)],
)
def test_no_other_process_gives_the_queries_a_higher_likelihood(wrong):
    """eq-gp-posterior, by more than four standard errors over 5000 tasks."""
    episode = batch(shots=5, queries=5, meta_batch=5000)

    def nats(process):
        return np.mean(gaussian_nll(episode.query_y, process.posterior(episode[:3])), axis=1)

    other = GaussianProcess(**{"length": 0.7, "scale": 1.5, "noise": 0.3, **wrong})
    lost = nats(other) - nats(PROCESS)
    assert np.mean(lost) > 4 * np.std(lost) / np.sqrt(len(lost))


# ---------------------------------------------------------------- the pipeline


def test_shapes_and_defaults():
    episode = batch(shots=5)
    assert [v.shape for v in episode] == [(16, 5, 1), (16, 5, 1), (16, 10, 1), (16, 10, 1)]
    assert all(v.dtype == tf.float32 for v in episode)
    process = GaussianProcess()
    assert (process.length, process.scale, process.noise) == (0.4, 1.0, 0.02)
    assert process.posterior(batch(process)[:3]).dtype == tf.float32


def test_each_batch_draws_its_number_of_shots():
    """3 to 10 by default, all alike: of 800 batches 100 each, within five times sqrt(800 7/64)."""
    counts = np.zeros(12, int)
    for (support_x, support_y, query_x), query_y in PROCESS.episodes(meta_batch=2).take(800):
        counts[support_x.shape[1]] += 1
        assert support_x.shape == support_y.shape and query_x.shape == query_y.shape == (2, 10, 1)
    assert counts.sum() == counts[3:11].sum() == 800
    assert np.all(np.abs(counts[3:11] - 100) < 47)
    fixed = [inputs[0].shape[1] for inputs, _ in PROCESS.episodes(shots=(4, 4)).take(5)]
    assert fixed == 5 * [4]


def test_same_seed_same_tasks_other_seed_others():
    first, again, other = (batch(shots=5, seed=seed) for seed in (3, 3, 4))
    dataset = PROCESS.episodes(shots=5, seed=3)
    iterated = [[Episode.from_element(e) for e in dataset.take(2)] for _ in range(2)]
    for a, b, c, d, e, f in zip(first, again, other, *iterated[0], iterated[1][1], strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, d)
        np.testing.assert_array_equal(e, f)
        assert np.all(np.abs(a - c) > 0) and np.all(np.abs(a - e) > 0)
    # No number is used for two purposes.
    assert not np.intersect1d(first.support_x, first.query_x).size


def test_same_seed_same_numbers_of_shots():
    datasets = [PROCESS.episodes(seed=seed).take(20) for seed in (3, 3, 4)]
    first, again, other = ([inputs[0].shape[1] for inputs, _ in d] for d in datasets)
    assert first == again != other


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("name", ["length", "scale", "noise"])
def test_wrong_numbers_raise(name):
    for value in (0, -1, np.nan, np.inf, "1", True):
        with pytest.raises(ValueError, match=f"{name} must be a finite positive number, got"):
            GaussianProcess(**{name: value})


@pytest.mark.parametrize("option", ["shots", "queries", "meta_batch"])
def test_wrong_sizes_raise(option):
    for value in (0, 2.5, True, None):
        with pytest.raises(ValueError, match=f"{option} must be an integer of at least 1, got"):
            PROCESS.episodes(**{option: value})


@pytest.mark.parametrize(
    "shots, words", [((5, 3), "5, got 3"), ((0, 3), "1, got 0"), ((3, 4.5), "3, got 4.5")]
)
def test_wrong_range_of_shots_raises(shots, words):
    with pytest.raises(ValueError, match=f"shots must be an integer of at least {words}"):
        PROCESS.episodes(shots=shots)


def test_other_numbers_of_shots_raise():
    for shots in ((3,), (3, 4, 5)):
        with pytest.raises(ValueError, match="the least and the most"):
            PROCESS.episodes(shots=shots)


def test_noise_that_rounding_would_swallow_raises():
    with pytest.raises(ValueError, match="noise must be at least 1e-6 times scale, got 1e-08"):
        GaussianProcess(noise=1e-8)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_wrong_seed_raises(seed):
    with pytest.raises(ValueError, match="seed must be"):
        PROCESS.episodes(seed=seed)


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 4, 1), (1, 3, 1), (1, 5, 1)],
        [(2, 4, 1), (2, 4, 1), (1, 5, 1)],
        [(4, 1), (4, 1), (5, 1)],
        [(1, 2, 2), (1, 2, 1), (1, 2, 2)],
        [(1, 4, 1), (1, 4, 2), (1, 5, 1)],
        [(1, 4, 1), (1, 4), (1, 5, 1)],
        [(4, 4, 1), (4, 4), (4, 4, 1)],
        [(1, 4, 1), (1, 4, 1), (1, 5)],
    ],
)
def test_shapes_that_do_not_fit_raise(shapes):
    with pytest.raises(ValueError, match="allowed"):
        PROCESS.posterior([tf.zeros(shape) for shape in shapes])


def test_it_is_exported():
    assert mlutils.data.GaussianProcess is GaussianProcess
