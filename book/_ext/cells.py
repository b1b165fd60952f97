"""The role ``{cell}`MAML, 5-way 1-shot```: that number of the results page, and a link there.

What other pages say of a result so follows the page, and a cell that was not run is a warning.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

PAGE = Path(__file__).resolve().parent.parent / "results.md"


def cell(text, wanted):
    """What the first table of the page has for a learner and a size; None if nothing."""
    _, _, rest = text.partition("% begin omniglot\n")
    lines = rest.partition("% end omniglot")[0].strip().splitlines()
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    learner, _, size = wanted.rpartition(", ")
    for row in rows:
        if row[0] == f"**{learner}**" and size in rows[0]:
            shown = row[rows[0].index(size)]
            return None if shown == "not run" else "{} % ({})".format(*shown.split(", "))
    return None


class Cell(SphinxRole):
    def run(self):
        self.env.note_dependency(str(PAGE))
        shown = cell(PAGE.read_text(encoding="utf-8"), self.text)
        if shown is None:
            logging.getLogger(__name__).warning(
                "The results page has no cell %r.", self.text, location=self.get_location()
            )
        options = {"reftype": "ref", "refdomain": "std", "reftarget": "results"}
        options |= {"refexplicit": True, "refwarn": True, "refdoc": self.env.docname}
        link = addnodes.pending_xref("", nodes.inline("", str(shown)), **options)
        return [link], []


def setup(app):
    app.add_role("cell", Cell())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
