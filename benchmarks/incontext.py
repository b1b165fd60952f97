"""Transformers that are meta-trained on linear regression, for ``chapters/beyond/in-context``.

    python -m benchmarks.incontext linear      tasks without a common mean, 4 features
    python -m benchmarks.incontext parlours    the ice-cream parlours of the first chapter
    python -m benchmarks.incontext pools       pools of 1 to 4,096 training tasks, several seeds

The first two write a network and how it was trained, ``mlutils/beyond/trained/in-context-NAME``,
``.keras`` and ``.json``; in the latter ``validation`` is the mean squared error along sequences of
new tasks after each twentieth of the training, and ``bayes`` that of the Bayes predictor.

The last makes the runs that are not there yet and writes ``mlutils/results/incontext.json``: for
each pool and seed, and for that of 16 tasks also after a longer training, mean squared errors along
sequences of the pool's tasks and of new ones, beside those of the Bayes predictors of both worlds
(``ridge`` of all tasks, ``pool`` of the pool's), and the mean squared distance of the network's
predictions to theirs.  Training sees tasks of the pool alone.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from benchmarks import portable
from mlutils import pool_along, ridge_along
from mlutils.beyond.stored import FOLDER
from mlutils.data import LinearGaussian
from mlutils.data.plumbing.pipeline import endless
from mlutils.session import set_threads

DIRECTION = [1, -1, 1, 1, -1, 1, -1, -1]
FAMILIES = {
    "linear": lambda: LinearGaussian(np.zeros(4), spread=1.0, noise=0.5),
    "parlours": lambda: LinearGaussian(0.9**0.5 * np.array(DIRECTION), 0.1**0.5, noise=0.5),
}
LENGTH, META_BATCH, PARTS = 12, 32, 20
STEPS = {"linear": 16000, "parlours": 6000}
FEATURES, NOISE, POOLS, SEEDS = 4, 0.5, (1, 4, 16, 64, 256, 1024, 4096), 3
SHORT, LONG = 1500, 12000  # steps on all pools, and on that of 16 tasks
RESULTS = Path(mlutils.__file__).parent / "results" / "incontext.json"


def transformer(features, units, blocks, heads=4):
    nothing = keras.Sequential([keras.Input((features,)), keras.layers.Identity()])
    return mlutils.ContextTransformer(nothing, 1, units=units, heads=heads, blocks=blocks)


def sequences(family, meta_batch, seed):
    """Endless batches ``((x, y), y)``: each y is predicted before it is read."""
    tasks = family.episodes(shots=LENGTH, queries=1, meta_batch=meta_batch, seed=seed)
    return tasks.map(lambda inputs, _: (inputs[:2], inputs[1]))


def compiled(learner, steps):
    rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
    learner.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0), "mse", steps_per_execution=50, jit_compile=True
    )
    return learner


def train(name):
    keras.utils.set_random_seed(0)
    family, steps, start = FAMILIES[name](), STEPS[name], time.process_time()
    judged = next(iter(sequences(family, meta_batch=1000, seed=99)))
    learner = compiled(transformer(family.mean.size, units=32, blocks=3), steps)
    learner(judged[0])  # builds it
    history = learner.fit(
        sequences(family, META_BATCH, seed=0),
        steps_per_epoch=steps // PARTS,
        epochs=PARTS,
        validation_data=judged,
        validation_batch_size=1000,
        verbose=2,
    )
    portable.save(learner, FOLDER / f"in-context-{name}.keras")
    (x, y), _ = judged
    shift = x.numpy() @ family.mean[:, np.newaxis]  # what the belief explains
    bayes = shift + ridge_along(x, y - shift, (family.noise / family.spread) ** 2)
    record = {
        "command": f"python -m benchmarks.incontext {name}",
        "minutes": round((time.process_time() - start) / 60, 1),
        "steps": steps,
        "tasks": steps * META_BATCH,
        "bayes": apart(bayes, y),
        "validation": [round(loss, 4) for loss in history.history["val_loss"]],
    }
    write(FOLDER / f"in-context-{name}.json", record)


def pool_sequences(pool, meta_batch, seed):
    """Endless batches as of ``sequences``, of tasks drawn from the rows of a pool."""
    pool = tf.constant(pool, tf.float32)

    def sample(draws):
        theta = tf.gather(pool, tf.cast(draws.uniform((meta_batch,)) * len(pool), tf.int32))
        x = draws.normal((meta_batch, LENGTH, FEATURES))
        y = x @ theta[..., tf.newaxis] + NOISE * draws.normal((meta_batch, LENGTH, 1))
        return (x, y), y

    return endless(sample, seed)


def train_on_pools():
    """All runs that are not stored yet."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"runs": []}
    done = [(run["steps"], run["pool"], run["seed"]) for run in stored["runs"]]
    spent = stored.get("minutes", 0)
    start = time.process_time()
    for steps, sizes in (SHORT, POOLS), (LONG, [16]):
        learner = compiled(transformer(FEATURES, units=32, blocks=2), steps)
        for seed, size in itertools.product(range(SEEDS), sizes):
            if (steps, size, seed) in done:
                continue
            stored["runs"].append(one_pool(learner, steps, size, seed))
            stored["minutes"] = round(spent + (time.process_time() - start) / 60, 1)
            stored["command"] = "python -m benchmarks.incontext pools"
            write(RESULTS, stored)


def one_pool(learner, steps, size, seed):
    """Train the learner anew, on the first tasks of the seed's pool, and measure it."""
    everything = np.random.default_rng(seed).normal(size=(POOLS[-1] + 2000, FEATURES))
    pool, new = everything[:size], everything[POOLS[-1] :]
    keras.utils.set_random_seed(seed)
    learner.set_weights(transformer(FEATURES, units=32, blocks=2).get_weights())
    for variable in learner.optimizer.variables:
        variable.assign(tf.zeros_like(variable))
    history = learner.fit(
        pool_sequences(pool, META_BATCH, seed), steps_per_epoch=steps // 10, epochs=10, verbose=2
    )
    return {
        "steps": steps,
        "pool": size,
        "seed": seed,
        "training": [round(loss, 4) for loss in history.history["loss"]],
        "own": measured(learner, pool, pool),
        "new": measured(learner, new, pool),
    }


def measured(learner, tasks, pool):
    """Errors along 1,000 sequences of these tasks, and distances to both Bayes predictors."""
    (x, y), _ = next(iter(pool_sequences(tasks, 1000, seed=99)))
    found, ridge = learner.predict_sequence(x, y), ridge_along(x, y, NOISE**2)
    of_pool = pool_along(x, y, pool, NOISE)
    return {
        "error": apart(found, y),
        "error of ridge": apart(ridge, y),
        "error of pool": apart(of_pool, y),
        "to ridge": apart(found, ridge),
        "to pool": apart(found, of_pool),
        "between": apart(ridge, of_pool),
    }


def apart(a, b):
    return round(float(np.mean((np.asarray(a) - np.asarray(b)) ** 2)), 4)


def write(path, result):
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    set_threads(1)
    train_on_pools() if sys.argv[1] == "pools" else train(sys.argv[1])
