"""What ``make check`` runs after a change."""

import subprocess

import pytest

from tools import changed
from tools.changed import code_of, module_of, names_used, touched, used_by
from tools.notebooks import notebook_paths


def test_names_by_hand():
    code = """
import mlutils
from mlutils.data import glyphs as g, Quadratics
from tools import book
import os.path
mlutils.maml.MAML(mlutils.mlp(), os.sep)
"""
    names = names_used(code)
    assert {"mlutils.data.glyphs", "mlutils.data.Quadratics", "tools.book"} <= names
    assert {"mlutils.maml.MAML", "mlutils.mlp"} <= names
    assert not any(name.startswith("os") for name in names)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("mlutils.MAML", "mlutils.maml.maml"),
        ("mlutils.data.glyphs", "mlutils.data.glyphs"),
        ("mlutils.MAML.adapt.shape", "mlutils.maml.maml"),
        ("mlutils.plot.COLORS", "mlutils.plot"),
        ("mlutils.no_such_name", None),
        ("mlutils", None),
    ],
)
def test_where_a_name_comes_from(name, module):
    assert module_of(name) == module


def test_what_stands_behind_a_learner():
    used = used_by("from mlutils import MAML")
    assert {"mlutils.maml.maml", "mlutils.inner_loop", "mlutils.vectorize"} <= used
    assert "mlutils.few_shot.mann" not in used
    assert "mlutils.few_shot.mann" in used_by("import mlutils; mlutils.trained_learner(name)")


def test_every_notebook_is_read():
    for path in notebook_paths():
        assert "mlutils" in code_of(path) and used_by(code_of(path)), path


@pytest.mark.parametrize(
    ("file", "tests", "notebooks", "not_these"),
    [
        ("mlutils/maml/reptile.py", ["tests/maml"], ["maml/first-order"], ["zero_shot/language"]),
        (
            "mlutils/zero_shot/clip.py",
            ["tests/zero_shot"],
            ["zero_shot/language"],
            ["maml/variants"],
        ),
        ("mlutils/tuning.py", ["tests/test_tuning.py"], [], ["few_shot/memory"]),
        (
            "mlutils/results/prior.json",
            [],
            ["beyond/a-network-fitted-to-a-prior"],
            ["maml/variants"],
        ),
        ("mlutils/few_shot/trained/mann-5.keras", ["tests/few_shot"], ["few_shot/memory"], []),
        ("mlutils/data/plumbing/x.npz", ["tests/data"], ["few_shot/memory"], []),
        ("chapters/maml/variants.ipynb", changed.PROSE, ["maml/variants"], ["maml/first-order"]),
        ("tests/few_shot/tasks.py", ["tests/few_shot/test_mann.py"], [], ["few_shot/memory"]),
        ("tests/data/conftest.py", ["tests/data"], [], ["few_shot/memory"]),
        ("tools/lock.py", ["tests/test_tools.py"], [], ["few_shot/memory"]),
        ("mlutils/maml/__init__.py", ["tests/maml", *changed.NAMES], [], ["few_shot/memory"]),
        ("pyproject.toml", ["tests/test_tools.py"], [], ["few_shot/memory"]),
        ("README.md", [], [], ["few_shot/memory"]),
    ],
)
def test_what_a_file_touches(file, tests, notebooks, not_these):
    found_tests, found = touched([file])
    assert set(tests) <= set(found_tests)
    assert {f"chapters/{n}.ipynb" for n in notebooks} <= set(found)
    assert not {f"chapters/{n}.ipynb" for n in not_these} & set(found)
    for test in found_tests:  # each is named once
        assert not any(test.startswith(f"{other}/") for other in found_tests)


def test_files_that_differ_from_a_commit(tmp_path, monkeypatch):
    def git(*words):
        config = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *config, *words], check=True)

    git("init", "-q")
    for name in ("stays", "changes", "goes"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("ignored")
    git("add", "-A")
    git("commit", "-qm", "first")
    (tmp_path / "changes").write_text("other")
    (tmp_path / "goes").unlink()
    (tmp_path / "ignored").write_text("")
    (tmp_path / "new").write_text("")
    monkeypatch.setattr(changed, "ROOT", tmp_path)
    assert changed.changed_files("HEAD") == ["changes", "goes", "new"]
    with pytest.raises(subprocess.CalledProcessError):
        changed.changed_files("no-such-commit")
