"""The stored result on tables: complete, tuned within its ranges, and of the page's own split."""

import ast
import re

import nbformat
import numpy as np
import pytest

from benchmarks import tables
from mlutils.results import stored_result
from tools.notebooks import CHAPTERS

STORED = stored_result("tables")
PAGE = nbformat.read(CHAPTERS / "practice" / "your-own-tables.ipynb", as_version=4)
CODE = "\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "code")


def check_summary(entry):
    """A number for each seed and each country, of the same errors."""
    by_seed, by_country = np.array(entry["by_seed"]), np.array(entry["by_country"])
    assert by_seed.shape == (tables.SEEDS,) and by_country.shape == (len(STORED["countries"]),)
    assert (by_country > 0).all()
    np.testing.assert_allclose(by_seed.mean(), by_country.mean(), atol=2e-4)


def test_every_learner_has_a_result_for_each_number_of_years():
    assert set(STORED["learners"]) == set(STORED["forecasts"]) == set(tables.SPACES)
    assert STORED["tries"] == tables.TRIES and STORED["minutes"] < 60
    for name, by_shots in STORED["learners"].items():
        assert set(by_shots) == {str(shots) for shots in tables.SHOTS}
        for entry in by_shots.values():
            check_summary(entry)
            assert entry["at_edge"] == [] and len(entry["validation"]) == 2
            for key, (low, high, _) in tables.SPACES[name].items():
                assert low <= entry["setting"][key] <= high
        assert set(STORED["forecasts"][name]) == {"random years", "forecasts"}
        for entry in STORED["forecasts"][name].values():
            check_summary(entry)


def test_the_page_and_the_benchmark_have_the_same_countries():
    """The page deals anew, and pairs what it finds with what is stored, country by country."""
    assert tuple(STORED["countries"]) == tables.countries()[2].names
    left_out = re.search(r"AGGREGATES = (\[.*?\])", CODE, re.DOTALL).group(1)
    assert sorted(ast.literal_eval(left_out)) == sorted(tables.AGGREGATES)
    assert "at_least(40)" in CODE and "split((0.6, 0.2, 0.2), seed=0)" in CODE


def test_forecasts_ask_for_the_last_years_from_earlier_ones():
    part = tables.countries()[2]
    (x, y, query_x), query_y = next(tables.forecasts(part))
    year = np.rint(x * part.scaling.x_spread + part.scaling.x_mean)
    assert year.shape == (38, 10, 1) and year.min() >= 1960 and year.max() <= 1991
    asked = np.rint(query_x * part.scaling.x_spread + part.scaling.x_mean)
    assert (asked[:, :, 0] == np.arange(1992, 2012)).all()
    for name, years, births, later in zip(part.names, year, y, query_y, strict=True):
        _, all_births = part.rows_of(name)
        scaled = part.scaling.scale_y(all_births)
        np.testing.assert_allclose(births, scaled[years[:, 0].astype(int) - 1960], atol=1e-6)
        np.testing.assert_allclose(later, scaled[32:], atol=1e-6)


def test_the_page_has_no_curve_outside_its_years():
    """Otherwise 1955 would take the curve's value of 2007, counted from its end."""
    (cell,) = (cell for cell in PAGE.cells if "def places(x)" in cell.source)
    page = {"np": np, "scaling": tables.countries()[0].scaling}
    exec(cell.source, page)
    scaled = page["scaling"].scale_x
    assert page["places"](scaled([[1960.0], [2011.0]])).tolist() == [0, 51]
    for year in (1955.0, 2012.0):
        with pytest.raises(ValueError, match="no curve outside"):
            page["places"](scaled([[year]]))
