"""Births per woman in held-out countries: MAML and a conditional neural process, tuned alike.

    python -m benchmarks.tables            # both parts
    python -m benchmarks.tables forecasts  # one of "ranking" and "forecasts" anew

**Ranking.**  A task is a country of ``statsmodels.datasets.fertility``; from K random years the
births per woman of 20 other years are predicted, K = 3, 5 and 10.  Both learners are trained on
support sets of 3 to 10 years and tuned on validation countries with 12 tries: six over the whole
range, and two near the best for each K.  Then five seeds are trained with each of the best settings
and tested on the test countries, on the same 10 support sets of each as the page's rivals.

**Forecasts.**  From 10 random years among the first 32 the last 20 are predicted: by learners
trained as above, with the best setting for K = 10, and by learners trained on such forecasts, with
the same settings; five seeds each.

Writes ``mlutils/results/tables.json``, which ``chapters/practice/your-own-tables`` shows: for each
learner and K the setting, what of it lies at an end of its range, the validation error after half
of the training and after all of it, the test error of each seed, and that of each country, a mean
over seeds; the same two of each learner's forecasts, by what it was trained on.  Errors are in
births per woman: roots of mean squares within a country, and means of these over countries.
"""

import json
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf
from statsmodels.datasets import fertility

from mlutils import MAML, ConditionalNeuralProcess, gaussian_nll, mlp
from mlutils.session import set_threads

RESULTS = Path(mlutils.__file__).parent / "results" / "tables.json"
SHOTS, QUERIES, DRAWS = (3, 5, 10), 20, 10
STEPS = {"MAML": 4000, "neural process": 8000}  # about equally long
TRIES, SEEDS = 12, 5
# Rows of the table that are means of other rows.
AGGREGATES = (
    "Latin America & Caribbean (all income levels)",
    "OECD members",
    "Other small states",
    "Pacific island small states",
    "Sub-Saharan Africa (IFC classification)",
)
SPACES = {
    "MAML": {"rate": (3e-4, 1e-2, "log"), "inner_lr": (0.01, 0.5, "log")},
    "neural process": {"rate": (3e-4, 1e-2, "log"), "smallest": (0.003, 0.1, "log")},
}


def countries():
    """Training, validation and test countries, scaled by the first."""
    wide = fertility.load_pandas().data
    wide = wide[~wide["Country Name"].isin(AGGREGATES)]
    years = [str(year) for year in range(1960, 2012)]
    rows = wide.melt("Country Name", years, "year", "births")
    rows["year"] = rows["year"].astype(float)
    options = {"task": "Country Name", "inputs": ["year"], "target": "births"}
    return mlutils.data.table(rows, **options, missing="drop").at_least(40).split()


def learner_of(name, rate, inner_lr=None, smallest=None):
    if name == "MAML":
        learner, loss = MAML(mlp(1), inner_lr=inner_lr, inner_steps=5), "mse"
    else:
        networks = mlp(2, (64, 64), 64), mlp(65, (64, 64), 2)
        learner, loss = ConditionalNeuralProcess(*networks, smallest), gaussian_nll
    learner.compile(keras.optimizers.Adam(rate), loss, steps_per_execution=100)
    return learner


def train(parts, name, seed, tasks=None, **setting):
    """A learner, and its validation errors after half of the steps and after all."""
    keras.utils.set_random_seed(seed)
    learner, along = learner_of(name, **setting), []
    if tasks is None:
        tasks = parts[0].episodes(shots=(SHOTS[0], SHOTS[-1]), queries=QUERIES, seed=seed)

    def judge(epoch, logs):
        along.append([errors(learner, parts[1], shots).mean() for shots in SHOTS])

    watch = keras.callbacks.LambdaCallback(on_epoch_end=judge)
    learner.fit(tasks, epochs=2, steps_per_epoch=STEPS[name] // 2, callbacks=[watch], verbose=0)
    return learner, along


def errors(learner, part, shots):
    """The typical error in each country of a part, births per woman."""
    tasks = part.episodes(shots, QUERIES, meta_batch=None, seed=1).take(DRAWS)
    squares = [
        tf.reduce_mean((learner(inputs)[..., :1] - query_y) ** 2, axis=(1, 2))
        for inputs, query_y in tasks
    ]
    return part.scaling.y_spread * np.sqrt(np.mean(squares, axis=0, dtype=np.float64))


def forecasts(part, meta_batch=None, seed=0):
    """Endless batches: for each country 10 of the first 32 years, and then the last 20."""
    whole = part.at_least(52)
    x = np.float32(part.scaling.scale_x(whole.x)).reshape(-1, 52, 1)
    y = np.float32(part.scaling.scale_y(whole.y)).reshape(-1, 52, 1)
    random = np.random.default_rng(seed)
    while True:
        tasks = (
            np.arange(len(y)) if meta_batch is None else random.integers(len(y), size=meta_batch)
        )
        early = random.permuted(np.tile(np.arange(32), (len(tasks), 1)), axis=1)[:, :10, None]
        known = (np.take_along_axis(values[tasks], early, axis=1) for values in (x, y))
        yield (*known, x[tasks, 32:]), y[tasks, 32:]


def forecast_errors(learner, part):
    """As ``errors``, of forecasts."""
    squares = [
        tf.reduce_mean((learner(inputs)[..., :1] - query_y) ** 2, axis=(1, 2))
        for (inputs, query_y), _ in zip(forecasts(part), range(DRAWS), strict=False)
    ]
    return part.scaling.y_spread * np.sqrt(np.mean(squares, axis=0, dtype=np.float64))


def ranking(parts, stored):
    found = {}
    for name, space in SPACES.items():
        tuning = mlutils.tune(
            lambda name=name, **setting: train(parts, name, 100, **setting)[1][-1],
            space,
            tries=TRIES,
        )
        for objective, shots in enumerate(SHOTS):
            setting = tuning.best(objective)
            runs = [train(parts, name, seed, **setting) for seed in range(SEEDS)]
            along = np.mean([along for _, along in runs], axis=0)[:, objective]
            found.setdefault(name, {})[str(shots)] = {
                "setting": {key: float(f"{value:.3g}") for key, value in setting.items()},
                "at_edge": tuning.at_edge(objective),
                "validation": np.round(along, 4).tolist(),
                **summary([errors(learner, parts[2], shots) for learner, _ in runs]),
            }
            print(name, shots, found[name][str(shots)], flush=True)
    return {"learners": found}


def after_forecasts(parts, stored):
    found = {}
    signature = parts[0].episodes(10, QUERIES, meta_batch=16).element_spec
    for name, by_shots in stored["learners"].items():
        setting = by_shots["10"]["setting"]
        for practised in ("random years", "forecasts"):
            tested = []
            for seed in range(SEEDS):
                tasks = None
                if practised == "forecasts":
                    tasks = tf.data.Dataset.from_generator(
                        lambda seed=seed: forecasts(parts[0], 16, seed + 1),
                        output_signature=signature,
                    )
                learner, _ = train(parts, name, seed, tasks, **setting)
                tested.append(forecast_errors(learner, parts[2]))
            found.setdefault(name, {})[practised] = summary(tested)
            print(name, practised, found[name][practised], flush=True)
    return {"forecasts": found}


PARTS = {"ranking": ranking, "forecasts": after_forecasts}


def summary(tested):
    """Of errors (seeds, countries)."""
    return {
        "by_seed": np.round(np.mean(tested, axis=1), 4).tolist(),
        "by_country": np.round(np.mean(tested, axis=0), 4).tolist(),
    }


def main(chosen):
    set_threads(1)
    parts = countries()
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in chosen:
        start = time.monotonic()
        stored |= PARTS[name](parts, stored)
        minutes = round((time.monotonic() - start) / 60, 1)
        stored["minutes_of"] = stored.get("minutes_of", {}) | {name: minutes}
        stored |= {
            "command": "python -m benchmarks.tables",
            "minutes": round(sum(stored["minutes_of"].values()), 1),
            "tries": TRIES,
            "countries": list(parts[2].names),
        }
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:] or PARTS)
