"""In double, single and half precision a learner does the same, as well as each can."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.contract.learners import LEARNERS, compiled, element, every, having


@pytest.fixture
def policy():
    """Sets Keras's policy for the rest of a test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@every
def test_double_precision(row):
    """Predictions in float64 are those of float32, and more digits of them."""
    inputs, _ = element(row.kind)
    learner = compiled(row)
    single, weights = learner(inputs), learner.get_weights()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        learner = compiled(row)
        if weights:
            learner.set_weights(weights)
        double = learner([v.astype("float64") if v.dtype.kind == "f" else v for v in inputs])
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert double.dtype == tf.float64
    np.testing.assert_allclose(single, double, rtol=2e-3, atol=2e-4)


@having("bfloat16")
def test_bfloat16(policy, row):
    """The network in half precision, what is made of it in single: near, and as float32."""
    inputs, _ = element(row.kind)
    learner = compiled(row)
    single, weights = learner(inputs), learner.get_weights()
    policy("mixed_bfloat16")
    learner = compiled(row)
    learner.set_weights(weights)
    half = tf.cast(learner(inputs), tf.float32)
    scale = np.abs(single).max()
    assert 0 < np.abs(half - single).max() < 0.1 * scale


@having("float16")
def test_a_step_in_float16_with_loss_scaling(policy, row):
    """One step of SGD moves every weight as in float32.

    Keras multiplies the loss and divides the gradients by the same: a learner with a step of its
    own must do as much.  (Its own first factor, 32,768, overflows here and there, and such steps
    are skipped.)
    """
    batch = tf.data.Dataset.from_tensors(element(row.kind))
    learner = compiled(row)
    start = learner.get_weights()
    learner.fit(batch, verbose=0)
    single = [w - s for w, s in zip(learner.get_weights(), start, strict=True)]
    policy("mixed_float16")
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=128.0)
    learner = compiled(row, optimizer=scaling)
    learner.set_weights(start)
    learner.fit(batch, verbose=0)
    half = [w - s for w, s in zip(learner.get_weights(), start, strict=True)]
    largest = max(np.abs(s).max() for s in single if s.dtype.kind == "f")
    for one, other in zip(single, half, strict=True):
        assert np.isfinite(other).all()
        np.testing.assert_allclose(one, other, atol=0.1 * largest)


def test_scaling_is_in_effect(policy):
    """Negative control of the test above: the optimizer does divide what it gets."""
    policy("mixed_float16")
    learner = compiled(LEARNERS["Reptile"])
    assert isinstance(learner.optimizer, keras.optimizers.LossScaleOptimizer)
    variables = learner.trainable_variables
    before = learner.get_weights()
    learner.optimizer.apply([tf.ones_like(v) for v in variables], variables)
    after = learner.get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(after, before, strict=True)) < 1e-4
