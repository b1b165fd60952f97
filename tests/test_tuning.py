"""The search for hyperparameters."""

import numpy as np
import pytest

from mlutils import tune

SPACE = {
    "rate": (1e-3, 10.0, "log"),
    "momentum": (0.0, 0.99, "share"),
    "end": (-1.0, 3.0, "linear"),
}


def bowl(rate, momentum, end):
    """Lowest at .1, .9 and 1."""
    return np.log(rate / 0.1) ** 2 + np.log((1 - momentum) / 0.1) ** 2 + (end - 1) ** 2


def test_it_finds_a_minimum_inside():
    """Better than the first half alone, and than chance: half of all settings score above 5."""
    search = tune(bowl, SPACE, tries=64)
    assert len(search.settings) == len(search.scores) == 64
    assert search.score() < 1 and search.score() < search.scores[:32].min()
    assert search.at_edge() == []
    assert bowl(**search.best()) == search.score()
    assert np.median(search.scores[:32]) > 5


def test_every_try_is_within_its_range_and_the_first_half_is_spread_evenly():
    search = tune(bowl, SPACE, tries=40, seed=3)
    for name, (low, high, _) in SPACE.items():
        values = np.array([setting[name] for setting in search.settings])
        assert low <= values.min() and values.max() <= high
    cells = np.sort(np.floor(20 * search.places[:20]), axis=0)
    np.testing.assert_array_equal(cells, np.repeat(np.arange(20.0)[:, None], 3, axis=1))
    again = tune(bowl, SPACE, tries=40, seed=3)
    assert search.settings == again.settings
    assert search.settings != tune(bowl, SPACE, tries=40, seed=4).settings


def test_scales():
    """Half-way between the ends: the middle, the geometric mean, and that of the distance to 1."""
    from mlutils.tuning import setting_at

    spaces = {"linear": (1.0, 3.0), "log": (0.01, 1.0), "share": (0.0, 0.99)}
    space = {scale: (*limits, scale) for scale, limits in spaces.items()}
    middle = setting_at(space, [0.5] * 3)
    assert middle == pytest.approx({"linear": 2.0, "log": 0.1, "share": 0.9})
    for x, end in ((0, 0), (1, 1)):
        ends = {scale: limits[end] for scale, limits in spaces.items()}
        assert setting_at(space, [x] * 3) == pytest.approx(ends)


def test_an_optimum_beyond_the_range_is_reported():
    search = tune(lambda rate: np.log(rate / 100) ** 2, {"rate": SPACE["rate"]}, tries=64)
    assert search.at_edge() == ["rate"]


def test_each_objective_gets_its_own_best_and_its_share_of_the_tries():
    def two(rate):
        return np.log(rate / 0.01) ** 2, np.log(rate / 1) ** 2

    search = tune(two, {"rate": SPACE["rate"]}, tries=32)
    assert search.scores.shape == (32, 2)
    for objective, best in enumerate((0.01, 1.0)):
        assert search.best(objective)["rate"] == pytest.approx(best, rel=0.3)
        half = search.places[16 + 8 * objective : 24 + 8 * objective, 0]
        assert abs(half.mean() - (0.25, 0.75)[objective]) < 0.05


def test_what_is_not_finite_loses():
    """Negative control: were it taken as it is, argmin would choose it."""
    search = tune(lambda rate: np.nan if rate < 1 else rate, {"rate": SPACE["rate"]}, tries=16)
    assert 1 <= search.best()["rate"] and np.isinf(search.scores).any()
    assert np.isnan(np.nan) and int(np.argmin([1.0, np.nan])) == 1


def test_without_hyperparameters_there_is_one_try():
    search = tune(lambda: 3.0, {}, tries=8)
    assert search.settings == [{}] and search.score() == 3.0 and search.at_edge() == []


@pytest.mark.parametrize(
    "space, error, words",
    [
        ([], TypeError, "space must be a dictionary"),
        ({"a": (0, 1)}, ValueError, r"space\['a'\] must be \(low, high, scale\)"),
        ({"a": (0, 1, "log")}, ValueError, "low > 0 for 'log'"),
        ({"a": (0, 1, "share")}, ValueError, "high < 1 for 'share'"),
        ({"a": (2, 1, "linear")}, ValueError, "low < high"),
        ({"a": (1, 2, "cubic")}, ValueError, "a scale of"),
        ({"a": (1, float("inf"), "log")}, ValueError, "got"),
    ],
)
def test_wrong_space_raises(space, error, words):
    with pytest.raises(error, match=words):
        tune(lambda a: a, space, tries=4)


def test_wrong_calls_raise():
    with pytest.raises(TypeError, match="score must be a function"):
        tune(3, SPACE)
    with pytest.raises(ValueError, match="tries must be an integer of at least 2"):
        tune(bowl, SPACE, tries=1)
    with pytest.raises(ValueError, match="score must return a number"):
        tune(lambda rate: np.ones((2, 2)), {"rate": SPACE["rate"]}, tries=4)
    lengths = iter(range(1, 9))
    with pytest.raises(ValueError, match="in try 2"):
        tune(lambda rate: np.ones(next(lengths)), {"rate": SPACE["rate"]}, tries=4)
