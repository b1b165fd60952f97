"""ProtoMAML: by hand, beside a prototypical network, and against versions that are wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils import Episode, ProtoMAML, PrototypicalNetwork
from tests.maml.tasks import classifier, cross_entropy, dense_model, gradient_error
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def episode(ways=3, tasks=2, seed=0):
    """Two or more examples of each class, three queries of each."""
    random = np.random.default_rng(seed)
    y, query_y = (np.tile(np.arange(ways), (tasks, n)) for n in (2, 3))
    x, query_x = (random.normal(size=(*v.shape, 2)) for v in (y, query_y))
    return Episode(*(tf.constant(v) for v in (x, y, query_x, query_y)))


def learner_of(inner_steps=2, kind=ProtoMAML, **options):
    return classifier(dense_model(), kind, inner_lr=0.3, inner_steps=inner_steps, **options)


class Constant(ProtoMAML):
    """Wrong: the head's start is a constant to the outer loop."""

    def head(self, support_x, members):
        return [tf.stop_gradient(part) for part in super().head(support_x, members)]


class HeadHeld(ProtoMAML):
    """Wrong: the inner loop leaves the head where it starts."""

    def rules(self):
        return [*super().rules()[:-2], None, None]


def test_the_head_by_hand():
    """eq-prototype-linear: of class means (0, 2) and (4, 0), by an encoder that does nothing."""
    nothing = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    nothing.set_weights([np.eye(2)])
    learner = classifier(nothing, ProtoMAML, inner_steps=0, scale=0.5)
    support_x, support_y = np.array([[1.0, 2], [4, 0], [-1, 2]], "float32"), np.array([0, 1, 0])
    kernel, bias = learner.head(support_x, tf.one_hot(support_y, 2))
    np.testing.assert_allclose(kernel, [[0, 4], [2, 0]])
    np.testing.assert_allclose(bias, [-2, -8])
    logits = learner.adapt(support_x, support_y)(np.array([[1.0, 1.0]], "float32"))
    np.testing.assert_allclose(logits, [[2 - 2, 4 - 8]])


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_with_no_step_it_is_a_prototypical_network(float64, scale):
    """Its logits but for |z|^2, which is the same for all classes; its loss and gradients too."""
    learner, task = learner_of(inner_steps=0, scale=scale), episode()
    prototypical = PrototypicalNetwork(learner.model, scale=scale)
    prototypical.compile(loss=cross_entropy())
    difference = (learner(task.element[0]) - prototypical(task.element[0])).numpy()
    np.testing.assert_allclose(np.ptp(difference, axis=2), 0, atol=1e-12)
    assert np.ptp(difference[..., 0]) > 0.01  # the constant is another one for each query
    for found, right in zip(
        tf.nest.flatten(learner.meta_gradients(task)),
        tf.nest.flatten(prototypical.meta_gradients(task)),
        strict=True,
    ):
        np.testing.assert_allclose(found, right, atol=1e-12)


@pytest.mark.parametrize("kind, right", [(ProtoMAML, True), (HeadHeld, False)])
def test_one_step_by_hand(float64, kind, right):
    """eq-proto-maml: embeddings and head move down the gradient of the support loss."""
    learner, task = learner_of(inner_steps=1, kind=kind, scale=0.5), episode(tasks=1)
    support_x, support_y, query_x, _ = (value[0] for value in task)
    model = learner.model
    means = tf.stack([tf.reduce_mean(model(support_x[support_y == n]), 0) for n in range(3)])
    kernel, bias = tf.transpose(means), -0.5 * tf.reduce_sum(means**2, axis=1)
    with tf.GradientTape() as tape:
        tape.watch([kernel, bias])
        loss = cross_entropy()(support_y, model(support_x) @ kernel + bias)
    variables = model.trainable_variables
    *slopes, kernel_slope, bias_slope = tape.gradient(
        loss, [*(v.value for v in variables), kernel, bias]
    )
    for variable, slope in zip(variables, slopes, strict=True):
        variable.assign_sub(0.3 * slope)
    expected = model(query_x) @ (kernel - 0.3 * kernel_slope) + bias - 0.3 * bias_slope
    for variable, slope in zip(variables, slopes, strict=True):
        variable.assign_add(0.3 * slope)
    found = learner(task.element[0])[0]
    assert (np.max(np.abs(found - expected)) < 1e-9) == right


def test_the_gradient_goes_through_the_heads_start(float64):
    """eq-proto-maml: exact against finite differences, which a constant start is not."""
    assert gradient_error(learner_of(), episode()) < RELATIVE_TOLERANCE
    assert gradient_error(learner_of(kind=Constant), episode()) > 0.01


def test_first_order_keeps_the_gradient_through_the_start(float64):
    """At no step there is nothing to drop; at one, it is the gradient with the steps held."""
    none = learner_of(inner_steps=0, first_order=True)
    assert gradient_error(none, episode()) < RELATIVE_TOLERANCE
    learner, task = learner_of(inner_steps=1, first_order=True), episode()
    _, found = learner.meta_gradients(task)
    theta = [tf.identity(v) for v in learner.model.trainable_variables]

    def steps_of_theta(support_x, support_y):
        """How far embeddings and head of one task move, as constants."""
        members = tf.one_hot(support_y, 3, dtype="float64")
        start = learner.head(support_x, members)
        before = learner.theta(start)
        after = learner.descend(
            lambda w, step: learner.support_loss(w, step, support_x, members, *start), before
        )
        return start, [a - b for a, b in zip(after, before, strict=True)]

    held = [steps_of_theta(x, y)[1] for x, y in zip(task.support_x, task.support_y, strict=True)]

    def loss():
        total = 0.0
        for n, steps in enumerate(held):
            members = tf.one_hot(task.support_y[n], 3, dtype="float64")
            kernel, bias = learner.head(task.support_x[n], members)
            moved = [t + s for t, s in zip(learner.initialisation(), steps[:-2], strict=True)]
            weights = [*moved, kernel + steps[-2], bias + steps[-1]]
            logits = learner.predict_with(weights, task.query_x[n])
            total += cross_entropy()(task.query_y[n], logits) / len(held)
        return total

    reference = finite_differences(loss, learner.trainable_variables)
    assert relative_error(flatten(found), reference) < RELATIVE_TOLERANCE
    for variable, value in zip(learner.model.trainable_variables, theta, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_ways_may_change_from_task_to_task():
    learner = learner_of()
    for ways in (2, 5):
        inputs = tuple(
            tf.cast(v, tf.float32) if v.dtype.is_floating else v for v in episode(ways).element[0]
        )
        assert learner(inputs).shape == (2, 3 * ways, ways)


def test_wrong_input_raises():
    with pytest.raises(ValueError, match="scale must be"):
        learner_of(scale=0.0)
    learner = learner_of()
    with pytest.raises(ValueError, match="0"):
        learner.adapt(np.zeros((2, 2), "float32"), np.array([0, 2]))
    with pytest.raises(ValueError, match="steps"):
        learner.adapt(np.zeros((2, 2), "float32"), np.array([0, 1]), steps=-1)
    with pytest.raises(NotImplementedError, match="no head"):
        learner.unadapted()
