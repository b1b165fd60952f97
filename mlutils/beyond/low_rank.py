"""Low-rank adapters: what is added to a frozen matrix is a product of two thin ones."""

import math

import tensorflow as tf

from mlutils.door.numbers import check_count, check_positive, check_seed


def low_rank_start(weights, rank, which=None, seed=0):
    """The factors of low-rank adapters before the first step, when they change nothing.

    They are what moves in place of the weights: in fine-tuning, or at test time on the examples of
    a prompt (:eq:`eq-test-time-training`).  Hu et al. (LoRA, ICLR 2022).

    Args:
        weights: a list of tensors or variables.  Of the axes of one that gets an adapter all but
            the last count as inputs: ``(..., m)`` is read as ``(d, m)``, as Keras's own
            ``enable_lora`` does.
        rank: r, at least 1.
        which: a bool for each weight, whether it gets an adapter, say ``v.name == "kernel"``; when
            None, those with two or more axes do.
        seed: 0 to 2**32 - 1, of what A holds.

    Returns:
        A flat list of tensors, for each such weight ``A`` ``(d, r)``, normal numbers of variance
        1 / d, and ``B`` ``(r, m)``, zeros (:eq:`eq-lora`): r * (d + m) numbers move in place of
        d * m.

    Raises:
        ValueError: if no weight gets an adapter or one with fewer than two axes is to, and for a
            rank or seed that is not allowed.

    Example:
        >>> kernel, bias = tf.ones((6, 4)), tf.zeros(4)
        >>> [tuple(factor.shape) for factor in mlutils.low_rank_start([kernel, bias], rank=2)]
        [(6, 2), (2, 4)]
    """
    rank, seed, factors = check_count("rank", rank), check_seed(seed), []
    for i, (weight, size) in enumerate(zip(weights, sizes_of(weights, which), strict=True)):
        if size is not None:
            stream = tf.stack([tf.constant(seed, tf.int64), tf.constant(i, tf.int64)])
            normal = tf.random.stateless_normal((size[0], rank), stream, dtype=weight.dtype)
            factors += [normal / size[0] ** 0.5, tf.zeros((rank, size[1]), weight.dtype)]
    if not factors:
        raise ValueError("No weight gets an adapter: nothing would move.")
    return factors


def add_low_rank(weights, factors, scale=1.0, which=None):
    """Weights with their low-rank adapters added (:eq:`eq-lora`).

    Args:
        weights, which: as for ``low_rank_start``.
        factors: as ``low_rank_start`` returns them, maybe after some steps.
        scale: s / r, positive, what the products are multiplied with.

    Returns:
        A list of tensors like ``weights``, differentiable by ``factors``: ``W + scale * A B``, and
        the others as they are.

    Raises:
        ValueError: if there are not two factors for each weight that gets an adapter.

    Example:
        >>> kernel = tf.zeros((2, 3))
        >>> A, B = tf.constant([[1.0], [2.0]]), tf.constant([[1.0, 0.0, -1.0]])
        >>> print(mlutils.add_low_rank([kernel], [A, B], scale=0.5)[0].numpy())
        [[ 0.5  0.  -0.5]
         [ 1.   0.  -1. ]]
    """
    scale, sizes = check_positive("scale", scale), sizes_of(weights, which)
    wanted = 2 * sum(size is not None for size in sizes)
    if len(factors) != wanted:
        raise ValueError(f"factors holds {len(factors)} tensors; these weights have {wanted}.")
    pairs, added = iter(factors), []
    for weight, size in zip(weights, sizes, strict=True):
        weight = tf.convert_to_tensor(weight)
        if size is not None:
            A, B = next(pairs), next(pairs)
            weight += tf.reshape(scale * (A @ B), weight.shape)
        added.append(weight)
    return added


def sizes_of(weights, which):
    """``(d, m)`` of each weight that gets an adapter, None of the others."""
    shapes = [tuple(weight.shape) for weight in weights]
    which = [len(shape) > 1 for shape in shapes] if which is None else list(which)
    if len(which) != len(shapes):
        raise ValueError(f"which holds {len(which)} bools, and there are {len(shapes)} weights.")
    if flat := [
        shape for shape, adapts in zip(shapes, which, strict=True) if adapts and len(shape) < 2
    ]:
        raise ValueError(f"A weight of shape {flat[0]} is no matrix and can't get an adapter.")
    return [
        (math.prod(shape[:-1]), shape[-1]) if adapts else None
        for shape, adapts in zip(shapes, which, strict=True)
    ]
