"""What opens the gate of a memory-augmented network, and whether it helps.

    python -m benchmarks.memory_gate

The gate of a MANN says whether it writes where it read last, or in the row used least.  Here the
same network is trained along sequences in several ways, each changed in one respect only, one
training each: of 5 or 20 classes; in stages of more and more classes, or at once; with a gate that
begins open; with one that is held shut.  After each twentieth of the training its mean gate and its
accuracy at the first two presentations of a class are measured on sequences of the validation
scripts.

Writes ``mlutils/results/memory_gate.json``, which ``chapters/few_shot/memory`` shows.
"""

import json
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.train_few_shot import FEATURES, FIVE, LOSS, TWENTY, mann, sequences
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "memory_gate.json"
STEPS, PARTS, META_BATCH = 10_000, 20, 16
AT_ONCE = [(20, 2, 1.0)]

# For each row: how many names, the stages of training, and what is done to the gate.
ROWS = {
    "5 classes": (5, FIVE, None),
    "5 classes, gate begins open": (5, FIVE, "open"),
    "20 classes at once": (20, AT_ONCE, None),
    "20 classes, in stages": (20, TWENTY, None),
    "20 classes, in stages, gate held shut": (20, TWENTY, "shut"),
}


def run(ways, stages, gate, embedded, labels):
    keras.utils.set_random_seed(0)
    learner = mann(keras.Sequential([keras.Input((FEATURES,)), layers.Identity()]), ways)
    cell = learner.memory.cell
    if gate == "open":
        cell.gate.bias.assign([2.0])  # sigmoid(2) = .88
    if gate == "shut":
        cell.gate.kernel.assign(tf.zeros_like(cell.gate.kernel))
        cell.gate.bias.assign([-30.0])
        cell.gate.trainable = False
    rate = keras.optimizers.schedules.CosineDecay(3e-3, STEPS)
    learner.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0), LOSS, steps_per_execution=50, jit_compile=True
    )
    shots = stages[-1][1]
    tests = list(sequences(embedded[1], labels[1], ways, shots, ways, 100, seed=99).take(4))
    found = []
    for number, (classes, own_shots, share) in enumerate(stages):
        tasks = sequences(embedded[0], labels[0], classes, own_shots, ways, META_BATCH, seed=number)
        parts = round(share * PARTS)
        learner.fit(
            tasks,
            steps_per_epoch=STEPS // PARTS,
            epochs=parts,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda *_: found.append(measured(learner, tests, ways))
                )
            ],
        )
    return {
        "gate": [m[0] for m in found],
        "accuracy at presentations 1, 2": [m[1] for m in found],
    }


def measured(learner, tests, ways):
    """The mean gate along sequences, and the accuracy at the first two presentations."""
    cell, gates, right = learner.memory.cell, [], []
    for (x, y), _ in tests:
        guesses, y = np.argmax(learner((x, y)), axis=-1), y.numpy()
        seen = np.cumsum(np.eye(ways)[y], axis=1)
        nth = np.take_along_axis(seen, y[..., None], 2)[..., 0]
        right.append([(guesses == y)[nth == k].mean() for k in (1, 2)])
        state, before = cell.get_initial_state(len(y)), tf.zeros((len(y), ways))
        for t in range(y.shape[1]):
            _, state = cell(tf.concat([x[:, t], before], axis=1), state)
            gates.append(float(tf.reduce_mean(cell.gate(state[0]))))
            before = tf.one_hot(y[:, t], ways)
    return round(float(np.mean(gates)), 4), np.mean(right, axis=0).round(3).tolist()


def main():
    set_threads(1)
    encoder, _ = mlutils.trained_learner("encoder")
    sets = mlutils.data.glyphs("train"), mlutils.data.glyphs("validation")
    scaled = [s.x / np.float32(255) for s in sets]
    embedded = [encoder.predict(x, batch_size=1000, verbose=0) for x in scaled]
    start, rows = time.process_time(), {}
    for name, row in ROWS.items():
        rows[name] = run(*row, embedded, [s.y for s in sets])
        print(name, rows[name], flush=True)
        result = {
            "command": "python -m benchmarks.memory_gate",
            "minutes of one core": round((time.process_time() - start) / 60, 1),
            "steps": STEPS,
            "rows": rows,
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
