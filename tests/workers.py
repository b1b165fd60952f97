"""One process of a job of several, for ``tests/test_workers.py``.

python -m tests.workers FOLDER NAME=EPOCHS ...

With ``DIES`` in the environment it kills itself in the third epoch, the first time that it runs.
"""

import os
import signal
import sys
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np

STEPS = 10
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def tasks():
    """Episodes of points about three centres, four to a batch."""
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = random.normal(size=(60, 2)) + y[:, np.newaxis]
    return mlutils.data.episodes(x, y, ways=3, queries=2, meta_batch=4)


def maml(kind=mlutils.MAML):
    learner = kind(mlutils.mlp(2, (4,), 3), 0.1, 2)
    learner.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOGITS, metrics=["accuracy"])
    return learner, tasks()


class Unscaled(mlutils.MAML):
    """Forgets that the gradients of all workers are added up."""

    def compute_loss(self, *args, **options):
        loss = super().compute_loss(*args, **options)
        return loss * self.distribute_strategy.num_replicas_in_sync


def unscaled():
    return maml(Unscaled)


def reptile():
    learner = mlutils.Reptile(mlutils.mlp(2, (4,), 3), 0.1, 2)
    learner.compile(keras.optimizers.SGD(0.5), LOGITS)
    return learner, tasks()


def prototypical():
    learner = mlutils.PrototypicalNetwork(mlutils.mlp(2, (4,), 3))
    learner.compile(keras.optimizers.SGD(0.1), LOGITS)
    return learner, tasks()


def rules():
    family = mlutils.data.Quadratics(3)
    trainer = mlutils.RuleTrainer(mlutils.LSTMRule(4, 1), family.values, steps=6, truncation=3)
    trainer.compile(keras.optimizers.SGD(0.001))
    return trainer, family.problems(4, seed=0)


KINDS = {f.__name__: f for f in (maml, unscaled, reptile, prototypical, rules)}


class Dies(keras.callbacks.Callback):
    """Kills the process within the third epoch, unless it has done so before."""

    def __init__(self, folder):
        super().__init__()
        self.mark = folder / "died"

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.iterations == 2 * STEPS + 5 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def train(strategy, name, epochs, folder):
    """The model after some epochs of ten steps."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model, data = KINDS[name]()
    options = {"epochs": epochs, "steps_per_epoch": STEPS, "verbose": 0}
    options["callbacks"] = [Dies(folder)] if "DIES" in os.environ else []
    mlutils.fit_or_resume(model, data, folder / name, **options)
    return model


def main():
    folder, *words = sys.argv[1:]
    strategy = mlutils.join_workers(seconds=60)
    for word in words:
        name, epochs = word.split("=")
        train(strategy, name, int(epochs), Path(folder))


if __name__ == "__main__":
    main()
