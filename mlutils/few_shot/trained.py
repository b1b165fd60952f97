"""The learners that come with the package, trained by ``benchmarks/train_few_shot.py``."""

import json
from pathlib import Path

import keras

from mlutils.door.numbers import check_option

FOLDER = Path(__file__).parent / "trained"


def trained_learner(name):
    """A learner trained on the glyphs' training scripts.

    Args:
        name: ``"prototypical"``, ``"matching"``, ``"relation"``, or ``"recurrent"``, ``"mann"``,
            ``"transformer"``, ``"maml"`` followed by the number of ways, ``"-5"`` or ``"-20"``;
            ``"encoder"`` is the pretrained encoder that all of them started from;
            ``"neural-process"`` was trained on ``mlutils.data.GaussianProcess()``.

    Returns:
        The learner (for ``"encoder"`` the Keras model), not compiled, which MAML must be to adapt;
        and a dict that says how it was trained: ``steps``, ``tasks`` seen, and ``seconds`` of one
        core; for those that were trained along sequences also ``validation``, the accuracy along
        sequences of the validation scripts after each twentieth of the training.
    """
    record = json.loads((FOLDER / "record.json").read_text(encoding="utf-8"))
    name = check_option("name", name, sorted(record))
    return keras.saving.load_model(FOLDER / f"{name}.keras"), record[name]
