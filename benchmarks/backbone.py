"""A pretrained backbone on pictures of your own: left as it is, with a head, or trained whole.

    python -m benchmarks.backbone pretrain     the backbone that comes with the package
    python -m benchmarks.backbone              the study

The first trains a network of four convolutions to tell the characters of the training scripts
apart, in dark ink on light paper, and writes ``mlutils/practice/trained/backbone.keras``.

The second has new classes, of the validation and the test scripts, on papers as in pretraining
("paper") or on faded photographs ("photographs"), and 10 or 100 of them to train on.  The ways to
use the backbone that train nothing: "as it is" (the nearest class mean, by cosine and by Euclidean
distance), "own statistics" (the same by cosine, the norms' running statistics taken from the
trained classes' pictures), and "random head" (a dense layer that is not trained on its features,
by Euclidean distance).  Those that train, as prototypical networks with Euclidean distance on
5-way 5-shot tasks: "head" (the dense layer) and "whole" (all but the norms).  Their step size and
scale are tuned with 6 tries on 40 validation classes, which also say after how many steps, at most
200, to stop.  Five seeds are tested on the test scripts, all on the same 600 tasks.

    python -m benchmarks.backbone untrained    only the ways that train nothing, anew

Writes ``mlutils/results/backbone.json``, which ``chapters/practice/a-pretrained-backbone`` shows:
for each paper and number of classes, and each way, for each seed the accuracy in percent; for what
is trained also the steps, the setting, and what of it lies at an end of its range.
"""

import json
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
from keras import layers

from benchmarks import portable
from mlutils import PrototypicalNetwork
from mlutils.data import episodes, glyphs, in_colour
from mlutils.practice import BACKBONE, pretrained_backbone

RESULTS = Path(mlutils.__file__).parent / "results" / "backbone.json"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TRIES, SEEDS, STEPS, EVERY = 6, 5, 200, 40
SPACE = {"rate": (3e-5, 1e-2, "log"), "scale": (0.003, 1.0, "log")}
SETTINGS = [(paper, classes) for paper in ("paper", "photographs") for classes in (10, 100)]


# ---------------------------------------------------------------- pretraining


def new_backbone():
    """Four blocks of convolution, Keras's norm, ReLU and pooling; 28 x 28 colour pictures."""
    blocks = []
    for filters in (32, 64, 64, 128):
        blocks += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.95),
            layers.Activation("relu"),
            layers.MaxPooling2D(padding="same"),
        ]
    return keras.Sequential([keras.Input((28, 28, 3)), *blocks, layers.Flatten()])


def pretrain(epochs=12):
    keras.utils.set_random_seed(0)
    train, backbone = glyphs("train"), new_backbone()
    classifier = keras.Sequential([backbone, layers.Dense(len(train))])
    steps = epochs * (len(train.y) // 64)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    classifier.compile(keras.optimizers.Adam(schedule), LOSS, metrics=["accuracy"])
    for epoch in range(epochs):  # other colours each time
        x = in_colour(train.x, seed=epoch) / np.float32(255)
        classifier.fit(x, train.y, batch_size=64, verbose=2)
    portable.save(backbone, BACKBONE)


# ---------------------------------------------------------------- the study


def colored(paper):
    """Trained, validation and test classes, ``(x, y)`` each, on one kind of paper."""
    validation, test = glyphs("validation"), glyphs("test")
    order = np.random.default_rng(0).permutation(len(validation))
    photographs = paper == "photographs"
    return [
        (in_colour(some.x, seed, photographs), some.y)
        for seed, some in enumerate(
            (validation.subset(order[40:]), validation.subset(order[:40]), test)
        )
    ]


def tasks_of(data, seed, meta_batch=2):
    return episodes(*data, ways=5, shots=5, queries=5, meta_batch=meta_batch, seed=seed)


def make_encoder(way):
    """The encoder that is trained, its norms frozen; for "head" it sees the features."""
    if way == "head":
        return keras.Sequential([keras.Input((512,)), layers.Dense(64)])
    backbone = pretrained_backbone()
    for layer in norms_of(backbone):
        layer.trainable = False
    return backbone


def norms_of(backbone):
    return [x for x in backbone.layers if isinstance(x, layers.BatchNormalization)]


def train(way, parts, seed, rate, scale):
    """A learner after the best of its stages on validation tasks; its accuracy; its steps."""
    keras.utils.set_random_seed(seed)
    learner = PrototypicalNetwork(make_encoder(way), scale=scale)
    learner.compile(keras.optimizers.Adam(rate), LOSS, steps_per_execution=EVERY)
    train, validation = parts
    found = []
    for stage in range(0, STEPS + 1, EVERY):
        if stage:
            learner.fit(train[seed].skip(stage - EVERY), steps_per_epoch=EVERY, verbose=0)
        found.append((accuracy(learner, validation), stage, learner.get_weights()))
    best = max(found, key=lambda one: one[0])
    learner.set_weights(best[2])
    return learner, best[0], best[1]


def accuracy(learner, batches):
    return mlutils.evaluate(learner, batches, tasks=50 * len(batches)).mean


def batches_of(data, seed, tasks):
    """A list, so that each is sampled once."""
    return list(tasks_of(data, seed, meta_batch=50).take(tasks // 50))


def features(backbone, data):
    x, y = data
    return backbone.predict(x / np.float32(255), batch_size=256, verbose=0), y


def with_statistics_of(x, seed):
    """The backbone after 100 batches of 64 pictures in training mode; no weight is changed."""
    backbone, random = pretrained_backbone(), np.random.default_rng(seed)
    for _ in range(100):
        backbone(x[random.integers(len(x), size=64)] / np.float32(255), training=True)
    return backbone


def nearest_mean(data, distance="cosine"):
    """Accuracy of the nearest class mean, in percent, on the tested tasks."""
    identity = keras.Sequential([keras.Input(data[0].shape[1:]), layers.Identity()])
    tested = batches_of(data, 2, 600)
    return round(100 * accuracy(PrototypicalNetwork(identity, distance), tested), 2)


def parts_of(paper, classes):
    """Trained, validation and test data, the trained ones of so many classes."""
    trained, validation, test = colored(paper)
    return tuple(v[trained[1] < classes] for v in trained), validation, test


def untrained(paper, classes):
    """The ways that train nothing."""
    trained, _, test = parts_of(paper, classes)
    z, y = features(pretrained_backbone(), test)
    heads = []
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        heads.append(make_encoder("head").predict(z, batch_size=256, verbose=0))
    own = [with_statistics_of(trained[0], seed) for seed in range(SEEDS)]
    return {
        "as it is": {"accuracy": [nearest_mean((z, y))] * SEEDS},
        "as it is, Euclidean": {"accuracy": [nearest_mean((z, y), "euclidean")] * SEEDS},
        "own statistics": {"accuracy": [nearest_mean(features(one, test)) for one in own]},
        "random head": {"accuracy": [nearest_mean((head, y), "euclidean") for head in heads]},
    }


def trained(paper, classes):
    """The ways that train, tuned."""
    pictures, backbone, found = parts_of(paper, classes), pretrained_backbone(), {}
    views = {"whole": pictures, "head": [features(backbone, data) for data in pictures]}
    for way, view in views.items():
        parts = [tasks_of(view[0], seed) for seed in range(SEEDS)], batches_of(view[1], 1, 50)
        tuning = mlutils.tune(
            lambda rate, scale, way=way, parts=parts: -train(way, parts, 0, rate, scale)[1],
            SPACE,
            TRIES,
        )
        setting, tested = tuning.best(), batches_of(view[2], 2, 600)
        rows = [train(way, parts, seed, **setting) for seed in range(SEEDS)]
        found[way] = {
            "setting": setting,
            "at_edge": tuning.at_edge(),
            "accuracy": [round(100 * accuracy(learner, tested), 2) for learner, *_ in rows],
            "steps": [steps for *_, steps in rows],
        }
    return found


def main(everything=True):
    start, stored = time.monotonic(), {"minutes": 0.0, "results": {}}
    if not everything:
        stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    for paper, classes in SETTINGS:
        found = untrained(paper, classes)
        found |= trained(paper, classes) if everything else {}
        row = stored["results"].setdefault(f"{paper}, {classes}", {})
        row |= found
        print(paper, classes, found, flush=True)
    minutes = round(stored["minutes"] + (time.monotonic() - start) / 60, 1)
    stored = {
        "command": "python -m benchmarks.backbone",
        "minutes": minutes,
        "tries": TRIES,
        "results": stored["results"],
    }
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    pretrain() if sys.argv[1:] == ["pretrain"] else main(sys.argv[1:] != ["untrained"])
