"""The tangent kernel, and what it says of one inner step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import ANIL, MAML, tangent_kernel
from tests.maml.tasks import shrinking

RANDOM = np.random.default_rng(0)
SUPPORT_X, SUPPORT_Y = RANDOM.normal(size=(5, 2)), RANDOM.normal(size=(5, 1))
QUERY_X = RANDOM.normal(size=(7, 2))


def network(**options):
    return mlutils.mlp(input_size=2, hidden=(6, 5), activation="tanh", **options)


def rows(model, x):
    """Each example's gradient by all weights, one after the other, as plain Keras gives it."""
    found = []
    for one in x:
        with tf.GradientTape() as tape:
            prediction = model(one[np.newaxis])
        gradients = tape.gradient(prediction, model.trainable_variables)
        found.append(np.concatenate([np.ravel(g) for g in gradients]))
    return np.array(found)


def test_the_kernel_of_a_line_by_hand():
    """eq-tangent-kernel: f(x) = w x + b has the gradient (x, 1), and the kernel x x' + 1."""
    line = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    found = tangent_kernel(line, [[1.0], [2.0]], [[3.0], [0.0], [-1.0]])
    np.testing.assert_allclose(found, [[4, 1, 0], [7, 1, -1]])


def test_it_is_the_product_of_the_gradients(float64):
    """eq-tangent-kernel, one example at a time; without x2 it is symmetric and not negative."""
    model = network()
    expected = rows(model, QUERY_X) @ rows(model, SUPPORT_X).T
    np.testing.assert_allclose(tangent_kernel(model, QUERY_X, SUPPORT_X), expected, rtol=1e-12)
    own = tangent_kernel(model, QUERY_X).numpy()
    np.testing.assert_allclose(own, rows(model, QUERY_X) @ rows(model, QUERY_X).T, rtol=1e-12)
    assert np.linalg.eigvalsh(own).min() > -1e-12


def test_frozen_weights_do_not_count(float64):
    """With the head alone, the product of the embeddings, and one for the bias."""
    model = network()
    for layer in model.layers[:-1]:
        layer.trainable = False
    z = keras.Sequential(model.layers[:-1])(SUPPORT_X).numpy()
    np.testing.assert_allclose(tangent_kernel(model, SUPPORT_X), z @ z.T + 1, rtol=1e-12)


def step(model, alpha, kind=MAML):
    learner = kind(model, inner_lr=alpha)
    learner.compile(loss="mse")
    return learner.adapt(SUPPORT_X, SUPPORT_Y)(QUERY_X).numpy()


def predicted(model, alpha, factor=2.0, residual_sign=1, swapped=False):
    """eq-one-step-kernel for the mean squared error, or a wrong version of it."""
    kernel = tangent_kernel(model, QUERY_X, SUPPORT_X).numpy()
    if swapped:
        kernel = kernel[:, ::-1]
    residuals = residual_sign * (SUPPORT_Y - model(SUPPORT_X).numpy())
    return model(QUERY_X).numpy() + factor * alpha / len(SUPPORT_X) * kernel @ residuals


@pytest.mark.parametrize(
    "wrong, order",
    [
        ({}, 4),  # what is left over falls as alpha squared: half the alpha, a quarter
        ({"factor": 1.0}, 2),  # that of half the squared error
        ({"factor": 2.0 * len(SUPPORT_X)}, 2),  # that of a sum over examples
        ({"residual_sign": -1}, 2),
        ({"swapped": True}, 2),
    ],
)
def test_what_the_first_order_leaves_over(float64, wrong, order):
    """eq-one-step-kernel: the rest falls as alpha squared; of wrong versions, as alpha."""
    model = network()
    shrinks = shrinking(lambda alpha: step(model, alpha) - predicted(model, alpha, **wrong))
    np.testing.assert_allclose(shrinks, order, rtol=0.1)


def test_with_the_head_alone_nothing_is_left_over(float64):
    """eq-one-step-kernel is exact where predictions are linear in the weights that move."""
    model = network()
    found = step(model, 0.3, ANIL)
    for layer in model.layers[:-1]:
        layer.trainable = False
    np.testing.assert_allclose(found, predicted(model, 0.3), rtol=1e-10)


def test_other_precisions_and_single_numbers_are_taken():
    """An output without an axis of its own, lists, and bytes, which are pictures."""
    layers = [keras.layers.Dense(1), keras.layers.Reshape(())]
    flat = keras.Sequential([keras.Input((2,)), *layers])
    np.testing.assert_allclose(tangent_kernel(flat, [[1, 2]]), [[6.0]])
    np.testing.assert_allclose(tangent_kernel(flat, np.uint8([[255, 0]])), [[2.0]])


def frozen():
    model = network()
    model.trainable = False
    return model


def normed():
    layers = [keras.layers.Dense(3), mlutils.BatchNorm(), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((2,)), *layers])


@pytest.mark.parametrize(
    "model, x, x2, words",
    [
        (lambda: network(outputs=3), SUPPORT_X, None, r"gives \(3,\) numbers .*allowed is one"),
        (frozen, SUPPORT_X, None, "no trainable weights"),
        (normed, SUPPORT_X, None, "holds a BatchNorm"),
        (network, SUPPORT_X[:, :1], None, r"x has shape \(5, 1\); allowed is .*\(None, 2\)"),
        (network, SUPPORT_X[0], None, r"x has shape \(2,\)"),
        (network, SUPPORT_X, SUPPORT_X[:0], r"x2 has shape \(0, 2\)"),
        (network, np.full((1, 2), np.nan), None, "x must hold finite numbers"),
    ],
)
def test_what_has_no_kernel_is_refused(model, x, x2, words):
    with pytest.raises(ValueError, match=words):
        tangent_kernel(model(), x, x2)


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match=r"model must be a keras\.Model"):
        tangent_kernel("network", SUPPORT_X)
    with pytest.raises(TypeError, match="x must be an array of numbers"):
        tangent_kernel(network(), "examples")
