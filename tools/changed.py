"""What a change touches: the tests of the same room, and the notebooks that use what changed.

For daily work (``make check``); ``make test`` runs everything.
"""

import ast
import importlib
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType

from tools.notebooks import ROOT, notebook_paths

PROSE = ["tests/notebooks", "tests/test_book.py", "tests/test_equations.py"]
NAMES = ["tests/test_session.py", "tests/test_examples.py"]


def changed_files(since):
    """Paths that differ from a commit, deleted and new ones too, as in the repository."""
    git = ["git", "-C", str(ROOT)]
    differ = [*git, "diff", "--name-only", "--no-renames", since, "--"]
    untracked = [*git, "ls-files", "--others", "--exclude-standard"]
    runs = (
        subprocess.run(c, check=True, capture_output=True, text=True) for c in (differ, untracked)
    )
    return sorted({line for run in runs for line in run.stdout.splitlines()})


# ---------------------------------------------------------------- what a file uses


def names_used(source):
    """Dotted names of this repository's packages that Python code imports or looks up."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return {
        name
        for name in names
        if name.partition(".")[0] in ("mlutils", "benchmarks", "tools", "tests")
    }


@cache
def module_of(name):
    """The module that defines what a dotted name of ``mlutils`` means, or None."""
    found, parts = importlib.import_module("mlutils"), name.split(".")[1:]
    for part in parts:
        inner = getattr(found, part, None)
        if inner is None:
            break
        if not isinstance(inner, ModuleType):
            return getattr(inner, "__module__", None) or found.__name__
        found = inner
    return found.__name__ if found.__name__ != "mlutils" else None


def file_of(module):
    """The file of a module of this repository; None if there is none."""
    base = ROOT / module.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)


@cache
def imports_of(module):
    """The modules of this repository that a module imports by name.

    One that loads stored learners may need any module of its room.
    """
    path = file_of(module)
    source = path.read_text(encoding="utf-8") if path else ""
    names = names_used(source)
    found = {n for name in names for n in (name, name.rpartition(".")[0]) if "." in n}
    if module.startswith("mlutils.") and '"trained"' in source:
        room = module.rpartition(".")[0]
        found |= {f"{room}.{p.stem}" for p in path.parent.glob("*.py") if p.stem != "__init__"}
    return {n for n in found if file_of(n)} - {module}


def all_behind(modules):
    """These modules and whatever they import."""
    seen, left = set(), set(modules)
    while left:
        module = left.pop()
        seen.add(module)
        left |= {m for m in imports_of(module) if not is_package(m)} - seen
    return seen


def is_package(module):
    return (ROOT / module.replace(".", "/")).is_dir()


@cache
def used_by(source):
    """All modules behind a piece of code."""
    names = names_used(source)
    own = {module_of(name) for name in names if name.startswith("mlutils")}
    others = {n for name in names for n in (name, name.rpartition(".")[0]) if "." in n}
    others = {n for n in others if not n.startswith("mlutils") and file_of(n)}
    return all_behind({m for m in own if m} | others)


def code_of(notebook):
    """The code of a notebook, without the lines that are not Python."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return re.sub(r"(?m)^( *)[%!].*", r"\1pass", "\n".join(code))


# ---------------------------------------------------------------- what a change touches


def module_name(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def touched_notebooks(files):
    """Notebooks that changed, or that use a module, a stored result or a room's data that did."""
    modules = {module_name(f) for f in files if f.endswith(".py")}
    results = [Path(f).stem for f in files if re.fullmatch(r"mlutils/results/\w+\.json", f)]
    data = [Path(f).parts for f in files if f.startswith("mlutils/") and not f.endswith(".py")]
    rooms = {f"mlutils.{parts[1]}" for parts in data if len(parts) > 2 and parts[1] != "results"}
    for path in notebook_paths():
        name, code = str(path.relative_to(ROOT)), code_of(path)
        used = used_by(code)
        used_rooms = {".".join(module.split(".")[:2]) for module in used}
        stored = any(f'stored_result("{result}")' in code for result in results)
        if name in files or used & modules or used_rooms & rooms or stored:
            yield name


def touched_tests(files):
    """Tests that changed, those of the same room, and those that import what changed elsewhere."""
    for file in files:
        top, *parts = Path(file).parts
        if top == "mlutils":  # a room, or a module of its own
            tests = f"tests/{parts[0]}" if len(parts) > 1 else f"tests/test_{parts[0]}"
            yield from [tests] * (ROOT / tests).exists()
        if top in ("book", "chapters") or file.endswith("__init__.py"):
            yield from PROSE
        if file.endswith("__init__.py"):
            yield from NAMES
        if file in ("pyproject.toml", "requirements.lock", "environment.yml", "Makefile"):
            yield "tests/test_tools.py"
        if file.endswith("conftest.py"):
            yield str(Path(file).parent)
    modules = {module_name(f) for f in files if f.endswith(".py") and not f.startswith("mlutils/")}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = str(path.relative_to(ROOT))
        if name in files or modules & used_by(path.read_text(encoding="utf-8")):
            yield name


def touched(files):
    """Sorted: tests, and folders of which all are meant; notebooks."""
    tests = set(touched_tests(files))
    tests = {t for t in tests if not any(str(folder) in tests for folder in Path(t).parents)}
    tests = {t for t in tests if not t.startswith("tests/browser")}  # make browser
    return sorted(tests), sorted(touched_notebooks(files))
