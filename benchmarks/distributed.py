"""Several processes train one learner: a job to try out, and what a step of it takes.

    python -m benchmarks.distributed train --processes 2 --folder build/job     on this machine
    python -m benchmarks.distributed train --folder /shared/job                 one of a cluster
    python -m benchmarks.distributed measure                                    the times

With ``--processes`` the script starts itself that many times, as workers that meet on this
machine's loopback, and starts a worker again that has ended badly.  Without it, it is one worker,
of those that the environment variable ``TF_CONFIG`` names, or alone.  What it trains is MAML on
glyphs, 5-way 1-shot; a training that was cut off goes on.

``measure`` times a training step for other numbers of processes, tasks and inner steps and other
networks; each process has one core.  It writes ``mlutils/results/distributed.json``.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

RESULTS = Path(mlutils.__file__).parent / "results" / "distributed.json"
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
STARTS = 6  # of one worker
WIDTHS, INNER_STEPS, TASKS, PROCESSES = (64, 256, 1024), (1, 5), (4, 8, 16, 32), (1, 2)
STEPS, TIMES = 5, 7


# ---------------------------------------------------------------- a job


def train(folder, epochs):
    """What each worker does."""
    strategy = mlutils.join_workers()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        learner = mlutils.MAML(mlutils.conv4(outputs=5, filters=16), inner_lr=0.5)
        learner.compile(keras.optimizers.Adam(1e-3), LOGITS, metrics=["accuracy"])
    tasks = mlutils.data.glyphs("train").episodes(ways=5, shots=1, queries=2, meta_batch=8)
    first = mlutils.workers.leads(strategy)
    mlutils.fit_or_resume(
        learner, tasks, folder, epochs=epochs, steps_per_epoch=50, verbose=2 if first else 0
    )
    if first:
        learner.save(Path(folder) / "learner.keras")
        print(f"trained by {strategy.num_replicas_in_sync} processes", flush=True)


# ---------------------------------------------------------------- workers on this machine


def free_ports(number):
    """Ports of this machine that nobody uses now."""
    sockets = [socket.create_server(("", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def configs(number):
    """The ``TF_CONFIG`` of each of some workers on this machine."""
    addresses = [f"localhost:{port}" for port in free_ports(number)]
    for index in range(number):
        task = {"type": "worker", "index": index}
        yield json.dumps({"cluster": {"worker": addresses}, "task": task})


def start_workers(number, *words):
    """Run this script as some workers until all have ended well.

    One that ends badly is started again, by itself, as a cluster does it: those that it leaves
    alone end too, and come again.
    """

    def keep_running(config):
        command = [sys.executable, "-m", "benchmarks.distributed", *words]
        for _ in range(STARTS):
            code = subprocess.run(command, env=os.environ | {"TF_CONFIG": config}).returncode
            if code == 0:
                return
            print(f"a worker has ended with {code}, and is started again", flush=True)
        raise SystemExit(f"A worker has ended badly {STARTS} times.")

    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        list(pool.map(keep_running, configs(number)))


# ---------------------------------------------------------------- what a step takes


def time_steps():
    """What each worker measures: seconds of a step in all settings; the first prints them."""
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})  # a core for each
    strategy = mlutils.join_workers()
    processes = strategy.num_replicas_in_sync
    for width, inner_steps, tasks in itertools.product(WIDTHS, INNER_STEPS, TASKS):
        with strategy.scope():
            network = mlutils.mlp(1, (width, width), 1)
            learner = mlutils.MAML(network, inner_lr=0.001, inner_steps=inner_steps)
            learner.compile(keras.optimizers.SGD(1e-4), "mse")
        data = mlutils.data.sinusoids(meta_batch=tasks).take(STEPS).cache().repeat()
        seconds = [timed(learner, data) for _ in range(TIMES + 1)][1:]
        if mlutils.workers.leads(strategy):
            setting = {"width": width, "inner steps": inner_steps, "tasks": tasks}
            size = 4 * learner.count_params()
            found = {"processes": processes, "bytes": size, "seconds": float(np.median(seconds))}
            print(json.dumps(setting | found), flush=True)
        keras.backend.clear_session()


def timed(learner, data):
    """Seconds of one of some steps."""
    start = time.perf_counter()
    learner.fit(data, steps_per_epoch=STEPS, verbose=0, shuffle=False)
    return (time.perf_counter() - start) / STEPS


def measure():
    start, rows = time.monotonic(), []
    for processes in PROCESSES:
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.distributed", "time-steps"],
                env=os.environ | {"TF_CONFIG": config},
                stdout=subprocess.PIPE,
                text=True,
            )
            for config in configs(processes)
        ]
        said = [worker.communicate()[0] for worker in workers]
        if any(worker.returncode for worker in workers):
            raise SystemExit("A worker has ended badly.")
        rows += [json.loads(line) for line in said[0].splitlines()]
    result = {
        "command": "python -m benchmarks.distributed measure",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- the command


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "measure", "time-steps"))
    parser.add_argument("--processes", type=int, help="how many to start on this machine")
    parser.add_argument("--folder", default="build/distributed", help="of the training")
    parser.add_argument("--epochs", type=int, default=10, help="of 50 steps")
    arguments = parser.parse_args()
    job = ["--folder", arguments.folder, "--epochs", str(arguments.epochs)]
    if arguments.what == "measure":
        measure()
    elif arguments.what == "time-steps":
        time_steps()
    elif arguments.processes:
        start_workers(arguments.processes, "train", *job)
    else:
        train(arguments.folder, arguments.epochs)


if __name__ == "__main__":
    main()
