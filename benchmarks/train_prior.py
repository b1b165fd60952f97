"""Fit the two networks of the page on priors.

    python -m benchmarks.train_prior            both
    python -m benchmarks.train_prior tables     one

Takes about 4 minutes of one core, and writes mlutils/beyond/trained/prior-*.keras, and beside
each its record: ``steps``, ``tables`` seen, ``minutes`` of one core, and the loss on validation
tables of the prior after each twentieth of the training.  No real table has a say.  A training
that was cut off goes on where it was.
"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import tensorflow as tf

from benchmarks import portable
from mlutils.beyond.gaussian_classes import GaussianClasses
from mlutils.beyond.prior_fitted import PriorFittedNetwork
from mlutils.beyond.random_tables import RandomTables

FOLDER = Path(mlutils.__file__).parent / "beyond" / "trained"
UNDER_WAY = Path(tempfile.gettempdir()) / "mlutils-priors"  # trainings that are not done yet
EPOCHS, META_BATCH, QUERIES = 20, 16, 32

# name: the network, its prior, the numbers of rows it sees in turn, the steps
RECIPES = {
    "gaussian": (
        lambda: PriorFittedNetwork(2, 3, units=32, heads=4, blocks=3, standardize=False),
        GaussianClasses(),
        (3, 6, 12, 24),
        3000,
    ),
    "tables": (
        lambda: PriorFittedNetwork(16, 4, units=64, heads=4, blocks=3),
        RandomTables(),
        (16, 32, 64),
        6000,
    ),
}


def in_turn(prior, sizes, meta_batch, seed):
    """Batches of tables with so many rows, one size after the other."""
    each = [prior.episodes(rows, QUERIES, meta_batch, seed=seed + rows) for rows in sizes]
    return tf.data.Dataset.choose_from_datasets(each, tf.data.Dataset.range(len(sizes)).repeat())


class Seconds(keras.callbacks.Callback):
    """Adds the processor's seconds of an epoch to its logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.process_time() - self.start


def train(name):
    make, prior, sizes, steps = RECIPES[name]
    learner = make()
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - 500, warmup_target=2e-3, warmup_steps=500
    )
    learner.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=25,
    )
    UNDER_WAY.mkdir(exist_ok=True)
    log = UNDER_WAY / f"{name}.csv"
    mlutils.fit_or_resume(
        learner,
        in_turn(prior, sizes, META_BATCH, seed=0),
        UNDER_WAY / name,
        epochs=EPOCHS,
        steps_per_epoch=steps // EPOCHS,
        validation_data=in_turn(prior, sizes, 100, seed=1000).take(2 * len(sizes)),
        callbacks=[Seconds(), keras.callbacks.CSVLogger(log, append=True)],
        verbose=2,
    )
    with log.open(encoding="utf-8") as file:  # an epoch that was cut off stands there twice
        epochs = {row["epoch"]: row for row in csv.DictReader(file)}.values()
    record = {
        "command": "python -m benchmarks.train_prior",
        "minutes": round(sum(float(epoch["seconds"]) for epoch in epochs) / 60, 1),
        "steps": steps,
        "tables": steps * META_BATCH,
        "validation": [round(float(epoch["val_loss"]), 3) for epoch in epochs],
    }
    portable.save(learner, FOLDER / f"prior-{name}.keras")
    text = json.dumps(record, indent=1) + "\n"
    (FOLDER / f"prior-{name}.json").write_text(text, encoding="utf-8")
    print(name, record, flush=True)


if __name__ == "__main__":
    mlutils.setup(threads=1)
    for name in sys.argv[1:] or RECIPES:
        train(name)
