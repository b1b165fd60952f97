"""Every wrong call of the table raises at once a short error in words of its own."""

import pytest

from tests.contract.wrong_calls import CALLS, Call, outcome


@pytest.mark.parametrize("call", [pytest.param(call, id=str(call)) for call in CALLS])
def test_a_wrong_call_is_refused_clearly(call):
    found, message = outcome(call)
    assert found == "clear", f"{found}: {message[:500]}"


def test_names_are_unique():
    names = [str(call) for call in CALLS]
    assert len(set(names)) == len(names) and not any(" at 0x" in name for name in names)


def broken(*_):
    raise AttributeError("x has no shape")


def short():
    raise ValueError("x must be an array, got None.")


def long():
    raise ValueError("x must be an array, got None." + "\n" * 7)


def endless():
    while True:
        pass


@pytest.mark.parametrize(
    "run, expected",
    [
        (short, "clear"),
        (long, "buried"),
        (broken, "unclear"),
        (lambda: 1.0, "accepted"),
        (lambda: [1.0, float("nan")], "nan"),
    ],
)
def test_the_outcomes_are_told_apart(run, expected):
    assert outcome(Call("kind", "name", r"\bx\b", run, (ValueError, TypeError)))[0] == expected


def test_what_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr("tests.contract.wrong_calls.SECONDS", 0.2)
    assert outcome(Call("kind", "name", "x", endless, (ValueError, TypeError)))[0] == "hang"
