"""A conditional neural process beside the exact Gaussian process: five trainings of each length.

    python -m benchmarks.gaussian_process

The network and the tasks are those of the page on neural processes, and its 10,000 steps; then
three and ten times as many.  Each training has its own seed for weights and tasks; the 400 test
tasks of a number of points are the same for all, so that gaps are paired.
Writes ``mlutils/results/gaussian_process.json``, training by training.
"""

import json
import os
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip

from mlutils.evaluation import score
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "gaussian_process.json"
SEEDS, LENGTHS, POINTS, TASKS = range(5), (10_000, 30_000, 100_000), (3, 6, 10, 30), 400
PROCESS = mlutils.data.GaussianProcess()


def train(steps, seed):
    keras.utils.set_random_seed(seed)
    learner = mlutils.ConditionalNeuralProcess(
        mlutils.mlp(2, (128, 128, 128), 128), mlutils.mlp(129, (128, 128), 2), smallest=0.02
    )
    decay = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    learner.compile(
        keras.optimizers.Adam(decay, clipnorm=1.0),
        mlutils.gaussian_nll,
        steps_per_execution=50,
    )
    tasks = PROCESS.episodes(queries=20, meta_batch=32, seed=1000 + seed)
    learner.fit(tasks, steps_per_epoch=steps, verbose=0)
    return learner


def likelihoods(predict):
    """The mean log likelihood of a query in each test task, by the number of points."""
    return {
        points: score(
            predict,
            PROCESS.episodes(shots=points, meta_batch=50, seed=2),
            tasks=TASKS,
            metric="log likelihood",
        )
        for points in POINTS
    }


def main():
    set_threads(1)
    stored = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"runs": []}
    exact = likelihoods(PROCESS.posterior)
    stored |= {
        "command": "python -m benchmarks.gaussian_process",
        "exact": {points: round(s.mean, 3) for points, s in exact.items()},
    }
    done = {(run["steps"], run["seed"]) for run in stored["runs"]}
    for steps in LENGTHS:
        for seed in SEEDS:
            if (steps, seed) in done:
                continue
            start = time.process_time()
            found = likelihoods(train(steps, seed))
            run = {
                "steps": steps,
                "seed": seed,
                "minutes": round((time.process_time() - start) / 60, 1),
                "nats": {points: round(s.mean, 3) for points, s in found.items()},
            }
            stored["runs"].append(run)
            stored["minutes"] = round(sum(run["minutes"] for run in stored["runs"]), 1)
            print(json.dumps(run), flush=True)
            new = RESULTS.with_suffix(".new")
            new.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
            os.replace(new, RESULTS)
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
