"""The learners that come with the package."""

import zipfile

import keras
import numpy as np
import pytest

import mlutils
from mlutils import trained_learner
from mlutils.few_shot.trained import FOLDER
from tools.notebooks import ROOT

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
    assert {"steps", "tasks", "seconds"} <= set(record) and record["seconds"] > 0
    if "validation" in record:  # those trained along sequences: the last fifth brought little more
        assert 0 <= record["validation"][-1] - record["validation"][15] < 0.01
    for weights in learner.get_weights():
        assert np.isfinite(weights).all()


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("mlutils/*/trained/*.keras"), *ROOT.glob("benchmarks/results/lake/*.keras")],
    ids=lambda path: f"{path.parent.parent.name}-{path.stem}",
)
def test_older_versions_of_keras_know_every_option(path):
    """Colab's Keras refuses a layer with an option that it does not know."""
    portable = pytest.importorskip("benchmarks.portable")
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert not [option for option in portable.LATER if f'"{option}"' in config]


def test_saving_takes_new_options_out_and_changes_nothing(tmp_path):
    portable = pytest.importorskip("benchmarks.portable")
    layers = [keras.layers.Dense(3), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((2,)), *layers])
    portable.save(model, tmp_path / "folder" / "model.keras")
    loaded, x = keras.saving.load_model(tmp_path / "folder" / "model.keras"), np.ones((4, 2))
    np.testing.assert_array_equal(loaded(x), model(x))
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["model.keras"]
    kept = {"a": [{"renorm": False, "b": None}], "renorm": True}
    assert portable.without(kept) == {"a": [{"b": None}], "renorm": True}


def test_unknown_name_raises():
    with pytest.raises(ValueError, match=r"name must be one of .*'prototypical'.* got 'siamese'"):
        trained_learner("siamese")
