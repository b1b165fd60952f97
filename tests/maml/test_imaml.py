"""Implicit MAML against closed forms, finite differences, and wrong versions."""

import numpy as np
import pytest
import tensorflow as tf

from mlutils import MAML, iMAML
from mlutils.maml.imaml import conjugate_gradients
from tests.maml.tasks import (
    adapted,
    classifier,
    dense_model,
    linear_model,
    random_episode,
    regression_episode,
    scalar_learner,
)
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error

# ---------------------------------------------------------------- by hand


def scalar_solver(**options):
    """L = 3 theta^2 / 2 on the support set, at theta = 2, with strength 1."""
    learner = scalar_learner(2.0, iMAML, inner_lr=0.2, strength=1.0, **options)
    learner.compile(loss=lambda y, p: 3.0 * tf.reduce_mean(tf.square(p - y)) / 2)
    return learner


@pytest.mark.parametrize("steps, weight", [(0, 2.0), (1, 0.8), (2, 0.56), (60, 0.5)])
def test_inner_steps_by_hand(steps, weight):
    """eq-imaml-inner: phi - 0.2 (3 phi + 1 (phi - 2)) = 0.2 phi + 0.4.

    From 2: 0.8, 0.56, ... to phi = 1/2, where 3 phi + (phi - 2) = 0.
    """
    for learner, given in [
        (scalar_solver(inner_steps=steps), None),
        (scalar_solver(inner_steps=7), steps),
    ]:
        assert adapted(learner, given) == pytest.approx(weight, rel=1e-6)


def closed_form(learner, episode):
    """eq-imaml-inner and eq-imaml-gradient on mean squared error, without any step.

    L^S(w) = |X w - y|^2 / S has the Hessian H = 2/S X'X.  Where the gradient of
    L^S + lambda/2 |w - theta|^2 is zero, (H + lambda I) phi = 2/S X'y + lambda theta; and
    grad L^Q(phi) = 2/Q X_Q' (X_Q phi - y_Q).
    """
    theta, strength = learner.model.get_weights()[0], learner.strength
    solutions, plain, exact = [], [], []
    for support_x, support_y, query_x, query_y in zip(*(v.numpy() for v in episode), strict=True):
        size = len(support_x)
        hessian, one = 2 / size * support_x.T @ support_x, np.eye(len(theta))
        phi = np.linalg.solve(
            hessian + strength * one, 2 / size * support_x.T @ support_y + strength * theta
        )
        gradient = 2 / len(query_x) * query_x.T @ (query_x @ phi - query_y)
        solutions.append(phi)
        plain.append(gradient)
        exact.append(np.linalg.solve(one + hessian / strength, gradient))
    return solutions, np.mean(plain, 0)[:, 0], np.mean(exact, 0)[:, 0]


def regressor(**options):
    learner = iMAML(linear_model(3), inner_lr=0.2, inner_steps=70, strength=2.0, **options)
    learner.compile(loss="mse")
    return learner


def test_linear_regression_in_closed_form(float64):
    """eq-imaml-inner and eq-imaml-gradient; three conjugate-gradient steps for three weights.

    Negative controls: the query gradient alone, one conjugate-gradient step, and few inner steps.
    """
    learner, episode = regressor(cg_steps=3), regression_episode(3)
    solutions, plain, exact = closed_form(learner, episode)
    for support_x, support_y, phi in zip(*episode[:2], solutions, strict=True):
        (found,) = learner.adapted_weights(learner.initialisation(), support_x, support_y)
        np.testing.assert_allclose(found, phi, rtol=1e-9)
        (early,) = learner.adapted_weights(learner.initialisation(), support_x, support_y, 2)
        assert np.max(np.abs(early - phi)) > 1e-2
    gradient = flatten(learner.meta_gradients(episode)[1])
    assert relative_error(gradient, exact) < 1e-9
    assert relative_error(plain, exact) > 0.1
    short = regressor(cg_steps=1)
    short.model.set_weights(learner.model.get_weights())
    assert relative_error(flatten(short.meta_gradients(episode)[1]), exact) > 1e-2


# ---------------------------------------------------------------- conjugate gradients


def system(size=6):
    """A symmetric positive definite matrix, a right-hand side, and the solution."""
    random = np.random.default_rng(0)
    root = random.normal(size=(size, size))
    matrix, vector = root @ root.T + np.eye(size), random.normal(size=size)
    return matrix, vector, np.linalg.solve(matrix, vector)


def solve(matrix, vector, steps):
    """By ``conjugate_gradients``, with the vector in two tensors of different shapes."""

    def split(x):
        return [tf.reshape(x[:4], (2, 2)), x[4:]]

    def product(parts):
        return split(tf.linalg.matvec(matrix, tf.concat([tf.reshape(p, [-1]) for p in parts], 0)))

    return flatten(conjugate_gradients(product, split(tf.constant(vector)), steps))


def test_conjugate_gradients_solve_n_equations_in_n_steps():
    """The linear system of eq-imaml-gradient; one step fewer is not enough, more change nothing."""
    matrix, vector, solution = system()
    assert relative_error(solve(matrix, vector, 6), solution) < 1e-9
    assert relative_error(solve(matrix, vector, 5), solution) > 1e-4
    assert relative_error(solve(matrix, vector, 99), solution) < 1e-12
    np.testing.assert_array_equal(solve(matrix, 0 * vector, 3), 0)


# ---------------------------------------------------------------- finite differences


def converged(model, **options):
    options = dict(inner_lr=0.2, inner_steps=70, strength=2.0, cg_steps=9) | options
    return classifier(model, iMAML, **options)


def test_the_implicit_gradient_equals_finite_differences(float64):
    """eq-imaml-gradient on a tanh network, whose 9 weights need at most 9 steps of the solver.

    Negative controls: one step of the solver, and the query gradient without the inverse.
    """
    model = dense_model(hidden=1)
    learner, episode = converged(model), random_episode(model, tasks=1)
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    right, short = (
        flatten(one.meta_gradients(episode)[1]) for one in (learner, converged(model, cg_steps=1))
    )
    assert relative_error(right, reference) < RELATIVE_TOLERANCE
    assert relative_error(short, reference) > 1e-2
    support_x, support_y, query_x, query_y = (value[0] for value in episode)
    phi = learner.adapted_weights(learner.initialisation(), support_x, support_y)
    with tf.GradientTape() as tape:
        tape.watch(phi)
        loss = learner.task_loss(query_y, learner.predict_with(phi, query_x))
    assert relative_error(flatten(tape.gradient(loss, phi)), reference) > 1e-2


def accumulators(kind, **options):
    """How many lists of a loop's values the graph of a meta-gradient keeps for the way back."""
    model = dense_model(hidden=1)
    learner = classifier(model, kind, inner_steps=9, **options)
    episode = random_episode(model, dtype="float32")
    function = tf.function(lambda: learner.meta_gradients(episode)).get_concrete_function()
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return sum(node.op == "TensorListPushBack" for node in nodes)


def test_memory_does_not_grow_with_the_inner_steps():
    """eq-imaml-gradient needs only where the path ends: none of its steps is kept.

    Negative control: MAML keeps what it goes back through.
    """
    assert accumulators(iMAML, cg_steps=1) == 0 < accumulators(MAML)
