"""What holds for every notebook of the course, read from the files."""

import re

import nbformat
import pytest

from tools.notebooks import ROOT, first_cell, notebook_paths

WIDTH = 76
NOTEBOOKS = [
    pytest.param(nbformat.read(path, as_version=4), id=str(path.relative_to(ROOT)))
    for path in notebook_paths()
]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_first_cell_imports_mlutils_from_the_configured_repository(notebook):
    source = code_cells(notebook)[0].source
    assert source.startswith(first_cell())
    rest = source.removeprefix(first_cell())
    assert re.fullmatch(r"seed=\d+(, threads=1)?\)( *#.*)?", rest), rest


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
def test_every_picture_has_alternative_text(notebook):
    for cell in code_cells(notebook):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            text = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(text.split()) >= 8, f"no alternative text: {cell.source[:80]}"


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
