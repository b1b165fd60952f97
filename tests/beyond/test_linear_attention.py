"""Layers of linear attention: gradient steps, by hand, by tape, beside wrong versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import LinearAttention
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error

STEP = 0.3


def one_task(examples=7, features=3, outputs=2, seed=0):
    random = np.random.default_rng(seed)
    sizes = (examples, features), (examples, outputs), (5, features)
    return [tf.constant(random.normal(size=size)) for size in sizes]


def descended(x, y, query_x, steps):
    """Predictions after steps on half the mean squared error, by a GradientTape."""
    theta = tf.zeros((x.shape[1], y.shape[1]), x.dtype)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            squares = tf.reduce_sum((x @ theta - y) ** 2, axis=1)
            loss = tf.reduce_mean(squares) / 2
        theta -= STEP * tape.gradient(loss, theta)
    return query_x @ theta


# ---------------------------------------------------------------- values derived by hand


def test_pocket_attention_is_half_of_the_surprise():
    """eq-attention-step: x = (1, 2), y = (2, 3), alpha = 1/2, n = 2.

    The products of x = 3 with the examples are 3 and 6: 1/4 (2 * 3 + 3 * 6) = 6.  By descent:
    the gradient at 0 is -(2 * 1 + 3 * 2) / 2 = -4, theta is 2, and 2 * 3 = 6.

    eq-attention-layers: the first layer predicts 2 and 4 of the examples, so 0 and -1 are left; the
    second adds 1/4 (0 * 3 - 1 * 6) = -1.5.  By descent: the gradient at 2 is (0 + 1 * 2) / 2 = 1,
    theta is 1.5, and 1.5 * 3 = 4.5.
    """
    x, y = [[1.0], [2.0]], [[2.0], [3.0]]
    for layers, expected in ((1, 6.0), (2, 4.5)):
        learner = LinearAttention(1, layers, step=0.5)
        np.testing.assert_allclose(learner.adapt(x, y)([[3.0]]), [[expected]], atol=1e-6)


# ---------------------------------------------------------------- beside a gradient step


class WithSoftmax(LinearAttention):
    """Wrong: the attention of transformers, whose shares add up to one."""

    def recall(self, kept, query_x):
        x, left = kept
        return tf.nn.softmax(query_x @ tf.transpose(x) * self.step) @ left[0]


class SumOfExamples(LinearAttention):
    """Wrong: forgets to divide by n."""

    def recall(self, kept, query_x):
        return super().recall(kept, query_x) * tf.cast(len(kept[0]), query_x.dtype)


class SameTargets(LinearAttention):
    """Wrong: each layer gathers the targets, and not what the layer before left of them."""

    def keep(self, support_x, support_y):
        return support_x, [support_y] * self.depth


@pytest.mark.parametrize(
    "kind, layers, right",
    [
        (LinearAttention, 1, True),
        (LinearAttention, 2, True),
        (LinearAttention, 5, True),
        (WithSoftmax, 1, False),
        (SumOfExamples, 1, False),
        (SameTargets, 1, True),
        (SameTargets, 2, False),
    ],
)
def test_a_layer_is_a_gradient_step(float64, kind, layers, right):
    """eq-attention-step, eq-attention-layers."""
    x, y, query_x = one_task()
    found = kind(3, layers, STEP).adapt(x, y)(query_x)
    error = np.abs(found - descended(x, y, query_x, layers)).max()
    assert error < 1e-7 if right else error > 1e-2


def test_a_matrix_preconditions(float64):
    """eq-attention-step with a matrix W in place of alpha: theta = W X'y / n."""
    x, y, query_x = one_task()
    learner = LinearAttention(3)
    matrix = np.random.default_rng(1).normal(size=(3, 3))
    learner.set_weights([matrix])
    expected = query_x @ matrix.T @ tf.transpose(x) @ y / 7
    np.testing.assert_allclose(learner.adapt(x, y)(query_x), expected, atol=1e-12)


# ---------------------------------------------------------------- finite differences


class LeftIsGiven(LinearAttention):
    """Wrong: the loss does not reach the first layer through what it left of the targets."""

    def keep(self, support_x, support_y):
        x, left = super().keep(support_x, support_y)
        return x, [tf.stop_gradient(y) for y in left]


@pytest.mark.parametrize("kind, right", [(LinearAttention, True), (LeftIsGiven, False)])
def test_meta_gradient_equals_finite_differences(float64, kind, right):
    """By the matrices of eq-attention-layers."""
    random = np.random.default_rng(0)
    shapes = (4, 6, 3), (4, 6, 2), (4, 5, 3), (4, 5, 2)
    episode = mlutils.Episode(*(tf.constant(random.normal(size=shape)) for shape in shapes))
    learner = kind(3, layers=2, step=STEP)
    learner.compile("sgd", "mse")
    expected = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    error = relative_error(flatten(learner.meta_gradients(episode)[1]), expected)
    assert error < RELATIVE_TOLERANCE if right else error > 1e-3


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LinearAttention(0), "features must be .* 1, got 0"),
        (lambda: LinearAttention(3, layers=0), "layers must be .* 1, got 0"),
        (lambda: LinearAttention(3, step=-1.0), "step must be .* 0, got -1.0"),
        (lambda: LinearAttention(3).adapt(np.ones((4, 3)), np.ones(4)), r"allowed are floats \(S"),
        (lambda: LinearAttention(3).adapt(np.ones((4, 3)), [0, 1, 1, 0]), "allowed are floats"),
        (lambda: LinearAttention(3).adapt(np.ones((4, 2)), np.ones((4, 1))), "support_x"),
    ],
)
def test_wrong_input_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_it_is_saved_with_its_matrices(tmp_path):
    learner = LinearAttention(3, layers=2, step=0.7)
    learner.set_weights([2 * w for w in learner.get_weights()])
    learner.save(tmp_path / "learner.keras")
    loaded = keras.saving.load_model(tmp_path / "learner.keras")
    x, y, query_x = (tf.cast(v, "float32") for v in one_task())
    np.testing.assert_array_equal(loaded.adapt(x, y)(query_x), learner.adapt(x, y)(query_x))
