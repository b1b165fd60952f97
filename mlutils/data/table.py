"""Tables with a task column: patients, shops, sensors, each with a few rows of its own."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from mlutils.data.plumbing.columns import (
    ADVICE_FOR_TARGETS,
    about_missing,
    absent,
    column_of,
    labels,
    named,
    numbers,
)
from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_flag, check_option, check_seed, is_finite
from mlutils.episodes import Episode, describe


def table(rows, task, inputs, target, classes=None, missing="error"):
    """The tasks of a table: the rows that have the same value in its task column are one task.

    Args:
        rows: a DataFrame, a dict from names to arrays, a structured array, or anything else with
            ``columns`` and ``rows[name]``.
        task: the name of the column that says which task a row belongs to, by strings or whole
            numbers.
        inputs: the names of the input columns; each holds numbers.  Text becomes several
            columns of 0 and 1 before, and a date becomes what may matter of it, as numbers.
        target: the name of the target column.
        classes: None if the target is a number; for classification the values that the target
            column takes, in the order of the labels 0..N-1.  They mean the same in all tasks.
        missing: ``"error"``, or ``"drop"`` to leave out every row in which one of these columns
            has no value.

    Returns:
        ``TableTasks``, sorted by name.

    Raises:
        TypeError: if ``rows`` has no named columns.
        ValueError: if a column does not exist, lacks values, or holds what is no number.
    """
    check_option("missing", missing, ("error", "drop"))
    inputs = check_inputs(inputs, task, target)
    found = {name: column_of(rows, name) for name in dict.fromkeys([task, *inputs, target])}
    sizes = {name: len(values) for name, values in found.items()}
    if len(set(sizes.values())) > 1 or not sizes[task]:
        raise ValueError(f"Columns must have the same length, at least 1; got {sizes}.")
    lacking = np.stack([absent(values) for values in found.values()])
    if missing == "error" and lacking.any():
        raise ValueError(about_missing(found, task, lacking))
    kept = ~lacking.any(axis=0)
    if not kept.any():
        raise ValueError(f"No row has a value in each of the columns {list(found)}.")
    columns = {name: values[kept] for name, values in found.items()}
    places = np.flatnonzero(kept)
    x = np.stack([numbers(name, columns[name], places) for name in inputs], axis=1)
    if classes is None:
        y = numbers(target, columns[target], places, ADVICE_FOR_TARGETS)[:, None]
    else:
        classes, y = labels(target, columns[target], classes)
    names, owners = named(task, columns[task])
    order = np.argsort(owners, kind="stable")
    dropped = int(len(kept) - kept.sum())
    return TableTasks(
        names, owners[order], x[order], y[order], inputs, target, classes, dropped=dropped
    )


@dataclass(frozen=True, eq=False, repr=False)
class TableTasks:
    """The tasks of a table, made by ``mlutils.data.table``.

    Attributes:
        names: the tasks' names, the values of the task column, sorted.
        owners: int ``(rows,)``, each row's task, as a position in ``names``; ascending.
        x: float64 ``(rows, inputs)``, in the table's units.
        y: float64 ``(rows, 1)`` in the table's units, or int32 labels ``(rows,)``.
        inputs: the names of the input columns.
        target: the name of the target column.
        classes: what the labels 0..N-1 mean; None if the target is a number.
        scaling: the ``Scaling`` that ``episodes`` applies; None leaves the table's units.
        dropped: how many rows of the table were left out for missing values; 0 in a part of it.

    Example:
        >>> rows = {"shop": list("aaabbb"), "day": [1, 2, 3, 1, 2, 3], "sold": [5, 6, 7, 1, 1, 2]}
        >>> tasks = mlutils.data.table(rows, task="shop", inputs=["day"], target="sold")
        >>> tasks
        2 tasks of 3 rows: sold from day
        >>> train, test = tasks.split((0.5, 0.5))
        >>> inputs, query_y = next(iter(train.episodes(shots=1, queries=2, meta_batch=4)))
        >>> tuple(query_y.shape)
        (4, 2, 1)
    """

    names: tuple
    owners: np.ndarray
    x: np.ndarray
    y: np.ndarray
    inputs: tuple[str, ...]
    target: str
    classes: tuple | None = None
    scaling: "Scaling | None" = None
    dropped: int = 0

    def __len__(self):
        """The number of tasks."""
        return len(self.names)

    def __repr__(self):
        least, most = self.sizes.min(), self.sizes.max()
        of = f"{least}" if least == most else f"{least} to {most}"
        without = f"; {self.dropped} rows without a value left out" if self.dropped else ""
        return (
            f"{len(self)} task{'s' if len(self) > 1 else ''} of {of} row{'s' if most > 1 else ''}: "
            f"{self.target} from {', '.join(map(str, self.inputs))}{without}"
        )

    @property
    def sizes(self):
        """The number of rows of each task, int ``(tasks,)``."""
        return np.bincount(self.owners, minlength=len(self))

    def rows_of(self, name):
        """One task's ``x`` and ``y``, in the table's units."""
        mine = self.owners == self.positions([name])[0]
        return self.x[mine], self.y[mine]

    def of_tasks(self, names):
        """Some tasks only, by a collection of their names; the scaling stays."""
        positions = sorted(self.positions(names))
        if not positions:
            raise ValueError("names must be one task or more, got none.")
        kept = np.isin(self.owners, positions)
        owners = np.searchsorted(positions, self.owners[kept])
        names = tuple(self.names[i] for i in positions)
        x, y = self.x[kept], self.y[kept]
        return replace(self, names=names, owners=owners, x=x, y=y, dropped=0)

    def at_least(self, rows):
        """The tasks with so many rows or more; for classification, of each class."""
        enough = self.counts().min(axis=1) >= check_count("rows", rows)
        if not enough.any():
            raise ValueError(f"No task has {rows} rows{self.per_class}: {self!r}.")
        return self.of_tasks([name for name, keep in zip(self.names, enough, strict=True) if keep])

    def split(self, parts=(0.6, 0.2, 0.2), seed=0, standardize=True):
        """Deal the *tasks*, never their rows, into parts: training first.

        Args:
            parts: shares of the tasks, which sum to 1, dealt at random; or one collection of names
                for each part, with no name in two (tasks that are relatives belong into one part).
            seed: 0 to 2**32 - 1; another seed deals otherwise.
            standardize: give all parts the ``Scaling`` of the first: what is held out has no say.
                False gives them none, even if these tasks have one.

        Returns:
            A list of ``TableTasks``.
        """
        seed, standardize = check_seed(seed), check_flag("standardize", standardize)
        if isinstance(parts, np.ndarray) and parts.ndim:
            parts = parts.tolist()
        if not isinstance(parts, (tuple, list)) or not parts:
            raise TypeError(f"parts must be a tuple of shares or of names, got {describe(parts)}.")
        if all(is_finite(part) for part in parts):
            parts = self.dealt(parts, seed)
        found = [self.of_tasks(names) for names in parts]
        check_apart(found)
        scaling = Scaling.of(found[0]) if standardize else None
        return [replace(part, scaling=scaling) for part in found]

    def scaled_like(self, other):
        """These tasks with the scaling of others: new ones with that of the training tasks."""
        if not isinstance(other, TableTasks) or other.scaling is None:
            raise ValueError("other must be tasks with a scaling, such as a part that split made.")
        mine, theirs = ((t.inputs, t.target, t.classes) for t in (self, other))
        if mine != theirs:
            raise ValueError(
                f"The columns must be the same, inputs, target and classes: {mine} and {theirs}."
            )
        return replace(self, scaling=other.scaling)

    def episodes(self, shots=5, queries=10, meta_batch=16, seed=0):
        """Endless batches of tasks, each drawn with equal chance, however many rows it has.

        Support and query rows are different rows of the task, drawn at random.

        Args:
            shots: K, support rows of a task, of each class if there are classes; or the least and
                the most of them: then each batch draws its own number.
            queries: query rows, of each class if there are classes.
            meta_batch: tasks per batch; None takes every task once, in the order of ``names``,
                which is what to judge by: the interval should be over tasks.
            seed: 0 to 2**32 - 1.  The same seed gives the same batches, each time they are
                iterated.

        Returns:
            A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)``, with
            ``scaling`` applied: float32 ``(meta_batch, rows, inputs)`` and ``(meta_batch, rows,
            1)``, or int32 labels ``(meta_batch, rows)``.

        Raises:
            ValueError: if a task has fewer than ``shots + queries`` rows.
        """
        least, most = check_shots(shots)
        queries, seed = check_count("queries", queries), check_seed(seed)
        every = meta_batch is None
        tasks = len(self) if every else check_count("meta_batch", meta_batch)
        self.check_sizes(most + queries)
        order, counts, ways = self.order(), self.counts(), self.ways
        starts = tf.reshape(tf.constant(np.cumsum(counts) - counts.ravel(), tf.int32), (-1, ways))
        largest, counts = int(counts.max()), tf.constant(counts, tf.int32)
        scaling = self.scaling or Scaling.none(self)
        x = tf.constant(scaling.scale_x(self.x)[order], tf.float32)
        y = self.y if self.classes else np.float32(scaling.scale_y(self.y))
        y = tf.constant(y[order])

        def sample(draws):
            def shuffled(rows):
                """One set of each task, ``(tasks, ways, each)`` -> ``(tasks, ways * each)``."""
                rows = tf.reshape(rows, (tasks, -1))
                ranks = tf.argsort(draws.uniform((tasks, tf.shape(rows)[1])), axis=1)
                rows = tf.gather(rows, ranks, batch_dims=1)
                return tf.gather(x, rows), tf.gather(y, rows)

            chosen = tf.range(tasks)
            if not every:
                chosen = tf.cast(draws.uniform((tasks,)) * len(self), tf.int32)
            ranks = draws.uniform((tasks, ways, largest))
            exists = tf.range(largest) < tf.gather(counts, chosen)[..., tf.newaxis]
            rows = tf.math.top_k(tf.where(exists, ranks, -1.0), most + queries).indices
            rows += tf.gather(starts, chosen)[..., tf.newaxis]
            kept = least
            if most > least:
                kept += tf.cast(draws.uniform(()) * (most + 1 - least), tf.int32)
            support, query = rows[..., :kept], rows[..., most:]
            return Episode(*shuffled(support), *shuffled(query)).element

        return endless(sample, seed)

    # ------------------------------------------------------------ what the methods share

    @property
    def ways(self):
        return len(self.classes) if self.classes else 1

    @property
    def per_class(self):
        return " of each class" if self.classes else ""

    def groups(self):
        """Each row's task and class as one number."""
        return self.owners * self.ways + (self.y if self.classes else 0)

    def order(self):
        """The rows, those of one task and class side by side."""
        return np.argsort(self.groups(), kind="stable")

    def counts(self):
        """The rows of each task and class, ``(tasks, ways)``."""
        size = len(self) * self.ways
        return np.bincount(self.groups(), minlength=size).reshape(-1, self.ways)

    def positions(self, names):
        """Where names are in ``names``; a ValueError for one that is not there, or twice."""
        if isinstance(names, str) or not hasattr(names, "__iter__"):
            raise TypeError(f"names must be a collection of tasks' names, got {names!r}.")
        names, known = list(names), {name: i for i, name in enumerate(self.names)}
        for name in names:
            check_hashable(name, "names must be a collection of tasks' names")
        unknown = [name for name in names if name not in known]
        if unknown or len(set(names)) < len(names):
            raise ValueError(
                f"names must be different tasks of these {len(self)}, {self.names[0]!r} to "
                f"{self.names[-1]!r}; got {unknown[0] if unknown else 'one twice'!r}."
            )
        return [known[name] for name in names]

    def dealt(self, shares, seed):
        """Names for each part, at random."""
        if min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ValueError(f"parts must be positive shares that sum to 1, got {shares!r}.")
        ends = np.rint(np.cumsum([0, *shares]) * len(self)).astype(int)
        if np.diff(ends).min() < 1:
            raise ValueError(f"{len(self)} tasks are too few for shares of {shares!r}.")
        dealt = np.random.default_rng(seed).permutation(len(self))
        parts = [dealt[low:high] for low, high in itertools.pairwise(ends)]
        return [[self.names[i] for i in part] for part in parts]

    def check_sizes(self, needed):
        """A ValueError if a task is too small for its episodes."""
        counts = self.counts()
        small = np.flatnonzero(counts.min(axis=1) < needed)
        if len(small):
            class_ = counts[small[0]].argmin()
            of = f" of class {self.classes[class_]!r}" if self.classes else ""
            raise ValueError(
                f"Task {self.names[small[0]]!r} has {counts[small[0], class_]} rows{of}, and shots "
                f"+ queries is {needed}; so it is with {len(small)} of {len(self)} tasks. Take "
                f"fewer, or leave them out: at_least({needed})."
            )


@dataclass(frozen=True, eq=False)
class Scaling:
    """What training tasks say of location and spread: from the table's units to a learner's.

    Attributes:
        x_mean: float64 ``(inputs,)``.
        x_spread: float64 ``(inputs,)``, standard deviations over all rows; 1 for a constant.
        y_mean: float; 0 for classes.
        y_spread: float; 1 for classes.

    Example:
        >>> scaling = mlutils.data.Scaling(np.array([1990.0]), np.array([10.0]), 4.0, 2.0)
        >>> scaling.scale_x([[2000], [2010]]).tolist(), scaling.scale_y([[5]]).tolist()
        ([[1.0], [2.0]], [[0.5]])
        >>> scaling.unscale_y([[0.5]]).tolist()
        [[5.0]]
    """

    x_mean: np.ndarray
    x_spread: np.ndarray
    y_mean: float
    y_spread: float

    @classmethod
    def of(cls, tasks):
        """Learned from all rows of some tasks."""
        x_mean, x_spread = mean_and_spread(tasks.x)
        if tasks.classes is not None:
            return cls(x_mean, x_spread, 0.0, 1.0)
        y_mean, y_spread = mean_and_spread(tasks.y)
        return cls(x_mean, x_spread, float(y_mean[0]), float(y_spread[0]))

    @classmethod
    def none(cls, tasks):
        """Leaves the units."""
        return cls(np.zeros(tasks.x.shape[1]), np.ones(tasks.x.shape[1]), 0.0, 1.0)

    def scale_x(self, x):
        """Inputs ``(..., inputs)`` of the table, as the learner gets them."""
        x, inputs = np.asarray(x, np.float64), len(self.x_mean)
        if x.shape[-1:] != (inputs,):
            raise ValueError(f"x must be (..., inputs) with {inputs} inputs, got shape {x.shape}.")
        return (x - self.x_mean) / self.x_spread

    def scale_y(self, y):
        """Targets of the table, as the learner gets them."""
        return (np.asarray(y, np.float64) - self.y_mean) / self.y_spread

    def unscale_y(self, y):
        """A learner's predictions, in the table's units."""
        return np.asarray(y, np.float64) * self.y_spread + self.y_mean


def mean_and_spread(values):
    """Of each column; a constant, whose computed spread may be rounding, is itself, and 1."""
    constant = values.max(axis=0) == values.min(axis=0)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    return np.where(constant, values[0], mean), np.where(constant, 1.0, spread)


def check_apart(parts):
    """A ValueError if a task is in two parts."""
    seen = set()
    for part in parts:
        if twice := seen & set(part.names):
            raise ValueError(f"parts must have no task in common; {min(twice)!r} is in two.")
        seen |= set(part.names)


def check_shots(shots):
    """The least and the most."""
    least, most = shots if isinstance(shots, (tuple, list)) and len(shots) == 2 else (shots, shots)
    least = check_count("shots", least)
    return least, check_count("shots", most, least)


def check_hashable(name, says):
    """A TypeError for what can be no name, such as a list."""
    try:
        hash(name)
    except TypeError:
        raise TypeError(f"{says}, got {name!r}.") from None


def check_inputs(inputs, task, target):
    says = f'inputs must be a list of column names, such as ["year"]; got {inputs!r}.'
    if isinstance(inputs, str) or not hasattr(inputs, "__iter__"):
        raise TypeError(says)
    inputs = tuple(inputs)  # once: it may be a generator
    if not inputs:
        raise TypeError(says)
    if isinstance(task, (list, tuple)):
        raise TypeError(f"task must be one column; join several into one. Got {task!r}.")
    for name in (*inputs, task, target):
        check_hashable(name, "inputs, task and target must be names of columns")
    used = (*inputs, task, target)
    if twice := [name for name in used if used.count(name) > 1]:
        raise ValueError(f"inputs, task and target must be different columns; {twice[0]!r} is two.")
    return inputs
