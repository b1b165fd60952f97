"""The modified Hausdorff distance: by hand, by plain loops, and beside wrong versions."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial import cKDTree

import mlutils
from mlutils import ModifiedHausdorff
from mlutils.data.plumbing.archives import own_archives
from mlutils.one_shot.hausdorff import modified_hausdorff
from tests.one_shot.test_results import RESULTS


def drawing(points, size=9):
    picture = np.zeros((size, size, 1), np.float32)
    for row, column in points:
        picture[row, column] = 1
    return picture


def distance(one, other, **options):
    """Between two drawings, through ``adapt``."""
    predict = ModifiedHausdorff(**options).adapt(np.stack([one]), np.array([0]))
    return -float(predict(np.stack([other]))[0, 0])


# ---------------------------------------------------------------- values derived by hand


def test_pocket_numbers():
    """eq-modified-hausdorff: a bar of three pixels about its mean, and a cross of five.

    Every pixel of the bar is one of the cross: mean 0.  Of the cross's five, two are 1 away from
    the bar: mean 2/5.  The larger counts.
    """
    bar = drawing([(2, 1), (2, 2), (2, 3)])
    cross = drawing([(5, 4), (5, 5), (5, 6), (4, 5), (6, 5)])
    assert distance(bar, cross) == pytest.approx(0.4)
    assert distance(cross, bar) == pytest.approx(0.4)


def test_drawings_are_moved_to_their_mean():
    """eq-modified-hausdorff: two pixels 2 apart, and two 4 apart: each is 1 from the nearest."""
    assert distance(drawing([(0, 0), (0, 2)]), drawing([(8, 4), (8, 8)])) == pytest.approx(1)
    assert distance(drawing([(0, 0), (3, 1)]), drawing([(5, 7), (8, 8)])) == pytest.approx(0)


def test_the_mean_not_the_farthest_counts():
    """eq-modified-hausdorff, where Hausdorff's own distance, the largest, would be 2.

    Both about their mean: -2, 0, 2, and 0 alone.  Means (2 + 0 + 2) / 3 and 0.
    """
    assert distance(drawing([(4, 2), (4, 4), (4, 6)]), drawing([(1, 1)])) == pytest.approx(4 / 3)


# ---------------------------------------------------------------- plain loops


def loop_distance(one, other, combine=max):
    """eq-modified-hausdorff in plain NumPy."""
    a, b = (np.argwhere(picture[..., 0] > 0.5).astype(float) for picture in (one, other))
    a, b = a - a.mean(0), b - b.mean(0)
    distances = [[np.hypot(*(p - q)) for q in b] for p in a]
    ways = np.mean(np.min(distances, axis=1)), np.mean(np.min(distances, axis=0))
    return combine(ways)


def random_task(seed=0, support=7, queries=4):
    random = np.random.default_rng(seed)
    x = random.random((support + queries, 6, 7, 1)) * random.random((support + queries, 1, 1, 1))
    x[:, 2, 3] = 1  # never blank
    return x[:support].astype("float32"), np.array([2, 0, 1, 1, 2, 0, 1]), x[support:].astype("f")


@pytest.mark.parametrize("combine, right", [(max, True), (min, False), (np.mean, False)])
def test_plain_loop(combine, right):
    """eq-modified-hausdorff: drawings with different numbers of pixels, the nearest of a class."""
    support_x, support_y, query_x = random_task()
    found = ModifiedHausdorff().adapt(support_x, support_y)(query_x)
    expected = [
        [-min(loop_distance(q, s, combine) for s in support_x[support_y == n]) for n in range(3)]
        for q in query_x
    ]
    assert (np.abs(found - np.array(expected)).max() < 1e-4) == right


def test_points_that_do_not_count():
    """Only those marked as ink: an unmarked point in the place of the other set changes nothing."""
    places = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    others = tf.constant([[[3.0, 4.0], [0.0, 0.0]]])
    only_first = tf.constant([True, False]), tf.constant([[True, False]])
    found = modified_hausdorff((places, only_first[0]), (others, only_first[1]))
    np.testing.assert_allclose(found, [5.0])


# ---------------------------------------------------------------- a learner like any other


def test_evaluated_like_any_learner():
    """On glyphs far better than chance, 5 %; and grey is ink above the threshold only."""
    runs = [next(iter(mlutils.data.lake_runs(mlutils.data.glyphs("validation"), meta_batch=2)))]
    score = mlutils.evaluate(ModifiedHausdorff(), runs, tasks=2)
    assert score.mean > 0.2
    ((support_x, support_y, query_x), query_y) = runs[0]
    faint = [((support_x / 4, support_y, query_x / 4), query_y)]
    learner = ModifiedHausdorff(threshold=0.125)
    np.testing.assert_allclose(mlutils.evaluate(learner, faint, tasks=2).values, score.values)
    assert ModifiedHausdorff.from_config(learner.get_config()).threshold == 0.125


def by_trees(one, other):
    """eq-modified-hausdorff by another algorithm, k-d trees."""
    return max(np.mean(other.query(one.data)[0]), np.mean(one.query(other.data)[0]))


def trees(pictures):
    """Of the inked pixels about their mean."""
    points = [np.argwhere(picture[..., 0] > 0.5) for picture in pictures]
    return [cKDTree(p - p.mean(axis=0)) for p in points]


def test_lakes_baseline():
    """eq-modified-hausdorff on the 20 official runs: the repository of Omniglot says 38.8 %.

    By trees on all of them, as it is stored, and by the learner on the first, drawing by drawing.
    """
    folder = own_archives()
    if folder is None or not (folder / "images_evaluation.zip").is_file():
        pytest.skip("MLUTILS_DATA names no folder with the archives of Omniglot")
    runs = mlutils.data.official_lake_runs(size=105)
    distances = np.zeros((20, 20, 20))
    for run, drawings in enumerate(zip(runs.support_x.numpy(), runs.query_x.numpy(), strict=True)):
        support, queries = map(trees, drawings)
        distances[run] = [[by_trees(query, one) for one in support] for query in queries]
    error = 100 * np.mean(np.argmin(distances, axis=2) != runs.query_y)  # labels are in order
    assert error == pytest.approx(38.75)
    assert RESULTS["hausdorff"]["official"]["error"] == 38.75
    found = ModifiedHausdorff().adapt(runs.support_x[0], runs.support_y[0])(runs.query_x[0])
    np.testing.assert_allclose(found, -distances[0], atol=1e-3)


def test_a_blank_drawing_has_no_distance():
    assert np.isnan(distance(drawing([(1, 1)]), drawing([])))
    assert np.isnan(distance(drawing([]), drawing([(1, 1)])))


def test_wrong_input_raises():
    with pytest.raises(ValueError, match="threshold must be a finite number"):
        ModifiedHausdorff(threshold=float("nan"))
    with pytest.raises(ValueError, match=r"Drawings must be floats .* got float32 \(2, 9\)"):
        ModifiedHausdorff().adapt(np.zeros((2, 9)), np.array([0, 1]))


def test_bytes_are_the_drawing_of_their_share_of_255():
    runs = np.zeros((2, 9, 9, 1), np.uint8)
    runs[0, 1:4, 2] = runs[1, 5, 3:8] = 255
    as_floats = runs.astype("float32") / 255
    found = ModifiedHausdorff().adapt(runs, np.array([0, 1]))(runs)
    np.testing.assert_array_equal(
        found, ModifiedHausdorff().adapt(as_floats, np.array([0, 1]))(as_floats)
    )
    np.testing.assert_array_equal(np.argmax(found, axis=1), [0, 1])
