"""A learner saved in the middle of a training goes on in another process as if nothing had been."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.contract.learners import LEARNERS, compiled, element, every

ROOT = Path(__file__).resolve().parents[2]
GO_ON = """
import sys
from pathlib import Path
from tests.contract.test_saving import go_on
for path in sorted(Path(sys.argv[1]).glob("*.keras")):
    go_on(path)
"""


def file_of(folder, name):
    return folder / f"{name.replace(' ', '-')}.keras"


def train(learner, row):
    if "training" not in row.why_not:
        inputs, query_y = element(row.kind)
        for _ in range(2):
            learner.train_on_batch(inputs, query_y)


def go_on(path):
    """Load, train on, and write predictions and weights beside the file."""
    learner = keras.models.load_model(path)
    name = next(n for n in LEARNERS if file_of(path.parent, n) == path)
    row = LEARNERS[name]
    before = learner(element(row.kind)[0])
    train(learner, row)
    weights = {str(i): w for i, w in enumerate(learner.get_weights())}
    after = learner(element(row.kind)[0])
    np.savez(path.with_suffix(".npz"), before=before, after=after, **weights)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """All learners trained for two steps and saved; and what a new process made of each."""
    folder, learners = tmp_path_factory.mktemp("learners"), {}
    for name, row in LEARNERS.items():
        keras.utils.set_random_seed(0)
        learners[name] = compiled(row, optimizer=keras.optimizers.Adam(0.01))
        train(learners[name], row)
        learners[name].save(file_of(folder, name))
    command = [sys.executable, "-c", GO_ON, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, learners


@pytest.mark.parametrize("name", LEARNERS)
def test_it_goes_on_exactly_in_a_new_process(saved, name):
    """The same predictions when loaded; the same weights and predictions after two more steps.

    Negative control: the training changes the predictions.
    """
    folder, learners = saved
    row, learner = LEARNERS[name], learners[name]
    with np.load(file_of(folder, name).with_suffix(".npz")) as found:
        np.testing.assert_array_equal(found["before"], learner(element(row.kind)[0]))
        train(learner, row)
        for i, weight in enumerate(learner.get_weights()):
            np.testing.assert_array_equal(found[str(i)], weight)
        np.testing.assert_array_equal(found["after"], learner(element(row.kind)[0]))
        changed = np.any(found["before"] != found["after"])
    assert changed == ("training" not in row.why_not)


@every
def test_a_copy_from_the_config_has_the_same_options(row):
    learner = compiled(row)
    copy = type(learner).from_config(learner.get_config())
    assert strip(copy.get_config()) == strip(learner.get_config())


def strip(config):
    """A configuration without the names that Keras numbers."""
    if isinstance(config, dict):
        kept = {k: strip(v) for k, v in config.items() if k not in ("name", "build_config")}
        return {k: v for k, v in kept.items() if k != "shared_object_id"}
    return [strip(v) for v in config] if isinstance(config, (list, tuple)) else config
