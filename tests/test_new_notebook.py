"""``make new-notebook``: the page it makes runs, and has all that the checks ask for."""

import shutil

import nbformat
import pytest

from tests.notebooks import test_notebooks as checks
from tools import execute, new_notebook
from tools.notebooks import ROOT

PATH = "chapters/maml/a-page.ipynb"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "chapters/maml").mkdir(parents=True)
    shutil.copy(ROOT / "book/_toc.yml", tmp_path / "book")
    return tmp_path


def test_the_page_runs_and_passes_the_checks(root, capsys):
    new_notebook.make(PATH, "A page: with a title", root)
    execute.main([str(root / PATH)])
    page = nbformat.read(root / PATH, as_version=4)
    assert "# A page: with a title" in page.cells[0].source
    left = {"test_nothing_is_left_to_write"}
    of_a_page = [
        getattr(checks, name)
        for name in dir(checks)
        if name.startswith("test_") and name not in left
        if "notebook" in getattr(checks, name).__code__.co_varnames[:1]
    ]
    assert len(of_a_page) >= 8
    for check in of_a_page:
        check(page)
    assert len(list(checks.figures(page))) == 1
    with pytest.raises(AssertionError):
        checks.test_nothing_is_left_to_write(page)
    capsys.readouterr()


def test_the_page_stands_in_the_contents_behind_the_others(root):
    before = (root / "book/_toc.yml").read_text("utf-8").splitlines()
    new_notebook.make(PATH, "A page", root)
    after = (root / "book/_toc.yml").read_text("utf-8").splitlines()
    place = after.index("          - file: chapters/maml/a-page")
    assert after[:place] + after[place + 1 :] == before
    assert "chapters/maml/" in after[place - 1]
    assert "quiz" not in after[place - 1]


@pytest.mark.parametrize(
    "path, title, words",
    [
        ("", "A page", "must be chapters/CHAPTER/NAME.ipynb"),
        ("a-page.ipynb", "A page", "must be chapters/CHAPTER/NAME.ipynb"),
        ("chapters/maml/A page.ipynb", "A page", "small letters"),
        ("chapters/maml/a-page.md", "A page", "must be chapters/CHAPTER/NAME.ipynb"),
        ("chapters/none/a-page.ipynb", "A page", "no chapter chapters/none"),
        (PATH, " ", "TITLE is missing"),
    ],
)
def test_what_is_no_page_raises_and_changes_nothing(root, path, title, words):
    before = (root / "book/_toc.yml").read_text("utf-8")
    with pytest.raises(ValueError, match=words):
        new_notebook.make(path, title, root)
    assert (root / "book/_toc.yml").read_text("utf-8") == before
    assert not list(root.rglob("*.ipynb"))


def test_a_page_is_never_overwritten(root):
    new_notebook.make(PATH, "A page", root)
    page = (root / PATH).read_bytes()
    with pytest.raises(ValueError, match="is there already"):
        new_notebook.make(PATH, "Another", root)
    assert (root / PATH).read_bytes() == page
