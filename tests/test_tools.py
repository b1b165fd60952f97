"""The tools behind the Makefile."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import types
import zipfile

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

import mlutils
from tools import durations, execute, install, lock, repository
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


def locked():
    """The lock's requirements, each with its hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line.split() for line in text.splitlines() if not line.startswith("#")]
    for words in entries:
        hashes = [word for word in words if word.startswith("--hash=")]
        yield Requirement(" ".join(words[: len(words) - len(hashes)])), hashes


def test_every_locked_requirement_has_hashes_and_names_no_host():
    for requirement, hashes in locked():
        assert hashes and not requirement.url, requirement
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", text) for text in hashes)
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text and "-index" not in text


@pytest.mark.parametrize("right", [True, False])
def test_a_file_of_another_hash_is_not_installed(tmp_path, right):
    """The first step of the installation, for a lock of one file that lies beside it."""
    wheel = tmp_path / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        info = "made_up-1.0.dist-info/"
        file.writestr(f"{info}METADATA", "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
        file.writestr(f"{info}WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes() if right else b"another file").hexdigest()
    (tmp_path / "requirements.lock").write_text(f"made-up==1.0 --hash=sha256:{digest}\n")
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", "."]
    result = subprocess.run([*pip, *install.STEPS[0]], cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode == 0) == right
    assert ("Would install made-up-1.0" if right else "DO NOT MATCH THE HASHES") in (
        result.stdout + result.stderr
    )


def test_what_the_package_is_built_with_is_locked():
    """It is built without isolation, in which pip would fetch it without a hash."""
    assert "--no-build-isolation" in install.STEPS[1]
    assert PYPROJECT["build-system"]["requires"] == PYPROJECT["dependency-groups"]["build"]
    assert {"include-group": "build"} in PYPROJECT["dependency-groups"]["dev"]


@pytest.mark.parametrize("resolved", [True, False])
def test_making_the_lock_anew_keeps_its_versions_or_all_as_it_was(tmp_path, monkeypatch, resolved):
    """uv is given the present lock, and only what it makes of that is written."""
    names = ("pyproject.toml", "requirements.lock", "environment.yml")
    for name in names:
        shutil.copy(ROOT / name, tmp_path)
    before = [(tmp_path / name).read_text(encoding="utf-8") for name in names]
    given = []

    def uv(command, **options):
        path = command[command.index("--output-file") + 1]
        given.append(command[command.index("--output-file") + 2 :])
        with open(path, encoding="utf-8") as file:
            assert file.read() == before[1]
        with open(path, "w", encoding="utf-8") as file:
            file.write("made-up==1.0\n")
        return types.SimpleNamespace(returncode=not resolved, stderr="no solution")

    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock.subprocess, "run", uv)
    if resolved:
        lock.main(["--upgrade"])
        before[1] = lock.header(PYPROJECT) + "made-up==1.0\n"
    else:
        with pytest.raises(SystemExit, match=r"no solution\n.*nothing was changed"):
            lock.main(["--upgrade"])
    assert given == [["--upgrade"]]
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in names] == before


def test_locked_versions_satisfy_what_is_declared():
    versions = {}
    for requirement, _ in locked():
        (version,) = (s.version for s in requirement.specifier)
        versions.setdefault(requirement.name, []).append(version)
    for line in lock.declared(PYPROJECT):
        declared = Requirement(line)
        assert declared.name in versions, f"{declared.name} is not in the lock"
        assert all(declared.specifier.contains(v) for v in versions[declared.name]), line


def test_the_newest_edition_has_one_number_everywhere():
    version = PYPROJECT["project"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\d+\.\d+\.\d+)", changes, re.M).group(1) == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == mlutils.__version__ == version


def test_a_changed_dependency_changes_lock_and_environment():
    changed = json.loads(json.dumps(PYPROJECT))
    changed["project"]["dependencies"][0] += ".1"
    assert lock.header(changed) != lock.header(PYPROJECT)
    assert lock.environment(changed) != lock.environment(PYPROJECT)


def test_only_lower_bounds_but_for_jupyter_book():
    bounded = [line for line in lock.declared(PYPROJECT) if "<" in line or "==" in line]
    assert bounded == ["jupyter-book>=1.0.4,<2"]


def test_environment_installs_the_lock_as_the_installation_does():
    """pip gets these lines as a file, and would refuse a folder in it, which has no hash."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    lines = environment["dependencies"][-1]["pip"]
    assert " ".join(lines).replace("--requirement", "-r").split() == install.STEPS[0]
    names = {requirement.name for requirement, _ in locked()}
    assert {"jupyter-book", "tensorflow", "matplotlib", "nbval", "setuptools"} <= names


# ---------------------------------------------------------------- the workflow

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
PINNED = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def loose_actions(text):
    """The lines that use an action by another name than its commit, with the version beside it."""
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    return [line for line in lines if "uses:" in line and not PINNED.fullmatch(line)]


def careless_checkouts(text):
    """The checkouts that leave the token where later steps can read it, and the number of all."""
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    steps = [s for s in steps if s.get("uses", "").startswith("actions/checkout@")]
    careless = [s for s in steps if s.get("with", {}).get("persist-credentials") is not False]
    return careless, len(steps)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_named_by_their_commits_and_checkouts_keep_no_credentials(path):
    text = path.read_text(encoding="utf-8")
    assert loose_actions(text) == []
    careless, count = careless_checkouts(text)
    assert careless == [] and count > 0


@pytest.mark.parametrize(
    "old, new",
    [
        (r"@[0-9a-f]{40} # v\S+", "@v4"),
        (r"(@[0-9a-f]{39}).", r"\1"),
        (r" # v\S+", ""),
    ],
    ids=["a tag", "a short digest", "no version"],
)
def test_loose_actions_are_found(old, new):
    text = WORKFLOWS[0].read_text(encoding="utf-8")
    assert len(loose_actions(re.sub(old, new, text))) == text.count("uses:")


@pytest.mark.parametrize("value", ["persist-credentials: true", "fetch-depth: 1"])
def test_careless_checkouts_are_found(value):
    text = WORKFLOWS[0].read_text(encoding="utf-8")
    careless, count = careless_checkouts(text.replace("persist-credentials: false", value))
    assert len(careless) == count > 0


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


PLACEHOLDER = "https://github.com/owner_not_set/learning-to-learn"


def test_nobody_can_register_the_placeholder(copy):
    """GitHub's accounts have no underscores; it can be replaced, and not be set again."""
    owner = repository_url().split("/")[-2]
    assert "_" in owner or not re.search("not.?set", owner, re.IGNORECASE)
    config, notebooks = copy
    for path in (config, *notebooks):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(repository_url(), PLACEHOLDER), encoding="utf-8")
    repository.set_url("https://github.com/ada/course", config, notebooks)
    assert all("owner_not_set" not in path.read_text() for path in (config, *notebooks))


WRONG = ["", "github.com/a/b", "https://github.com/a", "https://x.org/a/b", PLACEHOLDER]


@pytest.mark.parametrize("url", WRONG)
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


def test_minutes_are_summed_by_file():
    lines = []
    reports = [
        types.SimpleNamespace(nodeid="tests/a.py::one", duration=40.0),
        types.SimpleNamespace(nodeid="tests/b.py::one", duration=50.0),
        types.SimpleNamespace(nodeid="tests/a.py::two", duration=30.0),
        types.SimpleNamespace(),  # a warning
    ]
    reporter = types.SimpleNamespace(
        stats={"passed": reports[:2], "": reports[2:]},
        section=lines.append,
        write_line=lines.append,
    )
    durations.pytest_terminal_summary(reporter)
    assert lines[0].endswith("of 2.0 minutes")
    assert [line.split() for line in lines[1:3]] == [
        ["70.0", "s", "tests/a.py"],
        ["50.0", "s", "tests/b.py"],
    ]
