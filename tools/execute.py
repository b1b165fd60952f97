"""Run notebooks and store their outputs: ``python -m tools.execute [notebook ...]``.

Each runs in an empty folder, as a reader may run it; a notebook that fails stays as it was.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools.notebooks import ROOT, notebook_paths

SECONDS_A_CELL = 300
# Of a cell, of the kernel, of time, of the file.
FAILURES = (CellExecutionError, RuntimeError, TimeoutError, ValueError)


def execute(path):
    """Run one notebook and replace the file, whole, by the notebook with its outputs."""
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    done = 0

    def show_progress(**_):
        nonlocal done
        done += 1
        print(f"\r{path}: cell {done} of {count}", end="", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS_A_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            on_cell_executed=show_progress,
        )
        client.execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    new = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, new)
    os.replace(new, path)


def main(arguments):
    paths = [Path(a) for a in arguments] or notebook_paths()
    missing = [str(p) for p in paths if not (p.is_file() and p.suffix == ".ipynb")]
    if missing:
        known = "\n".join(f"  {p.relative_to(ROOT)}" for p in notebook_paths())
        sys.exit(f"Not a notebook: {', '.join(missing)}. There are:\n{known}")
    failed = []
    for path in paths:
        start = time.monotonic()
        try:
            execute(path)
        except FAILURES as error:
            print(f"\n{error}")
            failed.append(str(path))
        else:
            print(f", {time.monotonic() - start:.0f} s, outputs stored")
    if failed:
        sys.exit(f"Failed, and left as they were: {', '.join(failed)}.")


if __name__ == "__main__":
    main(sys.argv[1:])
