"""What stands beside the moving pictures was measured, and their scripts are small."""

import json

import pytest

from tools import moving
from tools.notebooks import notebook_paths


def cell_with(name):
    """The Markdown cell of a notebook that has a moving picture."""
    cells = [
        "".join(cell["source"])
        for path in notebook_paths()
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]
    (found,) = [cell for cell in cells if f"{{moving}} {name}\n" in cell]
    return found


def shown(mean_and_ci95, factor=1.0, digits=2):
    mean, ci95 = mean_and_ci95
    return f"{factor * mean:.{digits}f} ± {factor * ci95:.{digits}f}".replace("-", "−")


@pytest.mark.parametrize("start", ["maml", "joint"])
def test_the_page_says_what_was_measured_of_a_start(start):
    data, cell = moving.stored("maml-adapts"), cell_with("maml-adapts")
    for steps in ("1 steps", "10 steps"):
        assert shown(data["measured"][start][steps]) in cell
    assert f"$\\alpha = {data['innerLr'][start]}$" in cell
    assert f"{moving.META_STEPS:,} meta-steps" in cell


def test_joint_training_has_stopped_improving():
    losses = moving.stored("maml-adapts")["measured"]["joint losses"]
    assert abs(sum(losses[4:7]) - sum(losses[7:])) / 3 < 0.1


@pytest.mark.parametrize(("kind", "digits"), [("trained", 2), ("bent", 1), ("steeper", 0)])
def test_the_page_says_what_was_measured_in_valleys(kind, digits):
    cell, row = cell_with("learned-optimizer"), moving.stored("learned-optimizer")["measured"][kind]
    means = [shown(row[key], 1000, digits) for key in ("learned", "adam", "adam - learned")]
    assert " | ".join([*means, shown(row["learned is lower"], 100, 0) + " %"]) in cell


def test_the_page_says_how_the_two_were_tuned_and_where_adam_is_weak():
    cell, row = cell_with("learned-optimizer"), moving.stored("learned-optimizer")["measured"]
    share = row["trained"]["share of adam's worst tenth"]
    assert f"{100 * share:.0f} % of its mean" in cell
    assert f"in {100 - 100 * row['steeper']['learned is lower'][0]:.0f} of 100" in cell
    other = moving.stored("learned-optimizer")["measured"]["adam of 256 tries"]["trained"]
    assert f"256 tries ended at another one, with a mean of {shown(other['adam'], 1000)}" in cell
    assert f"the rule is lower in {shown(other['learned is lower'], 100, 0)} %" in cell
    assert cell.count(f"{moving.TRIES} tries") == 2
    assert f"{32 * moving.BATCHES:,} valleys" in cell
    assert f"{moving.FUNCTIONS:,} validation valleys" in cell


@pytest.mark.parametrize("name", moving.MAKE)
def test_a_picture_is_under_200_kB(name):
    parts = [moving.FOLDER / f"{name}{end}" for end in (".js", "-data.js", ".svg")]
    assert sum(part.stat().st_size for part in parts) < 200_000
