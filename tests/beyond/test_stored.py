"""The networks of the chapter that come trained, and the stored result on pools of tasks."""

import keras
import numpy as np
import pytest

import mlutils
from mlutils.beyond.stored import FOLDER

NAMES = sorted(path.stem for path in FOLDER.glob("*.keras"))


@pytest.mark.parametrize("name", NAMES)
def test_stored_learner(name):
    """It loads without an optimizer, is small, and its record says how it was made."""
    learner, record = mlutils.stored_learner(name)
    assert isinstance(learner, keras.Model) and getattr(learner, "optimizer", None) is None
    assert record["command"].startswith("python -m benchmarks.") and record["minutes"] > 0
    assert all(np.isfinite(weights).all() for weights in learner.get_weights())
    assert (FOLDER / f"{name}.keras").stat().st_size < 3e6


def test_unknown_name_raises():
    with pytest.raises(ValueError, match=r"name must be one of .*'in-context-linear'.* got 'gpt'"):
        mlutils.stored_learner("gpt")


@pytest.mark.parametrize("name", ["linear", "parlours"])
def test_the_stored_network_is_the_one_of_its_record(name):
    """Its error along the validation prompts is the last of the record, and above Bayes's."""
    incontext = pytest.importorskip("benchmarks.incontext")
    learner, record = mlutils.stored_learner(f"in-context-{name}")
    family = incontext.FAMILIES[name]()
    (x, y), _ = next(iter(incontext.sequences(family, meta_batch=1000, seed=99)))
    error = incontext.apart(learner.predict_sequence(x, y), y)
    assert abs(error - record["validation"][-1]) < 0.002
    assert record["bayes"] < error


def test_the_result_on_pools_is_complete():
    """All pools and seeds; no network below the Bayes predictor of the tasks it is tried on."""
    incontext = pytest.importorskip("benchmarks.incontext")
    result = mlutils.stored_result("incontext")
    assert result["minutes"] > 0
    found = [(run["steps"], run["pool"], run["seed"]) for run in result["runs"]]
    expected = [(incontext.SHORT, pool) for pool in incontext.POOLS] + [(incontext.LONG, 16)]
    seeds = range(incontext.SEEDS)
    assert sorted(found) == sorted((*row, seed) for row in expected for seed in seeds)
    for run in result["runs"]:
        for tasks, best in (("own", "error of pool"), ("new", "error of ridge")):
            found = run[tasks]
            assert found[best] < found["error"] + 0.005
            assert found["between"] > 0
        assert run["training"][-1] < run["training"][0]


def test_pool_sequences_come_from_the_pool():
    """A pool of one task: the weights that fit the prompts are its own, and of another not."""
    incontext = pytest.importorskip("benchmarks.incontext")
    pool = np.array([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, 1.0, -1.0]])
    (x, y), target = next(iter(incontext.pool_sequences(pool, meta_batch=200, seed=1)))
    np.testing.assert_array_equal(y, target)
    misfit = np.mean((y.numpy() - x.numpy() @ pool.T) ** 2, axis=1)  # (tasks, 2)
    nearest = misfit.min(axis=1)
    assert abs(nearest.mean() - incontext.NOISE**2) < 0.05
    share = np.mean(misfit[:, 0] < misfit[:, 1])
    assert 0.4 < share < 0.6
