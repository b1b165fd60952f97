"""What all tools and tests know of the notebooks."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"

# What every notebook's first code cell begins with; the rest of it calls mlutils.setup.
FIRST_CELL = """\
try:
    import mlutils
except ModuleNotFoundError:  # in Colab, which keeps its TensorFlow
    %pip install -q --no-deps git+{url}
    import mlutils

mlutils.setup("""

# The metadata of that cell: a page shows it folded.
FOLDED = {
    "mystnb": {
        "code_prompt_hide": "Set up",
        "code_prompt_show": "Set up: import mlutils (in Colab, install it first)",
    },
    "tags": ["hide-input"],
}


def notebook_paths():
    return sorted(p for p in CHAPTERS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def repository_url(config=ROOT / "_config.yml"):
    """The repository's address, which stands in ``_config.yml``."""
    return yaml.safe_load(config.read_text(encoding="utf-8"))["repository"]["url"]


def first_cell(url=None):
    """What the first code cell of every notebook begins with."""
    return FIRST_CELL.format(url=url or repository_url())
