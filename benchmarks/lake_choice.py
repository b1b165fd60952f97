"""Why the official runs of Lake's test are easier than new ones: the characters or the drawers?

    python -m benchmarks.lake_choice

The official test has ten alphabets, of each twenty chosen characters and four chosen drawers.  The
learners that ``benchmarks.lake`` has stored are tested on new runs of those ten alphabets:
characters and drawers at random, one of the two or both chosen as in the official test.

Writes ``mlutils/results/lake_choice.json``, which ``chapters/one_shot/lakes-test`` shows: for each
learner and each choice the error in percent of each alphabet, the mean of 20 runs.
"""

import json
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np

from benchmarks.lake import RESULTS as STORED
from mlutils.data import omniglot
from mlutils.data.lake import OFFICIAL
from mlutils.episodes import Episode
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "lake_choice.json"
LEARNERS = "pixels", "hausdorff-28", "siamese", "prototypical", "best"
RUNS, WAYS = 20, 20  # of each alphabet; characters of a run

# Which characters, and which drawers: all, the first eight, or those of the official test.
CHOICES = {
    "random": (False, "all"),
    "drawers 1 to 8": (False, "eight"),
    "official characters": (True, "all"),
    "official drawers": (False, "official"),
    "both": (True, "official"),
}


def runs_of(evaluation, official_characters, drawers):
    """New runs, one alphabet after the other: an ``Episode`` of all."""
    random, labels = np.random.default_rng(0), np.tile(np.arange(WAYS), (RUNS * len(OFFICIAL), 1))
    taught, asked = [], []
    for alphabet, (runs, characters) in OFFICIAL.items():
        images = evaluation.of_scripts(alphabet).images / np.float32(255)
        chosen = np.array(characters.split(), int) - 1
        people = {"all": range(20), "eight": range(8), "official": np.ravel(runs) - 1}[drawers]
        for _ in range(RUNS):
            some = chosen if official_characters else random.permutation(len(images))[:WAYS]
            teacher, pupil = random.choice(people, 2, replace=False)
            taught.append(images[some, teacher])
            asked.append(images[some, pupil])
    return Episode(np.stack(taught), labels, np.stack(asked), labels)


def batches(runs, size=10):
    for start in range(0, len(runs.support_x), size):
        yield Episode(*(values[start : start + size] for values in runs))


def main():
    set_threads(1)
    keras.utils.set_random_seed(0)
    evaluation, start = omniglot("evaluation"), time.monotonic()
    sets = {name: runs_of(evaluation, *choice) for name, choice in CHOICES.items()}
    errors = {}
    for name in LEARNERS:
        learner, errors[name] = keras.saving.load_model(STORED / "lake" / f"{name}.keras"), {}
        for choice, runs in sets.items():
            score = mlutils.evaluate(learner, batches(runs), len(runs.query_y), "error")
            by_alphabet = 100 * score.values.reshape(len(OFFICIAL), RUNS).mean(axis=1)
            errors[name][choice] = [round(float(error), 2) for error in by_alphabet]
            print(name, choice, round(100 * score.mean, 1), flush=True)
    stored = {
        "command": "python -m benchmarks.lake_choice",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "alphabets": list(OFFICIAL),
        "runs": RUNS,
        "errors": errors,
    }
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
