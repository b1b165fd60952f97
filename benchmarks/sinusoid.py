"""Sine waves, the first table of the MAML paper: five seeds of five methods.

    python -m benchmarks.sinusoid                  all methods that have no result yet
    python -m benchmarks.sinusoid "Reptile" ...    some, anew

The paper's setting: the network of 40 and 40 units, 70,000 meta-steps of 25 tasks with K = 10
points, alpha .01, Adam; tested on 600 tasks of 5, 10 and 20 points after 0, 1, 5 and 10 steps.
The pretrained network sees the same points, without their division into tasks.  It and Reptile take
the step size at the test that is best of ``STEP_SIZES`` on validation tasks of ten points, for each
number of steps; MAML takes the one that it was trained with.  The oracle is told each task's
amplitude and phase and takes no step.  Writes ``benchmarks/results/sinusoid.json``.
"""

import json
import os
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.data.sinusoids import AMPLITUDE, PHASE, X
from mlutils.session import set_threads

RESULTS = Path(__file__).parent / "results" / "sinusoid.json"
META_STEPS, TASKS, SEEDS = 70_000, 600, range(5)
POINTS, STEPS = (5, 10, 20), (0, 1, 5, 10)
STEP_SIZES = (0.003, 0.01, 0.02, 0.05, 0.1)


def maml(first_order):
    learner = mlutils.MAML(mlutils.mlp(), inner_lr=0.01, first_order=first_order)
    return learner, learner, keras.optimizers.Adam(), tasks


def reptile():
    learner = mlutils.Reptile(mlutils.mlp(), inner_lr=0.02, inner_steps=5, batch_size=10)
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, META_STEPS, 0.0)
    return learner, learner, keras.optimizers.SGD(decay), tasks


def pretrained():
    network = mlutils.mlp()
    return network, mlutils.MAML(network), keras.optimizers.Adam(), points


def oracle():
    network = mlutils.mlp(3)
    return network, None, keras.optimizers.Adam(), told_points


METHODS = {  # to what is trained, what is tested, an optimizer, and the data by seed
    "MAML": lambda: maml(first_order=False),
    "first-order MAML": lambda: maml(first_order=True),
    "Reptile": reptile,
    "pretrained": pretrained,
    "oracle": oracle,
}


def tasks(seed):
    return mlutils.data.sinusoids(shots=10, queries=10, meta_batch=25, seed=seed)


def points(seed):
    """All points of 25 tasks as one batch."""

    def flat(inputs, query_y):
        x, y, query_x = inputs
        both = tf.concat([x, query_x], 1), tf.concat([y, query_y], 1)
        return tuple(tf.reshape(part, (500, 1)) for part in both)

    return tasks(seed).map(flat)


def told_points(seed, number=500):
    """Points with the amplitude and the phase of their own wave."""

    def sample(draws):
        amplitude = draws.uniform((number, 1), *AMPLITUDE)
        phase, x = draws.uniform((number, 1), *PHASE), draws.uniform((number, 1), *X)
        return tf.concat([x, amplitude, phase], 1), amplitude * tf.sin(x - phase)

    return endless(sample, seed)


def errors(learner, shots, steps, seed):
    """The mean squared error on each of 600 tasks; infinite where the steps diverged."""
    new = mlutils.data.sinusoids(shots=shots, queries=100, meta_batch=100, seed=seed)
    return mlutils.evaluate(learner, new, TASKS, steps=steps)


def best_step_size(learner, name, steps):
    """The one that its training had; or the best of five for tasks of ten points."""
    if not steps or name not in ("pretrained", "Reptile"):
        return learner.inner_lr
    found = {}
    for learner.inner_lr in STEP_SIZES:
        found[learner.inner_lr] = errors(learner, 10, steps, seed=3).mean
    return min(found, key=found.get)


def tested(learner, name, steps):
    """The scores after some steps, for each number of points."""
    learner.inner_lr = best_step_size(learner, name, steps)
    for shots in POINTS:
        score = errors(learner, shots, steps, seed=2)
        yield {
            "points": shots,
            "steps": steps,
            "mean": finite(score.mean),
            "ci95": finite(score.ci95),
            "median": finite(score.median),
            "step size": learner.inner_lr,
        }


def finite(value):
    return round(value, 4) if np.isfinite(value) else None


def train(name, seed):
    """One training and its tests."""
    keras.utils.set_random_seed(seed)
    trained, learner, optimizer, data = METHODS[name]()
    trained.compile(optimizer, "mse", steps_per_execution=500, jit_compile=True)
    start = time.process_time()
    trained.fit(data(1000 + seed), steps_per_epoch=META_STEPS, verbose=0)
    minutes = round((time.process_time() - start) / 60, 2)
    if learner is None:
        x, y = next(iter(told_points(2, 60_000)))
        error = float(tf.reduce_mean((trained(x) - y) ** 2))
        return {"seed": seed, "minutes": minutes, "scores": [{"steps": 0, "mean": finite(error)}]}
    if learner is not trained:
        learner.compile(loss="mse")
    scores = [score for steps in STEPS for score in tested(learner, name, steps)]
    return {"seed": seed, "minutes": minutes, "scores": scores}


def main(names):
    set_threads(1)
    stored = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"methods": {}}
    stored |= {"command": "python -m benchmarks.sinusoid", "meta_steps": META_STEPS}
    methods = stored["methods"]
    for name in names:
        methods[name] = []
    for name in names or METHODS:
        for seed in SEEDS:
            if seed in [run["seed"] for run in methods.setdefault(name, [])]:
                continue
            methods[name].append(train(name, seed))
            print(name, json.dumps(methods[name][-1]), flush=True)
            new = RESULTS.with_suffix(".new")
            new.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
            os.replace(new, RESULTS)
            keras.backend.clear_session()


if __name__ == "__main__":
    main(sys.argv[1:])
