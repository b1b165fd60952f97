"""Optimizers of today on two small networks: loss against steps, and against seconds.

    python -m benchmarks.optimizers

Two networks on the 1,797 digits of scikit-learn, in mini-batches of 128: a perceptron with 20
sigmoid units, and a small convolutional network.  Every optimizer gets 24 tries at all its
hyperparameters (for the learned ones, what their updates are multiplied by and its decay), chosen
by the mean loss of the last ten of 100 steps, on two training runs of their own; then five runs of
others.  The MLP rule is meta-trained anew for each of the five, on the perceptron; the LSTM rule
is the one of 3,000 runs that comes with the package.  A second time, each gets as many seconds of
one core as the LSTM rule needs for its 100 steps, and is tuned for as many steps as fit.

Writes ``mlutils/results/optimizers.json``, which ``chapters/optimizer_based/optimizers-of-today``
shows.
"""

import json
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from keras import layers

from mlutils import LearnedOptimizer, MLPRule, RuleTrainer
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "optimizers.json"
STEPS, TRIES, SEEDS, SEEDS_OF_TRIES, BATCH = 100, 24, range(5), (100, 101), 128
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = mlutils.data.digits()


class Patches(layers.Layer):
    """All windows of 3 x 3: a dense layer behind it is a convolution, its kernel a matrix."""

    def call(self, x):
        return keras.ops.image.extract_patches(x, 3, strides=1, padding="same")


def perceptron():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(20, activation="sigmoid"),
            layers.Dense(10),
        ]
    )


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            Patches(),
            layers.Dense(16, activation="relu"),
            layers.MaxPooling2D(),
            Patches(),
            layers.Dense(32, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


NETWORKS = {"perceptron": perceptron, "convolutional network": convolutional}


def decay(rate, end, steps):
    """From ``rate`` in a straight line to a share of it at the last step."""
    return keras.optimizers.schedules.PolynomialDecay(rate, steps, rate * end)


END = {"end": (0.0, 0.99, "share")}
MULTIPLIER = {"rate": (0.01, 3.0, "log")} | END


def momentum(steps, rate, momentum, end):
    return keras.optimizers.SGD(decay(rate, end, steps), momentum=momentum)


def adam(steps, rate, beta_1, beta_2, end):
    return keras.optimizers.Adam(decay(rate, end, steps), beta_1, beta_2)


def muon(steps, rate, momentum, adam_share, end):
    return keras.optimizers.Muon(
        decay(rate, end, steps),
        momentum=momentum,
        adam_lr_ratio=adam_share,
        weight_decay=0.0,
        adam_weight_decay=0.0,
    )


def learned(rule):
    def make(steps, rate=1.0, end=1.0):
        return LearnedOptimizer(rule, learning_rate=decay(rate, end, steps))

    return make


BETAS = {"beta_1": (0.0, 0.99, "share"), "beta_2": (0.5, 0.9999, "share")}
SPACES = {
    "momentum": (momentum, {"rate": (0.01, 30.0, "log"), "momentum": (0.0, 0.99, "share")} | END),
    "Adam": (adam, {"rate": (1e-3, 1.0, "log")} | BETAS | END),
    "Muon": (
        muon,
        {
            "rate": (1e-3, 3.0, "log"),
            "momentum": (0.0, 0.99, "share"),
            "adam_share": (0.03, 30.0, "log"),
        }
        | END,
    ),
}


class Bench:
    """One network; it is trained again and again, from each seed's own weights."""

    def __init__(self, make_network):
        self.network, self.weights = make_network(), {}
        for seed in (*SEEDS, *SEEDS_OF_TRIES):
            keras.utils.set_random_seed(seed)
            self.weights[seed] = make_network().get_weights()

    def losses(self, make_optimizer, steps, seeds):
        """The mini-batch losses of each seed's training, ``(seeds, steps)``, and ms per step."""
        optimizer, network = make_optimizer(steps), self.network
        optimizer.build(network.trainable_variables)
        initial = [v.numpy() for v in optimizer.variables]

        @tf.function
        def train(seed):
            found = tf.TensorArray(tf.float32, steps)
            for step in tf.range(steps):
                key = tf.stack([seed, step])
                drawn = tf.random.stateless_uniform((BATCH,), key, 0, len(X), dtype=tf.int32)
                x, y = tf.gather(tf.constant(X), drawn), tf.gather(tf.constant(Y), drawn)
                with tf.GradientTape() as tape:
                    loss = LOSS(y, network(x, training=True))
                variables = network.trainable_variables
                optimizer.apply(tape.gradient(loss, variables), variables)
                found = found.write(step, loss)
            return found.stack()

        def reset(seed):
            network.set_weights(self.weights[seed])
            for variable, value in zip(optimizer.variables, initial, strict=True):
                variable.assign(value)

        train = train.get_concrete_function(tf.TensorSpec((), tf.int32))
        values, seconds = [], []
        for seed in seeds:
            reset(seed)
            start = time.process_time()
            values.append(train(tf.constant(seed)).numpy())
            seconds.append(time.process_time() - start)
        return np.array(values), 1000 * min(seconds) / steps

    def tuned(self, make, space, steps):
        """What 24 tries find for so many steps."""

        def score(**setting):
            values, _ = self.losses(lambda steps: make(steps, **setting), steps, SEEDS_OF_TRIES)
            return values[:, -10:].mean()

        return mlutils.tune(score, space, TRIES)


def mlp_rule(seed):
    """An MLP rule that was trained for 200 runs of 100 steps on the perceptron's training."""
    family = mlutils.data.NetworkTraining(X, Y)
    keras.utils.set_random_seed(seed)
    rule = MLPRule()
    trainer = RuleTrainer(rule, family.values, steps=STEPS, truncation=20)
    rates = keras.optimizers.schedules.CosineDecay(5e-3, 5 * 200)
    trainer.compile(keras.optimizers.Adam(rates, global_clipnorm=1.0))
    trainer.fit(family.problems(functions=1, seed=1000 + seed), steps_per_epoch=200, verbose=0)
    return rule


def main():
    set_threads(1)
    begin = time.process_time()
    rules = {seed: mlp_rule(seed) for seed in (*SEEDS, *SEEDS_OF_TRIES[:1])}
    print(f"rules trained: {(time.process_time() - begin) / 60:.1f} minutes", flush=True)
    for_tries = rules.pop(SEEDS_OF_TRIES[0])
    lstm = mlutils.trained_rule("digits")
    results = {"command": "python -m benchmarks.optimizers", "tries": TRIES, "networks": {}}
    for network, make_network in NETWORKS.items():
        bench, table = Bench(make_network), {}
        budget = STEPS * bench.losses(learned(lstm), STEPS, SEEDS)[1]
        rows = SPACES | {
            "MLP rule, as it is": (learned(for_tries), {}),
            "MLP rule, tuned": (learned(for_tries), MULTIPLIER),
            "LSTM rule, as it is": (learned(lstm), {}),
            "LSTM rule, tuned": (learned(lstm), MULTIPLIER),
        }
        for name, (make, space) in rows.items():
            own = rules if name.startswith("MLP rule") else dict.fromkeys(SEEDS)
            search = bench.tuned(make, space, STEPS) if space else None
            setting = search.best() if search else {}
            curves, milliseconds = run(bench, make, setting, own, STEPS)
            row = {
                "setting": {k: float(f"{v:.3g}") for k, v in setting.items()},
                "at the edge": search.at_edge() if search else [],
                "ms per step": round(milliseconds, 3),
                "losses": [[rounded(x) for x in curve] for curve in curves],
            }
            if space:
                steps = max(10, round(budget / milliseconds))
                search = bench.tuned(make, space, steps)
                curves, _ = run(bench, make, search.best(), own, steps)
                row["in equal seconds"] = {
                    "steps": steps,
                    "setting": {k: float(f"{v:.3g}") for k, v in search.best().items()},
                    "at the edge": search.at_edge(),
                    "ends": [rounded(curve[-10:].mean()) for curve in curves],
                }
            table[name] = row
            ends = mlutils.Score(curves[:, -10:].mean(axis=1))
            print(f"{network:22} {name:20} {ends} {row | {'losses': '...'}}", flush=True)
        results["networks"][network] = table
        results["minutes of one core"] = round((time.process_time() - begin) / 60, 1)
        RESULTS.write_text(json.dumps(results) + "\n", encoding="utf-8")


def run(bench, make, setting, rules, steps):
    """The curves of the five seeds; where a rule was trained for each seed, with its own."""
    if None in rules.values():
        return bench.losses(lambda steps: make(steps, **setting), steps, SEEDS)
    found = [
        bench.losses(lambda steps, r=rule: learned(r)(steps, **setting), steps, [seed])
        for seed, rule in rules.items()
    ]
    return np.concatenate([curve for curve, _ in found]), min(ms for _, ms in found)


def rounded(value):
    """To three digits; null for what diverged."""
    return float(f"{value:.3g}") if np.isfinite(value) else None


if __name__ == "__main__":
    main()
