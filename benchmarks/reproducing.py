"""Why a number is not reached: what single departures from a recipe cost, five seeds each.

    python -m benchmarks.reproducing        whatever has no result yet; about twenty minutes

*alpha*: MAML through a small network of the MAML paper's second kind (dense layers, each with the
norm of its batch), for inner step sizes from 0.08 to 10 of the mean loss, all else alike, and for
two step sizes of the outer loop.
*recipe*: a prototypical network trained by one recipe, and by that recipe with one thing changed.
Everything is scored on the same 600 tasks of validation scripts and 600 of test scripts.
The result goes to mlutils/results/reproducing.json after each training, from where the page
chapters/practice/reproducing-papers reads it; a run that was cut off goes on where it was.
"""

import functools
import json
import math
import time

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from keras import layers

from mlutils.networks import BatchNorm
from mlutils.results import FOLDER

RESULT = FOLDER / "reproducing.json"
SEEDS, PARTS, TASKS = 5, 20, 600
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ALPHAS, OUTER, MAML_STEPS = (0.08, 0.4, 2.0, 10.0), (0.003, 0.01), 1000
RECIPE = {"steps": 1000, "rate": 0.005, "falling": True, "ways": 20, "turned": True}
CHANGES = {
    "as written": {},
    "a fifth of the steps": {"steps": 200},
    "a step size that does not fall": {"falling": False},
    "the same, and half as large": {"falling": False, "rate": 0.0025},
    "no turned characters": {"turned": False},
    "5 ways in training": {"ways": 5},
}


def tasks_of(split):
    tasks = mlutils.data.glyphs(split).episodes(ways=5, shots=1, meta_batch=50, seed=1)
    return list(tasks.take(TASKS // 50))


class Training:
    """One learner, traced once, that is trained again and again from new weights.

    Args:
        make: from nothing to a learner and its loss.
    """

    def __init__(self, make):
        self.make = make
        self.learner, loss = make()
        self.learner.compile(keras.optimizers.Adam(0.001), loss, steps_per_execution=10)
        self.tasks = {split: tasks_of(split) for split in ("validation", "test")}

    def run(self, data, steps, rate, falling, seed):
        """Train anew from a seed; accuracies in percent."""
        keras.utils.set_random_seed(seed)
        self.learner.set_weights(self.make()[0].get_weights())
        for value in self.learner.optimizer.variables:
            value.assign(tf.zeros_like(value))

        def step_size(part):
            return rate * (0.5 + 0.5 * math.cos(math.pi * part / PARTS) if falling else 1.0)

        self.learner.fit(
            data,
            epochs=PARTS,
            steps_per_epoch=steps // PARTS,
            callbacks=[keras.callbacks.LearningRateScheduler(step_size)],
            verbose=0,
        )
        return {
            split: round(100 * mlutils.evaluate(self.learner, tasks, TASKS).mean, 2)
            for split, tasks in self.tasks.items()
        }


@functools.cache
def scale():
    """A factor of the loss: a step of 1 on ``scale * loss`` is one of ``scale`` on the loss."""
    return tf.Variable(1.0, trainable=False)


def scaled(query_y, logits):
    return scale() * LOGITS(query_y, logits)


def maml():
    blocks = [(layers.Dense(units), BatchNorm(), layers.ReLU()) for units in (128, 64)]
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            *(layer for block in blocks for layer in block),
            layers.Dense(5),
        ]
    )
    return mlutils.MAML(network, inner_lr=1.0), scaled


def prototypical():
    encoder = keras.Sequential(
        [mlutils.conv4(filters=16, downsample="stride"), layers.RMSNormalization()]
    )
    return mlutils.PrototypicalNetwork(encoder, scale=0.1), LOGITS


def trainings():
    """Of each training its name, its seed and a function that runs it, the seeds outermost."""
    train = mlutils.data.glyphs("train")
    characters = {False: train, True: train.turned()}
    kinds = {}

    def kind(make):
        if make not in kinds:
            kinds[make] = Training(make)
        return kinds[make]

    def run_maml(alpha, rate, seed):
        scale().assign(alpha)
        data = train.episodes(ways=5, shots=1, queries=3, meta_batch=4, seed=seed)
        return kind(maml).run(data, MAML_STEPS, rate, True, seed)

    def run_recipe(steps, rate, falling, ways, turned, seed):
        data = characters[turned].episodes(ways=ways, shots=1, queries=2, meta_batch=1, seed=seed)
        return kind(prototypical).run(data, steps, rate, falling, seed)

    for seed in range(SEEDS):
        for alpha in ALPHAS:
            for rate in OUTER:
                yield (
                    f"alpha {alpha}, outer {rate}",
                    seed,
                    lambda a=alpha, r=rate, s=seed: run_maml(a, r, s),
                )
        for name, change in CHANGES.items():
            setting = RECIPE | change
            yield name, seed, lambda o=setting, s=seed: run_recipe(**o, seed=s)


def main():
    mlutils.setup(threads=1)
    found = {"command": "python -m benchmarks.reproducing", "minutes": 0.0}
    found |= {"recipe": RECIPE, "steps of MAML": MAML_STEPS, "runs": {}}
    if RESULT.exists():
        found = json.loads(RESULT.read_text(encoding="utf-8"))
    for name, seed, run in trainings():
        runs = found["runs"].setdefault(name, [])
        if any(r["seed"] == seed for r in runs):
            continue
        start, cpu = time.monotonic(), time.process_time()
        scores = run()
        runs.append({"seed": seed, **scores, "seconds": round(time.process_time() - cpu, 1)})
        found["minutes"] = round(found["minutes"] + (time.monotonic() - start) / 60, 2)
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        means = np.mean([r["test"] for r in runs])
        print(f"{name}, seed {seed}: {scores}, mean {means:.1f} of {len(runs)}", flush=True)


if __name__ == "__main__":
    main()
