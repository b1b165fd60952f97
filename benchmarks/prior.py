"""A network that was fitted to a prior, on scikit-learn's own tables beside other classifiers.

    python -m benchmarks.prior

Takes about two minutes of one core, and writes mlutils/results/prior.json, in which ``scores`` has
for each classifier, table and number of training rows the ``accuracy``, ``loss`` (nats) and
``seconds`` of each of 30 splits, and ``reliability`` for each classifier and number of rows, over
all tables and splits, how many predictions were in each tenth of confidence, their summed
confidence, and how many of them were right.

Nothing is tuned on these tables.  A split has as many rows of each class as its share says, and the
same rows for all; at most 100 other rows are asked for.
"""

import json
import time
import warnings
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import numpy as np  # isort: skip
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RESULT = Path(mlutils.__file__).parent / "results" / "prior.json"
ROWS, SPLITS, LEAST = (20, 60), 30, 0.001


def tuned():
    return LogisticRegressionCV(cv=3, scoring="neg_log_loss", use_legacy_attributes=False)


RIVALS = {
    "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "logistic regression, tuned": lambda: make_pipeline(StandardScaler(), tuned()),
    "nearest neighbours": lambda: make_pipeline(StandardScaler(), KNeighborsClassifier()),
    "random forest": lambda: RandomForestClassifier(random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(random_state=0),
}
WITH_ALL_COLUMNS = ("logistic regression", "random forest")


def by_rival(make):
    def predict(x, y, query_x):
        return make().fit(x, y).predict_proba(query_x)

    return predict


def by_network():
    learner, _ = mlutils.stored_learner("prior-tables")

    def predict(x, y, query_x):
        return mlutils.class_probabilities(learner, x, y, query_x)

    return predict


def judged(predict, x, y, query_x, query_y):
    """Accuracy, loss, seconds, and the counts of ``reliability``."""
    start = time.process_time()
    p = predict(x, y, query_x)
    seconds = time.process_time() - start
    p = np.maximum(p, LEAST)
    p /= p.sum(axis=1, keepdims=True)
    right, sure = p.argmax(axis=1) == query_y, p.max(axis=1)
    loss = -np.log(p[np.arange(len(p)), query_y])
    bins = np.minimum((10 * sure).astype(int), 9)
    counts = [np.bincount(bins, w, minlength=10) for w in (np.ones_like(sure), sure, right)]
    return right.mean(), loss.mean(), seconds, np.array(counts)


def split(x, y, rows, seed):
    x, query_x, y, query_y = train_test_split(x, y, train_size=rows, stratify=y, random_state=seed)
    return x, y, query_x[:100], query_y[:100]


def run(predict, tables):
    scores, reliability = {}, {}
    for rows in ROWS:
        counts = np.zeros((3, 10))
        for name, (x, y) in tables.items():
            found = []
            for seed in range(SPLITS):
                *numbers, more = judged(predict, *split(x, y, rows, seed))
                counts += more
                found.append(numbers)
            columns = np.round(np.transpose(found), 4).tolist()
            scores[f"{name}, {rows}"] = dict(
                zip(("accuracy", "loss", "seconds"), columns, strict=True)
            )
        reliability[str(rows)] = np.round(counts, 2).tolist()
    return scores, reliability


def main():
    mlutils.setup(threads=1)
    warnings.filterwarnings("ignore", module="sklearn")  # of classes with fewer rows than folds
    start, tables, whole = time.process_time(), mlutils.small_tables(), mlutils.small_tables("all")
    wide = {name: table for name, table in whole.items() if table[0].shape != tables[name][0].shape}
    jobs = [("network", by_network(), tables)]
    jobs += [(name, by_rival(make), tables) for name, make in RIVALS.items()]
    jobs += [(f"{n}, all columns", by_rival(RIVALS[n]), wide) for n in WITH_ALL_COLUMNS]
    results = {"scores": {}, "reliability": {}}
    for name, predict, these in jobs:
        results["scores"][name], results["reliability"][name] = run(predict, these)
        means = [f"{np.mean(v['accuracy']):.3f}" for v in results["scores"][name].values()]
        print(name, *means, flush=True)
    minutes = round((time.process_time() - start) / 60, 1)
    record = {"command": "python -m benchmarks.prior", "minutes": minutes, **results}
    RESULT.write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
