"""Keras trains every learner on the loss it logs, by the gradient that the package returns."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils import Episode
from tests.contract.learners import LEARNERS, compiled, element, having, network, one_at_a_time
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def dataset(batch, repeat=1):
    return tf.data.Dataset.from_tensors(batch).repeat(repeat)


@having("training")
def test_one_number_however_it_is_asked_for(row):
    """eq-meta-objective: logged, validated, evaluated, returned and by hand.

    The network has dropout, which is inert, also when asked for; and a kernel regularizer, which
    Keras adds once to what it trains on.  Then a setting is changed, and all follow.
    """
    layers = keras.layers.Dropout(0.9), keras.layers.Dense(3, kernel_regularizer="l2")
    learner = compiled(row, row.make(network(*layers)), keras.optimizers.SGD(0.0))
    inputs, query_y = batch = element(row.kind)
    predictions = one_at_a_time(learner, inputs)
    np.testing.assert_allclose(learner(inputs, training=True), predictions, rtol=1e-4, atol=1e-5)
    loss = keras.losses.get(row.loss())
    by_hand = np.mean([np.mean(loss(y, p)) for y, p in zip(query_y, predictions, strict=True)])
    penalty = float(tf.add_n(learner.losses)) if learner.losses else 0.0
    history = learner.fit(dataset(batch), validation_data=dataset(batch), verbose=0).history
    assert history["loss"][0] == pytest.approx(by_hand + penalty, rel=1e-4)
    assert history["val_loss"][0] == pytest.approx(by_hand + penalty, rel=1e-4)
    for episode in (batch, Episode.from_element(batch)):
        assert float(learner.meta_loss(episode)) == pytest.approx(by_hand, rel=1e-4)
    if name := next((n for n in ("inner_lr", "scale", "smallest") if hasattr(learner, n)), None):
        setattr(learner, name, getattr(learner, name) / 4)
        after = float(learner.meta_loss(batch))
        follows = not (hasattr(learner, "step_sizes") or getattr(learner, "rule", None))
        assert (after != pytest.approx(by_hand, rel=1e-5)) == follows
        logged = learner.fit(dataset(batch), verbose=0).history["loss"][0]
        assert logged == pytest.approx(after + penalty, rel=1e-4)


@having("training")
def test_fit_follows_the_meta_gradients(row):
    """A step of SGD; then one on a batch of another size.  Negative control: half the step."""
    learner = compiled(row)
    batches = [element(row.kind, *sizes) for sizes in ((4, 6, 5), (2, 8, 4))]
    signature = tf.nest.map_structure(
        lambda x: tf.TensorSpec((None, None, *x.shape[2:]), x.dtype), batches[0]
    )
    ragged = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    before = [v.numpy() for v in learner.trainable_variables]
    _, gradients = learner.meta_gradients(batches[0])
    if hasattr(learner, "shuffles"):
        learner.shuffles.assign(0)  # Reptile: the same minibatches once more
    history = learner.fit(ragged.take(1), verbose=0).history
    moved = [b - v.numpy() for b, v in zip(before, learner.trainable_variables, strict=True)]
    np.testing.assert_allclose(flatten(moved), 0.1 * flatten(gradients), rtol=1e-2, atol=1e-5)
    assert np.abs(flatten(moved) - 0.05 * flatten(gradients)).max() > 1e-4
    again = learner.fit(ragged, verbose=0).history
    assert np.isfinite([history["loss"], again["loss"]]).all()


@having("gradients")
def test_meta_gradients_equal_finite_differences(float64, row):
    """eq-meta-objective's gradient, by everything that can be trained."""
    learner = compiled(row)
    batch = element(row.kind, tasks=2, queries=3, dtype="float64")
    reference = finite_differences(lambda: learner.meta_loss(batch), learner.trainable_variables)
    _, gradients = learner.meta_gradients(batch)
    assert relative_error(flatten(gradients), reference) < RELATIVE_TOLERANCE


def test_first_order_fails_the_check_of_gradients(float64):
    """Negative control of the test above."""
    row = LEARNERS["MAML, first order"]
    learner, batch = compiled(row), element(row.kind, tasks=2, dtype="float64")
    reference = finite_differences(lambda: learner.meta_loss(batch), learner.trainable_variables)
    assert relative_error(flatten(learner.meta_gradients(batch)[1]), reference) > 1e-2


@having("freezing")
def test_freezing_and_unfreezing(row):
    """A frozen layer stays, everything else moves, and later it moves again.

    What belongs to a weight, such as its learned step size, stays with it.
    """
    net = network(keras.layers.Dense(3, "tanh"))
    learner, batch = row.make(net), element(row.kind)
    layer = [x for x in learner._flatten_layers() if isinstance(x, keras.layers.Dense)][1]

    def moved():
        compiled(row, learner)
        before = {v.path: v.numpy() for v in learner.weights}
        learner.fit(dataset(batch), verbose=0)
        changed = [v for v in learner.weights if np.any(before[v.path] != v.numpy())]
        return {v.path.rpartition("/")[0] for v in changed}  # a distance has no use for a bias

    frozen = {layer.kernel.path.rpartition("/")[0]}
    layer.trainable = False
    others = moved()
    assert not others & frozen and others
    layer.trainable = True
    assert moved() >= frozen | others


def test_the_table_names_properties_that_there_are():
    """An exception that no test asks for would be none."""
    text = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    asked = {p for row in LEARNERS.values() for p in row.why_not}
    assert all(f'"{p}"' in text for p in asked)
