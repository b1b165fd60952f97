"""Training by several processes, on one machine or on many, each with its share of the tasks."""

import itertools
import json
import os
import re
import socket
import time

import keras
import tensorflow as tf

from mlutils.door.numbers import check_positive


def join_workers(seconds=300.0):
    """Wait for the other processes of a job, and return the strategy for all of them.

    Which processes there are, and which this one is, says the environment variable ``TF_CONFIG``,
    as TensorFlow has it; without it this process works alone, with the default strategy.  All run
    the same script, with the same seeds, and call this first.  Learners that are made within the
    strategy's scope then train by ``fit`` and ``fit_or_resume`` as they do alone: each batch of
    tasks is divided among the workers, the gradients are averaged (:eq:`eq-shared-tasks`), and the
    weights are those that one process would have, but for rounding and for what is drawn at random
    within a step.

    Args:
        seconds: to wait for the others.

    Returns:
        A ``tf.distribute.Strategy``.

    Raises:
        ValueError: if ``TF_CONFIG`` is not as it must be.
        TimeoutError: naming the workers that have not come in time.
        RuntimeError: if TensorFlow has computed something already; what it may know of other
            processes is then settled.
        OSError: if this worker's own port is in use, by an earlier call for instance.

    Example:
        >>> strategy = mlutils.join_workers()
        >>> with strategy.scope():
        ...     learner = mlutils.MAML(mlutils.mlp(1, (40, 40), 1), inner_lr=0.01)
        ...     learner.compile("adam", "mse")
        ...
        >>> strategy.num_replicas_in_sync
        1
    """
    seconds = check_positive("seconds", seconds)
    jobs, job, index = read_cluster(os.environ.get("TF_CONFIG"))
    if sum(map(len, jobs.values())) < 2:
        return tf.distribute.get_strategy()
    meet(jobs, jobs[job][index], seconds)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise RuntimeError(
            "join_workers must come before anything that TensorFlow computes, data among it: call "
            "it right after the imports."
        ) from error


def read_cluster(text):
    """``(addresses by job, this process's job, its index in it)`` from a ``TF_CONFIG``."""
    if not text:
        return {}, None, None
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        job, index = str(task["type"]), int(task["index"])
        jobs = {name: list(addresses) for name, addresses in jobs.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            'TF_CONFIG must be JSON like {"cluster": {"worker": ["host:port", ...]}, "task": '
            f'{{"type": "worker", "index": 0}}}}; got {text!r}.'
        ) from error
    if not set(jobs) <= {"chief", "worker"} or len(jobs.get("chief", [])) > 1:
        raise ValueError(
            f"TF_CONFIG's cluster has workers and at most one chief; got {sorted(jobs)}."
        )
    if job not in jobs or not 0 <= index < len(jobs[job]):
        raise ValueError(
            f"TF_CONFIG says that this is {job} {index}, which its cluster does not have: {jobs}."
        )
    addresses = list(itertools.chain.from_iterable(jobs.values()))
    for address in addresses:
        if not re.fullmatch(r"[^\[\]:]+:\d+", str(address)):
            raise ValueError(f"TF_CONFIG's addresses are host:port; got {address!r}.")
        if addresses.count(address) > 1:
            raise ValueError(f"TF_CONFIG names {address} twice: each worker has its own.")
    return jobs, job, index


def meet(jobs, own, seconds):
    """Wait until each other worker's address answers, and let one's own answer meanwhile.

    TensorFlow itself waits for good.
    """
    deadline = time.monotonic() + seconds
    missing = [address for addresses in jobs.values() for address in addresses if address != own]
    try:
        server = socket.create_server(("", int(own.rpartition(":")[2])))
    except OSError as error:
        raise OSError(
            f"This worker cannot listen at its own address, {own} ({error}): another process has "
            "the port, or this one called join_workers before."
        ) from error
    with server:
        while missing := [address for address in missing if not answers(address)]:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"After {seconds:g} s there is no answer from {', '.join(missing)}. Do all "
                    "workers of TF_CONFIG run, and do their hosts and ports reach each other?"
                )
            time.sleep(0.1)


def answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def tasks_of_replica(model, data):
    """How many tasks each of several replicas gets; None for one device, or if it is not known.

    It is not known, and nothing is checked of it, where batches may differ in size: take
    ``drop_remainder=True``.

    Raises:
        ValueError: if they would take other steps than one device.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas == 1:
        return None
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    for name in ("clipnorm", "clipvalue", "global_clipnorm"):
        if getattr(optimizer, name, None) is not None:
            raise ValueError(
                f"{name} is refused with {replicas} replicas: Keras clips the gradient of each "
                "before they are added up, and the step is another than that of one device."
            )
    tasks = tf.nest.flatten(data.element_spec, expand_composites=True)[0].shape[0]
    if tasks is not None and tasks % replicas:
        raise ValueError(
            f"A batch of {tasks} tasks cannot be divided evenly among {replicas} replicas: tasks "
            "of the smaller shares would count more."
        )
    return None if tasks is None else tasks // replicas


def of_share(data, tasks):
    """A replica's part of a batch, whose number of tasks TensorFlow forgets when it divides it."""
    if tasks is None:
        return data
    return keras.tree.map_structure(lambda x: tf.ensure_shape(x, [tasks, *x.shape[1:]]), data)


def several(strategy):
    """Whether a strategy is one of several processes."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    return sum(map(len, strategy.cluster_resolver.cluster_spec().as_dict().values())) > 1


def leads(strategy):
    """Whether this is the one process that writes files."""
    if not several(strategy):
        return True
    resolver = strategy.cluster_resolver
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def check_same(strategy, number, what):
    """Raise if a number is not the same in all processes."""
    if several(strategy):
        numbers = strategy.gather(tf.constant([number], tf.int64), axis=0).numpy().tolist()
        if len(set(numbers)) > 1:
            raise ValueError(f"The workers differ in {what}: {numbers}.")


def logs_for_keras(logs):
    """What a step logs, with an axis more where there are several processes.

    Keras 3 averages logs over them along the first axis, which numbers do not have.
    """
    if not several(tf.distribute.get_strategy()):
        return logs
    return keras.tree.map_structure(lambda value: tf.reshape(value, [1]), logs)
