"""Functions to minimise, and the rules that do it, at the door."""

import keras
import tensorflow as tf

from mlutils.door.tasks import as_tensor, as_written, finite, sizes_of
from mlutils.episodes import describe


@as_written
def read_theta(theta):
    """Where to start, as a tensor ``(functions, coordinates)`` of floats."""
    tensor = as_tensor("theta", theta)
    if tensor.shape.rank != 2 or 0 in tensor.shape or not tensor.dtype.is_floating:
        raise ValueError(
            f"theta has shape {tuple(tensor.shape)} and dtype {tensor.dtype.name}; allowed are "
            "floats (functions, coordinates)."
        )
    return finite("theta", tensor)


def checked(function, theta):
    """A function whose values are checked to be one for each row of theta.

    Args:
        function: from tensors, theta first, to the functions' values ``(functions,)``.
        theta: ``(functions, coordinates)``.
    """
    check_function(function)

    def values(*arguments):
        found = as_tensor("what the function returns", function(*arguments))
        if found.shape.rank != 1 or not found.shape.is_compatible_with(theta.shape[:1]):
            raise ValueError(
                f"The function returns shape {found.shape}; allowed is {theta.shape[:1]}: one "
                "value for each row of theta."
            )
        return found

    return values


@as_written
def check_function(function, name="function"):
    """Raise a TypeError for what is no function."""
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"{name} must be a function of theta and step, got {describe(function)}.")


@as_written
def check_state(state, rule, theta):
    """Raise unless a rule's state is like its initial one."""
    initial = rule.initial_state(sizes_of(theta))
    try:
        tf.nest.assert_same_structure(initial, state, check_types=False)
        pairs = zip(*map(tf.nest.flatten, (initial, state)), strict=True)
        fits = all(a.shape.is_compatible_with(b.shape) for a, b in pairs)
    except (TypeError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise ValueError(
            f"state must be as the rule's initial_state gives it, {describe(initial)}; got "
            f"{describe(state)}."
        )


@as_written
def check_rule_type(rule):
    """Raise a TypeError for what is no update rule."""
    if isinstance(rule, type) or not (hasattr(rule, "initial_state") and callable(rule)):
        raise TypeError(f"rule must be an mlutils.UpdateRule, got {describe(rule)}.")


def check_optimizer(optimizer):
    """Raise unless it is a Keras optimizer that was not used before."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"optimizer must be a keras.optimizers.Optimizer, got {type(optimizer).__name__}."
        )
    if optimizer.built:
        raise ValueError(
            "The optimizer was used before; its state would carry over: make a new one."
        )
