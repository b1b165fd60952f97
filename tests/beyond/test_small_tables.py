"""The real tables, and a network's answers as probabilities."""

import numpy as np
import pytest
from sklearn import datasets

from mlutils import PriorFittedNetwork, class_probabilities, small_tables


def test_tables_fit_the_network():
    """At most 16 columns and 4 classes; with all columns the same rows and labels."""
    few, whole = small_tables(), small_tables("all")
    for (x, y), (more, same) in zip(few.values(), whole.values(), strict=True):
        assert x.shape[1] <= 16 and set(y) <= {0, 1, 2, 3}
        assert x.shape[0] == more.shape[0] == len(y)
        np.testing.assert_array_equal(y, same)
    shapes = [x.shape[1] for x, _ in whole.values()]
    assert list(whole) == ["iris", "wine", "breast cancer", "digits"] and shapes == [4, 13, 30, 64]


def test_digits_are_sums_of_four_pixels():
    """The first 3 of the digits has label 0, and its second number is the top row's third and
    fourth pixel and the two beneath them."""
    pixels, names = datasets.load_digits(return_X_y=True)
    place = np.flatnonzero(np.isin(names, (3, 5, 8, 9)))[0]
    picture = pixels[place].reshape(8, 8)
    x, y = small_tables()["digits"]
    assert names[place] == 3 and y[0] == 0
    assert x[0, 1] == picture[:2, 2:4].sum() != picture[2:4, :2].sum()
    assert x[0].sum() == picture.sum()


def test_probabilities_are_of_the_classes_there_are():
    learner = PriorFittedNetwork(3, 4, units=4, heads=2)
    x, queries = np.random.default_rng(0).normal(size=(2, 6, 2))
    logits = learner.adapt(x, [0, 1, 0, 1, 1, 0])(queries).numpy()
    found = class_probabilities(learner, x, [0, 1, 0, 1, 1, 0], queries)
    assert found.shape == (6, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    odds = np.exp(logits[:, 0] - logits[:, 1])
    np.testing.assert_allclose(found[:, 0] / found[:, 1], odds, rtol=1e-4)


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match="columns"):
        small_tables("some")
