"""Train the update rules that come with the package: python -m benchmarks.train_rules digits

Takes between ten minutes and half an hour on one core, and writes
mlutils/optimizer_based/trained/digits.keras.
"""

import sys
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip

FOLDER = Path(mlutils.__file__).parent / "optimizer_based" / "trained"


def train_on_digits(batches=3000):
    """An LSTM rule trained on training one network on scikit-learn's digits."""
    family = mlutils.data.NetworkTraining(*mlutils.data.digits())
    rule = mlutils.LSTMRule()
    trainer = mlutils.RuleTrainer(rule, family.values, steps=100, truncation=20, first_order=True)
    decay = keras.optimizers.schedules.CosineDecay(5e-3, 5 * batches)
    trainer.compile(keras.optimizers.Adam(decay, global_clipnorm=1.0))
    trainer.fit(
        family.problems(functions=1, seed=0),
        epochs=max(1, batches // 50),
        steps_per_epoch=min(50, batches),
        verbose=2,
    )
    return rule


RULES = {"digits": train_on_digits}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in RULES:
        sys.exit(f"Usage: python -m benchmarks.train_rules {'|'.join(RULES)}")
    mlutils.setup(seed=0, threads=1)
    RULES[sys.argv[1]]().save(FOLDER / f"{sys.argv[1]}.keras")
