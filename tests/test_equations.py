"""Every labelled equation of the book has a test that names it, and no label is invented."""

import re

import pytest

from tools import equations
from tools.notebooks import ROOT, notebook_paths

LABEL = equations.LABEL
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


# ---------------------------------------------------------------- the index


def test_the_index_is_up_to_date():
    text = equations.PAGE.read_text(encoding="utf-8")
    assert equations.renewed(text) == text, "run python -m tools.equations"
    listed = re.findall(r"\{eq\}`(eq-[a-z0-9-]+)`", text)
    assert sorted(listed) == DEFINED  # each once, with a line of code and one of tests
    assert len(re.findall(r"^- Code: \S", text, re.MULTILINE)) == len(DEFINED)
    assert len(re.findall(r"^- Tests: `tests/", text, re.MULTILINE)) == len(DEFINED)
    assert text.count("mlutils.MAML>") > 3 and text.count("<mlutils") > 2 * text.count("`mlutils")


def test_a_place_is_named_by_its_docstring_alone(tmp_path):
    (tmp_path / "a.py").write_text(
        '''
class A:
    """eq-one and eq-two-b."""
    def method(self):
        """Of :eq:`eq-one`."""
def other():
    return "eq-three"
'''
    )
    found = list(equations.named(tmp_path / "a.py"))
    assert found == [("eq-one", "A"), ("eq-two-b", "A"), ("eq-one", "A.method")]


def test_code_and_tests_in_words():
    places = {("mlutils/maml/maml.py", "MAML"): None, ("mlutils/maml/maml.py", "MAML.adapt"): None}
    places |= {("mlutils/x.py", "f"): None}
    known = {("mlutils.maml.maml", "MAML"): "mlutils.MAML"}
    assert equations.code(places, known) == "{py:obj}`MAML <mlutils.MAML>` (`adapt`), `mlutils.x.f`"
    names = ["helper", "test_b", "test_c", "test_d", "test_e", "test_a_by_hand"]
    shown = equations.tests({("tests/t.py", name): None for name in names})
    assert shown == "`tests/t.py`: a by hand, b, c, d, and 1 more"
    assert equations.tests({("tests/t.py", "by_hand"): None}) == "`tests/t.py`: by hand"
