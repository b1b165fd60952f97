"""How time and memory of a training step grow, and what larger meta-batches do to the result.

    python -m benchmarks.growth              both
    python -m benchmarks.growth steps        time and memory of a step
    python -m benchmarks.growth batches      sine waves learned with meta-batches of several sizes

A step is one of ``fit`` with a conv-4 network of 32 filters on 28 x 28 pixels, 4 tasks of 5 classes
with one support and three query drawings, one inner step; tasks, inner steps, classes and pixels
are then changed, one at a time.  Each setting has a process of its own, in which memory is what the
process takes at most during its steps, beyond what it took before the first; seconds are the median
of the last seven of ten steps.

Sine waves: every training sees 96,000 to 100,000 tasks, so that a larger meta-batch takes fewer
steps; for each size all of ``RATES`` are tried with all of ``SEEDS``.  Tested on 600 tasks, after
one step.

Writes ``mlutils/results/growth_of_a_step.json`` and ``meta_batches.json`` there, which
``chapters/beyond/scaling-out`` shows.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from benchmarks.scaling import Clock
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# ---------------------------------------------------------------- time and memory of a step

METHODS = {
    "MAML": mlutils.MAML,
    "MAML, recomputed": lambda *args: mlutils.MAML(*args, recompute=True),
    "first-order MAML": lambda *args: mlutils.MAML(*args, first_order=True),
    "iMAML": mlutils.iMAML,
}
BASE = {"method": "MAML", "tasks": 4, "inner steps": 1, "ways": 5, "pixels": 28}
GROWING = {
    "tasks": (1, 4, 16, 64, 256),
    "inner steps": (1, 2, 5, 6, 10, 15, 20),
    "ways": (2, 5, 10, 20, 50),
    "pixels": (16, 28, 56, 112),
}
QUERIES, FILTERS, STEPS = 3, 32, 10


def settings():
    """All of them: each of ``GROWING`` changed alone, the inner steps for every method."""
    for what, sizes in GROWING.items():
        for method in METHODS if what == "inner steps" else ("MAML",):
            for size in sizes:
                yield {"growing": what, **BASE, "method": method, what: size}


def measure(setting):
    """Seconds of a step, and the megabytes that steps need at most."""
    keras.utils.set_random_seed(0)
    tasks, ways, pixels = (setting[name] for name in ("tasks", "ways", "pixels"))
    network = mlutils.conv4((pixels, pixels, 1), filters=FILTERS, outputs=ways)
    learner = METHODS[setting["method"]](network, 0.1, setting["inner steps"])
    learner.compile(keras.optimizers.SGD(0.01), LOSS)
    random = np.random.default_rng(0)
    x, query_x = (
        random.random((tasks, ways * n, pixels, pixels, 1), np.float32) for n in (1, QUERIES)
    )
    y, query_y = (np.tile(np.arange(ways, dtype=np.int32), (tasks, n)) for n in (1, QUERIES))
    data = tf.data.Dataset.from_tensors(((x, y, query_x), query_y)).repeat()
    before, clock = peak(), Clock()
    learner.fit(data, steps_per_epoch=STEPS, verbose=0, shuffle=False, callbacks=[clock])
    return {"seconds": round(clock.seconds_of_a_step(), 4), "MB": round(peak() - before)}


def peak():
    """The most memory that this process had until now, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def growth_of_a_step():
    rows = []
    for setting in settings():
        words = [sys.executable, "-m", "benchmarks.growth", "one", json.dumps(setting)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(setting | json.loads(done.stdout.splitlines()[-1]))
        print(*rows[-1].values(), flush=True)
    return rows


# ---------------------------------------------------------------- meta-batches

TASKS, SIZES, RATES, SEEDS = 100_000, (4, 16, 64, 256), (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0, 1, 2)
PER_CALL = 25  # steps in one call of Keras's training function


def meta_batches():
    """The error of each size, rate and seed."""
    set_threads(1)
    rows = []
    for size in SIZES:
        for rate in RATES:
            steps = TASKS // size // PER_CALL * PER_CALL
            rows.append({"meta-batch": size, "rate": rate, "steps": steps})
            rows[-1]["errors"] = [round(error_of(size, rate, steps, seed), 4) for seed in SEEDS]
            print(*rows[-1].values(), flush=True)
    return rows


def error_of(size, rate, steps, seed):
    """The mean squared error on test tasks of MAML trained in one way."""
    keras.utils.set_random_seed(seed)
    learner = mlutils.MAML(mlutils.mlp(), inner_lr=0.01)
    learner.compile(
        keras.optimizers.Adam(rate), "mse", steps_per_execution=PER_CALL, jit_compile=True
    )
    tasks = mlutils.data.sinusoids(shots=10, queries=10, meta_batch=size, seed=seed)
    learner.fit(tasks, steps_per_epoch=steps, verbose=0, shuffle=False)
    test = mlutils.data.sinusoids(shots=10, queries=100, meta_batch=600, seed=10_000)
    (x, y, query_x), query_y = next(iter(test))
    return float(tf.reduce_mean((learner((x, y, query_x)) - query_y) ** 2))


# ---------------------------------------------------------------- the command

RUNS = {"steps": ("growth_of_a_step", growth_of_a_step), "batches": ("meta_batches", meta_batches)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=(*RUNS, "one"), help="one of the two")
    parser.add_argument("setting", nargs="?", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "one":
        print(json.dumps(measure(json.loads(arguments.setting))))
        return
    for what in [arguments.what] if arguments.what else RUNS:
        name, run = RUNS[what]
        start = time.monotonic()
        result = {"command": f"python -m benchmarks.growth {what}", "rows": run()}
        result["minutes"] = round((time.monotonic() - start) / 60, 1)
        result["versions"] = {"tensorflow": tf.__version__, "python": platform.python_version()}
        text = json.dumps(result, indent=1) + "\n"
        (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
