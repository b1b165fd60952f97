"""A small pretrained network, in place of one whose weights would be downloaded."""

from pathlib import Path

import keras

BACKBONE = Path(__file__).parent / "trained" / "backbone.keras"


def pretrained_backbone():
    """A network for colour pictures that was trained to tell characters apart.

    It stands in the practice chapter where a network of ``keras.applications`` stands with pictures
    of your own, and has what those have: convolutions, and Keras's ``BatchNormalization`` with
    running statistics.  It was trained on the training scripts of ``mlutils.data.glyphs``, in the
    colours of ``mlutils.data.in_colour``, by ``python -m benchmarks.backbone pretrain``.

    Returns:
        A Keras model from ``(n, 28, 28, 3)``, numbers 0 to 1, to features ``(n, 512)``; its norms
        are not frozen.
    """
    return keras.saving.load_model(BACKBONE)
