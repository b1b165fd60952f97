"""One style for all figures of the book."""

import sys

import matplotlib as mpl
import matplotlib.axes

# Okabe & Ito's palette, readable with every kind of colour vision, from dark to light.
# In grey neighbours are close: figures also use line styles and labels.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

STYLE = {
    "figure.figsize": (6.4, 3.6),
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.prop_cycle": mpl.cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "font.size": 10,
}


def use_style():
    """Apply the book's style to every figure drawn from now on."""
    mpl.rcParams.update(STYLE)
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None:  # keep the style's margins: notebooks crop every picture otherwise
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", bbox_inches=None)


def label_line(axes, x, y, text, color, **options):
    """Write ``text`` in ``color`` beside the point ``(x, y)``: a label instead of a legend.

    Args:
        axes: matplotlib axes.
        x, y: the point, in the axes' data units.
        text: the label.
        color: its colour.
        **options: of ``axes.annotate``; ``xytext`` is the distance from the point, in points.
    """
    if not isinstance(axes, mpl.axes.Axes):
        raise TypeError(f"axes must be matplotlib axes, got {type(axes).__name__}.")
    options = {"xytext": (6, 0), "va": "center", **options}
    axes.annotate(text, (x, y), textcoords="offset points", color=color, **options)


class Table:
    """A table of strings that a notebook shows as a table and ``print`` as text.

    Args:
        header: the columns' names.
        rows: sequences of as many cells; each is shown as ``str`` gives it.

    Example:
        >>> print(mlutils.plot.Table(["learner", "error"], [["ours", "0.5"], ["theirs", "0.6"]]))
        learner  error
        ours     0.5
        theirs   0.6
    """

    def __init__(self, header, rows):
        if isinstance(header, str) or not all(hasattr(v, "__iter__") for v in (header, rows)):
            raise TypeError(f"header and rows must be sequences, got {header!r} and {rows!r}.")
        if wrong := [row for row in rows if isinstance(row, str) or not hasattr(row, "__iter__")]:
            raise TypeError(f"rows must hold sequences of cells, got {wrong[0]!r}.")
        self.lines = [[str(cell) for cell in row] for row in (header, *rows)]
        for line in self.lines:
            if len(line) != len(self.lines[0]):
                raise ValueError(f"A row has {len(line)} cells, the header {len(self.lines[0])}.")

    def _repr_markdown_(self):
        header, *rows = ("| " + " | ".join(line) + " |" for line in self.lines)
        rule = "|---" + "|---:" * (len(self.lines[0]) - 1) + "|"
        return "\n".join([header, rule, *rows])

    def __repr__(self):
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in self.lines
        )
