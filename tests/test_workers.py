"""Several processes that train together end where one would."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import mlutils
from benchmarks.distributed import free_ports
from mlutils import resume, workers
from tests.workers import KINDS, STEPS, train

ROOT = Path(__file__).resolve().parents[1]


def config(ports, index, job="worker"):
    cluster = {job: [f"localhost:{port}" for port in ports]}
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


def start(folder, words, ports, index, **environment):
    command = [sys.executable, "-m", "tests.workers", str(folder), *words]
    environment |= {"TF_CONFIG": config(ports, index)}
    pipe = {"stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, **pipe)


def job(folder, *words):
    """Two processes that train together, to the end."""
    ports = free_ports(2)
    processes = [start(folder, words, ports, index) for index in range(2)]
    try:
        for process in processes:
            errors = process.communicate(timeout=300)[1]
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()


def values(folder, name):
    """What the newest file of a training holds."""
    return resume.newest(Path(folder) / name)[1]["values"]


EPOCHS = dict.fromkeys(KINDS, 2) | {"maml": 20}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of trainings by two processes."""
    folder = tmp_path_factory.mktemp("together")
    job(folder, *(f"{name}={epochs}" for name, epochs in EPOCHS.items()))
    return folder


def distance(some, others):
    return max(np.abs(one - other).max() for one, other in zip(some, others, strict=True))


def furthest(folder, name, tmp_path):
    """How far two processes ended from one, which has gone much further."""
    model = train(tf.distribute.get_strategy(), name, EPOCHS[name], tmp_path)
    train(tf.distribute.get_strategy(), name, 1, tmp_path / "short")
    weights = [i for i, variable in enumerate(model.variables) if variable.trainable]
    places = tmp_path, tmp_path / "short", folder
    alone, short, found = ([values(place, name)[i] for i in weights] for place in places)
    assert distance(alone, short) > 1e-2
    return distance(alone, found)


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"unscaled"}))
def test_two_processes_equal_one(together, name, tmp_path):
    """Twenty steps of four tasks, two for each; and 200 of MAML."""
    assert EPOCHS[name] * STEPS >= 20
    assert furthest(together, name, tmp_path) < 1e-5


def test_gradients_that_are_added_without_scaling_are_seen(together, tmp_path):
    assert furthest(together, "unscaled", tmp_path) > 1e-2


def test_a_worker_that_is_killed_and_started_again(together, tmp_path):
    """Each process is started again, by itself, until it ends well, as a cluster does it."""
    ports, codes = free_ports(2), {0: [], 1: []}

    def keep_running(index):
        environment = {"DIES": "1"} if index == 1 else {}
        while 0 not in codes[index] and len(codes[index]) < 6:
            process = start(tmp_path, ["maml=20"], ports, index, **environment)
            try:
                process.communicate(timeout=120)
            finally:
                process.kill()
            codes[index].append(process.returncode)

    threads = [threading.Thread(target=keep_running, args=[i], daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert codes[1][0] == -9 and codes[0][0] != 0  # the survivor did not go on alone
    assert codes[0][-1] == codes[1][-1] == 0, codes
    assert resume.newest(tmp_path / "maml")[0] == 20
    pairs = zip(values(tmp_path, "maml"), values(together, "maml"), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in pairs)


# ---------------------------------------------------------------- the door


def test_a_worker_that_never_comes(monkeypatch):
    ports = free_ports(2)
    monkeypatch.setenv("TF_CONFIG", config(ports, 0))
    with pytest.raises(TimeoutError, match=f"no answer from localhost:{ports[1]}"):
        mlutils.join_workers(seconds=0.3)


def test_workers_that_come_one_after_the_other_meet():
    ports = free_ports(3)
    jobs = {"worker": [f"localhost:{port}" for port in ports]}
    came = []

    def come(index, late):
        time.sleep(late)
        workers.meet(jobs, jobs["worker"][index], 5)
        came.append(index)
        with socket.create_server(("", ports[index])):  # as TensorFlow's server does then
            time.sleep(2)

    threads = [threading.Thread(target=come, args=[i, i / 2]) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came) == [0, 1, 2]


def test_a_port_in_use(monkeypatch):
    ports = free_ports(2)
    monkeypatch.setenv("TF_CONFIG", config(ports, 0))
    with socket.create_server(("", ports[0])):
        with pytest.raises(
            OSError, match=f"cannot listen at its own address, localhost:{ports[0]}"
        ):
            mlutils.join_workers(seconds=5)


def test_one_process_alone(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert mlutils.join_workers() is tf.distribute.get_strategy()
    monkeypatch.setenv("TF_CONFIG", config([12345], 0))
    assert mlutils.join_workers() is tf.distribute.get_strategy()
    assert workers.leads(tf.distribute.get_strategy())


def test_too_late(monkeypatch):
    """TensorFlow has computed something in this process, and the other worker is there."""
    tf.constant(0)
    ports = free_ports(2)
    monkeypatch.setenv("TF_CONFIG", config(ports, 0))
    with socket.create_server(("", ports[1])):
        with pytest.raises(RuntimeError, match="right after the imports"):
            mlutils.join_workers(seconds=5)


WORKERS = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": %s}}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("worker", "must be JSON like"),
        ('{"cluster": {"worker": ["a:1"]}}', "must be JSON like"),
        ("[]", "must be JSON like"),
        (WORKERS % 2, "this is worker 2, which its cluster does not have"),
        (WORKERS % -1, "this is worker -1"),
        (WORKERS.replace("b:2", "b") % 0, "host:port; got 'b'"),
        (WORKERS.replace("b:2", "[::1]:2") % 0, r"host:port; got '\[::1\]:2'"),
        (WORKERS.replace("b:2", "a:1") % 0, "names a:1 twice"),
        ('{"cluster": null, "task": {"type": "worker", "index": 0}}', "must be JSON like"),
        ('{"cluster": {"worker": 1}, "task": {"type": ["worker"], "index": 0}}', "must be JSON"),
        (WORKERS.replace('"worker": [', '"ps": ["c:1"], "worker": [') % 0, r"got \['ps', 'worker'"),
    ],
)
def test_a_wrong_cluster(monkeypatch, text, says):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=says):
        mlutils.join_workers()


def test_wrong_seconds():
    with pytest.raises(ValueError, match="seconds"):
        mlutils.join_workers(seconds=0)
