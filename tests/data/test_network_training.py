import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils.data import NetworkTraining, digits


def toy_data(examples=30, inputs=4, classes=3, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(examples) % classes
    return random.normal(size=(examples, inputs)).astype(np.float32), labels


def toy(hidden=(5,), activation="sigmoid", batch=6):
    return NetworkTraining(*toy_data(), hidden, activation, batch)


def numbered(examples=40, batch=16):
    """A family whose inputs tell which examples they are, and whose labels follow from them."""
    numbers = np.arange(examples)
    return NetworkTraining(numbers[:, None], numbers**2 % 7, batch=batch)


def first(family, functions=3, seed=0):
    return next(iter(family.problems(functions, seed)))


def thetas(family, functions=3, seed=1):
    """Weights of which no bias is 0."""
    random = np.random.default_rng(seed)
    return random.normal(size=(functions, family.dimension)).astype(np.float32)


def keras_models(family, theta, activation):
    """Each function's network built of Keras layers: the kernel first, then the bias, and so on."""
    for vector in theta:
        model = keras.Sequential([keras.Input(family.sizes[:1])])
        for units in family.sizes[1:-1]:
            model.add(keras.layers.Dense(units, activation=activation))
        model.add(keras.layers.Dense(family.sizes[-1]))
        weights, position = [], 0
        for variable in model.weights:
            size = int(np.prod(variable.shape))
            weights.append(vector[position : position + size].reshape(variable.shape))
            position += size
        assert position == len(vector)
        model.set_weights(weights)
        yield model


@pytest.fixture(scope="module")
def digit_networks():
    return NetworkTraining(*digits())


def test_pocket_numbers():
    """eq-network-training with one weight w = ln 3 to each of two logits, one input x = 1.

    theta = (ln 3, 0, 0, 0): logits (ln 3, 0), softmax (3/4, 1/4).  One example has label 0, and
    one, at x = 0, label 1, where both have 1/2: the mean of ln 4/3 and ln 2 is ln(8/3) / 2.
    """
    family = NetworkTraining([[1.0], [0.0]], [0, 1], hidden=())
    family.mini_batches = lambda *_: (tf.constant([[[1.0], [0.0]]]), tf.constant([[0, 1]]))
    value = family.values(tf.constant([[np.log(3.0), 0, 0, 0]], tf.float32), None, 0)
    np.testing.assert_allclose(value, [np.log(8 / 3) / 2], rtol=1e-6)


@pytest.mark.parametrize("hidden, activation", [((7, 5), "relu"), ((5,), "sigmoid"), ((), "relu")])
def test_predictions_and_mean_cross_entropies_are_those_of_keras(hidden, activation):
    """eq-network-training: of Keras layers, on the mini-batch of the step."""
    family = toy(hidden, activation)
    theta, (_, key) = thetas(family), first(family)
    for step in (0, 5):
        x, y = family.mini_batches(3, key, step)
        logits, values = family.predict(theta, x), family.values(tf.constant(theta), key, step)
        assert logits.shape == (3, 6, 3) and values.shape == (3,)
        assert logits.dtype == values.dtype == tf.float32
        for i, model in enumerate(keras_models(family, theta, activation)):
            assert family.shapes == [tuple(weight.shape) for weight in model.weights]
            np.testing.assert_allclose(logits[i], model(x[i]), rtol=1e-4, atol=1e-5)
            losses = keras.losses.sparse_categorical_crossentropy(y[i], model(x[i]), True)
            np.testing.assert_allclose(values[i], np.mean(losses), rtol=1e-4)
        exact = family.values(tf.constant(theta, tf.float64), key, step)
        assert exact.dtype == tf.float64
        np.testing.assert_allclose(values, exact, rtol=1e-5)


def test_mini_batches_of_steps_functions_and_problems_differ():
    family = numbered()
    keys = [key for _, key in family.problems(3).take(2)] + [first(family, seed=1)[1]]
    np.testing.assert_array_equal(first(family)[1], keys[0])
    drawn = [family.mini_batches(3, key, step)[0].numpy() for key in keys for step in range(4)]
    assert len(np.unique(np.reshape(drawn, (-1, 16)), axis=0)) == 3 * 3 * 4
    for key, step, x in ((keys[0], 0, drawn[0]), (keys[1], 2, drawn[6])):
        np.testing.assert_array_equal(family.mini_batches(3, key, step)[0], x)
        for kind in (np.int32, np.int64, tf.constant, lambda n: tf.constant(n, tf.int64)):
            np.testing.assert_array_equal(numbered().mini_batches(3, key, kind(step))[0], x)


def test_mini_batches_are_uniform_draws_with_replacement_and_labels_stay_with_inputs():
    """Each of n examples is drawn m / n times, within five binomial standard deviations."""
    family = numbered(examples=40, batch=100)
    _, key = first(family)
    pairs = [family.mini_batches(8, key, step) for step in range(50)]
    x, y = (np.stack(values) for values in zip(*pairs, strict=True))
    assert x.shape == (50, 8, 100, 1) and y.shape == (50, 8, 100)
    assert x.dtype == np.float32 and y.dtype == np.int32
    np.testing.assert_array_equal(y, x[..., 0].astype(int) ** 2 % 7)
    counts, m = np.bincount(np.ravel(x).astype(int)), y.size
    assert len(counts) == 40
    np.testing.assert_allclose(counts, m / 40, atol=5 * np.sqrt(m / 40 * (1 - 1 / 40)))


def test_initial_weights_are_those_of_keras_layers():
    """Biases 0; kernels uniform within the limit l = sqrt(6 / (inputs + outputs)).

    u² has mean l²/3 and variance l⁴ (1/5 - 1/9): within five standard errors.
    """
    family, functions = toy(hidden=(5, 5)), 2000
    theta, _ = first(family, functions)
    position = 0
    for kernel in family.shapes[::2]:
        size = np.prod(kernel)
        drawn = theta[:, position : position + size].numpy().astype(np.float64)
        position += size + kernel[1]
        np.testing.assert_array_equal(theta[:, position - kernel[1] : position], 0)
        layer, limit = keras.layers.Dense(kernel[1]), np.sqrt(6 / sum(kernel))
        layer.build((None, kernel[0]))
        assert np.max(np.abs(layer.kernel)) < limit and not np.any(layer.bias)
        assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)
        assert 0.999 * limit < np.max(np.abs(drawn)) <= limit * (1 + 1e-6)
        n = drawn.size
        assert np.mean(drawn) == pytest.approx(0, abs=5 * limit / np.sqrt(3 * n))
        error = 5 * limit**2 * np.sqrt((1 / 5 - 1 / 9) / n)
        assert np.mean(drawn**2) == pytest.approx(limit**2 / 3, abs=error)
        correlations = np.corrcoef(drawn.T)[np.triu_indices(size, 1)]
        assert np.max(np.abs(correlations)) < 5 / np.sqrt(functions)
    assert position == family.dimension
    # Layers of one shape are drawn apart.
    theta = first(toy(hidden=(4, 4)))[0].numpy()
    assert not np.intersect1d(theta[:, :16], theta[:, 20:36]).size


def test_dimension_and_shapes(digit_networks):
    assert digit_networks.sizes == (64, 20, 10)
    assert digit_networks.shapes == [(64, 20), (20,), (20, 10), (10,)]
    assert digit_networks.dimension == 64 * 20 + 20 + 20 * 10 + 10
    assert toy(hidden=()).shapes == [(4, 3), (3,)] and toy(hidden=()).dimension == 15
    assert toy(hidden=[7, 5]).sizes == (4, 7, 5, 3)
    problems = digit_networks.problems()
    theta, key = next(iter(problems))
    assert theta.shape == (8, 1510) and theta.dtype == tf.float32
    assert key.shape == (2,) and key.dtype == tf.int64
    assert [spec.shape for spec in problems.element_spec] == [(8, 1510), (2,)]
    assert digit_networks.mini_batches(2, key, 0)[0].shape == (2, 128, 64)


def descend(family, theta, key, steps, rate):
    """Gradient descent in a ``tf.while_loop``: the values before each of the steps, theta after."""

    def step(index, record, theta):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            values = family.values(theta, key, index)
        return index + 1, record.write(index, values), theta - rate * tape.gradient(values, theta)

    record = tf.TensorArray(tf.float32, size=steps)
    _, record, theta = tf.while_loop(
        lambda index, *_: index < steps, step, (tf.constant(0), record, theta)
    )
    return record.stack(), theta


def test_in_a_graph_with_the_step_a_tensor():
    """Inside tf.function and tf.while_loop the mini-batches are those of Python's own loop."""
    family = toy()
    theta, key = first(family)
    values, last = tf.function(descend)(family, theta, key, 6, 0.5)
    for step in range(6):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            expected = family.values(theta, key, step)
        np.testing.assert_allclose(values[step], expected, rtol=1e-5)
        theta = theta - 0.5 * tape.gradient(expected, theta)
    np.testing.assert_allclose(last, theta, rtol=1e-4, atol=1e-5)
    # The negative control: another step's mini-batches do matter.
    assert np.all(np.abs(family.values(theta, key, 6) - family.values(theta, key, 7)) > 1e-4)


def test_images_are_flattened_and_lists_and_unsigned_labels_are_fine():
    x, y = toy_data(inputs=12)
    family = NetworkTraining(x, y)
    theta, key = first(family)
    for other in (
        NetworkTraining(x.reshape(-1, 2, 6, 1), y),
        NetworkTraining(x.tolist(), y.astype(np.uint8)),
    ):
        assert other.sizes == (12, 20, 3) and other.y.dtype == np.int32
        np.testing.assert_array_equal(other.values(theta, key, 0), family.values(theta, key, 0))
        np.testing.assert_array_equal(other.x, x)


def test_gradient_descent_learns_digits(digit_networks):
    """From about ln 10 = 2.30, what ten equal probabilities cost; a rate of 0 learns nothing."""
    theta, key = first(digit_networks, functions=8)
    run = tf.function(descend)
    values = run(digit_networks, theta, key, 150, 3.0)[0].numpy()
    assert np.all(np.abs(values[0] - np.log(10)) < 0.5)
    assert np.all(np.mean(values[-10:], axis=0) < 0.3)
    still = run(digit_networks, theta, key, 150, 0.0)[0].numpy()
    assert np.all(np.mean(still[-10:], axis=0) > 2)


X, Y = toy_data(6, 2, 2)


@pytest.mark.parametrize(
    "x, y, found",
    [
        (X, Y[:-1], "(6, 2) and (5,), y of dtype int"),
        (X, Y[:, None], "(6, 2) and (6, 1), y of dtype int"),
        (X, Y.astype(float), "(6, 2) and (6,), y of dtype float64"),
        (X, Y > 0, "(6, 2) and (6,), y of dtype bool"),
        (X, Y - 1, "(6, 2) and (6,), y of dtype int"),
        ([], [], "(0,) and (0,)"),
    ],
)
def test_wrong_data_raises(x, y, found):
    with pytest.raises(ValueError, match=re.escape(f"integer labels 0..N-1; got shapes {found}")):
        NetworkTraining(x, y)


def test_digits_are_ink_on_paper_and_upright():
    """The middle of a zero is empty, its ring is not; a one has its ink where a zero has none."""
    x, y = digits()
    assert x.shape == (1797, 8, 8, 1) and x.dtype == np.float32
    assert y.shape == (1797,) and y.dtype == np.int32
    assert x.min() == 0 and x.max() == 1
    np.testing.assert_array_equal(x * 16, np.round(x * 16))
    assert len(np.bincount(y)) == 10 and np.min(np.bincount(y)) > 170
    zero, one, seven = (np.mean(x[y == label, ..., 0], axis=0) for label in (0, 1, 7))
    assert np.max(zero[3:5, 3:5]) < 0.3 < 0.6 < np.min(one[3:5, 3:5])
    assert np.mean(zero[:, [0, 7]]) < 0.05 and np.mean(seven[0]) > np.mean(seven[7]) + 0.1
