"""The networks of this chapter that come trained."""

import json
from pathlib import Path

import keras

from mlutils.door.numbers import check_option

FOLDER = Path(__file__).parent / "trained"


def stored_learner(name):
    """A network that a page of the chapter "Beyond the source" shows, trained by ``benchmarks``.

    Args:
        name: of a network and its record in ``mlutils/beyond/trained``: ``"in-context-linear"``.

    Returns:
        The network, not compiled, and a dict that says how it was trained; ``"command"`` does it
        anew, and ``"minutes"`` is how long that took.

    Raises:
        ValueError: if there is no such network; the message names those there are.

    Example:
        >>> learner, record = mlutils.stored_learner("in-context-linear")
        >>> predict = learner.adapt(np.eye(4), np.ones((4, 1)))
        >>> tuple(predict(np.eye(4)).shape)
        (4, 1)
    """
    names = sorted(path.stem for path in FOLDER.glob("*.keras"))
    name = check_option("name", name, names)
    record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return keras.saving.load_model(FOLDER / f"{name}.keras"), record
