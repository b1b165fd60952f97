"""Direct attribute prediction: by hand, by a plain loop, beside scikit-learn and wrong versions."""

import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from mlutils.zero_shot import DAP
from tests.few_shot.tasks import identity
from tests.zero_shot.tasks import BITS, EVEN, ODD, built, random_tasks


def with_numbers(kind, kernel, bias, prior):
    """One whose classifiers are given; inputs are embeddings."""
    learner = kind(identity(len(kernel)), len(prior))
    learner.kernel.assign(kernel)
    learner.bias.assign(bias)
    learner.prior.assign(prior)
    return learner


class WithoutPrior(DAP):
    """Wrong: common attributes count like rare ones."""

    def answer(self, summary, queries):
        half = tf.ones_like(self.prior) / 2
        common = summary @ tf.math.log(self.prior / half)[tf.newaxis, :, tf.newaxis]
        rare = (1 - summary) @ tf.math.log((1 - self.prior) / half)[tf.newaxis, :, tf.newaxis]
        return super().answer(summary, queries) + tf.transpose(common + rare, (0, 2, 1))


class WithoutAbsent(DAP):
    """Wrong: what a class lacks does not count."""

    def answer(self, summary, queries):
        return super().answer(summary, queries) - super().answer(0 * summary, queries)


class ProbabilityOfAbsent(DAP):
    """Wrong: every attribute's probability to be there, also of those that a class lacks."""

    def answer(self, summary, queries):
        return super().answer(tf.ones_like(summary), queries)


VERSIONS = [
    (DAP, True),
    (WithoutPrior, False),
    (WithoutAbsent, False),
    (ProbabilityOfAbsent, False),
]


# ---------------------------------------------------------------- values derived by hand


@pytest.mark.parametrize("kind, right", VERSIONS)
def test_pocket_numbers(kind, right):
    """eq-dap: attributes there with 3/4 and 1/5, among seen classes 1/2 and 1/4 of the time.

    The log-odds are log 3 = 0 + log 3 and -log 4 = -2 log 2 + 0.  Both: (3/4)/(1/2) = 3/2 times
    (1/5)/(1/4) = 4/5 is 6/5.  The first only: 3/2 times (4/5)/(3/4) = 16/15 is 8/5.  None:
    (1/4)/(1/2) = 1/2 times 16/15 is 8/15.
    """
    kernel, bias = [[0.0, -2.0], [5.0, 0.0]], [math.log(3), 0.0]
    learner = with_numbers(kind, kernel, bias, [1 / 2, 1 / 4])
    found = learner.adapt([[1, 1], [1, 0], [0, 0]])(tf.constant([[math.log(2), 0.0]]))
    expected = np.log([[6 / 5, 8 / 5, 8 / 15]])
    assert np.allclose(found, expected, rtol=1e-5) == right


def loop_scores(learner, signatures, query_x):
    """eq-dap in plain Python, with identity embeddings."""
    kernel, bias, prior = (w.numpy() for w in (learner.kernel, learner.bias, learner.prior))
    scores = np.zeros((len(query_x), len(signatures)))
    for q, z in enumerate(query_x):
        for k, signature in enumerate(signatures):
            for m, a in enumerate(signature):
                p = 1 / (1 + math.exp(-sum(z * kernel[:, m]) - bias[m]))
                scores[q, k] += math.log(p / prior[m] if a else (1 - p) / (1 - prior[m]))
    return scores


@pytest.mark.parametrize("kind, right", VERSIONS)
def test_plain_loop(float64, kind, right):
    """eq-dap: a batch of tasks."""
    random, (signatures, labels, query_x) = np.random.default_rng(0), random_tasks()
    kernel, bias, prior = random.normal(size=(4, 4)), random.normal(size=4), random.random(4)
    learner = with_numbers(kind, kernel, bias, prior)
    found, errors = learner((signatures, labels, query_x)).numpy(), []
    for scores, rows, order, x in zip(found, signatures, labels, query_x, strict=True):
        by_loop = loop_scores(learner, rows.numpy()[np.argsort(order)], x.numpy())
        errors.append(np.abs(scores - by_loop).max())
    assert max(errors) < 1e-12 if right else min(errors) > 1e-2


def test_far_from_the_boundary_a_score_is_finite():
    """eq-dap with log-odds of 1000: the logarithm of the unlikely class is -1000, not infinite."""
    learner = with_numbers(DAP, [[1.0]], [0.0], [0.5])
    found = learner.adapt([[1], [0]])(tf.constant([[1000.0], [-1000.0]]))
    near, far = math.log(2), math.log(2) - 1000
    np.testing.assert_allclose(found, [[near, far], [far, near]], rtol=1e-6)


# ---------------------------------------------------------------- unseen classes


def accuracy(learner, x, signatures):
    return np.mean(np.argmax(learner.adapt(signatures)(x), axis=1) == np.arange(len(x)))


def test_perfect_attributes_are_enough():
    """eq-dap: inputs that are the signatures.  Right on all unseen classes, and on all sixteen.

    Negative control: the descriptions with their attributes moved on by one.  An odd signature
    moved is always another one, so that no answer is right.
    """
    learner = built(DAP).fit(EVEN, np.arange(8), EVEN)
    assert accuracy(learner, ODD, ODD) == 1
    assert accuracy(learner, BITS, BITS) == 1
    assert accuracy(learner, ODD, np.roll(ODD, 1, axis=1)) == 0


def test_each_attribute_is_learned_from_its_own_input_only():
    """Even signatures are balanced: by symmetry the kernel is diagonal, all its entries equal."""
    learner = built(DAP).fit(EVEN, np.arange(8), EVEN)
    kernel = learner.kernel.numpy()
    np.testing.assert_allclose(kernel, kernel[0, 0] * np.eye(4), atol=1e-3)
    np.testing.assert_allclose(learner.bias, -kernel[0, 0] / 2 * np.ones(4), atol=1e-3)
    assert kernel[0, 0] > 1


# ---------------------------------------------------------------- the fit


def noisy_examples():
    """Of eight classes, the first as often as all others together."""
    y = np.repeat(np.arange(8), [35, 5, 5, 5, 5, 5, 5, 5])
    return EVEN[y] + np.random.default_rng(0).normal(size=(70, 4)), y


@pytest.mark.parametrize("C, right", [(0.2, True), (1.0, False)])
def test_logistic_regressions_equal_those_of_scikit_learn(float64, C, right):
    """One per attribute, by another solver.  Negative control: another strength."""
    x, y = noisy_examples()
    learner, errors = built(DAP, C=0.2).fit(x, y, EVEN), []
    for m in range(4):
        fit = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8).fit(x, EVEN[y, m])
        errors.append(np.abs(learner.kernel[:, m] - fit.coef_[0]).max())
        errors.append(abs(learner.bias[m] - fit.intercept_[0]))
    assert max(errors) < 1e-3 if right else max(errors) > 1e-2


def test_the_prior_counts_classes_not_examples():
    """eq-dap: half of the even signatures have each attribute.

    Of the examples, most of which are of the class without any, far fewer have one.
    """
    x, y = noisy_examples()
    learner = built(DAP).fit(x, y, EVEN)
    np.testing.assert_array_equal(learner.prior, [1 / 2] * 4)
    assert EVEN[y].mean(axis=0).max() < 0.4


def test_the_prior_of_unbalanced_signatures():
    """eq-dap: without the class of all ones three of seven have each attribute."""
    learner = built(DAP).fit(EVEN[:7], np.arange(7), EVEN[:7])
    assert EVEN[7].all()
    np.testing.assert_allclose(learner.prior, [3 / 7] * 4, rtol=1e-6)


# ---------------------------------------------------------------- wrong input


def test_attributes_that_are_neither_0_nor_1_raise():
    """In ``fit`` and in ``adapt``."""
    learner = built(DAP).fit(EVEN, np.arange(8), EVEN)
    for value in (0.5, -1.0, 2.0):
        signatures = np.array(EVEN)
        signatures[3, 1] = value
        words = f"DAP takes attributes that are 0 or 1, got {value}"
        with pytest.raises(ValueError, match=words):
            built(DAP).fit(EVEN, np.arange(8), signatures)
        with pytest.raises(ValueError, match=words):
            learner.adapt(signatures)
