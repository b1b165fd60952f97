"""A new page: ``make new-notebook NB=chapters/maml/my-page.ipynb TITLE="My page"``.

It has all that the checks ask of a page, and runs as it is; what is to be written is marked by
``TO WRITE``, which the checks find.  The page is entered in ``book/_toc.yml``, as the last of its
chapter.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

from tools.notebooks import FOLDED, ROOT, first_cell

LABEL = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
FIGURE = {"caption": "TO WRITE: what to look for.", "name": "fig-LABEL"}
ALT = "TO WRITE: what is drawn, in eight words or more, for those who cannot see it."

BEGINNING = """\
(LABEL)=
# TITLE

TO WRITE: a question in plain words, and why somebody has it.

```{admonition} Before you start
**You need** {ref}`what-is-meta-learning`.

**You will be able to** TO WRITE.

**Time:** TO WRITE, with the exercises. The page runs in less than a minute.
```"""

PREDICT = """\
## TO WRITE: the experiment

TO WRITE: the idea, the equation (with a label, which a test and a docstring name), the code.

````{admonition} Predict, then run
:class: tip
TO WRITE: a question whose answer the next cell shows.

1. TO WRITE
2. TO WRITE
3. TO WRITE

```{dropdown} Answer, after you have chosen
**1**, TO WRITE; and what is wrong with the others.
```
````"""

IMPORTS = """\
import matplotlib.pyplot as plt
import numpy as np"""

EXPERIMENT = """\
x = np.linspace(-1, 1, 50)
y = x**2"""

PICTURE = """\
fig, ax = plt.subplots()
ax.plot(x, y)
ax.set(xlabel="x", ylabel="y")
plt.show()"""

CLAIM = """\
assert y.min() < 0.01 and y.max() == 1
print("TO WRITE: what was asserted")"""

SUMMARY = """\
{numref}`fig-LABEL` shows TO WRITE.

## Summary

- TO WRITE

## Exercises

"""

EXERCISE = """\
```{exercise-start} TO WRITE: a name
:label: ex-LABEL-NUMBER
```
TO WRITE: a question that can be solved from this page.
```{exercise-end}
```

```{solution-start} ex-LABEL-NUMBER
:class: dropdown
```"""

SOLUTION = """\
print(NUMBER)"""

BUG = """\
```{exercise-start} Find the bug: TO WRITE
:label: ex-LABEL-bug
```
Write a test that accepts the right version and catches the wrong one.
```{exercise-end}
```"""

SUSPECTS = """\
def right_one(x):
    return x**2


def first_try(square):
    assert square(1.0) == 1


suspects = {"A": lambda x: x**3}
all_found = mlutils.judge(first_try, right_one, suspects)"""

TEST = """\
def test_square(square):
    assert square(-2.0) == 4


assert mlutils.judge(test_square, right_one, suspects)"""

END = """\
```{solution-end}
```

```{exercise-start} TO WRITE: your own study
:label: ex-LABEL-study
```
TO WRITE: an open question; what would you measure, what would you compare, what would decide?
```{exercise-end}
```

## Further reading

- TO WRITE: whom to {cite:p}`finn2017`."""


def skeleton(label, title):
    """The notebook of a page with a label and a title."""

    def text(template, number=""):
        filled = template.replace("TITLE", title).replace("LABEL", label)
        return filled.replace("NUMBER", str(number))

    def markdown(template, number=""):
        return nbformat.v4.new_markdown_cell(text(template, number))

    def code(template, number="", **metadata):
        return nbformat.v4.new_code_cell(text(template, number), metadata=metadata)

    figure = {name: text(value) for name, value in FIGURE.items()}
    cells = [
        markdown(BEGINNING),
        code(first_cell() + "seed=0)", **FOLDED),
        code(IMPORTS),
        markdown(PREDICT),
        code(EXPERIMENT),
        code(PICTURE, mystnb={"figure": figure, "image": {"alt": ALT}}, tags=["hide-input"]),
        code(CLAIM, tags=["hide-input"]),
    ]
    before = SUMMARY
    for number in (1, 2, 3):
        cells += [markdown(before + EXERCISE, number), code(SOLUTION, number)]
        before = "```{solution-end}\n```\n\n"
    cells += [markdown(before + BUG), code(SUSPECTS)]
    cells += [
        markdown("```{solution-start} ex-LABEL-bug\n:class: dropdown\n```"),
        code(TEST),
        markdown(END),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def make(path, title, root=ROOT):
    """Write the page and enter it in the table of contents.

    Args:
        path: of the notebook to be, ``chapters/CHAPTER/NAME.ipynb``, from the root.
        title: of the page.
        root: of the repository.

    Raises:
        ValueError: if the path is none of a page, or taken; if there is no title.
    """
    path, toc = Path(path), root / "book/_toc.yml"
    chapter = path.parent
    if path.suffix != ".ipynb" or len(path.parts) != 3 or not LABEL.fullmatch(path.stem):
        raise ValueError(
            "NB must be chapters/CHAPTER/NAME.ipynb, with small letters, digits and hyphens in "
            f"NAME; got {path}."
        )
    begins = f"          - file: {chapter.as_posix()}/"
    lines = toc.read_text(encoding="utf-8").splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.startswith(begins)]
    if not places:
        raise ValueError(f"There is no chapter {chapter} in book/_toc.yml.")
    if (root / path).exists():
        raise ValueError(f"{path} is there already.")
    if not title.strip():
        raise ValueError('TITLE is missing: TITLE="The name of the page".')
    nbformat.write(skeleton(path.stem, title.strip()), root / path)
    last = max(i for i in places if not lines[i].endswith("/quiz\n"))
    lines.insert(last + 1, f"{begins}{path.stem}\n")
    toc.write_text("".join(lines), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description="Begin a new page.")
    parser.add_argument("path", nargs="?", default="", help="chapters/CHAPTER/NAME.ipynb")
    parser.add_argument("title", nargs="?", default="", help="the page's title")
    arguments = parser.parse_args()
    try:
        make(arguments.path, arguments.title)
    except ValueError as error:
        sys.exit(f"No page was made.  {error}")
    print(
        f"{arguments.path} is there, and in book/_toc.yml.\n"
        "Write where it says TO WRITE; then\n"
        f"  make execute NB={arguments.path}\n"
        "  make check\n"
        "  make book\n"
        "and name the page, and its time, in its chapter's intro.md."
    )


if __name__ == "__main__":
    main()
