"""Handwritten digits, the small real images that come with scikit-learn."""

import numpy as np


def digits():
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin & Kaynak 1998), from scikit-learn.

    Returns:
        ``(x, y)``: float32 ``(1797, 8, 8, 1)``, ink 1, paper 0, and int32 labels ``(1797,)``.
    """
    from sklearn.datasets import load_digits  # here: importing it takes a second

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype(np.float32) / 16, labels.astype(np.int32)
