"""Learners of bandits, trained by policy gradient from several seeds, and where they break.

    python -m benchmarks.bandits

``bernoulli`` learners are trained on two uniform Bernoulli arms and 20 pulls, ``informative`` ones
on ``InformativeArm()`` and 5 pulls.  The others are controls of the latter: ``myopic`` credits each
pull with its own reward only, ``no entropy`` has no bonus for staying undecided.  Each is then
measured: its regret at each pull, the mean over ever new tasks, on what it was trained on, and for
``bernoulli`` on other priors and in longer runs.

Writes ``mlutils/results/bandits.json``, which ``chapters/beyond/learning-while-acting`` shows, and
the learners of the first seed to ``mlutils/beyond/trained``.
"""

import json
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np

from benchmarks import portable
from mlutils import BanditLearner, BernoulliArms, InformativeArm, train_bandit_learner
from mlutils.session import set_threads

PACKAGE = Path(mlutils.__file__).parent
RESULTS, TRAINED = PACKAGE / "results" / "bandits.json", PACKAGE / "beyond" / "trained"
TASKS = 40_000
UNIFORM = BernoulliArms(arms=2)

# What is trained: family, pulls, options of the training; and how often.
TRAININGS = {
    "bernoulli": (UNIFORM, 20, {"steps": 1200}),
    "informative": (InformativeArm(), 5, {"steps": 8000, "entropy": 2.0}),
    "myopic": (InformativeArm(), 5, {"steps": 8000, "entropy": 2.0, "credit": lambda x: x}),
    "no entropy": (InformativeArm(), 5, {"steps": 8000}),
}
SEEDS = {"bernoulli": 5, "informative": 3, "myopic": 2, "no entropy": 1}
# What the Bernoulli learners are measured on besides: family, pulls.
ELSEWHERE = {
    "Beta(5, 1)": (BernoulliArms(2, prior=(5, 1)), 20),
    "Beta(1, 5)": (BernoulliArms(2, prior=(1, 5)), 20),
    "Beta(10, 10)": (BernoulliArms(2, prior=(10, 10)), 20),
    "50 pulls": (UNIFORM, 50),
    "200 pulls": (UNIFORM, 200),
}


def measured(learner, family, pulls, seed, tasks=TASKS):
    """The regret at each pull, and the error of the whole run's: over ever new tasks."""
    found = []
    for part in range(tasks // 10_000):
        batch = family.draw(10_000, seed=10_000 + 100 * seed + part)
        arms, _ = learner.play(family, batch, pulls, seed=20_000 + 100 * seed + part)
        found.append(family.regrets(batch, arms).numpy())
    found = np.concatenate(found)
    return {
        "regret": found.mean(axis=0).round(5).tolist(),
        "ci95": round(float(1.96 * found.sum(axis=1).std() / len(found) ** 0.5), 4),
    }


def run(name, seed):
    """Train a learner.  Returns it, and what is stored of it."""
    family, pulls, options = TRAININGS[name]
    keras.utils.set_random_seed(seed)
    learner, start = BanditLearner(family.arms), time.process_time()
    trained = train_bandit_learner(learner, family, pulls, seed=seed, **options)
    parts = trained.reshape(20, -1).mean(axis=1)
    entry = {
        "minutes": round((time.process_time() - start) / 60, 2),
        "in training": parts.round(4).tolist(),
        "itself": measured(learner, family, pulls, seed),
    }
    if name == "bernoulli":
        for place, (other, longer) in ELSEWHERE.items():
            entry[place] = measured(learner, other, longer, seed, TASKS if longer < 60 else 10_000)
    else:
        arms, _ = learner.play(family, family.draw(10_000, seed=1), pulls, seed=2)
        entry["informative arm first"] = float(np.mean(arms[:, 0] == family.ordinary))
    return learner, entry


def keep(learner, name, entry):
    """The learner of the first seed, for the page."""
    _, pulls, options = TRAININGS[name]
    portable.save(learner, TRAINED / f"bandit-{name}.keras")
    record = {"command": "python -m benchmarks.bandits", "minutes": entry["minutes"]}
    record |= {"pulls": pulls, "tasks": 256 * options["steps"]}
    text = json.dumps(record, indent=1) + "\n"
    (TRAINED / f"bandit-{name}.json").write_text(text, encoding="utf-8")


def exact(pulls):
    """What policies earn in longer runs on two uniform arms."""
    best = mlutils.optimal_policy(UNIFORM)
    others = {"greedy": mlutils.greedy_policy, "thompson": mlutils.thompson_policy}
    return {
        "optimal": round(float(best.values(UNIFORM.start, pulls).max()), 4),
        **{
            name: round(float(mlutils.expected_rewards(UNIFORM, make(UNIFORM), pulls).sum()), 4)
            for name, make in others.items()
        },
    }


def main():
    set_threads(1)
    start, rows = time.process_time(), {}
    result = {"command": "python -m benchmarks.bandits", "exact, 50 pulls": exact(50)}
    for name, seeds in SEEDS.items():
        rows[name] = []
        for seed in range(seeds):
            learner, entry = run(name, seed)
            rows[name].append(entry)
            print(name, seed, entry["in training"][-1], sum(entry["itself"]["regret"]), flush=True)
            if seed == 0 and name in ("bernoulli", "informative"):
                keep(learner, name, entry)
        result |= {"minutes": round((time.process_time() - start) / 60, 1), "rows": rows}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
