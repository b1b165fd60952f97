"""What policies earn on bandits: by hand, against simulation, and beside the optimum."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.beyond.bandits import beats

TWO = mlutils.BernoulliArms(arms=2)
TOLD = mlutils.InformativeArm(ordinary=10)


def value(family, policy, pulls):
    return mlutils.expected_rewards(family, policy, pulls).sum()


def first_of_equals(family):
    """Greedy, with ties to the arm that comes first."""

    def policy(belief, left):
        means = [a / (a + b) for a, b in belief]
        return np.eye(family.arms)[np.argmax(means)]

    return policy


def test_a_belief_is_the_posterior():
    """eq-beta-belief: by quadrature over the probability, for 3 wins and 2 losses.

    Negative control: without the prior's (1, 1), the share of wins.
    """
    belief = TWO.start
    for won in (1, 0, 1, 1, 0):
        belief = TWO.outcomes(belief, 0)[0 if won else 1][2]
    assert belief == ((4, 3), (1, 1))
    p = (np.arange(10_000) + 0.5) / 10_000
    weight = p**3 * (1 - p) ** 2
    expected = np.sum(p * weight) / np.sum(weight)
    assert abs(TWO.outcomes(belief, 0)[0][0] - expected) < 1e-6
    assert abs(3 / 5 - expected) > 0.02


def test_two_pulls_by_hand():
    """eq-bandit-optimum: 1/2, then 2/3 after a success and the other arm's 1/2 after a failure.

    Thompson's second pull: each arm with the probability that it is the better one, 2/3 and 1/3.
    """
    assert value(TWO, mlutils.optimal_policy(TWO), 2) == pytest.approx(1 / 2 + (2 / 3 + 1 / 2) / 2)
    won = 2 / 3 * 2 / 3 + 1 / 3 * 1 / 2
    lost = 1 / 3 * 1 / 3 + 2 / 3 * 1 / 2
    thompson = value(TWO, mlutils.thompson_policy(TWO), 2)
    assert thompson == pytest.approx(1 / 2 + (won + lost) / 2)


def test_the_table_of_twenty_pulls():
    """The optimum is 12.43; Thompson 11.94 in issue 24, exactly 11.93; random 10."""
    found = {
        "optimal": value(TWO, mlutils.optimal_policy(TWO), 20),
        "greedy": value(TWO, mlutils.greedy_policy(TWO), 20),
        "thompson": value(TWO, mlutils.thompson_policy(TWO), 20),
        "random": value(TWO, mlutils.random_policy(TWO), 20),
    }
    expected = {"optimal": 12.4313, "greedy": 12.3654, "thompson": 11.9318, "random": 10}
    assert found == pytest.approx(expected, abs=1e-4)
    assert value(TWO, first_of_equals(TWO), 20) == pytest.approx(12.3311, abs=1e-4)


def test_the_optimum_is_what_its_values_say_and_no_policy_beats_it():
    """eq-bandit-optimum against 2^6 ways to choose in three pulls (first arm: no matter)."""
    best = mlutils.optimal_policy(TWO)
    assert value(TWO, best, 3) == pytest.approx(best.values(TWO.start, 3).max())
    found = []
    for first, *plan in itertools.product(range(2), repeat=6):

        def policy(belief, left, first=first, plan=plan):
            pulls = [(arm, a, b) for arm, (a, b) in enumerate(belief) if a + b > 2]
            if left == 3:
                return np.eye(2)[first]
            if left == 2:
                return np.eye(2)[plan[pulls[0][1] - 1]]
            key = sum(a - 1 for _, a, _ in pulls)  # how many were won: some policies only
            return np.eye(2)[plan[2 + key]]

        found.append(value(TWO, policy, 3))
    assert max(found) <= value(TWO, best, 3) + 1e-12
    assert min(found) < value(TWO, best, 3) - 0.05


@pytest.mark.parametrize(
    ("policy", "width"), [("thompson", None), ("greedy", None), ("ucb", 0.4), ("optimal", None)]
)
def test_exact_values_are_those_of_simulation(policy, width):
    """Runs drawn one by one, with the arms' probabilities and not with beliefs."""
    make = getattr(mlutils, f"{policy}_policy")
    policy = make(TWO) if width is None else make(TWO, width)
    draws, total = np.random.default_rng(0), []
    for _ in range(4000):
        chances, belief, won = draws.uniform(size=2), TWO.start, 0
        for left in range(8, 0, -1):
            arm = draws.choice(2, p=policy(belief, left))
            lucky = draws.uniform() < chances[arm]
            belief, won = TWO.outcomes(belief, arm)[0 if lucky else 1][2], won + lucky
        total.append(won)
    error = np.std(total) / np.sqrt(len(total))
    assert abs(np.mean(total) - value(TWO, policy, 8)) < 4 * error < 0.2


def test_which_beta_is_larger():
    """By hand 1/2 and 2/3, and by quadrature."""
    assert beats(3, 4, 3, 4) == pytest.approx(1 / 2)
    assert beats(2, 1, 1, 1) == pytest.approx(2 / 3)
    p = (np.arange(2000) + 0.5) / 2000
    density = lambda a, b: p ** (a - 1) * (1 - p) ** (b - 1)  # noqa: E731
    one, other = density(4, 2), density(2, 3)
    below = np.cumsum(other) - other / 2
    expected = np.sum(one * below) / one.sum() / other.sum()
    assert beats(4, 2, 2, 3) == pytest.approx(expected, abs=1e-5)


def test_ucb_by_hand():
    """eq-ucb: means 1/2 and 1 of two and one pulls, log 3 = 1.0986."""
    belief = ((2, 2), (2, 1))
    policy = mlutils.ucb_policy(TWO, width=2.0)
    assert 1 / 2 + 2 * np.sqrt(1.0986 / 2) < 1 + 2 * np.sqrt(1.0986)
    assert policy(belief, 1).tolist() == [0, 1]
    belief = ((2, 1), (9, 5))  # 1 of 1, 8 of 12: wide, then narrow
    assert mlutils.ucb_policy(TWO, width=0.0)(belief, 1).tolist() == [1, 0]
    belief = ((1, 2), (9, 5))  # 0 of 1
    assert mlutils.ucb_policy(TWO, width=0.0)(belief, 1).tolist() == [0, 1]
    assert mlutils.ucb_policy(TWO, width=3.0)(belief, 1).tolist() == [1, 0]
    assert mlutils.ucb_policy(TWO)(TWO.start, 1).tolist() == [0.5, 0.5]
    one = TWO.outcomes(TWO.start, 0)[0][2]
    assert mlutils.ucb_policy(TWO)(one, 1).tolist() == [0, 1]  # never pulled


def test_an_informative_arm_by_hand():
    """One pull at 0.55 on average, and four at 5; greedy finds the target at each pull in one of
    ten tasks; ten ordinary arms pay 1.49 on average.

    Thompson never takes the informative arm: it is the best in no task.
    """
    assert value(TOLD, mlutils.optimal_policy(TOLD), 5) == pytest.approx(0.55 + 4 * 5)
    assert mlutils.optimal_policy(TOLD)(TOLD.start, 5).argmax() == 10
    found = [k * 1.1 + (5 - k) * 5 for k in range(5)]  # after k pulls of others
    greedy = sum(found) / 10 + 5 * 1.1 / 2
    assert value(TOLD, mlutils.greedy_policy(TOLD), 5) == pytest.approx(greedy) == 11.35
    thompson = mlutils.thompson_policy(TOLD)
    assert thompson(TOLD.start, 5)[10] == 0
    assert value(TOLD, thompson, 5) == pytest.approx(greedy)
    one = (5 + 9 * 1.1 + 0.55) / 11
    assert value(TOLD, mlutils.random_policy(TOLD), 5) == pytest.approx(5 * one)
    assert mlutils.optimal_policy(TOLD)(TOLD.start, 1)[10] == 0  # no pull left to use it


def test_all_histories_of_two_pulls():
    """Two arms, two rewards, twice: 16; the chances sum to one for each choice of arms."""
    arms, rewards, chances = mlutils.histories(TWO, 2)
    assert arms.shape == rewards.shape == (16, 2) and chances.sum() == pytest.approx(4)
    same = (arms[:, 0] == 0) & (arms[:, 1] == 0) & (rewards.sum(axis=1) == 2)
    assert chances[same] == pytest.approx(1 / 3)  # the mean of p squared
    arms, _, chances = mlutils.histories(TOLD, 1)
    assert chances.sum() == pytest.approx(11) and np.sum(arms == 10) == 10


@pytest.mark.parametrize("prior", [(1, 1), (5, 1), (2, 3)])
def test_draws_have_the_priors_moments(prior):
    """Mean a / (a + b), and the variance of a Beta; rewards have the mean that was drawn."""
    (a, b), n = prior, 40_000
    family = mlutils.BernoulliArms(2, prior)
    tasks = family.draw(n, seed=3)
    deviation = np.sqrt(a * b / (a + b + 1)) / (a + b)
    assert abs(np.mean(tasks) - a / (a + b)) < 4 * deviation / np.sqrt(2 * n)
    assert np.std(tasks) == pytest.approx(deviation, rel=0.02)
    arm = tf.ones(n, tf.int32)
    paid = family.pull(tasks, arm, seed=4).numpy()
    assert abs(np.mean(paid - tasks[:, 1])) < 4 * 0.5 / np.sqrt(n)
    assert set(np.unique(paid)) == {0, 1}
    regrets = family.regrets(tasks, arm[:, None])[:, 0]
    np.testing.assert_allclose(regrets, np.max(tasks, 1) - tasks[:, 1], atol=1e-6)


def test_an_informative_arm_pays_what_its_outcomes_say():
    tasks = TOLD.draw(2000, seed=1)
    assert set(np.unique(tasks)) == set(range(10))
    np.testing.assert_allclose(TOLD.pull(tasks, tf.fill(2000, 10)), (tasks.numpy() + 1) / 10)
    np.testing.assert_allclose(TOLD.pull(tasks, tasks), 5)
    np.testing.assert_allclose(TOLD.pull(tasks, (tasks + 1) % 10), 1.1)
    np.testing.assert_allclose(TOLD.regrets(tasks, tasks[:, None]), 0)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="arms must be an integer of at least 2, got 1"):
        mlutils.BernoulliArms(arms=1)
    with pytest.raises(ValueError, match="prior"):
        mlutils.BernoulliArms(prior=(0.5, 0.5))
    with pytest.raises(ValueError, match="two integers"):
        mlutils.BernoulliArms(prior=(1, 1, 1))
    with pytest.raises(ValueError, match=r"low must be at least 1 and below high, got 0.5 and 5"):
        mlutils.InformativeArm(low=0.5)
    with pytest.raises(TypeError, match="InformativeArm"):
        mlutils.ucb_policy(TOLD)
    with pytest.raises(ValueError, match="width"):
        mlutils.ucb_policy(TWO, width=-1)
    with pytest.raises(ValueError, match="pulls"):
        mlutils.expected_rewards(TWO, mlutils.greedy_policy(TWO), 0)
    with pytest.raises(ValueError, match="two arms"):
        mlutils.thompson_policy(mlutils.BernoulliArms(3))(((1, 1),) * 3, 1)
