"""N-way K-shot episodes from any labelled examples, sampled in graph."""

import numpy as np
import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_flag, check_seed
from mlutils.door.tasks import as_inputs, as_tensor, finite
from mlutils.episodes import Episode, describe


def episodes(x, y, ways=5, shots=1, queries=5, meta_batch=16, seed=0, classes=None, balanced=True):
    """Endless batches of N-way K-shot classification tasks.

    Each task draws ``ways`` different classes in random order, which get the labels
    0..ways-1, and from each class ``shots + queries`` different examples.
    Support and query set are each shuffled.

    Args:
        x: examples ``(n, ...)``; bytes (uint8) become 0..1 in the episodes, everything else
            float32.  A ``np.memmap`` stays on disk, and only what is drawn is read.
        y: their classes ``(n,)``, numbers or strings.
        ways: N, classes per task.
        shots: K, support examples per class; 0 gives an empty support set.
        queries: query examples per class.
        meta_batch: tasks per batch.
        seed: 0 to 2**32 - 1.  The same seed gives the same batches, each time they are
            iterated.
        classes: those of ``y`` to draw from; None for all.
        balanced: whether each class of a task has as many queries.  If not, the task's ``ways *
            queries`` queries are drawn from all that its support set leaves of its classes, so
            that a frequent class has more of them and a rare one few or none, as in real use.

    Returns:
        A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)``: float32
        ``(meta_batch, ways * shots, ...)`` and ``(meta_batch, ways * queries, ...)``, labels
        int32 ``(meta_batch, ways * shots)`` and ``(meta_batch, ways * queries)``.

    Raises:
        ValueError: if there are fewer than ``ways`` classes, or a class has fewer than
            ``shots + queries`` examples; or, if not ``balanced``, fewer than ``shots``, or the
            smallest classes together too few.
    """
    x, read = reader(x)
    ways, shots = check_count("ways", ways), check_count("shots", shots, least=0)
    queries, meta_batch = check_count("queries", queries), check_count("meta_batch", meta_batch)
    seed, balanced = check_seed(seed), check_flag("balanced", balanced)
    names, rows, index, counts = check_examples(x, y, classes)
    check_sizes(names, counts, ways, shots, queries, balanced)
    # Examples sorted by class: those of class c stand from starts[c] on.
    order = tf.constant(rows[np.argsort(index, kind="stable")], tf.int32)
    starts = tf.constant(np.cumsum(counts) - counts, tf.int32)
    counts = tf.constant(counts, tf.int32)
    most = int(tf.reduce_max(counts))

    def sample(draws):
        def distinct(shape, number):
            """``number`` different indices into the last axis of ``shape``, in random order."""
            return tf.math.top_k(draws.uniform(shape), number).indices

        def shuffled(labels, places):
            """One set of a task: labels, and places in their classes -> inputs and labels."""
            mixed = distinct(labels.shape, labels.shape[1])
            labels, places = (tf.gather(v, mixed, batch_dims=1) for v in (labels, places))
            examples = places + tf.gather(tf.gather(starts, chosen), labels, batch_dims=1)
            return read(tf.gather(order, examples)), labels

        def of_each(places):
            """Labels and places, both flat, of as many of each class: ``(meta_batch, ways, n)``."""
            labels = tf.repeat(tf.range(ways), places.shape[-1])
            places = tf.reshape(places, (meta_batch, len(labels)))
            return tf.broadcast_to(labels, places.shape), places

        chosen = distinct((meta_batch, len(names)), ways)
        shape = meta_batch, ways, most
        exists = tf.range(most) < tf.gather(counts, chosen)[..., tf.newaxis]
        ranks = tf.where(exists, draws.uniform(shape), -1.0)
        places = tf.math.top_k(ranks, shots + queries if balanced else shots).indices
        support, query = places[..., :shots], places[..., shots:]
        if balanced:
            return Episode(*shuffled(*of_each(support)), *shuffled(*of_each(query))).element
        taken = tf.reduce_any(tf.range(most) == support[..., tf.newaxis], axis=-2)
        # Drawn anew: where the highest ranks are taken, those that are left are low.
        ranks = tf.where(exists & ~taken, draws.uniform(shape), -1.0)
        flat = tf.math.top_k(tf.reshape(ranks, (meta_batch, -1)), ways * queries).indices
        query = flat // most, flat % most
        return Episode(*shuffled(*of_each(support)), *shuffled(*query)).element

    return endless(sample, seed)


def reader(x):
    """The examples, and a function from their numbers to inputs, float32, bytes as 0..1."""
    if not isinstance(x, np.memmap):
        x = finite("x", as_tensor("x", x))
    elif x.dtype.kind not in "biuf":
        raise TypeError(f"x must be an array of numbers, got one of {x.dtype}.")

    def read(examples):
        if isinstance(x, np.memmap):
            chosen = tf.numpy_function(x.__getitem__, [examples], x.dtype)
            chosen.set_shape(examples.shape + x.shape[1:])
        else:
            chosen = tf.gather(x, examples)
        return tf.cast(as_inputs("x", chosen, tf.float32), tf.float32)

    return x, read


def check_examples(x, y, classes):
    """The classes that are drawn from, the numbers of their examples, and more; or an error.

    Returns:
        ``(names, rows, index, counts)``: names of classes, positions of their examples in ``x``,
        each example's class as a position in ``names``, and the classes' sizes.
    """
    try:
        y = np.asarray(y)
    except ValueError:
        raise TypeError(
            f"y must be an array of one shape, a class per example; got {describe(y)}."
        ) from None
    if len(x.shape) == 0:
        raise ValueError("x must be an array of numbers, one example per row; got a number.")
    if y.dtype == object and all(isinstance(name, str) for name in y.flat):
        y = y.astype(str)
    if y.dtype == object:
        raise TypeError("y must be an array of numbers or strings, got one of Python objects.")
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise ValueError(f"y must hold classes; {np.isnan(y).sum()} of {y.size} are NaN.")
    if y.ndim != 1 or len(x) != len(y):
        raise ValueError(
            f"x holds {len(x)} examples and y has shape {y.shape}; y must be one class per "
            f"example, of shape ({len(x)},)."
        )
    rows = np.flatnonzero(np.isin(y, check_classes(y, classes)))
    names, index, counts = np.unique(y[rows], return_inverse=True, return_counts=True)
    return names, rows, index, counts


def check_classes(y, classes):
    """The classes of ``y``, or those of them that ``classes`` names; or an error."""
    there = np.unique(y)
    if classes is None:
        return there
    if isinstance(classes, (str, bytes)) or not hasattr(classes, "__iter__"):
        raise TypeError(f"classes must be several classes of y, or None; got {classes!r}.")
    known = there.tolist()
    unknown = [c for c in classes if c not in known]
    if unknown:
        raise ValueError(
            f"No examples of the classes {unknown[:5]}; y holds {len(known)}, such as {known[:5]}."
        )
    return np.array(list(classes), there.dtype)


def check_sizes(names, counts, ways, shots, queries, balanced):
    """Raise where the classes are too few or too small for tasks like these."""
    if len(names) < ways:
        raise ValueError(
            f"There are {len(names)} classes, too few for tasks of {ways}: take ways <= "
            f"{len(names)}, or more data."
        )
    needed, what = (shots + queries, "shots + queries is") if balanced else (shots, "shots are")
    if counts.min() < needed:
        raise ValueError(
            f"Class {names[counts.argmin()]} has {counts.min()} examples, and {what} "
            f"{needed}: take fewer, or leave out the classes that are too small."
        )
    left = int(np.sort(counts)[:ways].sum()) - ways * shots
    if left < ways * queries:
        raise ValueError(
            f"The {ways} smallest classes have {left} examples together beside their {shots} shots "
            f"each, and ways * queries is {ways * queries}: take fewer, or leave out the classes "
            "that are too small."
        )
