"""Make requirements.lock and environment.yml from pyproject.toml."""

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE = "# Made from pyproject.toml by `make lock`; do not edit. Declared dependencies: {digest}\n"


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
    """The text of environment.yml: the declared requirements at the locked versions."""
    requirements = "".join(f'      - "{line}"\n' for line in declared(pyproject))
    return (
        header(pyproject)
        + "name: learning-to-learn\n"
        + "channels:\n  - conda-forge\n"
        + "dependencies:\n"
        + f'  - "python{pyproject["project"]["requires-python"]},<3.14"\n'
        + "  - make\n  - pip\n"
        + "  - pip:\n"
        + "      - --constraint requirements.lock\n"
        + requirements
        + "      - --editable .\n"
    )


def main():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = ROOT / "requirements.lock"
    command = "uv pip compile --universal --no-header --no-annotate --quiet --group dev"
    result = subprocess.run(
        [sys.executable, "-m", *command.split(), "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        sys.exit(f"{result.stderr}\nThe requirements could not be resolved; nothing was changed.")
    lock.write_text(header(pyproject) + result.stdout, encoding="utf-8")
    (ROOT / "environment.yml").write_text(environment(pyproject), encoding="utf-8")
    print("requirements.lock and environment.yml are made anew.")


if __name__ == "__main__":
    main()
