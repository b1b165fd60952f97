"""``adapted_model``: what ``adapt`` returns, as a Keras model of its own, of every learner."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils import BatchNorm
from tests.contract.learners import LEARNERS, compiled, element, every, having, network


def first_task(row):
    (x, y, query_x), _ = element(row.kind)
    return x[0], y[0], query_x[0]


@every
def test_it_is_the_predictor(row):
    """For several queries, for one alone, in batches by ``predict``, and as part of a model."""
    learner = compiled(row)
    x, y, query_x = first_task(row)
    model, expected = learner.adapted_model(x, y), learner.adapt(x, y)(query_x)
    np.testing.assert_allclose(model(query_x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(query_x[:1]), expected[:1], rtol=1e-5, atol=1e-6)
    found = model.predict(query_x, batch_size=2, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    inputs = keras.Input(query_x.shape[1:])
    found = keras.Model(inputs, model(inputs))(query_x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@every
def test_it_is_of_this_task(row):
    """Negative control: another task's model predicts something else."""
    learner, (x, y, query_x) = compiled(row), element(row.kind)[0]
    if row.kind == "described":  # all its tasks are of the same descriptions
        x[1] = 1 - x[1]
    one, other = (learner.adapted_model(x[i], y[i])(query_x[0]) for i in range(2))
    assert np.abs(one - other).max() > 1e-3


@every
def test_it_loads_as_it_was_saved(row, tmp_path):
    x, y, query_x = first_task(row)
    model = compiled(row).adapted_model(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(query_x), model(query_x))


@having("training")
def test_it_and_the_learner_leave_one_another_alone(row):
    """Making it changes no variable of the learner; training the learner goes not into it."""
    learner, (x, y, query_x) = compiled(row), first_task(row)
    before = [np.array(v) for v in learner.variables]
    model = learner.adapted_model(x, y)
    for variable, value in zip(learner.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    held = model(query_x)
    learner.train_on_batch(*element(row.kind))
    assert np.abs(learner.adapt(x, y)(query_x) - held).max() > 1e-6
    np.testing.assert_array_equal(model(query_x), held)


@having("norm")
def test_with_a_norm_each_query_is_seen_beside_the_support_set(row):
    """For a learner that is not transductive; one that is has no answer for a query alone."""

    learner = compiled(row, row.make(network(BatchNorm())))
    x, y, query_x = first_task(row)
    learner.transductive = True
    with pytest.raises(NotImplementedError, match=r"transductive = False"):
        learner.adapted_model(x, y)
    learner.transductive = False
    if learner.described:
        with pytest.raises(ValueError, match="no support examples"):
            learner.adapted_model(x, y)(query_x)
        return
    model, predict = learner.adapted_model(x, y), learner.adapt(x, y)
    np.testing.assert_allclose(model(query_x), predict(query_x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(query_x[:1]), predict(query_x)[:1], rtol=1e-4, atol=1e-5)


@every
def test_a_learner_that_was_never_called_exports(row, tmp_path):
    """Its shapes are those of its networks, and of the targets that its loss takes."""
    learner = compiled(row)
    inputs, _ = element(row.kind, tasks=2, support=7, queries=3)
    if row.kind == "drawings":
        with pytest.raises(ValueError, match="Its networks do not tell: call it once"):
            learner.export(tmp_path / "saved", verbose=False)
        return
    learner.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(saved.serve(inputs), learner(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n, r in LEARNERS.items() if r.kind == "classes"])
def test_a_wrong_input_is_refused(name):
    x, y, _ = first_task(LEARNERS[name])
    learner = compiled(LEARNERS[name])
    model = learner.adapted_model(x, y)
    with pytest.raises(ValueError, match="shape"):
        model(np.zeros((2, 7), "float32"))
    with pytest.raises(ValueError, match=r"[Ll]abel"):
        learner.adapted_model(x, y - 1)
    with pytest.raises(TypeError, match="takes no 'paces'"):
        learner.adapted_model(x, y, paces=3)
