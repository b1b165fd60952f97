import pytest

from mlutils.exercises import judge

WRONG = {"one too many": lambda x: x + 1, "negative": lambda x: -x}


def right(x):
    return x


def test_a_good_test_is_told_from_weak_and_unfair_ones(capsys):
    def good(code):
        assert code(2) == 2

    def weak(code):
        assert code(0) == 0

    def unfair(code):
        raise AssertionError

    assert judge(good, right, WRONG)
    assert capsys.readouterr().out == (
        "accepts the right version\ncatches one too many\ncatches negative\n"
    )
    assert not judge(weak, right, WRONG)
    assert capsys.readouterr().out.endswith("MISSES  negative\n")
    assert not judge(unfair, right, WRONG)
    assert capsys.readouterr().out.startswith("REJECTS the right version\n")


def test_any_exception_catches_and_is_named(capsys):
    def test(code):
        assert [7, 8, 9][code(2)] == 9

    assert judge(test, right, {"out of range": lambda x: x + 1, "another": lambda x: 0})
    assert capsys.readouterr().out == (
        "accepts the right version\n"
        "catches out of range (IndexError: list index out of range)\n"
        "catches another\n"
    )
    assert not judge(lambda code: code.missing, right, WRONG)
    assert capsys.readouterr().out.startswith("REJECTS the right version (AttributeError: ")


def test_no_wrong_version_raises():
    with pytest.raises(ValueError, match="at least one wrong version"):
        judge(lambda code: None, right, {})
