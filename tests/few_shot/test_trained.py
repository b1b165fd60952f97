"""The learners that come with the package."""

import keras
import numpy as np
import pytest

import mlutils
from mlutils import trained_learner
from mlutils.few_shot.trained import FOLDER

NAMES = sorted(path.stem for path in FOLDER.glob("*.keras"))


def test_all_of_the_script_are_there():
    train_few_shot = pytest.importorskip("benchmarks.train_few_shot")
    assert sorted(["encoder", *train_few_shot.RECIPES]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_trained_learner(name):
    """It loads without an optimizer, and says how it was trained."""
    learner, record = trained_learner(name)
    assert isinstance(learner, keras.Model if name == "encoder" else mlutils.MetaLearner)
    assert getattr(learner, "optimizer", None) is None
    assert set(record) == {"steps", "tasks", "seconds"} and record["seconds"] > 0
    for weights in learner.get_weights():
        assert np.isfinite(weights).all()


def test_unknown_name_raises():
    with pytest.raises(ValueError, match=r"name must be one of .*'prototypical'.* got 'siamese'"):
        trained_learner("siamese")
