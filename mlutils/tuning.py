"""Searching for hyperparameters, with the same number of tries for every rival."""

from typing import NamedTuple

import numpy as np

from mlutils.door.numbers import check_count, check_seed, is_finite
from mlutils.episodes import describe

SCALES = ("linear", "log", "share")


def tune(score, space, tries=32, seed=0):
    """Try settings of hyperparameters, and say which was best.

    The first half of the tries is spread over the whole space, evenly in each hyperparameter (a
    Latin hypercube).  The second half looks more closely, in a box of half the width around the
    best setting so far.  Where there are several objectives, each gets its share of the second
    half.  So all rivals that get the same ``tries`` are searched alike.

    Args:
        score: from the hyperparameters, by name, to a number to be made small, or to several, one
            for each objective (each horizon, say).  What is not finite counts as infinite.
        space: for each hyperparameter ``(low, high, scale)``.  Scales are "linear"; "log", for
            positive numbers that may differ in order of magnitude, such as step sizes; "share", for
            numbers from 0 to below 1 that matter by their distance from 1, such as a momentum.
            With no hyperparameter there is one try.
        tries: how many, at least 2.
        seed: of the draws.

    Returns:
        A ``Tuning``.

    Raises:
        TypeError: if ``score`` is no function, or ``space`` no dictionary.
        ValueError: if ``space`` has a range that is none, or the scores change their number.
    """
    if not callable(score):
        raise TypeError(f"score must be a function of hyperparameters, got {describe(score)}.")
    space, tries, seed = check_space(space), check_count("tries", tries, 2), check_seed(seed)
    places, scores = [], []

    def attempt(place):
        places.append(place)
        values = np.array(score(**setting_at(space, place)), dtype=np.float64)
        if values.ndim > 1 or not values.size or (scores and values.size != len(scores[0])):
            raise ValueError(
                "score must return a number, or as many of them each time; got "
                f"{values.shape} in try {len(places)}."
            )
        scores.append(np.where(np.isfinite(values), values, np.inf).reshape(-1))

    wide = tries - tries // 2 if space else 1
    for place in draws(wide, len(space), seed):
        attempt(place)
    objectives = len(scores[0])
    close = np.array_split(draws(tries // 2, len(space), seed + 1), objectives) if space else []
    for objective, box in enumerate(close):
        best = places[np.argmin([s[objective] for s in scores[:wide]])]
        for place in box:
            attempt(np.clip(best + (place - 0.5) / 2, 0, 1))
    settings = [setting_at(space, place) for place in places]
    return Tuning(settings, np.stack(scores), np.stack(places), list(space))


class Tuning(NamedTuple):
    """What ``tune`` has tried.

    Attributes:
        settings: one dictionary for each try.
        scores: ``(tries, objectives)``.
        places: where each lies in the ranges, 0 at the low and 1 at the high end, ``(tries,
            hyperparameters)``.
        names: of the hyperparameters.

    Example:
        >>> space = {"rate": (0.01, 1.0, "log")}
        >>> tuning = mlutils.tune(lambda rate: abs(rate - 0.3), space, tries=32)
        >>> round(tuning.best()["rate"], 1), tuning.at_edge()
        (0.3, [])
    """

    settings: list
    scores: np.ndarray
    places: np.ndarray
    names: list

    def best(self, objective=0):
        """The setting with the lowest score."""
        return self.settings[self.scores[:, objective].argmin()]

    def score(self, objective=0):
        """The lowest score."""
        return float(self.scores[:, objective].min())

    def at_edge(self, objective=0, margin=0.03):
        """The hyperparameters of the best setting that lie at an end of their range.

        Beyond an end there may be better ones: then the range was too narrow.

        Args:
            objective: which.
            margin: how near, as a share of the range.
        """
        place = self.places[self.scores[:, objective].argmin()]
        near = (place < margin) | (place > 1 - margin)
        return [name for name, is_near in zip(self.names, near, strict=True) if is_near]


def draws(number, dimension, seed):
    """Points of the unit cube, evenly spread in each coordinate: ``(number, dimension)``."""
    random = np.random.default_rng(seed)
    cells = random.permuted(np.tile(np.arange(number), (dimension, 1)), axis=1).T
    return (cells + random.random((number, dimension))) / number


def setting_at(space, place):
    """The hyperparameters at a place of the unit cube."""
    found = {}
    for (name, (low, high, scale)), x in zip(space.items(), place, strict=True):
        if scale == "linear":
            value = low + x * (high - low)
        elif scale == "log":
            value = low * (high / low) ** x
        else:
            value = 1 - (1 - low) * ((1 - high) / (1 - low)) ** x
        found[name] = float(np.clip(value, low, high))
    return found


def check_space(space):
    """``space`` itself, or an error that says which range is none."""
    if not isinstance(space, dict):
        raise TypeError(f"space must be a dictionary of ranges, got {describe(space)}.")
    for name, limits in space.items():
        fits = isinstance(limits, (tuple, list)) and len(limits) == 3 and limits[2] in SCALES
        fits = fits and is_finite(limits[0]) and is_finite(limits[1]) and limits[0] < limits[1]
        if fits and limits[2] == "log":
            fits = limits[0] > 0
        if fits and limits[2] == "share":
            fits = 0 <= limits[0] and limits[1] < 1
        if not fits:
            raise ValueError(
                f"space[{name!r}] must be (low, high, scale) with low < high and a scale of "
                f"{SCALES}, low > 0 for 'log', 0 <= low and high < 1 for 'share'; got {limits!r}."
            )
    return space
