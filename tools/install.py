"""Install the locked dependencies and the package into .venv (standard library only)."""

import subprocess
import sys
import venv
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG = VENV / "install.log"
MARK = VENV / "installed"
# Only files of which the lock has the hash, and none that would fetch more to be built; then the
# package itself, built with the setuptools of the lock.
STEPS = (
    ["--require-hashes", "--only-binary", ":all:", "-r", "requirements.lock"],
    ["--no-deps", "--no-build-isolation", "-e", "."],
)


def works(python):
    """Whether this Python is there, starts (its own installation may be gone) and has pip."""
    try:
        return (
            subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
        )
    except OSError:
        return False


def main():
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        sys.exit(
            f"Python {version[0]}.{version[1]} at {sys.executable} does not fit: TensorFlow needs "
            "3.11, 3.12 or 3.13. Name another one: make PYTHON=python3.12 ..."
        )
    print("Installing into .venv (one to five minutes the first time) ...", flush=True)
    MARK.unlink(missing_ok=True)
    try:
        if not works(VENV / "bin" / "python"):
            venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(VENV)
    except (subprocess.CalledProcessError, ModuleNotFoundError) as error:
        sys.exit(
            f"Could not make a virtual environment: {error}\n"
            "On Debian and Ubuntu, install the package python3-venv first."
        )
    with LOG.open("w") as log:
        for arguments in STEPS:
            command = [VENV / "bin" / "python", "-m", "pip", "install", *arguments]
            result = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            if result.returncode:
                print("\n".join(LOG.read_text().splitlines()[-15:]))
                sys.exit(f"The installation failed; the whole log is {LOG}.")
    MARK.touch()


if __name__ == "__main__":
    main()
