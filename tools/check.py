"""Run the package's tests and every notebook against its stored outputs; say what failed."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLOWEST = ["-p", "tools.durations", "--durations=25"]


def main():
    start = time.monotonic()
    for what, arguments in (
        ("the package's tests", ["tests"]),
        ("the notebooks", ["--nbval", "--nbval-current-env", "chapters"]),
    ):
        print(f"Running {what}, two files at a time ...", flush=True)
        command = [sys.executable, "-m", "pytest", "-n2", "--dist=loadfile", *SLOWEST, *arguments]
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit(
                f"{what.capitalize()} failed: the names are above, under 'short test summary'. "
                "One at a time: .venv/bin/python -m pytest NAME (with --nbval "
                "--nbval-current-env for a notebook). If a notebook changed on purpose: "
                "make execute NB=its/path."
            )
    minutes = (time.monotonic() - start) / 60
    print(f"All tests passed and all notebooks gave their stored outputs ({minutes:.1f} minutes).")


if __name__ == "__main__":
    main()
