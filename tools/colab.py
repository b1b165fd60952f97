"""Run every notebook as Colab would: its versions, and mlutils installed without dependencies.

Outputs are not compared, because other versions round otherwise; but each cell must run, and
each assertion hold.  Standard library only.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

# Colab's own list, August 2026.
VERSIONS = (
    "tensorflow==2.20.*",
    "keras==3.13.*",
    "numpy==2.1.*",
    "matplotlib==3.10.*",
    "scikit-learn==1.6.*",
)
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-colab"


def run(*command, folder=ROOT):
    if subprocess.run(command, cwd=folder).returncode:
        sys.exit(f"Failed: {' '.join(map(str, command))}")


def main():
    venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
    python = VENV / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet")
    run(*pip, *VERSIONS, "ipykernel", "nbclient", "nbconvert")
    run(*pip, "--no-deps", ROOT)
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((ROOT / "chapters").rglob("*.ipynb")):
            print(f"Running {path.relative_to(ROOT)} ...", flush=True)
            convert = (python, "-m", "nbconvert", "--to", "notebook", "--execute")
            run(*convert, "--output-dir", folder, path, folder=folder)
    print("All notebooks run with Colab's versions.")


if __name__ == "__main__":
    main()
