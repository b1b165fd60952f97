"""What a training step takes when several processes share its tasks.

    python -m benchmarks.scaling

One process and two train MAML on sine waves, for networks of several widths, one or five inner
steps, and 4 to 64 tasks in a batch, of which two processes take half each.  They meet on this
machine's loopback, as ``benchmarks.distributed`` has it; or they are kept apart, each with its half
of the tasks, and never exchange anything.  Every process has one core, and one thread for an
operation; of those that share a batch each makes the whole of it.  Seconds are the median of a
dozen steps, from end to end.

Writes ``mlutils/results/scaling.json``, which ``chapters/beyond/scaling-out`` shows and fits.
"""

import itertools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from benchmarks.distributed import configs

RESULTS = Path(mlutils.__file__).parent / "results" / "scaling.json"
KINDS = {"one": 1, "two": 2, "two, apart": 2}  # and how many processes
WIDTHS, INNER_STEPS, TASKS = (64, 256, 512, 1024), (1, 5), (4, 16, 64)
STEPS = 15


def measure(kind, index):
    """What each worker does; the first prints a row for each setting."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    strategy = mlutils.join_workers()
    for width, inner_steps, tasks in itertools.product(WIDTHS, INNER_STEPS, TASKS):
        with strategy.scope():
            network = mlutils.mlp(1, (width, width), 1)
            learner = mlutils.MAML(network, inner_lr=0.001, inner_steps=inner_steps)
            learner.compile(keras.optimizers.SGD(1e-4), "mse")
        batch = tasks * strategy.num_replicas_in_sync // KINDS[kind]
        data = mlutils.data.sinusoids(meta_batch=batch).take(STEPS).cache()
        clock = Clock()
        learner.fit(data, verbose=0, shuffle=False, callbacks=[clock])
        if index == 0:
            row = {"processes": kind, "width": width, "inner steps": inner_steps, "tasks": tasks}
            row |= {"bytes": 4 * learner.count_params()}
            row |= {"seconds": round(clock.seconds_of_a_step(), 5)}
            print(json.dumps(row), flush=True)
        keras.backend.clear_session()


class Clock(keras.callbacks.Callback):
    """When each step ended."""

    def on_train_begin(self, logs=None):
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def seconds_of_a_step(self):
        """The median but for the first steps, during which TensorFlow prepares."""
        return float(np.median(np.diff(self.ends)[2:]))


def rows_of(kind):
    """The rows that the first worker prints."""
    together = list(configs(1 if "apart" in kind else KINDS[kind]))
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scaling", kind, str(index)],
            env=os.environ | {"TF_CONFIG": config},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, config in enumerate(together * (KINDS[kind] // len(together)))
    ]
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("A worker has ended badly.")
    return [json.loads(line) for line in said[0].splitlines()]


def main():
    if len(sys.argv) > 1:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    start = time.monotonic()
    result = {
        "command": "python -m benchmarks.scaling",
        "rows": [row for kind in KINDS for row in rows_of(kind)],
        "minutes": round((time.monotonic() - start) / 60, 1),
        "versions": {"tensorflow": tf.__version__, "python": platform.python_version()},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
