"""Bandits as tasks, and what policies earn there, computed exactly.

A *belief* is what is left of a run's pulls that matters for what comes next, in a form that can be
hashed.  A family of bandits has ``start``, the belief before the first pull, and ``outcomes``, what
a pull can bring.  A *policy* is a function ``(belief, left) -> (arms,)``: with ``left`` pulls to
go, how probable each arm is to be pulled.
"""

from collections import defaultdict
from functools import cache
from math import comb, log, sqrt

import numpy as np
import tensorflow as tf

from mlutils.door.numbers import check_count, check_counts, check_finite, check_rate


class BernoulliArms:
    """Arms that pay 1 or nothing, each with a probability of its own, drawn from a Beta.

    A belief is ``((a, b), ...)``, one pair for each arm: given a run, its probability has the
    distribution Beta(a, b) (:eq:`eq-beta-belief`).

    Args:
        arms: how many.
        prior: ``(a, b)``, of the Beta that each arm's probability is drawn from; positive integers.
            (1, 1) is uniform; with (5, 1) most arms pay most of the time.

    Example:
        >>> family = mlutils.BernoulliArms(arms=2)
        >>> family.outcomes(family.start, arm=0)  # (chance, reward, belief) of each
        [(0.5, 1.0, ((2, 1), (1, 1))), (0.5, 0.0, ((1, 2), (1, 1)))]
        >>> tasks = family.draw(tasks=3, seed=0)  # each arm's probability
        >>> tuple(tasks.shape)
        (3, 2)
    """

    def __init__(self, arms=2, prior=(1, 1)):
        self.arms, self.prior = check_count("arms", arms, 2), check_counts("prior", prior)
        if len(self.prior) != 2:
            raise ValueError(f"prior must be two integers (a, b), got {prior!r}.")

    @property
    def start(self):
        return (self.prior,) * self.arms

    def outcomes(self, belief, arm):
        """What a pull can bring: a list of ``(chance, reward, belief)``."""
        a, b = belief[arm]
        after = [(*belief[:arm], new, *belief[arm + 1 :]) for new in ((a + 1, b), (a, b + 1))]
        return [(a / (a + b), 1.0, after[0]), (b / (a + b), 0.0, after[1])]

    def best(self, belief):
        """How probable each arm is to be the best, ``(arms,)``."""
        if self.arms != 2:
            raise ValueError(f"best is exact for two arms, and these are {self.arms}.")
        first = beats(*belief[0], *belief[1])
        return np.array([first, 1 - first])

    def draw(self, tasks, seed):
        """Tasks: each arm's probability, ``(tasks, arms)``, float32."""
        a, b = self.prior
        shape = (
            check_count("tasks", tasks),
            self.arms,
            a + b - 1,
        )  # the a-th smallest of so many is Beta(a, b)
        return tf.sort(tf.random.stateless_uniform(shape, seeds(seed)))[..., a - 1]

    def pull(self, tasks, arm, seed):
        """The rewards ``(tasks,)`` of pulling ``arm``, integers ``(tasks,)``."""
        chance = self.means(tasks, arm)
        uniform = tf.random.stateless_uniform(tf.shape(chance), seeds(seed))
        return tf.cast(uniform < chance, tf.float32)

    def means(self, tasks, arms):
        """The rewards to be expected of ``arms``, ``(tasks,)`` or ``(tasks, pulls)``."""
        return tf.gather(tasks, arms, axis=1, batch_dims=1)

    def regrets(self, tasks, arms):
        """How much less ``arms`` bring on average than the best, ``(tasks, pulls)``."""
        return tf.reduce_max(tasks, axis=1, keepdims=True) - self.means(tasks, arms)


class InformativeArm:
    """Ordinary arms, one of which, the target, pays much; and one that says which (Wang et al.,
    2016, arXiv:1611.05763).

    The target is each of the ordinary arms with equal probability and pays ``high``, the others pay
    ``low``.  The last arm pays i/n, if the target is the i-th of n: never more than others, but
    it tells.  All rewards are certain.  A belief is the tuple of arms that may still be the target.

    Args:
        ordinary: n, how many ordinary arms; there is one more.
        high, low: what the target pays, and what the others; high above low, low at least 1.

    Example:
        >>> family = mlutils.InformativeArm(ordinary=2)
        >>> family.outcomes(family.start, arm=2)  # the informative one
        [(0.5, 0.5, (0,)), (0.5, 1.0, (1,))]
    """

    def __init__(self, ordinary=5, high=5.0, low=1.1):
        self.ordinary = check_count("ordinary", ordinary, 2)
        self.high, self.low = check_finite("high", high), check_finite("low", low)
        if not 1 <= self.low < self.high:
            raise ValueError(f"low must be at least 1 and below high, got {low!r} and {high!r}.")
        self.arms = self.ordinary + 1
        self.start = tuple(range(self.ordinary))

    def outcomes(self, belief, arm):
        """What a pull can bring: a list of ``(chance, reward, belief)``."""
        share = 1 / len(belief)
        if arm == self.ordinary:
            return [(share, (i + 1) / self.ordinary, (i,)) for i in belief]
        others = tuple(i for i in belief if i != arm)
        found = [(share, self.high, (arm,))] if arm in belief else []
        return found + ([(share * len(others), self.low, others)] if others else [])

    def best(self, belief):
        """How probable each arm is to be the best, ``(arms,)``."""
        return np.array([(arm in belief) / len(belief) for arm in range(self.arms)])

    def draw(self, tasks, seed):
        """Tasks: the position of each one's target, ``(tasks,)``, int32."""
        shape = (check_count("tasks", tasks),)
        return tf.random.stateless_uniform(shape, seeds(seed), 0, self.ordinary, tf.int32)

    def pull(self, tasks, arm, seed=None):
        """The rewards ``(tasks,)`` of pulling ``arm``, integers ``(tasks,)``; nothing is random."""
        told = (tf.cast(tasks, tf.float32) + 1) / self.ordinary
        paid = tf.where(tf.equal(arm, tasks), self.high, self.low)
        return tf.where(tf.equal(arm, self.ordinary), told, paid)

    def regrets(self, tasks, arms):
        """How much less ``arms`` bring than the target, ``(tasks, pulls)``."""
        return self.high - self.pull(tasks[:, None], arms)


def seeds(seed, number=0):
    """The pair of integers that TensorFlow's stateless generators want, for one of many draws."""
    if getattr(seed, "shape", ()) == ():
        seed = tf.stack([tf.cast(seed, tf.int32), 0])
    return tf.random.experimental.stateless_fold_in(seed, number)


@cache
def beats(a, b, c, d):
    """The probability that a draw of Beta(a, b) is above one of Beta(c, d), of integers.

    A draw of Beta(c, d) is the c-th smallest of c + d - 1 uniform numbers, so it is below x if at
    least c of them are: a sum over binomials, whose mean over x the Beta function gives.
    """
    n = c + d - 1
    total = a + b + n - 1  # the mean over x of x^j (1-x)^(n-j) is B(a+j, b+n-j) / B(a, b)
    shares = (comb(a + j - 1, j) * comb(b + n - j - 1, n - j) for j in range(c, n + 1))
    return sum(shares) / comb(total, n)


# ---------------------------------------------------------------- policies


def evenly(values):
    """All on the largest value, shared among equals."""
    best = np.asarray(values) >= np.max(values) - 1e-9
    return best / best.sum()


def expected(family, belief):
    """The reward to be expected of each arm's next pull, ``(arms,)``."""
    return np.array(
        [
            sum(chance * reward for chance, reward, _ in family.outcomes(belief, arm))
            for arm in range(family.arms)
        ]
    )


def random_policy(family):
    """Each arm with equal probability."""
    return lambda belief, left: np.full(family.arms, 1 / family.arms)


def greedy_policy(family):
    """The arm whose next pull pays most in expectation; equals share."""
    return lambda belief, left: evenly(expected(family, belief))


def thompson_policy(family):
    """Each arm with the probability that it is the best (Thompson, 1933)."""
    return lambda belief, left: family.best(belief)


def ucb_policy(family, width=2**0.5):
    """The arm with the largest mean so far plus ``width * sqrt(log t / n)`` (:eq:`eq-ucb`).

    t counts all pulls before this one, n those of the arm; an arm that was never pulled comes
    first.  The usual width is the root of 2 (Auer, Cesa-Bianchi & Fischer, 2002).

    Args:
        family: ``BernoulliArms``.
        width: at least 0.
    """
    if not isinstance(family, BernoulliArms):
        raise TypeError(f"family must be BernoulliArms, got {type(family).__name__}.")
    width, (a0, b0) = check_rate("width", width), family.prior

    def policy(belief, left):
        wins = [(a - a0, a - a0 + b - b0) for a, b in belief]
        t = sum(n for _, n in wins)
        return evenly([won / n + width * sqrt(log(t) / n) if n else np.inf for won, n in wins])

    return policy


def optimal_policy(family):
    """The arm with the largest reward to be expected until the end (:eq:`eq-bandit-optimum`).

    Returns:
        A policy; ``policy.values(belief, left)`` gives the expected rewards of each arm's pull and
        of the best pulls after it, ``(arms,)``, with ``left`` pulls, at least 1.  It is a
        recursion of Python: some hundred pulls are the most.

    Example:
        >>> family = mlutils.BernoulliArms(arms=2)
        >>> best = mlutils.optimal_policy(family)
        >>> best.values(family.start, left=2)  # 1/2, then 2/3 or 1/2
        array([1.08333333, 1.08333333])
    """

    @cache
    def value(belief, left):
        return float(np.max(values(belief, left))) if left else 0.0

    def values(belief, left):
        if left < 1:
            raise ValueError(f"left must be at least 1, got {left}.")
        return np.array(
            [
                sum(
                    p * (r + value(after, left - 1)) for p, r, after in family.outcomes(belief, arm)
                )
                for arm in range(family.arms)
            ]
        )

    def policy(belief, left):
        return evenly(values(belief, left))

    policy.values = values
    return policy


# ---------------------------------------------------------------- their value


def expected_rewards(family, policy, pulls):
    """What a policy earns at each pull, exactly: all beliefs that can come up, with their chances.

    Args:
        family: ``BernoulliArms`` or ``InformativeArm``.
        policy: a function of a belief and the number of pulls left, to the probability of each arm.
            It may be made for another family, if that has the same beliefs.
        pulls: T, how many.

    Returns:
        Array ``(pulls,)``; its sum is the policy's value.

    Example:
        >>> family = mlutils.BernoulliArms(arms=2)
        >>> greedy = mlutils.greedy_policy(family)
        >>> round(float(mlutils.expected_rewards(family, greedy, pulls=20).sum()), 2)
        12.37
    """
    pulls = check_count("pulls", pulls)
    beliefs, rewards = {family.start: 1.0}, np.zeros(pulls)
    for t in range(pulls):
        afterwards = defaultdict(float)
        for belief, share in beliefs.items():
            for arm, probability in enumerate(policy(belief, pulls - t)):
                if probability > 0:
                    for chance, reward, after in family.outcomes(belief, arm):
                        weight = share * probability * chance
                        rewards[t] += weight * reward
                        afterwards[after] += weight
        beliefs = afterwards
    return rewards


def histories(family, pulls):
    """All that can happen in so many pulls.

    Args:
        family: ``BernoulliArms`` or ``InformativeArm``.
        pulls: T; the number of histories grows as a power of it.

    Returns:
        ``arms`` and ``rewards``, ``(histories, pulls)``, and ``chances``, ``(histories,)``: how
        probable those rewards are, given those arms.
    """
    found = [((), (), 1.0, family.start)]
    for _ in range(check_count("pulls", pulls)):
        found = [
            ((*arms, arm), (*rewards, reward), share * chance, after)
            for arms, rewards, share, belief in found
            for arm in range(family.arms)
            for chance, reward, after in family.outcomes(belief, arm)
        ]
    arms, rewards, chances, _ = zip(*found, strict=True)
    return np.array(arms), np.array(rewards), np.array(chances)
