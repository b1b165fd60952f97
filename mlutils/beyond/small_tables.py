"""Small real tables, and a network's answers on one as probabilities."""

import numpy as np
import tensorflow as tf
from sklearn import datasets

from mlutils.door.numbers import check_option
from mlutils.door.tasks import check_learner

ALIKE = (3, 5, 8, 9)  # digits


def small_tables(columns="16"):
    """Four tables that scikit-learn brings along, as ``PriorFittedNetwork`` can read them.

    Args:
        columns: ``"16"``, at most: iris and wine have 4 and 13; of the breast cancers the first 10
            of 30 are taken, which are means over a picture's cells; of the digits 3, 5, 8 and 9
            the 16 sums over squares of 2 x 2 pixels.  ``"all"``: the 30 and the 64 as they are.

    Returns:
        A dict from names to ``(x, y)``: float64 ``(rows, columns)`` and int labels ``(rows,)``.

    Raises:
        ValueError: for another ``columns``.
    """
    few = check_option("columns", columns, ("16", "all")) == "16"
    tables = {"iris": datasets.load_iris(return_X_y=True)}
    tables["wine"] = datasets.load_wine(return_X_y=True)
    x, y = datasets.load_breast_cancer(return_X_y=True)
    tables["breast cancer"] = (x[:, :10] if few else x), y
    x, y = datasets.load_digits(return_X_y=True)
    kept = np.isin(y, ALIKE)
    if few:
        x = x.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4)).reshape(-1, 16)
    tables["digits"] = x[kept], np.searchsorted(ALIKE, y[kept])
    return tables


def class_probabilities(learner, x, y, query_x):
    """A classifier's answers on one table, among the labels up to the highest of its training rows.

    Args:
        learner: a ``PriorFittedNetwork``, or another learner that gives logits.
        x, y: training rows ``(S, columns)`` and labels ``(S,)`` 0..N-1.
        query_x: further rows ``(Q, columns)``.

    Returns:
        Probabilities ``(Q, N)``, which add up to 1: those of labels up to the highest in ``y``.
    """
    check_learner(learner)
    logits = learner.adapt(x, y)(query_x)
    return tf.nn.softmax(logits[:, : int(np.max(y)) + 1]).numpy()
