"""Closes what nbval lets pass: cells never run or run out of order, and changed pictures.

Each notebook runs in an empty folder, as ``tools.execute`` runs it, which goes with what it wrote.

Text is compared exactly, but for cells tagged ``trained``: their numbers come from long
trainings, which drift from one kind of processor to the next, and may differ as
``numbers_agree`` allows.
"""

import base64
import io
import re
import tempfile

import nbval.plugin
import numpy as np
import PIL.Image
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

# What differs between two pictures, as a share of the stored one's ink: 1 for an empty picture.
PICTURE_TOLERANCE = 0.01
# After training, of pictures averaged over blocks of so many pixels, so that a curve may move a
# little.  Measured on the first chapter: 0.22 at most on other processors (oneDNN off, or held
# to SSE 4.1), 0.34 or more with the curves gone, 0.96 or more mirrored.
TRAINED_PICTURE_TOLERANCE, BLOCK = 0.3, 16
# Decimals of a trained cell: |new - stored| <= absolute + relative * |stored|; integers equal.
ABSOLUTE, RELATIVE = 0.05, 0.25
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def picture_difference(stored, new, block=1):
    """How much of the stored picture's ink differs, 0 for none; both PNGs in base64."""
    a, b = pixels(stored), pixels(new)
    if a.shape != b.shape:
        return np.inf
    a, b = averaged(a, block), averaged(b, block)
    difference = np.sum(np.abs(a - b))
    return float(difference / np.sum(1 - a)) if difference else 0.0


def pixels(png):
    """A PNG given in base64 as an array ``(height, width, 3)`` from 0 to 1, on white paper."""
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    white = PIL.Image.new("RGBA", picture.size, "white")
    return np.asarray(PIL.Image.alpha_composite(white, picture).convert("RGB")) / 255


def averaged(picture, block):
    """Each square of ``block`` pixels as one; what is left over at the edges is white in all."""
    height, width = (-size % block for size in picture.shape[:2])
    picture = np.pad(picture, ((0, height), (0, width), (0, 0)), constant_values=1)
    rows, columns = (size // block for size in picture.shape[:2])
    return picture.reshape(rows, block, columns, block, 3).mean(axis=(1, 3))


def numbers_agree(stored, new):
    """Whether two texts are equal but for numbers that differ within the tolerance."""
    if NUMBER.sub("#", squeeze(stored)) != NUMBER.sub("#", squeeze(new)):
        return False
    return all(map(agree, NUMBER.findall(stored), NUMBER.findall(new)))


def agree(stored, new):
    if stored.lstrip("+-").isdecimal():
        return stored == new
    return abs(float(stored) - float(new)) <= ABSOLUTE + RELATIVE * abs(float(stored))


def squeeze(text):
    """Runs of spaces as one: a column's width follows its numbers'."""
    return re.sub(" +", " ", text)


def pictures(outputs):
    return [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]


def texts(outputs):
    """All text of a cell, in order; pictures' size lines left out."""
    parts = []
    for output in outputs:
        data = output.get("data", {})
        if "text" in output:
            parts.append(output["text"])
        elif "image/png" not in data:
            parts += [data[kind] for kind in sorted(data) if kind.startswith("text/")]
    return "\n".join(parts)


def complaint_of_run(cell, position):
    """Whether the stored notebook was run once from top to bottom: why not, or None."""
    if cell.execution_count is None:
        return "This cell was never run: its stored outputs mean nothing. Use make execute."
    if cell.execution_count != position:
        return (
            f"This cell's stored execution count is {cell.execution_count}, not {position}: the "
            "notebook was not run once from top to bottom. Use make execute."
        )
    return None


def complaint_of_outputs(cell, stored, new):
    """What nbval would not have said of a cell's pictures and trained numbers, or None."""
    if len(pictures(stored)) != len(pictures(new)):
        return f"{len(pictures(stored))} pictures are stored, {len(pictures(new))} were drawn."
    trained = "trained" in cell.metadata.get("tags", [])
    allowed, block = (TRAINED_PICTURE_TOLERANCE, BLOCK) if trained else (PICTURE_TOLERANCE, 1)
    for number, pair in enumerate(zip(pictures(stored), pictures(new), strict=True), 1):
        difference = picture_difference(*pair, block)
        if difference > allowed:
            return f"Picture {number} differs by {difference:.4f} from the stored one ({allowed})."
    if trained and not numbers_agree(texts(stored), texts(new)):
        return (
            "The numbers of this trained cell are further off than allowed "
            f"({ABSOLUTE} + {RELATIVE:.0%}), or its words changed.\n"
            f"Stored:\n{texts(stored)}\nNew:\n{texts(new)}"
        )
    return None


compare_exactly, run_cell = IPyNbCell.compare_outputs, IPyNbCell.runtest


def compare_outputs(self, test, ref, skip_compare=None):
    said = complaint_of_outputs(self.cell, ref, test)
    if said:
        self.comparison_traceback = [said]
        return False
    if "trained" in self.cell.metadata.get("tags", []):
        return True
    return compare_exactly(self, test, ref, skip_compare)


def runtest(self):
    said = complaint_of_run(self.cell, self.cell_num + 1)
    run_cell(self)  # even so: the cells below need this one
    if said:
        self.raise_cell_error(said)


class KernelInEmptyFolder(RunningKernel):
    """nbval's would start in the folder of the notebook."""

    def __init__(self, kernel_name, cwd=None, **options):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        super().__init__(kernel_name, cwd=self.folder.name, **options)

    def stop(self):
        super().stop()
        self.folder.cleanup()


IPyNbCell.compare_outputs, IPyNbCell.runtest = compare_outputs, runtest
nbval.plugin.RunningKernel = KernelInEmptyFolder
