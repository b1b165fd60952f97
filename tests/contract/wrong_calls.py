"""A table of wrong calls over the whole public API, and what comes of each.

A user's mistake should raise, at once, a short ``ValueError`` or ``TypeError`` that names the
argument, what came or what is allowed.  ``outcome`` says whether it does:

    clear     such an error
    buried    the right words, in an error that is long or TensorFlow's own
    unclear   another exception
    accepted  no exception, and finite numbers
    nan       no exception, and numbers that are not finite
    hang      nothing within ``SECONDS``

``python -m tests.contract.wrong_calls [words]`` prints the outcomes of all calls, or of those whose
names hold the words.  Nothing here is a matter of taste: what a learner could as well allow is no
row of the table.
"""

import collections
import contextlib
import functools
import io
import os
import re
import resource
import signal
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import mlutils

import keras  # isort: skip
import numpy as np
import tensorflow as tf

from mlutils import (
    ANIL,
    CLIP,
    DAP,
    ESZSL,
    MAML,
    MANN,
    AdamRule,
    BatchNorm,
    ConditionalNeuralProcess,
    ContextTransformer,
    ContrastiveLoss,
    DescribedPrototypes,
    DeViSE,
    Episode,
    HingeRankLoss,
    InfoNCE,
    LearnedOptimizer,
    LinearAttention,
    LSTMRule,
    MatchingNetwork,
    MetaSGD,
    MLPRule,
    ModifiedHausdorff,
    MomentumRule,
    PairCrossEntropy,
    PriorFittedNetwork,
    ProtoMAML,
    PrototypicalNetwork,
    RecurrentLearner,
    RelationNetwork,
    Reptile,
    RuleTrainer,
    Score,
    SiameseNetwork,
    SplitScore,
    StepSize,
    UpdateRule,
    data,
    iMAML,
    run_optimizer,
    unroll,
)
from mlutils.evaluation import score
from mlutils.few_shot.mann import MemoryCell
from mlutils.one_shot import AverageOverViews, moved, randomly_moved
from mlutils.optimizer_based import log_and_sign, step_weights
from tests.contract.learners import ATTRIBUTES, LEARNERS, WAYS, compiled, element, network

# ------------------------------------------------------------------ what comes of a call

SECONDS = 20
CHARACTERS, LINES = 700, 6
LONG = ("in user code", "Traceback", "Arguments received by", "{{node", "[Op:", "{{function_node")
REFUSALS = (ValueError, TypeError)
OUTCOMES = ("clear", "buried", "unclear", "accepted", "nan", "hang")


class Call(NamedTuple):
    """A wrong call.

    Attributes:
        kind: of mistake.
        name: what is called, and with what.
        words: a regular expression that the message must match, in upper or lower case.
        run: makes the call.
        errors: the exceptions that are allowed.
    """

    kind: str
    name: str
    words: str
    run: object
    errors: tuple

    def __str__(self):
        return f"{self.kind}: {self.name}"


class TookTooLong(BaseException):
    """Nothing within ``SECONDS``; no ``Exception``, which somebody might catch."""


def outcome(call):
    """What comes of a call: one of ``OUTCOMES``, and the message or what was returned."""
    try:
        with guarded():
            finite = all(np.isfinite(values).all() for values in numbers(call.run()))
    except TookTooLong:
        return "hang", f"nothing within {SECONDS} s"
    except Exception as error:
        message = str(error)
        if not re.search(call.words, message, re.DOTALL | re.IGNORECASE):
            return "unclear", f"{type(error).__name__}: {message}"
        short = len(message) <= CHARACTERS and message.count("\n") < LINES
        short = short and not any(mark in message for mark in LONG)
        right = isinstance(error, call.errors)
        if right and short:
            return "clear", message
        buried = right or isinstance(error, (tf.errors.OpError, *REFUSALS))
        return "buried" if buried else "unclear", f"{type(error).__name__}: {message}"
    return ("accepted", "no error") if finite else ("nan", "no error, and not finite")


@contextlib.contextmanager
def guarded():
    """A limit of time and of memory, nothing printed and no warnings."""

    def stop(*_):
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + 6 * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def numbers(result):
    """The arrays of floats in what a call returned; of a dataset, in its first element."""
    if isinstance(result, tf.data.Dataset):
        result = next(iter(result))
    for value in tf.nest.flatten(result):
        if isinstance(value, Score):
            value = value.values
        if isinstance(value, keras.Model):
            yield from value.get_weights()
        elif isinstance(value, (float, np.ndarray, np.floating)) or tf.is_tensor(value):
            value = np.asarray(value)
            if value.dtype.kind in "fc":
                yield value


# ------------------------------------------------------------------ writing rows

CALLS = []


def section(kind):
    """Rows that follow are of this kind of mistake, but for those that say otherwise."""
    section.kind = kind


def wrong(name, words, run, errors=REFUSALS, kind=None):
    """One row of the table."""
    CALLS.append(Call(kind or section.kind, name, words, run, errors))


def each(name, words, call, values, errors=REFUSALS, kind=None):
    """A row for each value: values are a dict from a description, or are described by ``repr``."""
    values = values if isinstance(values, dict) else {repr(v): v for v in values}
    for description, value in values.items():
        of_value = functools.partial(call, value)
        wrong(f"{name} given {description}", words, of_value, errors, kind)


def every(*words):
    """A regular expression for texts that hold all of these, in any order."""
    return "".join(f"(?=.*(?:{w}))" for w in words)


def argument(name):
    """The argument that a row's name has in brackets, as a regular expression."""
    found = re.search(r"\((\w+)\)", name)[1]
    return rf"\b{found}\b"


def counts(name, call, least=1, more=()):
    """Not an integer of at least ``least``.  The argument stands in brackets in the name."""
    each(name, argument(name), call, [least - 1, least + 1.5, True, *more], kind="counts")


def rates(name, call, more=()):
    """Not a finite number of at least 0."""
    each(name, argument(name), call, [-1, np.nan, "fast", True, *more], kind="numbers")


def positives(name, call, more=()):
    """Not a finite positive number."""
    each(name, argument(name), call, [0, np.nan, "1", True, *more], kind="numbers")


def shares(name, call):
    """Not a number from 0 to 1, 1 excluded."""
    each(name, argument(name), call, [-0.1, 1.0, np.nan, "1", True], kind="numbers")


def flags(name, call):
    """Neither True nor False."""
    each(name, argument(name), call, ["no", 1, 0.5, None], kind="flags")


def options(name, call, values):
    """None of what may be chosen from."""
    each(name, argument(name), call, values, kind="options")


def seeds(name, call):
    """Not an integer from 0 to 2**32 - 1."""
    each(name, argument(name), call, [-1, 2**32, "1"], kind="seeds")


# ------------------------------------------------------------------ what is right, to be spoilt

PARTS = ("support_x", "support_y", "query_x", "query_y")


@functools.cache
def right_batch(kind):
    """Two tasks as a dict of their four parts."""
    inputs, query_y = element(kind, tasks=2)
    return dict(zip(PARTS, (*inputs, query_y), strict=True))


@functools.cache
def learner(name):
    """A learner of the table, compiled, which nobody trains."""
    return compiled(LEARNERS[name])


@functools.cache
def predictor(name):
    """What it predicts with after a task."""
    parts = right_batch(LEARNERS[name].kind)
    return learner(name).adapt(parts["support_x"][0], parts["support_y"][0])


def fresh(name, **compile_options):
    """A learner of the table, compiled, that may be trained."""
    return compiled(LEARNERS[name], **compile_options)


@functools.cache
def net(**sizes):
    """A small network, which nobody trains."""
    return network(**sizes)


def encoder_of(make, *arguments, **options):
    """A learner of a small network and these arguments."""
    return make(net(), *arguments, **options)


# ------------------------------------------------------------------ doors for data
# Each takes a learner's name, and a batch of tasks as a dict of four parts.


def adapt_door(name, parts):
    return learner(name).adapt(parts["support_x"], parts["support_y"])


def predict_door(name, parts):
    return predictor(name)(parts["query_x"])


def adapted_model_door(name, parts):
    return learner(name).adapted_model(parts["support_x"], parts["support_y"])(parts["query_x"])


def call_door(name, parts):
    return learner(name)(inputs_of(parts))


def fit_door(name, parts):
    trained = fresh(name)
    trained.fit(inputs_of(parts), parts["query_y"], verbose=0)
    return trained


def dataset_door(name, parts):
    dataset = tf.data.Dataset.from_tensors((inputs_of(parts), parts["query_y"]))
    trained = fresh(name)
    trained.fit(dataset, verbose=0)
    return trained


def xla_door(name, parts):
    dataset = tf.data.Dataset.from_tensors((inputs_of(parts), parts["query_y"]))
    trained = fresh(name, jit_compile=True)
    trained.fit(dataset, verbose=0)
    return trained


def keras_evaluate_door(name, parts):
    return learner(name).evaluate(inputs_of(parts), parts["query_y"], verbose=0)


def keras_predict_door(name, parts):
    return learner(name).predict(inputs_of(parts), verbose=0)


def loss_door(name, parts):
    return learner(name).meta_loss((inputs_of(parts), parts["query_y"]))


def gradients_door(name, parts):
    return learner(name).meta_gradients((inputs_of(parts), parts["query_y"]))


def score_door(name, parts):
    batches = [(inputs_of(parts), parts["query_y"])]
    return mlutils.evaluate(learner(name), batches, tasks=2)


def controls_door(name, parts):
    batches = [(inputs_of(parts), parts["query_y"])]
    return mlutils.controls(learner(name), batches, tasks=2, scratch_steps=1)


def inputs_of(parts):
    return parts["support_x"], parts["support_y"], parts["query_x"]


DOORS = {
    "adapt": adapt_door,
    "its predictor": predict_door,
    "adapted_model": adapted_model_door,
    "call": call_door,
    "fit": fit_door,
    "fit on a dataset": dataset_door,
    "fit by XLA": xla_door,
    "Keras's evaluate": keras_evaluate_door,
    "Keras's predict": keras_predict_door,
    "meta_loss": loss_door,
    "meta_gradients": gradients_door,
    "evaluate": score_door,
    "controls": controls_door,
}
ONE_TASK = ("adapt", "its predictor", "adapted_model")
NAMES = {  # zero-shot learners have signatures, Hausdorff drawings; Keras counts samples
    "support_x": "support_x|signature|attribute|drawings|'x' sizes",
    "support_y": "support_y|label|targets|'x' sizes",
    "query_x": "query_x|queries|query inputs|drawings|'x' sizes",
    "query_y": "query_y|query labels|targets|labels|'y' sizes",
}


def through(door, name, part, change):
    """Hand in a right batch of tasks, of which one part is changed, at a door."""
    parts = dict(right_batch(LEARNERS[name].kind))
    if door in ONE_TASK:
        parts = {key: value[0] for key, value in parts.items()}
    parts[part] = change(parts[part])
    return DOORS[door](name, parts)


def spoilt(kind, door, name, part, changes):
    """Rows of one part changed in many ways, a dict from a description to (change, what came)."""
    for description, (change, came) in changes.items():
        run = functools.partial(through, door, name, part, change)
        words = every(NAMES[part], came)
        wrong(f"{name}, {door}, {part} is {description}", words, run, kind=kind)


def some(changes, *names):
    return {name: changes[name] for name in names}


# ------------------------------------------------------------------ inputs

NO_ARRAYS = {
    "None": (lambda x: None, "None"),
    "a dict": (lambda x: {"x": x}, "dict"),
    "a ragged list": (lambda x: [[1.0, 2.0], [3.0]], "list|ragged|shape|length"),
    "a ragged tensor": (lambda x: tf.ragged.constant([[1.0, 2.0], [3.0]]), "ragged"),
    "a sparse tensor": (tf.sparse.from_dense, "sparse"),
    "an array of objects": (lambda x: np.full(x.shape, None), "object|None|numbers"),
    "strings": (lambda x: x.astype(str), "str|<U"),
    "complex numbers": (lambda x: x + 1j, "complex"),
    "a function": (lambda x: len, "function|builtin|callable"),
}
WRONG_SHAPES = {
    "one number": (lambda x: np.float32(1), "shape"),
    "without its inner axis": (lambda x: x[..., 0], "shape"),
    "with an inner axis more": (lambda x: x[..., np.newaxis], "shape"),
    "longer inside": (lambda x: np.concatenate([x, x[..., :1]], -1), "shape"),
    "shorter inside": (lambda x: x[..., :1], "shape"),
}
ONE_EXAMPLE = {"one example": (lambda x: x[0], "shape|got float32")}
MORE_AXES = {"a batch of tasks": (lambda x: np.stack([x, x]), "shape|got float32")}
EMPTY = {"empty": (lambda x: x[:0], "shape|empty|at least|examples")}
EMPTY_IN_BATCH = {"empty": (lambda x: x[:, :0], "shape|empty|at least|examples")}
OTHER_NUMBER_OF_TASKS = {"of another number of tasks": (lambda x: x[:1], "shape|tasks|samples")}


def with_value(value):
    def change(x):
        x = np.array(x)
        x.flat[1] = value
        return x

    return change


NOT_FINITE = {
    "NaN in one place": (with_value(np.nan), "nan|finite|missing"),
    "inf in one place": (with_value(np.inf), "inf|finite"),
}

# One learner of each family, and whatever is no array.
for chosen in ("MAML", "prototypical", "neural process", "Hausdorff", "DeViSE"):
    spoilt("inputs", "adapt", chosen, "support_x", {**NO_ARRAYS, **ONE_EXAMPLE, **EMPTY})
    spoilt("inputs", "its predictor", chosen, "query_x", {**NO_ARRAYS, **EMPTY})

# Every learner, and arrays of a wrong shape or with a missing number.
VARIANTS = ("a loop of 8 steps", "first order", "learned step size", "LSTM")
for chosen in LEARNERS:
    if chosen.endswith(VARIANTS):
        continue
    shapes = dict(MORE_AXES)
    if chosen != "Hausdorff":
        shapes |= some(WRONG_SHAPES, "longer inside")
    spoilt("shapes", "adapt", chosen, "support_x", shapes)
    spoilt("shapes", "its predictor", chosen, "query_x", {**shapes, **ONE_EXAMPLE})
    missing = some(NOT_FINITE, "NaN in one place")
    spoilt("not finite", "adapt", chosen, "support_x", missing)
    spoilt("not finite", "its predictor", chosen, "query_x", missing)

# The model of what was adapted to; MAML's is a plain one, at whose input Keras stands.
for chosen in ("MAML", "prototypical", "neural process", "DeViSE", "Hausdorff"):
    spoilt("inputs", "adapted_model", chosen, "support_x", some(NO_ARRAYS, "None", "strings"))
    spoilt("shapes", "adapted_model", chosen, "support_x", MORE_AXES)
    spoilt("not finite", "adapted_model", chosen, "support_x", some(NOT_FINITE, "NaN in one place"))
    if chosen != "MAML":
        spoilt("inputs", "adapted_model", chosen, "query_x", some(NO_ARRAYS, "None", "strings"))
    if chosen not in ("MAML", "Hausdorff"):
        spoilt("shapes", "adapted_model", chosen, "query_x", {**MORE_AXES, **ONE_EXAMPLE})

# The other doors.
FEW_NO_ARRAYS = some(NO_ARRAYS, "None", "a ragged list", "strings")
for chosen in ("MAML, numbers", "prototypical"):
    for at in ("call", "fit", "Keras's evaluate", "Keras's predict", "meta_loss", "evaluate"):
        for which in ("support_x", "query_x"):
            spoilt("inputs", at, chosen, which, FEW_NO_ARRAYS)
            spoilt("shapes", at, chosen, which, some(WRONG_SHAPES, "longer inside"))
            spoilt("shapes", at, chosen, which, OTHER_NUMBER_OF_TASKS)
            spoilt("not finite", at, chosen, which, some(NOT_FINITE, "NaN in one place"))
            if at in ("call", "fit", "evaluate"):
                spoilt("shapes", at, chosen, which, EMPTY_IN_BATCH)
                spoilt("inputs", at, chosen, which, some(NO_ARRAYS, "complex numbers"))
for chosen in ("ANIL", "recurrent", "neural process", "DeViSE"):
    for at in ("call", "meta_gradients"):
        for which in ("support_x", "query_x"):
            spoilt("shapes", at, chosen, which, some(WRONG_SHAPES, "one number", "shorter inside"))
            spoilt("not finite", at, chosen, which, some(NOT_FINITE, "NaN in one place"))
for at in ("fit on a dataset", "fit by XLA"):
    for chosen in ("MAML", "prototypical", "recurrent"):
        for which in ("support_x", "query_x"):
            spoilt("shapes", at, chosen, which, some(WRONG_SHAPES, "longer inside"))
    for odd in ("a ragged tensor", "a sparse tensor", "strings"):
        spoilt("inputs", at, "prototypical", "query_x", some(NO_ARRAYS, odd))
for which in ("support_x", "query_x"):
    spoilt("inputs", "controls", "prototypical", which, some(NO_ARRAYS, "None", "strings"))
    spoilt("not finite", "controls", "MAML", which, some(NOT_FINITE, "NaN in one place"))

# ------------------------------------------------------------------ labels and targets


def one_label(new):
    """The labels with ``new`` in the place of every 2."""
    return lambda y: np.where(y == 2, np.int64(new), y.astype(np.int64))


NO_LABELS = {
    "strings": (lambda y: y.astype(str), "str|<U"),
    "floats": (lambda y: y.astype("float32"), "float|integer"),
    "bools": (lambda y: y > 0, "bool|integer"),
    "complex numbers": (lambda y: y + 1j, "complex|integer"),
}
WRONG_LABELS = {
    "negative": (one_label(-1), "-1|allowed|0 ?\\.\\."),
    "too high": (one_label(7), "7|allowed|0 ?\\.\\."),
    "2**32 + 1 in one place": (one_label(2**32 + 1), "429496729|allowed|0 ?\\.\\."),
    "10**9 in one place": (one_label(10**9), "10{9}|allowed|0 ?\\.\\."),
}
ONE_MISSING = {"without a 1": (lambda y: np.where(y == 1, 0, y), "every class|missing|none of")}
ONE_HOT = {"one-hot": (lambda y: np.eye(WAYS, dtype="float32")[y], "shape")}
TOO_FEW = {"one too few": (lambda y: y[:-1], "shape")}
ONE_FOR_ALL = {"one for all": (lambda y: y[:1], "shape")}
SCALAR = {"one number": (lambda y: np.int32(0), "shape")}

for chosen in ("prototypical", "Hausdorff", "DeViSE"):
    wrongs = {**NO_LABELS, **WRONG_LABELS, **ONE_MISSING, **ONE_HOT, **TOO_FEW, **SCALAR}
    spoilt("support labels", "adapt", chosen, "support_y", wrongs)
for chosen in ("Siamese", "relation", "matching", "described prototypes", "DAP"):
    wrongs = {**some(NO_LABELS, "floats"), **some(WRONG_LABELS, "negative"), **ONE_MISSING}
    spoilt("support labels", "adapt", chosen, "support_y", wrongs)
wrongs = {**NO_LABELS, **WRONG_LABELS, **ONE_HOT, **TOO_FEW, **ONE_FOR_ALL}
spoilt("support labels", "adapt", "MAML", "support_y", wrongs)
wrongs = {**NO_LABELS, **WRONG_LABELS, **TOO_FEW, **SCALAR}
spoilt("support labels", "adapt", "recurrent", "support_y", wrongs)
for chosen in ("Reptile", "ANIL", "iMAML", "MANN", "transformer"):
    wrongs = some({**NO_LABELS, **WRONG_LABELS}, "floats", "negative", "too high")
    spoilt("support labels", "adapt", chosen, "support_y", wrongs)
for chosen in ("MAML", "prototypical", "recurrent"):
    spoilt("support labels", "adapt", chosen, "support_y", some(NO_ARRAYS, "None", "a dict"))
    for at in ("call", "fit", "meta_gradients", "evaluate"):
        wrongs = some({**NO_LABELS, **WRONG_LABELS}, "strings", "floats", "too high")
        spoilt("support labels", at, chosen, "support_y", wrongs)
for chosen, at, what in (
    ("MAML", "fit on a dataset", "too high"),
    ("MAML", "fit by XLA", "too high"),
    ("recurrent", "fit on a dataset", "negative"),
    ("prototypical", "fit on a dataset", "2**32 + 1 in one place"),
    ("prototypical", "fit on a dataset", "negative"),
    ("prototypical", "fit by XLA", "too high"),
):
    spoilt("support labels", at, chosen, "support_y", some(WRONG_LABELS, what))
for at in ("call", "fit", "fit on a dataset", "fit by XLA", "evaluate"):
    spoilt("support labels", at, "prototypical", "support_y", ONE_MISSING)

QUERY_LABELS = {
    **NO_LABELS,
    **some(WRONG_LABELS, "negative", "too high", "2**32 + 1 in one place"),
    "one for all": (lambda y: y[:, :1], "shape"),
    "one task's": (lambda y: y[:1], "shape|tasks|samples"),
    "one too few": (lambda y: y[:, :-1], "shape"),
    "None": (lambda y: None, "None"),
}
for chosen in ("MAML", "prototypical"):
    for at in ("fit", "meta_loss", "evaluate"):
        spoilt("query labels", at, chosen, "query_y", QUERY_LABELS)
for chosen in ("Siamese", "relation", "recurrent", "Reptile", "transformer", "DeViSE"):
    few = some(QUERY_LABELS, "too high", "floats", "one for all")
    spoilt("query labels", "meta_gradients", chosen, "query_y", few)
    spoilt("query labels", "evaluate", chosen, "query_y", some(QUERY_LABELS, "too high"))
for chosen in ("MAML", "prototypical"):
    few = some(QUERY_LABELS, "too high", "one for all", "floats")
    spoilt("query labels", "Keras's evaluate", chosen, "query_y", few)
    for at in ("fit on a dataset", "fit by XLA"):
        spoilt("query labels", at, chosen, "query_y", some(few, "one for all", "floats"))
spoilt("query labels", "fit on a dataset", "MAML", "query_y", some(QUERY_LABELS, "too high"))
few = some(QUERY_LABELS, "too high", "floats")
spoilt("query labels", "fit by XLA", "prototypical", "query_y", some(few, "too high"))
spoilt("query labels", "controls", "prototypical", "query_y", few)

TARGETS = {
    "strings": (lambda y: y.astype(str), "str|<U"),
    "complex numbers": (lambda y: y + 1j, "complex"),
    "without its inner axis": (lambda y: y[..., 0], "shape"),
    "shorter inside": (lambda y: y[..., :2], "shape"),
    "one too few": (lambda y: y[..., :-1, :], "shape"),
    "one for all": (lambda y: y[..., :1, :], "shape"),
    **NOT_FINITE,
}
for chosen in ("MAML, numbers", "neural process"):
    in_adapt = {name: change for name, change in TARGETS.items() if "for all" not in name}
    spoilt("targets", "adapt", chosen, "support_y", {**in_adapt, **ONE_FOR_ALL})
    for at in ("fit", "meta_loss", "evaluate"):
        spoilt("targets", at, chosen, "query_y", TARGETS)
    spoilt("targets", "fit on a dataset", chosen, "query_y", some(TARGETS, "one for all"))
    spoilt("targets", "Keras's evaluate", chosen, "query_y", some(TARGETS, "one for all"))

# ------------------------------------------------------------------ something else than an episode


def episode_of(kind="classes"):
    return Episode(*right_batch(kind).values())


NO_TASKS = {
    "None": lambda e: None,
    "a number": lambda e: 3,
    "a dict": lambda e: e._asdict(),
    "two tensors": lambda e: (e.support_x, e.support_y),
    "four tensors": lambda e: tuple(e),
    "one tensor": lambda e: e.query_x,
    "an empty tuple": lambda e: (),
}
A_TASK = "support_x|episode|query_y"
section("structure")
each("a learner", A_TASK, lambda f: learner("MAML")(f(episode_of())), NO_TASKS)
each("a metric learner", A_TASK, lambda f: learner("prototypical")(f(episode_of())), NO_TASKS)
NO_EPISODES = {**NO_TASKS, "inputs without query_y": lambda e: e.element[0]}
each("meta_loss", A_TASK, lambda f: learner("prototypical").meta_loss(f(episode_of())), NO_EPISODES)
each("Episode.from_element", A_TASK, Episode.from_element, [None, 3, (1, 2), "task", {}])
each(
    "evaluate of a list",
    A_TASK,
    lambda f: mlutils.evaluate(learner("prototypical"), [f(episode_of())], tasks=2),
    NO_EPISODES,
)


def fit_elements(change, name="prototypical", **fit_options):
    trained = fresh(name)
    elements = tf.data.Dataset.from_tensors(change(episode_of(LEARNERS[name].kind)))
    trained.fit(elements, verbose=0, **fit_options)
    return trained


ELEMENTS = {
    "four tensors": lambda e: tuple(e),
    "two tensors": lambda e: (e.support_x, e.support_y),
    "a dict": lambda e: dict(e._asdict()),
    "one tensor": lambda e: e.query_x,
    "inputs without query_y": lambda e: (e.element[0],),
    "inputs of two": lambda e: ((e.support_x, e.support_y), e.query_y),
}
each("fit on elements", A_TASK, fit_elements, ELEMENTS)
each(
    "MAML's fit on elements",
    A_TASK,
    functools.partial(fit_elements, name="MAML"),
    some(ELEMENTS, "four tensors", "a dict", "inputs of two"),
)
each(
    "Keras's evaluate on elements",
    A_TASK,
    lambda f: learner("prototypical").evaluate(
        tf.data.Dataset.from_tensors(f(episode_of())), verbose=0
    ),
    some(ELEMENTS, "four tensors", "two tensors", "a dict"),
)
each(
    "Keras's predict on elements",
    A_TASK,
    lambda f: learner("prototypical").predict(
        tf.data.Dataset.from_tensors(f(episode_of())), verbose=0
    ),
    some(ELEMENTS, "one tensor", "a dict"),
)
each(
    "fit on arrays",
    A_TASK,
    lambda f: fresh("prototypical").fit(*f(episode_of()), verbose=0),
    {
        "nothing": lambda e: (),
        "inputs without query_y": lambda e: (e.element[0],),
        "support set alone": lambda e: (e.support_x, e.support_y),
        "a dict": lambda e: (dict(e._asdict()), e.query_y),
    },
)

# ------------------------------------------------------------------ sequences


def sequence(change_x=lambda x: x, change_y=lambda y: y):
    parts = right_batch("classes")
    x, y = change_x(parts["support_x"]), change_y(parts["support_y"])
    return learner("recurrent").predict_sequence(x, y)


SEQUENCES = {
    **FEW_NO_ARRAYS,
    **some(WRONG_SHAPES, "longer inside", "one number"),
    **EMPTY_IN_BATCH,
    **OTHER_NUMBER_OF_TASKS,
    **NOT_FINITE,
}
section("sequences")
for wrong_sequence, (spoil, came) in SEQUENCES.items():
    wrong(
        f"predict_sequence, x is {wrong_sequence}",
        every(r"\bx\b|inputs|sequences|support_x", came),
        functools.partial(sequence, spoil),
    )
for wrong_sequence, (spoil, came) in {
    **NO_LABELS,
    **WRONG_LABELS,
    "one too few": (lambda y: y[:, :-1], "shape"),
    "None": (lambda y: None, "None"),
}.items():
    wrong(
        f"predict_sequence, y is {wrong_sequence}",
        every(r"\by\b|labels|support_y", came),
        functools.partial(sequence, change_y=spoil),
    )
wrong(
    "predict_sequence of a learner that is not delayed",
    "delayed",
    lambda: RecurrentLearner(net(), WAYS, units=2, delayed=False).predict_sequence(
        *element("classes", tasks=2)[0][:2]
    ),
)


def attention(part, change):
    parts = {key: value[0] for key, value in right_batch("classes").items()}
    parts[part] = change(parts[part])
    return learner("transformer").attention(*inputs_of(parts))


for which in ("support_x", "query_x"):
    for described, (spoil, came) in {
        **some(NO_ARRAYS, "None", "strings"),
        **some(WRONG_SHAPES, "longer inside"),
        **MORE_AXES,
    }.items():
        wrong(
            f"attention, {which} is {described}",
            every(which, came),
            functools.partial(attention, which, spoil),
        )

# ------------------------------------------------------------------ zero shots


def zero_shot_examples():
    """Inputs, classes and signatures that DAP, too, can be fitted on."""
    signatures = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]], "float32")
    x = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")
    return {"x": x, "y": np.arange(12) % 4, "signatures": signatures}


ZERO_SHOT = {
    "DAP": lambda: DAP(net(), ATTRIBUTES),
    "ESZSL": lambda: ESZSL(net(), ATTRIBUTES),
    "DeViSE": lambda: fresh("DeViSE"),
    "described prototypes": lambda: fresh("described prototypes"),
}


def zero_shot_fit(name, part, change, **fit_options):
    examples = zero_shot_examples()
    examples[part] = change(examples[part])
    fitted = ZERO_SHOT[name]()
    fitted.fit(*examples.values(), **fit_options)
    return fitted


ZERO_SHOT_X = {
    **FEW_NO_ARRAYS,
    **some(NO_ARRAYS, "a dict", "an array of objects"),
    **some(WRONG_SHAPES, "one number", "longer inside", "without its inner axis"),
    **EMPTY,
    **TOO_FEW,
    **NOT_FINITE,
}
ZERO_SHOT_Y = {
    **NO_LABELS,
    "None": (lambda y: None, "None|integer|shape"),
    "negative": (lambda y: y - 1, "-1|without"),
    "too high": (lambda y: y + 1, "4"),
    "without a 1": (lambda y: np.where(y == 1, 0, y), "1"),
    "one-hot": (lambda y: np.eye(4)[y], "shape|integer"),
}
SIGNATURES = {
    **FEW_NO_ARRAYS,
    "shorter inside": (lambda s: s[:, :3], "shape"),
    "one row": (lambda s: s[0], "shape"),
    "empty": (lambda s: s[:0], "shape|empty"),
    "too few": (lambda s: s[:3], "3"),
    "too many": (lambda s: np.concatenate([s, s[:1]]), "4"),
    "one the same for all": (lambda s: s * [0, 1, 1, 1], "0"),
    **NOT_FINITE,
}
del SIGNATURES["None"]  # without signatures fit is Keras's
section("zero shots")
for part, arrays in (("x", ZERO_SHOT_X), ("y", ZERO_SHOT_Y), ("signatures", SIGNATURES)):
    called = {"x": r"\bx\b|inputs?|examples", "y": r"\by\b|class|labels"}.get(
        part, "signature|attribute"
    )
    for described, (spoil, came) in arrays.items():
        for chosen in ZERO_SHOT if described in ("longer inside", "floats") else ("ESZSL",):
            wrong(
                f"{chosen}.fit, {part} is {described}",
                every(called, came),
                functools.partial(zero_shot_fit, chosen, part, spoil),
            )
wrong(
    "DAP.fit, signatures are neither 0 nor 1",
    "0 or 1",
    lambda: zero_shot_fit("DAP", "signatures", lambda s: s / 2),
)
for chosen in ("DAP", "ESZSL"):
    each(
        f"{chosen} without fit",
        "fitted|fit\\(",
        lambda signatures, chosen=chosen: ZERO_SHOT[chosen]().adapt(signatures),
        {"signatures": np.eye(4, dtype="float32")},
    )
counts(
    "DeViSE.fit(batch_size)",
    lambda v: zero_shot_fit("DeViSE", "x", lambda x: x, batch_size=v, verbose=0),
)
each(
    "DeViSE.fit with signatures",
    "weight",
    lambda options: zero_shot_fit("DeViSE", "x", lambda x: x, verbose=0, **options),
    {"class_weight": {"class_weight": {0: 2.0}}, "sample_weight": {"sample_weight": np.ones(12)}},
)
each(
    "adapt(signatures)",
    "signature|attribute|support_x",
    lambda signatures: learner("DeViSE").adapt(signatures),
    {
        "None": None,
        "a row": np.ones(ATTRIBUTES, "float32"),
        "a wrong length": np.ones((3, 2), "float32"),
        "no row": np.ones((0, ATTRIBUTES), "float32"),
        "a missing number": np.full((3, ATTRIBUTES), np.nan, "float32"),
        "strings": np.full((3, ATTRIBUTES), "yes"),
    },
)

Y, SCORES, SEEN = np.array([0, 1, 2]), np.eye(3), np.array([True, True, False])
MEASURES = {
    "class_accuracy": lambda y=Y, scores=SCORES: mlutils.class_accuracy(y, scores),
    "generalized_accuracy": lambda y=Y, scores=SCORES, seen=SEEN: mlutils.generalized_accuracy(
        y, scores, seen
    ),
    "seen_unseen_curve": lambda y=Y, scores=SCORES, seen=SEEN: mlutils.seen_unseen_curve(
        y, scores, seen
    ),
    "calibrated": lambda scores=SCORES, seen=SEEN, gamma=0.0: mlutils.calibrated(
        scores, seen, gamma
    ),
}
for chosen, measure in MEASURES.items():
    if chosen != "calibrated":
        each(
            f"{chosen}(y)",
            r"\by\b",
            measure,
            {
                "None": None,
                "floats": Y / 1.0,
                "strings": Y.astype(str),
                "negative": Y - 1,
                "too high": Y + 1,
                "too few": Y[:-1],
                "none": Y[:0],
                "bools": Y > 0,
            },
        )
    each(
        f"{chosen}(scores)",
        "scores",
        lambda scores, measure=measure: measure(scores=scores),
        {
            "None": None,
            "one row": SCORES[0],
            "too few": SCORES[:2] if chosen != "calibrated" else SCORES[..., np.newaxis],
            "strings": SCORES.astype(str),
            "complex numbers": SCORES + 1j,
        },
    )
    if chosen != "class_accuracy":
        each(
            f"{chosen}(seen)",
            "seen",
            lambda seen, measure=measure: measure(seen=seen),
            {"numbers": [0, 1], "too few": SEEN[:2], "None": None, "integers": [1, 1, 0]},
        )
section("numbers")
each(
    "calibrated(gamma)",
    "gamma",
    lambda v: MEASURES["calibrated"](gamma=v),
    [np.nan, np.inf, "1", True, None],
)
section("zero shots")
for described, part in {"seen": [1, 1, 1], "unseen": [0, 0, 0]}.items():
    wrong(
        f"seen_unseen_curve of {described} classes only",
        "both|seen",
        functools.partial(MEASURES["seen_unseen_curve"], seen=np.array(part, bool)),
    )
wrong(
    "seen_unseen_curve with a score that is missing",
    "finite",
    lambda: MEASURES["seen_unseen_curve"](scores=SCORES * np.nan),
)
section("numbers")
each(
    "harmonic_mean(seen)",
    r"\bseen\b",
    lambda v: mlutils.harmonic_mean(v, 0.5),
    [-0.1, np.nan, np.inf, "1", True, None],
)
each(
    "harmonic_mean(unseen)",
    r"\bunseen\b",
    lambda v: mlutils.harmonic_mean(0.5, v),
    [-0.1, np.nan, [0.5]],
)
section("keywords")

# ------------------------------------------------------------------ counts and numbers of learners

counts("MAML(inner_steps)", lambda v: MAML(net(), inner_steps=v), least=0, more=(None,))
counts("ANIL(inner_steps)", lambda v: ANIL(net(), inner_steps=v), least=0)
counts("MetaSGD(inner_steps)", lambda v: MetaSGD(net(), inner_steps=v), least=0)
counts("iMAML(inner_steps)", lambda v: iMAML(net(), inner_steps=v), least=0)
counts("iMAML(cg_steps)", lambda v: iMAML(net(), cg_steps=v), more=(None,))
counts("Reptile(inner_steps)", lambda v: Reptile(net(), inner_steps=v))
counts("Reptile(batch_size)", lambda v: Reptile(net(), batch_size=v))
for chosen in ("MAML", "iMAML"):
    counts(
        f"{chosen}.adapt(steps)",
        lambda v, chosen=chosen: learner(chosen).adapt(
            *(value[0] for value in element("classes", tasks=1)[0][:2]), steps=v
        ),
        least=0,
    )
counts(
    "MAML.adapted_model(steps)",
    lambda v: learner("MAML").adapted_model(
        *(value[0] for value in element("classes", tasks=1)[0][:2]), steps=v
    ),
    least=0,
)
counts(
    "MAML's call(steps)",
    lambda v: learner("MAML")(inputs_of(right_batch("classes")), steps=v),
    least=0,
)
counts(
    "evaluate(steps)",
    lambda v: mlutils.evaluate(learner("MAML"), [episode_of()], tasks=2, steps=v),
    least=0,
)
seeds("Reptile(seed)", lambda v: Reptile(net(), seed=v))
for make in (MAML, ANIL, MetaSGD, iMAML, ProtoMAML, Reptile):
    rates(
        f"{make.__name__}(inner_lr)",
        lambda v, make=make: make(net(), inner_lr=v),
        more=(None, [0.1]) if make is MAML else (),
    )
positives("iMAML(strength)", lambda v: iMAML(net(), strength=v))
positives("PrototypicalNetwork(scale)", lambda v: PrototypicalNetwork(net(), scale=v))
positives("ProtoMAML(scale)", lambda v: ProtoMAML(net(), scale=v))
positives("MatchingNetwork(scale)", lambda v: MatchingNetwork(net(), scale=v), more=(None,))
positives(
    "DescribedPrototypes(scale)",
    lambda v: DescribedPrototypes(net(), net(inputs=ATTRIBUTES), scale=v),
)
positives("CLIP(scale)", lambda v: CLIP(net(), net(inputs=ATTRIBUTES), scale=v))
rates("ModifiedHausdorff(threshold)", lambda v: ModifiedHausdorff(threshold=v), more=(None,))
positives("ContrastiveLoss(margin)", lambda v: ContrastiveLoss(v), more=(None,))
positives("HingeRankLoss(margin)", lambda v: HingeRankLoss(v))
positives("DAP(C)", lambda v: DAP(net(), ATTRIBUTES, C=v))
positives("ESZSL(gamma)", lambda v: ESZSL(net(), ATTRIBUTES, gamma=v))
positives("ESZSL(lam)", lambda v: ESZSL(net(), ATTRIBUTES, lam=v))
for make in (DAP, ESZSL, DeViSE):
    counts(f"{make.__name__}(attributes)", functools.partial(encoder_of, make))
section("numbers")
each(
    "ConditionalNeuralProcess(smallest)",
    "smallest",
    lambda v: ConditionalNeuralProcess(net(inputs=5), net(inputs=5, outputs=6), v),
    [0, 1, -0.5, np.nan, "0.1", True, None],
)

for make in (RecurrentLearner, MANN, ContextTransformer):
    counts(f"{make.__name__}(outputs)", functools.partial(encoder_of, make), more=(None,))
    counts(f"{make.__name__}(units)", lambda v, make=make: make(net(), WAYS, units=v))
for size in ("slots", "width", "heads"):
    counts(f"MANN({size})", lambda v, size=size: MANN(net(), WAYS, units=2, **{size: v}))
    counts(f"MemoryCell({size})", lambda v, size=size: MemoryCell(2, **{size: v}))
for size in ("heads", "blocks"):
    counts(
        f"ContextTransformer({size})",
        lambda v, size=size: ContextTransformer(net(), WAYS, units=4, **{size: v}),
    )
for size in ("features", "layers"):
    counts(
        f"LinearAttention({size})",
        lambda v, size=size: LinearAttention(**{"features": 2, size: v}),
    )
rates("LinearAttention(step)", lambda v: LinearAttention(2, step=v), more=(None,))
each(
    "MANN(decay)",
    "decay",
    lambda v: MANN(net(), WAYS, units=2, decay=v),
    [-0.1, 1.1, np.nan, "1", True, None],
)
section("counts")
each("MANN(heads), with 2 slots,", "heads", lambda v: MANN(net(), WAYS, 2, 2, heads=v), [3])
each(
    "ContextTransformer(heads), with 4 units,",
    "heads",
    lambda v: ContextTransformer(net(), WAYS, units=4, heads=v),
    [3],
)
options(
    "PrototypicalNetwork(distance)",
    lambda v: PrototypicalNetwork(net(), distance=v),
    ["cosines", "", None, 2, ["cosine"]],
)
options(
    "SiameseNetwork(comparison)",
    lambda v: SiameseNetwork(net(), comparison=v),
    ["l1", None, 1, ["weighted"]],
)
each("ANIL(head)", "head|layer", lambda v: ANIL(net(), head=v), ["last", 3, ""])
options(
    "RecurrentLearner(cell)",
    lambda v: RecurrentLearner(net(), WAYS, units=2, cell=v),
    {
        "a string": "lstm",
        "a layer": keras.layers.Dense(2),
        "a class": keras.layers.LSTMCell,
        "a number": 3,
    },
)
options(
    "trained_learner(name)", mlutils.trained_learner, ["proto", "../record", None, 5, ["matching"]]
)
options("stored_result(name)", mlutils.stored_result, ["results", "../contest", None, 1])
options("trained_rule(name)", mlutils.trained_rule, ["glyphs", None, 0, ["digits"]])

# ------------------------------------------------------------------ flags

for make in (MAML, ANIL, MetaSGD):
    flags(f"{make.__name__}(first_order)", lambda v, make=make: make(net(), first_order=v))
    flags(f"{make.__name__}(recompute)", lambda v, make=make: make(net(), recompute=v))
for make in (MAML, ANIL, MetaSGD, iMAML, ProtoMAML, Reptile):
    flags(f"{make.__name__}(transductive)", lambda v, make=make: make(net(), transductive=v))
flags("RecurrentLearner(delayed)", lambda v: RecurrentLearner(net(), WAYS, units=2, delayed=v))
flags("Quadratics(rotated)", lambda v: data.Quadratics(2, rotated=v))
flags("lake_runs(within)", lambda v: data.lake_runs(characters(), ways=2, within=v))
flags("Score(percent)", lambda v: Score([0.5], percent=v))
flags("conv4(norm)", lambda v: mlutils.conv4((16, 16, 1), filters=1, norm=v))
flags("unroll(first_order)", lambda v: unroll(StepSize(), bowl, THETA, 1, first_order=v))
flags("RuleTrainer(first_order)", lambda v: RuleTrainer(StepSize(), bowl, 2, first_order=v))
for name in ("first_order", "recompute"):
    flags(
        f"descend({name})",
        lambda v, name=name: mlutils.descend(
            StepSize(), bowl_of_list, [tf.ones(2)], 1, **{name: v}
        ),
    )
wrong(
    "descend(recompute, record)",
    "recompute",
    lambda: mlutils.descend(
        StepSize(),
        bowl_of_list,
        [tf.ones(2)],
        9,
        record=tf.TensorArray(tf.float32, 9),
        recompute=True,
    ),
)

# ------------------------------------------------------------------ keywords that there are not

MAKERS = {
    "MAML": lambda **o: MAML(net(), **o),
    "MetaSGD": lambda **o: MetaSGD(net(), **o),
    "ANIL": lambda **o: ANIL(net(), **o),
    "iMAML": lambda **o: iMAML(net(), **o),
    "Reptile": lambda **o: Reptile(net(), **o),
    "PrototypicalNetwork": lambda **o: PrototypicalNetwork(net(), **o),
    "MatchingNetwork": lambda **o: MatchingNetwork(net(), **o),
    "RelationNetwork": lambda **o: RelationNetwork(net(), net(inputs=6, outputs=1), **o),
    "SiameseNetwork": lambda **o: SiameseNetwork(net(), **o),
    "RecurrentLearner": lambda **o: RecurrentLearner(net(), WAYS, 2, **o),
    "MANN": lambda **o: MANN(net(), WAYS, 2, **o),
    "ContextTransformer": lambda **o: ContextTransformer(net(), WAYS, 4, **o),
    "ConditionalNeuralProcess": lambda **o: ConditionalNeuralProcess(
        net(inputs=5), net(inputs=5, outputs=6), **o
    ),
    "LinearAttention": lambda **o: LinearAttention(2, **o),
    "ModifiedHausdorff": lambda **o: ModifiedHausdorff(**o),
    "DescribedPrototypes": lambda **o: DescribedPrototypes(net(), net(inputs=4), **o),
    "CLIP": lambda **o: CLIP(net(), net(inputs=4), **o),
    "DAP": lambda **o: DAP(net(), ATTRIBUTES, **o),
    "ESZSL": lambda **o: ESZSL(net(), ATTRIBUTES, **o),
    "DeViSE": lambda **o: DeViSE(net(), ATTRIBUTES, **o),
    "ContrastiveLoss": lambda **o: ContrastiveLoss(**o),
    "PairCrossEntropy": lambda **o: PairCrossEntropy(**o),
    "HingeRankLoss": lambda **o: HingeRankLoss(**o),
    "InfoNCE": lambda **o: InfoNCE(**o),
    "StepSize": lambda **o: StepSize(**o),
    "MomentumRule": lambda **o: MomentumRule(**o),
    "AdamRule": lambda **o: AdamRule(**o),
    "LSTMRule": lambda **o: LSTMRule(2, 1, **o),
    "MLPRule": lambda **o: MLPRule(**o),
    "LearnedOptimizer": lambda **o: LearnedOptimizer(StepSize(), **o),
    "RuleTrainer": lambda **o: RuleTrainer(StepSize(), bowl, 2, **o),
    "BatchNorm": lambda **o: BatchNorm(**o),
}
section("keywords")
for chosen, make in MAKERS.items():
    wrong(f"{chosen}(stepz=5)", "stepz", functools.partial(make, stepz=5))
NOT_THEIRS = {
    "iMAML": ("learn_lr", "first_order"),
    "ANIL": ("learn_lr",),
    "Reptile": ("learn_lr", "first_order"),
    "MAML": ("learn_lr", "head", "cg_steps"),
    "MetaSGD": ("rule", "learn_lr"),
    "MANN": ("cell", "delay"),
}
for chosen, others in NOT_THEIRS.items():
    for other in others:
        wrong(f"{chosen}({other}=True)", other, functools.partial(MAKERS[chosen], **{other: True}))
for chosen in ("MAML", "prototypical", "recurrent", "neural process", "Hausdorff", "DeViSE"):
    parts = right_batch(LEARNERS[chosen].kind)
    first = {key: value[0] for key, value in parts.items()}
    wrong(
        f"{chosen}, adapt(stepz=5)",
        "stepz",
        lambda chosen=chosen, first=first: learner(chosen).adapt(
            first["support_x"], first["support_y"], stepz=5
        ),
    )
    wrong(
        f"{chosen}, call(stepz=5)",
        "stepz",
        lambda chosen=chosen, parts=parts: learner(chosen)(inputs_of(parts), stepz=5),
    )
    for scoring in (mlutils.evaluate, mlutils.controls):
        wrong(
            f"{scoring.__name__}({chosen}, stepz=5)",
            "stepz",
            lambda scoring=scoring, chosen=chosen, parts=parts: scoring(
                learner(chosen), [(inputs_of(parts), parts["query_y"])], tasks=2, stepz=5
            ),
        )
wrong(
    "evaluate(prototypical, steps=5)",
    "steps",
    lambda: mlutils.evaluate(learner("prototypical"), [episode_of()], tasks=2, steps=5),
)
for chosen, call in {
    "Characters.episodes": lambda **o: characters().episodes(**o),
    "Described.episodes": lambda **o: described().episodes(**o),
    "sinusoids": lambda **o: data.sinusoids(**o),
    "fit": lambda **o: fit_elements(lambda e: e.element, **o),
    "compile": lambda **o: fresh("prototypical").compile("sgd", **o),
    "descend": lambda **o: mlutils.descend(StepSize(), bowl_of_list, [tf.ones(2)], 1, **o),
    "LearnedOptimizer.load": lambda **o: LearnedOptimizer.load(damaged("rule.keras"), **o),
}.items():
    wrong(f"{chosen}(stepz=5)", "stepz", functools.partial(call, stepz=5))

# ------------------------------------------------------------------ losses

LOGITS = keras.losses


def trained_with(name, loss, kind=None, **compile_options):
    """Compile a learner with a loss, and train it."""
    row = LEARNERS[name]
    trained = row.make(network())
    trained.compile("sgd", loss, **compile_options)
    parts = right_batch(kind or row.kind)
    trained.fit(inputs_of(parts), parts["query_y"], verbose=0)
    return trained


def adapted_with(loss, name="MAML"):
    """Compile a learner with a loss, and adapt it."""
    adapting = LEARNERS[name].make(network())
    adapting.compile("sgd", loss)
    parts = right_batch(LEARNERS[name].kind)
    return adapting.adapt(parts["support_x"][0], parts["support_y"][0])(parts["query_x"][0])


def sparse(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


PROBABILITIES = {
    "its name": "sparse_categorical_crossentropy",
    "Keras's function": keras.losses.sparse_categorical_crossentropy,
    "Keras's class": keras.losses.SparseCategoricalCrossentropy(),
    "of one-hot vectors": keras.losses.CategoricalCrossentropy(),
    "focal": keras.losses.CategoricalFocalCrossentropy(),
}
section("losses")
for chosen in ("MAML", "prototypical", "recurrent", "described prototypes"):
    each(
        f"{chosen} compiled with a loss of probabilities,",
        "from_logits|logits",
        functools.partial(trained_with, chosen),
        PROBABILITIES,
    )
NOT_FOR_CLASSES = {
    "mse": "mse",
    "mae": "mae",
    "binary": keras.losses.BinaryCrossentropy(from_logits=True),
    "focal binary": keras.losses.BinaryFocalCrossentropy(from_logits=True),
    "of one-hot vectors": keras.losses.CategoricalCrossentropy(from_logits=True),
    "gaussian_nll": mlutils.gaussian_nll,
    "poisson": "poisson",
}
for chosen in ("MAML", "prototypical", "recurrent", "relation"):
    each(
        f"{chosen} compiled with a loss that is not of labels,",
        "loss|labels|targets",
        functools.partial(trained_with, chosen),
        NOT_FOR_CLASSES,
    )
each(
    "neural process compiled with",
    "gaussian_nll",
    functools.partial(trained_with, "neural process"),
    {"mse": "mse", "mae": "mae", "labels' loss": sparse()},
)
each(
    "MAML, numbers compiled with a loss of labels,",
    "loss|label|targets",
    functools.partial(trained_with, "MAML, numbers"),
    {"cross-entropy": sparse(), "gaussian_nll": mlutils.gaussian_nll, "hinge": HingeRankLoss()},
)
NO_LOSSES = {"None": None, "a dict": {"output": "mse"}, "a list": ["mse"]}
each("MAML adapts with", "loss", adapted_with, NO_LOSSES)
each("MAML trained with", "loss", functools.partial(trained_with, "MAML"), NO_LOSSES)
each(
    "prototypical trained with", "loss", functools.partial(trained_with, "prototypical"), NO_LOSSES
)
each(
    "neural process trained with",
    "loss",
    functools.partial(trained_with, "neural process"),
    NO_LOSSES,
)
each(
    "MAML adapts with reduction",
    "reduction",
    lambda r: adapted_with(sparse(reduction=r)),
    ["sum", None, "none"],
)
for chosen in ("MAML", "prototypical", "recurrent"):
    each(
        f"{chosen} trained with reduction",
        "reduction",
        lambda r, chosen=chosen: trained_with(chosen, sparse(reduction=r)),
        ["sum", "none"],
    )
each("compile with a loss", "loss", lambda v: MAML(net()).compile("sgd", v), ["no_such_loss", 3])
each(
    "compile with an optimizer",
    "optimizer",
    lambda v: MAML(net()).compile(v, "mse"),
    ["no_such_optimizer", 3],
)
NOT_COMPILED = {
    "adapt": lambda n, p: n.adapt(p["support_x"][0], p["support_y"][0]),
    "call": lambda n, p: n(inputs_of(p)),
    "meta_loss": lambda n, p: n.meta_loss((inputs_of(p), p["query_y"])),
    "fit": lambda n, p: n.fit(inputs_of(p), p["query_y"], verbose=0),
}
each(
    "MAML before compile,",
    r"compile",
    lambda f: f(MAML(net()), right_batch("classes")),
    NOT_COMPILED,
)
each(
    "prototypical before compile,",
    r"compile",
    lambda f: f(PrototypicalNetwork(net()), right_batch("classes")),
    some(NOT_COMPILED, "meta_loss", "fit"),
)
LABELS, LOGITS_3 = np.array([0, 1, 2]), -np.ones((3, 3), "float32")
for loss in (ContrastiveLoss, PairCrossEntropy, HingeRankLoss, InfoNCE):
    each(
        f"{loss.__name__} of",
        "labels?|targets|single class|shape",
        lambda v, loss=loss: loss()(*v),
        {
            "labels too high": (LABELS + 1, LOGITS_3),
            "negative labels": (LABELS - 1, LOGITS_3),
            "too few labels": (LABELS[:2], LOGITS_3),
            "one-hot labels": (np.eye(3, dtype="float32"), LOGITS_3),
        },
    )
for loss in (ContrastiveLoss, PairCrossEntropy):
    wrong(
        f"{loss.__name__} of a single class",
        "single class|2 ways",
        lambda loss=loss: loss()(np.zeros(3, "int32"), LOGITS_3[:, :1]),
    )
each(
    "gaussian_nll of targets and predictions,",
    "targets|predictions",
    lambda v: mlutils.gaussian_nll(*v),
    {
        "an odd last axis": (np.ones((4, 1)), np.ones((4, 3))),
        "equal shapes": (np.ones((4, 2)), np.ones((4, 2))),
        "targets without their last axis": (np.ones(4), np.ones((4, 2))),
        "another number of examples": (np.ones((3, 1)), np.ones((4, 2))),
        "None": (None, np.ones((4, 2))),
        "strings": (np.full((4, 1), "a"), np.ones((4, 2), "float32")),
        "a number": (1.0, 1.0),
    },
)

# ------------------------------------------------------------------ fit and its like


def endless(kind="classes"):
    return tf.data.Dataset.from_tensors(episode_of(kind).element).repeat()


def finite_data(kind="classes"):
    return tf.data.Dataset.from_tensors(episode_of(kind).element)


section("endless data")
for chosen in ("MAML", "prototypical", "recurrent", "described prototypes", "neural process"):
    of_kind = LEARNERS[chosen].kind
    wrong(
        f"{chosen}, fit without steps_per_epoch",
        "steps_per_epoch",
        lambda chosen=chosen, of_kind=of_kind: fresh(chosen).fit(endless(of_kind), verbose=0),
    )
    wrong(
        f"{chosen}, fit without validation_steps",
        "validation_steps",
        lambda chosen=chosen, of_kind=of_kind: fresh(chosen).fit(
            endless(of_kind), steps_per_epoch=1, validation_data=endless(of_kind), verbose=0
        ),
    )
for chosen in ("MAML", "prototypical"):
    wrong(
        f"{chosen}, Keras's evaluate without steps",
        "steps",
        lambda chosen=chosen: learner(chosen).evaluate(endless(), verbose=0),
    )
    wrong(
        f"{chosen}, Keras's predict without steps",
        "steps",
        lambda chosen=chosen: learner(chosen).predict(endless(), verbose=0),
    )
wrong(
    "fit on the package's own episodes without steps_per_epoch",
    "steps_per_epoch",
    lambda: fresh("MAML, numbers").fit(data.sinusoids(meta_batch=2), verbose=0),
)
wrong(
    "RuleTrainer, fit without steps_per_epoch",
    "steps_per_epoch",
    lambda: trainer().fit(data.Quadratics(2).problems(2), verbose=0),
)
wrong(
    "RuleTrainer, Keras's evaluate without steps",
    "steps",
    lambda: trainer().evaluate(data.Quadratics(2).problems(2), verbose=0),
)
section("weights of examples")
for chosen in ("MAML", "prototypical", "recurrent", "neural process", "Reptile"):
    of_kind = LEARNERS[chosen].kind
    wrong(
        f"{chosen}, fit with class_weight",
        "class_weight",
        lambda chosen=chosen, of_kind=of_kind: fresh(chosen).fit(
            finite_data(of_kind), class_weight={0: 2.0, 1: 1.0, 2: 1.0}, verbose=0
        ),
    )
wrong(
    "Reptile, fit with sample_weight",
    "sample_weight",
    lambda: fresh("Reptile").fit(
        *episode_of().element, sample_weight=np.ones(2, "float32"), verbose=0
    ),
)
wrong(
    "Reptile, fit on a dataset with sample_weight",
    "sample_weight|weight",
    lambda: fresh("Reptile").fit(
        tf.data.Dataset.from_tensors((*episode_of().element, np.ones(2, "float32"))), verbose=0
    ),
)

# ------------------------------------------------------------------ scores


class Untouched:
    """Episodes that nobody may read: the other arguments are wrong."""

    def __iter__(self):
        raise AssertionError("the episodes were read before the arguments were checked")
        yield


def one_shot_iterator():
    return iter([episode_of(), episode_of()])


SCORINGS = {"evaluate": mlutils.evaluate, "controls": mlutils.controls}
NO_LEARNERS = {
    "None": None,
    "a Keras model": net(),
    "a class": PrototypicalNetwork,
    "a string": "MAML",
    "a function": len,
}
NO_ITERABLES = {"None": None, "a number": 3, "a string": "glyphs", "an array": np.ones((2, 3))}
section("scores")
for chosen, scoring in SCORINGS.items():
    counts(
        f"{chosen}(tasks)",
        lambda v, scoring=scoring: scoring(learner("MAML"), Untouched(), tasks=v),
    )
    options(
        f"{chosen}(metric)",
        lambda v, scoring=scoring: scoring(learner("MAML"), Untouched(), 2, metric=v),
        ["exactness", "Accuracy", 3, ["accuracy"]],
    )
    each(
        f"{chosen}(learner)",
        "learner",
        lambda v, scoring=scoring: scoring(v, Untouched(), tasks=2),
        NO_LEARNERS,
    )
    each(
        f"{chosen}(episodes)",
        "episode",
        lambda v, scoring=scoring: scoring(learner("prototypical"), v, tasks=2),
        NO_ITERABLES,
    )
    wrong(
        f"{chosen} of too few episodes",
        "tasks",
        lambda scoring=scoring: scoring(learner("prototypical"), [episode_of()], tasks=600),
    )
    wrong(
        f"{chosen} of no episodes",
        "tasks|episodes",
        lambda scoring=scoring: scoring(learner("prototypical"), [], tasks=1),
    )
each(
    "controls(episodes)",
    "once|iterator",
    lambda f: mlutils.controls(learner("prototypical"), f(), tasks=2),
    {"an iterator": one_shot_iterator, "a dataset's iterator": lambda: iter(finite_data())},
)
counts(
    "controls(scratch_steps)",
    lambda v: mlutils.controls(learner("MAML"), Untouched(), 2, scratch_steps=v),
    least=0,
    more=(None,),
)
section("seeds")
each(
    "controls(seed)",
    "seed",
    lambda v: mlutils.controls(learner("MAML"), Untouched(), 2, seed=v),
    [-1, 0.5, 2**32, "1", True],
)
section("scores")
each(
    "controls(encoder)",
    "encoder",
    lambda f: mlutils.controls(learner("MAML"), Untouched(), 2, encoder=f()),
    {
        "a string": lambda: "conv4",
        "a layer": lambda: keras.layers.Dense(2),
        "a model without weights": lambda: keras.Sequential([keras.layers.Dense(2)]),
        "a trainable BatchNormalization": lambda: network(keras.layers.BatchNormalization()),
    },
)
each(
    "controls(model)",
    "model",
    lambda v: mlutils.controls(learner("MAML"), Untouched(), 2, model=v),
    {"a string": "mlp", "a number": 3, "a layer": keras.layers.Dense(2)},
)
wrong(
    "controls of numbers with an encoder",
    "integer|labels|classification|encoder",
    lambda: mlutils.controls(
        learner("MAML, numbers"), [episode_of("numbers")], tasks=2, encoder=net(), scratch_steps=1
    ),
)
METRICS = {
    "mse of labels": ("prototypical", "mse"),
    "log likelihood of labels": ("prototypical", "log likelihood"),
    "log likelihood of numbers": ("MAML, numbers", "log likelihood"),
    "mse of deviations": ("neural process", "mse"),
    "accuracy of deviations": ("neural process", "accuracy"),
}
for described_metric, (chosen, metric) in METRICS.items():
    wrong(
        f"evaluate, {described_metric}",
        "shape|metric",
        lambda chosen=chosen, metric=metric: mlutils.evaluate(
            learner(chosen), [episode_of(LEARNERS[chosen].kind)], tasks=2, metric=metric
        ),
    )
each(
    "score(predict)",
    "predict",
    lambda v: score(v, [episode_of()], tasks=2),
    {
        "None": None,
        "a string": "model",
        "a function that returns None": lambda inputs: None,
        "a function that returns strings": lambda inputs: "one",
        "one prediction for all queries": lambda inputs: tf.zeros((2, 1, WAYS)),
        "predictions without tasks": lambda inputs: tf.zeros((5, WAYS)),
        "too few outputs": lambda inputs: tf.zeros((2, 5, 1)),
    },
)
counts("score(tasks)", lambda v: score(len, Untouched(), tasks=v))
section("options")
each("score(metric)", "metric", lambda v: score(len, Untouched(), 2, v), ["top 5"])
section("scores")
each(
    "Score(values)",
    "values",
    Score,
    {
        "nothing": [],
        "None": None,
        "a number": 0.5,
        "a string": "0.5",
        "rows": [[0.5, 0.5]],
        "strings": ["a", "b"],
        "complex numbers": [1 + 1j],
        "a ragged list": [[1.0], [1.0, 2.0]],
        "a dict": {"a": 1.0},
    },
)
each("Score(worst)", "worst", lambda v: Score([0.5], worst=v), ["bad", None])
each(
    "SplitScore(values)",
    "values|0 to 1|from 0|percent|between",
    SplitScore,
    {
        "percent": [50.0, 60.0],
        "less than -1": [-1.1, 0.5],
        "more than 1": [0.5, 1.01],
        "NaN": [np.nan, 0.5],
        "infinity": [np.inf],
        "rows": [[0.5, 0.5]],
        "nothing": [],
        "None": None,
        "strings": ["50 %"],
    },
)

# ------------------------------------------------------------------ networks


def two_inputs():
    inputs = [keras.Input((2,)), keras.Input((2,))]
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()(inputs)))


def two_outputs():
    inputs = keras.Input((2,))
    return keras.Model(inputs, [keras.layers.Dense(3)(inputs), keras.layers.Dense(3)(inputs)])


def named_inputs():
    inputs = {"a": keras.Input((2,)), "b": keras.Input((2,))}
    both = keras.layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, keras.layers.Dense(3)(both))


NO_NETWORKS = {
    "None": (lambda: None, "None"),
    "a string": (lambda: "conv4", "str"),
    "a layer": (lambda: keras.layers.Dense(3), "Dense"),
    "a class": (lambda: keras.Sequential, "type|class"),
    "a function": (lambda: len, "function|builtin"),
    "a list of layers": (lambda: [keras.layers.Dense(3)], "list"),
}
BAD_NETWORKS = {
    "a model without weights": (lambda: keras.Sequential([keras.layers.Dense(3)]), "Input|built"),
    "a trainable BatchNormalization": (
        lambda: network(keras.layers.BatchNormalization()),
        "BatchNorm",
    ),
    "an activity_regularizer": (
        lambda: network(keras.layers.Dense(4, activity_regularizer="l2")),
        "activity_regularizer",
    ),
    "two inputs": (two_inputs, "inputs?"),
    "named inputs": (named_inputs, "inputs?"),
    "two outputs": (two_outputs, "outputs?|maps"),
}
FEW_BAD_NETWORKS = ("a model without weights", "a trainable BatchNormalization", "two outputs")
TAKING_ONE = {
    "MAML": (MAML, "model"),
    "MetaSGD": (MetaSGD, "model"),
    "PrototypicalNetwork": (PrototypicalNetwork, "encoder"),
    "SiameseNetwork": (SiameseNetwork, "encoder"),
    "RecurrentLearner": (lambda n: RecurrentLearner(n, WAYS, 2), "encoder"),
    "RelationNetwork": (lambda n: RelationNetwork(n, net(inputs=6, outputs=1)), "encoder"),
    "RelationNetwork, its relation,": (lambda n: RelationNetwork(net(), n), "relation"),
    "ConditionalNeuralProcess": (
        lambda n: ConditionalNeuralProcess(n, net(inputs=5, outputs=6)),
        "encoder",
    ),
    "ConditionalNeuralProcess, its decoder,": (
        lambda n: ConditionalNeuralProcess(net(inputs=5), n),
        "decoder",
    ),
    "DescribedPrototypes, its describer,": (lambda n: DescribedPrototypes(net(), n), "describer"),
    "CLIP, its describer,": (lambda n: CLIP(net(), n), "describer"),
    "ESZSL": (lambda n: ESZSL(n, ATTRIBUTES), "encoder"),
    "AverageOverViews": (AverageOverViews, "encoder"),
}
section("networks")
for chosen, (make, called) in TAKING_ONE.items():
    chosen_ones = NO_NETWORKS if chosen in ("MAML", "PrototypicalNetwork") else {}
    chosen_ones = chosen_ones or some(NO_NETWORKS, "None", "a string", "a layer")
    bad = BAD_NETWORKS if chosen_ones is NO_NETWORKS else some(BAD_NETWORKS, *FEW_BAD_NETWORKS)
    for described, (build, came) in {**chosen_ones, **bad}.items():
        wrong(
            f"{chosen} given {described}",
            every(called, came),
            lambda make=make, build=build: make(build()),
        )


def frozen():
    model = network()
    model.trainable = False
    return model


def without_weights():
    return keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(2.0)])


def looping():
    return keras.Sequential([keras.Input((5, 2)), keras.layers.LSTM(3), keras.layers.Dense(3)])


def of_unknown_length():
    return keras.Sequential([keras.Input((None, 2)), keras.layers.Dense(3)])


for make in (MAML, ANIL, MetaSGD, iMAML, ProtoMAML, Reptile):
    each(
        make.__name__,
        "trainable|weights",
        lambda f, make=make: make(f()),
        {"a frozen network": frozen, "a network without weights": without_weights},
    )
each("MAML", "unroll", lambda f: MAML(f()), {"a looping LSTM": looping})
each("ANIL", "unroll", lambda f: ANIL(f()), {"a looping LSTM": looping})
for chosen, make in {
    "RecurrentLearner": lambda n: RecurrentLearner(n, WAYS, 2),
    "RelationNetwork": lambda n: RelationNetwork(n, net(inputs=6, outputs=1)),
    "DeViSE": lambda n: DeViSE(n, ATTRIBUTES),
    "SiameseNetwork, weighted,": lambda n: SiameseNetwork(n, "weighted"),
}.items():
    wrong(
        f"{chosen} given an encoder whose output has no known length",
        "encoder.*(length|shape)",
        lambda make=make: make(of_unknown_length()),
    )
UNFIT = {
    "RelationNetwork, pairs of another length": (
        lambda: RelationNetwork(net(), net(inputs=3, outputs=1)),
        "relation",
    ),
    "RelationNetwork, two scores a pair": (
        lambda: RelationNetwork(net(), net(inputs=6, outputs=2)),
        "relation",
    ),
    "ConditionalNeuralProcess, codes of another length": (
        lambda: ConditionalNeuralProcess(net(inputs=5, outputs=7), net(inputs=5, outputs=6)),
        "decoder|encoder",
    ),
    "ConditionalNeuralProcess, an odd number of outputs": (
        lambda: ConditionalNeuralProcess(net(inputs=5), net(inputs=5, outputs=5)),
        "decoder",
    ),
    "ConditionalNeuralProcess, more outputs than the encoder's inputs": (
        lambda: ConditionalNeuralProcess(net(inputs=2), net(inputs=5, outputs=6)),
        "decoder|encoder",
    ),
    "DescribedPrototypes, prototypes of another length": (
        lambda: DescribedPrototypes(net(), net(inputs=ATTRIBUTES, outputs=2)),
        "describer",
    ),
    "DescribedPrototypes, signatures of two axes": (
        lambda: DescribedPrototypes(
            net(),
            keras.Sequential([keras.Input((2, 2)), keras.layers.Flatten(), keras.layers.Dense(3)]),
        ),
        "describer",
    ),
    "AverageOverViews, vectors": (lambda: AverageOverViews(net()), "encoder|images"),
    "AverageOverViews, three channels": (
        lambda: AverageOverViews(
            keras.Sequential(
                [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
            )
        ),
        "encoder|images",
    ),
}
for unfit, (run, called) in UNFIT.items():
    wrong(unfit, called, run)
NO_RULES = {
    "a string": lambda: "adam",
    "a number": lambda: 0.1,
    "a Keras optimizer": lambda: keras.optimizers.Adam(),
    "a class": lambda: AdamRule,
    "a function": lambda: lambda gradient: -gradient,
    "a network": lambda: net(),
}
section("rules")
each("MAML(rule)", "rule", lambda f: MAML(net(), rule=f()), NO_RULES)
each(
    "Reptile(rule)",
    "rule",
    lambda f: Reptile(net(), rule=f()),
    some(NO_RULES, "a string", "a number"),
)
each(
    "MAML(rule)",
    "dtype|float64",
    lambda f: MAML(net(), rule=f()),
    {"one of double precision": lambda: StepSize(dtype="float64")},
)
for make in (iMAML, Reptile):
    wrong(
        f"{make.__name__}(rule) with weights",
        "rule",
        lambda make=make: make(net(), rule=LSTMRule(2, 1)),
    )


def maml_of_steps_a_coordinate():
    learner = MAML(net(), rule=StepSize(coordinates=7))
    learner.compile("sgd", sparse())
    return learner(inputs_of(right_batch("classes")))


wrong("MAML(rule) of another length", "step sizes|coordinate", maml_of_steps_a_coordinate)
section("networks")
for chosen in ("prototypical", "Siamese"):
    wrong(
        f"{chosen}, unadapted()",
        "support set",
        lambda chosen=chosen: learner(chosen).unadapted(),
        errors=(NotImplementedError,),
    )
wrong(
    "a learner that does not define adapt",
    "adapt",
    lambda: mlutils.MetaLearner().adapt(np.ones((2, 2)), np.ones(2)),
    errors=(NotImplementedError,),
)

counts("mlp(input_size)", lambda v: mlutils.mlp(v, (2,)), more=(None,))
counts("mlp(hidden)", lambda v: mlutils.mlp(2, (3, v)), more=(None,))
counts("mlp(outputs)", lambda v: mlutils.mlp(2, (2,), v), more=(None,))
section("options")
each("mlp(hidden)", "hidden", lambda v: mlutils.mlp(2, v), [40, "40", None])
options(
    "mlp(activation)", lambda v: mlutils.mlp(2, (2,), activation=v), ["rellu", 3, ["relu", "tanh"]]
)


def conv4(**sizes):
    return mlutils.conv4(**{"input_shape": (16, 16, 1), "filters": 1, **sizes})


counts("conv4(outputs)", lambda v: conv4(outputs=v))
counts("conv4(filters)", lambda v: conv4(filters=v), more=(None,))
options("conv4(downsample)", lambda v: conv4(downsample=v), ["max", None, 2, ["pool"]])
each(
    "conv4(input_shape)",
    "input_shape",
    lambda v: conv4(input_shape=v),
    [
        (28, 28),
        (28,),
        28,
        None,
        "28",
        (28, 28, 0),
        (28, 28, 1.5),
        (8, 8, 1),
        (-28, -28, 1),
        (1, 28, 28, 1),
        ("28", "28", "1"),
    ],
)
positives("BatchNorm(epsilon)", lambda v: BatchNorm(v), more=(None,))

# ------------------------------------------------------------------ rules and optimizers

THETA = tf.ones((2, 3))


def bowl(theta, *_):
    return tf.reduce_sum(theta**2, -1)


def bowl_of_list(weights, step):
    return tf.reduce_sum(weights[0] ** 2)


def trainer(**sizes):
    trained = RuleTrainer(StepSize(), bowl, **{"steps": 2, **sizes})
    trained.compile("sgd")
    return trained


section("numbers")
each("StepSize(initial)", "initial", StepSize, [np.nan, np.inf, "0.1", True, None, [0.1]])
counts("StepSize(coordinates)", lambda v: StepSize(coordinates=v), more=((2, 0), (2, "3")))
counts("StepSize(steps)", lambda v: StepSize(steps=v))
for make in (MomentumRule, AdamRule):
    positives(f"{make.__name__}(learning_rate)", make, more=(None,))
shares("MomentumRule(momentum)", lambda v: MomentumRule(momentum=v))
shares("AdamRule(beta_1)", lambda v: AdamRule(beta_1=v))
shares("AdamRule(beta_2)", lambda v: AdamRule(beta_2=v))
positives("AdamRule(epsilon)", lambda v: AdamRule(epsilon=v))
SPACE = {"rate": (0.1, 1.0, "log")}
counts("LSTMRule(units)", lambda v: LSTMRule(units=v, layers=1), more=(None,))
counts("LSTMRule(layers)", lambda v: LSTMRule(units=2, layers=v), more=(None,))
positives("LSTMRule(output_scale)", lambda v: LSTMRule(2, 1, output_scale=v))
positives("LSTMRule(p)", lambda v: LSTMRule(2, 1, p=v), more=(81,))
each("MLPRule(hidden)", "hidden", lambda v: MLPRule(hidden=v), [0, (0,), (2.5,), "8", None])
each("MLPRule(decays)", "decays", lambda v: MLPRule(decays=v), [0.9, (), (1.0,), (-0.1,), ("a",)])
shares("MLPRule(square_decay)", lambda v: MLPRule(square_decay=v))
positives("MLPRule(output_scale)", lambda v: MLPRule(output_scale=v))
positives("MLPRule(p)", lambda v: MLPRule(p=v), more=(81,))
counts("tune(tries)", lambda v: mlutils.tune(lambda rate: rate, SPACE, v), least=2)
seeds("tune(seed)", lambda v: mlutils.tune(lambda rate: rate, SPACE, 2, seed=v))
each("tune(score)", "score", lambda v: mlutils.tune(v, SPACE, 2), [None, 1.0, "loss"])
each(
    "tune(space)",
    "space|range|scale",
    lambda v: mlutils.tune(lambda rate: rate, v, 2),
    [None, {"rate": 0.1}, {"rate": (1.0, 0.1, "log")}, {"rate": (0.0, 1.0, "log")}],
)
positives("log_and_sign(p)", lambda v: log_and_sign(THETA, v), more=(81,))
section("rules")
each(
    "log_and_sign(gradient)",
    "gradient",
    log_and_sign,
    {"None": None, "strings": ["a"], "complex numbers": np.ones(3) * 1j, "a dict": {}},
)
wrong(
    "an UpdateRule that does not define initial_state",
    "initial_state",
    lambda: UpdateRule().initial_state((2,)),
    errors=(NotImplementedError,),
)

THETAS = {
    "None": (None, "None"),
    "a dict": ({"theta": 1}, "dict"),
    "one number": (1.0, "shape"),
    "one vector": (np.ones(3, "float32"), "shape"),
    "three axes": (np.ones((2, 3, 1), "float32"), "shape"),
    "a ragged list": ([[1.0], [1.0, 2.0]], "list|ragged|shape"),
    "strings": ([["a", "b"]], "str"),
    "complex numbers": (np.ones((2, 3)) * 1j, "complex"),
    "NaN": (np.full((2, 3), np.nan, "float32"), "nan|finite"),
    "empty": (np.ones((0, 3), "float32"), "shape|empty|at least"),
}
section("unrolling")
for described, (theta, came) in THETAS.items():
    wrong(
        f"unroll, theta is {described}",
        every("theta", came),
        lambda theta=theta: unroll(StepSize(), bowl, theta, 2),
    )
    wrong(
        f"run_optimizer, theta is {described}",
        every("theta", came),
        lambda theta=theta: run_optimizer(keras.optimizers.SGD(), bowl, theta, 2),
    )
    wrong(
        f"RuleTrainer.meta_loss, theta is {described}",
        every("theta", came),
        lambda theta=theta: trainer().meta_loss((theta, ())),
    )
counts("unroll(steps)", lambda v: unroll(StepSize(), bowl, THETA, v), more=(None,))
counts("unroll(start)", lambda v: unroll(StepSize(), bowl, THETA, 1, start=v), least=0)
each(
    "unroll(rule)",
    "rule",
    lambda f: unroll(f(), bowl, THETA, 1),
    {"None": lambda: None, **NO_RULES},
)
FUNCTIONS = {
    "None": None,
    "a string": "rosenbrock",
    "one that returns None": lambda theta, *_: None,
    "one that returns one number": lambda theta, *_: tf.reduce_sum(theta**2),
    "one that returns a row each": lambda theta, *_: theta**2,
    "one that returns strings": lambda theta, *_: tf.fill([2], "a"),
}
for described, function in FUNCTIONS.items():
    wrong(
        f"unroll, function is {described}",
        "function",
        lambda function=function: unroll(StepSize(), function, THETA, 1),
    )
    wrong(
        f"run_optimizer, function is {described}",
        "function",
        lambda function=function: run_optimizer(keras.optimizers.SGD(), function, THETA, 1),
    )
each(
    "unroll(state)",
    "state",
    lambda v: unroll(MomentumRule(), bowl, THETA, 1, state=v),
    {"a number": 3, "an empty tuple": (), "of another shape": (tf.ones((2, 7)),), "a string": "x"},
)
counts(
    "run_optimizer(steps)",
    lambda v: run_optimizer(keras.optimizers.SGD(), bowl, THETA, v),
    more=(None,),
)
each(
    "run_optimizer(rates)",
    "rates",
    lambda v: run_optimizer(keras.optimizers.SGD(), bowl, THETA, 1, v),
    {
        "none": [],
        "negative": [-0.1],
        "NaN": [0.1, np.nan],
        "infinity": [np.inf],
        "a number": 0.1,
        "a string": "fast",
        "strings": ["0.1"],
        "bools": [True],
        "rows": [[0.1, 0.2]],
        "None in a list": [None],
    },
)
each(
    "run_optimizer(optimizer)",
    "optimizer",
    lambda v: run_optimizer(v, bowl, THETA, 1),
    {"None": None, "a class": keras.optimizers.SGD, "a number": 0.1, "a rule": StepSize()},
)


def used_optimizer():
    optimizer = keras.optimizers.SGD()
    optimizer.build([tf.Variable(1.0)])
    return run_optimizer(optimizer, bowl, THETA, 1)


wrong("run_optimizer, an optimizer that was used", "used|new one", used_optimizer)
counts("RuleTrainer(steps)", lambda v: RuleTrainer(StepSize(), bowl, v), more=(None,))
counts("RuleTrainer(truncation)", lambda v: RuleTrainer(StepSize(), bowl, 4, v), more=(3, 8))
each(
    "RuleTrainer(rule)",
    "rule",
    lambda f: RuleTrainer(f(), bowl, 2),
    {"None": lambda: None, **NO_RULES},
)
each(
    "RuleTrainer(function)",
    "function",
    lambda v: RuleTrainer(StepSize(), v, 2),
    {"None": None, "a string": "values", "a family": data.Quadratics(2), "a number": 3},
)
WRONG_WEIGHTS = ["first", None, 3, [1.0], [[1.0, 1.0]], [1.0, np.nan], [1, -1], [0, 0], ["a", "b"]]
options("step_weights(weights)", lambda v: step_weights(v, 2), WRONG_WEIGHTS)
options(
    "RuleTrainer(weights)",
    lambda v: RuleTrainer(StepSize(), bowl, 2, weights=v),
    ["first", [1.0], None],
)
section("options")
each(
    "RuleTrainer(weights), with truncation,",
    "weight",
    lambda v: RuleTrainer(StepSize(), bowl, 2, 1, weights=v),
    ["last", [1, 0]],
)
counts("step_weights(steps)", lambda v: step_weights("ones", v), more=(None,))
BATCHES = {
    "None": None,
    "theta alone": THETA,
    "a number": 3,
    "a dict": {"theta": THETA},
    "three": (THETA, (), ()),
    "one": (THETA,),
}
section("unrolling")
for method in ("meta_loss", "meta_gradients"):
    each(
        f"RuleTrainer.{method}(batch)",
        "theta|problem|batch",
        lambda v, method=method: getattr(trainer(), method)(v),
        BATCHES,
    )
counts(
    "descend(steps)",
    lambda v: mlutils.descend(StepSize(), bowl_of_list, [tf.ones(2)], v),
    least=0,
    more=(None,),
)
each(
    "descend(loss)",
    "loss",
    lambda v: mlutils.descend(StepSize(), v, [tf.ones(2)], 1),
    {"None": None, "a string": "mse", "one that returns None": lambda *_: None},
)
each(
    "descend(rule)",
    "rule",
    lambda v: mlutils.descend(v, bowl_of_list, [tf.ones(2)], 1),
    {"a string": "adam", "too many": [StepSize(), StepSize()]},
)
section("rules")
each("LearnedOptimizer(rule)", "rule", lambda f: LearnedOptimizer(f()), NO_RULES)
wrong(
    "LearnedOptimizer of a step size for each coordinate",
    "step sizes|coordinate",
    lambda: LearnedOptimizer(StepSize(coordinates=3)),
)
section("numbers")
each(
    "LearnedOptimizer(learning_rate)",
    "learning_rate",
    lambda v: LearnedOptimizer(StepSize(), learning_rate=v),
    ["fast", -1.0, np.nan, np.inf, True, None],
)

# ------------------------------------------------------------------ files


@functools.cache
def folder():
    """A folder of damaged files, which ends with the program."""
    temporary = tempfile.TemporaryDirectory()
    path = Path(temporary.name)
    StepSize().save(path / "rule.keras")
    archive = (path / "rule.keras").read_bytes()
    (path / "truncated.keras").write_bytes(archive[: len(archive) // 2])
    (path / "few-bytes.keras").write_bytes(archive[:10])
    (path / "empty.keras").write_bytes(b"")
    (path / "text.keras").write_text("a rule\n")
    (path / "text.txt").write_text("a rule\n")
    flipped = bytearray(archive)
    flipped[len(archive) // 3] ^= 255
    (path / "flipped.keras").write_bytes(bytes(flipped))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net().save(path / "rule.h5")
    net().save(path / "network.keras")
    with zipfile.ZipFile(path / "no-keras.keras", "w") as file:
        file.writestr("readme.txt", "nothing")
    with zipfile.ZipFile(path / "no-runs.zip", "w") as file:
        file.writestr("readme.txt", "nothing")
    with zipfile.ZipFile(path / "other-json.keras", "w") as file:
        for name in ("config.json", "metadata.json"):
            file.writestr(name, "[1, 2, 3]")
        file.writestr("model.weights.h5", "nothing")
    with zipfile.ZipFile(path / "broken-json.keras", "w") as file:
        file.writestr("config.json", "{")
    folder.kept = temporary
    return path


def damaged(name):
    return folder() / name


FILES = (*REFUSALS, OSError)
A_FILE = "file|path|archive|\\.keras|directory|folder"
section("files")
each(
    "LearnedOptimizer.load of",
    A_FILE,
    lambda name: LearnedOptimizer.load(damaged(name)),
    [
        "missing.keras",
        "truncated.keras",
        "few-bytes.keras",
        "empty.keras",
        "text.keras",
        "text.txt",
        "rule.h5",
        "no-keras.keras",
        "other-json.keras",
        "broken-json.keras",
    ],
)
wrong(
    "LearnedOptimizer.load of a network",
    "rule",
    lambda: LearnedOptimizer.load(damaged("network.keras")),
)
wrong("LearnedOptimizer.load of a folder", A_FILE, lambda: LearnedOptimizer.load(folder()))
each("LearnedOptimizer.load of", A_FILE, LearnedOptimizer.load, [None, 3, ""])
each(
    "LearnedOptimizer.save as",
    A_FILE,
    lambda v: LearnedOptimizer(StepSize()).save(v),
    {"a text": "/nowhere/rule.txt", "None": None, "a number": 3},
)
each(
    "read_lake_runs of",
    A_FILE + "|layout",
    lambda name: data.read_lake_runs(damaged(name)),
    ["missing.zip", "text.txt", "no-runs.zip", "empty.keras", "truncated.keras"],
    errors=FILES,
)
each("read_lake_runs of", A_FILE, data.read_lake_runs, [None, 3, [1]], errors=FILES)
wrong("read_lake_runs of a folder", A_FILE, lambda: data.read_lake_runs(folder()), errors=FILES)

# ------------------------------------------------------------------ data

X, CLASSES = np.random.default_rng(0).normal(size=(6, 2)).astype("float32"), np.arange(6) % 2
IMAGES = np.zeros((6, 4, 2, 2, 1), np.uint8)
LETTERS, SCRIPT = tuple("abcdef"), ("one",) * 6


@functools.cache
def characters():
    return data.Characters(IMAGES, LETTERS, SCRIPT, "made up")


@functools.cache
def described():
    codes = np.eye(6, dtype="float32")[:, :2]
    return data.Described(IMAGES, LETTERS, SCRIPT, "made up", codes, ("p", "q"))


def episodes(x=X, y=CLASSES, **sizes):
    return data.episodes(x, y, **{"ways": 2, "queries": 1, "meta_batch": 2, **sizes})


EXAMPLES = {
    **NO_ARRAYS,
    "one number": (lambda x: 1.0, "shape|number"),
    **TOO_FEW,
    **NOT_FINITE,
    "a dataset": (tf.data.Dataset.from_tensor_slices, "dataset"),
    "pictures of two sizes": (
        lambda x: [np.zeros((2, 2, 1))] * 3 + [np.zeros((3, 3, 1))] * 3,
        "list|ragged|shape|size",
    ),
}
section("episodes")
for description, (spoil, came) in EXAMPLES.items():
    wrong(
        f"episodes, x is {description}",
        every(r"\bx\b", came),
        lambda spoil=spoil: episodes(x=spoil(X)),
    )
for description, (spoil, came) in {
    "None": (lambda y: None, "None|shape|object"),
    "one number": (lambda y: 1, "shape|number"),
    "one-hot": (lambda y: np.eye(2)[y], "shape"),
    "one too few": (lambda y: y[:-1], "shape"),
    "NaN in one place": (lambda y: with_value(np.nan)(y.astype(float)), "nan|finite"),
    "None in one place": (lambda y: with_value(None)(y.astype(object)), "None|object"),
    "a ragged list": (lambda y: [[0], [0, 1]], "list|ragged|shape"),
    "a dict": (lambda y: {"y": y}, "dict|shape|object"),
}.items():
    wrong(
        f"episodes, y is {description}",
        every(r"\by\b", came),
        lambda spoil=spoil: episodes(y=spoil(CLASSES)),
    )
for described_sizes, sizes, called in (
    ("more ways than classes", {"ways": 3}, "ways"),
    ("more shots than examples", {"shots": 9}, "shots"),
    ("more queries than examples", {"queries": 9}, "queries"),
):
    wrong(f"episodes, {described_sizes}", called, functools.partial(episodes, **sizes))


def family(make, least, **fixed):
    """Rows for a family's sizes, a dict from a count to the least that is allowed, and a seed."""
    name = getattr(make, "__qualname__", make)
    for size, smallest in least.items():
        counts(f"{name}({size})", lambda v, size=size: make(**{**fixed, size: v}), smallest)
    if "meta_batch" in least or "functions" in least:
        seeds(f"{name}(seed)", lambda v: make(**{**fixed, "seed": v}))


family(episodes, {"ways": 1, "shots": 0, "queries": 1, "meta_batch": 1})
family(characters().episodes, {"ways": 1, "shots": 0, "queries": 1, "meta_batch": 1}, queries=2)
family(described().episodes, {"ways": 1, "queries": 1, "meta_batch": 1}, queries=2)
family(data.sinusoids, {"shots": 1, "queries": 1, "meta_batch": 1})
family(data.LinearGaussian([1.0]).episodes, {"shots": 0, "queries": 1, "meta_batch": 1})
family(data.GaussianProcess().episodes, {"shots": 1, "queries": 1, "meta_batch": 1})
family(data.Quadratics(2).problems, {"functions": 1})
family(data.NetworkTraining(X, CLASSES).problems, {"functions": 1})
family(data.lake_runs, {"ways": 1, "queries": 1, "meta_batch": 1}, characters=characters(), ways=2)
family(described().class_split, {"unseen": 1, "held_out": 1}, unseen=1, held_out=1)
seeds("Described.class_split(seed)", lambda v: described().class_split(1, v, 1))
for draw in (data.glyphs, data.braille, data.diacritics):
    seeds(f"{draw.__name__}(seed)", lambda v, draw=draw: draw(seed=v))
for draw in (data.braille, data.diacritics):
    rates(f"{draw.__name__}(jitter)", lambda v, draw=draw: draw(jitter=v))
for draw in (data.glyphs, data.omniglot):
    options(f"{draw.__name__}(split)", draw, ["dev", "Train", "", 0, ["train"]])
for draw in (data.omniglot, data.handwritten_braille, data.official_lake_runs):
    counts(f"{draw.__name__}(size)", lambda v, draw=draw: draw(size=v), more=(106, None))
counts("read_lake_runs(size)", lambda v: data.read_lake_runs("nowhere", v), more=(1025, None))

section("characters")
each(
    "Characters(images)",
    "images",
    lambda v: data.Characters(v, LETTERS, SCRIPT, "made up"),
    {
        "None": None,
        "a list": IMAGES.tolist(),
        "floats": IMAGES / 255,
        "without channels": IMAGES[..., 0],
        "with three channels": np.repeat(IMAGES, 3, axis=-1),
        "without drawings": IMAGES[:, :0],
        "without pixels": IMAGES[:, :, :0],
        "without classes": IMAGES[:0],
        "too few": IMAGES[:5],
        "a string": "glyphs",
        "a tensor": tf.constant(IMAGES, tf.float32),
    },
)
each(
    "Characters(names)",
    "names?",
    lambda v: data.Characters(IMAGES, v, SCRIPT, "made up"),
    {"too few": LETTERS[:5], "None": None, "a number": 6},
)
each(
    "Characters(scripts)",
    "scripts?",
    lambda v: data.Characters(IMAGES, LETTERS, v, "made up"),
    {"too few": SCRIPT[:5], "None": None, "a number": 6},
)
each(
    "Characters.of_scripts",
    "scripts?",
    lambda v: characters().of_scripts(v),
    {"an unknown one": ["two"], "a number": 3, "None": None, "none": [], "numbers": [1]},
)
each(
    "Characters.of_drawers",
    "drawers",
    lambda v: characters().of_drawers(v),
    [[], [0, 0], [4], [-1], "01", [0.0, 1.0], [True, False], [[0]], 3, None],
)
each(
    "Characters.subset",
    "kept|position|class|character",
    lambda v: characters().subset(v),
    {"one too high": [6], "none": [], "a string": "ab", "a number": 3, "floats": [0.5]},
)
each(
    "Described(signatures)",
    "signatures?|description|attributes",
    lambda v: data.Described(IMAGES, LETTERS, SCRIPT, "made up", v, ("p", "q")),
    {
        "None": None,
        "doubles": np.eye(6)[:, :2],
        "too few": np.eye(5, dtype="float32")[:, :2],
        "too short": np.eye(6, dtype="float32")[:, :1],
        "NaN": np.full((6, 2), np.nan, "float32"),
        "a list": [[0.0, 1.0]] * 6,
    },
)
each(
    "Described(attributes)",
    "attributes",
    lambda v: data.Described(
        IMAGES, LETTERS, SCRIPT, "made up", np.eye(6, dtype="float32")[:, :2], v
    ),
    {"too few": ("p",), "None": None, "a number": 2},
)
wrong("Described.turned", "turned|upright", lambda: described().turned())
each(
    "Described.class_split(unseen)",
    "unseen",
    lambda v: described().class_split(v, held_out=1),
    [6, 7],
)
each(
    "Described.class_split(held_out)",
    "held_out",
    lambda v: described().class_split(1, held_out=v),
    [4, 9],
)
wrong(
    "Described.episodes, more ways than classes",
    "ways",
    lambda: described().episodes(ways=7, queries=1),
)
wrong(
    "Described.episodes, as many queries as drawings",
    "queries",
    lambda: described().episodes(queries=4),
)
each(
    "lake_runs(characters)",
    "characters",
    lambda v: data.lake_runs(v, ways=2),
    {"None": None, "an array": IMAGES, "a string": "glyphs", "a dataset": data.sinusoids()},
)
for sizes in ({"ways": 7}, {"ways": 7, "within": False}, {"queries": 4}):
    which = next(iter(sizes))
    wrong(
        f"lake_runs, too many {which}, {len(sizes)} arguments",
        which,
        lambda sizes=sizes: data.lake_runs(characters(), **{"ways": 2, **sizes}),
    )

# Linear tasks.
rates("LinearGaussian(spread)", lambda v: data.LinearGaussian([1.0], spread=v))
positives("LinearGaussian(noise)", lambda v: data.LinearGaussian([1.0], noise=v))
section("families")
each(
    "LinearGaussian(mean)",
    "mean",
    data.LinearGaussian,
    {
        "None": None,
        "a number": 1.0,
        "nothing": [],
        "rows": [[1.0]],
        "NaN": [np.nan],
        "a string": "1",
        "strings": ["a"],
        "complex numbers": [1j],
        "a ragged list": [[1.0], [1.0, 2.0]],
    },
)


def linear():
    return data.LinearGaussian([1.0, 2.0])


def points(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


each(
    "LinearGaussian.floor(support_x)",
    "support_x",
    lambda v: linear().floor(v),
    {
        "None": None,
        "points of another length": points(2, 5, 3),
        "shorter points": points(2, 5, 1),
        "one task": points(5, 2),
        "one point": points(2),
        "a number": 1.0,
        "strings": [[["a", "b"]]],
        "NaN": points(2, 5, 2) * np.nan,
        "four axes": points(2, 5, 2, 1),
        "a dict": {},
    },
)
THREE = {"support_x": (2, 5, 2), "support_y": (2, 5, 1), "query_x": (2, 4, 2)}
CEILINGS = {
    "LinearGaussian.bayes": (lambda v: linear().bayes(v), THREE),
    "GaussianProcess.posterior": (
        lambda v: data.GaussianProcess().posterior(v),
        {**THREE, "support_x": (2, 5, 1), "query_x": (2, 4, 1)},
    ),
}
for ceiling, (predict, parts) in CEILINGS.items():
    each(
        ceiling,
        "support_x",
        predict,
        {
            "None": None,
            "two tensors": (points(2, 5, 2), points(2, 5, 1)),
            "one tensor": points(2, 5, 2),
            "a dict": {"support_x": 1},
        },
    )
    for which in parts:
        right = {part: points(*shape) for part, shape in parts.items()}
        for described_part, value in {
            "longer inside": points(*parts[which][:-1], 3),
            "without its inner axis": points(*parts[which][:-1]),
            "None": None,
            "strings": np.full(parts[which], "a"),
            "of one task": points(1, *parts[which][1:]),
            "NaN": points(*parts[which]) * np.nan,
        }.items():
            wrong(
                f"{ceiling}, {which} is {described_part}",
                which,
                lambda predict=predict, inputs={**right, which: value}: predict(
                    tuple(inputs.values())
                ),
            )

# Gaussian processes.
for size in ("length", "scale", "noise"):
    positives(f"GaussianProcess({size})", lambda v, size=size: data.GaussianProcess(**{size: v}))
each("GaussianProcess(noise)", "noise", lambda v: data.GaussianProcess(noise=v), [1e-8])
each(
    "GaussianProcess.episodes(shots)",
    "shots",
    lambda v: data.GaussianProcess().episodes(shots=v),
    [(5, 3), (0, 3), (3, 4.5), (3,), (3, 4, 5), (), "35", None, (True, 3), {3: 5}],
)

# Functions to minimise.
counts("Quadratics(dimension)", lambda v: data.Quadratics(v), more=(None,))
QUADRATIC = (np.ones((2, 3, 3), "float32"), np.ones((2, 3), "float32"))
counts(
    "Quadratics.conjugate_gradients(steps)",
    lambda v: data.Quadratics.conjugate_gradients(THETA, QUADRATIC, v),
    more=(None,),
)
for described_theta, theta in {
    "None": None,
    "longer": points(2, 4),
    "one vector": points(3),
    "strings": [["a"] * 3] * 2,
    "of three functions": points(3, 3),
}.items():
    wrong(
        f"Quadratics.conjugate_gradients, theta is {described_theta}",
        "theta",
        lambda theta=theta: data.Quadratics.conjugate_gradients(theta, QUADRATIC, 1),
    )
    if described_theta != "one vector":
        wrong(
            f"Quadratics.values, theta is {described_theta}",
            "theta",
            lambda theta=theta: data.Quadratics.values(theta, QUADRATIC),
        )
for method, call in {
    "values": lambda v: data.Quadratics.values(THETA, v),
    "conjugate_gradients": lambda v: data.Quadratics.conjugate_gradients(THETA, v, 1),
}.items():
    each(
        f"Quadratics.{method}(problem)",
        r"problem|\bW\b",
        call,
        {
            "None": None,
            "W alone": QUADRATIC[0],
            "three": (*QUADRATIC, 1),
            "a y of another length": (QUADRATIC[0], points(2, 4)),
            "a W that is not square": (points(2, 3, 4), QUADRATIC[1]),
        },
    )
counts("NetworkTraining(batch)", lambda v: data.NetworkTraining(X, CLASSES, batch=v))
counts("NetworkTraining(hidden)", lambda v: data.NetworkTraining(X, CLASSES, (3, v)))
section("options")
each(
    "NetworkTraining(hidden)",
    "hidden",
    lambda v: data.NetworkTraining(X, CLASSES, v),
    [20, "20", None],
)
options(
    "NetworkTraining(activation)",
    lambda v: data.NetworkTraining(X, CLASSES, activation=v),
    ["sigmoidal", 3],
)
section("families")
each(
    "NetworkTraining(x)",
    r"\bx\b",
    lambda v: data.NetworkTraining(v, CLASSES),
    {
        "None": None,
        "a dict": {},
        "strings": X.astype(str) + "a",
        "complex numbers": X + 1j,
        "a number": 1.0,
        "too few": X[:-1],
        "none": X[:0],
        "a ragged list": [[1.0], [1.0, 2.0]],
        "NaN": X * np.nan,
    },
)
each(
    "NetworkTraining(y)",
    r"\by\b|labels",
    lambda v: data.NetworkTraining(X, v),
    {
        "None": None,
        "strings": CLASSES.astype(str),
        "floats": CLASSES / 1.0,
        "negative": CLASSES - 1,
        "bools": CLASSES > 0,
        "one-hot": np.eye(2, dtype=int)[CLASSES],
        "2**32 + 1": CLASSES + 2**32,
        "too few": CLASSES[:-1],
    },
)
for method, call in {
    "values": lambda theta: small_training().values(theta, [1, 2], 0),
    "predict": lambda theta: small_training().predict(theta, points(2, 5, 2)),
}.items():
    each(
        f"NetworkTraining.{method}(theta)",
        "theta",
        call,
        {"None": None, "too short": points(2, 3), "one vector": points(17), "strings": [["a"]]},
    )


def small_training():
    return data.NetworkTraining(X, CLASSES, hidden=(3,), batch=4)


# ------------------------------------------------------------------ pictures moved

PICTURES = points(2, 4, 4, 1)
section("pictures")
for move in (moved, randomly_moved):
    each(
        f"{move.__name__}(images)",
        "images",
        move,
        {
            "None": None,
            "one picture": PICTURES[0],
            "without channels": PICTURES[..., 0],
            "strings": np.full(PICTURES.shape, "a"),
            "a number": 1.0,
            "complex numbers": PICTURES + 1j,
            "a ragged list": [np.zeros((2, 2, 1)), np.zeros((3, 3, 1))],
            "NaN": PICTURES * np.nan,
        },
    )
    for how in ("rotation", "slant", "stretch", "shift"):
        each(
            f"{move.__name__}({how})",
            how,
            lambda v, move=move, how=how: move(PICTURES, **{how: v}),
            [np.nan, np.inf, "much", None],
            kind="numbers",
        )
section("numbers")
for how in ("rotation", "slant", "stretch", "shift"):
    each(
        f"moved({how}) of another number of pictures,",
        how,
        lambda v, how=how: moved(PICTURES, **{how: v}),
        {"three": np.ones((3, 2) if how in ("stretch", "shift") else 3, "float32")},
    )
    each(
        f"randomly_moved({how})",
        how,
        lambda v, how=how: randomly_moved(PICTURES, **{how: v}),
        [-0.1, True],
    )

# ------------------------------------------------------------------ notebooks, plots, tasks at once

seeds("setup(seed)", lambda v: mlutils.setup(v))
counts("setup(threads)", lambda v: mlutils.setup(0, threads=v))
flags("setup(deterministic)", lambda v: mlutils.setup(0, deterministic=v))
section("notebooks")
each(
    "judge(wrong)",
    "wrong",
    lambda v: mlutils.judge(len, [], v),
    {"nothing": {}, "None": None, "a list": [len], "a function": len, "not callable": 3},
)
each(
    "judge(test)",
    "test",
    lambda v: mlutils.judge(v, len, {"other": len}),
    {"None": None, "a string": "assert True"},
)
Table = mlutils.plot.Table
each(
    "Table(rows)",
    "row|cells",
    lambda v: Table(["a", "b"], v),
    {"of other lengths": [[1]], "None": None, "a number": 3, "numbers": [1, 2]},
)
each(
    "Table(header)",
    "header|column|cells",
    lambda v: Table(v, [[1, 2]]),
    {"None": None, "a number": 3, "of another length": ["a"]},
)


def label_line(axes=None, x=0.0, y=0.0, text="one", color="red", **options):
    import matplotlib

    figure = matplotlib.figure.Figure()
    return mlutils.plot.label_line(axes or figure.subplots(), x, y, text, color, **options)


each("label_line(axes)", "axes", lambda v: label_line(v), ["axes", 3])
each("label_line(color)", "colou?r", lambda v: label_line(color=v), ["no colour", 7])

section("tasks at once")
each(
    "map_tasks(function)",
    "function",
    lambda v: mlutils.map_tasks(v, points(2, 3)),
    {"None": None, "a string": "mean", "a number": 3},
)
each(
    "map_tasks(tasks)",
    "tasks?",
    lambda v: mlutils.map_tasks(lambda t: t, v),
    {
        "None": None,
        "a number": 1.0,
        "an empty tuple": (),
        "of two numbers of tasks": (points(2, 3), points(3, 3)),
        "objects": (np.array([None, 1]), points(2, 3)),
    },
)

# ------------------------------------------------------------------ networks fitted to a prior

for size in ("features", "classes", "units", "heads", "blocks"):
    counts(f"PriorFittedNetwork({size})", lambda v, size=size: PriorFittedNetwork(**{size: v}))
flags(
    "PriorFittedNetwork(standardize)",
    lambda v: PriorFittedNetwork(units=4, standardize=v),
)
for make in (mlutils.RandomTables, mlutils.GaussianClasses):
    counts(f"{make.__name__}(classes)", lambda v, make=make: make(classes=v), least=2)
    family(make().episodes, {"shots": 1, "queries": 1, "meta_batch": 1})
counts("RandomTables(features)", lambda v: mlutils.RandomTables(features=v), 2, more=(37,))
counts("GaussianClasses(features)", lambda v: mlutils.GaussianClasses(features=v))
positives("GaussianClasses(spread)", lambda v: mlutils.GaussianClasses(spread=v))
options("small_tables(columns)", mlutils.small_tables, [16, "none", None])


# ------------------------------------------------------------------ all of them


def chosen_calls(words=()):
    return [call for call in CALLS if all(word in str(call) for word in words)]


def main(words):
    """Print the outcomes of all calls whose names hold the words."""
    found = [(call, *outcome(call)) for call in chosen_calls(words)]
    by_kind = collections.defaultdict(collections.Counter)
    for call, result, _ in found:
        by_kind[call.kind][result] += 1
        by_kind["all"][result] += 1
    print(f"{'':20}" + "".join(f"{result:>10}" for result in OUTCOMES) + f"{'together':>10}")
    for kind, counted in by_kind.items():
        row = "".join(f"{counted[result]:>10}" for result in OUTCOMES)
        print(f"{kind:20}{row}{sum(counted.values()):>10}")
    for call, result, message in found:
        if result != "clear":
            print(f"{result:9} {call}\n          {' '.join(message.split())[:150]}")


if __name__ == "__main__":
    main(sys.argv[1:])
