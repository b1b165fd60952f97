import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import BatchNorm
from mlutils.networks import predict_with
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, relative_error


def second_derivative_error(layer):
    """Error of d/dx (v . d loss/dx) through ``layer``, against finite differences.

    v must be a direction of its own: along the gradient the error of Keras's layer is zero,
    because a batch norm's gradient sums to zero over the batch.
    """
    random = np.random.default_rng(0)
    x = tf.Variable(random.normal(size=(5, 3)))
    weights, v = random.normal(size=(2, 5, 3))

    def directional():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weights * tf.tanh(layer(x, training=True)))
        return tf.reduce_sum(v * tape.gradient(loss, x))

    layer(x, training=True)
    with tf.GradientTape() as tape:
        value = directional()
    return relative_error(np.ravel(tape.gradient(value, x)), finite_differences(directional, [x]))


def test_batch_norm_has_an_exact_second_derivative(float64):
    assert second_derivative_error(BatchNorm()) < RELATIVE_TOLERANCE


def test_keras_batch_normalization_has_not(float64):
    """Negative control; when this fails, TensorFlow has mended tf.nn.moments."""
    assert second_derivative_error(keras.layers.BatchNormalization()) > 1e-2


@pytest.mark.parametrize("shape", [(7, 3), (7, 4, 5, 3)])
def test_batch_norm_equals_keras_at_zeroth_and_first_order(float64, shape):
    x = tf.constant(np.random.default_rng(0).normal(2.0, 3.0, size=shape))
    layers = [BatchNorm(epsilon=1e-3), keras.layers.BatchNormalization(epsilon=1e-3)]
    results = []
    for layer in layers:
        layer.build(x.shape)
        layer.gamma.assign([0.5, 1.0, 2.0])
        layer.beta.assign([-1.0, 0.0, 1.0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y**3)
        results.append((y, *tape.gradient(loss, [x, layer.gamma.value])))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_batch_norm_is_saved_with_its_epsilon():
    layer = BatchNorm(epsilon=0.5)
    assert BatchNorm.from_config(layer.get_config()).epsilon == 0.5
    with pytest.raises(ValueError, match="positive number, got 0"):
        BatchNorm(epsilon=0)


def test_mlp_is_the_sinusoid_network():
    model = mlutils.mlp()
    assert [w.shape for w in model.weights] == [(1, 40), (40,), (40, 40), (40,), (40, 1), (1,)]
    assert model.count_params() == 1761


@pytest.mark.parametrize(
    "options, output, parameters",
    [
        # 4 blocks: 3*3*c*64 + 64 weights, 2*64 of the norm; the paper's 111,936 for an encoder.
        (dict(norm=True), (None, 64), 640 + 3 * 36928 + 4 * 128),
        (
            dict(downsample="stride", outputs=5, norm=True),
            (None, 5),
            640 + 3 * 36928 + 4 * 128 + 5 * 257,
        ),
        (dict(filters=8), (None, 8), 80 + 3 * 584),
    ],
)
def test_conv4(options, output, parameters):
    model = mlutils.conv4(**options)
    assert model.output_shape == output
    assert model.count_params() == parameters


def test_conv4_refuses():
    with pytest.raises(ValueError, match="'pool', 'stride'"):
        mlutils.conv4(downsample="max")
    with pytest.raises(ValueError, match="at least 16 x 16"):
        mlutils.conv4((14, 14, 1))


def test_predict_with_uses_the_given_weights_and_assigns_nothing():
    model = mlutils.mlp(hidden=(3,))
    before = model.get_weights()
    x = tf.ones((2, 1))
    others = [2.0 * w for w in before]
    given = predict_with(model, [tf.constant(w) for w in others], x)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.set_weights(others)
    np.testing.assert_allclose(given, model(x))


@pytest.mark.parametrize("wrong", [False, True])
def test_second_derivatives_of_a_variance(wrong):
    """eq-variance-hessian on the pocket numbers x = (0, 2), through BatchNorm's own formula.

    d2V/dx_i dx_j = (2/n) (delta_ij - 1/n): 1/2 on the diagonal and -1/2 beside it.
    Negative control: tf.nn.moments gives the identity.

    BatchNorm divides by sqrt(V + epsilon).  Shifting all inputs changes neither value nor
    gradient, so a Hessian times (1, 1) is zero; with the mean held fixed it is not.
    """
    x = tf.constant([[0.0], [2.0]])
    layer = BatchNorm()
    layer.build(x.shape)

    def by_moments(x):
        mean, variance = tf.nn.moments(x, [0])
        return (x - mean) * tf.math.rsqrt(variance + layer.epsilon)

    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = (by_moments if wrong else layer)(x)[0, 0] ** 3
        gradient = inner.gradient(value, x)
    product = outer.gradient(gradient, x, output_gradients=tf.ones((2, 1)))
    assert (np.max(np.abs(product)) > 1e-3) == wrong

    for variance, diagonal in (
        (tf.math.reduce_variance, 0.5),
        (lambda x: tf.nn.moments(x, [0])[1], 1.0),
    ):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = variance(x)
            first = inner.gradient(value, x)[0, 0]
        assert outer.gradient(first, x)[0, 0].numpy() == pytest.approx(diagonal)
