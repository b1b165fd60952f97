"""Results of runs too long for a notebook, which the pages show: made by ``benchmarks``."""

import json
from pathlib import Path

from mlutils.door.numbers import check_option

FOLDER = Path(__file__).parent


def stored_result(name):
    """What a benchmark found when it was last run.

    Args:
        name: of the benchmark: ``"contest"``, of ``python -m benchmarks.contest``.

    Returns:
        A dict; ``"command"`` says how it was made and ``"minutes"`` how long that took.  What else
        is in it, the benchmark's docstring says.

    Raises:
        ValueError: if there is no such result; the message names those there are.
    """
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    text = (FOLDER / f"{check_option('name', name, names)}.json").read_text(encoding="utf-8")
    return json.loads(text)
