"""Make the index of equations, ``book/equations.md``: ``python -m tools.equations``.

Each numbered equation, the code whose docstring names it, and the tests that do.  A test fails when
the page is out of date.
"""

import ast
import json
import re

import yaml

from tools.changed import module_of
from tools.notebooks import ROOT

PAGE = ROOT / "book" / "equations.md"
LABEL = re.compile(r"\beq-[a-z0-9]+(?:-[a-z0-9]+)*")
DISPLAYED = re.compile(r"\$\$(.+?)\$\$(?:[ \n]*\((eq-[a-z0-9-]+)\))?", re.DOTALL)
ENTRY = re.compile(r"^\.\. auto(?:class|function):: (\S+)$", re.MULTILINE)
BEST = re.compile("by_hand|pocket|plain_|written_out|finite_differences")  # shown first
SHOWN = 4  # tests of one equation
BEGIN = "% The rest is made by python -m tools.equations.\n"


# ---------------------------------------------------------------- what is where


def notebooks_in_order():
    """The notebooks in the order of the table of contents."""

    def files(node):
        for part in node.get("parts", []) + node.get("chapters", []) + node.get("sections", []):
            yield from [part["file"]] if "file" in part else []
            yield from files(part)

    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    paths = (ROOT / f"{file}.ipynb" for file in files(contents))
    return [path for path in paths if path.exists()]


def equations_of(notebook):
    """The page's label and title, and its equations' labels and TeX."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    found = {label: tex.strip() for tex, label in DISPLAYED.findall(text) if label}
    return *re.match(r"\(([a-z0-9-]+)\)=\n# (.+)", text).groups(), found


def named(path):
    """``(label, qualified name)`` of each class and function of a file whose docstring names it."""

    def walk(node, before):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                name = f"{before}{child.name}"
                for label in LABEL.findall(ast.get_docstring(child) or ""):
                    yield label, name
                yield from walk(child, f"{name}.")

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), "")


def by_label(pattern):
    """From each label to what names it, ``(path, qualified name)``, each once."""
    found = {}
    for path in sorted(ROOT.glob(pattern)):
        for label, name in named(path):
            found.setdefault(label, {})[str(path.relative_to(ROOT)), name] = None
    return found


def entries():
    """From the module and the name of an object to its entry in the reference."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in ROOT.glob("book/api/*.md"))
    return {(module_of(entry), entry.rpartition(".")[2]): entry for entry in ENTRY.findall(text)}


# ---------------------------------------------------------------- the page


def code(places, known):
    """Links to entries, which link to the lines; names of what has none."""
    methods = {}
    for path, name in places:
        top, _, method = name.partition(".")
        module = path.removesuffix(".py").replace("/", ".")
        methods.setdefault((module, top), []).extend([f"`{method}`"] * bool(method))
    shown = []
    for (module, top), inner in methods.items():
        entry = known.get((module, top))
        name = f"{{py:obj}}`{top} <{entry}>`" if entry else f"`{module}.{top}`"
        shown.append(name + (f" ({', '.join(inner)})" if inner else ""))
    return ", ".join(shown)


def tests(places):
    """The tests' names in words, with their files; what is computed by hand comes first."""
    places = [(p, n) for p, n in places if n.rpartition(".")[2].startswith("test_")] or [*places]
    places.sort(key=lambda place: not BEST.search(place[1]))
    files = {}
    for path, name in places[:SHOWN]:
        words = name.rpartition(".")[2].removeprefix("test_").replace("_", " ")
        files.setdefault(path, {})[words] = None
    more = len(places) - SHOWN
    text = "; ".join(f"`{path}`: {', '.join(names)}" for path, names in files.items())
    return text + (f", and {more} more" if more > 0 else "")


def listing():
    """All equations, page by page."""
    in_code, in_tests, known = (
        by_label("mlutils/**/*.py"),
        by_label("tests/**/test_*.py"),
        entries(),
    )
    for notebook in notebooks_in_order():
        page, title, found = equations_of(notebook)
        if found:
            yield f"## {title}\n\nOn the page {{ref}}`{page}`:\n"
        for label, tex in found.items():
            yield f"{{eq}}`{label}`\n\n$$\n{tex}\n$$\n"
            yield f"- Code: {code(in_code[label], known)}"
            yield f"- Tests: {tests(in_tests[label])}\n"


def renewed(text):
    """The page with its listing as it is now."""
    head, begin, _ = text.partition(BEGIN)
    if not begin:
        raise SystemExit(f"{PAGE.name} has no line {BEGIN!r}.")
    return f"{head}{begin}\n" + "\n".join(listing())


def main():
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
