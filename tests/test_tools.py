"""The tools behind the Makefile."""

import json
import shutil
import tomllib

import nbformat
import pytest
import yaml

from tools import execute, lock, repository
from tools.notebooks import ROOT, first_cell, notebook_paths, repository_url
from tools.self_contained import external_resources, in_page

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- lock and environment


def test_lock_and_environment_agree_with_pyproject():
    """Fails when a dependency was changed without `make lock`."""
    first = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()[0]
    assert first == lock.header(PYPROJECT).strip()
    environment = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert environment == lock.environment(PYPROJECT)


def test_locked_versions_satisfy_what_is_declared():
    from packaging.requirements import Requirement

    locked = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (version,) = (s.version for s in requirement.specifier)
            locked.setdefault(requirement.name, []).append(version)
    for line in lock.declared(PYPROJECT):
        declared = Requirement(line)
        assert declared.name in locked, f"{declared.name} is not in the lock"
        assert all(declared.specifier.contains(v) for v in locked[declared.name]), line


def test_a_changed_dependency_changes_lock_and_environment():
    changed = json.loads(json.dumps(PYPROJECT))
    changed["project"]["dependencies"][0] += ".1"
    assert lock.header(changed) != lock.header(PYPROJECT)
    assert lock.environment(changed) != lock.environment(PYPROJECT)


def test_only_lower_bounds_but_for_jupyter_book():
    bounded = [line for line in lock.declared(PYPROJECT) if "<" in line or "==" in line]
    assert bounded == ["jupyter-book>=1.0.4,<2"]


def test_environment_is_yaml_that_names_the_tools():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    names = " ".join(environment["dependencies"][-1]["pip"])
    assert all(name in names for name in ("jupyter-book", "tensorflow", "matplotlib", "nbval"))


# ---------------------------------------------------------------- the repository's address


@pytest.fixture
def copy(tmp_path):
    config = tmp_path / "_config.yml"
    shutil.copy(ROOT / "_config.yml", config)
    notebooks = [tmp_path / path.name for path in notebook_paths()]
    for source, target in zip(notebook_paths(), notebooks, strict=True):
        shutil.copy(source, target)
    return config, notebooks


def test_setting_the_address_sets_it_everywhere_and_nothing_else(copy):
    config, notebooks = copy
    old = repository_url(config)
    before = [path.read_text(encoding="utf-8") for path in (config, *notebooks)]
    repository.set_url("https://github.com/ada/course.git/"[:-1], config, notebooks)
    assert repository_url(config) == "https://github.com/ada/course"
    for path, text in zip((config, *notebooks), before, strict=True):
        after = path.read_text(encoding="utf-8")
        assert after == text.replace(old, "https://github.com/ada/course")
    cell = next(
        c for c in json.loads(notebooks[0].read_text())["cells"] if c["cell_type"] == "code"
    )
    assert "".join(cell["source"]).startswith(first_cell("https://github.com/ada/course"))


@pytest.mark.parametrize("url", ["", "github.com/a/b", "https://github.com/a", "https://x.org/a/b"])
def test_a_wrong_address_raises_and_changes_nothing(copy, url):
    config, notebooks = copy
    before = [path.read_bytes() for path in (config, *notebooks)]
    with pytest.raises(ValueError, match="allowed is https://github"):
        repository.set_url(url, config, notebooks)
    assert [path.read_bytes() for path in (config, *notebooks)] == before


def test_a_notebook_with_another_first_cell_raises_and_changes_nothing(copy):
    config, notebooks = copy
    notebook = json.loads(notebooks[-1].read_text(encoding="utf-8"))
    next(c for c in notebook["cells"] if c["cell_type"] == "code")["source"] = ["import mlutils"]
    notebooks[-1].write_text(json.dumps(notebook), encoding="utf-8")
    before = [path.read_bytes() for path in (config, *notebooks)]
    with pytest.raises(ValueError, match="first code cell"):
        repository.set_url("https://github.com/ada/course", config, notebooks)
    assert [path.read_bytes() for path in (config, *notebooks)] == before


def test_an_interrupted_change_of_the_address_can_be_finished(copy):
    config, notebooks = copy
    url = "https://github.com/ada/course"
    before = config.read_text(encoding="utf-8")
    repository.set_url(url, config, notebooks)
    config.write_text(before, encoding="utf-8")  # as if stopped before the last file
    repository.set_url(url, config, notebooks)
    assert repository_url(config) == url


# ---------------------------------------------------------------- running notebooks


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_execute_stores_outputs_from_an_empty_folder(tmp_path, capsys):
    path = tmp_path / "notebook.ipynb"
    write_notebook(path, "import os\nprint(os.listdir())")
    execute.main([str(path)])
    (cell,) = nbformat.read(path, as_version=4).cells
    assert (cell.execution_count, cell.outputs[0].text) == (1, "[]\n")
    assert "cell 1 of 1" in capsys.readouterr().out


def test_a_failing_notebook_stays_as_it_was_and_the_next_one_runs(tmp_path, capsys):
    wrong, dead, right = (tmp_path / f"{name}.ipynb" for name in ("wrong", "dead", "right"))
    write_notebook(wrong, "print(1)", "1 / 0")
    write_notebook(dead, "import os\nos._exit(1)")
    write_notebook(right, "print(2)")
    before = wrong.read_bytes(), dead.read_bytes()
    with pytest.raises(SystemExit, match=r"left as they were: .*wrong\.ipynb, .*dead\.ipynb"):
        execute.main([str(wrong), str(dead), str(right)])
    assert (wrong.read_bytes(), dead.read_bytes()) == before
    assert nbformat.read(right, as_version=4).cells[0].execution_count == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_execute_names_the_notebooks_there_are(tmp_path):
    with pytest.raises(
        SystemExit, match=r"Not a notebook: nowhere\.ipynb\. There are:\n  chapters/"
    ):
        execute.main(["nowhere.ipynb"])


# ---------------------------------------------------------------- self-contained pages

HOST = "https://cdn.example.org/x"


@pytest.mark.parametrize(
    "html",
    [
        f'<script src="{HOST}.js"></script>',
        '<script src="//cdn.example.org/x.js"></script>',
        f'<link rel="stylesheet" href="{HOST}.css">',
        f'<link rel="preload" as="font" href="{HOST}.woff2">',
        f'<link rel="icon" href="{HOST}.ico">',
        f'<img src="{HOST}.png">',
        f'<img src="here.png" srcset="here.png 1x, {HOST}.png 2x">',
        f"<style>@font-face {{ src: url('{HOST}.woff') }}</style>",
        f"<style>@import '{HOST}.css';</style>",
        f'<div style="background: url({HOST}.png)"></div>',
        f'<script>import("{HOST}.mjs")</script>',
        f'<script>const s = document.createElement("script"); s.src = "{HOST}.js";</script>',
        f'<iframe src="{HOST}"></iframe>',
        f'<base href="{HOST}/">',
    ],
)
def test_external_resources_are_found(html):
    assert len(in_page(html)) == 1 and "cdn.example.org/x" in in_page(html)[0]


@pytest.mark.parametrize(
    "html",
    [
        f'<a href="{HOST}">a link to follow</a>',
        f'<link rel="canonical" href="{HOST}">',
        '<script src="_static/x.js"></script>',
        '<img src="data:image/png;base64,//AA">',
        f'<meta property="og:image" content="{HOST}.png">',
        f"<p>@import url({HOST})</p>",
        f'<script>const text = "see {HOST}";</script>',
    ],
)
def test_links_and_local_files_are_not(html):
    assert in_page(html) == []


def test_folder_with_pages_and_styles(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "page.html").write_text(f'<img src="{HOST}.png">')
    (tmp_path / "style.css").write_text(f"@import url({HOST}.css);")
    assert external_resources(tmp_path) == [f"sub/page.html: {HOST}.png", f"style.css: {HOST}.css"]
    with pytest.raises(FileNotFoundError, match="no built page"):
        external_resources(tmp_path / "nowhere")
