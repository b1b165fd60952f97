"""Train the few-shot learners that come with the package.

    python -m benchmarks.train_few_shot           all that are not there yet
    python -m benchmarks.train_few_shot mann-5    one, anew

Takes about an hour of one core, and writes mlutils/few_shot/trained/.  A training along sequences
that was cut off, by kill -9 too, goes on where it was when the command is given again.
"""

import csv
import functools
import json
import sys
import tempfile
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks import portable
from mlutils import (
    MAML,
    MANN,
    ConditionalNeuralProcess,
    ContextTransformer,
    MatchingNetwork,
    PrototypicalNetwork,
    RecurrentLearner,
    RelationNetwork,
)
from mlutils.few_shot.trained import FOLDER, trained_learner

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FEATURES, EPOCHS = 64, 20
UNDER_WAY = Path(tempfile.gettempdir()) / "mlutils-readers"  # trainings that are not done yet


def pretrain_encoder(train, epochs=5):
    """A small network that tells all training characters apart, without its last layer."""
    encoder = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(FEATURES),
            layers.RMSNormalization(),
        ]
    )
    classifier = keras.Sequential([encoder, layers.Dense(len(train))])
    classifier.compile("adam", loss=LOSS)
    classifier.fit(train.x / np.float32(255), train.y, batch_size=128, epochs=epochs, verbose=2)
    return encoder, {"steps": epochs * len(train.y) // 128, "tasks": 0}


def with_encoder(make, steps=2000, ways=20, meta_batch=4):
    """Train a learner and its encoder on tasks of 1 and 5 shots in turn."""

    def run(train, encoder, name):
        learner = make(encoder)
        one, five = (
            train.episodes(ways=ways, shots=shots, meta_batch=meta_batch, seed=shots)
            for shots in (1, 5)
        )
        in_turn = tf.data.Dataset.choose_from_datasets(
            [one, five], tf.data.Dataset.range(2).repeat()
        )
        fit(learner, in_turn, steps, rate=1e-3)
        return learner, {"steps": steps, "tasks": steps * meta_batch}

    return run


def along(make, ways, steps, stages, meta_batch):
    """Train what stands behind the encoder on sequences of 30 or 40 drawings, the encoder held.

    Args:
        make: from an encoder and the number of names to a learner.
        ways: how many names there are.
        steps: in all.
        stages: ``(classes, shots, share of the steps)`` in turn, ``classes * shots`` always the
            same: sequences of few classes, which get their names from all there are, may come
            first.  Each tenth of the training is judged on sequences of the validation scripts.
        meta_batch: sequences per step.
    """

    def run(train, encoder, name):
        encoder.trainable = False
        sets = train, mlutils.data.glyphs("validation")
        z, of_others = (
            encoder.predict(s.x / np.float32(255), batch_size=1000, verbose=0) for s in sets
        )
        parts = [
            sequences(z, train.y, classes, shots, ways, meta_batch, seed=number).take(
                round(share * steps)
            )
            for number, (classes, shots, share) in enumerate(stages)
        ]
        judged = sequences(of_others, sets[1].y, ways, stages[-1][1], ways, 100, seed=99).take(10)
        nothing = keras.Sequential([keras.Input((FEATURES,)), layers.Identity()])
        learner, whole = make(nothing, ways), make(encoder, ways)
        learner.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(3e-3, steps), clipnorm=1.0
            ),
            LOSS,
            metrics=["accuracy"],
            steps_per_execution=50,
            jit_compile=True,
        )
        learner((z[None, :2], tf.zeros((1, 2), tf.int32)))  # builds it
        data = functools.reduce(lambda a, b: a.concatenate(b), parts)
        UNDER_WAY.mkdir(exist_ok=True)
        log = UNDER_WAY / f"{name}.csv"
        mlutils.fit_or_resume(
            learner,
            data,
            UNDER_WAY / name,
            epochs=EPOCHS,
            steps_per_epoch=steps // EPOCHS,
            validation_data=judged,
            callbacks=[Seconds(), keras.callbacks.CSVLogger(log, append=True)],
            verbose=1 if sys.stdout.isatty() else 2,
        )
        eyes = {id(variable) for variable in encoder.variables}
        behind = [variable for variable in whole.weights if id(variable) not in eyes]
        for variable, value in zip(behind, learner.get_weights(), strict=True):
            variable.assign(value)
        with log.open(encoding="utf-8") as file:  # an epoch that was cut off stands there twice
            epochs = {row["epoch"]: row for row in csv.DictReader(file)}.values()
        return whole, {
            "steps": steps,
            "tasks": steps * meta_batch,
            "validation": [round(float(epoch["val_accuracy"]), 3) for epoch in epochs],
            "seconds": round(sum(float(epoch["seconds"]) for epoch in epochs)),
        }

    return run


class Seconds(keras.callbacks.Callback):
    """Adds the processor's seconds of an epoch to its logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.process_time() - self.start


def sequences(z, y, classes, shots, ways, meta_batch, seed):
    """Sequences of embeddings and labels; the classes get their names from all ``ways``."""
    tasks = mlutils.data.episodes(
        z, y, ways=classes, shots=shots, queries=1, meta_batch=meta_batch, seed=seed
    )

    def named(number, task):
        (x, y, _), _ = task
        draws = tf.random.stateless_uniform((meta_batch, ways), tf.stack([seed, number]))
        y = tf.gather(tf.argsort(draws), y, axis=1, batch_dims=1)
        return (x, y), y

    return tasks.enumerate().map(named)


def neural_process(train, encoder, name, steps=10000, meta_batch=32):
    """On draws from a Gaussian process; it needs no characters."""
    learner = ConditionalNeuralProcess(
        mlutils.mlp(2, (128, 128, 128), 128), mlutils.mlp(129, (128, 128), 2), smallest=0.02
    )
    tasks = mlutils.data.GaussianProcess().episodes(queries=20, meta_batch=meta_batch)
    fit(learner, tasks, steps, rate=2e-3, loss=mlutils.gaussian_nll)
    return learner, {"steps": steps, "tasks": steps * meta_batch}


def fit(learner, tasks, steps, rate, loss=LOSS, **options):
    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    learner.compile(
        keras.optimizers.Adam(decay, clipnorm=1.0), loss, steps_per_execution=50, **options
    )
    learner.fit(tasks, steps_per_epoch=steps // 10, epochs=10, verbose=2)


def relation_network(encoder):
    return RelationNetwork(encoder, mlutils.mlp(2 * FEATURES, (64,), 1))


def maml(ways):
    def make(encoder):
        head = layers.Dense(ways, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((28, 28, 1)), *encoder.layers, head])
        return MAML(model, inner_lr=0.1)

    return make


def recurrent(encoder, ways):
    return RecurrentLearner(encoder, ways, units=128)


def mann(encoder, ways):
    return MANN(encoder, ways, units=100, slots=40 if ways == 5 else 64, width=32)


FIVE = [(5, 6, 1.0)]
TWENTY = [(5, 8, 0.25), (10, 4, 0.25), (20, 2, 0.5)]
RECIPES = {
    "prototypical": with_encoder(lambda encoder: PrototypicalNetwork(encoder, scale=0.1)),
    "matching": with_encoder(lambda encoder: MatchingNetwork(encoder, scale=10.0)),
    "relation": with_encoder(relation_network),
    "transformer-5": along(ContextTransformer, 5, 6000, FIVE, 32),
    "recurrent-5": along(recurrent, 5, 16000, FIVE, 32),
    "mann-5": along(mann, 5, 12000, FIVE, 32),
    "recurrent-20": along(recurrent, 20, 60000, TWENTY, 16),
    "transformer-20": along(ContextTransformer, 20, 20000, TWENTY, 16),
    "mann-20": along(mann, 20, 20000, TWENTY, 16),
    "maml-5": with_encoder(maml(5), steps=1500, ways=5, meta_batch=16),
    "maml-20": with_encoder(maml(20), steps=1500, ways=20, meta_batch=4),
    "neural-process": neural_process,
}


def main(names):
    path = FOLDER / "record.json"

    def record():
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    tf.config.threading.set_intra_op_parallelism_threads(1)
    for name in names or [n for n in ("encoder", *RECIPES) if n not in record()]:
        keras.utils.set_random_seed(0)
        train, start = mlutils.data.glyphs("train"), time.process_time()
        if name == "encoder":
            learner, how = pretrain_encoder(train)
        else:
            learner, how = RECIPES[name](train, trained_learner("encoder")[0], name)
        seconds = round(time.process_time() - start)
        portable.save(learner, FOLDER / f"{name}.keras")
        entry = {"seconds": seconds, **how}
        text = json.dumps({**record(), name: entry}, indent=1) + "\n"
        path.write_text(text, encoding="utf-8")
        print(name, entry, flush=True)


if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in ("encoder", *RECIPES)]
    if unknown:
        sys.exit(f"No such learner: {unknown}; there are {['encoder', *RECIPES]}.")
    FOLDER.mkdir(exist_ok=True)
    main(sys.argv[1:])
