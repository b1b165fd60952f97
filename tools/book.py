"""Build the book strictly, check that it needs no other host, and say where it is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.self_contained import external_resources

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
LOG = ROOT / "_build" / "book.log"
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
COMMAND = "build . --toc book/_toc.yml -W -n --keep-going"


def main():
    # From nothing each time, in seconds: Sphinx reports a page's warnings only when it reads the
    # page anew, and leaves removed pages and old style sheets where they are.
    shutil.rmtree(LOG.parent, ignore_errors=True)
    LOG.parent.mkdir()
    print("Building the book ...", flush=True)
    with LOG.open("w") as log:
        result = subprocess.run(
            [sys.executable, "-c", JUPYTER_BOOK, *COMMAND.split()],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if result.returncode:
        text = re.sub(r"\x1b\[[0-9;]*m", "", LOG.read_text())
        lines = text.splitlines()
        causes = [line for line in lines if re.search(r"WARNING|ERROR|Error:", line)]
        print("\n".join(causes or lines[-20:]))
        sys.exit(f"The book was not built: see above; the whole log is {LOG}.")
    found = external_resources(HTML)
    if found:
        print("\n".join(found))
        sys.exit("The book was built, but the pages above load something from another host.")
    print(f"The book is {HTML / 'index.html'}: open that file in a browser.")


if __name__ == "__main__":
    main()
