"""One task's data: the examples to adapt on, and those to be judged on."""

from typing import NamedTuple

import tensorflow as tf

from mlutils.classes import check_range


class Episode(NamedTuple):
    """A task's support set S and query set Q.

    Shapes are for one task; a batch of tasks adds one leading axis to all four.
    For classification the labels are integers 0..N-1.

    Attributes:
        support_x: ``(S, ...)``, the inputs to adapt on.
        support_y: ``(S, ...)``, their targets.
        query_x: ``(Q, ...)``, the inputs to predict.
        query_y: ``(Q, ...)``, their targets.
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
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(describe(v) for v in value) + ")"
    if hasattr(value, "shape"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    return type(value).__name__


def check_support(x, y, model=None):
    """Raise if one task's support set of these shapes is empty or fits not its targets or model."""
    if x.rank == 0 or y.rank == 0 or x[0] == 0 or not x[:1].is_compatible_with(y[:1]):
        raise ValueError(
            f"support_x has shape {x} and support_y {y}; the first axis counts the "
            "examples of one task: it must be at least 1 and the same in both."
        )
    needed = shape_of(model, "input_shape")
    if needed is not None and not x.is_compatible_with(needed):
        raise ValueError(
            f"One task's support_x has shape {x}, and the model takes {needed}; a batch of tasks "
            "has one axis more: (tasks, S, ...)."
        )


def check_labels(labels, model):
    """Raise if integer labels, where their values are known, are not 0..N-1 of the model."""
    outputs = shape_of(model, "output_shape")
    if labels.dtype.is_integer and outputs is not None and outputs[-1] not in (None, 1):
        check_range(labels, outputs[-1])


def shape_of(model, name):
    """A model's ``input_shape`` or ``output_shape``, or None where it has no single one."""
    try:
        shape = getattr(model, name)
    except (AttributeError, ValueError):  # a subclassed model does not know
        return None
    known = isinstance(shape, tuple) and all(n is None or isinstance(n, int) for n in shape)
    return tf.TensorShape(shape) if known else None


def check_batch(support_x, support_y, query_x):
    """Raise if the three do not hold the same number of tasks."""
    shapes = [tf.TensorShape(value.shape) for value in (support_x, support_y, query_x)]
    if any(s.rank is not None and s.rank < 2 for s in shapes) or not (
        shapes[0][:2].is_compatible_with(shapes[1][:2])
        and shapes[0][:1].is_compatible_with(shapes[2][:1])
    ):
        raise ValueError(
            f"support_x, support_y and query_x have shapes {shapes[0]}, {shapes[1]} and "
            f"{shapes[2]}; allowed are (tasks, S, ...), (tasks, S, ...) and (tasks, Q, ...). "
            "For one task use adapt(support_x, support_y)."
        )
