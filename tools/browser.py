"""Test the built book in a browser, Debian's chromium, which is installed when that is possible."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools.book import HTML, ROOT

BOOK = Path(os.environ.get("MLUTILS_BOOK", HTML)).resolve()
COMMAND = "-m pytest -n2 --confcutdir=tests/browser tests/browser"


def chromium():
    """The path of a browser that is installed, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def install_chromium():
    """By apt, for root; whoever else lacks it reads in the test's summary what to do."""
    if not chromium() and shutil.which("apt-get") and os.geteuid() == 0:
        print("Installing chromium ...", flush=True)
        subprocess.run(["apt-get", "-qq", "update"])
        subprocess.run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", "chromium"])


def main():
    if not (BOOK / "index.html").exists():
        sys.exit(f"There is no book in {BOOK}: make book")
    install_chromium()
    start = time.monotonic()
    if subprocess.run([sys.executable, *COMMAND.split()], cwd=ROOT).returncode:
        sys.exit("The pages named above, under 'short test summary', have faults.")
    print(f"The pages have no fault ({(time.monotonic() - start) / 60:.1f} minutes).")


if __name__ == "__main__":
    main()
