"""What the package changes of TensorFlow, and that it has to."""

import mlutils

import pytest  # isort: skip
import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.eager import context

from mlutils import _tensorflow


def slope_through_a_long_inner_loop():
    """A meta-gradient by weights so large that TensorFlow would add up piece by piece."""
    rule, x = mlutils.StepSize(0.1), tf.ones((4, 2000))

    def loss(weights, step):
        hidden = x
        for _ in range(3):
            hidden = tf.tanh(hidden @ weights[0])
        return tf.reduce_mean(hidden)

    @tf.function
    def slope(weight):
        with tf.GradientTape() as tape:
            tape.watch(weight)
            after = mlutils.descend(rule, loss, [weight], steps=6)[0]
            value = tf.reduce_sum(after[0])
        return tape.gradient(value, weight)

    for _ in range(2):  # it is the second run that fails
        found = slope(tf.eye(2000))
    return found


def test_a_long_inner_loop_with_large_weights_runs_twice():
    assert tf.reduce_all(tf.math.is_finite(slope_through_a_long_inner_loop()))


def test_it_fails_with_tensorflows_own_options():
    """If this test fails, TensorFlow is mended, and what the package does has had its day."""
    options = context.context().config
    options.graph_options.rewrite_options.memory_optimization = RewriterConfig.DEFAULT_MEM_OPT
    ours = context.context().function_call_options
    context.context().function_call_options = context.FunctionCallOptions(config_proto=options)
    try:
        with pytest.raises(tf.errors.AlreadyExistsError, match="tmp_var"):
            slope_through_a_long_inner_loop()
    finally:
        context.context().function_call_options = ours


def test_a_tensorflow_without_these_names_is_used_as_it_is(monkeypatch):
    monkeypatch.setattr(context, "Context", object)
    with pytest.warns(UserWarning, match="AlreadyExistsError"):
        _tensorflow.without_memory_optimizer()
