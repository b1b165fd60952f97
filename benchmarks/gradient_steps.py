"""When do gradient steps still pay?  Context, heads, low-rank adapters and all weights, compared.

    python -m benchmarks.gradient_steps train      two kinds of starts, five seeds each
    python -m benchmarks.gradient_steps wide       the intervention: trained on all frequencies
    python -m benchmarks.gradient_steps contest    all cells that have no result yet
    python -m benchmarks.gradient_steps contest "MAML, all" ...    of some arms
    python -m benchmarks.gradient_steps ship       the starts of the first seed, for the page

Takes about three quarters of an hour of one core, beside other work.  The weights of all seeds go
to ``build/gradient-steps``; what is found goes to ``mlutils/results/gradient_steps.json``, which
``chapters/beyond/when-gradient-steps-pay`` shows.  There ``trainings`` has each training's setting,
seconds and validation losses, after each twentieth.  ``cells`` has, for "examples frequency", the
errors of Bayes predictors by what they believe, and for each arm: the setting ``tuned`` there and
the one tuned without shift, ``plain``; for each seed ``errors`` and ``plain errors`` with these,
``zero`` before any step, and milliseconds per task; and the mean gain by the steps over the test
tasks with its standard error.  ``minutes`` are those of the contest.
"""

import functools
import itertools
import json
import math
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from benchmarks import portable
from mlutils.beyond.low_rank import low_rank_start
from mlutils.beyond.noisy_sines import noisy_sines, sine_bayes
from mlutils.beyond.stored import FOLDER
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "gradient_steps.json"
WEIGHTS = Path("build/gradient-steps")  # of all seeds; ``contest`` reads them
EXAMPLES, NOISE = (5, 10, 20, 40), 0.3  # in training; the contest has other lists
LONGEST, SEEDS, WIDE_SEEDS, SEED_OF_TRIES = 40, range(5), range(3), 100
META_BATCH, INNER_STEPS, QUERIES, PARTS = 16, 5, 20, 20

# Of each start: how many steps a try and a training take, so that these are the same seconds, and
# the hyperparameters that are tried.
STARTS = {
    "context": (2000, 6000, [{"rate": r} for r in (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)]),
    "maml": (
        4500,
        13200,
        [
            {"rate": 1e-3, "inner": 0.01},
            {"rate": 1e-3, "inner": 0.04},
            {"rate": 3e-3, "inner": 0.01},
            {"rate": 3e-3, "inner": 0.02},
            {"rate": 3e-3, "inner": 0.04},
        ],
    ),
}
RANGE = {"context": (1.0, 1.0), "maml": (1.0, 1.0), "wide": (1.0, 2.0)}


def transformer():
    nothing = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    learner = mlutils.ContextTransformer(nothing, 1, units=32, heads=4, blocks=2)
    learner((tf.zeros((1, 2, 1)), tf.zeros((1, 2, 1))))  # builds it
    return learner


def network_of(start):
    return mlutils.mlp() if start in ("maml", "fresh") else transformer()


# ---------------------------------------------------------------- predictions with given weights


def along(learner, weights, x, y):
    """Each target of sequences ``(tasks, T, 1)``, predicted from those before it."""
    with keras.StatelessScope(zip(learner.trainable_variables, weights, strict=True)):
        return learner.answer_sequence(x, y)


def forward(model, weights, x):
    """The network of dense layers; ``x`` is ``(..., 1)``."""
    with keras.StatelessScope(zip(model.trainable_variables, weights, strict=True)):
        return model(x, training=False)


# ---------------------------------------------------------------- the trainings


def draw(tasks, points, low, high, seed):
    """``noisy_sines`` inside of a graph, each task with a frequency of its own."""
    uniform = functools.partial(tf.random.stateless_uniform, (tasks, 1, 1))
    one, two, three, four, five = (seed + tf.constant([0, i]) for i in range(5))
    amplitude, phase = uniform(one, 0.1, 5.0), uniform(two, 0.0, np.pi)
    frequency = uniform(three, low, high) if high > low else low
    x = tf.random.stateless_uniform((tasks, points, 1), four, -5.0, 5.0)
    noise = NOISE * tf.random.stateless_normal((tasks, points, 1), five)
    return x, amplitude * tf.sin(frequency * x - phase) + noise


def context_loss(learner, low, high):
    def loss(weights, seed, tasks=META_BATCH, setting=None):
        x, y = draw(tasks, LONGEST + 1, low, high, seed)
        return tf.reduce_mean((along(learner, weights, x, y) - y) ** 2)

    return loss


def maml_loss(model, inner):
    """Query loss after the inner steps, over tasks of 5, 10, 20 and 40 examples alike."""

    def one_task(weights, x, y, query_x, query_y):
        for _ in range(INNER_STEPS):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                error = tf.reduce_mean((forward(model, weights, x) - y) ** 2)
            slopes = tape.gradient(error, weights)
            weights = [w - inner * g for w, g in zip(weights, slopes, strict=True)]
        return tf.reduce_mean((forward(model, weights, query_x) - query_y) ** 2)

    def loss(weights, seed, tasks=META_BATCH):
        losses = []
        for i, n in enumerate(EXAMPLES):
            x, y = draw(
                tasks // len(EXAMPLES), n + QUERIES, 1.0, 1.0, seed + tf.constant([0, 10 * i])
            )
            task = x[:, :n], y[:, :n], x[:, n:], y[:, n:]
            losses.append(tf.reduce_mean(mlutils.map_tasks(lambda t: one_task(weights, *t), task)))
        return tf.add_n(losses) / len(EXAMPLES)

    return loss


def trainer(loss):
    """A compiled function that takes steps of Adam down ``loss(weights, seed)``."""

    @tf.function(jit_compile=True, autograph=False)
    def train(weights, means, squares, first, count, total, rate, seed):
        def step(i, weights, means, squares):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                value = loss(weights, tf.stack([seed, 100 * i]))
            slopes = tape.gradient(value, weights)
            norm = tf.linalg.global_norm(slopes)  # infinite where an inner loop diverged: no step
            scale, finite = 1 / tf.maximum(norm, 1.0), tf.math.is_finite(norm)
            slopes = [tf.where(finite, scale * g, tf.zeros_like(g)) for g in slopes]
            t = tf.cast(i + 1, tf.float32)
            part = tf.cast(i, tf.float32) / tf.cast(total, tf.float32)
            alpha = rate * (1 + tf.cos(np.pi * part)) / 2
            return i + 1, *adam(weights, slopes, means, squares, t, alpha)

        loop = (first, weights, means, squares)
        end = first + count
        return tf.while_loop(lambda i, *_: i < end, step, loop)[1:]

    return train


def adam(weights, slopes, means, squares, t, alpha):
    means = [0.9 * m + 0.1 * g for m, g in zip(means, slopes, strict=True)]
    squares = [0.999 * v + 0.001 * g * g for v, g in zip(squares, slopes, strict=True)]
    correct, alpha = tf.sqrt(1 - 0.999**t), alpha / (1 - 0.9**t)
    moves = [alpha * m / (tf.sqrt(v) / correct + 1e-7) for m, v in zip(means, squares, strict=True)]
    return [w - d for w, d in zip(weights, moves, strict=True)], means, squares


@functools.cache
def machinery(start, inner=None):
    """Of a start: its network, the compiled training, and the loss on 500 validation tasks."""
    network = network_of(start)
    loss = maml_loss(network, inner) if start == "maml" else context_loss(network, *RANGE[start])
    validation = tf.function(
        lambda weights: loss(weights, tf.constant([999, 0]), tasks=500), jit_compile=True
    )
    return network, trainer(loss), validation


def train_one(start, setting, steps, seed):
    """Weights, and the record of the training."""
    _, train, validation = machinery(start, setting.get("inner"))
    keras.utils.set_random_seed(seed)
    weights = [tf.convert_to_tensor(v) for v in network_of(start).trainable_variables]
    means = squares = [tf.zeros_like(w) for w in weights]
    curve, spent, part = [], 0.0, steps // PARTS
    for k in range(PARTS):
        begin = time.process_time()
        options = (k * part, part, steps, setting["rate"], seed)
        options = [tf.constant(v) for v in options]
        weights, means, squares = train(weights, means, squares, *options)
        spent += (time.process_time() - begin) * (PARTS / (PARTS - 1) if k else 0)  # no compiling
        curve.append(rounded(validation(weights)))
    print(start, setting, steps, seed, f"{spent:.0f} s", curve[4::5], flush=True)
    record = {"setting": setting, "steps": steps, "seed": seed, "seconds": round(spent, 1)}
    return weights, {**record, "validation": curve}


def train_all():
    stored = read()
    trainings = stored.setdefault("trainings", {})
    for start, (short, long, settings) in STARTS.items():
        entry = trainings.setdefault(start, {"tries": [], "runs": []})
        for setting in settings[len(entry["tries"]) :]:
            entry["tries"].append(train_one(start, setting, short, SEED_OF_TRIES)[1])
            write(stored)
        last = [t["validation"][-1] or np.inf for t in entry["tries"]]
        best = settings[int(np.argmin(last))]
        for seed in list(SEEDS)[len(entry["runs"]) :]:
            weights, record = train_one(start, best, long, seed)
            keep(start, seed, weights)
            entry["runs"].append(record)
            write(stored)


def train_wide():
    """The intervention: transformers whose training holds all frequencies from 1 to 2."""
    stored = read()
    trainings = stored["trainings"]
    entry = trainings.setdefault("wide", {"runs": []})
    for seed in list(WIDE_SEEDS)[len(entry["runs"]) :]:
        setting = trainings["context"]["runs"][0]["setting"]
        weights, record = train_one("wide", setting, STARTS["context"][1], seed)
        keep("wide", seed, weights)
        entry["runs"].append(record)
        write(stored)


def keep(start, seed, weights):
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    np.savez(WEIGHTS / f"{start}-{seed}.npz", *[w.numpy() for w in weights])


def ship():
    """The starts of the first seed, for the page."""
    trainings = read()["trainings"]
    for start, entry in trainings.items():
        if start == "wide":
            continue
        run, network = entry["runs"][0], network_of(start)
        for variable, value in zip(network.trainable_variables, theta_of(start, 0), strict=True):
            variable.assign(value)
        inner = run["setting"].get("inner")
        learner = mlutils.MAML(network, inner, INNER_STEPS) if inner else network
        portable.save(learner, FOLDER / f"gradient-steps-{start}.keras")
        record = {"command": "python -m benchmarks.gradient_steps train"}
        record |= {"minutes": round(run["seconds"] / 60, 1), **run}
        text = json.dumps(record, indent=1) + "\n"
        (FOLDER / f"gradient-steps-{start}.json").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- the contest

# What starts, and what moves then.
ARMS = {
    "context, LoRA": ("context", "LoRA"),
    "MAML, all": ("maml", "all"),
    "MAML, head": ("maml", "head"),
    "fresh, all": ("fresh", "all"),
    "context, head": ("context", "head"),
    "wide, LoRA": ("wide", "LoRA"),
    "MAML, LoRA": ("maml", "LoRA"),
    "context, all": ("context", "all"),
}
SHOWN, FREQUENCIES = EXAMPLES, (1.0, 1.25, 1.5, 2.0)  # 1 first: it is the plain setting
RANK, VALIDATION, TEST, TEST_QUERIES = 2, 25, 200, 50
RATES = {"SGD": (0.0025, 0.01, 0.04, 0.16), "Adam": (0.0012, 0.005, 0.02, 0.08)}
TRIES = [(name, rate) for name, rates in RATES.items() for rate in rates]
FEW = (1, 2, 5, 10, 20, 50)  # steps after which an arm is looked at
MANY = (*FEW, 100, 200)  # and a small network, whose steps cost little
PART = {"wide, LoRA": (20,)}  # not with all numbers of examples


def reads(start):
    """Whether it is a transformer, which has the examples in its context."""
    return start in ("context", "wide")


def checkpoints(start):
    return FEW if reads(start) else MANY


def theta_of(start, seed):
    if start == "fresh":
        keras.utils.set_random_seed(seed)
        return [tf.convert_to_tensor(v) for v in mlutils.mlp().trainable_variables]
    with np.load(WEIGHTS / f"{start}-{seed}.npz") as file:
        return [tf.constant(file[f"arr_{i}"]) for i in range(len(file.files))]


def kernels_of(theta):
    """Which of a network's weights are kernels."""
    return [name == "kernel" for name in names(transformer=len(theta) > 6)]


@functools.cache
def names(transformer):
    network = network_of("context" if transformer else "maml")
    return [v.name for v in network.trainable_variables]


def moving(theta, moves, seed=0):
    """What moves, before the first step."""
    if moves == "LoRA":
        return low_rank_start(theta, RANK, kernels_of(theta), seed)
    return theta[-2:] if moves == "head" else list(theta)


class Weights:
    """A network's weights, of which some are each task's own: all tasks run at once.

    The forward passes are those of ``ContextTransformer`` and of ``mlutils.mlp`` again, and a test
    holds them to these.  Low-rank adapters are applied as ``x W + (x A) B``, so that all tasks
    share one product with W.

    Args:
        theta: a list of tensors that all tasks share.
        moves: ``"head"``, ``"LoRA"`` or ``"all"``.
        own: what moves, each with a leading axis of tasks.
    """

    def __init__(self, theta, moves, own):
        self.values, self.pairs = list(theta), {}
        if moves == "LoRA":
            matrices = np.flatnonzero(kernels_of(theta))
            self.pairs = dict(zip(matrices, zip(own[::2], own[1::2], strict=True), strict=True))
        else:
            self.values[-len(own) :] = own
        self.ranks = [w.shape.rank for w in theta]

    def kernel(self, i, x, spec):
        """A product with weight i; ``spec`` is an einsum of one task, ``"qd,dk->qk"``."""
        inputs, kernel, output = spec.replace("->", ",").split(",")
        t = "t" if self.values[i].shape.rank > self.ranks[i] else ""
        result = tf.einsum(f"t{inputs},{t}{kernel}->t{output}", x, self.values[i])
        if i in self.pairs:
            (A, B), last = self.pairs[i], kernel[-1]
            A = tf.reshape(A, (-1, *self.values[i].shape[:-1], RANK))
            thin = f"t{inputs},t{kernel[:-1]}r->t{output.replace(last, 'r')}"
            thin = tf.einsum(thin, x, A)
            result += tf.einsum(f"t{output.replace(last, 'r')},tr{last}->t{output}", thin, B)
        return result

    def vector(self, i, axes=1):
        """Weight i, to be added to or multiplied with ``(tasks, n, ...)``."""
        value = self.values[i]
        return value[:, tf.newaxis] if value.shape.rank > self.ranks[i] else value

    def dense(self, i, x):
        return self.kernel(i, x, "qd,dk->qk") + self.vector(i + 1)

    def norm(self, i, x):
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(centred**2, -1, keepdims=True)
        return centred * tf.math.rsqrt(variance + 1e-3) * self.vector(i) + self.vector(i + 1)

    def mlp(self, x):
        for i in range(0, len(self.values) - 2, 2):
            x = tf.nn.relu(self.dense(i, x))
        return self.dense(len(self.values) - 2, x)

    def start(self, tasks):
        """The token to start with, ``(tasks, 1, units)``."""
        start = self.values[0]
        return tf.reshape(start, (-1, 1, start.shape[-1])) * tf.ones((tasks, 1, 1))

    def transformer(self, x, y, query_x, causal):
        """Answers ``(tasks, Q, 1)``; if causal, query i sees the examples before the i-th."""
        n, queries = x.shape[1], query_x.shape[1]
        memory = self.dense(1, tf.concat([x, y], 2))
        memory = tf.concat([self.start(x.shape[0]), memory], 1)
        tokens = self.dense(1, tf.concat([query_x, tf.zeros_like(query_x)], 2))
        of_memory = lower(n + 1, n + 1)
        of_tokens = lower(queries, n + 1) if causal else tf.zeros((queries, n + 1))
        for i in range(3, len(self.values) - 4, 16):
            seen = self.norm(i + 8, memory)
            keys, values = (
                self.kernel(j, seen, "qd,dhk->qhk") + self.vector(j + 1) for j in (i + 2, i + 4)
            )
            tokens = self.block(i, tokens, self.norm(i + 8, tokens), keys, values, of_tokens)
            if i + 16 < len(self.values) - 4:
                memory = self.block(i, memory, seen, keys, values, of_memory)
        last = len(self.values) - 4
        return self.dense(last + 2, self.norm(last, tokens))

    def block(self, i, tokens, normed, keys, values, mask):
        asks = self.kernel(i, normed, "qd,dhk->qhk") + self.vector(i + 1)
        fits = tf.einsum("tnhk,tmhk->thnm", asks, keys) / keys.shape[-1] ** 0.5
        found = tf.einsum("thnm,tmhk->tnhk", tf.nn.softmax(fits + mask), values)
        tokens += self.kernel(i + 6, found, "qhk,hkd->qd") + self.vector(i + 7)
        inner = tf.nn.relu(self.dense(i + 12, self.norm(i + 10, tokens)))
        return tokens + self.dense(i + 14, inner)


def lower(rows, columns):
    """What is added to fits so that row i sees the columns 0 to i."""
    return -1e9 * (1 - tf.linalg.band_part(tf.ones((rows, columns)), -1, 0))


class Adapter:
    """The steps of one arm from n examples, for many tasks at once, compiled."""

    def __init__(self, start, moves, n):
        self.start, self.moves, self.n = start, moves, n
        self.shapes = [tuple(w.shape) for w in moving(theta_of(start, 0), moves)]
        self.run = tf.function(self.run, jit_compile=True, autograph=False)
        self.answer = tf.function(self.answer, jit_compile=True, autograph=False)

    def loss(self, theta, own, x, y):
        """Each task's: as in the training of a transformer, its examples in the order given."""
        weights = Weights(theta, self.moves, self.parts(own))
        found = weights.transformer(x, y, x, True) if reads(self.start) else weights.mlp(x)
        return tf.reduce_mean((found - y) ** 2, (1, 2))

    def run(self, theta, own, mean, square, task, rates, adaptive, seed, first, end):
        """Each task's own numbers after the steps from ``first`` to ``end``."""
        x, y = task
        rates, adaptive = rates[:, tf.newaxis], adaptive[:, tf.newaxis]

        def step(i, own, mean, square):
            order = tf.argsort(tf.random.stateless_uniform(x.shape[:2], tf.stack([seed, i])))
            inputs = [tf.gather(v, order, batch_dims=1) for v in (x, y)]
            with tf.GradientTape() as tape:
                tape.watch(own)
                loss = self.loss(theta, own, *inputs)  # the sum's gradients are each task's
            slope, t = tape.gradient(loss, own), tf.cast(i + 1, tf.float32)
            (new,), (mean,), (square,) = adam([own], [slope], [mean], [square], t, rates)
            return i + 1, tf.where(adaptive, new, own - rates * slope), mean, square

        loop = (first, own, mean, square)
        return tf.while_loop(lambda i, *_: i < end, step, loop)[1:]

    def parts(self, own):
        """What moves, from one vector of each task."""
        parts = tf.split(own, [math.prod(shape) for shape in self.shapes], axis=1)
        return [tf.reshape(p, (-1, *s)) for p, s in zip(parts, self.shapes, strict=True)]

    def answer(self, theta, own, task, query_x):
        """Predictions ``(tasks, Q, 1)``."""
        weights = Weights(theta, self.moves, self.parts(own))
        if reads(self.start):
            return weights.transformer(*task, query_x, False)
        return weights.mlp(query_x)

    def path(self, seed, tasks, tries, stops):
        """Squared errors of each task ``(stops, tasks)``, and the seconds of the steps.

        Args:
            seed: of the start.
            tasks: ``x, y, truth`` of ``TEST`` tasks, queries behind the examples.
            tries: one ``(optimizer, rate)`` for each.
            stops: numbers of steps.
        """
        x, y, truth = tasks
        task, query_x = (x[:, : self.n], y[:, : self.n]), x[:, self.n :]
        theta = theta_of(self.start, seed)
        own = tf.concat([tf.reshape(w, (1, -1)) for w in moving(theta, self.moves, seed)], 1)
        own = tf.repeat(own, len(x), axis=0)
        mean = square = tf.zeros_like(own)
        rates = tf.constant([rate for _, rate in tries], tf.float32)
        adaptive = tf.constant([name == "Adam" for name, _ in tries])
        errors, done, begin = [], 0, time.process_time()
        for stop in stops:
            if stop > done:
                span = tf.constant(done), tf.constant(stop)
                own, mean, square = self.run(
                    theta, own, mean, square, task, rates, adaptive, tf.constant(seed), *span
                )
                done = stop
            found = self.answer(theta, own, task, query_x).numpy()
            errors.append(np.mean((found - truth[:, self.n :]) ** 2, axis=(1, 2)))
        return np.array(errors), time.process_time() - begin


def validation_tasks(n, frequency):
    return tasks_of(VALIDATION, n, frequency, seed=1000 + n)


def test_tasks(n, frequency):
    return tasks_of(TEST, n, frequency, seed=2000 + n)


def tasks_of(count, n, frequency, seed):
    return noisy_sines(count, n + TEST_QUERIES, frequency, NOISE, seed + round(100 * frequency))


def tune(adapter, frequency):
    """Each try's validation error at each checkpoint, ``(tries, checkpoints)``."""
    repeats = len(TRIES)
    tasks = [np.concatenate([v] * repeats) for v in validation_tasks(adapter.n, frequency)]
    each = [one for one in TRIES for _ in range(VALIDATION)]
    errors, _ = adapter.path(0, tasks, each, checkpoints(adapter.start))
    found = errors.reshape(len(errors), repeats, VALIDATION).mean(axis=2).T
    return np.nan_to_num(found, nan=np.inf)


def contest(arms=ARMS):
    stored = read()
    for n, w in itertools.product(SHOWN, FREQUENCIES):
        cell = stored.setdefault("cells", {}).setdefault(f"{n} {w}", {"arms": {}})
        if "knows" not in cell:
            cell |= ceilings(n, w)
    write(stored)
    for (arm, (start, moves)), n in itertools.product(ARMS.items(), SHOWN):
        if arm in arms and n in PART.get(arm, SHOWN):
            play(stored, arm, start, moves, n)


def play(stored, arm, start, moves, n):
    """An arm's results with n examples, at all shifts that are not there yet."""
    cells, adapter, plain = stored["cells"], None, None
    for w in FREQUENCIES:
        if arm in cells[f"{n} {w}"]["arms"]:
            chosen = cells[f"{n} {w}"]["arms"][arm]["plain"]
            row = TRIES.index((chosen["optimizer"], chosen["rate"]))
            plain = plain or (row, checkpoints(start).index(chosen["steps"]))
            continue
        begin, adapter = time.process_time(), adapter or Adapter(start, moves, n)
        result, plain = one_cell(adapter, w, plain)
        cells[f"{n} {w}"]["arms"][arm] = result
        print(arm, n, w, json.dumps(result), flush=True)
        minutes = stored.get("minutes", 0) + (time.process_time() - begin) / 60
        stored |= {"minutes": round(minutes, 2), "command": "python -m benchmarks.gradient_steps"}
        write(stored)


def one_cell(adapter, w, plain):
    """The result of an arm, and the setting that was chosen without shift."""
    grid, stops, tasks = tune(adapter, w), checkpoints(adapter.start), test_tasks(adapter.n, w)
    row, column = np.unravel_index(np.argmin(grid), grid.shape)
    tuned = row, column
    plain = plain or tuned
    result = {
        "tuned": describe(tuned, stops, grid),
        "plain": describe(plain, stops, grid),
        "errors": [],
        "plain errors": [],
        "zero": [],
        "ms": [],
    }
    gain = []
    for seed in WIDE_SEEDS if adapter.start == "wide" else SEEDS:
        errors, seconds = adapter.path(seed, tasks, [TRIES[row]] * TEST, (0, stops[column]))
        result["zero"].append(rounded(errors[0].mean()))
        result["errors"].append(rounded(errors[1].mean()))
        result["ms"].append(round(1000 * seconds / TEST, 3))
        gain.append(errors[1] - errors[0])
        if plain != tuned:
            options = [TRIES[plain[0]]] * TEST, (stops[plain[1]],)
            errors = adapter.path(seed, tasks, *options)[0]
        result["plain errors"].append(rounded(errors[-1].mean()))
    gain = np.mean(gain, axis=0)  # of each task, over seeds
    result["gain over tasks"] = [rounded(gain.mean()), rounded(gain.std() / TEST**0.5)]
    begin = time.process_time()
    adapter.path(0, tasks, [TRIES[row]] * TEST, (0,))
    result["ms of zero"] = round(1000 * (time.process_time() - begin) / TEST, 3)
    return result, plain


def describe(chosen, stops, grid):
    (name, rate), value = TRIES[chosen[0]], grid[chosen]
    return {"optimizer": name, "rate": rate, "steps": stops[chosen[1]], "error": rounded(value)}


def ceilings(n, w):
    """Errors of Bayes predictors on the test tasks, by what they believe of the frequency."""
    x, y, truth = test_tasks(n, w)
    beliefs = {"knows": w, "believes 1": 1.0, "believes 1 to 2": np.linspace(1.0, 2.0, 41)}
    return {
        name: rounded(
            np.mean((sine_bayes(x[:, :n], y[:, :n], x[:, n:], b, NOISE, 200) - truth[:, n:]) ** 2)
        )
        for name, b in beliefs.items()
    }


# ---------------------------------------------------------------- what is stored


def rounded(value):
    """To four digits; null for what diverged."""
    return round(float(value), 4) if np.isfinite(value) else None


def read():
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def write(stored):
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def command(name="contest", *arms):
    set_threads(1)
    if name == "contest":
        contest(arms or ARMS)
    else:
        {"train": train_all, "ship": ship, "wide": train_wide}[name]()


if __name__ == "__main__":
    command(*sys.argv[1:])
