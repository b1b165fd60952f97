"""Every number that a family takes passes a check of ``mlutils.door.numbers``."""

import re
from functools import partial

import numpy as np
import pytest

from mlutils import data

IMAGES = np.zeros((6, 4, 2, 2, 1), np.uint8)
CHARACTERS = data.Characters(IMAGES, tuple("abcdef"), ("one",) * 6, "made up")
DESCRIBED = data.Described(
    IMAGES, tuple("abcdef"), ("one",) * 6, "made up", np.eye(6, dtype="f")[:, :2], ("p", "q")
)
LABELLED = np.zeros((6, 2)), np.arange(6) % 2
TRAINING = partial(data.NetworkTraining, *LABELLED)
QUADRATIC = [[1.0]], ([[[1.0]]], [[1.0]])

EPISODES = partial(data.episodes, *LABELLED, queries=2)
SPLIT = partial(DESCRIBED.class_split, unseen=1, held_out=1)
PICTURES = data.Pictures(IMAGES[:, 0], range(6), tuple("abcdef"), tuple("123456"))
RUNS = partial(data.lake_runs, CHARACTERS, ways=2)
READ = partial(data.read_lake_runs, "nowhere")
SHOTS = data.GaussianProcess().episodes

# What is called, and its counts, each with the least that is allowed.
COUNTS = [
    (EPISODES, {"ways": 1, "shots": 0, "queries": 1, "meta_batch": 1}),
    (CHARACTERS.episodes, {"ways": 1, "shots": 0, "queries": 1, "meta_batch": 1}),
    (PICTURES.at_least, {"count": 1}),
    (partial(DESCRIBED.episodes, queries=2), {"ways": 1, "queries": 1, "meta_batch": 1}),
    (SPLIT, {"unseen": 1, "held_out": 1}),
    (RUNS, {"ways": 1, "queries": 1, "meta_batch": 1}),
    (READ, {"size": 1}),
    (data.omniglot, {"size": 1}),
    (data.handwritten_braille, {"size": 1}),
    (data.official_lake_runs, {"size": 1}),
    (data.sinusoids, {"shots": 1, "queries": 1, "meta_batch": 1}),
    (data.LinearGaussian([1.0]).episodes, {"shots": 0, "queries": 1, "meta_batch": 1}),
    (SHOTS, {"shots": 1, "queries": 1, "meta_batch": 1}),
    (data.Quadratics, {"dimension": 1}),
    (data.Quadratics().problems, {"functions": 1}),
    (partial(data.Quadratics.conjugate_gradients, *QUADRATIC), {"steps": 1}),
    (TRAINING, {"batch": 1}),
    (lambda hidden: TRAINING(hidden=(3, hidden)), {"hidden": 1}),
    (TRAINING().problems, {"functions": 1}),
]


def refuses(make, name, value, says):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be {says}, got {value!r}")):
        make(**{name: value})


@pytest.mark.parametrize(
    "make, name, least",
    [(make, name, least) for make, all_ in COUNTS for name, least in all_.items()],
)
def test_counts(make, name, least):
    for value in (least - 1, 2.5, True):
        refuses(make, name, value, f"an integer of at least {least}")


@pytest.mark.parametrize(
    "make",
    [
        *(make for make, counts in COUNTS if {"meta_batch", "functions", "unseen"} & counts.keys()),
        data.glyphs,
        data.braille,
        data.diacritics,
    ],
)
def test_seeds(make):
    refuses(make, "seed", -1, "an integer of at least 0")
    refuses(make, "seed", 0.5, "an integer of at least 0")
    refuses(make, "seed", 2**32, "at most 2**32 - 1")


@pytest.mark.parametrize(
    "make, name, says",
    [
        (data.braille, "jitter", "a finite number of at least 0"),
        (data.diacritics, "jitter", "a finite number of at least 0"),
        (partial(data.LinearGaussian, [1.0]), "spread", "a finite number of at least 0"),
        (partial(data.LinearGaussian, [1.0]), "noise", "a finite number of at least 0"),
        *((data.GaussianProcess, name, "a finite positive number") for name in ("length", "scale")),
        (data.GaussianProcess, "noise", "a finite positive number"),
    ],
)
def test_real_numbers(make, name, says):
    for value in (-0.1, float("nan"), "1", True) + ((0,) if "positive" in says else ()):
        refuses(make, name, value, says)


@pytest.mark.parametrize("make", [data.glyphs, data.omniglot])
def test_splits(make):
    for value in ("dev", "Train", "", 0, ["train"]):
        with pytest.raises(
            ValueError, match=r"split must be one of .*None.*'train'.*'test'.*, got"
        ):
            make(value)


@pytest.mark.parametrize(
    "make, options, says",
    [
        (data.omniglot, {"size": 106}, "size must be at most 105, the originals' size; got 106"),
        (READ, {"size": 1025}, "size must be at most 1024, got 1025"),
        (EPISODES, {"ways": 3}, "There are 2 classes, too few .* of 3: take ways <= 2"),
        (
            partial(DESCRIBED.episodes, queries=2),
            {"ways": 7},
            "There are 6 classes, .* of 7: take ways <= 6",
        ),
        (DESCRIBED.episodes, {"queries": 4}, "queries must be less than the 4 drawings .* got 4"),
        (SPLIT, {"held_out": 4}, "held_out must be less than the 4 drawings .* got 4"),
        (RUNS, {"ways": 7}, "ways is 7.*one, has 6 .* all together 6: take fewer"),
        (RUNS, {"ways": 7, "within": False}, "ways is 7, .* all together 6: take fewer"),
        (RUNS, {"queries": 4}, "drawn by 4 people.*queries=4"),
        (partial(data.lake_runs, CHARACTERS), {}, "ways is 20"),
        (data.LinearGaussian, {"mean": [1.0], "noise": 0}, "noise must be positive"),
        (data.GaussianProcess, {"noise": 1e-8}, "noise must be at least 1e-6 times scale, got"),
        (SHOTS, {"shots": (5, 3)}, "shots .* of at least 5, got 3"),
        (SHOTS, {"shots": (0, 3)}, "shots .* of at least 1, got 0"),
        (SHOTS, {"shots": (3, 4.5)}, "shots .* at least 3, got 4.5"),
        (SHOTS, {"shots": (3,)}, "the least and the most"),
        (SHOTS, {"shots": (3, 4, 5)}, "the least and the most"),
        (TRAINING, {"activation": "sigmoidal"}, "activation.*sigmoidal"),
    ],
)
def test_numbers_that_do_not_fit_what_there_is(make, options, says):
    with pytest.raises(ValueError, match=says):
        make(**options)
