"""Lake's test after training on five alphabets: what each part of the best recipe is worth.

    python -m benchmarks.lake_parts         goes on where it was cut off, if it was

The recipe of ``benchmarks.lake``'s best entry, with half its channels, is trained on the five
alphabets of Omniglot's first minimal background set, from five seeds: whole, and each time with one
part taken away.  One row has episodes within an alphabet in the last third of its training, and one
is trained on all 30 background alphabets.  Every encoder is then tested on new runs, within
alphabets and between them, and on the official ones.

Writes ``mlutils/results/lake_parts.json``, which ``chapters/one_shot/lakes-test`` shows: for each
row and each kind of runs the errors in percent, a number for each seed.  ``others`` are runs of
five background alphabets outside of the minimal set, by which the recipe may be chosen; the last
row has been trained on them.
"""

import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from keras import layers
from scipy.spatial.distance import cdist

from benchmarks.lake import LOGITS, CosineHead, randomly_moved, residual_encoder
from mlutils import PrototypicalNetwork
from mlutils.data import lake_runs, official_lake_runs, omniglot
from mlutils.one_shot import moved
from mlutils.one_shot.views import LOOKS
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "lake_parts.json"
MINIMAL = ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")
OTHERS = ("Armenian", "Gujarati", "Hebrew", "Japanese_(katakana)", "Sanskrit")
STEPS, BATCH, SEEDS, RUNS = 2000, 64, 5, 400

# For each row what is changed of the recipe.
ROWS = {
    "whole": {},
    "four convolutions": {"encoder": "plain"},
    "no cosines": {"distance": "euclidean"},
    "drawings not moved": {"moving": False},
    "no turned characters": {"turning": False},
    "episodes within an alphabet": {"episodes": True},
    "thirty alphabets": {"alphabets": None},
}


@cache
def drawn(which):
    return omniglot(which)


def train(seed, encoder="residual", distance="cosine", moving=True, turning=True,
          episodes=False, alphabets=MINIMAL):  # fmt: skip
    """An encoder, trained to tell all characters apart."""
    keras.utils.set_random_seed(seed)
    background = drawn("background")
    background = background.of_scripts(alphabets) if alphabets else background
    background = background.turned() if turning else background
    network = residual_encoder(16) if encoder == "residual" else plain_encoder()
    cosine = distance == "cosine"
    classes = len(background)
    classifier = keras.Sequential(
        [network, CosineHead(classes) if cosine else layers.Dense(classes)]
    )
    drawings = tf.data.Dataset.from_tensor_slices((background.x, background.y))
    drawings = drawings.shuffle(len(background.y), seed=seed).repeat().batch(BATCH)

    def move(number, drawings):
        x, y = drawings
        x = tf.cast(x, tf.float32) / 255
        return (randomly_moved(x, number) if moving else x), y

    steps = STEPS * 2 // 3 if episodes else STEPS
    fit(classifier, drawings.enumerate().map(move), steps, rate=2e-3)
    if episodes:
        for layer in network.layers:  # the norms stay as they are
            layer.trainable = not isinstance(layer, layers.BatchNormalization)
        learner = PrototypicalNetwork(network, distance="cosine", scale=16.0)
        fit(learner, moved_episodes(background, seed), STEPS - steps, rate=5e-4)
    return network


def fit(model, data, steps, rate):
    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.AdamW(decay, weight_decay=1e-4), LOGITS)
    model.fit(data.prefetch(4), steps_per_epoch=steps, verbose=0)


def moved_episodes(characters, seed):
    """Runs of 16 characters of one alphabet, all drawings moved."""

    def move(number, run):
        (support_x, support_y, query_x), query_y = run
        x = tf.concat([support_x, query_x], axis=1)
        x = tf.reshape(randomly_moved(tf.reshape(x, (-1, 28, 28, 1)), number), tf.shape(x))
        ways = tf.shape(support_x)[1]
        return (x[:, :ways], support_y, x[:, ways:]), query_y

    runs = lake_runs(characters, ways=16, queries=1, meta_batch=2, seed=seed)
    return runs.enumerate().map(move)


def plain_encoder():
    """Four convolutions, each with norm and pooling, in place of the residual blocks."""
    inputs = x = keras.Input((28, 28, 1))
    for filters in (16, 32, 48, 64):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.AveragePooling2D(2, padding="same")(x)
    x = layers.Dense(256, use_bias=False)(layers.Flatten()(x))
    return keras.Model(inputs, layers.BatchNormalization()(x))


def test(network, distance="cosine"):
    """The errors in percent of nearest neighbours on all kinds of runs, at one look and five."""
    evaluation, background = drawn("evaluation"), drawn("background")
    others = background.of_scripts(OTHERS)
    official = official_lake_runs()
    images = np.stack([official.support_x, official.query_x], axis=1)  # (runs, 2, 20, ...)
    new, old, fixed = (
        embedded(network, x, distance)
        for x in (evaluation.x, others.x, images.reshape(-1, *images.shape[3:]))
    )
    kinds = {
        "others": (old, numbers(others)),
        "within": (new, numbers(evaluation)),
        "between": (new, numbers(evaluation, within=False)),
        "official": (fixed, np.arange(800).reshape(20, 2, 20)),
    }
    found = {"one look": {}, "whole": {}}
    for kind, (looks, runs) in kinds.items():
        for row, z in (("one look", looks[0]), ("whole", looks.mean(axis=0))):
            wrong = [nearest(*z[run], distance) != np.arange(20) for run in runs]
            found[row][kind] = round(100 * float(np.mean(wrong)), 2)
    return found


def numbers(characters, within=True):
    """The numbers of the drawings in new runs, ``(runs, 2, 20)``, in the order of the classes."""
    number, drawer = np.indices(characters.images.shape[:2])
    codes = np.stack([number // 256, number % 256, drawer], axis=-1).astype(np.uint8)
    coded = replace(characters, images=codes[:, :, np.newaxis, :, np.newaxis])
    runs = []
    for (support, support_y, query), query_y in lake_runs(coded, within=within, seed=1).take(RUNS):
        both = []
        for codes, labels in ((support, support_y), (query, query_y)):
            high, low, hand = np.rint(255 * codes.numpy())[0, :, 0, :, 0].astype(int).T
            both.append((20 * (256 * high + low) + hand)[np.argsort(labels[0])])
        runs.append(both)
    return np.array(runs)


def embedded(network, x, distance):
    """Embeddings at each of the five looks, ``(5, drawings, features)``."""
    signature = [tf.TensorSpec((None, 28, 28, 1)), tf.TensorSpec(2)]

    @tf.function(input_signature=signature)
    def embed(part, look):
        return network(moved(part, *tf.unstack(look)), training=False)

    looks, x = [], tf.cast(x, tf.float32) / (255 if x.dtype == np.uint8 else 1)
    for look in LOOKS:
        parts = [x[i : i + 500] for i in range(0, len(x), 500)]
        z = np.concatenate([embed(part, tf.constant(look)) for part in parts])
        looks.append(z / np.linalg.norm(z, axis=1, keepdims=True) if distance == "cosine" else z)
    return np.stack(looks)


def nearest(taught, asked, distance):
    """For each query the number of the nearest example."""
    return cdist(asked, taught, distance).argmin(axis=1)


def main():
    set_threads(1)
    keras.utils.set_random_seed(0)
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    stored = {"command": "python -m benchmarks.lake_parts", "steps": STEPS, "minutes": 0} | stored
    rows = stored.setdefault("errors", {})
    for seed in range(SEEDS):
        for name, changes in ROWS.items():
            if len(rows.get(name, {}).get("within", ())) > seed:
                continue
            start = time.monotonic()
            found = test(train(seed, **changes), changes.get("distance", "cosine"))
            for looks in ("one look", "whole"):
                if looks == "whole" or name == "whole":
                    row = rows.setdefault(looks if name == "whole" else name, {})
                    for kind, error in found[looks].items():
                        row.setdefault(kind, []).append(error)
            stored["minutes"] = round(stored["minutes"] + (time.monotonic() - start) / 60, 1)
            RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
            print(seed, name, found["whole"], stored["minutes"], flush=True)


if __name__ == "__main__":
    main()
