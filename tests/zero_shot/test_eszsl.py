"""ESZSL: by hand, against its objective, as two ridge regressions, beside wrong versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import Ridge

from mlutils.zero_shot import ESZSL
from tests.few_shot.tasks import identity
from tests.zero_shot.tasks import EVEN, ODD, built, random_tasks, ready

GAMMA, LAM = 0.7, 2.5


def examples(features=5, attributes=3, classes=6):
    """Of classes of different sizes, described by any numbers: ``X, y, S``."""
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(classes), [2, 3, 4, 5, 6, 7])
    S = random.normal(size=(classes, attributes))
    return (
        S[y] @ random.normal(size=(attributes, features)) + random.normal(size=(27, features)),
        y,
        S,
    )


def signs(y, S):
    """The labels: 1 for an example's class, -1 for all others."""
    return 2 * np.eye(len(S))[y] - 1


def fitted_matrix(X, y, S):
    learner = ESZSL(identity(X.shape[1]), S.shape[1], gamma=GAMMA, lam=LAM)
    return learner.fit(X, y, S).matrix.numpy()


# ---------------------------------------------------------------- wrong versions


def solution(X, Y, S, gamma=GAMMA, lam=LAM):
    left = np.linalg.inv(X.T @ X + gamma * np.eye(X.shape[1]))
    return left @ X.T @ Y @ S @ np.linalg.inv(S.T @ S + lam * np.eye(S.shape[1]))


def without_gamma(X, y, S):
    """Wrong: no ridge on the side of the embeddings."""
    return solution(X, signs(y, S), S, gamma=0)


def without_lam(X, y, S):
    """Wrong: no ridge on the side of the signatures."""
    return solution(X, signs(y, S), S, lam=0)


def ridges_swapped(X, y, S):
    """Wrong: each ridge on the other side."""
    return solution(X, signs(y, S), S, gamma=LAM, lam=GAMMA)


def zeros_and_ones(X, y, S):
    """Wrong: labels 0 for the other classes, not -1."""
    return solution(X, np.eye(len(S))[y], S)


def means_of_classes(X, y, S):
    """Wrong: one example per class, its mean, so that classes of any size count alike."""
    means = np.stack([X[y == k].mean(axis=0) for k in range(len(S))])
    return solution(means, signs(np.arange(len(S)), S), S)


WRONG = [without_gamma, without_lam, ridges_swapped, zeros_and_ones, means_of_classes]
VERSIONS = [(fitted_matrix, True), *((version, False) for version in WRONG)]


# ---------------------------------------------------------------- the solution


def objective(V, X, Y, S):
    """eq-eszsl as it stands."""
    parts = X @ V @ tf.transpose(S) - Y, V @ tf.transpose(S), X @ V, V
    weights = 1, GAMMA, LAM, GAMMA * LAM
    return sum(w * tf.reduce_sum(tf.square(p)) for w, p in zip(weights, parts, strict=True))


@pytest.mark.parametrize("version, right", VERSIONS)
def test_the_solution_has_no_gradient(float64, version, right):
    """eq-eszsl-solution is where the gradient of eq-eszsl is zero, and eq-eszsl is convex."""
    X, y, S = examples()
    V = tf.constant(version(X, y, S))
    with tf.GradientTape() as tape:
        tape.watch(V)
        loss = objective(V, X, signs(y, S), S)
    largest = np.abs(tape.gradient(loss, V)).max()
    assert largest < 1e-10 if right else largest > 0.1


@pytest.mark.parametrize("version, right", VERSIONS)
def test_two_ridge_regressions_one_after_the_other(float64, version, right):
    """eq-eszsl-solution: labels on embeddings, then the weights found on signatures."""
    X, y, S = examples()
    first = Ridge(alpha=GAMMA, fit_intercept=False).fit(X, signs(y, S))
    second = Ridge(alpha=LAM, fit_intercept=False).fit(S, first.coef_)
    assert np.allclose(version(X, y, S), second.coef_, rtol=1e-9) == right


def test_pocket_numbers():
    """eq-eszsl-solution and eq-compatibility: 1 and 2 of two classes described as 1 and -1.

    X^T X + gamma = 5 + 1 = 6 and S^T S + lam = 2 + 2 = 4.  X^T Y = (1 - 2, -1 + 2) = (-1, 1), times
    S it is -2: V = -2 / 24 = -1/12.  Query 3 and description 2 score -3 * 2 / 12 = -1/2.
    """
    learner = ESZSL(identity(1), 1, gamma=1.0, lam=2.0)
    learner.fit(np.array([[1.0], [2.0]]), np.array([0, 1]), np.array([[1.0], [-1.0]]))
    np.testing.assert_allclose(learner.matrix, [[-1 / 12]], rtol=1e-6)
    found = learner.adapt([[2.0], [0.0]])(tf.constant([[3.0]]))
    np.testing.assert_allclose(found, [[-1 / 2, 0]], rtol=1e-6)


def test_pocket_numbers_of_two_attributes():
    """eq-eszsl-solution: the same examples described as (1, 0) and (0, 1).

    S^T S + lam is 3 times the identity: V = (-1, 1) / (6 * 3).  Query 9 and the unseen descriptions
    (1, 1) and (0, 2) score 0 and 1.
    """
    learner = ESZSL(identity(1), 2, gamma=1.0, lam=2.0)
    learner.fit(np.array([[1.0], [2.0]]), np.array([0, 1]), np.eye(2))
    np.testing.assert_allclose(learner.matrix, [[-1 / 18, 1 / 18]], rtol=1e-6)
    found = learner.adapt([[1.0, 1.0], [0.0, 2.0]])(tf.constant([[9.0]]))
    np.testing.assert_allclose(found, [[0, 1]], atol=1e-6)


def test_it_is_solved_in_double_precision():
    """eq-eszsl-solution of inputs far from 0, where single precision is off by far more."""
    X, y, S = examples()
    X, S = (X + 300).astype(np.float32), S.astype(np.float32)
    expected = solution(X.astype(float), signs(y, S), S.astype(float))
    single = solution(*(x.astype(np.float32) for x in (X, signs(y, S), S)))
    assert np.abs(single - expected).max() > 1e-2 * np.abs(expected).max()
    np.testing.assert_allclose(fitted_matrix(X, y, S), expected, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- the score


class AcrossTasks(ESZSL):
    """Wrong: every task's queries meet the descriptions of the first."""

    def answer(self, summary, queries):
        return super().answer(tf.repeat(summary[:1], 3, axis=0), queries)


class Transposed(ESZSL):
    """Wrong: the matrix on its side, which fits if there are as many features as attributes."""

    def class_vectors(self, signatures):
        return signatures @ tf.convert_to_tensor(self.matrix)[tf.newaxis]


@pytest.mark.parametrize("kind, right", [(ESZSL, True), (AcrossTasks, False), (Transposed, False)])
def test_plain_loop(float64, kind, right):
    """eq-compatibility: z^T V a, with a matrix of random numbers."""
    learner = ready(kind, base=ESZSL)
    learner.matrix.assign(np.random.default_rng(1).normal(size=(4, 4)))
    V, (signatures, labels, query_x) = learner.matrix.numpy(), random_tasks()
    found, errors = learner((signatures, labels, query_x)).numpy(), []
    for scores, rows, order, x in zip(found, signatures, labels, query_x, strict=True):
        rows = rows.numpy()[np.argsort(order)]
        by_loop = [[sum(z[f] * V[f] @ a for f in range(4)) for a in rows] for z in x.numpy()]
        errors.append(np.abs(scores - by_loop).max())
    assert max(errors) < 1e-12 if right else max(errors) > 1e-2


def test_the_encoder_comes_first(float64):
    """eq-eszsl-solution of embeddings z = 2 x - 1, not of inputs."""
    encoder, y = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(2.0, -1.0)]), range(8)
    found = built(ESZSL, encoder).fit(EVEN, np.array(y), EVEN).matrix.numpy()
    same = built(ESZSL).fit(2 * EVEN - 1, np.array(y), EVEN).matrix.numpy()
    np.testing.assert_allclose(found, same, rtol=1e-6)
    assert np.abs(built(ESZSL).fit(EVEN, np.array(y), EVEN).matrix - found).max() > 1e-2


def test_unseen_classes_of_an_easy_problem():
    """eq-zero-shot with bits of 1 and -1 as inputs: right on all odd signatures.

    With shuffled descriptions in training it is not.
    """
    y = np.arange(8)
    right, wrong = (
        built(ESZSL).fit(2 * EVEN - 1, y, rows) for rows in (EVEN, EVEN[[3, 7, 4, 1, 6, 0, 2, 5]])
    )
    chosen, other = (
        np.argmax(learner.adapt(ODD)(2 * ODD - 1), axis=1) for learner in (right, wrong)
    )
    np.testing.assert_array_equal(chosen, y)
    assert np.mean(other == y) < 0.5
