"""Lake's one-shot test on Omniglot, by fixed recipes.

    python -m benchmarks.accuracy lake                 all entries that have no result yet
    python -m benchmarks.accuracy lake siamese         one, anew
    python -m benchmarks.accuracy lake --held-out      the same, scored on background alphabets that
                                                       the training leaves out: to choose by
    python -m benchmarks.accuracy lake --runs PATH     the stored learners, on an archive of runs

The first two write mlutils/results/lake.json, which chapters/one_shot/lakes-test shows, and the
learners into benchmarks/results/lake/.
A training that was cut off goes on where it was, from build/accuracy, and ends as if it had run
through: what is drawn at random for a batch hangs on the batch's number.  Delete that folder to
begin anew.
"""

import json
import shutil
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import tensorflow as tf
from keras import layers

from benchmarks import portable
from mlutils import ModifiedHausdorff, PairCrossEntropy, PrototypicalNetwork, SiameseNetwork
from mlutils.one_shot import AverageOverViews, moved
from mlutils.resume import fit_or_resume

RESULTS = Path(__file__).parent / "results"
RUNNING = Path("build/accuracy")
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RUNS = 400  # of 20 characters each
HELD_OUT = (
    "Balinese",
    "Bengali",
    "Early_Aramaic",
    "Futurama",
    "Korean",
    "Malay_(Jawi_-_Arabic)",
)


def flat_pixels(train, folder):
    return PrototypicalNetwork(keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten()]))


def hausdorff(train, folder):
    return ModifiedHausdorff()


def siamese(train, folder):
    """Pairs from all alphabets, half of their weight on those of one character (after Koch)."""
    encoder = keras.Sequential([mlutils.conv4(norm=False), layers.RMSNormalization()])
    learner = SiameseNetwork(encoder, "weighted")
    tasks = train.episodes(ways=20, shots=1, queries=1, meta_batch=6)
    fit(learner, distorted(tasks), folder, 8000, PairCrossEntropy())
    return learner


def prototypical(train, folder):
    """60-way episodes from all alphabets, turned ones beside them (after Snell et al.)."""
    learner = PrototypicalNetwork(mlutils.conv4(norm=False))
    tasks = train.turned().episodes(ways=60, shots=1, queries=2, meta_batch=1)
    fit(learner, tasks, folder, 6000)
    return learner


def best(train, folder):
    """A deeper encoder that tells all characters apart, distorted, by the cosine; five views."""
    train = train.turned()
    encoder = residual_encoder()
    classifier = keras.Sequential([encoder, CosineHead(len(train))])
    drawings = tf.data.Dataset.from_tensor_slices((train.x, train.y))
    drawings = drawings.shuffle(len(train.y), seed=0).repeat().batch(64)

    def distort(number, drawings):
        x, y = drawings
        return randomly_moved(tf.cast(x, tf.float32) / 255, number), y

    fit(classifier, drawings.enumerate().map(distort).prefetch(4), folder, 31000, rate=2e-3)
    encoder.trainable = False
    return PrototypicalNetwork(AverageOverViews(encoder), distance="cosine")


def distorted(tasks):
    """Episodes whose drawings are all moved at random."""

    def distort(number, episodes):
        (support_x, support_y, query_x), query_y = episodes
        both = tf.concat([support_x, query_x], axis=1)
        images = randomly_moved(tf.reshape(both, (-1, 28, 28, 1)), number)
        both, shots = tf.reshape(images, tf.shape(both)), tf.shape(support_x)[1]
        return (both[:, :shots], support_y, both[:, shots:]), query_y

    return tasks.enumerate().map(distort).prefetch(4)


def randomly_moved(images, number):
    """``mlutils.randomly_moved`` by random numbers that are the same for the same ``number``."""
    draws = tf.random.stateless_normal((tf.shape(images)[0], 6), tf.stack([1, number]))
    rotation, slant, stretch, shift = draws[:, 0], draws[:, 1], draws[:, 2:4], draws[:, 4:]
    return moved(images, 0.15 * rotation, 0.15 * slant, 0.12 * stretch, 1.5 * shift)


def residual_encoder(width=32):
    """From 28 x 28 pixels to embeddings: a convolution and three residual blocks."""
    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU()(normed(layers.Conv2D(width, 3, padding="same", use_bias=False)(inputs)))
    for filters in (2 * width, 3 * width, 4 * width):
        options = {"padding": "same", "use_bias": False}
        short = normed(
            layers.Conv2D(filters, 1, **options)(layers.AveragePooling2D(2, padding="same")(x))
        )
        x = layers.ReLU()(normed(layers.Conv2D(filters, 3, strides=2, **options)(x)))
        x = normed(layers.Conv2D(filters, 3, **options)(x))
        x = layers.ReLU()(layers.Add()([x, short]))
    x = layers.Dense(256, use_bias=False)(layers.Flatten()(x))
    return keras.Model(inputs, normed(x))


def normed(x):
    return layers.BatchNormalization()(x)


class CosineHead(layers.Layer):
    """Logits: sixteen times the cosines with one vector for each class."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.classes))

    def call(self, x):
        kernel = tf.math.l2_normalize(self.kernel, axis=0)
        return 16 * tf.matmul(tf.math.l2_normalize(x, axis=-1), kernel)


def fit(model, data, folder, steps, loss=LOGITS, rate=1e-3, parts=20):
    """Train by Adam with a falling step size; goes on where an earlier call was cut off.

    The data must be the same each time, and made anew for each call (see ``fit_or_resume``).
    """
    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.AdamW(decay, weight_decay=1e-4), loss)
    fit_or_resume(model, data, folder, epochs=parts, steps_per_epoch=steps // parts, verbose=2)


RECIPES = {
    "pixels": flat_pixels,
    "hausdorff": hausdorff,
    "hausdorff-28": hausdorff,
    "siamese": siamese,
    "prototypical": prototypical,
    "best": best,
}
SIZES = {"hausdorff": 105}  # pixels a side, of the original drawings


def lake(names, held_out):
    """Train what is asked for, score it once, and write that down."""
    path = Path(mlutils.__file__).parent / "results" / "lake.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    entries = stored["entries"]
    for name in names or [n for n in RECIPES if held_out or n not in entries]:
        keras.utils.set_random_seed(0)
        size, start = SIZES.get(name, 28), time.monotonic()
        train, new = characters(size, held_out)
        folder = RUNNING / ("held-out" if held_out else "all") / name
        resumed = folder.exists()
        learner = RECIPES[name](train, folder)
        minutes = None if resumed else round((time.monotonic() - start) / 60, 1)
        within, between = (
            mlutils.evaluate(learner, mlutils.data.lake_runs(new, within=w, seed=1), RUNS, "error")
            for w in (True, False)
        )
        print(name, within, between, minutes, "minutes", flush=True)
        if held_out:
            shutil.rmtree(folder, ignore_errors=True)  # or the next time nothing would be trained
            continue
        official = mlutils.data.official_lake_runs(size)
        official = mlutils.evaluate(learner, [official], 20, "error")
        scores = {"within": within, "between": between, "official": official}
        entries[name] = {"minutes": minutes, "pixels": size, "runs": RUNS} | {
            kind: {"error": round(100 * score.mean, 2), "ci95": round(100 * score.ci95, 2)}
            for kind, score in scores.items()
        }
        portable.save(learner, RESULTS / "lake" / f"{name}.keras")
        stored["minutes"] = round(sum(entry["minutes"] or 0 for entry in entries.values()), 1)
        path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)


def characters(size, held_out):
    """What to train on, and what to make the runs from."""
    background = mlutils.data.omniglot("background", size)
    if not held_out:
        return background, mlutils.data.omniglot("evaluation", size)
    others = set(background.scripts) - set(HELD_OUT)
    return background.of_scripts(others), background.of_scripts(HELD_OUT)


def on_archive(path):
    """The stored learners' errors on an archive of runs, such as the official one."""
    for name in RECIPES:
        stored = RESULTS / "lake" / f"{name}.keras"
        if stored.exists():
            runs = mlutils.data.read_lake_runs(path, SIZES.get(name, 28))
            learner = keras.saving.load_model(stored)
            print(name, mlutils.evaluate(learner, [runs], len(runs.query_y), "error"))


def add_options(parser):
    parser.add_argument("names", nargs="*", metavar="entry", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--held-out", action="store_true", help="score on background alphabets")
    parser.add_argument("--runs", metavar="PATH", help="an archive like all_runs.zip")


def main(parser, arguments):
    unknown = [name for name in arguments.names if name not in RECIPES]
    if unknown:
        parser.error(f"no such entry: {unknown}; there are {list(RECIPES)}")
    if arguments.runs and (arguments.names or arguments.held_out):
        parser.error("--runs scores all stored learners: give no entry and no --held-out with it")
    if arguments.runs:
        on_archive(arguments.runs)
    else:
        lake(arguments.names, arguments.held_out)
