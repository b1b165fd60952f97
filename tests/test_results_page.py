"""``book/results.md`` shows what is stored, and nothing else."""

import json
import re

import pytest

from benchmarks import omniglot
from tools import results

CELL = {
    "method": "MAML",
    "protocol": "vinyals",
    "ways": 5,
    "shots": 1,
    "seed": 0,
    "mean": 91.26,
    "ci95": 0.3,
    "transductive": False,
    "command": "python -m benchmarks.accuracy omniglot",
    "minutes": 1,
    "config": {"steps": 9, "seconds per 1,000 episodes": 1, "differs": ""},
    "machine": {"cores": 2},
}


def test_the_page_shows_the_stored_results():
    text = results.PAGE.read_text(encoding="utf-8")
    assert results.renewed(text) == text, "run python -m tools.results"


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A folder of cells of the test's own."""
    monkeypatch.setattr(omniglot, "RESULTS", tmp_path)

    def store(**changes):
        cell = CELL | changes
        (tmp_path / f"{len(list(tmp_path.iterdir()))}.json").write_text(json.dumps(cell))

    return store


def test_another_result_is_another_page(stored):
    stored()
    text = results.renewed(results.PAGE.read_text(encoding="utf-8"))
    assert "| **MAML** | no | 91.3 ± 0.3, 1 seed | not run | not run | not run |" in text
    assert text != results.PAGE.read_text(encoding="utf-8")


def test_intervals_are_over_seeds_from_three_on(stored):
    """By hand: 90, 91, 92 have a deviation of 1, and 4.303 / sqrt(3) is 2.48."""
    stored(mean=90.0)
    stored(mean=91.0, seed=1)
    assert results.shown(omniglot.stored()["MAML", 5, 1, "vinyals"]) == "90.5 ± 0.3, 2 seeds"
    stored(mean=92.0, seed=2)
    assert results.shown(omniglot.stored()["MAML", 5, 1, "vinyals"]) == "91.0 ± 2.5, 3 seeds"


def test_published_numbers_have_a_source_and_a_row():
    keys = set(re.findall(r"@\w+\{(\w+),", (results.ROOT / "book/references.bib").read_text()))
    for name, told in results.PUBLISHED.items():
        assert name in results.LEARNERS and told["source"] in keys
        for cell, numbers in told["cells"].items():
            assert re.fullmatch(r"(5|20)w[15]s", cell) and 50 < numbers[0] < 100
    for name, told in results.WAVES.items():
        assert name in results.METHODS and told["source"] in keys and told["points"] in (5, 10, 20)
        assert set(told["errors"]) <= {"0", "1", "5", "10"}


def test_what_the_page_says_of_the_length_of_the_prototypical_trainings():
    """From a quarter of the tasks half a point, and a point and a half, too low; then level."""
    cells, tries = omniglot.stored(), omniglot.stored("tries")
    for size, missed in (((5, 1), 0.5), ((20, 1), 1.5)):
        (short,), (whole, *_) = (of["prototypical", *size, "vinyals"] for of in (tries, cells))
        paper = results.PUBLISHED["prototypical"]["cells"]["{}w{}s".format(*size)][0]
        assert 4 * short["config"]["steps"] == whole["config"]["steps"]
        assert short["seed"] == whole["seed"]
        assert paper - short["mean"] == pytest.approx(missed, abs=0.1) and missed > short["ci95"]
        assert abs(paper - whole["mean"]) < whole["ci95"]
