"""One honest contest: does meta-learning beat ordinary training, at equal cost?

    python -m benchmarks.contest                 all methods that have no result yet
    python -m benchmarks.contest "MAML" "ANIL"   some, anew

Ordinary training (to tell all training characters apart; then class means, a new head, or all
weights fine-tuned) and six meta-learners learn from the same characters through the same network
of 35,000 weights, each from weights drawn at random.  Every method has the same number of tries
at random settings, each of the same seconds of one core, scored on validation scripts; the best
setting is then trained anew from five seeds for three budgets, and scored on tasks of unseen
scripts and of handwritten digits that are the same for all.
The result goes to mlutils/results/contest.json, from where the pages read it.
"""

import argparse
import functools
import json
import math
import time

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from keras import layers

from mlutils import ANIL, MAML, ProtoMAML, PrototypicalNetwork, Reptile
from mlutils.data.characters import Characters
from mlutils.results import FOLDER

RESULT = FOLDER / "contest.json"
TRIES, TRY_SECONDS = 6, 8
SEEDS, BUDGETS = 5, (2, 8, 24)  # budgets in seconds of one core
WAYS, SHOTS, TASKS = 5, (1, 2, 5, 10, 20), 300
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# ---------------------------------------------------------------- what is learned from


@functools.cache
def characters(split):
    """All characters of a split; of each test script 40 drawings, for tasks of 20 shots."""
    if split != "test":
        return mlutils.data.glyphs(split)
    first, second = mlutils.data.glyphs(split), mlutils.data.glyphs(split, seed=1)
    both = np.concatenate([first.images, second.images], axis=1)
    return Characters(both, first.names, first.scripts, first.source)


@functools.cache
def test_tasks(domain, shots):
    """Batches of tasks, the same for all methods: of a split of the scripts, or of digits."""
    options = {"ways": WAYS, "shots": shots, "queries": 5, "meta_batch": 20, "seed": 1}
    if domain == "digits":
        x, y = mlutils.data.digits()
        larger = tf.clip_by_value(tf.image.resize(x, (20, 20), "bicubic"), 0, 1)
        larger = np.pad(larger, [[0, 0], [4, 4], [4, 4], [0, 0]])
        tasks = mlutils.data.episodes(larger, y, **options)
    else:
        tasks = characters(domain).episodes(**options)
    return list(tasks.take(TASKS // 20))


def training_tasks(meta_batch, seed, ways=WAYS):
    """Tasks of one and of five shots in turn."""
    options = {"ways": ways, "queries": 5, "meta_batch": meta_batch}
    in_turn = [
        characters("train").episodes(shots=shots, seed=2 * seed + number, **options)
        for number, shots in enumerate((1, 5))
    ]
    return tf.data.Dataset.choose_from_datasets(in_turn, tf.data.Dataset.range(2).repeat())


def training_drawings(batch, seed):
    """Single drawings and which of all training characters each is."""
    train = characters("train")
    drawings = tf.data.Dataset.from_tensor_slices((train.x, train.y))
    drawings = drawings.shuffle(len(train.y), seed=seed).repeat().batch(batch)
    return drawings.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y))


# ---------------------------------------------------------------- the methods


def encoder(outputs=None):
    """The network of all: 64 features, and a head that starts at zero if there is one."""
    parts = [
        keras.Input((28, 28, 1)),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(64),
        layers.RMSNormalization(),
    ]
    head = [] if outputs is None else [layers.Dense(outputs, kernel_initializer="zeros")]
    return keras.Sequential(parts + head)


class Method:
    """A contestant: what is trained, on what, and which learner adapts then.

    Attributes:
        trained: the Keras model that ``fit`` trains.
        learner: what is evaluated; it may share its weights with ``trained``.
        data: from a seed to a dataset.
        optimizer: from a rate to an optimizer.
        steps: how many inner steps at the test, None where there are none.
    """

    def __init__(self, trained, learner, data, optimizer=keras.optimizers.Adam, steps=None):
        self.trained, self.learner, self.data = trained, learner, data
        self.optimizer, self.steps = optimizer, steps


def pretrained(make, batch, steps=None):
    """A classifier of all training characters, whose encoder goes on into a learner."""
    body = encoder()
    classifier = keras.Sequential([body, layers.Dense(len(characters("train")))])
    return Method(classifier, make(body), lambda s: training_drawings(batch, s), steps=steps)


def fine_tuned(kind, batch, inner_lr, steps):
    def make(body):
        head = layers.Dense(WAYS, kernel_initializer="zeros")
        return kind(
            keras.Sequential([keras.Input((28, 28, 1)), *body.layers, head]), inner_lr, steps
        )

    return pretrained(make, batch, steps)


def episodic(learner, meta_batch, steps=None, ways=WAYS, optimizer=keras.optimizers.Adam):
    return Method(learner, learner, lambda s: training_tasks(meta_batch, s, ways), optimizer, steps)


def nearest_mean(random):
    batch, distance = random.choice([32, 128]), random.choice(["euclidean", "cosine"])
    setting = {"rate": log(random, 1e-3, 1e-2), "batch": batch, "distance": distance}
    make = functools.partial(PrototypicalNetwork, distance=str(distance))
    return setting, lambda: pretrained(make, batch)


def fine_tuning(kind):
    def draw(random):
        inner_lr, steps = log(random, 0.01, 0.3), random.choice([5, 10, 20, 50])
        setting = {"rate": log(random, 1e-3, 1e-2), "batch": random.choice([32, 128])}
        setting |= {"inner_lr": inner_lr, "steps at test": steps}
        return setting, lambda: fine_tuned(kind, setting["batch"], inner_lr, int(steps))

    return draw


def prototypical(random):
    setting = {"rate": log(random, 1e-3, 1e-2), "meta_batch": random.choice([1, 4])}
    setting |= {"ways": random.choice([5, 10, 20]), "scale": log(random, 0.03, 0.3)}

    def make():
        learner = PrototypicalNetwork(encoder(), scale=setting["scale"])
        return episodic(learner, setting["meta_batch"], ways=setting["ways"])

    return setting, make


def gradient_based(kind, proto=False, **options):
    """MAML and its kin: ``kind`` with some fixed options."""

    def draw(random):
        inner_lr, inner_steps = log(random, 0.03, 0.5), int(random.choice([1, 3, 5]))
        setting = {"rate": log(random, 1e-3, 1e-2), "meta_batch": random.choice([4, 16])}
        setting |= {"inner_lr": inner_lr, "inner_steps": inner_steps}
        setting |= {"steps at test": inner_steps * int(random.choice([1, 2, 4]))}
        if proto:
            setting["scale"] = log(random, 0.03, 0.3)

        def make():
            more = {**options, "scale": setting["scale"]} if proto else options
            network = encoder(None if proto else WAYS)
            learner = kind(network, inner_lr, inner_steps, **more)
            return episodic(learner, setting["meta_batch"], setting["steps at test"])

        return setting, make

    return draw


def reptile(random):
    inner_lr, inner_steps = log(random, 0.01, 0.3), int(random.choice([3, 5, 10]))
    kind = random.choice(["SGD", "Adam"])
    rate = log(random, 0.1, 1) if kind == "SGD" else log(random, 1e-3, 1e-2)
    setting = {"rate": rate, "optimizer": kind, "meta_batch": random.choice([4, 16])}
    setting |= {"inner_lr": inner_lr, "inner_steps": inner_steps}
    setting |= {"batch_size": random.choice([10, 25]), "steps at test": random.choice([5, 10, 50])}

    def make():
        options = {"batch_size": int(setting["batch_size"])}
        learner = Reptile(encoder(WAYS), inner_lr, inner_steps, **options)
        optimizer = getattr(keras.optimizers, str(kind))
        return episodic(learner, setting["meta_batch"], setting["steps at test"], WAYS, optimizer)

    return setting, make


METHODS = {  # from a random generator to a setting, and to what makes the method with it
    "pretrained, nearest mean": nearest_mean,
    "pretrained, head tuned": fine_tuning(ANIL),
    "pretrained, all tuned": fine_tuning(MAML),
    "prototypical": prototypical,
    "MAML": gradient_based(MAML),
    "MAML, first order": gradient_based(MAML, first_order=True),
    "ANIL": gradient_based(ANIL),
    "Reptile": reptile,
    "ProtoMAML": gradient_based(ProtoMAML, proto=True),
}


def log(random, low, high):
    """A number between two, uniform in its logarithm, with two digits."""
    return float(f"{np.exp(random.uniform(math.log(low), math.log(high))):.2g}")


# ---------------------------------------------------------------- training and scoring


class Falling(keras.callbacks.Callback):
    """A step size that falls to zero along half a cosine."""

    def __init__(self, rate, steps):
        super().__init__()
        self.rate, self.steps = rate, steps

    def on_train_batch_begin(self, batch, logs=None):
        done = min(batch / self.steps, 1)
        self.model.optimizer.learning_rate = self.rate * 0.5 * (1 + math.cos(math.pi * done))


class Contestant:
    """A method with one setting, which can be trained many times and is traced once."""

    def __init__(self, setting, make):
        self.rate, self.method = setting["rate"], make()
        trained, learner = self.method.trained, self.method.learner
        optimizer = self.method.optimizer(self.rate)
        self.initial = trained.get_weights()
        trained.compile(optimizer, LOSS, steps_per_execution=10)
        if learner is not trained:
            learner.compile(loss=LOSS)
        options = {} if self.method.steps is None else {"steps": int(self.method.steps)}
        self.predict = tf.function(lambda inputs: learner(inputs, **options), reduce_retracing=True)
        self.fit(0, 20)  # traces it
        self.seconds_per_step = self.time_step()

    def time_step(self):
        """Seconds of one core that a step takes, without what comes before the first one."""

        def seconds(steps):
            start = time.process_time()
            self.fit(0, steps)
            return time.process_time() - start

        before, steps = min(seconds(10), seconds(10)), 80
        while (spent := seconds(10 + steps) - before) < 1:
            steps *= 2
        return spent / steps

    def fit(self, seed, steps):
        """Train from new weights."""
        trained = self.method.trained
        keras.utils.set_random_seed(seed)
        trained.set_weights([redrawn(value) for value in self.initial])
        for variable in trained.optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        trained.fit(
            self.method.data(seed),
            steps_per_epoch=steps,
            verbose=0,
            callbacks=[Falling(self.rate, steps)],
        )

    def train(self, seed, seconds):
        """Train for some seconds of one core; returns how many steps these were."""
        steps = max(1, round(seconds / self.seconds_per_step))
        self.fit(seed, steps)
        return {"steps": steps}

    def score(self, domain, shots):
        """The accuracy on test tasks."""
        right = [
            np.mean(tf.argmax(self.predict(inputs), -1, tf.int32) == query_y)
            for inputs, query_y in test_tasks(domain, shots)
        ]
        return round(float(np.mean(right)), 4)


def redrawn(value):
    """A weight at the start of another training: kernels are drawn as Keras does."""
    constant = value.ndim == 0 or np.all(value == value.flat[0])
    return value if constant else keras.initializers.GlorotUniform()(value.shape)


def setting_of(name, number):
    """The n-th try's setting, and what makes the method with it."""
    return METHODS[name](np.random.default_rng([list(METHODS).index(name), number]))


def contest(name):
    """Tune a method, and train it with the best setting."""
    tries = []
    for number in range(TRIES):
        setting, make = setting_of(name, number)
        contestant = Contestant(setting, make)
        trained = contestant.train(0, TRY_SECONDS)
        scores = {str(shots): contestant.score("validation", shots) for shots in (1, 5)}
        tries.append({"setting": setting, **trained, "accuracy": scores})
        print(name, tries[-1], flush=True)
        keras.backend.clear_session()
    best = max(range(TRIES), key=lambda n: sum(tries[n]["accuracy"].values()))
    setting, make = setting_of(name, best)
    contestant, runs = Contestant(setting, make), []
    for budget in BUDGETS:
        for seed in range(1, SEEDS + 1):
            run = {"budget": budget, "seed": seed, **contestant.train(seed, budget)}
            last = budget == BUDGETS[-1]
            for domain in ("validation", "test", *(["digits"] if last else [])):
                chosen = SHOTS if last and domain != "validation" else (1, 5)
                run[domain] = {str(shots): contestant.score(domain, shots) for shots in chosen}
            runs.append(run)
            print(name, run, flush=True)
    return {"setting": setting, "tries": tries, "runs": runs}


def main(names):
    mlutils.setup(seed=0, threads=1)
    for name in names or METHODS:
        record = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        results = record.get("methods", {})
        if name in results and not names:
            continue
        start = time.monotonic()
        result = contest(name)
        minutes = {**record.get("minutes", {}), name: round((time.monotonic() - start) / 60, 1)}
        methods = {n: result if n == name else results[n] for n in METHODS if n in (*results, name)}
        record = {"command": "python -m benchmarks.contest", "minutes": minutes, "methods": methods}
        text = json.dumps(record, indent=1, default=plain)
        RESULT.write_text(text + "\n", encoding="utf-8")


def plain(value):
    """A number or string of NumPy as JSON takes it."""
    return value.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Meta-learning beside ordinary training.")
    parser.add_argument("names", nargs="*", metavar="method", help=f"of {', '.join(METHODS)}")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in METHODS]:
        parser.error(f"no such method: {unknown}; there are {list(METHODS)}")
    main(arguments.names)
