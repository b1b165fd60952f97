"""The notebook checks, checked: each fault must fail, in the very command that CI runs."""

import base64
import io
import re
import subprocess
import sys

import matplotlib.image
import nbformat
import pytest

from tests.notebooks.plugin import numbers_agree
from tools.execute import execute
from tools.notebooks import ROOT

# A picture's cell, and the same with one curve missing and with another legend.
CURVES = """\
fig, ax = plt.subplots()
ax.plot([0, 1, 2], [0, 1, 4], label="first", lw=4)
ax.plot([0, 1, 2], [3, 1, 2], label="second", lw=4)
ax.legend()
plt.show()"""

SOURCES = (
    "import matplotlib.pyplot as plt\nprint('pi is about', 3.14159)",
    CURVES,
    "x = 1",
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A notebook with its outputs, as make execute stores them."""
    path = tmp_path_factory.mktemp("notebook") / "good.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in SOURCES]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    execute(path)
    return nbformat.read(path, as_version=4)


def nothing(notebook):
    pass


def changed_digit(notebook):
    output = notebook.cells[0].outputs[0]
    output.text = output.text.replace("3.14159", "3.14158")


def mirrored_picture(notebook):
    data = notebook.cells[1].outputs[0].data
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(data["image/png"])))
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, picture[:, ::-1].copy(order="C"), format="png")
    data["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def one_curve_more(notebook):
    cell = notebook.cells[1]
    cell.source = cell.source.replace("ax.legend", "ax.plot([0, 2], [2, 2])\nax.legend")


def legend_swapped(notebook):
    cell = notebook.cells[1]
    cell.source = cell.source.replace("first", "another")


def trained_curve_moved(notebook):
    cell = notebook.cells[1]
    cell.metadata["tags"] = ["trained"]
    cell.source = cell.source.replace("[0, 1, 4]", "[0, 1.1, 4]")


def trained_curves_gone(notebook):
    cell = notebook.cells[1]
    cell.metadata["tags"] = ["trained"]
    cell.source = cell.source.replace("lw=4", "lw=0")


def missing_picture(notebook):
    notebook.cells[1].outputs = []


def never_run_cell(notebook):
    notebook.cells[2].execution_count = None


def other_order(notebook):
    notebook.cells[1].execution_count, notebook.cells[2].execution_count = 3, 2


def trained_far_off(notebook):
    notebook.cells[0].metadata["tags"] = ["trained"]
    changed = notebook.cells[0].outputs[0]
    changed.text = changed.text.replace("3.14159", "9.14159")


def writes_a_file(notebook):
    notebook.cells[0].source = 'open("left", "w").close()\n' + notebook.cells[0].source


@pytest.mark.parametrize(
    "fault, words",
    [
        (nothing, "3 passed"),
        (writes_a_file, "3 passed"),
        (changed_digit, "3.14158"),
        (mirrored_picture, "Picture 1 differs by"),
        (one_curve_more, "Picture 1 differs by"),
        (legend_swapped, "Picture 1 differs by"),
        (trained_curve_moved, "3 passed"),
        (trained_curves_gone, "Picture 1 differs by"),
        (missing_picture, "0 pictures are stored, 1 were drawn"),
        (never_run_cell, "This cell was never run"),
        (other_order, "stored execution count is 3, not 2"),
        (trained_far_off, "further off than allowed"),
    ],
)
def test_each_fault_fails(stored, tmp_path, fault, words):
    notebook = nbformat.from_dict(stored)
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)
    fault(notebook)
    path = tmp_path / "notebook.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--color=no"]
    plugin = ["-p", "tests.notebooks.plugin", "-p", "no:cacheprovider", "--rootdir", tmp_path]
    result = subprocess.run(
        [*command, *plugin, path], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode == 0) == (words == "3 passed"), result.stdout
    assert words in re.sub(r"\s+", " ", result.stdout)
    assert not (tmp_path / "left").exists()  # it ran in a folder of its own


@pytest.mark.parametrize(
    "stored, new, agree",
    [
        ("MAML  0.66 ± 0.07", "MAML 0.70 ± 0.11", True),
        ("MAML 0.66 ± 0.07", "MAML 0.96 ± 0.07", False),
        ("400 steps", "401 steps", False),
        ("shift -0.05", "shift 0.05", False),
        ("MAML 0.66", "MAML 0.66 0.66", False),
        ("MAML 0.66", "Reptile 0.66", False),
        ("loss -1.5e+01", "loss -1.6e+01", True),
    ],
)
def test_numbers_agree(stored, new, agree):
    assert numbers_agree(stored, new) is agree
