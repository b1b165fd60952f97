"""The examples in the docstrings of the public classes run, and there is one in each."""

import doctest
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils

NAMES = {"keras": keras, "mlutils": mlutils, "np": np, "tf": tf}
OTHERS = [
    mlutils.adapted.AdaptedModel,
    mlutils.few_shot.mann.MemoryCell,
    mlutils.plot.Table,
    *(getattr(mlutils.data, name) for name in mlutils.data.__all__),
]
PUBLIC = {getattr(mlutils, name) for name in mlutils.__all__} | set(OTHERS)
CLASSES = sorted(filter(inspect.isclass, PUBLIC), key=lambda cls: cls.__name__)


def run(cls, text):
    """How many lines of an example failed, and how many there were."""
    example = doctest.DocTestParser().get_doctest(text, dict(NAMES), cls.__name__, None, None)
    return doctest.DocTestRunner(verbose=False).run(example)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_example_of_a_class_runs(cls):
    result = run(cls, inspect.getdoc(cls))
    assert result.attempted and not result.failed, result


def test_a_wrong_example_is_found(capsys):
    text = inspect.getdoc(mlutils.StepSize)
    assert "[-1.  2.]" in text
    assert run(mlutils.StepSize, text.replace("[-1.  2.]", "[-1.  3.]")).failed == 1
