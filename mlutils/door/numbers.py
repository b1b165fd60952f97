"""Checks of numbers that users pass in: each returns the value, or raises a ValueError.

The error says what came and what is allowed.
"""

import math
import operator
from numbers import Real

import numpy as np


def check_count(name, value, least=1):
    """``value`` as an int of at least ``least``."""
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except (TypeError, AttributeError):  # a tensor of a bool raises the latter
        count = None
    if count is None or count < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
    return count


def check_counts(name, values, least=1):
    """``values`` as a tuple of ints of at least ``least``."""
    if not isinstance(values, (tuple, list)):
        raise ValueError(f"{name} must be a tuple of integers, got {values!r}.")
    return tuple(check_count(name, value, least) for value in values)


def is_finite(value):
    """Whether ``value`` is a real number that a float can hold, and no bool."""
    try:
        fits = isinstance(value, Real) and not isinstance(value, bool)
        return fits and math.isfinite(value)
    except OverflowError:
        return False


def check_rate(name, value):
    """``value`` as a float, finite and not negative."""
    if not is_finite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}.")
    return float(value)


def check_finite(name, value):
    """``value`` as a finite float."""
    if not is_finite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}.")
    return float(value)


def check_positive(name, value):
    """``value`` as a float, finite and positive."""
    if not is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite positive number, got {value!r}.")
    return float(value)


def check_share(name, value):
    """``value`` as a float from 0 to 1, 1 excluded."""
    if not is_finite(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, got {value!r}.")
    return float(value)


def check_option(name, value, allowed):
    """``value`` itself, one of ``allowed``."""
    if not any(type(value) is type(option) and value == option for option in allowed):
        raise ValueError(f"{name} must be one of {tuple(allowed)}, got {value!r}.")
    return value


def check_flag(name, value):
    """``value`` as a bool, if it is one."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def check_seed(value):
    """``value`` as an int from 0 to 2**32 - 1."""
    seed = check_count("seed", value, least=0)
    if seed >= 2**32:
        raise ValueError(f"seed must be at most 2**32 - 1, got {value!r}.")
    return seed
