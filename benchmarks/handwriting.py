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
SPLITS, UNSEEN, JITTERS = 20, 6, (0.5, 1.0)


def main():
    setup(seed=0, threads=1)
    hand = handwritten_braille()
    results = {
        name: {
            "hand to hand": from_hand(encoder, hand),
            "print to hand": {
                f"jitter {jitter}": {
                    "accuracy": round(100 * from_print(encoder, hand, jitter), 1),
                    "ways": len(hand),
                }
                for jitter in JITTERS
            },
        }
        for name, encoder in encoders().items()
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


def encoders():
    """What the dots are looked for in: small pixels, or what was learned on glyphs."""
    pixels = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.AveragePooling2D(2), keras.layers.Flatten()]
    )
    return {"pixels": pixels, "encoder": trained_learner("encoder")[0]}


def from_hand(encoder, hand):
    """Of dots learned from most letters by hand, on the others by other hands."""
    splits = [hand.class_split(UNSEEN, seed) for seed in range(SPLITS)]
    score = SplitScore([accuracy(encoder, split.train, split.unseen) for split in splits])
    percent = {"accuracy": round(100 * score.mean, 1), "ci95": round(100 * score.ci95, 1)}
    return {**percent, "ways": UNSEEN, "splits": SPLITS}


def from_print(encoder, hand, jitter):
    """Of dots learned from the 64 printed cells without dots 7 and 8, on the letters by hand."""
    cells = braille(jitter=jitter).subset(range(2**6))
    six = {"signatures": cells.signatures[:, :6], "attributes": cells.attributes[:6]}
    return accuracy(encoder, dataclasses.replace(cells, **six), hand)


def accuracy(encoder, train, test):
    """Of attributes learned from ``train``, on the classes of ``test`` by their signatures."""
    learner = DAP(encoder, len(train.attributes))
    learner.fit(train.x / np.float32(255), train.y, train.signatures)
    scores = learner.adapt(test.signatures)(test.x / np.float32(255))
    return class_accuracy(test.y, scores)


if __name__ == "__main__":
    main()
