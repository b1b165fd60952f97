"""Zero-shot Braille by hand: ``python -m benchmarks.handwriting``.

Letters that people drew for Omniglot are recognised by their dots, learned from other letters by
hand or from print.  Writes ``benchmarks/results/handwriting.json``.
"""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np

from mlutils import DAP, SplitScore, class_accuracy, setup, trained_learner
from mlutils.data import braille, handwritten_braille

RESULTS = Path(__file__).parent / "results/handwriting.json"
SPLITS, UNSEEN = 20, 6


def main():
    setup(seed=0, threads=1)
    pixels = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.AveragePooling2D(2), keras.layers.Flatten()]
    )
    encoders = {"pixels": pixels, "encoder": trained_learner("encoder")[0]}
    hand = handwritten_braille()
    results = {}
    for name, encoder in encoders.items():
        splits = [hand.class_split(UNSEEN, seed) for seed in range(SPLITS)]
        of_splits = SplitScore([accuracy(encoder, s.train, s.unseen) for s in splits])
        results[name] = {
            "hand to hand": round(100 * of_splits.mean, 1),
            "ci95": round(100 * of_splits.ci95, 1),
        }
        for jitter in (0.5, 1.0):
            score = from_print(encoder, hand, jitter)
            results[name][f"print, jitter {jitter} to hand"] = round(100 * score, 1)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


def from_print(encoder, hand, jitter):
    """Of dots learned from the 64 printed cells without dots 7 and 8, on the letters by hand."""
    cells = braille(jitter=jitter).subset(range(2**6))
    six = {"signatures": cells.signatures[:, :6], "attributes": cells.attributes[:6]}
    return accuracy(encoder, dataclasses.replace(cells, **six), hand)


def accuracy(encoder, train, test):
    """Of attributes learned from ``train``, on the classes of ``test`` by their signatures."""
    learner = DAP(encoder, len(train.attributes), C=0.1)
    learner.fit(train.x / np.float32(255), train.y, train.signatures)
    scores = learner.adapt(test.signatures)(test.x / np.float32(255))
    return class_accuracy(test.y, scores)


if __name__ == "__main__":
    main()
