"""What holds for every notebook of the course, read from the files."""

import copy
import re
from collections import Counter

import nbformat
import pytest

from tools.notebooks import FOLDED, ROOT, first_cell, notebook_paths

WIDTH = 76
# A picture from a file, in the text: its options, its caption.
DRAWN = re.compile(r"^```\{figure\} .*\n((?::.*\n)+)\n((?:.+\n)+?)```", re.M)
NOTEBOOKS = [
    pytest.param(nbformat.read(path, as_version=4), id=str(path.relative_to(ROOT)))
    for path in notebook_paths()
]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def is_folded(notebook):
    metadata = code_cells(notebook)[0].metadata
    return {key: metadata.get(key) for key in FOLDED} == FOLDED


def figures(notebook):
    """Name, alternative text and caption of each: of cells that draw, of files in the text."""
    for cell in code_cells(notebook):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            page = cell.metadata.get("mystnb", {})
            figure = page.get("figure", {})
            alt = page.get("image", {}).get("alt", "")
            yield figure.get("name", ""), alt, figure.get("caption", "")
    for options, caption in DRAWN.findall(prose(notebook)):
        option = dict(re.findall(r"^:(\w+): (.*)$", options, re.M))
        yield option.get("name", ""), option.get("alt", ""), caption


def faults_of_pictures(notebook):
    """What is wrong with the pictures of a page, in words."""
    text, said = prose(notebook), []
    for name, alt, caption in figures(notebook):
        if not name.startswith("fig-"):
            said.append(f"a name that does not begin with fig-: {name!r}")
        if f"{{numref}}`{name}`" not in text:
            said.append(f"{name} is not referred to")
        if len(alt.split()) < 8:
            said.append(f"no alternative text of eight words: {name}")
        if not re.match("[A-Z$*].*[.?]$", caption.strip(), re.S):
            said.append(f"a caption that is no sentence: {name}")
    for cell in code_cells(notebook):
        shown = [output for output in cell.outputs if "data" in output]
        if len(shown) > 1 and any("image/png" in output.data for output in shown):
            said.append(f"a picture that is not alone in its cell: {cell.source[:80]}")
    if "{image}" in text:
        said.append("an {image} has no number: {figure} has")
    return said


def repeated(names):
    return [name for name, count in Counter(names).items() if count > 1]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_first_cell_imports_mlutils_from_the_configured_repository(notebook):
    source = code_cells(notebook)[0].source
    assert source.startswith(first_cell())
    rest = source.removeprefix(first_cell())
    assert re.fullmatch(r"seed=\d+(, threads=1)?\)( *#.*)?", rest), rest


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_first_cell_is_folded(notebook):
    assert is_folded(notebook)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_code_fits_the_page(notebook):
    lines = [line for cell in code_cells(notebook)[1:] for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_no_cell_ends_in_a_semicolon(notebook):
    """nbval runs cells without history, and then a semicolon hides nothing: use plt.show()."""
    assert [cell.source for cell in code_cells(notebook) if cell.source.endswith(";")] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_no_cell_is_empty_or_kept_from_the_comparison(notebook):
    for cell in code_cells(notebook):
        assert cell.source.strip(), "an empty code cell"
        assert "NBVAL_" not in cell.source, cell.source
        assert not [t for t in cell.metadata.get("tags", []) if t.startswith(("nbval", "raises"))]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_picture_is_a_figure_and_is_referred_to(notebook):
    assert faults_of_pictures(notebook) == []


def test_no_two_figures_have_one_name():
    names = [name for page in NOTEBOOKS for name, *_ in figures(page.values[0])]
    assert len(names) > 80 and repeated(names) == []


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_outputs_hold_no_warning_error_or_path(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.source
            assert not re.search(r"/(home|root|tmp|work|Users)/", str(output)), cell.source
            assert "WARNING:" not in str(output.get("text", "")), cell.source  # on stdout, by TF


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_has_a_question_a_claim_exercises_and_a_summary(notebook):
    code = "\n".join(cell.source for cell in code_cells(notebook))
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "assert " in code
    for needed in ("## Summary", "## Exercises", "## Further reading", "Predict"):
        assert needed in text, needed


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_nothing_is_left_to_write(notebook):
    """What ``make new-notebook`` marks."""
    assert "TO WRITE" not in str(notebook.cells)


# ---------------------------------------------------------------- the checks of figures, checked

ALT = "A line that rises from the lower left to the upper right."
TEXT = """\
{numref}`fig-line` shows a line, and {numref}`fig-box` a box.

```{figure} box.svg
:name: fig-box
:alt: A box with a line around it, and nothing in it.

A box is empty.
```"""


@pytest.fixture
def page():
    """A folded cell, a picture and a drawing, as they should be."""
    picture = nbformat.v4.new_output("display_data", {"image/png": "", "text/plain": "<Figure>"})
    options = {"image": {"alt": ALT}, "figure": {"name": "fig-line", "caption": "It rises."}}
    cells = [
        nbformat.v4.new_code_cell("import mlutils", metadata=copy.deepcopy(FOLDED)),
        nbformat.v4.new_markdown_cell(TEXT),
        nbformat.v4.new_code_cell("plt.show()", metadata={"mystnb": options}, outputs=[picture]),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def in_text(old, new):
    def change(notebook):
        assert old in notebook.cells[1].source
        notebook.cells[1].source = notebook.cells[1].source.replace(old, new)

    return change


def in_options(**options):
    return lambda notebook: notebook.cells[2].metadata.mystnb.update(options)


@pytest.mark.parametrize(
    "change, words",
    [
        (in_options(figure={}), "a name that does not begin with fig-: ''"),
        (in_options(figure={"name": "line", "caption": "It rises."}), "begin with fig-: 'line'"),
        (in_options(figure={"name": "fig-line"}), "a caption that is no sentence: fig-line"),
        (in_options(image={"alt": "A line."}), "no alternative text of eight words: fig-line"),
        (in_options(image={}), "no alternative text of eight words: fig-line"),
        (lambda page: page.cells[2].metadata.clear(), "no alternative text of eight words: "),
        (in_text("{numref}`fig-line` shows", "The picture shows"), "fig-line is not referred to"),
        (in_text("{numref}`fig-box`", "the other"), "fig-box is not referred to"),
        (in_text("A box is empty.", "a box"), "a caption that is no sentence: fig-box"),
        (in_text(":name: fig-box", ":name: box"), "begin with fig-: 'box'"),
        (in_text(" with a line around it, and nothing in it.", ""), "eight words: fig-box"),
        (in_text("{figure} box.svg", "{image} box.svg"), "an {image} has no number"),
        (lambda page: page.cells[2].outputs.append(page.cells[2].outputs[0]), "not alone"),
    ],
)
def test_each_fault_of_a_picture_is_found(page, change, words):
    assert len(list(figures(page))) == 2 and faults_of_pictures(page) == []
    change(page)
    assert words in "\n".join(faults_of_pictures(page))


@pytest.mark.parametrize("key", FOLDED)
def test_an_unfolded_cell_is_found(page, key):
    assert is_folded(page)
    del page.cells[0].metadata[key]
    assert not is_folded(page)


def test_a_name_given_twice_is_found():
    assert repeated(["fig-line", "fig-box"]) == []
    assert repeated(["fig-line", "fig-box", "fig-line"]) == ["fig-line"]
