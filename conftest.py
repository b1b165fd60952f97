import os
from pathlib import Path

pytest_plugins = ["tests.notebooks.plugin"]

# The real Omniglot, where this repository's own runs have it beside them.
shared = Path(__file__).resolve().parent.parent / "shared/data/omniglot"
if shared.is_dir():
    os.environ.setdefault("MLUTILS_DATA", str(shared))
