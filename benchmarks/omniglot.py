"""Few-shot accuracy on Omniglot: each method by the recipe of its paper, cell by cell.

    python -m benchmarks.accuracy omniglot --method maml --ways 5 --shots 1    one training
    python -m benchmarks.accuracy omniglot --all [--minutes 60]                what is missing
    python -m benchmarks.accuracy omniglot --table                             the state

``--steps N`` and ``--alpha A`` with one training are tries: what would another length, or another
inner step size, give?

A method is trained on training classes alone.  After each twentieth of the training it is scored on
tasks of validation classes; the weights that were best there are tested, once, on 1,000 tasks of
test classes.  Each test writes a file into ``benchmarks/results/omniglot/``; one training may serve
several cells (``benchmarks/omniglot_recipes.py``).  With ``--protocol vinyals``, the default, the
classes are those of Vinyals et al., turned characters beside them; with ``--protocol lake`` a task
has characters of one alphabet, and the test classes are Lake's evaluation alphabets.  A training
that was cut off, by ``kill -9`` too, goes on where it was, from ``build/accuracy``; the weights of
its twenty parts stay there, and the command given again tests anew.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import platform
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from benchmarks import omniglot_recipes
from benchmarks.lake import HELD_OUT
from benchmarks.omniglot_recipes import RECIPES, SIZES
from mlutils.resume import fit_or_resume, read, restore

RESULTS = Path(__file__).parent / "results" / "omniglot"
RUNNING = Path("build/accuracy/omniglot")
PROTOCOLS = ("vinyals", "lake")
EPISODES, VALIDATION, PARTS = 1000, 100, 20
QUERIES = {5: 15, 20: 5}  # of each class at the test, by the ways
FEW = 5000  # queries that validate, where a task has few: 500 leave more than a point to chance


# ---------------------------------------------------------------- the data


@functools.cache
def characters(protocol):
    """Training, validation and test characters."""
    omniglot = mlutils.data.omniglot
    if protocol == "vinyals":
        return tuple(omniglot(part).turned() for part in ("train", "validation", "test"))
    background = omniglot("background")
    train = background.of_scripts(set(background.scripts) - set(HELD_OUT)).turned()
    return train, background.of_scripts(HELD_OUT), omniglot("evaluation")


def tasks_of(protocol, some, ways, shots, seed, queries=None):
    """Tasks to validate or to test on, four to a batch."""
    options = {"ways": ways, "meta_batch": 4, "seed": seed}
    if protocol == "lake":  # one person's drawings, then another's
        return mlutils.data.lake_runs(some, within=True, **options)
    return some.episodes(shots=shots, queries=queries or QUERIES[ways], **options)


# ---------------------------------------------------------------- one training, and its tests


class OutOfTime(Exception):
    """The minutes are over; what was trained is kept."""


class Watch(keras.callbacks.Callback):
    """Validates after each part, notes it in ``progress.json``, and says how long it will take."""

    def __init__(self, folder, validate, until):
        super().__init__()
        self.path, self.validate, self.until = folder / "progress.json", validate, until
        self.noted = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def on_epoch_begin(self, epoch, logs=None):
        if time.monotonic() > self.until:
            raise OutOfTime
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self.start
        accuracy = self.validate()
        note = {"seconds": seconds, "loss": logs["loss"], "validation": accuracy}
        note["with validation"] = time.monotonic() - self.start
        self.noted[str(epoch + 1)] = note
        write(self.path, self.noted)
        left = np.mean([n["with validation"] for n in self.noted.values()]) * (PARTS - epoch - 1)
        print(
            f"  {epoch + 1} of {PARTS}: loss {logs['loss']:.3f}, validation {accuracy:.1f} %, "
            f"about {left / 60:.0f} minutes left",
            flush=True,
        )


def run(method, ways, shots, seed=0, protocol="vinyals", until=float("inf"), **tried):
    """Train one recipe, choose by validation, test, and write the cells that it serves.

    With ``steps`` or an ``alpha`` of its own a training is a try, and its cells are among
    ``tries``.
    """
    train, validation, test = characters(protocol)
    sizes = [s for s in RECIPES[method].sizes(ways, shots) if protocol == "vinyals" or s[1] == 1]
    keras.utils.set_random_seed(seed)
    alpha = {k: v for k, v in tried.items() if k == "alpha"}
    training = RECIPES[method].make(train, ways, shots, seed, **alpha)
    training = training._replace(steps=tried.get("steps", training.steps))
    results, end = RESULTS / "tries" if tried else RESULTS, end_of(tried)
    hardest = max(sizes, key=lambda size: (size[0], -size[1]))
    name = f"{method}-{hardest[0]}w{hardest[1]}s-{protocol}-{seed}{end}"
    print(f"{name}: {training.steps} steps", flush=True)
    model, folder = training.model, RUNNING / name
    model.compile(training.optimizer(training.steps), training.loss)
    model(next(iter(training.data))[0])  # builds it
    label, first = next(iter(training.learners.items()))
    queries = training.queries.get(label)
    judged = tasks_of(protocol, validation, *hardest, 1, queries)
    enough = 0 if queries is None else FEW // (hardest[0] * queries)
    batches = max(VALIDATION, enough) // 4
    judged, number = list(judged.take(batches)), 4 * batches

    def score(learner, tasks, number):
        if learner is not model:
            learner.compile(loss=training.loss)
        return mlutils.evaluate(learner, tasks, number, "accuracy", **training.adapt)

    def validate():
        return round(100 * score(first(), judged, number).mean, 2)

    with alone_in(folder):
        notes, chosen = train_and_choose(training, folder, validate, until)
    seconds = sum(note["seconds"] for note in notes)
    batch = tf.nest.flatten(next(iter(training.data)))[0].shape
    episodes = None if method == "nearest-mean" else training.steps * batch[0]
    fixed = {} if training.alpha is None else {"alpha": training.alpha}
    common = {
        "command": f"python -m benchmarks.accuracy omniglot --method {method} --ways {ways} "
        f"--shots {shots} --seed {seed} --protocol {protocol}"
        + "".join(f" --{name} {value}" for name, value in tried.items()),
        "minutes": round(seconds / 60, 1),
        "config": {
            "steps": training.steps,
            **fixed,
            "episodes": episodes,
            "seconds per 1,000 episodes": episodes and round(1000 * seconds / episodes, 1),
            "weights": model.count_params(),
            "adapt": dict(training.adapt),
            "training": RECIPES[method].make.__doc__.splitlines()[0],
            "differs": training.differs,
            "validation": [note["validation"] for note in notes],
            "chosen part": chosen,
        },
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "machine": machine(),
    }
    for (n, k), (label, make) in itertools.product(sizes, training.learners.items()):
        tested = tasks_of(protocol, test, n, k, 2, training.queries.get(label))
        learner = make()
        result = score(learner, tested, EPISODES)
        cell = {"method": label, "protocol": protocol, "ways": n, "shots": k, "seed": seed}
        cell |= {"mean": round(100 * result.mean, 2), "ci95": round(100 * result.ci95, 2)}
        cell |= {"episodes": EPISODES, "transductive": learner.transductive}
        results.mkdir(parents=True, exist_ok=True)
        write(results / f"{file_of(label, n, k, protocol, seed)}{end}.json", cell | common)
        print(f"  {label}, {n}-way {k}-shot: {result}", flush=True)


def train_and_choose(training, folder, validate, until):
    """Train, or go on, and take the weights that were best on validation tasks.

    Returns:
        What was noted of each of the twenty parts, and which part's weights the model has now.
    """
    check_recipes(folder)
    watch = Watch(folder, validate, until)
    fit_or_resume(
        training.model,
        training.data,
        folder,
        epochs=PARTS,
        steps_per_epoch=training.steps // PARTS,
        keep=PARTS + 1,
        callbacks=[watch],
        verbose=0,
    )
    notes = [watch.noted[str(part)] for part in range(1, PARTS + 1)]
    chosen = 1 + int(np.argmax([note["validation"] for note in notes]))
    restore(training.model, read(folder / f"epoch-{chosen:04}.npz")["values"], folder)
    return notes, chosen


@contextlib.contextmanager
def alone_in(folder):
    """Raise if another process trains in a folder; a process that was killed holds it no more."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"Another process trains in {folder}.") from None
        yield


def check_recipes(folder):
    """Raise if the training in a folder was begun by other recipes than those of now."""
    files = omniglot_recipes.__file__, __file__
    now = hashlib.sha256(b"".join(Path(f).read_bytes() for f in files)).hexdigest()
    path = folder / "recipes.txt"
    if not path.exists():
        path.write_text(now, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != now:
        raise SystemExit(f"{folder} was begun by other recipes: delete it to begin anew.")


def file_of(learner, ways, shots, protocol, seed):
    """The name of a cell's file."""
    return (
        f"{learner.lower().replace(', ', '-').replace(' ', '-')}-{ways}w{shots}s-{protocol}-{seed}"
    )


def end_of(tried):
    """The end of a try's file name: "-500-alpha-2.0" with 500 steps and an alpha of 2."""
    steps, alpha = tried.get("steps"), tried.get("alpha")
    return (f"-{steps}" if steps else "") + (f"-alpha-{alpha}" if alpha else "")


def write(path, value):
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)


def machine():
    """What it runs on, without its name."""
    facts = {"cores": os.cpu_count(), "system": platform.system()}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return facts
    found = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    return facts | {
        "processor": found.get("model name"),
        "AVX-512": "avx512f" in found.get("flags", "").split(),
    }


# ---------------------------------------------------------------- the state of all cells


def missing(method, ways, shots, seed, protocol):
    """Whether a training has cells that no file holds."""
    names = [
        file_of(learner, *size, protocol, seed)
        for learner in RECIPES[method].learners
        for size in RECIPES[method].sizes(ways, shots)
        if protocol == "vinyals" or size[1] == 1
    ]
    return not all((RESULTS / f"{name}.json").exists() for name in names)


def run_all(seed, protocol, minutes):
    """All trainings that are missing, in the order of the sizes, then of the methods."""
    until = time.monotonic() + 60 * minutes
    for (ways, shots), method in itertools.product(SIZES, RECIPES):
        if (protocol == "vinyals" or shots == 1) and missing(method, ways, shots, seed, protocol):
            run(method, ways, shots, seed, protocol, until)
            keras.backend.clear_session()


def stored(folder=""):
    """All cells, or the "tries", by learner, ways, shots and protocol: a list over seeds."""
    cells = {}
    for path in sorted((RESULTS / folder).glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        key = cell["method"], cell["ways"], cell["shots"], cell["protocol"]
        cells.setdefault(key, []).append(cell)
    return cells


def print_table(protocol):
    cells = stored()
    print(" " * 40 + "".join(f"{f'{n}-way {k}-shot':>18}" for n, k in SIZES))
    for learner in itertools.chain.from_iterable(r.learners for r in RECIPES.values()):
        row = [cells.get((learner, n, k, protocol)) for n, k in SIZES]
        shown = [
            f"{np.mean([s['mean'] for s in c]):.1f} ({len(c)})" if c else "not run" for c in row
        ]
        print(f"{learner:40}" + "".join(f"{text:>18}" for text in shown))


# ---------------------------------------------------------------- the command


def add_options(parser):
    parser.add_argument("--method", choices=RECIPES)
    parser.add_argument("--ways", type=int, choices=sorted(QUERIES))
    parser.add_argument("--shots", type=int, choices=(1, 5))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="vinyals")
    parser.add_argument("--steps", type=int, help="a try with another length, stored apart")
    parser.add_argument("--alpha", type=float, help="a try with another inner step size")
    parser.add_argument("--all", action="store_true", help="train and test what is missing")
    parser.add_argument("--table", action="store_true", help="show what there is")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="then stop; go on later"
    )


def main(parser, arguments):
    one = [arguments.method, arguments.ways, arguments.shots]
    if [all(one), arguments.all, arguments.table].count(True) != 1 or any(one) != all(one):
        parser.error("give --method with --ways and --shots, or --all, or --table")
    if arguments.steps is not None and (
        not all(one) or arguments.steps < 1 or arguments.steps % PARTS
    ):
        parser.error(f"--steps is for one training, and a multiple of {PARTS}")
    if arguments.alpha is not None and not (
        all(one) and RECIPES[arguments.method].alpha and arguments.alpha > 0
    ):
        some = ", ".join(name for name, recipe in RECIPES.items() if recipe.alpha)
        parser.error(f"--alpha is for one training of {some}, and positive")
    if arguments.protocol == "lake" and arguments.shots == 5:
        parser.error("within an alphabet one person's drawings are the support set: --shots 1")
    if arguments.table:
        return print_table(arguments.protocol)
    try:
        if arguments.all:
            run_all(arguments.seed, arguments.protocol, arguments.minutes)
        else:
            until = time.monotonic() + 60 * arguments.minutes
            tried = {"steps": arguments.steps, "alpha": arguments.alpha}
            tried = {name: value for name, value in tried.items() if value is not None}
            run(*one, arguments.seed, arguments.protocol, until, **tried)
    except OutOfTime:
        print("The minutes are over; the same command goes on from here.")
