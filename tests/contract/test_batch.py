"""Tasks do not mix, nor do queries; order means nothing where it should not."""

import numpy as np
import pytest
import tensorflow as tf

import mlutils
from tests.contract.learners import compiled, element, every, having, network, one_at_a_time


def close(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@having("norm")
def test_a_batch_equals_one_task_at_a_time(float64, row):
    """Also where the network normalises by the examples beside it.

    Negative control: with all tasks' examples as one batch of the network, predictions differ.
    """
    if row.kind == "described" and row.make.__qualname__.startswith("fitted"):
        pytest.skip("fitted on all examples at once, to which a norm layer means another thing")
    learner = compiled(row, row.make(network(mlutils.BatchNorm())))
    learner.transductive = True
    inputs, _ = element(row.kind, dtype="float64")
    expected = one_at_a_time(learner, inputs)
    close(learner(inputs), expected)
    together = [np.concatenate([v, v[::-1]], axis=1) for v in inputs]
    assert np.abs(learner(together)[:, : expected.shape[1]] - expected).max() > 1e-3


@every
def test_sizes_may_differ_from_batch_to_batch(row):
    """Other numbers of tasks, examples and queries, in the same learner and in the same ``fit``."""
    learner = compiled(row)
    batches = [element(row.kind, *sizes) for sizes in ((4, 6, 5), (2, 9, 1))]
    for inputs, _ in batches:
        close(learner(inputs), one_at_a_time(learner, inputs), 1e-4)


@every
def test_the_order_of_tasks_changes_nothing(float64, row):
    learner, order = compiled(row), [2, 0, 3, 1]
    inputs, query_y = element(row.kind, dtype="float64")
    permuted = [v[order] for v in inputs]
    close(learner(permuted), learner(inputs).numpy()[order])
    if "gradients" not in row.why_not:
        _, gradients = learner.meta_gradients((inputs, query_y))
        _, again = learner.meta_gradients((permuted, query_y[order]))
        for one, other in zip(gradients, again, strict=True):
            close(one, other)


@having("order of the support set")
def test_the_order_of_the_support_set_changes_nothing(float64, row):
    learner, order = compiled(row), [3, 5, 0, 2, 1, 4]
    (x, y, query_x), _ = element(row.kind, dtype="float64")
    close(learner((x[:, order], y[:, order], query_x)), learner((x, y, query_x)))


@every
def test_a_lone_query_is_answered_as_among_others(float64, row):
    """Alone, again, in any order; the predictor is used several times."""
    learner = compiled(row)
    (x, y, query_x), _ = element(row.kind, tasks=1, dtype="float64")
    predict = learner.adapt(x[0], y[0])
    together = predict(query_x[0])
    for i in (3, 0, 3):
        close(predict(query_x[0, i : i + 1])[0], together[i])
    close(predict(query_x[0, ::-1]), together[::-1])


@having("norm")
def test_a_lone_query_is_answered_as_among_others_by_a_norm_layer_too(float64, row):
    """Unless the learner says that it is transductive; where a query has only itself to be
    normalised with, it is refused."""
    learner = compiled(row, row.make(network(mlutils.BatchNorm())))
    (x, y, query_x), _ = element(row.kind, tasks=1, dtype="float64")
    learner.transductive = False
    if row.kind == "described":
        with pytest.raises(ValueError, match="transductive=True"):
            learner((x, y, query_x))
        return
    together = learner((x, y, query_x))[0]
    close(learner.adapt(x[0], y[0])(query_x[0]), together)
    for i in (3, 0):
        alone = query_x[:, i : i + 1]
        close(learner.adapt(x[0], y[0])(alone[0])[0], together[i])
        close(learner((x, y, alone))[0, 0], together[i])
    learner.transductive = True
    assert np.abs(learner((x, y, alone))[0, 0] - together[i]).max() > 1e-3


@every
def test_adapting_leaves_the_weights_alone(row):
    learner = compiled(row)
    inputs, _ = element(row.kind)
    before = learner.get_weights()
    one_at_a_time(learner, inputs)
    learner(inputs)
    for old, new in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@every
def test_controls_take_every_learner(row):
    learner = compiled(row)
    batch = tf.nest.map_structure(tf.constant, element(row.kind, support=3))
    metric = "log likelihood" if row.loss() is mlutils.gaussian_nll else None
    scores = mlutils.controls(learner, [batch], tasks=4, scratch_steps=2, metric=metric)
    assert "shuffled support labels" in scores
    assert all(score.tasks == 4 and not np.isnan(score.mean) for score in scores.values())
