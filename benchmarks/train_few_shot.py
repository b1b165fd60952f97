"""Train the few-shot learners that come with the package.

    python -m benchmarks.train_few_shot           all that are not there yet
    python -m benchmarks.train_few_shot mann-5    one, anew

Takes about half an hour of one core, and writes mlutils/few_shot/trained/.
"""

import json
import sys
import time

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
FEATURES = 64


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

    def run(train, encoder):
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


def along(make, ways, shots, steps, meta_batch=32):
    """Train what stands behind the encoder on sequences, the encoder's weights held."""

    def run(train, encoder):
        encoder.trainable = False
        z = encoder.predict(train.x / np.float32(255), batch_size=1000, verbose=0)
        tasks = mlutils.data.episodes(
            z, train.y, ways=ways, shots=shots, queries=1, meta_batch=meta_batch
        )
        nothing = keras.Sequential([keras.Input((FEATURES,)), layers.Identity()])
        learner, whole = make(nothing, ways), make(encoder, ways)
        sequences = tasks.map(lambda inputs, _: (inputs[:2], inputs[1]))
        fit(learner, sequences, steps, rate=3e-3, jit_compile=True)
        eyes = {id(variable) for variable in encoder.variables}
        behind = [variable for variable in whole.weights if id(variable) not in eyes]
        for variable, value in zip(behind, learner.get_weights(), strict=True):
            variable.assign(value)
        return whole, {"steps": steps, "tasks": steps * meta_batch}

    return run


def neural_process(train, encoder, steps=10000, meta_batch=32):
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


RECIPES = {
    "prototypical": with_encoder(lambda encoder: PrototypicalNetwork(encoder, scale=0.1)),
    "matching": with_encoder(lambda encoder: MatchingNetwork(encoder, scale=10.0)),
    "relation": with_encoder(relation_network),
    "transformer-5": along(ContextTransformer, 5, shots=6, steps=3000),
    "mann-5": along(mann, 5, shots=6, steps=6000),
    "recurrent-5": along(recurrent, 5, shots=6, steps=8000),
    "transformer-20": along(ContextTransformer, 20, shots=2, steps=6000, meta_batch=16),
    "recurrent-20": along(recurrent, 20, shots=2, steps=4000, meta_batch=16),
    "mann-20": along(mann, 20, shots=2, steps=2000, meta_batch=16),
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
            learner, how = RECIPES[name](train, trained_learner("encoder")[0])
        seconds = round(time.process_time() - start)
        portable.save(learner, FOLDER / f"{name}.keras")
        entry = {**how, "seconds": seconds}
        text = json.dumps({**record(), name: entry}, indent=1) + "\n"
        path.write_text(text, encoding="utf-8")
        print(name, entry, flush=True)


if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in ("encoder", *RECIPES)]
    if unknown:
        sys.exit(f"No such learner: {unknown}; there are {['encoder', *RECIPES]}.")
    FOLDER.mkdir(exist_ok=True)
    main(sys.argv[1:])
