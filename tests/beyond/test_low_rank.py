"""Low-rank adapters: by hand, by finite differences, beside Keras's own and wrong versions."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import add_low_rank, low_rank_start
from mlutils.networks import predict_with
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error

CALLS = [mlutils.noisy_sines, mlutils.sine_bayes, low_rank_start, add_low_rank]


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_the_example_runs(function):
    names = {"mlutils": mlutils, "np": np, "tf": tf}
    example = doctest.DocTestParser().get_doctest(function.__doc__, names, "example", None, 0)
    result = doctest.DocTestRunner(verbose=False).run(example)
    assert result.attempted and not result.failed


def test_by_hand():
    """eq-lora: W = (1 2; 3 4), A = (1, 2)', B = (3, -1), s / r = 1/2."""
    W, A, B = (tf.constant(v) for v in ([[1.0, 2], [3, 4]], [[1.0], [2.0]], [[3.0, -1.0]]))
    (found,) = add_low_rank([W], [A, B], scale=0.5)
    assert found.numpy().tolist() == [[2.5, 1.5], [6.0, 3.0]]


def test_the_start_changes_nothing_and_counts_r_times_both_sides():
    weights = [tf.random.normal((6, 4)), tf.zeros(4), tf.random.normal((4, 2, 3))]
    factors = low_rank_start(weights, rank=2)
    assert [tuple(f.shape) for f in factors] == [(6, 2), (2, 4), (8, 2), (2, 3)]
    for a, b in zip(add_low_rank(weights, factors, 3.0), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    again, other = low_rank_start(weights, 2), low_rank_start(weights, 2, seed=1)
    np.testing.assert_array_equal(factors[0], again[0])
    assert not np.allclose(factors[0], other[0])
    some = low_rank_start(weights, 2, [True, False, False])
    np.testing.assert_array_equal(add_low_rank(weights, some, 1.0, [1, 0, 0])[2], weights[2])
    assert len(some) == 2
    wide = low_rank_start([tf.zeros((400, 3))], rank=50)[0]
    assert np.var(wide) * 400 == pytest.approx(1, rel=0.05)


def problem():
    """A network in float64, its weights, a loss of the factors, and factors that have moved."""
    model = mlutils.mlp(3, (5,), 2, activation="tanh")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(7, 3)), random.normal(size=(7, 2))
    weights = [tf.convert_to_tensor(v) for v in model.trainable_variables]
    factors = [
        tf.Variable(f + 0.3 * random.normal(size=f.shape)) for f in low_rank_start(weights, rank=2)
    ]

    def loss(add=add_low_rank, factors=factors):
        found = predict_with(model, add(weights, list(factors), 0.7), tf.constant(x))
        return tf.reduce_mean((found - y) ** 2)

    return model, weights, loss, factors


def gradient(loss, factors, **options):
    with tf.GradientTape() as tape:
        tape.watch(factors)
        value = loss(factors=factors, **options)
    return tape.gradient(value, factors, unconnected_gradients="zero")


def test_the_gradient_by_finite_differences(float64):
    _, _, loss, factors = problem()
    reference = finite_differences(loss, factors)
    found = flatten(gradient(loss, factors))
    assert relative_error(found, reference) < RELATIVE_TOLERANCE

    def forgets(weights, factors, scale):
        return add_low_rank(weights, factors)

    def stops(weights, factors, scale):
        return add_low_rank(weights, [tf.stop_gradient(f) for f in factors], scale)

    for wrong in (forgets, stops):
        found = flatten(gradient(loss, factors, add=wrong))
        assert relative_error(found, reference) > 1e-2


def test_both_factors_zero_never_move(float64):
    """At the start A has a gradient of zero and B has not; with both at zero neither has."""
    _, weights, loss, _ = problem()
    start = low_rank_start(weights, rank=2)
    A, B, *_ = gradient(loss, start)
    assert np.abs(A).max() == 0 and np.abs(B).max() > 1e-4
    zeros = [tf.zeros_like(f) for f in start]
    assert max(np.abs(g).max() for g in gradient(loss, zeros)) == 0


def test_it_is_what_keras_does():
    """``Dense.enable_lora`` with lora_alpha = s, and the wrong versions that are something else."""
    layer = keras.layers.Dense(4)
    layer.build((None, 6))
    layer.enable_lora(rank=2, lora_alpha=3)
    random = np.random.default_rng(0)
    A, B = random.normal(size=(6, 2)), random.normal(size=(2, 4))
    layer.lora_kernel_a.assign(A)
    layer.lora_kernel_b.assign(B)
    W = layer._kernel.numpy()
    x = random.normal(size=(5, 6)).astype("float32")
    expected = layer(x).numpy() - layer.bias.numpy()
    A, B = (tf.constant(v, tf.float32) for v in (A, B))
    np.testing.assert_allclose(
        x @ add_low_rank([W], [A, B], 3 / 2)[0], expected, rtol=1e-6, atol=2e-6
    )
    for wrong in (W + A @ B, W + 3 * A @ B, W + 1.5 * tf.reshape(tf.transpose(A @ B), (6, 4))):
        assert np.abs(x @ wrong - expected).max() > 0.1
    einsum = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3))
    einsum.build((None, 5, 4))
    einsum.enable_lora(2)
    assert einsum.lora_kernel_a.shape == (4, 2, 2) and einsum.lora_kernel_b.shape == (2, 3)
    sizes = [tuple(f.shape) for f in low_rank_start([tf.zeros((4, 2, 3))], 2)]
    assert sizes == [(8, 2), (2, 3)]


def test_wrong_arguments():
    kernel, bias = tf.zeros((3, 2)), tf.zeros(2)
    with pytest.raises(ValueError, match="nothing would move"):
        low_rank_start([bias], 1)
    with pytest.raises(ValueError, match="rank must be an integer of at least 1, got 0"):
        low_rank_start([kernel], 0)
    with pytest.raises(ValueError, match="which holds 1 bools, and there are 2"):
        low_rank_start([kernel, bias], 1, which=[True])
    with pytest.raises(ValueError, match=r"shape \(2,\) is no matrix"):
        low_rank_start([kernel, bias], 1, which=[True, True])
    with pytest.raises(ValueError, match="factors holds 1 tensors; these weights have 2"):
        add_low_rank([kernel], [kernel])
    with pytest.raises(ValueError, match="scale"):
        add_low_rank([kernel], low_rank_start([kernel], 1), scale=0)


# ---------------------------------------------------------------- noisy sine waves


def test_the_waves_have_their_equation():
    """eq-noisy-sine: noise of the given size, the same tasks for another frequency."""
    x, y, truth = mlutils.noisy_sines(2000, 20, frequency=2.0, noise=0.1, seed=1)
    assert np.std(y - truth) == pytest.approx(0.1, rel=0.02) and x.dtype == np.float32
    assert x.min() > -5 and x.max() < 5 and np.abs(truth).max() < 5
    # a sin(2x - phi) is linear in sin 2x and cos 2x, and in no other frequency's
    for w, fits in ((2.0, True), (1.9, False)):
        features = np.concatenate([np.sin(w * x), np.cos(w * x)], axis=2)[0]
        coefficients, *_ = np.linalg.lstsq(features, truth[0], rcond=None)
        assert (np.abs(features @ coefficients - truth[0]).max() < 1e-4) == fits
    a = np.sqrt(2 * np.mean(truth**2, axis=(1, 2)))
    assert np.mean(a**2) == pytest.approx((5**3 - 0.1**3) / (3 * 4.9), rel=0.05)


@pytest.mark.parametrize(("w", "n"), [(1.0, 0), (1.0, 1), (1.0, 5), (2.0, 12)])
def test_the_posterior_mean_by_a_grid_of_amplitudes(w, n):
    """eq-sine-bayes, a second way: sums over amplitudes and phases."""
    x, y, _ = (v.astype(np.float64) for v in mlutils.noisy_sines(3, n + 4, w, seed=7))
    found = mlutils.sine_bayes(x[:, :n], y[:, :n], x[:, n:], w)
    amplitudes, phases = np.linspace(0.1, 5, 1501), (np.arange(400) + 0.5) / 400 * np.pi
    weight = np.where(np.isin(np.arange(1501), (0, 1500)), 0.5, 1)  # trapezoids
    for task in range(3):
        waves = np.sin(w * x[task] - phases)  # (n + 4, phases)
        misfit = y[task, :n, :, None] - waves[:n, :, None] * amplitudes
        logs = -np.sum(misfit**2, axis=0) / (2 * 0.3**2)
        mass = weight * np.exp(logs - logs.max())
        expected = waves[n:] @ (mass @ amplitudes) / mass.sum()
        np.testing.assert_allclose(found[task, :, 0], expected, atol=2e-4)


def test_beliefs():
    """The right one is best on average; of some that are likely, the examples choose."""
    x, y, truth = mlutils.noisy_sines(200, 40, 1.5, seed=2)
    inputs = x[:, :20], y[:, :20], x[:, 20:]
    errors = [
        np.mean((mlutils.sine_bayes(*inputs, belief) - truth[:, 20:]) ** 2)
        for belief in (1.5, [1.0, 1.25, 1.5], 1.0)
    ]
    assert errors[0] < 1.001 * errors[1] < 0.1 < 2 < errors[2]
    np.testing.assert_allclose(
        mlutils.sine_bayes(*inputs, [1.5, 1.5]), mlutils.sine_bayes(*inputs, 1.5), atol=1e-9
    )


def test_wrong_waves():
    with pytest.raises(ValueError, match="noise"):
        mlutils.noisy_sines(1, 1, noise=0.0)
    with pytest.raises(ValueError, match="frequency"):
        mlutils.sine_bayes(*np.zeros((3, 1, 1, 1)), frequency=-1.0)
    with pytest.raises(ValueError, match=r"shapes \(1, 2, 1\), \(1, 1, 1\)"):
        mlutils.sine_bayes(np.zeros((1, 2, 1)), np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))
