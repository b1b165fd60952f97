"""The LSTM rule on quadratics, beside Keras's optimizers with all their hyperparameters tuned.

    python -m benchmarks.quadratics         goes on where it was cut off, if it was

Quadratics of ten dimensions, rotated ones and such along the axes.  On each family an LSTM rule is
meta-trained from five seeds, and SGD, momentum, Nesterov, RMSprop and Adam are tuned for 20, 50
and 100 steps separately: 256 tries each at all hyperparameters, on 8,192 validation functions.
Then each seed has 512 functions of its own, the same for all methods, that took no part before.

Writes ``mlutils/results/quadratics.json``, which ``chapters/optimizer_based/the-lstm-optimizer``
shows: for each family the tuned settings, which hyperparameters ended at an edge of their range,
and for each method the means of f after 20, 50 and 100 steps, a row for each seed.
"""

import json
import time

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from mlutils import LSTMRule, RuleTrainer
from mlutils.results import FOLDER
from mlutils.session import set_threads

RESULT = FOLDER / "quadratics.json"
HORIZONS, TRIES, SEEDS, BATCHES = (20, 50, 100), 256, range(5), 400
FUNCTIONS = 8192  # for tuning: the steepest decide, and must not all be in the test
VALIDATION, TRAINING, TEST = 100, 1000, 300  # seeds; of the last two, plus that of the rule
FAMILIES = {
    "rotated": mlutils.data.Quadratics(dimension=10),
    "along the axes": mlutils.data.Quadratics(dimension=10, rotated=False),
}

# ---------------------------------------------------------------- the baselines

DECAY = {"end": (0.0, 0.99, "share")}  # the last step size as a share of the first
MOMENTUM = {"momentum": (0.0, 0.98, "share")}
BETAS = {"beta_1": (0.0, 0.98, "share"), "beta_2": (0.3, 0.9999, "share")}
RHO = {"rho": (0.3, 0.9999, "share")}
# Where a best step size lay at an end of its range, the range was moved and the search repeated:
# along the axes RMSprop and Adam want far larger ones.
RATES = {
    "rotated": {"RMSprop": (3e-3, 1.0, "log"), "Adam": (0.03, 3.0, "log")},
    "along the axes": {"RMSprop": (0.3, 1000.0, "log"), "Adam": (1.0, 1000.0, "log")},
}
SPACES = {
    "SGD": {"rate": (1e-3, 0.3, "log")},
    "SGD, decaying": {"rate": (1e-3, 0.3, "log")} | DECAY,
    "momentum": {"rate": (3e-3, 0.1, "log")} | MOMENTUM | DECAY,
    "Nesterov": {"rate": (3e-3, 0.1, "log")} | MOMENTUM | DECAY,
    "RMSprop": RHO | MOMENTUM | DECAY,
    "Adam": BETAS | DECAY,
}


def in_keras(name, steps, rate, end=1.0, **options):
    """A baseline as Keras has it."""
    schedule = keras.optimizers.schedules.PolynomialDecay(rate, steps, rate * end)
    kind = getattr(keras.optimizers, name, keras.optimizers.SGD)
    if name == "Nesterov":
        options["nesterov"] = True
    return kind(schedule, **options)


def update_of(name, gradient, state, rate, t, momentum=0.0, rho=0.9, beta_1=0.9, beta_2=0.999):
    """The same as formulas, so that one graph serves all settings; t counts from 1."""
    first, second = state
    if name == "Adam":
        first += (1 - beta_1) * (gradient - first)
        second += (1 - beta_2) * (gradient**2 - second)
        rate *= tf.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        return -rate * first / (tf.sqrt(second) + 1e-7), (first, second)
    if name == "RMSprop":
        second = rho * second + (1 - rho) * gradient**2
        first = momentum * first - rate * gradient * tf.math.rsqrt(second + 1e-7)
        return first, (first, second)
    first = momentum * first - rate * gradient
    update = momentum * first - rate * gradient if name == "Nesterov" else first
    return update, (first, second)


def fast_score(name, family, steps):
    """From a setting to the mean of f after ``steps`` steps on the validation functions."""
    start, problem = next(iter(family.problems(functions=FUNCTIONS, seed=VALIDATION)))

    @tf.function(jit_compile=True)
    def run(setting):
        setting = dict(setting)
        rate, end = setting.pop("rate"), setting.pop("end", 1.0)
        theta, state = start, (tf.zeros_like(start), tf.zeros_like(start))
        for step in tf.range(steps):
            with tf.GradientTape() as tape:
                tape.watch(theta)
                value = family.values(theta, problem)
            t = tf.cast(step, tf.float32)
            now = rate * (end + (1 - end) * (1 - t / steps))
            update, state = update_of(
                name, tape.gradient(value, theta), state, now, t + 1, **setting
            )
            theta += update
        return tf.reduce_mean(family.values(theta, problem))

    return lambda **setting: run({k: tf.constant(v, tf.float32) for k, v in setting.items()})


def in_keras_values(name, family, steps, setting, problems):
    """f of each function after ``steps`` steps of Keras's optimizer."""
    start, problem = problems
    (values,) = mlutils.run_optimizer(
        in_keras(name, steps, **setting),
        lambda theta, step: family.values(theta, problem),
        start,
        steps,
    )
    return values[steps]


def test_problems(family, seeds):
    """The 512 test functions of each seed, one after another."""
    drawn = [next(iter(family.problems(functions=512, seed=TEST + seed))) for seed in seeds]
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *drawn)


def tuned(name, home, steps):
    """The best setting for a horizon, its score, and what lies at an edge."""
    family, space = FAMILIES[home], SPACES[name]
    if name in RATES[home]:
        space = {"rate": RATES[home][name]} | space
    search = mlutils.tune(fast_score(name, family, steps), space, TRIES)
    setting = {k: float(f"{v:.4g}") for k, v in search.best().items()}
    problems = next(iter(family.problems(functions=FUNCTIONS, seed=VALIDATION)))
    by_keras = in_keras_values(name, family, steps, setting, problems).mean()
    if not np.isclose(by_keras, search.score(), rtol=0.05):
        raise RuntimeError(f"{name}: Keras gets {by_keras}, the formulas {search.score()}.")
    return {"setting": setting, "at the edge": search.at_edge(), "score": rounded(by_keras)}


# ---------------------------------------------------------------- the learned rule


def meta_train(family, seed):
    """The page's rule."""
    keras.utils.set_random_seed(seed)
    rule = LSTMRule(units=20, layers=2)
    trainer = RuleTrainer(rule, family.values, steps=100, truncation=20, first_order=True)
    rates = keras.optimizers.schedules.CosineDecay(5e-3, 5 * BATCHES)
    trainer.compile(keras.optimizers.Adam(rates, global_clipnorm=1.0))
    problems = family.problems(functions=32, seed=TRAINING + seed)
    trainer.fit(problems, steps_per_epoch=BATCHES, verbose=0)
    return rule


def curve_of(rule, family, seed):
    """The mean of f after 0 to 100 steps on a seed's test functions."""
    start, problem = test_problems(family, [seed])
    values, *_ = tf.function(
        lambda start: mlutils.unroll(
            rule, lambda theta, step: family.values(theta, problem), start, max(HORIZONS)
        )
    )(start)
    return values.numpy().mean(axis=1)


# ---------------------------------------------------------------- all of it


def main():
    set_threads(1)
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if not results:
        results = {"command": "python -m benchmarks.quadratics", "minutes": 0.0, "tries": TRIES}
        results |= {"batches": BATCHES, "horizons": HORIZONS, "families": {}}
        for home in FAMILIES:
            results["families"][home] = {"settings": {}, "means": {}, "curves": []}
    tables, begin = results["families"], time.process_time()
    before = results["minutes"]

    def store():
        results["minutes"] = round(before + (time.process_time() - begin) / 60, 1)
        RESULT.write_text(json.dumps(results) + "\n", encoding="utf-8")

    for seed in list(SEEDS)[len(tables["rotated"]["curves"]) :]:
        for home, family in FAMILIES.items():
            rule = meta_train(family, seed)
            for place, other in FAMILIES.items():
                curve = curve_of(rule, other, seed)
                where = "learned there" if place == home else "learned elsewhere"
                rows = tables[place]["means"].setdefault(where, [])
                rows.append([rounded(curve[T]) for T in HORIZONS])
                print(seed, home, "tested", place, curve[list(HORIZONS)], flush=True)
                if place == home:
                    tables[place]["curves"].append([rounded(value) for value in curve])
        store()
    for home, family in FAMILIES.items():
        table, problems = tables[home], test_problems(family, SEEDS)
        for name in [name for name in SPACES if name not in table["means"]]:
            found = {str(T): tuned(name, home, T) for T in HORIZONS}
            ends = [
                in_keras_values(name, family, T, found[str(T)]["setting"], problems)
                for T in HORIZONS
            ]  # (horizons, seeds x functions)
            means = np.reshape(ends, (len(HORIZONS), len(SEEDS), -1)).mean(axis=2).T
            table["settings"][name] = found
            table["means"][name] = [[rounded(value) for value in row] for row in means]
            print(home, name, found, means.mean(axis=0), flush=True)
            store()
        floor = family.conjugate_gradients(*problems, 20).numpy().mean(axis=1)
        table["conjugate gradients"] = [rounded(value) for value in floor]
    store()


def rounded(value):
    """To four digits; null for what diverged."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


if __name__ == "__main__":
    main()
