"""Trainings that may be cut off at any moment, and then go on as if nothing had been."""

import hashlib
import os
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mlutils.door.numbers import check_count
from mlutils.workers import check_same, leads

UNFINISHED = "unfinished.npz"  # what a file is called until it is whole


def fit_or_resume(model, data, folder, *, epochs, steps_per_epoch, keep=2, **options):
    """``model.fit``, which goes on where an earlier call with the same folder was cut off.

    It writes a numbered file at the start and after each epoch.  To go on, make model and data in
    the same way again, in a new process or this one, and call it again: the newest file that can
    be read is put into the model, whatever that holds, and the training goes on after that file's
    epoch, with the element of the data that is then due.  The result is that of a training that
    ran through, bit for bit, as far as the machine computes the same twice.

    Kept are all variables of the model and its optimizer: weights, averages, the number of steps
    and so the place in a schedule, the learning rate, the scale of a half-precision loss, the
    seeds of layers such as Dropout (which Keras's own files leave out).  Not kept are what
    callbacks remember (EarlyStopping and ReduceLROnPlateau begin to wait anew, and a training
    that EarlyStopping ended goes on when called again); the state of ``tf.random``, and of
    ``keras.random`` without a ``SeedGenerator``; a ``tf.Variable`` or another attribute that a
    ``train_step`` of your own changes.

    The elements before the one that is due are made again and thrown away.  That takes .1 to .5
    ms each for the episodes of ``mlutils.data``, 3 s after 6000 steps of 16 tasks; where many
    pictures are distorted on the way, 3 ms.

    Args:
        model: a compiled and built ``keras.Model``, a learner for instance; it need not be
            registered for saving.
        data: a ``tf.data.Dataset`` that is the same each time it is iterated, as those of
            ``mlutils.data`` are; endless, or long enough for all epochs.  One that is
            shuffled needs a seed, and is to be made anew for each call; its order is then not
            that of ``fit``, as looking at the first element is an iteration too.
        folder: where the files are; made where it is not there.  It is for this training alone,
            and for one process at a time, or for the several that ``join_workers`` brought
            together: all read there, and one writes.
        epochs: how many in all, those of earlier calls among them.
        steps_per_epoch: batches, a multiple of the model's ``steps_per_execution``.
        keep: how many of the newest files are kept.
        **options: of ``model.fit``, such as ``callbacks``, ``validation_data`` and ``verbose``.

    Returns:
        Keras's ``History`` of the epochs that were run now.  It is empty where all were done
        before; the model then has its final weights.

    Raises:
        TypeError: if ``model``, ``data`` or a callback is something else, or for the options
            ``x``, ``y`` and ``initial_epoch``, which this function sets itself.
        ValueError: if the model is not compiled, not built, or has a second optimizer; if the data
            are too short; if the folder is a file, or holds files of another model, of another
            ``steps_per_epoch`` or of more than ``epochs`` epochs, which are left as they are; if
            several processes do not see the same files; if a number is not allowed.

    Warns:
        UserWarning: naming a file that cannot be read, which is stepped over; or if the data's
            first element is not what it was at the start, so that they are not repeatable.
    """
    callbacks = check_options(options)
    epochs, keep = check_count("epochs", epochs), check_count("keep", keep)
    steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
    check_model(model, steps_per_epoch)
    check_data(data, epochs * steps_per_epoch)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; it must be a folder, or not be there yet.")
    strategy = model.distribute_strategy
    with strategy.scope():
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)

    facts = {"steps": steps_per_epoch, "first": digest_of_first(data)}
    done, found = newest(folder)
    there = -1 if found is None else done
    check_same(strategy, there, f"the epochs they find in {folder}; it must be one for all")
    if found is None and leads(strategy):
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, done, model, facts, keep)
    elif found is not None:
        check_facts(folder, found["facts"], facts, done, epochs)
        restore(model, found["values"], folder)
    if leads(strategy):
        (folder / UNFINISHED).unlink(missing_ok=True)  # of a run that was killed as it wrote

    def after_epoch(epoch):
        if leads(strategy):
            write(folder, epoch, model, facts, keep)

    options["callbacks"] = [*callbacks, AfterEpoch(after_epoch, steps_per_epoch)]
    options.setdefault("shuffle", False)  # or Keras warns that it does not shuffle a Dataset
    rest = data.skip(done * steps_per_epoch)
    return model.fit(
        rest, epochs=epochs, initial_epoch=done, steps_per_epoch=steps_per_epoch, **options
    )


class AfterEpoch(keras.callbacks.Callback):
    """Calls ``write`` with the number of epochs done, after each whole one.

    It stands last, so that what other callbacks change at an epoch's end is in the file.
    """

    def __init__(self, write, steps):
        super().__init__()
        self.write, self.steps, self.taken = write, steps, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.taken = 0

    def on_train_batch_end(self, batch, logs=None):
        self.taken += self.model.steps_per_execution  # ``batch`` differs by Keras's version

    def on_epoch_end(self, epoch, logs=None):
        if self.taken == self.steps:
            self.write(epoch + 1)
        elif not self.model.stop_training:  # else a callback, such as TerminateOnNaN, cut it short
            raise ValueError(
                f"The data ended in epoch {epoch + 1}, after {self.taken} of {self.steps} steps; "
                "they must be endless, or last for all epochs."
            )


# ---------------------------------------------------------------- files


def variables_of(model):
    """All that a file holds; in this order."""
    return [*model.variables, *model.optimizer.variables]


def write(folder, done, model, facts, keep):
    """Write the file after ``done`` epochs, whole or not at all, and remove those too old."""
    values = [np.asarray(variable) for variable in variables_of(model)]
    numbers = {str(i): value for i, value in enumerate(values)}
    np.savez(folder / UNFINISHED, variables=len(values), **facts, **numbers)
    os.replace(folder / UNFINISHED, folder / f"epoch-{done:04}.npz")
    for number, path in numbered(folder):
        if number <= done - keep:
            path.unlink()


def read(path):
    """The facts and the values of a file; an error of some kind if it is damaged."""
    with np.load(path) as file:  # compares the checksum of whatever is read
        facts = {name: file[name].item() for name in ("steps", "first")}
        values = [file[str(i)] for i in range(file["variables"].item())]
    return {"facts": facts, "values": values}


def numbered(folder):
    """``(epochs, path)`` of the files in the folder, the newest first."""
    names = ((re.fullmatch(r"epoch-(\d{4,})\.npz", p.name), p) for p in folder.glob("epoch-*.npz"))
    return sorted(((int(match[1]), path) for match, path in names if match), reverse=True)


def newest(folder):
    """``(epochs, what was read)`` of the newest file that can be; ``(0, None)`` if none can."""
    for number, path in numbered(folder):
        try:
            return number, read(path)
        except PermissionError:
            raise
        except Exception as error:  # of a damaged file numpy and zipfile raise many kinds
            warnings.warn(
                f"{path} cannot be read ({type(error).__name__}: {error}) and is stepped over.",
                stacklevel=3,
            )
    return 0, None


def check_facts(folder, found, facts, done, epochs):
    """Raise, or warn, if a file's training is not the one that was asked for."""
    if found["steps"] != facts["steps"]:
        raise ValueError(
            f"{folder} holds a training with steps_per_epoch={found['steps']}; now it is "
            f"{facts['steps']}: take another folder."
        )
    if done > epochs:
        raise ValueError(f"{folder} holds a training of {done} epochs already; epochs is {epochs}.")
    if found["first"] != facts["first"]:
        warnings.warn(
            f"The first element of data is not what it was when the training in {folder} began: "
            "the data are others or come in another order, and the training does not go on as if "
            "it had not been cut off. Shuffle with a seed, and make the data anew for each call.",
            stacklevel=3,
        )


def restore(model, values, folder):
    """Put a file's values into the model's and its optimizer's variables."""
    variables = variables_of(model)
    if len(values) != len(variables):
        raise ValueError(
            f"{folder} holds the training of another model, of {len(values)} variables with its "
            f"optimizer's; this one has {len(variables)}. Take another folder."
        )
    for i, variable in enumerate(variables):
        now = np.asarray(variable)
        if values[i].dtype == f"V{now.itemsize}":  # how numpy reads bfloat16
            values[i] = values[i].view(now.dtype)
        if (values[i].shape, values[i].dtype) != (now.shape, now.dtype):
            raise ValueError(
                f"{folder} holds the training of another model: {variable.path} is {now.dtype} "
                f"{now.shape}, and in the folder {values[i].dtype} {values[i].shape}. Take another "
                "folder."
            )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


# ---------------------------------------------------------------- checks


def digest_of_first(data):
    """The SHA-256 of a dataset's first element: to tell when it is not repeatable."""
    total = hashlib.sha256()
    for element in data.take(1):
        for part in tf.nest.flatten(element, expand_composites=True):
            total.update(tf.io.serialize_tensor(part).numpy())
    return total.hexdigest()


def check_options(options):
    """The callbacks in the options, as a list; or an error for what they must not hold."""
    refused = {"x", "y", "initial_epoch"} & set(options)
    if refused:
        raise TypeError(f"fit_or_resume sets {sorted(refused)} of fit itself: leave it out.")
    callbacks = keras.tree.flatten(options.get("callbacks") or [])
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(f"callbacks must hold callbacks of Keras; got {callback!r}.")
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError("BackupAndRestore restores too, and otherwise: leave it out.")
    return callbacks


def check_model(model, steps):
    """Raise if a model cannot be trained and restored."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model; got {type(model).__name__}.")
    if not model.compiled or model.optimizer is None:
        raise ValueError("The model has no optimizer yet: compile it first.")
    if not model.built:
        raise ValueError(
            "The model has no weights yet that could be restored: call it on an input first, or "
            "begin it with keras.Input."
        )
    others = [k for k, v in vars(model).items() if isinstance(v, keras.optimizers.Optimizer)]
    if others != ["optimizer"]:
        raise ValueError(
            f"The model has optimizers other than the compiled one ({others}), which would not be "
            "restored."
        )
    if steps % model.steps_per_execution:
        raise ValueError(
            f"steps_per_epoch={steps} must be a multiple of the model's steps_per_execution="
            f"{model.steps_per_execution}: Keras takes whole executions."
        )


def check_data(data, needed):
    """Raise if these are no data, or data known to be too short."""
    if not isinstance(data, tf.data.Dataset):
        raise TypeError(f"data must be a tf.data.Dataset; got {type(data).__name__}.")
    there = int(data.cardinality())
    if 0 <= there < needed:
        raise ValueError(
            f"The data hold {there} elements, and epochs * steps_per_epoch is {needed}: repeat() "
            "them, or take fewer."
        )
