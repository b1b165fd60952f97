import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlutils import SplitScore
from mlutils.zero_shot import (
    calibrated,
    class_accuracy,
    generalized_accuracy,
    harmonic_mean,
    seen_unseen_curve,
)
from mlutils.zero_shot.generalized import SeenUnseenCurve

# Xian et al. (PAMI 2019), Animals with Attributes 1 and 2: unseen, seen, harmonic mean.
PUBLISHED = {
    "DAP, AwA1": (0, 88.7, 0),
    "DAP, AwA2": (0, 84.7, 0),
    "DeViSE, AwA1": (13.4, 68.7, 22.4),
    "DeViSE, AwA2": (17.1, 74.7, 27.8),
    "ESZSL, AwA1": (6.6, 75.6, 12.1),
    "ESZSL, AwA2": (5.9, 77.8, 11.0),
}

# Three queries of class 0, of which one is right, one of class 1 and two of class 2, all right.
UNEQUAL = np.array([0, 0, 0, 1, 2, 2])
ANSWERS = np.eye(3)[[0, 1, 2, 1, 2, 2]]

# A small example; class 2 is unseen.  Of each query the best seen class, and its lead over class
# 2: 0 by 1 (right), 1 by 3 (wrong), 1 by 2 (right), 1 by -1 and 0 by 2 (both wrong, if seen wins).
SEEN = np.array([True, True, False])
Y = np.array([0, 0, 1, 2, 2])
SCORES = np.array([[2.0, 0, 1], [1, 3, 0], [0, 2, 0], [-1, 0, 1], [3, 0, 1]])


quick = settings(deadline=None, max_examples=60, derandomize=True, database=None)
SHARES = st.integers(0, 1000).map(lambda right: right / 1000)


# ---------------------------------------------------------------- accuracies


def plain_accuracy(y, scores):
    """The typical mistake: each query counts as one, not each class."""
    return np.mean(np.argmax(scores, axis=1) == y)


def test_each_class_counts_as_one():
    """eq-class-accuracy, by hand: a third, all and all of three classes, (1/3 + 1 + 1) / 3 = 7/9.

    Plain accuracy is another number: of six queries four.
    """
    assert class_accuracy(UNEQUAL, ANSWERS) == pytest.approx(7 / 9)
    assert plain_accuracy(UNEQUAL, ANSWERS) == pytest.approx(4 / 6)


def test_a_class_without_queries_does_not_count():
    """eq-class-accuracy: of ten classes 4 and 7 are there; half of one, all of the other."""
    scores = np.eye(10)[[4, 0, 7]]
    assert class_accuracy([4, 4, 7], scores) == pytest.approx(3 / 4)


def test_not_a_number_is_wrong():
    """Numpy's argmax of NaN is its place: a learner that diverged would be right on class 0."""
    scores = np.array([[math.nan, 0], [0.0, 1]])
    assert plain_accuracy([0, 1], scores) == 1
    assert class_accuracy([0, 1], scores) == 0.5
    assert class_accuracy([0, 1], np.full((2, 2), math.nan)) == 0
    assert generalized_accuracy([0, 1], scores, [True, False]) == (0, 1, 0)


# ---------------------------------------------------------------- harmonic mean


def check_published(mean):
    """Assert the published harmonic means, to the one decimal that they have."""
    for name, (unseen, seen, harmonic) in PUBLISHED.items():
        assert round(mean(seen, unseen), 1) == harmonic, name


def test_published_harmonic_means():
    """eq-harmonic-mean: six rows of the table of Xian et al."""
    check_published(harmonic_mean)


@pytest.mark.parametrize(
    "mean, first",
    [
        pytest.param(lambda s, u: (s + u) / 2, "DAP, AwA1", id="arithmetic"),
        pytest.param(lambda s, u: math.sqrt(s * u), "DeViSE, AwA1", id="geometric"),
        pytest.param(lambda s, u: s * u / (s + u), "DeViSE, AwA1", id="half of it"),
    ],
)
def test_the_check_rejects_other_means(mean, first):
    """eq-harmonic-mean: the geometric mean is right where one of the two is 0."""
    with pytest.raises(AssertionError, match=first):
        check_published(mean)


@quick
@given(seen=SHARES, unseen=SHARES)
def test_harmonic_mean_of_any_two(seen, unseen):
    """eq-harmonic-mean: symmetric, between the two, at most twice the smaller; 0 with a 0."""
    mean = harmonic_mean(seen, unseen)
    low, high = sorted([seen, unseen])
    assert mean == harmonic_mean(unseen, seen)
    assert mean <= min(high, 2 * low) * (1 + 1e-12)
    assert mean >= low * (1 - 1e-12)
    assert harmonic_mean(seen, 0) == harmonic_mean(0, unseen) == 0


def test_harmonic_mean_of_equal_ones_and_by_hand():
    """eq-harmonic-mean: of a half and 1, 2 (1/2) / (3/2) = 2/3."""
    assert harmonic_mean(0.3, 0.3) == pytest.approx(0.3)
    assert harmonic_mean(0.5, 1) == pytest.approx(2 / 3)
    assert harmonic_mean(np.float32(0.5), 1) == pytest.approx(2 / 3)


# ---------------------------------------------------------------- both kinds of classes


def test_seen_and_unseen_classes_compete():
    """eq-class-accuracy, eq-harmonic-mean: seen (1/2 + 1) / 2, unseen 1/2, and 0.6 of them.

    Of class 0 one of two is right, of class 1 the only one, of class 2 one of two.
    """
    found = generalized_accuracy(Y, SCORES, SEEN)
    assert (found.seen, found.unseen) == (0.75, 0.5)
    assert found.harmonic == pytest.approx(0.6)
    assert tuple(found) == (found.seen, found.unseen, found.harmonic)


def test_lists_and_small_integers_will_do():
    expected = generalized_accuracy(Y, SCORES, SEEN)
    for kind in (list, np.uint8, np.int32, np.int64):
        y = Y.tolist() if kind is list else Y.astype(kind)
        assert generalized_accuracy(y, SCORES.tolist(), SEEN.tolist()) == expected


def test_among_unseen_classes_alone_the_score_is_higher():
    """What generalized accuracy is for: unseen queries lose to seen classes, not to each other."""
    unseen = Y == 2
    assert class_accuracy(Y[unseen], np.where(SEEN, -np.inf, SCORES)[unseen]) == 1
    assert generalized_accuracy(Y, SCORES, SEEN).unseen == 0.5


# ---------------------------------------------------------------- calibration


def test_calibration_by_hand():
    """eq-calibrated-stacking: 1.5 less for classes 0 and 1."""
    found = calibrated(SCORES[:2], SEEN, 1.5)
    np.testing.assert_array_equal(found, [[0.5, -1.5, 1], [-0.5, 1.5, 0]])
    np.testing.assert_array_equal(SCORES[0], [2, 0, 1])  # its argument is as it was
    np.testing.assert_array_equal(calibrated([[1, 2]], [False, True], 1), [[1, 1]])


def test_no_calibration_is_the_identity():
    """eq-calibrated-stacking with gamma 0."""
    np.testing.assert_array_equal(calibrated(SCORES, SEEN, 0), SCORES)


@pytest.mark.parametrize("gamma, which", [(1e6, "seen"), (-1e6, "unseen")])
def test_a_huge_calibration_leaves_one_kind_only(gamma, which):
    """eq-calibrated-stacking: no query at all goes to a seen class; or to an unseen one."""
    found = generalized_accuracy(Y, calibrated(SCORES, SEEN, gamma), SEEN)
    assert getattr(found, which) == found.harmonic == 0
    assert found.unseen == 1 or found.seen == 0.75


# ---------------------------------------------------------------- curve


def scanned(y, scores, seen, gammas, accuracy=class_accuracy, sign=1):
    """The curve's accuracies at some calibrations, one after the other."""
    pairs = []
    for gamma in gammas:
        corrected = scores - sign * gamma * seen
        pairs.append([accuracy(y[part], corrected[part]) for part in (seen[y], ~seen[y])])
    return np.array(pairs).T


def check_curve(curve, y, scores, seen, **options):
    """Assert that a curve has the accuracies of eq-calibrated-stacking at its own gammas."""
    expected = scanned(y, scores, seen, curve.gammas, **options)
    np.testing.assert_allclose([curve.seen, curve.unseen], expected, atol=1e-12)


def check_ends(curve, y, scores, seen):
    """Assert that at the ends one kind of classes competes with itself only."""
    assert curve.unseen[0] == curve.seen[-1] == 0
    for found, part in ((curve.seen[0], seen), (curve.unseen[-1], ~seen)):
        alone = np.where(part, scores, -np.inf)[part[y]]
        assert found == pytest.approx(class_accuracy(y[part[y]], alone))


@st.composite
def cases(draw):
    """Labels, scores and kinds of classes, queries of both kinds; scores in eighths, often tied."""
    kinds = draw(st.permutations([True, False, *draw(st.lists(st.booleans(), max_size=4))]))
    seen, classes = np.array(kinds), range(len(kinds))
    y = [kinds.index(True), kinds.index(False), *draw(st.lists(st.sampled_from(classes)))]
    row = st.lists(st.integers(-16, 16), min_size=len(seen), max_size=len(seen))
    scores = draw(st.lists(row, min_size=len(y), max_size=len(y)))
    return np.array(y), np.array(scores) / 8, seen


@quick
@given(cases())
def test_the_curve_is_the_accuracy_at_each_of_its_calibrations(case):
    """eq-calibrated-stacking, with ties, against one calibration after the other.

    One kind's accuracy falls and the other's rises, so that eq-seen-unseen-area is from 0 to 1.
    Of a fine grid of calibrations, off all leads, each is a point of the curve, and none better
    than its best by eq-harmonic-mean.
    """
    y, scores, seen = case
    curve = seen_unseen_curve(y, scores, seen)
    check_curve(curve, y, scores, seen)
    check_ends(curve, y, scores, seen)
    for gamma, *pair in zip(*curve, strict=True):
        found = generalized_accuracy(y, calibrated(scores, seen, gamma), seen)
        assert found[:2] == pytest.approx(pair)
    assert np.all(np.diff(curve.gammas) > 0) and np.isfinite(curve.gammas).all()
    assert np.all(np.diff(curve.seen) <= 0) and np.all(np.diff(curve.unseen) >= 0)
    assert -1e-12 <= curve.area <= curve.seen[0] * curve.unseen[-1] + 1e-12
    best = max(harmonic_mean(*pair) for pair in zip(curve.seen, curve.unseen, strict=True))
    found = generalized_accuracy(y, calibrated(scores, seen, curve.best_gamma), seen)
    assert found.harmonic == pytest.approx(best)
    points = np.stack([curve.seen, curve.unseen])
    for pair in scanned(y, scores, seen, np.arange(-5, 5, 1 / 8) + 1 / 32).T:
        assert np.min(np.abs(points.T - pair).max(axis=1)) < 1e-12
        assert harmonic_mean(*pair) <= best + 1e-12


@pytest.mark.parametrize("dtype, scale", [(np.float64, 1e-3), (np.float64, 1), (np.float32, 1e3)])
def test_the_curve_of_scores_without_ties(dtype, scale):
    """eq-calibrated-stacking: 200 queries of 12 classes, and a point between any two leads."""
    random = np.random.default_rng(0)
    seen, y = np.arange(12) % 3 > 0, random.integers(0, 12, 200)
    scores = (scale * random.normal(size=(200, 12)) + scale * np.eye(12)[y]).astype(dtype)
    curve = seen_unseen_curve(y, scores, seen)
    assert len(curve.gammas) == 201
    check_curve(curve, y, scores.astype(float), seen)
    check_ends(curve, y, scores, seen)
    assert 0.1 < curve.area < 0.9


def test_the_curve_by_hand():
    """eq-calibrated-stacking, eq-class-accuracy: the leads are -1, 1, 2, 2 and 3.

    Below them all seen has (1/2 + 1) / 2.  Above -1 the first query of class 2 is right; above 1
    that of class 0 is lost; above 2 that of class 1, and the other one of class 2 is right.
    """
    curve = seen_unseen_curve(Y, SCORES, SEEN)
    np.testing.assert_array_equal(curve.gammas, [-2, 0, 1.5, 2.5, 4])
    np.testing.assert_array_equal(curve.seen, [0.75, 0.75, 0.5, 0, 0])
    np.testing.assert_array_equal(curve.unseen, [0, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize(
    "wrong",
    [{"accuracy": plain_accuracy}, {"sign": -1}, {"accuracy": plain_accuracy, "sign": -1}],
    ids=["plain accuracy", "gamma added", "both"],
)
def test_the_check_rejects_wrong_curves(wrong):
    """eq-calibrated-stacking, eq-class-accuracy: what the hypothesis test compares would tell."""
    gammas = seen_unseen_curve(Y, SCORES, SEEN).gammas
    curve = SeenUnseenCurve(gammas, *scanned(Y, SCORES, SEEN, gammas, **wrong))
    with pytest.raises(AssertionError):
        check_curve(curve, Y, SCORES, SEEN)
    check_curve(curve, Y, SCORES, SEEN, **wrong)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_curve_of_leads_that_differ_by_rounding(order):
    """eq-calibrated-stacking: leads of 0.3 that are not quite equal count as one."""
    scores = np.array([[0.3, 0], [0.4, 0.1], [0.5, 0.2], [0.0, 1]])[:, order]
    seen, y = np.array([True, False])[order], np.array(order)[[0, 0, 0, 1]]
    curve = seen_unseen_curve(y, scores, seen)
    for gamma, *pair in zip(*curve, strict=True):
        found = generalized_accuracy(y, calibrated(scores, seen, gamma), seen)
        assert found[:2] == pytest.approx(pair)


# ---------------------------------------------------------------- area


def test_area_by_hand():
    """eq-seen-unseen-area: .25 wide and .5 high, then .5 wide, from .5 to 1: 1/8 + 3/8."""
    assert seen_unseen_curve(Y, SCORES, SEEN).area == pytest.approx(0.5)
    steps = SeenUnseenCurve(np.arange(3), np.array([0.8, 0.4, 0]), np.array([0, 0.5, 1.0]))
    assert steps.area == pytest.approx(0.4 * 0.25 + 0.4 * 0.75)


def test_area_of_the_perfect_and_of_the_worst():
    """eq-seen-unseen-area: 1 and 0."""
    y, seen = np.array([0, 1, 2, 3, 3]), np.array([True, False, True, False])
    perfect = seen_unseen_curve(y, np.eye(4)[y], seen)
    assert perfect.area == 1
    best = generalized_accuracy(y, calibrated(np.eye(4)[y], seen, perfect.best_gamma), seen)
    assert best == (1, 1, 1)
    wrong = np.array([2, 3, 0, 1, 1])  # of its own kind the other class
    assert seen_unseen_curve(y, np.eye(4)[wrong], seen).area == 0


def test_area_of_leads_that_tell_nothing():
    """eq-seen-unseen-area: right among their own kind, but all with one lead: a straight line."""
    y, seen = np.array([0, 1]), np.array([True, False])
    curve = seen_unseen_curve(y, np.ones((2, 2)), seen)
    np.testing.assert_array_equal(curve.seen, [1, 0])
    np.testing.assert_array_equal(curve.unseen, [0, 1])
    assert curve.area == 0.5


@quick
@given(cases(), st.integers(-40, 40))
def test_area_is_blind_to_a_bias_of_seen_classes(case, bias):
    """eq-seen-unseen-area: all calibrations are in it; the one that was taken off is another."""
    y, scores, seen = case
    curve, moved = (seen_unseen_curve(y, s, seen) for s in (scores, scores + bias / 8 * seen))
    assert moved.area == pytest.approx(curve.area)
    np.testing.assert_allclose(moved.gammas, curve.gammas + bias / 8)
    assert moved.best_gamma == pytest.approx(curve.best_gamma + bias / 8)


# ---------------------------------------------------------------- the best calibration


def test_best_calibration_by_hand():
    """eq-harmonic-mean: 2 (3/4)(1/2) / (5/4) = 0.6 at 0, and 0.5 at 1.5; with a bias of 7, at 7."""
    assert seen_unseen_curve(Y, SCORES, SEEN).best_gamma == 0
    biased = SCORES + 7 * SEEN
    assert generalized_accuracy(Y, biased, SEEN).harmonic == 0
    gamma = seen_unseen_curve(Y, biased, SEEN).best_gamma
    assert gamma == 7 and isinstance(gamma, float)
    found = generalized_accuracy(Y, calibrated(biased, SEEN, gamma), SEEN)
    assert found.harmonic == pytest.approx(0.6)


def test_best_is_by_the_harmonic_mean_not_the_arithmetic_one():
    """eq-harmonic-mean of (0.9, 0.1) is 0.18, of (0.4, 0.4) it is 0.4; the sums say otherwise."""
    curve = SeenUnseenCurve(
        np.array([1.0, 2, 3]), np.array([0.9, 0.4, 0]), np.array([0.1, 0.4, 0.4])
    )
    assert curve.best_gamma == 2
    nothing = SeenUnseenCurve(np.array([1.0, 2]), np.array([1, 0]), np.array([0, 0]))
    assert math.isfinite(nothing.best_gamma)


# ---------------------------------------------------------------- splits


def test_ten_splits_by_hand():
    """Five times .4 and .6: variance .1/9, standard error 1/30; Student's quantile is 2.262.

    The normal quantile, 1.96, would make the interval too narrow: 6.5 in place of 7.5.
    """
    score = SplitScore([0.4, 0.6] * 5)
    assert (score.mean, score.median, score.tasks) == (0.5, 0.5, 10)
    assert score.ci95 == pytest.approx(2.262 / 30, abs=2e-5)
    assert repr(score) == "SplitScore(50.0 ± 7.5 % (10 splits))"
    assert math.isnan(SplitScore([0.5]).ci95)
    with pytest.raises(ValueError, match="values must be one number for each of some splits"):
        SplitScore([])


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("value", [-0.1, math.nan, "1", True])
def test_no_accuracy_has_no_harmonic_mean(value):
    for name, pair in (("seen", (value, 0.5)), ("unseen", (0.5, value))):
        message = f"^{name} must be an accuracy of at least 0, got {value!r}"
        with pytest.raises(ValueError, match=message):
            harmonic_mean(*pair)


FIT = r"y must be integers \(Q,\) and scores \(Q, N\), Q at least 1; .*"
OTHER = "y holds class {}, and the scores are of classes 0 to 2"


@pytest.mark.parametrize(
    "y, scores, words",
    [
        (Y.astype(float), SCORES, FIT + r"got y of float64 \(5,\)"),
        (Y > 0, SCORES, FIT + r"got y of bool \(5,\)"),
        (Y[1:], SCORES, FIT + r"got y of int\d+ \(4,\) .* shape \(5, 3\)"),
        (np.eye(3, dtype=int)[Y], SCORES, FIT + r"got y of int\d+ \(5, 3\)"),
        (Y, SCORES[:, 0], FIT + r"scores of shape \(5,\)"),
        (Y, SCORES[None], FIT + r"scores of shape \(1, 5, 3\)"),
        (Y[:0], SCORES[:0], FIT + r"got y of int\d+ \(0,\) .* \(0, 3\)"),
        (np.where(Y == 1, 3, Y), SCORES, OTHER.format(3)),
        (np.where(Y == 1, -1, Y), SCORES, OTHER.format(-1)),  # the last, if numpy looked it up
    ],
)
def test_labels_and_scores_must_fit(y, scores, words):
    for function in (class_accuracy, generalized_accuracy, seen_unseen_curve):
        with pytest.raises(ValueError, match=words):
            function(y, scores, *[SEEN] * (function is not class_accuracy))


@pytest.mark.parametrize(
    "seen, came",
    [
        ([0, 1], r"int\d+ \(2,\)"),  # integers, as an index, would choose other columns
        (SEEN.astype(int), r"int\d+ \(3,\)"),
        (SEEN[1:], r"bool \(2,\)"),
        (SEEN[None], r"bool \(1, 3\)"),
    ],
)
def test_kinds_of_classes_must_be_bools(seen, came):
    for call in (
        lambda: generalized_accuracy(Y, SCORES, seen),
        lambda: calibrated(SCORES, seen, 1.0),
        lambda: seen_unseen_curve(Y, SCORES, seen),
    ):
        with pytest.raises(ValueError, match=f"seen must be one bool for .* 3 classes, got {came}"):
            call()


@pytest.mark.parametrize("kind", ["seen", "unseen"])
def test_queries_of_both_kinds_are_needed(kind):
    message = f"Queries of both kinds are needed; all of these are of {kind} classes"
    kept = SEEN[Y] == (kind == "seen")
    for function in (generalized_accuracy, seen_unseen_curve):
        with pytest.raises(ValueError, match=message):
            function(Y[kept], SCORES[kept], SEEN)
        with pytest.raises(ValueError, match=message):
            function(Y, SCORES, np.full(3, kind == "seen"))


def test_numbers_that_are_not_finite_raise():
    for gamma in (math.nan, np.ones(2)):
        with pytest.raises(ValueError, match="gamma must be a finite number, got "):
            calibrated(SCORES, SEEN, gamma)
    with pytest.raises(ValueError, match=r"scores must be \(Q, N\), got shape \(\)"):
        calibrated(1.0, [True], 0.5)
    with pytest.raises(ValueError, match="must be finite numbers; 1 of 15 are not"):
        seen_unseen_curve(Y, np.where(SCORES == -1, math.inf, SCORES), SEEN)
