"""Several processes train one learner: a job to try out.

    python -m benchmarks.distributed --processes 2 --folder build/job     all on this machine
    python -m benchmarks.distributed --folder /shared/job                 one of a cluster

With ``--processes`` the script starts itself that many times, as workers that meet on this
machine's loopback, and starts a worker again that has ended badly.  Without it, it is one worker,
of those that the environment variable ``TF_CONFIG`` names, or alone.  What it trains is MAML on
glyphs, 5-way 1-shot; a training that was cut off goes on.
"""

import argparse
import concurrent.futures
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
STARTS = 6  # of one worker


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
    """Ports of this machine that nobody uses now, nor the system gives to those who ask for any."""
    found = []
    for port in random.sample(range(20000, 30000), 1000):
        try:
            socket.create_server(("", port)).close()
        except OSError:
            continue
        found.append(port)
        if len(found) == number:
            return found
    raise OSError("There are no free ports between 20000 and 30000.")


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


# ---------------------------------------------------------------- the command


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, help="how many to start on this machine")
    parser.add_argument("--folder", default="build/distributed", help="of the training")
    parser.add_argument("--epochs", type=int, default=10, help="of 50 steps")
    arguments = parser.parse_args()
    if arguments.processes:
        job = ["--folder", arguments.folder, "--epochs", str(arguments.epochs)]
        start_workers(arguments.processes, *job)
    else:
        train(arguments.folder, arguments.epochs)


if __name__ == "__main__":
    main()
