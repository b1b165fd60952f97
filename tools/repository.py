"""Set the repository's address: ``python -m tools.repository https://github.com/owner/name``.

It stands in ``_config.yml``; the first cell of each notebook repeats it, because a notebook
must run alone.
"""

import json
import os
import re
import sys

from tools.notebooks import ROOT, first_cell, notebook_paths, repository_url

# No underscore: the placeholder has two, so that nobody can register an account of its name.
ALLOWED = re.compile(r"https://github\.com/[A-Za-z0-9-]+/[A-Za-z0-9._-]+")


def normal(url):
    """The address without a trailing slash or ``.git``.

    Raises:
        ValueError: if it is not a repository's address on GitHub, where Colab opens notebooks.
    """
    url = url.strip().removesuffix("/").removesuffix(".git")
    if not ALLOWED.fullmatch(url) or url.endswith(("/.", "/..")):
        raise ValueError(
            f"URL={url!r} does not fit: allowed is https://github.com/owner/name, for example "
            "make repository URL=https://github.com/ada/learning-to-learn"
        )
    return url


def set_url(url, config=ROOT / "_config.yml", notebooks=None):
    """Write the address into ``config`` and into each notebook's first cell."""
    url = normal(url)
    old = repository_url(config)
    cells = first_cell(old), first_cell(url)
    changed = []
    for path in notebook_paths() if notebooks is None else notebooks:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        source = "".join(first["source"])
        if not source.startswith(cells):  # the new one is there after an interrupted run
            raise ValueError(
                f"The first code cell of {path} does not begin as all do; see CONTRIBUTING.md."
            )
        first["source"] = source.replace(*cells).splitlines(keepends=True)
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        changed.append((path, text))
    # Only when every file is known to fit is any of them written.
    for path, text in [*changed, (config, config.read_text(encoding="utf-8").replace(old, url))]:
        new = path.with_name(path.name + ".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    return url


def main(arguments):
    try:
        url = set_url(arguments[0] if arguments else "")
    except ValueError as error:
        sys.exit(str(error))
    print(f"_config.yml and {len(notebook_paths())} notebooks now name {url}.")


if __name__ == "__main__":
    main(sys.argv[1:])
