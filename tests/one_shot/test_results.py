"""The stored results on Lake's test: complete, and the stored learners can be scored."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from benchmarks import lake, lake_choice, lake_parts, siamese
from mlutils.data import glyphs
from mlutils.results import stored_result

RESULTS = stored_result("lake")["entries"]

KINDS = ("within", "between", "official")


def test_every_recipe_has_a_result():
    """The learners too; and the yardstick at the size of the official drawings is as published."""
    stored = {path.stem for path in (lake.RESULTS / "lake").glob("*.keras")}
    assert stored == set(lake.RECIPES)
    assert RESULTS["hausdorff"]["pixels"] == 105 and RESULTS["hausdorff-28"]["pixels"] == 28
    assert RESULTS["hausdorff"]["official"]["error"] == 38.75
    assert set(RESULTS) == set(lake.RECIPES)
    for entry in RESULTS.values():
        assert entry["runs"] >= 400 and entry["minutes"] <= 30
        for kind in KINDS:
            assert 0 < entry[kind]["ci95"] < entry[kind]["error"] < 100


def test_every_study_is_complete():
    """A number for each row, each seed (or alphabet) and each kind of runs, all in percent."""
    parts = stored_result("lake_parts")
    assert set(parts["errors"]) == {*lake_parts.ROWS, "one look"}
    choice = stored_result("lake_choice")
    assert set(choice["errors"]) == set(lake_choice.LEARNERS) and len(choice["alphabets"]) == 10
    pairs = stored_result("siamese")["losses"]
    assert set(pairs) == set(siamese.SPACES)
    tables = [
        *((row, {"others", *KINDS}, lake_parts.SEEDS) for row in parts["errors"].values()),
        *((row, set(lake_choice.CHOICES), 10) for row in choice["errors"].values()),
    ]
    for of_loss in pairs.values():
        for found in of_loss.values():
            row = {measure: found[measure] for measure in siamese.MEASURES}
            tables.append((row, set(siamese.MEASURES), siamese.SEEDS))
    for row, names, number in tables:
        assert set(row) == names
        assert all(len(errors) == number for errors in row.values())
        assert all(0 <= error < 100 for errors in row.values() for error in errors)


def test_runs_as_numbers_of_drawings():
    """The same characters on both sides, each once, by one person, and by another."""
    runs = lake_parts.numbers(glyphs("test"))
    characters, drawers = np.divmod(runs, 20)
    assert runs.shape == (lake_parts.RUNS, 2, 20)
    np.testing.assert_array_equal(characters[:, 0], characters[:, 1])
    assert all(len(set(of_run)) == 20 for of_run in characters[:, 0])
    assert (drawers == drawers[:, :, :1]).all() and (drawers[:, 0] != drawers[:, 1]).all()
    scripts = np.array(glyphs("test").scripts)[characters[:, 0]]
    assert (scripts == scripts[:, :1]).all()


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
    monkeypatch.setattr(lake, "SIZES", {})
    lake.on_archive(archive)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(lake.RECIPES)
    errors = np.array([float(line.split()[1]) for line in lines])
    assert errors.max() < 90 and errors[-1] == errors.min()
    assert all("(2 tasks)" in line for line in lines)
