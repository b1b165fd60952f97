import numpy as np
import pytest
import tensorflow as tf

from mlutils.data import LinearGaussian
from mlutils.evaluation import mean_squared_error, score
from tests.data.helpers import batches, check_normal, standard_errors

MEAN = [1.0, -2.0, 0.5]
SYSTEM = LinearGaussian(MEAN, spread=0.8, noise=0.6)


def batch(system=SYSTEM, **options):
    return batches(system.episodes(**options))[0]


def random_task(points, seed=0, tasks=4):
    """Any support set at all, float64: the predictor's formula holds for every x and y."""
    random = np.random.default_rng(seed)
    return random.normal(size=(tasks, points, 3)), random.normal(size=(tasks, points, 1))


def bayes_theta(system, x, y):
    """The weights of the predictor: what it says of the unit vectors."""
    d = x.shape[-1]
    units = np.broadcast_to(np.eye(d), (len(x), d, d)).astype(x.dtype)
    return system.bayes((x, y, units))


def test_pocket_numbers():
    """eq-linear-bayes and eq-linear-floor with d = 1, mu = tau = sigma = 1, and one point (1, 3).

    The surprise is 3 - 1 = 2, of which theta takes tau² / (tau² + sigma²) = 1/2: it is 2, so
    that 1 gives 2 and -3 gives -6.  Of theta's variance 1 one half is left: 1 + 1/2.
    """
    system = LinearGaussian([1.0], spread=1.0, noise=1.0)
    x, y, query_x = [[[1.0]]], [[[3.0]]], [[[1.0], [-3.0]]]
    np.testing.assert_allclose(system.bayes((x, y, query_x)), [[[2.0], [-6.0]]], rtol=1e-6)
    np.testing.assert_allclose(system.floor(x), [1.5], rtol=1e-6)
    # tau = 2, sigma = 1, x = 1: 1 + 4/5 * 2 = 2.6 and 1 + 4 (1 - 4/5) = 1.8.
    system = LinearGaussian([1.0], spread=2.0, noise=1.0)
    np.testing.assert_allclose(system.bayes((x, y, [[[1.0]]])), [[[2.6]]], rtol=1e-6)
    np.testing.assert_allclose(system.floor(x), [1.8], rtol=1e-6)


@pytest.mark.parametrize("points", [1, 3, 10])
def test_bayes_predictor_is_the_primal_form(points):
    """eq-linear-bayes: mu + (X'X + sigma²/tau² I)^-1 X' (y - X mu), a ridge regression.

    And eq-linear-floor: sigma² plus the trace of theta's posterior covariance
    (X'X / sigma² + I / tau²)^-1.
    """
    x, y = random_task(points)
    theta, floor = bayes_theta(SYSTEM, x, y), SYSTEM.floor(x)
    assert theta.dtype == floor.dtype == tf.float64
    mu = np.array(MEAN)[:, None]
    for i, (X, Y) in enumerate(zip(x, y, strict=True)):
        ridge = X.T @ X + (0.6 / 0.8) ** 2 * np.eye(3)
        expected = mu + np.linalg.solve(ridge, X.T @ (Y - X @ mu))
        np.testing.assert_allclose(theta[i], expected, rtol=1e-10)
        left = np.linalg.inv(X.T @ X / 0.6**2 + np.eye(3) / 0.8**2)
        np.testing.assert_allclose(floor[i], 0.6**2 + np.trace(left), rtol=1e-10)


def test_without_support_set_the_mean_predicts():
    """eq-linear-bayes with K = 0 is mu . x; eq-linear-floor sigma² + tau² d = .36 + 3 * .64."""
    episode = batch(shots=0)
    assert episode.support_x.shape == (25, 0, 3) and episode.support_y.shape == (25, 0, 1)
    predictions = SYSTEM.bayes(episode[:3])
    np.testing.assert_allclose(predictions, episode.query_x @ np.array([MEAN], "f").T, rtol=1e-5)
    np.testing.assert_allclose(SYSTEM.floor(episode.support_x), 25 * [2.28], rtol=1e-6)


@pytest.mark.parametrize("shots", [0, 2, 5])
def test_the_floor_is_what_the_bayes_predictor_scores_and_all_others_score_more(shots):
    """eq-linear-floor, within four standard errors over 20000 tasks.

    The negative controls err more by more than four: a wrong mean, and a ridge too weak or
    too strong (which do not matter without a support set).
    """
    episode = batch(shots=shots, queries=5, meta_batch=20_000, seed=shots)

    def errors(system):
        return mean_squared_error(episode.query_y, system.bayes(episode[:3])).numpy()

    best = errors(SYSTEM)
    assert abs(standard_errors(best - SYSTEM.floor(episode.support_x).numpy())) < 4
    others = [LinearGaussian([1.0, -1.0, 0.5], 0.8, 0.6)]
    if shots:
        others += [LinearGaussian(MEAN, spread, 0.6) for spread in (0.4, 1.6)]
    for other in others:
        assert standard_errors(errors(other) - best) > 4


def test_a_small_noise_does_not_drown_in_rounding():
    """eq-linear-bayes, eq-linear-floor: 100 points tell three weights; the rest is noise.

    The floor is sigma² (1 + tr (X'X)^-1) to many digits, near sigma² (1 + 3/96).  In float32 the
    gain is off by more than that, and the floor may even be negative.
    """
    family = LinearGaussian([1.0, -2.0, 0.5], spread=1.0, noise=1e-3)
    episode = batch(family, shots=100, queries=50, meta_batch=200)
    floor = family.floor(episode.support_x).numpy() / 1e-6
    assert np.all((floor > 1.01) & (floor < 1.06))
    predicted = family.bayes(episode[:3])
    assert predicted.dtype == tf.float32
    assert 0.95 < np.mean((predicted - episode.query_y) ** 2) / 1e-6 < 1.15


@pytest.mark.parametrize(
    "shapes", [[(1, 4, 2), (1, 4), (1, 5, 2)], [(1, 4, 2), (1, 3, 1), (1, 5, 2)]]
)
def test_shapes_that_do_not_fit_raise(shapes):
    with pytest.raises(ValueError, match="allowed"):
        LinearGaussian([0.0, 0.0]).bayes([tf.zeros(shape) for shape in shapes])


def test_bayes_is_a_rule_that_can_be_scored():
    episodes = SYSTEM.episodes(shots=3, seed=1)
    floor = np.mean([SYSTEM.floor(e.support_x) for e in batches(episodes, 16)])
    result = score(SYSTEM.bayes, episodes, tasks=400)
    assert result.mean == pytest.approx(floor, abs=2 * result.ci95)
    assert not result.percent


def test_tasks_are_drawn_as_they_should_be():
    """eq-linear-task: least squares on 200 points finds each task's theta within sigma² / 200.

    Laws then are normal, of mu, tau², 0, 1 and sigma², within five standard errors.
    """
    tasks, points = 2000, 200
    episode = batch(shots=points // 2, queries=points // 2, meta_batch=tasks)
    x, y = (
        np.concatenate(pair, axis=1).astype(np.float64) for pair in (episode[::2], episode[1::2])
    )
    transposed = x.transpose(0, 2, 1)
    theta = np.linalg.solve(transposed @ x, transposed @ y)
    # theta-hat has theta's variance and sigma² (X'X)^-1, of expectation 1 / (n - d - 1).
    found = 0.8**2 + 0.6**2 / (points - 4)
    for i, mu in enumerate(MEAN):
        check_normal(theta[:, i, 0], mu, found)
    correlation = np.corrcoef(theta[:, :, 0].T)[np.triu_indices(3, 1)]
    assert np.max(np.abs(correlation)) < 5 / np.sqrt(tasks)
    check_normal(x, 0, 1)
    products = np.mean([x[..., 0] * x[..., 1], x[..., 0] * x[..., 2], x[..., 1] * x[..., 2]])
    assert abs(products) < 5 / np.sqrt(3 * tasks * points)
    residuals = y - x @ theta
    check_normal(residuals * np.sqrt(points / (points - 3)), 0, 0.6**2)
    # One theta for both sets: the query set's residuals are no larger than the support set's.
    halves = [np.mean(half**2) for half in np.split(residuals, 2, axis=1)]
    assert halves[0] == pytest.approx(halves[1], rel=0.02)


def test_without_spread_all_tasks_are_the_mean():
    system = LinearGaussian(MEAN, spread=0, noise=0.01)
    episode = batch(system, shots=4)
    expected = episode.query_x @ np.array([MEAN], "f").T
    np.testing.assert_allclose(system.bayes(episode[:3]), expected, rtol=1e-6)
    np.testing.assert_allclose(episode.query_y, expected, atol=0.06)
    np.testing.assert_allclose(system.floor(episode.support_x), 25 * [1e-4], rtol=1e-6)


def test_shapes_and_defaults():
    episode = batch()
    assert [v.shape for v in episode] == [(25, 5, 3), (25, 5, 1), (25, 10, 3), (25, 10, 1)]
    assert all(v.dtype == np.float32 for v in episode)
    system = LinearGaussian(MEAN)
    assert (system.spread, system.noise) == (1.0, 0.5)


@pytest.mark.parametrize("mean", [1.0, [], [[1.0]], [1.0, np.nan], [np.inf]])
def test_wrong_mean_raises(mean):
    with pytest.raises(ValueError, match=r"mean must (be a vector of|hold) finite numbers"):
        LinearGaussian(mean)
