"""Truncation, first order, evolution strategies: what each makes of the same rule in equal time.

    python -m benchmarks.estimators           all rows
    python -m benchmarks.estimators lstm      the rows of one rule, anew

A rule is meta-trained on random quadratics of ten dimensions, runs of 100 steps, all weights 1.
Every row gets the same number of seconds of one core for each training (how many trajectories it
can afford is measured first), six tries at its hyperparameters (the outer step size; for evolution
strategies sigma too), chosen on validation functions, and then five trainings with seeds of their
own, which are judged on the same 512 functions: by the mean of f along the run, and at its end.

Writes ``mlutils/results/estimators.json``, which ``chapters/optimizer_based/when-the-tape-lies``
shows.
"""

import json
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from mlutils import LSTMRule, MLPRule, RuleTrainer, Score
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "estimators.json"
STEPS, TRIES, SEEDS, SEED_OF_TRIES = 100, 6, range(5), 100
FAMILY = mlutils.data.Quadratics(dimension=10)
RATE = {"rate": (5e-4, 5e-2, "log")}
SMOOTHED = RATE | {"sigma": (3e-3, 0.1, "log")}

# For each rule: seconds of a training, and options of RuleTrainer for each row.
TAPES = {
    f"tape, segments of {truncation}{', first order' * first_order}": {
        "truncation": truncation,
        "first_order": first_order,
    }
    for first_order in (False, True)
    for truncation in (5, 20, 100)
}
EVOLUTION = {
    f"{kind}, segments of {truncation}": {"truncation": truncation, "gradient": name}
    for kind, name, truncation in (
        ("ES", "es", 5),
        ("ES", "es", 100),
        ("PES", "pes", 5),
        ("PES", "pes", 20),
    )
}
RULES = {"lstm": (LSTMRule, 15, TAPES), "mlp": (MLPRule, 10, TAPES | EVOLUTION)}


class Bench:
    """A rule and its trainer, traced once, trained again and again."""

    def __init__(self, make, options):
        self.make, self.rule = make, make()
        self.trainer = RuleTrainer(self.rule, FAMILY.values, STEPS, pairs=4, **options)
        self.sigma = None
        if "gradient" in options:  # a variable, to be set without tracing anew
            self.sigma = tf.Variable(0.01, trainable=False)
            self.trainer.estimator.sigma = self.sigma
        self.rate = tf.Variable(0.0, trainable=False)
        self.total = tf.Variable(1.0, trainable=False)
        self.optimizer = keras.optimizers.Adam(Cosine(self.rate, self.total), global_clipnorm=1.0)
        self.trainer.compile(self.optimizer)
        self.optimizer.build(self.rule.trainable_variables)
        self.fresh = [v.numpy() for v in self.optimizer.variables]
        self.unroll = tf.function(
            lambda theta, problem: mlutils.unroll(
                self.rule, lambda theta, step: FAMILY.values(theta, problem), theta, STEPS
            )[0]
        )

    def train(self, seed, batches, rate, sigma=None):
        """From new weights."""
        keras.utils.set_random_seed(seed)
        self.rule.set_weights(self.make().get_weights())
        for variable, value in zip(self.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        self.rate.assign(rate)
        self.total.assign(batches * STEPS / self.trainer.truncation)
        if self.sigma is not None:
            self.sigma.assign(sigma)
        tasks = FAMILY.problems(functions=32, seed=1000 + seed)
        self.trainer.fit(tasks, steps_per_epoch=batches, verbose=0)

    def score(self, seed):
        """The mean of f over steps 1 to T, and at the end."""
        theta, problem = next(iter(FAMILY.problems(functions=512, seed=seed)))
        values = self.unroll(theta, problem).numpy().mean(axis=1)
        return [float(values[1:].mean()), float(values[-1])]

    def affordable(self, seconds, some=4):
        """How many batches fit into so many seconds of the processor."""
        setting = {"rate": 1e-3} | ({} if self.sigma is None else {"sigma": 0.01})
        self.train(0, some, **setting)  # traces
        start = time.process_time()
        self.train(0, 4 * some, **setting)
        return max(1, round(seconds * 4 * some / (time.process_time() - start)))


class Cosine(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine decay whose numbers can be set."""

    def __init__(self, rate, total):
        self.rate, self.total = rate, total

    def __call__(self, step):
        share = tf.minimum(tf.cast(step, tf.float32) / self.total, 1.0)
        return self.rate * 0.5 * (1 + tf.cos(np.pi * share))


def run(make, seconds, options):
    bench = Bench(make, options)
    batches = bench.affordable(seconds)

    def attempt(**setting):
        bench.train(SEED_OF_TRIES, batches, **setting)
        return bench.score(seed=3)[0]

    space = RATE if bench.sigma is None else SMOOTHED
    search = mlutils.tune(attempt, space, TRIES)
    scores = []
    for seed in SEEDS:
        bench.train(seed, batches, **search.best())
        scores.append(bench.score(seed=2))
    return {
        "batches": batches,
        "setting": {key: float(f"{value:.3g}") for key, value in search.best().items()},
        "at the edge": search.at_edge(),
        "tries": [rounded(s) for s in search.scores[:, 0]],
        "mean along the run": [rounded(s[0]) for s in scores],
        "at the end": [rounded(s[1]) for s in scores],
    }


def rounded(value):
    """To four digits; null for what diverged."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def main(names):
    set_threads(1)
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    found |= {"command": "python -m benchmarks.estimators", "tries": TRIES}
    found.setdefault("rules", {})
    for name in names or RULES:
        make, seconds, rows = RULES[name]
        begin, table = time.process_time(), {}
        for row, options in rows.items():
            table[row] = run(make, seconds, options)
            values = [v if v is not None else np.inf for v in table[row]["mean along the run"]]
            print(f"{name:5} {row:36} {Score(values)}  {table[row]}", flush=True)
        minutes = round((time.process_time() - begin) / 60, 1)
        found["rules"][name] = {
            "seconds of a training": seconds,
            "minutes of one core": minutes,
            "rows": table,
        }
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in RULES]
    if unknown:
        sys.exit(f"No such rule: {unknown}; there are {list(RULES)}.")
    main(sys.argv[1:])
