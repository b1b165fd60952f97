"""Scores when seen and unseen classes compete, and the calibration that lets unseen ones win."""

from typing import NamedTuple

import numpy as np

from mlutils.door.numbers import check_finite, is_finite
from mlutils.door.tasks import as_tensor


def class_accuracy(y, scores):
    """The mean over classes of the share of each that is right (:eq:`eq-class-accuracy`).

    Args:
        y: true classes, integers 0..N-1 ``(Q,)``; classes without examples do not count.
        scores: ``(Q, N)``; the highest wins, and not a number is wrong.

    Returns:
        A float from 0 to 1.
    """
    y, scores = check_scores(y, scores)
    right = (scores.argmax(axis=1) == y) & ~np.isnan(scores).any(axis=1)
    return mean_by_class(y, right)


def generalized_accuracy(y, scores, seen):
    """Accuracy on seen and on unseen classes when both compete, and their harmonic mean.

    (Xian, Lampert, Schiele & Akata, PAMI 2019; :eq:`eq-class-accuracy`,
    :eq:`eq-harmonic-mean`.)

    Args:
        y: true classes, integers 0..N-1 ``(Q,)``, some seen, some unseen.
        scores: of all classes, ``(Q, N)``.
        seen: which classes are seen, bools ``(N,)``.

    Returns:
        A ``GeneralizedAccuracy``.
    """
    y, scores, seen = check_generalized(y, scores, seen)
    parts = [class_accuracy(y[part], scores[part]) for part in (seen[y], ~seen[y])]
    return GeneralizedAccuracy(*parts, harmonic_mean(*parts))


class GeneralizedAccuracy(NamedTuple):
    """Accuracies from 0 to 1 when seen and unseen classes compete.

    Attributes:
        seen: on queries of seen classes.
        unseen: on queries of unseen classes.
        harmonic: the harmonic mean of the two.

    Example:
        >>> scores = [[3.0, 1.0], [2.0, 1.0], [0.0, 1.0], [2.0, 0.0]]
        >>> mlutils.generalized_accuracy([0, 0, 1, 1], scores, seen=[True, False])
        GeneralizedAccuracy(seen=1.0, unseen=0.5, harmonic=0.6666666666666666)
    """

    seen: float
    unseen: float
    harmonic: float


def harmonic_mean(seen, unseen):
    """The harmonic mean of two accuracies (:eq:`eq-harmonic-mean`); 0 if one of them is 0.

    Args:
        seen, unseen: both as shares or both in percent.

    Returns:
        A float, in the same unit.
    """
    for name, value in (("seen", seen), ("unseen", unseen)):
        if not is_finite(value) or value < 0:
            raise ValueError(f"{name} must be an accuracy of at least 0, got {value!r}.")
    return 2 * seen * unseen / (seen + unseen) if seen and unseen else 0.0


def calibrated(scores, seen, gamma):
    """Calibrated stacking (Chao, Changpinyo, Gong & Sha, ECCV 2016), :eq:`eq-calibrated-stacking`.

    Args:
        scores: ``(Q, N)``.
        seen: which classes are seen, bools ``(N,)``.
        gamma: what is taken off the scores of seen classes, tau in the equation.

    Returns:
        Scores ``(Q, N)``.
    """
    scores = as_tensor("scores", scores).numpy()
    if scores.ndim != 2:
        raise ValueError(f"scores must be (Q, N), got shape {scores.shape}.")
    return scores - check_finite("gamma", gamma) * check_seen(seen, scores)


def seen_unseen_curve(y, scores, seen):
    """The accuracies at every calibration (:eq:`eq-calibrated-stacking`), exactly.

    A query is given to the best seen class as long as ``gamma`` is below the lead of that class
    over the best unseen one.  So accuracies change at the queries' leads only.

    Args:
        y, scores, seen: as for ``generalized_accuracy``.

    Returns:
        A ``SeenUnseenCurve``.
    """
    y, scores, seen = check_generalized(y, scores, seen)
    if not np.isfinite(scores).all():
        raise ValueError(
            "The scores of a seen-unseen curve must be finite numbers; "
            f"{np.sum(~np.isfinite(scores))} of {scores.size} are not."
        )
    best = [np.where(part, scores.astype(float), -np.inf) for part in (seen, ~seen)]
    lead = best[0].max(axis=1) - best[1].max(axis=1)
    order = np.argsort(lead, kind="stable")
    leads, accuracies = lead[order], []
    for part, of_part in zip((seen, ~seen), best, strict=True):
        # What each query adds to the mean over classes, if its best class of this part is right.
        share = 1 / (np.bincount(y)[y] * len(np.unique(y[part[y]])))
        adds = ((of_part.argmax(axis=1) == y) * share)[order]
        accuracies.append(np.concatenate([[0], np.cumsum(adds)]))
    # gamma before all leads, between each two, and after all: those below it become "unseen".
    gammas = np.concatenate([[leads[0] - 1], (leads[1:] + leads[:-1]) / 2, [leads[-1] + 1]])
    apart = np.diff(leads) > 1e-12 * np.abs(scores).max()  # no gamma between equal leads
    kept = np.concatenate([[True], apart, [True]])
    known, new = accuracies
    return SeenUnseenCurve(gammas[kept], (known[-1] - known)[kept], new[kept])


class SeenUnseenCurve(NamedTuple):
    """Accuracy on seen against accuracy on unseen classes, from 0 to 1.

    Attributes:
        gammas: calibrations, rising, one for each pair of accuracies.
        seen: accuracy on seen classes, which falls.
        unseen: accuracy on unseen classes, which rises.

    Example:
        >>> scores = [[3.0, 1.0], [2.0, 1.0], [0.0, 1.0], [2.0, 0.0]]
        >>> curve = mlutils.seen_unseen_curve([0, 0, 1, 1], scores, seen=[True, False])
        >>> curve.seen.tolist(), curve.unseen.tolist()
        ([1.0, 1.0, 0.5, 0.0], [0.0, 0.5, 0.5, 1.0])
    """

    gammas: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    @property
    def area(self):
        """The area under the curve (:eq:`eq-seen-unseen-area`), from 0 to 1."""
        heights = (self.unseen[1:] + self.unseen[:-1]) / 2
        return float(heights @ (self.seen[:-1] - self.seen[1:]))

    @property
    def best_gamma(self):
        """The calibration with the highest harmonic mean, the lowest of several."""
        sums = np.maximum(self.seen + self.unseen, 1e-12)
        return float(self.gammas[np.argmax(2 * self.seen * self.unseen / sums)])


def mean_by_class(y, right):
    """The mean over classes of the mean of ``right`` over each."""
    counts = np.bincount(y)
    return float((np.bincount(y, weights=right)[counts > 0] / counts[counts > 0]).mean())


def check_scores(y, scores):
    """``y`` and ``scores`` as arrays that fit together, or a ValueError."""
    y, scores = (as_tensor(name, v).numpy() for name, v in (("y", y), ("scores", scores)))
    if scores.ndim != 2 or y.shape != scores.shape[:1] or not len(y) or y.dtype.kind not in "iu":
        raise ValueError(
            "y must be integers (Q,) and scores (Q, N), Q at least 1; got y of "
            f"{y.dtype} {y.shape} and scores of shape {scores.shape}."
        )
    if y.min() < 0 or y.max() >= scores.shape[1]:
        raise ValueError(
            f"y holds class {y.min() if y.min() < 0 else y.max()}, and the scores are of classes "
            f"0 to {scores.shape[1] - 1}."
        )
    return y, scores


def check_seen(seen, scores):
    """``seen`` as bools, one per class, or a ValueError."""
    seen = np.asarray(seen)
    if seen.dtype != bool or seen.shape != scores.shape[-1:]:
        raise ValueError(
            f"seen must be one bool for each of the {scores.shape[-1]} classes, got "
            f"{seen.dtype} {seen.shape}."
        )
    return seen


def check_generalized(y, scores, seen):
    """All three as arrays that fit together, with queries of both kinds, or a ValueError."""
    y, scores = check_scores(y, scores)
    seen = check_seen(seen, scores)
    if seen[y].all() or not seen[y].any():
        there = "seen" if seen[y].all() else "unseen"
        raise ValueError(f"Queries of both kinds are needed; all of these are of {there} classes.")
    return y, scores, seen
