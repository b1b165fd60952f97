"""One encoder, three losses: pairs by distance, pairs by probability, and which of twenty.

    python -m benchmarks.siamese

For each loss the step size and what else it has, the contrastive margin and the prototypical
network's scale, are tuned by the validation scripts with 12 tries: six over the whole range, three
near the best for errors on pairs and three near the best for errors among twenty.  Then five seeds
are trained with the best setting for each and tested on the test scripts; a pair's threshold is
chosen on the validation scripts.

Writes ``mlutils/results/siamese.json``, which ``chapters/one_shot/siamese-networks`` shows: for
each loss and each of the two measures the setting, what of it lies at an end of its range, and
both errors in percent, a number for each seed.
"""

import json
import time
from functools import cache
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from keras import layers

from mlutils import ContrastiveLoss, PairCrossEntropy, PrototypicalNetwork, SiameseNetwork
from mlutils.data import glyphs
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "siamese.json"
STEPS, TRIES, SEEDS = 1000, 12, 5
RATES = (1e-4, 1e-2, "log")
SPACES = {
    "contrastive": {"rate": RATES, "margin": (1.0, 16.0, "log")},
    "cross-entropy of pairs": {"rate": RATES},
    "prototypical": {"rate": RATES, "scale": (0.01, 1.0, "log")},
}
MEASURES = "pairs", "twenty"


def train(name, seed, rate, margin=None, scale=None):
    """A learner of the page's encoder and tasks."""
    keras.utils.set_random_seed(seed)
    encoder = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(64),
            layers.RMSNormalization(),
        ]
    )
    if name == "contrastive":
        learner, loss = SiameseNetwork(encoder), ContrastiveLoss(margin)
    elif name == "prototypical":
        learner = PrototypicalNetwork(encoder, scale=scale)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        learner, loss = SiameseNetwork(encoder, "weighted"), PairCrossEntropy()
    tasks = drawn("train").episodes(ways=20, shots=1, queries=1, meta_batch=8, seed=seed)
    learner.compile(keras.optimizers.Adam(rate), loss, steps_per_execution=50)
    learner.fit(tasks, steps_per_epoch=STEPS, verbose=0)
    return learner


@cache
def drawn(part):
    return glyphs(part)


def errors(learner, part):
    """On pairs and among twenty, in percent; the threshold by the other of two parts."""
    chosen = pair_scores(learner, "validation", seed=2)
    scores = pair_scores(learner, part, seed=1)
    threshold = equal_errors(chosen)
    misses = np.mean(scores[:, 0] < threshold)
    pairs = (misses + np.mean(scores[:, 1:] >= threshold)) / 2
    return 100 * pairs, 100 * np.mean(scores.argmax(axis=1) != 0)


def pair_scores(learner, part, seed, tasks=200):
    """Scores of a 20-way task's pairs, ``(queries, 20)``, the own class first."""
    options = {"ways": 20, "shots": 1, "queries": 1, "meta_batch": tasks, "seed": seed}
    inputs, query_y = next(iter(drawn(part).episodes(**options)))
    scores, own = learner(inputs), tf.one_hot(query_y, 20, on_value=True, off_value=False)
    same, different = tf.reshape(scores[own], (-1, 1)), tf.reshape(scores[~own], (-1, 19))
    return np.concatenate([same, different], axis=1)


def equal_errors(scores):
    """The threshold with as many misses as false alarms, by share."""
    same, different = np.sort(scores[:, 0]), np.sort(scores[:, 1:].ravel())
    false_alarms = 1 - np.searchsorted(different, same) / len(different)
    return same[np.argmax(np.arange(len(same)) / len(same) >= false_alarms)]


def main():
    set_threads(1)
    start, found = time.monotonic(), {}
    for name, space in SPACES.items():
        tuning = mlutils.tune(
            lambda name=name, **setting: errors(train(name, 100, **setting), "validation"),
            space,
            tries=TRIES,
        )
        for objective, measure in enumerate(MEASURES):
            setting = tuning.best(objective)
            by_seed = [errors(train(name, seed, **setting), "test") for seed in range(SEEDS)]
            pairs, twenty = np.round(np.transpose(by_seed), 2).tolist()
            found.setdefault(name, {})[measure] = {
                "setting": {key: float(f"{value:.3g}") for key, value in setting.items()},
                "at_edge": tuning.at_edge(objective),
                "pairs": pairs,
                "twenty": twenty,
            }
            print(name, measure, found[name][measure], flush=True)
    stored = {
        "command": "python -m benchmarks.siamese",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "tries": TRIES,
        "losses": found,
    }
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
