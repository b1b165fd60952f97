"""Zero-shot Braille by hand: ``python -m benchmarks.handwriting``.

Letters that people drew for Omniglot are recognised by their dots, learned from other letters by
hand or from print.  Writes ``benchmarks/results/handwriting.json``.

The printed cells to learn from are those of six dots that are no letter.  Until November 2026 they
were all 64, the letters' own among them, so that no letter was unseen; what that was worth is
measured beside it, and so is the same leak with as many cells as the honest training has.
"""

import dataclasses
import functools
import json
import time
from pathlib import Path

import keras
import numpy as np

from mlutils import DAP, SplitScore, class_accuracy, setup, trained_learner
from mlutils.data import braille, handwritten_braille

RESULTS = Path(__file__).parent / "results/handwriting.json"
SPLITS, UNSEEN, JITTERS, PRINTINGS = 20, 6, (0.5, 1.0), 10
# What is learned from in print, and on the page.
TRAININGS = ("no letter", "the letters among as many", "all cells")


def main():
    setup(seed=0, threads=1)
    start, hand = time.monotonic(), handwritten_braille()
    by_encoder = {name: measured(encoder, hand) for name, encoder in encoders().items()}
    results = {
        "command": "python -m benchmarks.handwriting",
        "intervals": "95 %, by Student's quantile: hand to hand over the splits, print to hand "
        "over the people who drew the letters; a minus is the difference of the same splits or "
        "people",
        "splits": SPLITS,
        "people": hand.images.shape[1],
        "drawings": len(hand.y),
        "ways": {"hand to hand": UNSEEN, "print to hand": len(hand)},
        "cells trained": {name: len(cells) for name, cells in trainings(hand).items()},
        "printings": PRINTINGS,
        **{name: shown(scores) for name, scores in by_encoder.items()},
        "encoder - pixels": shown(minus(by_encoder["encoder"], by_encoder["pixels"])),
    }
    results["minutes"] = round((time.monotonic() - start) / 60, 1)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    print(text)


def encoders():
    """What the dots are looked for in: small pixels, or what was learned on glyphs."""
    pixels = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.AveragePooling2D(2), keras.layers.Flatten()]
    )
    return {"pixels": pixels, "encoder": trained_learner("encoder")[0]}


def measured(encoder, hand):
    """Accuracies by what was learned from: ``(splits,)`` or ``(people,)`` each."""
    found = {"hand to hand": from_hand(encoder, hand)}
    for jitter in JITTERS:
        by_training = {
            training: from_print(encoder, hand, jitter, training) for training in TRAININGS
        }
        honest = by_training["no letter"]
        leaks = {f"{name} - no letter": by_training[name] - honest for name in TRAININGS[1:]}
        found |= {f"print to hand, jitter {jitter}": {**by_training, **leaks}}
    return found


def minus(these, those):
    """The differences, accuracy by accuracy; those of differences are left out."""
    if isinstance(these, dict):
        return {name: minus(these[name], those[name]) for name in these if " - " not in name}
    return these - those


def shown(scores):
    """Means and intervals in percent."""
    if isinstance(scores, dict):
        return {name: shown(some) for name, some in scores.items()}
    score = SplitScore(scores)
    return {"accuracy": round(100 * score.mean, 1), "ci95": round(100 * score.ci95, 1)}


def from_hand(encoder, hand):
    """Of dots learned from most letters by hand, on the others by other hands: ``(splits,)``."""
    splits = [hand.class_split(UNSEEN, seed) for seed in range(SPLITS)]
    return np.array(
        [class_accuracy(s.unseen.y, scores_of(encoder, s.train, s.unseen)) for s in splits]
    )


def from_print(encoder, hand, jitter, training, printings=PRINTINGS):
    """Of dots learned from print, on each person's letters by hand: ``(people,)``.

    The mean over some printings, which are distorted anew each.
    """
    found = []
    for seed in range(printings):
        printed = six_dots(seed, jitter).subset(trainings(hand, seed)[training])
        answers = np.argmax(scores_of(encoder, printed, hand), axis=1)
        found.append(np.mean((answers == hand.y).reshape(len(hand), -1), axis=0))
    return np.mean(found, axis=0)


@functools.cache
def six_dots(seed, jitter):
    """The 64 printed cells without dots 7 and 8, described by the other six."""
    cells = braille(seed, jitter).subset(range(2**6))
    six = {"signatures": cells.signatures[:, :6], "attributes": cells.attributes[:6]}
    return dataclasses.replace(cells, **six)


def trainings(hand, seed=0):
    """Which of the 64 printed cells are learned from, by name.

    Cells are numbered by their dots, dot 1 being the lowest bit.

    Args:
        hand: the letters.
        seed: which other cells stand beside the letters where not all do.
    """
    letters = sorted(int(number) for number in hand.signatures @ 2 ** np.arange(6))
    others = [cell for cell in range(2**6) if cell not in letters]
    shuffled = np.random.default_rng(seed).permutation(others).tolist()
    mixed = sorted([*letters, *shuffled[: len(others) - len(letters)]])
    return dict(zip(TRAININGS, (others, mixed, list(range(2**6))), strict=True))


def scores_of(encoder, train, test):
    """Of attributes learned from ``train``, for ``test`` by the signatures of its classes."""
    learner = DAP(encoder, len(train.attributes))
    learner.fit(train.x / np.float32(255), train.y, train.signatures)
    return learner.adapt(test.signatures)(test.x / np.float32(255))


if __name__ == "__main__":
    main()
