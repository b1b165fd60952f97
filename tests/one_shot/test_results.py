"""The stored results on Lake's test: the page shows them, and the stored learners can be scored."""

import ast
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from benchmarks import accuracy
from mlutils.data import glyphs
from tools.notebooks import ROOT

RESULTS = json.loads((ROOT / "benchmarks/results/lake.json").read_text(encoding="utf-8"))

KINDS = ("within", "between", "official")


def test_every_recipe_has_a_result():
    assert set(RESULTS) == set(accuracy.RECIPES)
    for entry in RESULTS.values():
        assert entry["runs"] >= 400 and entry["minutes"] <= 30
        for kind in KINDS:
            assert 0 < entry[kind]["ci95"] < entry[kind]["error"] < 100


def test_the_page_shows_them():
    page = json.loads((ROOT / "chapters/one_shot/lakes-test.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in page["cells"]]
    (cell,) = [source for source in sources if source.startswith("omniglot = {")]
    shown = list(ast.literal_eval(cell.removeprefix("omniglot = ")).values())
    stored = [RESULTS[name] for name in accuracy.RECIPES]
    assert shown == [
        tuple(tuple(round(entry[kind][key], 1) for key in ("error", "ci95")) for kind in KINDS)
        for entry in stored
    ]


@pytest.fixture
def archive(tmp_path):
    """Two runs of twenty glyphs, drawn large, in the layout of all_runs.zip."""
    some = glyphs("test").of_scripts("Armenian").images[:20, ..., 0]
    with zipfile.ZipFile(tmp_path / "all_runs.zip", "w") as archive:
        for run, (teacher, pupil) in (("run01", (0, 1)), ("run02", (2, 3))):
            pairs = []
            for i, character in enumerate(some):
                names = f"{run}/test/item{i + 1:02d}.png", f"{run}/training/class{i + 1:02d}.png"
                for name, drawer in zip(names, (pupil, teacher), strict=True):
                    large = Image.fromarray(255 - character[drawer]).resize((105, 105))
                    png = io.BytesIO()
                    large.convert("1", dither=Image.Dither.NONE).save(png, "PNG")
                    archive.writestr(name, png.getvalue())
                pairs.append(" ".join(names))
            archive.writestr(f"{run}/class_labels.txt", "\n".join(pairs) + "\n")
    return tmp_path / "all_runs.zip"


def test_stored_learners_are_scored_on_an_archive(archive, capsys, monkeypatch):
    """All of them, each better than chance (95 % wrong), and the best best; small drawings."""
    monkeypatch.setattr(accuracy, "SIZES", {})
    accuracy.on_archive(archive)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(accuracy.RECIPES)
    errors = np.array([float(line.split()[1]) for line in lines])
    assert errors.max() < 90 and errors[-1] == errors.min()
    assert all("(2 tasks)" in line for line in lines)
