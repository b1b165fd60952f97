"""N-way K-shot episodes from any labelled examples, sampled in graph."""

import numpy as np
import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_seed
from mlutils.door.tasks import as_inputs, as_tensor, finite
from mlutils.episodes import Episode, describe


def episodes(x, y, ways=5, shots=1, queries=5, meta_batch=16, seed=0):
    """Endless batches of N-way K-shot classification tasks.

    Each task draws ``ways`` different classes in random order, which get the labels
    0..ways-1, and from each class ``shots + queries`` different examples.
    Support and query set are each shuffled.

    Args:
        x: examples ``(n, ...)``; bytes (uint8) become 0..1 in the episodes, everything else
            float32.
        y: their classes ``(n,)``, numbers or strings.
        ways: N, classes per task.
        shots: K, support examples per class; 0 gives an empty support set.
        queries: query examples per class.
        meta_batch: tasks per batch.
        seed: 0 to 2**32 - 1.  The same seed gives the same batches, each time they are
            iterated.

    Returns:
        A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)``: float32
        ``(meta_batch, ways * shots, ...)`` and ``(meta_batch, ways * queries, ...)``, labels
        int32 ``(meta_batch, ways * shots)`` and ``(meta_batch, ways * queries)``.

    Raises:
        ValueError: if there are fewer than ``ways`` classes, or a class has fewer than
            ``shots + queries`` examples.
    """
    x = as_tensor("x", x)
    ways, shots = check_count("ways", ways), check_count("shots", shots, least=0)
    queries, meta_batch = check_count("queries", queries), check_count("meta_batch", meta_batch)
    seed = check_seed(seed)
    classes, index, counts = check_examples(x, y, ways, shots + queries)
    # Examples sorted by class: those of class c stand from starts[c] on.
    order = tf.constant(np.argsort(index, kind="stable"), tf.int32)
    starts = tf.constant(np.cumsum(counts) - counts, tf.int32)
    counts = tf.constant(counts, tf.int32)
    most = int(tf.reduce_max(counts))

    def gather(examples):
        chosen = tf.gather(x, examples)
        return tf.cast(as_inputs("x", chosen, tf.float32), tf.float32)

    def sample(draws):
        def distinct(shape, number):
            """``number`` different indices into the last axis of ``shape``, in random order."""
            return tf.math.top_k(draws.uniform(shape), number).indices

        def shuffled(examples):
            """One set of a task: ``(meta_batch, ways, each)`` -> inputs and labels."""
            each = examples.shape[-1]
            labels = tf.repeat(tf.range(ways), each)
            order = distinct((meta_batch, ways * each), ways * each)
            examples = tf.reshape(examples, (meta_batch, ways * each))
            return gather(tf.gather(examples, order, batch_dims=1)), tf.gather(labels, order)

        chosen = distinct((meta_batch, len(classes)), ways)
        ranks = draws.uniform((meta_batch, ways, most))
        exists = tf.range(most) < tf.gather(counts, chosen)[..., tf.newaxis]
        ranks = tf.where(exists, ranks, -1.0)
        examples = tf.math.top_k(ranks, shots + queries).indices
        examples = tf.gather(order, examples + tf.gather(starts, chosen)[..., tf.newaxis])
        support, query = examples[..., :shots], examples[..., shots:]
        return Episode(*shuffled(support), *shuffled(query)).element

    return endless(sample, seed)


def check_examples(x, y, ways, needed):
    """The classes, each example's class as an index, and the classes' sizes; or a ValueError."""
    try:
        y = np.asarray(y)
    except ValueError:
        raise TypeError(
            f"y must be an array of one shape, a class per example; got {describe(y)}."
        ) from None
    finite("x", x)
    if x.shape.rank == 0:
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
    classes, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(classes) < ways:
        raise ValueError(
            f"There are {len(classes)} classes, too few for tasks of {ways}: take ways <= "
            f"{len(classes)}, or more data."
        )
    if counts.min() < needed:
        raise ValueError(
            f"Class {classes[counts.argmin()]} has {counts.min()} examples, and shots + queries "
            f"is {needed}: take fewer, or leave out the classes that are too small."
        )
    return classes, index, counts
