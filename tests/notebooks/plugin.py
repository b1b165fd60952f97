"""Closes what nbval lets pass: cells never run or run out of order, and changed pictures.

Text is compared exactly, but for cells tagged ``trained``: their numbers come from long
trainings, which drift from one kind of processor to the next, and may differ as
``numbers_agree`` allows.
"""

import base64
import io
import re

import matplotlib.image
import numpy as np
from nbval.plugin import IPyNbCell

# Mean absolute difference of two pictures, on a scale from 0 to 1.
PICTURE_TOLERANCE = 0.005
TRAINED_PICTURE_TOLERANCE = 0.02
# Numbers of a trained cell: |new - stored| <= absolute + relative * |stored|.
ABSOLUTE, RELATIVE = 0.1, 0.25
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def picture_difference(stored, new):
    """Mean absolute difference of two PNGs given in base64; 1 if their sizes differ."""
    a, b = (
        matplotlib.image.imread(io.BytesIO(base64.b64decode(png)), format="png")[..., :3]
        for png in (stored, new)
    )
    return float(np.mean(np.abs(a - b))) if a.shape == b.shape else 1.0


def numbers_agree(stored, new):
    """Whether two texts are equal but for numbers that differ within the tolerance."""
    if NUMBER.sub("#", squeeze(stored)) != NUMBER.sub("#", squeeze(new)):
        return False
    pairs = zip(NUMBER.findall(stored), NUMBER.findall(new), strict=True)
    return all(abs(float(a) - float(b)) <= ABSOLUTE + RELATIVE * abs(float(a)) for a, b in pairs)


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
    allowed = TRAINED_PICTURE_TOLERANCE if trained else PICTURE_TOLERANCE
    for number, pair in enumerate(zip(pictures(stored), pictures(new), strict=True), 1):
        difference = picture_difference(*pair)
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


IPyNbCell.compare_outputs, IPyNbCell.runtest = compare_outputs, runtest
