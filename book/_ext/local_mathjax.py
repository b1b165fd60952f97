"""Serve MathJax from the book itself, so that pages need no other host."""

import importlib.util
from pathlib import Path

from sphinx.util.fileutil import copy_asset

# One bundle with TeX input and HTML output, and its fonts: 1.6 MB of the package's 24.
PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2")


def source_folder():
    # The package's folder has hyphens in its name: it can be found, but not imported.
    (package,) = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations
    return Path(package) / "static" / "mathjax"


def copy_mathjax(app, exception):
    if exception is None and app.builder.format == "html":
        for part in PARTS:
            source = source_folder() / part
            target = Path(app.outdir) / "_static" / "mathjax" / part
            copy_asset(source, target if source.is_dir() else target.parent)


def setup(app):
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
