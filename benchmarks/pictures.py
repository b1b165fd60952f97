"""A folder of pictures: pretrained features as they are, or a network trained on the folder?

    python -m benchmarks.pictures

Makes the folder of ``chapters/practice/your-own-pictures``: 100 letters of nine scripts, 5 to 20
pictures of each.  Its classes are dealt five times into 60 for training, 20 for validation and 20
for the test.  In each deal three rivals are tuned with three tries on 5-way 3-shot tasks of the
validation classes, and the best of each is tested on 400 tasks of the test classes: nearest means
of the pretrained encoder (its last layer, that centred and normalised, or the hidden one so), and a
prototypical network trained on episodes of the training classes, from random weights and from the
pretrained ones (three learning rates; stopped when two looks at validation tasks bring nothing).

Writes ``mlutils/results/pictures.json``: the folder's description, and for each rival its test
accuracy and its choice in each deal.
"""

import json
import tempfile
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
from keras import layers, ops
from PIL import Image

from mlutils import PrototypicalNetwork
from mlutils.data import folder, glyphs
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "pictures.json"
DEALS = 5
TASK = {"ways": 5, "shots": 3, "queries": 2}
RATES = {"scratch": (3e-4, 1e-3, 3e-3), "tuned": (3e-5, 1e-4, 3e-4)}


def make_folder(path):
    """The page's folder, without the broken file."""
    letters, random = glyphs("test"), np.random.default_rng(0)

    def photographed(ink):
        side, ratio = random.integers(40, 90), random.uniform(0.8, 1.25)
        size = int(side * ratio), int(side / ratio)
        ink = Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC)
        paper = tuple(random.integers(170, 256, 3).tolist())
        sheet = Image.new("RGB", size, paper)
        sheet.paste(tuple(random.integers(0, 110, 3).tolist()), mask=ink)
        return sheet

    for i in random.permutation(len(letters))[:100]:
        place = path / letters.scripts[i] / f"U+{ord(letters.names[i]):04X}"
        place.mkdir(parents=True)
        for j in range(random.integers(5, 21)):
            photographed(letters.images[i, j, ..., 0]).save(place / f"{j}.png")


def prepared(body):
    """Some layers behind what makes ink 1 and paper 0."""
    x = keras.Input((28, 28, 1))
    low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (ops.min, ops.max))
    z = (high - x) / (high - low + 1e-3)
    for layer in body:
        z = layer(z)
    return keras.Model(x, z)


def centred(encoder, train):
    z = encoder.predict(train.x / np.float32(255), verbose=0)
    centre = layers.Normalization(mean=z.mean(axis=0), variance=np.ones(z.shape[1]))
    return keras.Sequential([keras.Input((28, 28, 1)), encoder, centre, layers.UnitNormalization()])


def fresh():
    body = [layers.AveragePooling2D(2), layers.Flatten(), layers.Dense(256, activation="relu")]
    return prepared([*body, layers.Dense(64), layers.RMSNormalization()])


class Trainee:
    """One learner for all trainings, so that Keras makes its graph once."""

    def __init__(self):
        self.learner = PrototypicalNetwork(fresh(), scale=0.1)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.learner.compile(
            keras.optimizers.Adam(), loss, metrics=["accuracy"], steps_per_execution=50
        )
        self.learner.optimizer.build(self.learner.trainable_variables)
        self.unmoved = [v.numpy() for v in self.learner.optimizer.variables]

    def fit(self, start, rate, tasks, ahead):
        """From these weights: the best validation accuracy, and the weights that had it."""
        learner = self.learner
        learner.set_weights(start)
        for variable, value in zip(learner.optimizer.variables, self.unmoved, strict=True):
            variable.assign(value)
        learner.optimizer.learning_rate = rate
        stop = keras.callbacks.EarlyStopping(
            "val_accuracy", mode="max", patience=2, restore_best_weights=True
        )
        history = learner.fit(
            tasks,
            steps_per_epoch=50,
            epochs=12,
            verbose=0,
            validation_data=ahead,
            callbacks=[stop],
        ).history
        return max(history["val_accuracy"]), learner.get_weights()


def one_deal(path, seed, trainee):
    """Each rival's test accuracy and choice."""
    pretrained, _ = mlutils.trained_learner("encoder")
    train, validation, test = folder(path, frame="pad", splits=(0.6, 0.2, 0.2), seed=seed)
    new = test.episodes(**TASK, meta_batch=50, seed=1)
    looks = validation.episodes(**TASK, meta_batch=50, seed=2).take(4).cache()
    tasks = train.episodes(**TASK, meta_batch=4, seed=3)
    last, hidden = prepared(pretrained.layers), prepared(pretrained.layers[:-2])
    tries = {
        "last": PrototypicalNetwork(last),
        "last, centred": PrototypicalNetwork(centred(last, train)),
        "hidden, centred": PrototypicalNetwork(centred(hidden, train)),
    }
    looked = {name: mlutils.evaluate(rival, looks, 200).mean for name, rival in tries.items()}
    best = max(looked, key=looked.get)
    found = {"pretrained": (mlutils.evaluate(tries[best], new, 400).mean, best)}
    keras.utils.set_random_seed(seed)
    starts = {"scratch": fresh().get_weights(), "tuned": pretrained.get_weights()}
    for name, rates in RATES.items():
        trained = {rate: trainee.fit(starts[name], rate, tasks, looks) for rate in rates}
        best = max(trained, key=lambda rate, trained=trained: trained[rate][0])
        trainee.learner.set_weights(trained[best][1])
        found[name] = mlutils.evaluate(trainee.learner, new, 400).mean, best
    return found


def main():
    set_threads(1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        make_folder(Path(place))
        described, trainee, deals = repr(folder(place, frame="pad")), Trainee(), []
        for seed in range(DEALS):
            deals.append(one_deal(place, seed, trainee))
            print(seed, deals[-1], flush=True)
    stored = {
        "command": "python -m benchmarks.pictures",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "folder": described,
        "tries": 3,
        "accuracy": {n: [round(deal[n][0], 4) for deal in deals] for n in deals[0]},
        "choice": {n: [deal[n][1] for deal in deals] for n in deals[0]},
    }
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
