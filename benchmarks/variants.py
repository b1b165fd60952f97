"""MAML's variants on sine waves, all tuned alike and trained five times.

    python -m benchmarks.variants               all methods
    python -m benchmarks.variants "MAML" ...    some, anew

Every method starts from the setting that the page on variants gives it, and gets as many tries:
that setting, and the same five draws of factors from 1/3 to 3 for each of its hyperparameters,
which are the inner and the outer step size and, in iMAML, the strength.  A try is one training, of
a seed of its own, and is judged on tasks of its own.  The best setting is trained anew with five
seeds, each of which draws the initial weights and the training tasks; all are tested on the same
600 tasks, after the steps that the method was trained for and after ten.  Takes about ten
minutes of one core.

Writes ``benchmarks/results/variants.json``, of which ``tests/maml/test_variants.py`` checks what
the page says.
"""

import json
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from scipy.stats import qmc

from mlutils import ANIL, MAML, MetaSGD, Reptile, UpdateRule, iMAML
from mlutils.session import set_threads

RESULTS = Path(__file__).parent / "results/variants.json"
META_STEPS, TASKS = 2000, 600
TRIES, SEEDS, SEED_OF_TRIES = 6, range(5), 100
FACTOR = 3


class FixedStep(UpdateRule):
    """``-alpha * gradient`` with an alpha that can be set without compiling anew."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.alpha = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.built = True

    def initial_state(self, shape):
        return ()

    def call(self, gradient, state=()):
        return -self.alpha * gradient, state


class FirstKernel(MAML):
    """MAML whose inner loop moves the kernel of the first layer alone."""

    def rules(self):
        first, *others = super().rules()
        return [first, *(None for _ in others)]


# How each is made from a model and a rule, and the setting that it starts from.
ADAM = {"inner step": 0.01, "outer step": 0.001}
METHODS = {
    "MAML": (lambda m, r: MAML(m, rule=r), ADAM),
    "first-order MAML": (lambda m, r: MAML(m, rule=r, first_order=True), ADAM),
    "MAML, k = 5": (lambda m, r: MAML(m, inner_steps=5, rule=r), ADAM),
    "Meta-SGD": (lambda m, r: MetaSGD(m), ADAM),
    "ANIL": (lambda m, r: ANIL(m, rule=r), ADAM),
    "ANIL, k = 5": (lambda m, r: ANIL(m, inner_steps=5, rule=r), ADAM),
    "first kernel alone": (lambda m, r: FirstKernel(m, rule=r), ADAM),
    "iMAML, k = 30": (
        lambda m, r: iMAML(m, inner_steps=30, strength=5.0, rule=r),
        {"inner step": 0.002, "outer step": 0.001, "strength": 5.0},
    ),
    "Reptile, k = 5": (
        lambda m, r: Reptile(m, inner_steps=5, batch_size=10, rule=r),
        {"inner step": 0.02, "outer step": 1.0},
    ),
}


def main(names):
    set_threads(1)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if names else {"methods": {}}
    results |= {
        "command": "python -m benchmarks.variants",
        "meta_steps": META_STEPS,
        "tries": TRIES,
    }
    for name in names or METHODS:
        results["methods"][name] = run(name)
        print(name, json.dumps(results["methods"][name]), flush=True)
        if not names:
            results["minutes of one core"] = round(time.process_time() / 60, 1)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def settings(start):
    """The tries of one method: where it starts, and factors that are the same for all methods."""
    draws = qmc.LatinHypercube(3, seed=0).random(TRIES - 1)
    factors = np.concatenate([np.ones((1, 3)), FACTOR ** (2 * draws - 1)])
    return [
        {key: float(value * f) for (key, value), f in zip(start.items(), row, strict=False)}
        for row in factors
    ]


def run(name):
    """Tune one method, train it with all seeds, and score it."""
    make, start = METHODS[name]
    bench = Bench(make, start)
    tries = settings(start)
    found = []
    for setting in tries:
        bench.train(setting, SEED_OF_TRIES)
        found.append(bench.error(tasks=3))
    best = tries[int(np.argmin(found))]
    own, ten = [], []
    for seed in SEEDS:
        bench.train(best, seed)
        own.append(bench.error(tasks=2))
        ten.append(bench.error(tasks=2, steps=10, of=np.median))
    return {
        "setting": {key: float(f"{value:.3g}") for key, value in best.items()},
        "errors of the tries": rounded(found),
        "trained for": bench.learner.inner_steps,
        "errors": rounded(own),
        "medians after ten steps": rounded(ten),
    }


def rounded(values):
    """To four digits; null for what diverged."""
    return [round(v, 4) if np.isfinite(v) else None for v in values]


class Bench:
    """A learner that is compiled once and trained again and again."""

    def __init__(self, make, start):
        self.rule = FixedStep()
        self.learner = make(mlutils.mlp(), self.rule)
        if "strength" in start:  # a variable, to be set without compiling anew
            self.learner.strength = tf.Variable(start["strength"], trainable=False)
        reptile = isinstance(self.learner, Reptile)
        self.optimizer = keras.optimizers.SGD() if reptile else keras.optimizers.Adam()
        self.learner.compile(self.optimizer, "mse", steps_per_execution=500, jit_compile=True)
        self.optimizer.build(self.learner.trainable_variables)
        self.fresh = [v.numpy() for v in self.optimizer.variables]

    def train(self, setting, seed):
        """From new weights, on the seed's tasks."""
        keras.utils.set_random_seed(seed)
        self.learner.model.set_weights(mlutils.mlp().get_weights())
        for variable, value in zip(self.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        self.rule.alpha.assign(setting["inner step"])
        if isinstance(self.learner, MetaSGD):
            for step_size in self.learner.step_sizes:
                step_size.alpha.assign(tf.fill(step_size.shape, setting["inner step"]))
        if isinstance(self.learner, Reptile):
            self.learner.shuffles.assign(0)
        self.optimizer.learning_rate.assign(setting["outer step"])
        if "strength" in setting:
            self.learner.strength.assign(setting["strength"])
        train = mlutils.data.sinusoids(shots=10, queries=10, meta_batch=25, seed=1000 + seed)
        self.learner.fit(train, steps_per_epoch=META_STEPS, verbose=0)

    def error(self, tasks, steps=None, of=np.mean):
        """The squared error with five points: the mean, or median, of the tasks of a seed."""
        batches = mlutils.data.sinusoids(shots=5, meta_batch=100, seed=tasks)
        errors = [
            np.mean((self.learner(inputs, steps=steps).numpy() - query_y) ** 2, axis=(1, 2))
            for inputs, query_y in batches.take(TASKS // 100).as_numpy_iterator()
        ]
        return float(of(np.nan_to_num(errors, nan=np.inf, posinf=np.inf)))


if __name__ == "__main__":
    main(sys.argv[1:])
