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


def left_open(episode, system=SYSTEM):
    """``I - G X`` of each task, by eq-linear-bayes in its primal form: (I + tau²/sigma² X'X)^-1."""
    x = episode.support_x.astype(np.float64)
    ratio = (system.spread / system.noise) ** 2
    return np.linalg.inv(np.eye(x.shape[2]) + ratio * x.transpose(0, 2, 1) @ x)


@pytest.mark.parametrize("shots", [0, 2, 5])
def test_what_a_wrong_belief_costs(shots):
    """eq-belief-cost: b |phi - mu|² with b = E tr (I - G X)² / d, which is 1 without shots.

    Its two steps: predictions differ by x . (I - G X) (phi - mu), exactly; and the errors by its
    mean square, within four standard errors over 20000 tasks.  Half and twice b are neither.
    """
    episode = batch(shots=shots, queries=5, meta_batch=20_000, seed=shots)
    wrong = np.array([0.4, 0.3, -1.2])
    other = LinearGaussian(np.array(MEAN) + wrong, SYSTEM.spread, SYSTEM.noise)
    remains = left_open(episode)
    best, believed = SYSTEM.bayes(episode[:3]).numpy(), other.bayes(episode[:3]).numpy()
    shift = episode.query_x @ (remains @ wrong[:, np.newaxis])
    np.testing.assert_allclose(believed - best, shift, atol=1e-4)
    cost = np.mean(np.trace(remains @ remains, axis1=1, axis2=2)) / 3
    assert cost == pytest.approx(1) if shots == 0 else cost < 0.8
    errors = [mean_squared_error(episode.query_y, answers).numpy() for answers in (believed, best)]
    expected = cost * (wrong @ wrong)
    assert abs(standard_errors(errors[0] - errors[1] - expected)) < 4
    for factor in (0.5, 2):
        assert abs(standard_errors(errors[0] - errors[1] - factor * expected)) > 4


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("number", [1, 4])
def test_the_error_falls_with_the_number_of_tasks(shots, number):
    """eq-task-curve: the mean of M tasks' weights as the belief, a new mean for each new task.

    Above the Bayes predictor by b d tau² / M within four standard errors; M + 1 is not so near.
    """
    episode = batch(shots=shots, queries=5, meta_batch=20_000, seed=shots)
    random = np.random.default_rng(number)
    weights = np.array(MEAN) + SYSTEM.spread * random.normal(size=(20_000, number, 3))
    remains = left_open(episode)
    shift = episode.query_x @ (remains @ (weights.mean(axis=1) - MEAN)[..., np.newaxis])
    best = SYSTEM.bayes(episode[:3]).numpy()
    errors, least = (
        np.mean((episode.query_y - answers) ** 2, axis=(1, 2)) for answers in (best + shift, best)
    )
    above = errors - least
    cost = np.mean(np.trace(remains @ remains, axis1=1, axis2=2)) / 3
    expected = cost * 3 * SYSTEM.spread**2 / number
    assert abs(standard_errors(above - expected)) < 4
    assert standard_errors(above - expected * number / (number + 1)) > 4


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_how_many_tasks_are_needed(share):
    """eq-tasks-needed: more than (1 - s) / s, at which eq-task-curve meets the error of zero.

    Without shots, eight weights of E |theta|² = 8, of which the share s is common: the error is
    sigma² + 8 alone and sigma² + 8 (1 - s) (1 + 1 / M) after M tasks.
    """
    mean = np.sqrt(share) * np.array([1, -1] * 4)
    family, nothing = LinearGaussian(mean, (1 - share) ** 0.5, 0.5), np.zeros((1, 0, 8))
    (alone,) = LinearGaussian(np.zeros(8), 1.0, 0.5).floor(nothing).numpy()
    (floor,) = family.floor(nothing).numpy()
    assert alone == pytest.approx(8.25)
    needed = (1 - share) / share
    for factor, harm in ((0.5, True), (0.99, True), (1.01, False), (2, False)):
        after = floor + 8 * family.spread**2 / (factor * needed)
        assert (after > alone) == harm


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
