"""The prior-fitted network: by hand, by exact enumeration, beside wrong versions."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from mlutils import Episode, PriorFittedNetwork
from tests.few_shot.tasks import check_meta_gradients, random_episode, randomized


def random_learner(kind=PriorFittedNetwork, **options):
    """Two inputs at most three, three classes, two blocks of two heads."""
    sizes = {"features": 3, "classes": 3, "units": 4, "heads": 2, "blocks": 2}
    return randomized(kind(**{**sizes, **options}))


# ---------------------------------------------------------------- the loss, by enumeration

# A coin whose chance of heads is uniform: the posterior predictive after h heads of n is
# (h + 1) / (n + 2), and a sequence with h heads has probability 1 / ((n + 1) C(n, h)).
FLIPS = list(itertools.product([0, 1], repeat=3))


def predictive(flips):
    """Probabilities of tails and heads after some flips."""
    heads = (sum(flips) + 1) / (len(flips) + 2)
    return np.array([1 - heads, heads])


def chance(flips):
    return 1 / ((len(flips) + 1) * math.comb(len(flips), sum(flips)))


def test_pocket_posterior_predictive():
    """eq-posterior-predictive: after heads, heads, tails the next is heads with 3/5.

    By a sum over 1000 coins, each weighted with its chance of these flips; not the share of heads,
    2/3, and not the chance of the most probable coin, which is 2/3 too.
    """
    coins = (np.arange(1000) + 0.5) / 1000
    weights = coins**2 * (1 - coins)
    assert abs(np.average(coins, weights=weights) - 3 / 5) < 1e-5
    np.testing.assert_allclose(predictive([1, 1, 0]), [2 / 5, 3 / 5])
    assert math.isclose(sum(map(chance, FLIPS)), 1)
    assert math.isclose(chance([1, 1, 0, 1]), chance([1, 1, 0]) * 3 / 5)


def entropy_and_divergence(q):
    """The two sides of eq-prior-fitted-loss but the loss, and the divergence the wrong way round,
    by enumeration; ``q`` is ``(8, 2)``, one answer to each three flips."""
    p, weights = np.array([predictive(f) for f in FLIPS]), np.array([chance(f) for f in FLIPS])
    entropy = -weights @ np.sum(p * np.log(p), axis=1)
    return (
        entropy,
        weights @ np.sum(p * np.log(p / q), axis=1),
        weights @ np.sum(q * np.log(q / p), axis=1),
    )


def test_the_loss_is_the_divergence_and_a_constant(float64):
    """eq-prior-fitted-loss, of a network of random weights, over all sequences of four flips.

    Its loss is the mean over the sequences, weighted with their chance.  With the divergence the
    wrong way round the sum is another.
    """
    learner = random_learner(features=1, classes=2)
    x = np.zeros((1, 1))

    def logits(flips):
        return learner.adapt(np.zeros((3, 1)), np.array(flips))(x)[0]

    q = np.array([tf.nn.softmax(logits(flips)) for flips in FLIPS])
    loss = -sum(
        chance((*flips, flip)) * np.log(q[i, flip])
        for i, flips in enumerate(FLIPS)
        for flip in (0, 1)
    )
    entropy, divergence, reverse = entropy_and_divergence(q)
    assert divergence > 0.01
    np.testing.assert_allclose(loss, entropy + divergence, rtol=1e-12)
    assert abs(loss - entropy - reverse) > 1e-3


# ---------------------------------------------------------------- the network, by hand


def normed(token, gain, shift):
    return gain * (token - token.mean()) / np.sqrt(token.var() + 1e-3) + shift


def advanced(token, seen, q, qb, k, kb, v, vb, out, ob, g1, s1, g2, s2, d1, b1, d2, b2):
    """A token after one block in which it attends to those it has seen, one head at a time."""
    asks, seen = normed(token, g1, s1), np.array([normed(other, g1, s1) for other in seen])
    gathered = ob.copy()
    for head in range(q.shape[1]):
        keys, values = seen @ k[:, head] + kb[head], seen @ v[:, head] + vb[head]
        score = keys @ (asks @ q[:, head] + qb[head]) / math.sqrt(q.shape[2])
        attention = np.exp(score - score.max())
        gathered += (attention / attention.sum()) @ values @ out[head]
    token = token + gathered
    return token + np.maximum(normed(token, g2, s2) @ d1 + b1, 0) @ d2 + b2


def plain(learner, support_x, support_y, query):
    """The logits of one query, in NumPy, one token after the other."""
    weights = iter(learner.get_weights())
    row, row_bias, label, label_bias = (next(weights) for _ in range(4))
    mean, spread = support_x.mean(axis=0), support_x.std(axis=0)
    spread = np.where(spread == 0, np.inf, spread)
    share = math.sqrt(learner.features / np.isfinite(spread).sum())

    def as_token(x):
        x = share * np.clip((x - mean) / spread, -5, 5)
        return np.pad(x, (0, learner.features - len(x))) @ row + row_bias

    tokens = [
        as_token(x) + np.eye(learner.ways)[y] @ label + label_bias
        for x, y in zip(support_x, support_y, strict=True)
    ]
    asked = as_token(query)
    for _ in learner.blocks:
        block = [next(weights) for _ in range(16)]
        asked, tokens = (
            advanced(asked, tokens, *block),
            [advanced(token, tokens, *block) for token in tokens],
        )
    gain, shift, head, bias = weights
    return normed(asked, gain, shift) @ head + bias


def table(seed=0):
    """Nine rows of two columns, one of which is in other units, and four queries."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(13, 2)) * [1, 100] + [5, -300]
    return x[:9], random.integers(3, size=9), x[9:]


def test_by_a_plain_loop_over_rows(float64):
    learner, (x, y, queries) = random_learner(), table()
    expected = [plain(learner, x, y, query) for query in queries]
    np.testing.assert_allclose(learner.adapt(x, y)(queries), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("standardize", [True, False])
def test_meta_gradients_by_finite_differences(float64, standardize):
    """Wrong: a network in which the support rows do not attend to each other."""

    class Alone(PriorFittedNetwork):
        def summarize(self, support_x, support_y):
            scaling, (tokens, *_) = super().summarize(support_x, support_y)
            return scaling, [tokens] * len(self.blocks)

    kinds = PriorFittedNetwork, Alone
    right, wrong = (random_learner(kind, standardize=standardize) for kind in kinds)
    for learner in (right, wrong):
        learner.compile(loss="mse")
    episode = random_episode()
    targets = tf.one_hot(episode.query_y, 3, dtype=tf.float64)
    check_meta_gradients(right, wrong, episode=Episode(*episode[:3], targets))


# ---------------------------------------------------------------- who sees whom


def check_alone(learner):
    """A query's answer is the same whatever other queries stand beside it."""
    x, y, queries = table()
    predict = learner.adapt(x, y)
    together = predict(queries)
    each = np.concatenate([predict(query[np.newaxis]) for query in queries])
    np.testing.assert_allclose(together, each, rtol=1e-6, atol=1e-8)
    wild = predict(np.concatenate([queries[:2], 100 * queries[2:]]))
    np.testing.assert_allclose(wild[:2], together[:2], rtol=1e-6, atol=1e-8)


class Together(PriorFittedNetwork):
    """Wrong: queries see each other."""

    def answer(self, kept, query_x):
        scaling, summary = kept
        tokens = self.token(query_x, scaling)
        for block, memory in zip(self.blocks, summary, strict=True):
            tokens = block(tokens, tf.concat([memory, tokens], axis=1))
        return self.head(self.norm(tokens))


class ByQueries(PriorFittedNetwork):
    """Wrong: queries are standardised by themselves."""

    def answer(self, kept, query_x):
        (_, _, share), summary = kept
        mean, spread = (f(query_x, 1, keepdims=True) for f in (tf.reduce_mean, tf.math.reduce_std))
        return super().answer(((mean, 1 / (spread + 1e-6), share), summary), query_x)


def test_no_query_sees_another(float64):
    check_alone(random_learner())
    for wrong in (Together, ByQueries):
        with pytest.raises(AssertionError):
            check_alone(random_learner(wrong))


def test_neither_order_nor_units_matter(float64):
    learner, (x, y, queries) = random_learner(), table()
    expected = learner.adapt(x, y)(queries)
    order, units, zero = np.random.default_rng(1).permutation(9), [0.01, 3], [7, -2]
    found = learner.adapt(x[order], y[order])(queries)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    found = learner.adapt(units * x + zero, y)(units * queries + zero)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    as_it_is = random_learner(standardize=False)
    gap = as_it_is.adapt(units * x, y)(units * queries) - as_it_is.adapt(x, y)(queries)
    assert np.abs(gap).max() > 1e-3


def test_a_column_that_does_not_vary_is_none(float64):
    """Padding by a constant is padding by nothing, whatever a query has there."""
    learner, (x, y, queries) = random_learner(), table()
    more = [np.concatenate([v, np.full((len(v), 1), 4.0)], axis=1) for v in (x, queries)]
    more[1][0, 2] = 9.0
    found = learner.adapt(more[0], y)(more[1])
    np.testing.assert_allclose(found, learner.adapt(x, y)(queries), rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------- what it refuses


def test_what_does_not_fit_is_refused():
    learner, (x, y, _) = random_learner(), table()
    with pytest.raises(ValueError, match=r"shape \(9, 4\); allowed are at most 3 columns"):
        learner.adapt(np.ones((9, 4)), y)
    with pytest.raises(ValueError, match=r"shape \(4, 3\); allowed are the 2 columns"):
        learner.adapt(x, y)(np.ones((4, 3)))
    with pytest.raises(ValueError, match="from 1 to 3; allowed are 0 to 2"):
        learner.adapt(x, np.tile([1, 2, 3], 3))
    with pytest.raises(ValueError, match="integer labels"):
        learner.adapt(x, y / 2)
    with pytest.raises(ValueError, match="heads must divide units, which is 6; got 4"):
        PriorFittedNetwork(units=6, heads=4)
