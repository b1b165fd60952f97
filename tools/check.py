"""Run the package's tests and every notebook against its stored outputs; say what failed.

With ``--since COMMIT`` only those that what changed since then touches.
"""

import argparse
import subprocess
import sys
import time

from tools.changed import changed_files, touched
from tools.notebooks import ROOT

PYTEST = [sys.executable, "-m", "pytest", "-n2", "--dist=loadfile"]
SLOWEST = ["-p", "tools.durations", "--durations=25"]
NOTEBOOKS = ["--nbval", "--nbval-current-env"]


def run(what, arguments):
    """Stop with advice if pytest fails."""
    print(f"Running {what}, two files at a time ...", flush=True)
    if subprocess.run([*PYTEST, *SLOWEST, *arguments], cwd=ROOT).returncode:
        sys.exit(
            f"{what.capitalize()} failed: the names are above, under 'short test summary'. "
            "One at a time: .venv/bin/python -m pytest NAME (with --nbval --nbval-current-env for "
            "a notebook). If a notebook changed on purpose: make execute NB=its/path."
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--since", help="a commit: only what changed since then")
    since, start = parser.parse_args().since, time.monotonic()
    try:
        tests, notebooks = touched(changed_files(since)) if since else (["tests"], ["chapters"])
    except subprocess.CalledProcessError as error:
        sys.exit(f"No changes since {since} can be found: {error.stderr.strip()}")
    if tests:
        run("the package's tests" if not since else " ".join(tests), tests)
    if notebooks:
        run("the notebooks" if not since else " ".join(notebooks), [*NOTEBOOKS, *notebooks])
    minutes = f"({(time.monotonic() - start) / 60:.1f} minutes)"
    if since:
        print(f"What changed since {since} passed {minutes}; make test runs everything.")
    else:
        print(f"All tests passed and all notebooks gave their stored outputs {minutes}.")


if __name__ == "__main__":
    main()
