"""Finite differences: what every gradient of the package is checked against."""

import numpy as np
import tensorflow as tf

RELATIVE_TOLERANCE = 1e-6


def finite_differences(loss, variables, step=1e-5):
    """The gradient of ``loss()`` by every entry of ``variables``, one flat float64 array.

    Fourth-order central differences: the error is about step**4 from truncation
    and 1e-16 / step from rounding.
    """
    loss = tf.function(loss)
    gradient = []
    for variable in variables:
        value = np.asarray(variable.numpy())
        assert value.dtype == np.float64, "finite differences need float64"
        for index in np.ndindex(value.shape):
            losses = []
            for offset in (-2, -1, 1, 2):
                moved = value.copy()
                moved[index] += offset * step
                variable.assign(moved)
                losses.append(float(loss()))
            variable.assign(value)
            two_below, below, above, two_above = losses
            gradient.append((8 * (above - below) - (two_above - two_below)) / (12 * step))
    return np.array(gradient)


def flatten(gradients):
    return np.concatenate([np.ravel(g) for g in gradients])


def relative_error(gradient, reference):
    """The largest difference between two gradients, relative to the reference's largest entry."""
    return float(np.max(np.abs(gradient - reference)) / np.max(np.abs(reference)))
