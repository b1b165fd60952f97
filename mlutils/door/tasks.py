"""Tasks at the door: what users hand in as inputs, labels and datasets becomes checked tensors.

Shapes are checked always, values wherever they are known: not while a graph is made.
"""

import contextlib
import functools
import inspect
import re

import keras
import numpy as np
import tensorflow as tf

from mlutils.door.losses import check_comparable
from mlutils.episodes import Episode, describe

# Users' tf.functions need not translate what only looks at shapes and at known values.
as_written = tf.autograph.experimental.do_not_convert

# ------------------------------------------------------------------ one tensor


@as_written
def as_tensor(name, value):
    """What ``value`` holds as a dense tensor of numbers or bools; or a TypeError."""
    what = f"{name} must be an array of numbers"
    if isinstance(value, (str, bytes, dict, set, tf.RaggedTensor, tf.SparseTensor)):
        raise TypeError(f"{what}, dense and of one shape; got {describe(value)}.")
    try:
        if not tf.is_tensor(value) and hasattr(value, "__array__"):
            value = np.asarray(value)
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError, tf.errors.OpError):
        raise TypeError(f"{what}, dense and of one shape; got {describe(value)}.") from None
    dtype = tensor.dtype
    if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
        hint = " (np.unique(y, return_inverse=True)[1] numbers names)" * (dtype == tf.string)
        raise TypeError(f"{what}{hint}; got {dtype.name} of shape {tuple(tensor.shape)}.")
    return tensor


@as_written
def as_inputs(name, value, dtype, network=None):
    """Inputs as a tensor: bytes (uint8) as 0..1, floats and bools in ``dtype``, integers as came.

    A network whose ``keras.Input`` has an integer dtype gets its bytes as they are.
    """
    tensor = as_tensor(name, value)
    if tensor.dtype == tf.uint8 and not takes_integers(network):
        return tf.cast(tensor, dtype) / 255
    if tensor.dtype.is_integer:
        return tensor
    return finite(name, tf.cast(tensor, dtype))


@as_written
def as_targets(name, value, dtype):
    """Targets as a tensor: floats in ``dtype``, labels as they came."""
    tensor = as_tensor(name, value)
    return finite(name, tf.cast(tensor, dtype)) if tensor.dtype.is_floating else tensor


def takes_integers(network):
    """Whether a network's input is declared to be integers."""
    inputs = getattr(network, "inputs", None) or []
    return any("int" in x.dtype for x in inputs)


@as_written
def finite(name, tensor):
    """The tensor; or a ValueError if it holds what is not a finite number."""
    values = known(tensor)
    if values is not None and not np.isfinite(values.sum()) and not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(
            f"{name} must hold finite numbers; at {place} it holds {values[place]}: leave the "
            "example out, or fill in what is missing."
        )
    return tensor


def sizes_of(tensor):
    """Its shape as a list: a number where it is known, a tensor where not."""
    dynamic = tf.shape(tensor)
    return [dynamic[i] if size is None else size for i, size in enumerate(tensor.shape)]


@as_written
def known(tensor):
    """A tensor's values as an array, or None while a graph is made."""
    values = tf.get_static_value(tensor)
    if values is not None and values.dtype.kind == "V":  # bfloat16
        values = values.astype(np.float32)
    return values


@as_written
def assert_finite(tensors):
    """Operations of a graph that fail where floats are not finite; XLA drops them."""
    if tf.executing_eagerly():
        return []
    return [
        tf.debugging.check_numerics(x, "Inputs and targets must hold finite numbers")
        for x in tf.nest.flatten(tensors)
        if x is not None and x.dtype.is_floating
    ]


# ------------------------------------------------------------------ labels


@as_written
def check_predicted(learner, targets, loss):
    """Raise if targets are not of the shape that a learner predicts, or as a loss takes them."""
    shape = learner.predicts()
    if shape is not None:
        predicted = tf.TensorSpec([None, None, *shape], learner.compute_dtype)
        check_comparable(loss and keras.losses.get(loss), targets, predicted)


@as_written
def check_labels(name, labels, ways, complete=False):
    """Raise unless labels are integers 0..ways-1, where their values are known.

    Args:
        name: of the argument.
        labels: integers, ``(tasks, n)``.
        ways: how many classes there are.
        complete: whether every task must have an example of each up to the highest.
    """
    values = known(labels)
    if values is None or values.size == 0 or not isinstance(ways, int):
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= ways:
        why = f"every class, labelled 0..N-1, needs one of the {ways} examples"
        raise ValueError(
            f"The labels in {name} run from {low} to {high}; allowed are 0 to {ways - 1}, because "
            f"{why if complete else f'there are {ways} classes'}."
        )
    for task in values if complete else ():
        if missing := sorted(set(range(high + 1)) - set(task.tolist())):
            raise ValueError(
                "Every task needs support examples of every class, labelled 0..N-1; "
                f"{name} has labels up to {high} and in one task none of {missing}."
            )


@as_written
def check_classes(labels):
    """Raise unless support labels ``(tasks, S)`` are integers 0..N-1 with an example of each.

    ``(tasks, S, N)`` bools, true where an example is of a class, are allowed too.
    """
    if labels.dtype.is_bool and labels.shape.rank == 3:
        return
    if not labels.dtype.is_integer or labels.shape.rank not in (2, None):
        raise ValueError(
            f"The labels of a task have shape {labels.shape[1:]} and dtype {labels.dtype.name}; "
            "classes need (S,) integer labels 0..N-1."
        )
    check_labels("support_y", labels, labels.shape[1], complete=True)


@as_written
def assert_labels(name, labels, ways):
    """Labels of a graph, with an assertion that they are 0..ways-1."""
    numbers = tf.cast(labels, tf.int64)
    wrong = tf.reduce_any((numbers < 0) | (numbers >= tf.cast(ways, tf.int64)))
    message = f"The labels in {name} must be 0..N-1, one of the N classes of the task"
    with tf.control_dependencies([tf.debugging.Assert(~wrong, [message])]):
        return tf.identity(labels)


# ------------------------------------------------------------------ tasks


def one_task(adapt):
    """A learner's ``adapt``, with checked tensors for one task, and a predictor that checks too."""

    @functools.wraps(adapt)
    def checked(self, support_x, support_y=None, *args, **options):
        x, y = read_support(self, support_x, support_y, axes=1)
        return predictor(self, adapt(self, x, y, *args, **options))

    return checked


def predictor(learner, predict):
    """A predictor for one task whose queries are checked: ``(Q, ...)`` -> ``(Q, ...)``."""
    return lambda query_x: predict(read_queries(learner, query_x, axes=1))


@as_written
def read_support(learner, x, y, axes=2):
    """One task's support set (``axes=1``) or a batch's (2), as tensors that fit the learner."""
    network, dtype = learner.sees()[0], learner.compute_dtype
    names = ("signatures", "labels") if learner.described else ("support_x", "support_y")
    described = learner.described  # attributes are numbers, and bytes among them no pictures
    x = as_targets(names[0], x, dtype) if described else as_inputs(names[0], x, dtype, network)
    y = as_targets(names[1], y, dtype)
    check_examples(names[0], x.shape, axes, network, learner.fewest)
    if y.shape.rank == 0 or not x.shape[:axes].is_compatible_with(y.shape[:axes]):
        raise ValueError(
            f"{names[0]} has shape {x.shape} and {names[1]} {y.shape}; allowed are {READ[axes]} in "
            "both, with one target for each input."
        )
    if axes == 1:
        learner.check_tasks(x[tf.newaxis], y[tf.newaxis])
    else:
        learner.check_tasks(x, y)
    return x, y


@as_written
def read_queries(learner, x, axes=2, name="query_x"):
    """Queries of one task (``axes=1``) or of a batch (2) as a tensor that fits the learner."""
    network = learner.sees()[1]
    x = as_inputs(name, x, learner.compute_dtype, network)
    check_examples(name, x.shape, axes, network)
    return x


@as_written
def read_inputs(learner, inputs):
    """``(support_x, support_y, query_x)`` of a batch of tasks as tensors that fit the learner."""
    if not isinstance(inputs, (tuple, list)) or len(inputs) != 3:
        raise ValueError(
            "A learner takes (support_x, support_y, query_x); got "
            f"{describe(inputs)}. fit and evaluate take a dataset of "
            "((support_x, support_y, query_x), query_y), or x and y like that: "
            "fit(*episode.element)."
        )
    support_x, support_y = read_support(learner, *inputs[:2])
    query_x = read_queries(learner, inputs[2])
    if not support_x.shape[:1].is_compatible_with(query_x.shape[:1]):
        raise ValueError(
            f"support_x has shape {support_x.shape} and query_x {query_x.shape}; allowed are equal "
            "numbers of tasks, the first axis."
        )
    return support_x, support_y, query_x


@as_written
def read_episode(learner, element, scored=False):
    """The four tensors of a batch of tasks ``((support_x, support_y, query_x), query_y)``.

    Where it is only ``scored``, the queries' targets need not be such as the loss takes.
    """
    inputs, query_y = Episode.from_element(element).element
    inputs = learner.checked_inputs(inputs)
    return *inputs, read_query_y(learner, inputs, query_y, scored)


@as_written
def read_query_y(learner, inputs, query_y, scored=False):
    """The queries' targets as a tensor that fits the checked inputs of a batch of tasks."""
    query_x, query_y = inputs[-1], as_targets("query_y", query_y, learner.compute_dtype)
    if query_y.shape.rank == 1 or not query_x.shape[:2].is_compatible_with(query_y.shape[:2]):
        raise ValueError(
            f"query_x has shape {query_x.shape} and query_y {query_y.shape}; tasks and queries "
            "(the first two axes) must agree: one target for each query."
        )
    check_predicted(learner, query_y, None if scored else getattr(learner, "loss", None))
    if query_y.dtype.is_integer and (ways := learner.classes(inputs[1])) is not None:
        check_labels("query_y", query_y, known_number(ways))
    return query_y


class Anyone:
    """Who takes the tasks of a rule that is no learner: numbers of any shape."""

    described, fewest = False, 0

    def __init__(self, compute_dtype="float32"):
        self.compute_dtype = compute_dtype

    def sees(self):
        return None, None

    def check_tasks(self, support_x, support_y):
        pass

    def classes(self, support_y):
        return None

    def predicts(self):
        return None

    def checked_inputs(self, inputs):
        return read_inputs(self, inputs)


READ = {1: "(S, ...)", 2: "(tasks, S, ...)"}


def check_examples(name, shape, axes, network, fewest=1):
    """Raise unless a shape is one of examples that a network takes, with axes of tasks before."""
    one = one_input(network)
    allowed = READ[axes].replace("S", "Q" if name == "query_x" else "S")
    if one is not None:
        allowed = allowed.replace("...", ", ".join(str(n) for n in one)).replace(", )", ",)")
    if shape.rank is None:
        return
    inside = shape[axes:]
    if (
        shape.rank < axes
        or (fewest and 0 in shape[:axes])
        or (one is not None and not fits(inside, one))
    ):
        other = (
            "For one task use adapt(support_x, support_y)."
            if axes == 2
            else "A batch of tasks is for call: learner((support_x, support_y, query_x))."
        )
        raise ValueError(
            f"{name} has shape {shape}; allowed is {allowed}, at least one of each. {other}"
        )


def fits(shape, one):
    return shape.rank == one.rank and shape.is_compatible_with(one)


def one_input(network):
    """The shape of one of a network's inputs, if it is not given itself; None if not known."""
    if isinstance(network, tf.TensorShape):
        return network
    shape = shape_of(network, "input_shape")
    return None if shape is None else shape[1:]


def known_number(ways):
    """A number that may be a tensor as an int, or None while a graph is made."""
    value = tf.get_static_value(ways)
    return None if value is None else int(value)


def shape_of(model, name):
    """A model's ``input_shape`` or ``output_shape``, or None where it has no single one."""
    try:
        shape = getattr(model, name)
    except (AttributeError, ValueError):  # a subclassed model does not know
        return None
    known = isinstance(shape, tuple) and all(n is None or isinstance(n, int) for n in shape)
    return tf.TensorShape(shape) if known else None


@as_written
def of_queries(weights, query_y):
    """Sample weights of tasks or of queries as ``(tasks, 1)`` or ``(tasks, Q)``; None stays."""
    if weights is None:
        return None
    tasks, count = query_y.shape[:2]
    allowed = [tasks], [tasks, 1], [tasks, count]
    if not any(weights.shape.is_compatible_with(shape) for shape in allowed):
        raise ValueError(
            f"sample_weight has shape {weights.shape} and query_y {query_y.shape}; allowed are "
            "(tasks,) and (tasks, Q)."
        )
    return tf.reshape(weights, (tf.shape(query_y)[0], -1))


# ------------------------------------------------------------------ datasets


def check_ends(data, steps, argument):
    """Raise if a dataset never ends and nobody has said after how many steps to stop."""
    if steps is None and data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"The dataset is endless: say after how many batches to stop, {argument}=...."
        )


def without_values(check):
    """A check of tensors as one of their specs, such as a dataset's ``element_spec``."""

    def of_specs(specs):
        def run(*flat):
            check(tf.nest.pack_sequence_as(specs, flat))

        tf.function(run, autograph=False).get_concrete_function(*tf.nest.flatten(specs))

    return of_specs


def with_weights(element):
    """``(inputs, query_y, weights)`` of an element of a dataset, with or without weights."""
    triple = isinstance(element, tuple) and len(element) == 3 and isinstance(element[0], tuple)
    element, weights = (element[:2], element[2]) if triple else (element, None)
    if not isinstance(element, (tuple, list)) or len(element) != 2:
        Episode.from_element(element)  # raises, or it is one
        element = element.element
    return *element, weights


class SingleEpisode(list):
    """The one batch of tasks of an ``Episode`` that was given in a dataset's place."""


def as_batches(episodes):
    """An iterable of batches of tasks; a single ``Episode`` becomes a list of one."""
    if isinstance(episodes, Episode):
        return SingleEpisode([episodes])
    if isinstance(episodes, (str, bytes, dict)) or not hasattr(episodes, "__iter__"):
        raise TypeError(
            "episodes must be an iterable of batches ((support_x, support_y, query_x), query_y), "
            f"such as mlutils.data.sinusoids(seed=1), or an Episode; got {describe(episodes)}."
        )
    return episodes


def check_learner(learner):
    """Raise a TypeError for what is no learner."""
    if isinstance(learner, type) or not hasattr(learner, "checked_inputs"):
        raise TypeError(
            f"learner must be an mlutils.MetaLearner, got {describe(learner)}; for another "
            "rule use mlutils.score."
        )


@as_written
def check_options(learner, options):
    """Raise a TypeError for options that a learner's ``adapt`` does not take."""
    adapt = list(inspect.signature(learner.adapt).parameters.values())[2:]
    call = list(inspect.signature(learner.call).parameters.values())[2:]
    if any(p.kind is p.VAR_KEYWORD for p in adapt):
        return
    allowed = [p.name for p in adapt + call if p.kind is not p.VAR_KEYWORD]
    if unknown := [option for option in options if option not in allowed]:
        raise TypeError(
            f"{type(learner).__name__}.adapt takes no {unknown[0]!r}; its options are "
            f"{allowed or 'none'}."
        )


WORDS = re.compile(
    r"assertion failed: \[b?'?([^]']*)|(Received a label value of .*? range of \[.*?\))"
    r"|(Inputs and targets must hold finite numbers)"
)


@contextlib.contextmanager
def short_errors():
    """What a graph finds wrong with the values of users' data, as a ValueError of one sentence."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if found := WORDS.search(error.message):
            words = next(group for group in found.groups() if group)
            raise ValueError(words.rstrip(".") + ".") from None
        raise
