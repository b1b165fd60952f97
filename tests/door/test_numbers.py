"""What is accepted, what is refused, and that the message names the argument and the value."""

import decimal
import fractions
import re

import numpy as np
import pytest
import tensorflow as tf

from mlutils.door.numbers import (
    check_count,
    check_finite,
    check_option,
    check_positive,
    check_rate,
    check_seed,
)

NO_NUMBERS = [None, "1", True, np.True_, 1j, [1.0], np.nan, np.inf, -np.inf, decimal.Decimal(1)]


def refuses(check, *arguments, says, got):
    """``check`` raises a ValueError that says so, and ends in the repr of what it got."""
    with pytest.raises(ValueError, match=re.escape(f"{says}, got {got!r}.") + "$"):
        check(*arguments)


@pytest.mark.parametrize(
    "value, least", [(1, 1), (7, 1), (0, 0), (-2, -2), (2**70, 1), (np.uint8(3), 1)]
)
def test_counts(value, least):
    count = check_count("steps", value, least)
    assert count == value and type(count) is int


def test_arrays_and_tensors_of_one_integer_are_counts():
    for value in (np.array(3), tf.constant(3)):
        assert check_count("steps", value) == 3 and type(check_count("steps", value)) is int


@pytest.mark.parametrize("value", [0, -1, *NO_NUMBERS, 1.0, np.float32(2), np.array([3])])
def test_what_is_no_count(value):
    refuses(check_count, "steps", value, says="steps must be an integer of at least 1", got=value)


def test_counts_below_the_least():
    for value, least in ((2, 3), (-1, 0)):
        says = f"shots must be an integer of at least {least}"
        refuses(check_count, "shots", value, least, says=says, got=value)
    assert check_count("shots", 3, least=3) == 3


REAL = [1, 0.5, np.float32(0.1), np.float64(3), np.int64(2), fractions.Fraction(1, 2), 1e-300]


@pytest.mark.parametrize("check", [check_rate, check_finite, check_positive])
@pytest.mark.parametrize("value", REAL)
def test_numbers(check, value):
    number = check("p", value)
    assert number == float(value) and type(number) is float


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number(value):
    refuses(check_rate, "p", value, says="p must be a finite number of at least 0", got=value)
    refuses(check_finite, "p", value, says="p must be a finite number", got=value)
    with pytest.raises(ValueError, match=r"^p must be .*, got " + re.escape(f"{value!r}.")):
        check_positive("p", value)


def test_zero():
    for zero in (0, 0.0, np.float32(0)):
        for check in (check_rate, check_finite):
            assert check("p", zero) == 0 and type(check("p", zero)) is float
        refuses(check_positive, "p", zero, says="p must be a finite positive number", got=zero)


@pytest.mark.parametrize("value", [-1, -1e-300, np.float32(-2)])
def test_negative_numbers(value):
    assert check_finite("p", value) == value
    refuses(check_rate, "p", value, says="p must be a finite number of at least 0", got=value)
    with pytest.raises(ValueError, match=r"^p must be .*, got " + re.escape(f"{value!r}.")):
        check_positive("p", value)


def test_options():
    for allowed in (("ones", "last"), ["ones", "last"], {"ones": 1, "last": 2}):
        assert check_option("weights", "last", allowed) == "last"
        for value in ("first", "", None, 1):
            says = "weights must be one of ('ones', 'last')"
            refuses(check_option, "weights", value, allowed, says=says, got=value)
    assert check_option("order", None, (None, 1)) is None


def test_seeds():
    for value in (0, 1, np.uint32(7), 2**32 - 1):
        assert check_seed(value) == value and type(check_seed(value)) is int
    for value in (-1, 0.0, *NO_NUMBERS):
        refuses(check_seed, value, says="seed must be an integer of at least 0", got=value)
    for value in (2**32, 2**70):
        refuses(check_seed, value, says="seed must be at most 2**32 - 1", got=value)


@pytest.mark.parametrize("check", [check_rate, check_finite, check_positive])
@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["positive", "negative"])
def test_integers_beyond_all_floats_are_refused(check, value):
    with pytest.raises(ValueError, match="p must be"):
        check("p", value)


def test_a_tensor_of_a_bool_is_no_count():
    value = tf.constant(True)
    refuses(check_count, "steps", value, says="steps must be an integer of at least 1", got=value)
