"""Make requirements.lock and environment.yml from pyproject.toml.

Locked versions stay where they fit; ``python -m tools.lock --upgrade`` takes the newest.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE = "# Made from pyproject.toml by `make lock`; do not edit. Declared dependencies: {digest}\n"
COMMAND = (
    "uv pip compile --universal --generate-hashes --no-header --no-annotate --no-emit-index-url "
    "--quiet --group dev pyproject.toml --output-file"
)


def declared(pyproject):
    """All requirements that pyproject.toml declares, groups expanded, in order."""
    groups = pyproject["dependency-groups"]

    def expand(entries):
        for entry in entries:
            if isinstance(entry, str):
                yield entry
            else:
                yield from expand(groups[entry["include-group"]])

    return [*pyproject["project"]["dependencies"], *expand(groups["dev"])]


def header(pyproject):
    text = "\n".join([pyproject["project"]["requires-python"], *declared(pyproject)])
    return MADE.format(digest=hashlib.sha256(text.encode()).hexdigest()[:16])


def environment(pyproject):
    """The text of environment.yml: what is locked.  The package cannot be in a list with hashes."""
    return (
        header(pyproject)
        + "name: learning-to-learn\n"
        + "channels:\n  - conda-forge\n"
        + "dependencies:\n"
        + f'  - "python{pyproject["project"]["requires-python"]},<3.14"\n'
        + "  - make\n  - pip\n"
        + "  - pip:\n"
        + "      - --require-hashes\n"
        + '      - "--only-binary :all:"\n'
        + "      - --requirement requirements.lock\n"
    )


def main(options):
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = ROOT / "requirements.lock"
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / lock.name
        shutil.copy(lock, new)  # uv keeps the versions that its output file names
        command = [sys.executable, "-m", *COMMAND.split(), str(new), *options]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            sys.exit(
                f"{result.stderr}\nThe requirements could not be resolved; nothing was changed."
            )
        text = header(pyproject) + new.read_text(encoding="utf-8")
    lock.write_text(text, encoding="utf-8")
    (ROOT / "environment.yml").write_text(environment(pyproject), encoding="utf-8")
    print("requirements.lock and environment.yml are made anew.")


if __name__ == "__main__":
    main(sys.argv[1:])
