"""One task's data: the examples to adapt on, and those to be judged on."""

from typing import NamedTuple

import tensorflow as tf


class Episode(NamedTuple):
    """A task's support set S and query set Q.

    Shapes are for one task; a batch of tasks adds one leading axis to all four.
    For classification the labels are integers 0..N-1.

    Attributes:
        support_x: ``(S, ...)``, the inputs to adapt on.
        support_y: ``(S, ...)``, their targets.
        query_x: ``(Q, ...)``, the inputs to predict.
        query_y: ``(Q, ...)``, their targets.

    Example:
        >>> tasks = mlutils.data.sinusoids(shots=5, queries=10, meta_batch=25)
        >>> episode = mlutils.Episode.from_element(next(iter(tasks)))
        >>> tuple(episode.support_x.shape), tuple(episode.query_y.shape)
        ((25, 5, 1), (25, 10, 1))
    """

    support_x: tf.Tensor
    support_y: tf.Tensor
    query_x: tf.Tensor
    query_y: tf.Tensor

    @property
    def element(self):
        """``((support_x, support_y, query_x), query_y)``: what Keras's ``fit`` takes."""
        return (self.support_x, self.support_y, self.query_x), self.query_y

    @classmethod
    def from_element(cls, element):
        """The episode of ``((support_x, support_y, query_x), query_y)``, or of an episode."""
        if isinstance(element, cls):
            return element
        try:
            if isinstance(element, dict):
                raise TypeError
            (support_x, support_y, query_x), query_y = element
        except (TypeError, ValueError):
            raise ValueError(
                "An element of a dataset of episodes is an Episode or "
                "((support_x, support_y, query_x), query_y); got "
                f"{describe(element)}."
            ) from None
        return cls(support_x, support_y, query_x, query_y)


def describe(value):
    """A short description of a nest of tensors, for error messages."""
    if isinstance(value, (tuple, list)) and len(value) <= 4:
        return "(" + ", ".join(describe(v) for v in value) + ")"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}: {describe(value[0])}, ..."
    if hasattr(value, "shape") and not isinstance(value, type):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    return "None" if value is None else type(value).__name__
