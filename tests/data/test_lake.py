import io
import itertools
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import mlutils
from mlutils import Episode, MetaLearner
from mlutils.data import Characters, lake, lake_runs, read_lake_runs
from tests.data import helpers
from tests.data.helpers import averaged, packed, png

SIZES = {"small": 3, "B": 6, "C": 5, "D": 7}  # characters of each script
PEOPLE = 4


def coded(sizes=SIZES, people=PEOPLE):
    """Drawings that say what they are: pixels (class + 1, person + 1); scripts in random order."""
    scripts = np.random.default_rng(0).permutation(np.repeat(list(sizes), list(sizes.values())))
    index = np.indices((len(scripts), people)) + 1
    images = np.moveaxis(index, 0, -1).astype(np.uint8)[:, :, np.newaxis, :, np.newaxis]
    names = tuple(f"character {i}" for i in range(len(scripts)))
    return Characters(images, names, tuple(scripts.tolist()), "made up")


CODED = coded()


def runs_of(number=1, characters=CODED, **options):
    """The runs of the first batches, one after the other; inputs as (class, person)."""

    def decoded(x):
        return np.rint(255 * x[..., 0, :, 0]).astype(int) - 1

    return [
        (decoded(support_x), support_y, decoded(query_x), query_y)
        for batch in helpers.batches(lake_runs(characters, **options), number)
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True)
    ]


def scripts_of(run, characters=CODED):
    return {characters.scripts[c] for c in run[0][:, 0]}


def check_run(run, ways, queries):
    """Assert what a run promises, of drawings (class, person)."""
    support_x, support_y, query_x, query_y = run
    of_label = dict(zip(support_y, support_x[:, 0], strict=True))
    assert sorted(of_label) == list(range(ways)), "labels are not 0..ways-1, each once"
    assert len(set(of_label.values())) == ways, "a character came twice"
    people = [set(support_x[:, 1])]
    for x, y in zip(query_x.reshape(queries, ways, 2), query_y.reshape(queries, ways), strict=True):
        assert sorted(y) == list(range(ways)), "a person did not draw each character once"
        assert [of_label[label] for label in y] == list(x[:, 0]), "a label is not its character"
        people.append(set(x[:, 1]))
    assert all(len(set_) == 1 for set_ in people), "a set is not of one person"
    assert len(set.union(*people)) == 1 + queries, "a person came twice"


@st.composite
def cases(draw):
    ways, queries = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    characters = coded(
        dict(zip("ABCD", [ways, *sizes], strict=False)), 1 + queries + draw(st.integers(0, 2))
    )
    options = {
        "within": draw(st.booleans()),
        "meta_batch": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }
    return ways, queries, characters, options


# As many people and characters as a run takes.
JUST = (3, 2, coded({"A": 3, "B": 4}, 3), {"within": True, "meta_batch": 2, "seed": 0})


# Without shrinking: a failing case is small as it is; to look for a smaller one takes minutes.
GENERATE = [Phase.explicit, Phase.generate]


@settings(deadline=None, max_examples=8, derandomize=True, database=None, phases=GENERATE)
@given(cases())
@example(JUST)
def test_runs_keep_their_promises(case):
    """Museum of bugs, 7: an example in both sets, a class twice, labels that do not fit."""
    ways, queries, characters, options = case
    meta_batch, q = options["meta_batch"], ways * queries
    spec = lake_runs(characters, ways, queries=queries, **options).element_spec
    shapes = [(meta_batch, *rest) for rest in ((ways, 1, 2, 1), (ways,), (q, 1, 2, 1), (q,))]
    assert [tuple(v.shape) for v in Episode.from_element(spec)] == shapes
    assert [v.dtype for v in Episode.from_element(spec)] == [tf.float32, tf.int32] * 2
    runs = runs_of(2, characters, ways=ways, queries=queries, **options)
    assert len(runs) == 2 * meta_batch
    for run in runs:
        check_run(run, ways, queries)
        assert len(scripts_of(run, characters)) == 1 or not options["within"]


def test_the_check_rejects_a_wrong_run():
    (run,) = runs_of(ways=5)
    for message, part, where, value in (
        ("a person came twice", 2, np.s_[:, 1], run[0][0, 1]),
        ("a label is not its character", 3, np.s_[:], np.roll(run[3], 1)),
        ("a character came twice", 0, 0, run[0][1]),
        ("a set is not of one person", 2, np.s_[0, 1], 9),
        ("labels are not 0..ways-1", 1, 0, 7),
    ):
        wrong = [values.copy() for values in run]
        wrong[part][where] = value
        with pytest.raises(AssertionError, match=message):
            check_run(wrong, 5, 1)


@pytest.mark.parametrize("meta_batch, number", [(1, 7), (5, 3)])
def test_scripts_with_enough_characters_take_turns(meta_batch, number):
    """One script a run, in order of their names, from one batch to the next."""
    runs = runs_of(number, ways=5, meta_batch=meta_batch)
    turns = itertools.cycle([{"B"}, {"C"}, {"D"}])
    assert [scripts_of(run) for run in runs] == list(itertools.islice(turns, len(runs)))
    assert set.union(*map(scripts_of, runs_of(2, ways=6, meta_batch=6))) == {"B", "D"}


@pytest.mark.parametrize("within", [True, False])
def test_each_run_draws_new_characters_people_and_orders(within):
    runs = runs_of(ways=3, within=within, meta_batch=400)
    drawn = np.bincount(np.concatenate([run[0][:, 0] for run in runs]), minlength=len(CODED))
    if within:  # 100 runs of each script
        expected = np.array([300 / SIZES[script] for script in CODED.scripts])
    else:
        expected = np.full(len(CODED), 1200 / len(CODED))
    np.testing.assert_array_less(np.abs(drawn - expected), 5 * np.sqrt(expected))
    people = {(run[0][0, 1], run[2][0, 1]): None for run in runs}
    assert set(people) == set(itertools.permutations(range(PEOPLE), 2))
    orders = {(*run[1], *run[3]) for run in runs}
    assert len(orders) == 36, "support and query set are not each in any order"
    assert len({tuple(run[0][:, 0]) for run in runs}) > 80  # of 342 within, 9,240 between


def test_between_mixes_scripts_and_may_take_more_characters_than_any_has():
    runs = runs_of(ways=5, within=False, meta_batch=50)
    assert np.mean([len(scripts_of(run)) > 1 for run in runs]) > 0.9
    assert set.union(*map(scripts_of, runs)) == set(SIZES)
    for run in runs_of(2, ways=len(CODED), within=False):
        check_run(run, len(CODED), 1)


def test_the_defaults_are_the_tests():
    """Twenty ways, one query of each, within a script, one run."""
    characters = coded({"A": 20, "B": 25})
    for number, run in enumerate(runs_of(4, characters)):
        check_run(run, 20, 1)
        assert scripts_of(run, characters) == {"AB"[number % 2]}


# ---------------------------------------------------------------- archives of runs

# An archive of the official layout: runs, characters each, and drawings of training and test.
RUNS, WAYS = 3, 4
INK = np.random.default_rng(0).random((2, RUNS, WAYS, 105, 105)) < 0.1
PICTURES = [[[png(ink) for ink in run] for run in part] for part in INK]
ANSWERS = np.array([[2, 0, 3, 1], [0, 1, 2, 3], [3, 2, 1, 0]])  # the class of each item


def lines_of(run, answers):
    name = f"run{run + 1:02}"
    return [
        f"{name}/test/item{item + 1:02}.png {name}/training/class{answer + 1:02}.png"
        for item, answer in enumerate(answers)
    ]


def layout(top="", end="\n", last=True, pictures=PICTURES, answers=ANSWERS, shuffled=False):
    """The files of such an archive."""
    files = {}
    random = np.random.default_rng(0)
    for run, of_items in enumerate(answers):
        name, lines = f"{top}run{run + 1:02}", lines_of(run, of_items)
        if shuffled:
            lines = [str(line) for line in random.permutation(lines)]
        files[f"{name}/class_labels.txt"] = (end.join(lines) + end * last).encode()
        for number in range(len(of_items)):
            files[f"{name}/training/class{number + 1:02}.png"] = pictures[0][run][number]
            files[f"{name}/test/item{number + 1:02}.png"] = pictures[1][run][number]
    if shuffled:
        files = {str(name): files[name] for name in random.permutation(list(files))}
    return files


def assert_right(runs, size=28):
    assert isinstance(runs, Episode)
    support_x, support_y, query_x, query_y = runs
    for x, ink in ((support_x, INK[0]), (query_x, INK[1])):
        assert x.dtype == tf.float32 and x.shape == (RUNS, WAYS, size, size, 1)
        np.testing.assert_allclose(x[..., 0], averaged(ink, size) / 255, rtol=1e-6)
    np.testing.assert_array_equal(support_y, [range(WAYS)] * RUNS)
    np.testing.assert_array_equal(query_y, ANSWERS)
    assert support_y.dtype.is_integer and query_y.dtype.is_integer


@pytest.fixture
def path(tmp_path):
    """Where the archive is; no warning may come."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield tmp_path / "all_runs.zip"


MAC = {"__MACOSX/run01/._class_labels.txt": b"\0\5\x16\7", "run01/.DS_Store": b"\0"}
LAYOUTS = {
    "official": layout(),
    "with folders and other files": {"run01/": b"", "run01/test/": b"", **layout(), "README": b"0"},
    "in a top folder, from Windows": {"all_runs/": b"", **layout("all_runs/", end="\r\n")},
    "in two folders, no last line end": layout("a/b (copy)/", last=False),
    "empty lines and spaces, shuffled": layout(end=" \n\n\t", shuffled=True),
    "packed by a Mac": {**layout(), **MAC},
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_an_archive_of_runs_is_read(path, files):
    path.write_bytes(packed(files))
    assert_right(read_lake_runs(path))


@pytest.mark.parametrize("size", [1, 35, 105])
def test_drawings_are_averaged_to_a_size(path, size):
    path.write_bytes(packed(layout()))
    assert_right(read_lake_runs(str(path), size=size), size)


class Oracle(MetaLearner):
    """Knows a drawing's character by its first columns, and finds it in the support set."""

    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def call(self, inputs, training=None):
        support_x, support_y, query_x = inputs
        same = query_x[:, :, tf.newaxis] == support_x[:, tf.newaxis]
        same = tf.reduce_all(same[..., : self.columns, :], axis=(3, 4, 5))
        return tf.cast(same, tf.float32) @ tf.one_hot(support_y, support_y.shape[1])


class Constant(MetaLearner):
    """Says label 0 of everything."""

    def call(self, inputs, training=None):
        support_x, _, query_x = inputs
        return tf.one_hot(tf.zeros(query_x.shape[:2], tf.int32), support_x.shape[1])


def test_who_knows_all_errs_never_and_who_knows_nothing_mostly(path):
    """Also on an archive, where items are copies of the classes' drawings."""
    copies = [[PICTURES[0][run][answer] for answer in ANSWERS[run]] for run in range(RUNS)]
    path.write_bytes(packed(layout(pictures=[PICTURES[0], copies])))
    read = [read_lake_runs(path)]
    for runs, tasks, ways, columns in (
        (lake_runs(CODED, ways=5, meta_batch=4), 20, 5, 1),
        (lake_runs(CODED, ways=5, within=False, queries=3, meta_batch=4), 20, 5, 1),
        (read, RUNS, WAYS, 28),
    ):
        for learner, error in ((Oracle(columns), 0), (Constant(), 1 - 1 / ways)):
            score = mlutils.evaluate(learner, runs, tasks=tasks, metric="error")
            np.testing.assert_allclose(score.values, error, atol=1e-6)
    with pytest.raises(ValueError, match=f"ended after {RUNS} tasks"):
        mlutils.evaluate(Constant(), read, tasks=RUNS + 1)


def claiming(width, height):
    """A PNG that says it has so many pixels, and holds a few."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")


def saved(kind, size=(105, 105)):
    file = io.BytesIO()
    Image.new("L", size).save(file, kind)
    return file.getvalue()


LIST, DRAWING = "run02/class_labels.txt", "run02/test/item03.png"
LINES = lines_of(1, ANSWERS[1])


LISTS = {
    "a line twice": ([*LINES, LINES[0]], f"{LIST}.* twice"),
    "an item twice": ([*LINES[:3], LINES[3].replace("item04", "item01")], f"{LIST}.* twice"),
    "a class twice": ([*LINES[:3], LINES[3].replace("class04", "class01")], f"{LIST}.* twice"),
    "a drawing elsewhere": (
        [*LINES[:3], "run02/test/item04.png ../../training/class04.png"],
        "'../../training/class04.png', which is not there",
    ),
    "three words": ([*LINES[:3], f"{LINES[3]} 1"], f"{LIST} .*two names"),
    "one word": ([*LINES, "end"], f"{LIST} .*two names"),
    "a blank list": (["", " \r", "\t"], f"{LIST} .*two names"),
}
DRAWINGS = {
    "no picture": (b"no picture", DRAWING),
    "a signature only": (PICTURES[1][1][2][:8], DRAWING),
    "a truncated picture": (PICTURES[1][1][2][:500], DRAWING),
    "too many pixels": (claiming(20_000, 20_000), DRAWING),
    "still too many pixels": (claiming(10_000, 10_000), DRAWING),
    "too wide": (claiming(1025, 1), f"{DRAWING}.*1024"),
    "a JPEG": (saved("JPEG"), DRAWING),
    "another size": (saved("PNG", (105, 104)), "run02/.*different sizes"),
}
ELSE = {
    "no lists": ({n: c for n, c in layout().items() if n.endswith("png")}, "no runNN"),
    "no folder": ({**layout(), "class_labels.txt": b""}, "'class_labels.txt'"),
    "other folders": ({f"trial{n[3:]}": c for n, c in layout().items()}, "'trial01/class"),
    "a drawing missing": ({n: c for n, c in layout().items() if n != DRAWING}, DRAWING),
    "a list in UTF-16": ({**layout(), LIST: "\n".join(LINES).encode("utf-16")}, LIST),
    "fewer in one run": (
        layout(answers=[[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3]]),
        "different numbers of characters",
    ),
}
DAMAGED = ELSE
DAMAGED |= {k: ({**layout(), LIST: "\n".join(v).encode()}, says) for k, (v, says) in LISTS.items()}
DAMAGED |= {k: ({**layout(), DRAWING: png}, says) for k, (png, says) in DRAWINGS.items()}


@pytest.mark.parametrize("files, says", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_refused_with_its_path(path, files, says):
    """It says what is wrong and what the layout is."""
    path.write_bytes(packed(files))
    with pytest.raises(ValueError, match=says) as caught:
        read_lake_runs(path)
    message = str(caught.value)
    assert str(path) in message
    assert "runNN/test/itemII.png runNN/training/classCC.png" in message


def test_so_many_drawings_and_pixels_are_allowed_and_no_more(path, monkeypatch):
    """In all runs together, and counted as often as they are named: run 3 names those of run 1."""
    assert 5 * 20 * 40 * 105**2 < lake.MOST_PIXELS <= 2**26 and 800 < lake.MOST_DRAWINGS <= 10_000
    files = {**layout(), "run03/class_labels.txt": layout()["run01/class_labels.txt"]}
    path.write_bytes(packed(files))
    drawings = RUNS * WAYS * 2
    exact = {"MOST_DRAWINGS": drawings, "MOST_PIXELS": drawings * 105**2}
    for name, most in exact.items():
        monkeypatch.setattr(lake, name, most)
    assert read_lake_runs(path).query_x.shape[:2] == (RUNS, WAYS)
    monkeypatch.setattr(lake, "decoded", None)  # it is found before
    for name, most in exact.items():
        with monkeypatch.context() as patched:
            patched.setattr(lake, name, most - 1)
            with pytest.raises(ValueError, match=f"24 drawings of together 264,600 .*{most - 1:,}"):
                read_lake_runs(path)


def test_a_small_archive_of_many_pixels_is_refused_before_it_fills_the_memory(path):
    """Drawings of the largest size, all of one colour."""
    ways = 33
    white = saved("PNG", (1024, 1024))
    content = packed(layout(pictures=[[[white] * ways]] * 2, answers=[range(ways)]))
    assert len(content) < 2**18
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"66 drawings of together {66 * 2**20:,} pixels"):
            read_lake_runs(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
