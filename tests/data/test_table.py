"""Tables become tasks: the right rows in each, split by task, scaled by training tasks only."""

import datetime

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import mlutils
from mlutils.data import Scaling, TableTasks, table
from tests.data.helpers import batches

SIZES = {"ash": 9, "birch": 7, "cedar": 12, "dogwood": 8, "elm": 10}


def rows_of(sizes=SIZES, seed=0):
    """Rows in random order that say what they are: x is (task, index), y is 100 task + index."""
    owners = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    index = np.concatenate([np.arange(size) for size in sizes.values()])
    order = np.random.default_rng(seed).permutation(len(owners))
    columns = {
        "tree": np.array(list(sizes))[owners],
        "kind": owners,
        "index": index,
        "height": 100 * owners + index,
    }
    return {name: values[order] for name, values in columns.items()}


def trees(**options):
    options = {"task": "tree", "inputs": ["kind", "index"], "target": "height", **options}
    return table(rows_of(), **options)


def sick(rows=30):
    """Patients with two classes of rows, whose input says patient and class."""
    patient = np.arange(rows) % 3
    label = np.arange(rows) // 3 % 2
    return {
        "patient": patient,
        "code": 10 * patient + label,
        "row": np.arange(rows),
        "state": np.array(["ill", "well"])[label],
    }


def patients(**options):
    options = {"inputs": ["code", "row"], "target": "state", "classes": ("well", "ill"), **options}
    return table(sick(), task="patient", **options)


# ---------------------------------------------------------------- from a table to tasks


def test_rows_go_to_their_tasks():
    tasks = trees()
    assert tasks.names == tuple(SIZES) and tasks.sizes.tolist() == list(SIZES.values())
    for kind, (name, size) in enumerate(SIZES.items()):
        x, y = tasks.rows_of(name)
        assert (x[:, 0] == kind).all() and sorted(x[:, 1]) == list(range(size))
        np.testing.assert_array_equal(y[:, 0], 100 * kind + x[:, 1])
    assert repr(tasks) == "5 tasks of 7 to 12 rows: height from kind, index"
    assert tasks.x.dtype == tasks.y.dtype == np.float64


def test_whatever_has_columns_will_do():
    rows, expected = rows_of(), trees()
    frame = pd.DataFrame(rows)
    records = frame.to_records(index=False)
    structured = np.array(
        list(zip(*rows.values(), strict=True)),
        dtype=[("tree", "U9"), ("kind", int), ("index", int), ("height", int)],
    )
    nullable, categories = frame.convert_dtypes(), frame.astype({"tree": "category"})
    for same in (frame, records, structured, nullable, categories):
        found = table(same, task="tree", inputs=("kind", "index"), target="height")
        assert found.names == expected.names
        np.testing.assert_array_equal(found.x, expected.x)
        np.testing.assert_array_equal(found.y, expected.y)


def test_columns_of_any_class_and_with_numbers_for_names():
    class Column(list):
        pass

    class Frame:
        columns = (0, 1, 2)

        def __getitem__(self, name):
            return Column([[5, 5, 6], [1, 2, 3], [7, 8, 9]][name])

    tasks = table(Frame(), task=0, inputs=[1], target=2)
    assert tasks.names == (5, 6) and repr(tasks) == "2 tasks of 1 to 2 rows: 2 from 1"


def test_tasks_may_be_numbers_or_days():
    assert trees(task="kind", inputs=["index"]).names == (0, 1, 2, 3, 4)
    gaps = pd.DataFrame({"t": pd.array([2, None, 1], "Int64"), "x": [1, 2, 3], "y": [4, 5, 6]})
    for some in (gaps, gaps.astype({"t": float}), gaps.astype({"t": object})):
        assert table(some, "t", ["x"], "y", missing="drop").names == (1, 2)
    with pytest.raises(ValueError, match=r"'t' must name the tasks.* got 0\.5"):
        table({"t": [1.0, 0.5], "x": [1, 2], "y": [1, 2]}, "t", ["x"], "y")
    days = np.array(["2024-01-02", "2024-01-01", "2024-01-02"], "datetime64[D]")
    rows = {"day": days, "x": [1, 2, 3], "y": [4, 5, 6]}
    tasks = table(rows, task="day", inputs=["x"], target="y")
    assert tasks.names == ("2024-01-01", "2024-01-02") and tasks.x.tolist() == [[2], [1], [3]]


def test_classes_have_the_order_that_was_given():
    tasks = patients()
    assert tasks.classes == ("well", "ill") and tasks.y.dtype == np.int32
    np.testing.assert_array_equal(tasks.y, tasks.x[:, 0] % 10 == 0)  # "ill" is 1


@pytest.mark.parametrize("gap", [np.nan, None, pd.NA, pd.NaT])
@pytest.mark.parametrize("column", ["tree", "index", "height"])
def test_missing_values_raise_or_their_rows_are_dropped(column, gap):
    frame = pd.DataFrame(rows_of()).astype(object)
    frame.loc[[3, 8, 9], column] = gap
    options = {"task": "tree", "inputs": ["index"], "target": "height"}
    with pytest.raises(ValueError, match=rf"'{column}' has no value in 3 of 46 rows.* row 3\b"):
        table(frame, **options)
    tasks = table(frame, **options, missing="drop")
    rest = table(frame.drop([3, 8, 9]), **options)
    assert tasks.dropped == 3 and "3 rows without a value left out" in repr(tasks)
    assert tasks.names == rest.names
    np.testing.assert_array_equal(tasks.x, rest.x)


def test_masked_arrays_and_days_can_lack_values():
    rows = rows_of()
    rows["index"] = np.ma.masked_greater(rows["index"], 9)  # two of cedar's twelve
    with pytest.raises(ValueError, match=r"'index' has no value in 2 of 46 rows.*'cedar'"):
        table(rows, "tree", ["index"], "height")
    rows["tree"] = np.array(["NaT", "2024-01-01"] * 23, "datetime64[D]")
    with pytest.raises(
        ValueError, match=r"'tree' has no value in 23 of 46.*row 0\. 1 other column"
    ):
        table(rows, "tree", ["index"], "height")


def test_a_column_that_is_not_used_may_lack_values():
    rows = rows_of() | {"note": [None] * 46}
    assert table(rows, "tree", ["index"], "height").dropped == 0


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "values, says",
    [
        (["red"] * 46, "text, such as 'red'.*one-hot"),
        (["1960"] * 46, r"text that reads as numbers, such as '1960'.*astype\(float\)"),
        (np.full(46, np.datetime64("2024-01-01")), "times, such as '2024-01-01'.*days since"),
        ([datetime.date(2024, 1, 1)] * 46, "times, such as '2024-01-01'"),
        (np.full(46, np.timedelta64(3, "D")), "times, such as '3 days'"),
        (pd.period_range("2024-01", periods=46, freq="M"), "times, such as '2024-01'"),
        (np.full(46, 1j), "must hold numbers, got complex"),
        ([np.inf] + [0.0] * 45, "'index' has 1 infinite"),
        ([*range(7), "red", *range(38)], "text, such as 'red' in row 7, where"),
        (["1"] * 9 + ["n/a"] + ["1"] * 36, "text, such as 'n/a' in row 9, where"),
        (
            np.array([1] * 45 + ["1"], object),
            "text that reads as numbers, such as '1' in row 45, where",
        ),
        (np.array([(1, 2)] * 45 + [None], object)[[0] * 46], "must hold numbers, got tuple"),
        (np.zeros((46, 2)), r"one value per row; got shape \(46, 2\)"),
    ],
)
def test_inputs_that_are_no_numbers(values, says):
    with pytest.raises(ValueError, match=says):
        table(rows_of() | {"index": values}, "tree", ["index"], "height")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"target": "weight"}, r"no column 'weight'; there are \['tree', 'kind'"),
        ({"inputs": ["kind", "height"]}, "different columns; 'height' is two"),
        ({"inputs": ["tree"]}, "different columns; 'tree' is two"),
        ({"missing": "fill"}, r"missing must be one of \('error', 'drop'\), got 'fill'"),
        ({"target": "tree", "task": "kind", "inputs": ["index"]}, "text.*classes="),
        ({"classes": ("a", "b")}, r"'height' must hold one of the classes \('a', 'b'\); 46 of 46"),
        ({"classes": (1,)}, "two different values or more"),
        ({"classes": (1, 1)}, "two different values or more"),
    ],
)
def test_wrong_columns(change, says):
    with pytest.raises(ValueError, match=says):
        trees(**change)


def test_a_yes_or_no_is_a_class_and_as_an_input_a_number():
    rows = rows_of()
    rows["tall"] = rows["index"] > 5
    with pytest.raises(ValueError, match=r"'tall' holds True and False.*classes="):
        table(rows, "tree", ["index"], "tall")
    tasks = table(rows, "tree", ["index"], "tall", classes=(False, True))
    np.testing.assert_array_equal(tasks.y, tasks.x[:, 0] > 5)
    assert set(table(rows, "tree", ["tall"], "height").x.ravel()) == {0.0, 1.0}


def test_an_index_is_no_column():
    frame = pd.DataFrame(rows_of()).set_index("tree")
    with pytest.raises(ValueError, match=r"no column 'tree'.* rows\.reset_index\(\) makes"):
        table(frame, "tree", ["index"], "height")


def test_a_row_keeps_its_number_when_others_are_dropped():
    rows = {"t": [1, 1, 2, 2], "x": [1, None, "red", 2], "y": [1, 2, 3, 4]}
    with pytest.raises(ValueError, match="such as 'red' in row 2, where"):
        table(rows, "t", ["x"], "y", missing="drop")


def test_inputs_may_be_a_generator():
    found = trees(inputs=(name for name in ("kind", "index")))
    assert found.inputs == ("kind", "index")
    np.testing.assert_array_equal(found.x, trees().x)
    with pytest.raises(TypeError, match="inputs must be a list of column names"):
        trees(inputs=iter([]))


def test_what_can_be_no_name():
    for change in ({"inputs": [["kind"]]}, {"target": ["height"]}, {"task": {"tree"}}):
        with pytest.raises(TypeError, match=r"must be names of columns, got .*(kind|height|tree)"):
            trees(**change)
    for call in (trees().rows_of, lambda name: trees().of_tasks([name])):
        with pytest.raises(TypeError, match=r"collection of tasks' names, got \['ash'\]"):
            call(["ash"])


def test_wrong_tables():
    with pytest.raises(TypeError, match=r"task must be one column.*\['tree', 'kind'\]"):
        table(rows_of(), ["tree", "kind"], ["index"], "height")
    options = {"task": "a", "inputs": ["b"], "target": "c"}
    for rows in (np.zeros((4, 3)), [[1, 2, 3]], None, {1, 2}):
        with pytest.raises(TypeError, match="rows must have named columns"):
            table(rows, **options)
    with pytest.raises(TypeError, match=r"inputs must be a list of column names.*got 'b'"):
        table({"a": [1], "b": [1], "c": [1]}, "a", "b", "c")
    with pytest.raises(ValueError, match=r"same length, at least 1; got .*'b': 1"):
        table({"a": [1, 2], "b": [1], "c": [1, 2]}, **options)
    with pytest.raises(ValueError, match="same length, at least 1"):
        table({"a": [], "b": [], "c": []}, **options)
    with pytest.raises(ValueError, match="No row has a value in each"):
        table({"a": [1, 2], "b": [np.nan, 1], "c": [1, np.nan]}, **options, missing="drop")
    with pytest.raises(
        ValueError, match="must name the tasks, by strings or whole numbers; got 'x'"
    ):
        table({"a": np.array(["x", 1], object), "b": [1, 2], "c": [1, 2]}, **options)


# ---------------------------------------------------------------- parts and their scaling


@pytest.mark.parametrize("seed", range(5))
def test_a_split_deals_tasks_and_loses_none(seed):
    tasks = trees()
    parts = tasks.split(seed=seed)
    assert [len(part) for part in parts] == [3, 1, 1]
    assert sorted(sum((part.names for part in parts), ())) == sorted(SIZES)
    for part in parts:
        for name in part.names:
            np.testing.assert_array_equal(part.rows_of(name)[0], tasks.rows_of(name)[0])
    assert [p.names for p in parts] == [p.names for p in tasks.split(seed=seed)]


def test_another_seed_deals_otherwise():
    assert len({trees().split(seed=seed)[1].names for seed in range(20)}) > 2


def test_shares_and_names_may_be_arrays():
    for parts in ((0.6, 0.4), [["ash", "elm"], ["birch", "cedar"]]):
        by_array, by_tuple = (trees().split(some) for some in (np.array(parts), parts))
        assert [part.names for part in by_array] == [part.names for part in by_tuple]
    with pytest.raises(TypeError, match="parts must be a tuple"):
        trees().split(np.array(0.5))


def test_scaling_is_learned_from_the_first_part_alone():
    """By hand: kinds 0 and 1 have 9 and 7 rows, so their mean is 7 / 16."""
    train, test = trees().split((["ash", "birch"], ["elm"]))
    assert train.scaling.x_mean[0] == 7 / 16
    assert train.scaling.x_spread[0] == pytest.approx(np.sqrt(7 / 16 * 9 / 16))
    assert test.scaling is train.scaling
    wild = rows_of()
    wild["index"] = np.where(wild["tree"] == "elm", 1e9, wild["index"])
    other, _ = table(wild, "tree", ["kind", "index"], "height").split((["ash", "birch"], ["elm"]))
    np.testing.assert_array_equal(other.scaling.x_mean, train.scaling.x_mean)
    assert other.scaling.y_spread == train.scaling.y_spread


def test_all_parts_are_scaled_alike():
    train, test = trees().split((["ash", "birch", "cedar"], ["elm"]))
    (x, y, _), _ = next(iter(train.episodes(4, 3, meta_batch=2000)))
    np.testing.assert_allclose(np.mean(y), 0, atol=0.2)
    np.testing.assert_allclose(np.std(y), 1, atol=0.2)
    (x, y, _), _ = next(iter(test.episodes(4, 3, meta_batch=1)))
    np.testing.assert_allclose(
        x[0] * train.scaling.x_spread + train.scaling.x_mean,
        np.stack([np.full(4, 4), test.scaling.unscale_y(y[0, :, 0]) - 400], 1),
        atol=1e-4,
    )


def test_scaling_by_hand():
    tasks = table({"t": [1, 1, 2], "x": [1.0, 3.0, 5.0], "y": [2.0, 2.0, 2.0]}, "t", ["x"], "y")
    first, _ = tasks.split(([1], [2]))
    assert (first.scaling.x_mean, first.scaling.x_spread) == ([2.0], [1.0])
    assert (first.scaling.y_mean, first.scaling.y_spread) == (2.0, 1.0)  # a constant stays
    scaling = Scaling(np.array([2.0]), np.array([4.0]), 1.0, 3.0)
    assert scaling.scale_x([[10.0]]).tolist() == [[2.0]]
    assert scaling.unscale_y(scaling.scale_y([[7.5]])).tolist() == [[7.5]]


def test_a_constant_that_floats_cannot_hold_is_a_constant():
    """The standard deviation of six times 0.1 is 1e-17 in floats, and not 0."""
    assert np.std([0.1] * 6) > 0
    tasks = table({"t": [1] * 6, "x": [0.1] * 6, "y": [0.1] * 6}, "t", ["x"], "y")
    scaling = tasks.split((1.0,))[0].scaling
    assert (scaling.x_mean, scaling.x_spread) == ([0.1], [1.0])
    assert (scaling.y_mean, scaling.y_spread) == (0.1, 1.0)
    assert scaling.scale_x([[0.1]]) == 0 and scaling.scale_x([[0.2]]) == pytest.approx(0.1)


@pytest.mark.parametrize("x", [3.0, [1.0, 2.0, 3.0], [[1.0], [2.0]], np.zeros((2, 3))])
def test_scaled_inputs_have_their_inputs_last(x):
    scaling = Scaling(np.array([0.0, 1.0]), np.array([1.0, 1.0]), 0.0, 1.0)
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., inputs\) with 2 inputs, got shape"):
        scaling.scale_x(x)
    assert scaling.scale_x([1.0, 2.0]).tolist() == [1.0, 1.0]


def test_large_numbers_keep_their_differences():
    """Seconds since 1970, one apart: in float32 they would be the same."""
    rows = {"t": [1] * 4, "x": 1.7e9 + np.arange(4), "y": np.arange(4)}
    tasks = table(rows, "t", ["x"], "y").split((1.0,))[0]
    (x, _, _), _ = next(iter(tasks.episodes(3, 1, None)))
    assert len(np.unique(x)) == 3


def test_splits_keep_scaling_or_learn_it_anew():
    train, test = trees().split((["ash", "birch", "cedar"], ["elm"]))
    assert train.of_tasks(["ash"]).scaling is train.scaling
    inner, _ = train.split((["ash"], ["cedar"]))
    assert inner.scaling.x_mean[0] == 0  # of ash alone
    assert train.split((0.5, 0.5), standardize=False)[0].scaling is None
    new = trees().of_tasks(["dogwood"])
    assert new.scaling is None and new.scaled_like(test).scaling is train.scaling


def test_classes_are_not_scaled():
    part = patients().split((1.0,))[0]
    assert (part.scaling.y_mean, part.scaling.y_spread) == (0.0, 1.0)


@pytest.mark.parametrize(
    "parts, error, says",
    [
        ((0.5, 0.4), ValueError, "sum to 1"),
        ((1.5, -0.5), ValueError, "positive shares"),
        ((0.9, 0.05, 0.05), ValueError, "5 tasks are too few"),
        ((["ash"], ["elm", "ash"]), ValueError, "'ash' is in two"),
        ((["ash"], ["oak"]), ValueError, "names must be different tasks of these 5.*'oak'"),
        ((["ash", "ash"],), ValueError, "one twice"),
        ((["ash"], []), ValueError, "got none"),
        (("ash", "elm"), TypeError, "collection of tasks' names, got 'ash'"),
        (0.5, TypeError, "parts must be a tuple"),
        ((), TypeError, "parts must be a tuple"),
    ],
)
def test_wrong_parts(parts, error, says):
    with pytest.raises(error, match=says):
        trees().split(parts)


def test_scaled_like_wants_the_same_columns():
    train, _ = trees().split((["ash"], ["elm"]))
    with pytest.raises(ValueError, match="columns must be the same"):
        trees(inputs=["index"]).scaled_like(train)
    with pytest.raises(ValueError, match="tasks with a scaling"):
        trees().scaled_like(trees())


def test_tasks_that_are_too_small():
    tasks = trees()
    with pytest.raises(
        ValueError, match=r"'birch' has 7 rows, .* is 9; so it is with 2 of 5 tasks"
    ):
        tasks.episodes(4, 5)
    assert tasks.at_least(9).names == ("ash", "cedar", "elm")
    tasks.at_least(9).episodes(4, 5)
    with pytest.raises(ValueError, match="No task has 13 rows"):
        tasks.at_least(13)
    with pytest.raises(ValueError, match=r"has 5 rows of class 'well', and shots \+ queries is 6"):
        patients().episodes(3, 3)
    with pytest.raises(ValueError, match="No task has 6 rows of each class"):
        patients().at_least(6)


# ---------------------------------------------------------------- episodes


@pytest.mark.parametrize("shots", [1, 3, (2, 4)])
def test_support_and_query_rows_are_different_rows_of_one_task(shots):
    least, most = shots if isinstance(shots, tuple) else (shots, shots)
    found = set()
    for batch in batches(trees().episodes(shots, 3, meta_batch=40), 20):
        assert batch.support_x.dtype == batch.support_y.dtype == np.float32
        assert batch.query_x.shape == (40, 3, 2) and batch.query_y.shape == (40, 3, 1)
        found.add(batch.support_x.shape[1])
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
            x, y = np.concatenate([support_x, query_x]), np.concatenate([support_y, query_y])
            assert len(set(x[:, 0])) == 1 and len(set(x[:, 1])) == len(x)
            np.testing.assert_array_equal(y[:, 0], 100 * x[:, 0] + x[:, 1])
    assert found == set(range(least, most + 1))


def test_each_task_and_each_of_its_rows_is_as_likely():
    """In 4,000 tasks, within five standard errors; in the support set as among the queries."""
    (batch,) = batches(trees().episodes(2, 2, meta_batch=4000))
    kinds = batch.query_x[:, 0, 0].astype(int)
    share, spread = 1 / 5, np.sqrt(0.2 * 0.8 / 4000)
    assert abs(np.bincount(kinds) / 4000 - share).max() < 5 * spread
    for kind, size in enumerate(SIZES.values()):
        for x in (batch.support_x, batch.query_x):
            for place in (0, 1):
                index = x[kinds == kind, place, 1].astype(int)
                counts = np.bincount(index, minlength=size)
                off = abs(counts / len(index) - 1 / size)
                assert len(counts) == size and off.max() < 5 * np.sqrt(1 / size / len(index))


def test_without_a_meta_batch_every_task_comes_once_and_in_order():
    for batch in batches(trees().episodes(2, 2, meta_batch=None), 3):
        assert batch.query_x[:, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_classes_are_balanced_and_their_labels_keep_their_meaning():
    for batch in batches(patients().episodes(2, 3, meta_batch=20), 10):
        for x, y, each in (
            (batch.support_x, batch.support_y, 2),
            (batch.query_x, batch.query_y, 3),
        ):
            assert y.dtype == np.int32 and (y.sum(axis=1) == each).all()
            np.testing.assert_array_equal(y, x[..., 0] % 10 == 0)
            assert (x[..., 0] // 10 == x[:, :1, 0] // 10).all()
        rows = np.concatenate([batch.support_x, batch.query_x], axis=1)[..., 1]
        assert all(len(set(row)) == 10 for row in rows)
        assert len({tuple(y) for y in batch.support_y}) > 1  # shuffled


def test_the_seed_decides():
    for meta_batch in (4, None):
        first, again, other = (
            batches(trees().episodes(2, 2, meta_batch, seed), 2) for seed in (0, 0, 1)
        )
        for a, b, c in zip(first, again, other, strict=True):
            np.testing.assert_array_equal(a.query_x, b.query_x)
            assert (a.query_x != c.query_x).any()


@pytest.mark.parametrize(
    "options, says",
    [
        ({"shots": 0}, "shots must be an integer of at least 1, got 0"),
        ({"shots": (4, 2)}, "shots must be an integer of at least 4, got 2"),
        ({"shots": (1, 2, 3)}, r"shots must be an integer of at least 1, got \(1, 2, 3\)"),
        ({"queries": 0}, "queries must be an integer of at least 1, got 0"),
        ({"meta_batch": 0}, "meta_batch must be an integer of at least 1, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_wrong_numbers(options, says):
    with pytest.raises(ValueError, match=says):
        trees().episodes(**{"shots": 2, "queries": 2, **options})


def test_a_learner_trains_on_them_and_adapts_to_a_new_table():
    """The heights of a new tree are found again in the table's units: a wrong unit is far off."""
    train, test = trees(inputs=["index"]).split((["ash", "birch", "cedar"], ["elm"]))
    learner = mlutils.MAML(mlutils.mlp(1, (8,)), inner_lr=0.1)
    learner.compile("adam", loss="mse")
    learner.fit(train.episodes(3, 3, meta_batch=4), steps_per_epoch=5, verbose=0)
    score = mlutils.evaluate(learner, test.episodes(3, 3, meta_batch=None), tasks=4)
    assert np.isfinite(score.values).all()
    new = table(
        {"tree": ["oak"] * 3, "index": [0, 1, 2], "height": [7, 8, 9]}, "tree", ["index"], "height"
    ).scaled_like(train)
    assert isinstance(new, TableTasks)
    predict = learner.adapt(new.scaling.scale_x(new.x), new.scaling.scale_y(new.y))
    assert tf.convert_to_tensor(predict(new.scaling.scale_x([[3.0]]))).shape == (1, 1)
