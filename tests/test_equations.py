"""Every labelled equation of the book has a test that names it, and no label is invented."""

import re

import pytest

from tools.notebooks import ROOT, notebook_paths

LABEL = re.compile(r"\beq-[a-z0-9]+(?:-[a-z0-9]+)*")
DEFINITION = re.compile(r"\$\$\s*\((eq-[a-z0-9-]+)\)")


def text_of(paths):
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def pages():
    return [*notebook_paths(), *ROOT.glob("chapters/**/*.md"), *ROOT.glob("book/*.md")]


def files_of_tests():
    return [path for path in ROOT.glob("tests/**/test_*.py") if path.name != "test_equations.py"]


DEFINED = sorted(DEFINITION.findall(text_of(pages())))


def test_labels_are_unique():
    assert DEFINED and len(DEFINED) == len(set(DEFINED))


@pytest.mark.parametrize("label", DEFINED)
def test_the_equation_is_named_by_a_test_and_by_the_package(label):
    assert label in LABEL.findall(text_of(files_of_tests())), f"no test names {label}"
    assert label in LABEL.findall(text_of(ROOT.glob("mlutils/**/*.py"))), f"no code names {label}"


def test_code_and_tests_name_only_equations_of_the_book():
    named = LABEL.findall(text_of([*files_of_tests(), *ROOT.glob("mlutils/**/*.py")]))
    assert sorted(set(named)) == sorted(set(named) & set(DEFINED))
