"""The policy gradient: its mean over all histories is exact, and that of wrong ones is not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.beyond.policy_gradient import chosen, losses

TWO = mlutils.BernoulliArms(arms=2)
FAMILIES = {
    "bernoulli": (TWO, 3),
    "informative": (mlutils.InformativeArm(ordinary=2), 2),
}


@pytest.fixture
def learner(float64):
    """A small one whose choices differ from arm to arm and from state to state."""

    def make(arms):
        keras.utils.set_random_seed(1)
        found = mlutils.BanditLearner(arms, units=4)
        for weight in found.trainable_variables:
            weight.assign(
                tf.random.stateless_normal(weight.shape, [weight.shape[0], 3], dtype="float64")
            )
        return found

    return make


def probabilities(learner, arms, rewards, chances):
    """How probable each history is, and the logarithms of the arms' probabilities."""
    log_chances = chosen(learner((arms, rewards))[0], arms)
    return chances * tf.exp(tf.reduce_sum(log_chances, axis=1)), log_chances


def flat(gradients):
    return np.concatenate([np.ravel(g) for g in gradients if g is not None])


def exact_gradient(learner, family, pulls):
    """Of the expected reward: the sum over all histories, differentiated."""
    arms, rewards, chances = mlutils.histories(family, pulls)
    weights = [*learner.cell.trainable_variables, *learner.policy.trainable_variables]
    with tf.GradientTape() as tape:
        shares, _ = probabilities(learner, arms, rewards, chances)
        value = tf.reduce_sum(shares * rewards.sum(axis=1))
    assert np.sum(shares) == pytest.approx(1)
    return flat(tape.gradient(value, weights)), float(value), weights


def mean_estimate(learner, family, pulls, credit=mlutils.rewards_to_go, baseline=None):
    """The mean of the estimate over all histories, each with its probability."""
    arms, rewards, chances = mlutils.histories(family, pulls)
    weights = [*learner.cell.trainable_variables, *learner.policy.trainable_variables]
    with tf.GradientTape() as tape:
        shares, log_chances = probabilities(learner, arms, rewards, chances)
        values = learner((arms, rewards))[1]
        bases = values if baseline is None else baseline(values, rewards)
        loss = mlutils.policy_gradient_loss(log_chances, credit(tf.constant(rewards)), bases)
        mean = tf.reduce_sum(tf.stop_gradient(shares) * loss)
    return -flat(tape.gradient(mean, weights))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_exact_gradient_is_that_of_finite_differences(kind, learner):
    """eq-bandit-objective, eq-bandit-learner: along three directions, in float64."""
    family, pulls = FAMILIES[kind]
    learner = learner(family.arms)
    gradient, _, weights = exact_gradient(learner, family, pulls)
    before, draws = [w.numpy() for w in weights], np.random.default_rng(0)
    for _ in range(3):
        moves = [draws.normal(size=w.shape) for w in weights]
        values = []
        for sign in (1, -1):
            for w, b, move in zip(weights, before, moves, strict=True):
                w.assign(b + sign * 1e-5 * move)
            values.append(exact_gradient(learner, family, pulls)[1])
        slope = (values[0] - values[1]) / 2e-5
        assert slope == pytest.approx(gradient @ flat(moves), rel=1e-6, abs=1e-9)
        for w, b in zip(weights, before, strict=True):
            w.assign(b)


UNBIASED = {
    "rewards to go, the learner's estimate": {},
    "the whole run's reward": {
        "credit": lambda r: tf.repeat(tf.reduce_sum(r, axis=1, keepdims=True), r.shape[1], axis=1)
    },
    "no baseline": {"baseline": lambda values, rewards: tf.zeros_like(values)},
    "a constant": {"baseline": lambda values, rewards: tf.fill(tf.shape(values), np.float64(7))},
    "rewards so far": {
        "baseline": lambda values, rewards: values - tf.cumsum(rewards, axis=1, exclusive=True)
    },
}
BIASED = {
    "its own reward in the baseline": {
        "baseline": lambda values, rewards: tf.cumsum(tf.constant(rewards), axis=1)
    },
    "the run's mean reward as the baseline": {
        "baseline": lambda values, rewards: (
            tf.reduce_mean(rewards, axis=1, keepdims=True) * tf.ones_like(values)
        )
    },
    "the estimate of the state after the pull": {
        "baseline": lambda values, rewards: tf.concat([values[:, 1:], 0 * values[:, :1]], axis=1)
    },
    "its own reward alone": {"credit": lambda rewards: rewards},
}


@pytest.mark.parametrize("how", UNBIASED)
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_estimate_is_unbiased(kind, how, learner):
    """eq-policy-gradient: the mean over all histories is the exact gradient, to rounding."""
    family, pulls = FAMILIES[kind]
    learner = learner(family.arms)
    exact, _, _ = exact_gradient(learner, family, pulls)
    found = mean_estimate(learner, family, pulls, **UNBIASED[how])
    np.testing.assert_allclose(found, exact, atol=1e-10)
    assert np.linalg.norm(exact) > 1e-2


@pytest.mark.parametrize("how", BIASED)
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_baseline_that_knows_the_future_is_caught(kind, how, learner):
    """Negative controls of eq-policy-gradient."""
    family, pulls = FAMILIES[kind]
    learner = learner(family.arms)
    exact, _, _ = exact_gradient(learner, family, pulls)
    found = mean_estimate(learner, family, pulls, **BIASED[how])
    assert np.linalg.norm(found - exact) > 0.02 * np.linalg.norm(exact)


def test_one_pull_by_hand():
    """Arms that pay 1 and 0, probabilities s and 1 - s: dJ/dlogit = s (1 - s), 3/16 at s = 1/4.

    The estimate after pulling the first is (1 - s) (1 - b), after the second s b, for baseline b.
    """
    logits = tf.Variable([[[0.0, np.log(3.0)]], [[0.0, np.log(3.0)]]])
    arms, rewards, baselines = [[0], [1]], tf.constant([[1.0], [0.0]]), tf.fill((2, 1), 0.2)
    with tf.GradientTape() as tape:
        loss = mlutils.policy_gradient_loss(chosen(logits, arms), rewards, baselines)
    slopes = -tape.gradient(loss, logits)[:, 0, 0].numpy()
    np.testing.assert_allclose(slopes, [3 / 4 * 0.8, 1 / 4 * 0.2], atol=1e-6)
    assert 1 / 4 * slopes[0] + 3 / 4 * slopes[1] == pytest.approx(3 / 16, abs=1e-6)


def test_rewards_to_go():
    found = mlutils.rewards_to_go([[1.0, 0.0, 2.0]])
    np.testing.assert_array_equal(found, [[3, 2, 2]])


def test_playing_is_what_the_call_says():
    """Arms are pulled as often as the logits along the same runs say, at each pull."""
    learner, n = mlutils.BanditLearner(2, units=8), 20_000
    for weight in learner.trainable_variables:
        weight.assign(tf.random.stateless_normal(weight.shape, [weight.shape[0], 5]))
    arms, rewards = learner.play(TWO, TWO.draw(n, seed=0), pulls=4, seed=1)
    chances = tf.nn.softmax(learner((arms, rewards))[0])[..., 1].numpy()
    off = np.mean(arms.numpy() - chances, axis=0)
    assert np.all(np.abs(off) < 4 * 0.5 / np.sqrt(n))
    assert np.all(chances[:, 1:].std(axis=0) > 0.003)
    again = learner.play(TWO, TWO.draw(n, seed=0), pulls=4, seed=1)[0]
    other = learner.play(TWO, TWO.draw(n, seed=0), pulls=4, seed=2)[0]
    assert np.array_equal(arms, again) and not np.array_equal(arms, other)


def test_a_pull_is_chosen_from_the_past_alone():
    """Changing a reward changes nothing before it or at it, and something after it."""
    learner = mlutils.BanditLearner(2, units=8)
    arms = tf.zeros((1, 4), tf.int32)
    before = learner((arms, tf.constant([[1.0, 0.0, 0.0, 1.0]])))
    after = learner((arms, tf.constant([[1.0, 1.0, 0.0, 1.0]])))
    for one, other in zip(before, after, strict=True):
        changed = np.abs(one - other).reshape(4, -1).max(axis=1)
        assert np.all(changed[:2] == 0) and np.all(changed[2:] > 0)


def test_the_parts_of_the_loss():
    """Of a single pull, by hand: logits 0 and 0, estimate 0, return -1/2, entropy log 2."""
    learner = mlutils.BanditLearner(2, units=3)
    found = losses(
        learner, tf.constant([[0]]), tf.ones((1, 1)), tf.constant([[-0.5]]), entropy=0.25
    )
    expected = -0.5 * np.log(2) + 0.1 * 0.5**2 / 2 - 0.25 * np.log(2)
    np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_training_learns_to_stay_with_what_wins():
    """Three pulls: from the regret of chance, 1/2, most of the way to the optimum's."""
    keras.utils.set_random_seed(0)
    learner = mlutils.BanditLearner(2, units=8)
    regrets = mlutils.train_bandit_learner(learner, TWO, pulls=3, steps=150, rate=0.03, tasks=64)
    best = mlutils.expected_rewards(TWO, mlutils.optimal_policy(TWO), 3).sum()
    least = 3 * 2 / 3 - best  # the better of two uniform arms has 2/3 on average
    assert abs(regrets[:10].mean() - 0.5) < 0.1
    assert regrets[-30:].mean() < 0.5 - 0.6 * (0.5 - least)


def test_a_saved_learner_plays_the_same(tmp_path):
    learner = mlutils.BanditLearner(3, units=5)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.saving.load_model(tmp_path / "learner.keras")
    history = tf.constant([[0, 2]]), tf.constant([[1.0, 0.0]])
    for one, other in zip(learner(history), loaded(history), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_stored_learners_are_between_rivals_and_optimum():
    """On new tasks: above Thompson on two arms, and above greedy where an arm tells."""
    for name, family, pulls, rival in (
        ("bernoulli", TWO, 20, mlutils.thompson_policy),
        ("informative", mlutils.InformativeArm(), 5, mlutils.greedy_policy),
    ):
        learner, record = mlutils.stored_learner(f"bandit-{name}")
        assert record["pulls"] == pulls
        best, rival = (
            mlutils.expected_rewards(family, make(family), pulls).sum()
            for make in (mlutils.optimal_policy, rival)
        )
        tasks = family.draw(4000, seed=5)
        most = pulls * (2 / 3 if name == "bernoulli" else 5)
        arms, _ = learner.play(family, tasks, pulls, seed=6)
        lost = family.regrets(tasks, arms).numpy().sum(axis=1)
        error = 4 * lost.std() / np.sqrt(len(lost))
        assert rival + error < most - lost.mean() < best + error


def test_wrong_arguments():
    with pytest.raises(ValueError, match="arms must be an integer of at least 2"):
        mlutils.BanditLearner(arms=1)
    learner = mlutils.BanditLearner(2)
    with pytest.raises(ValueError, match="rate must be a finite positive number"):
        mlutils.train_bandit_learner(learner, TWO, pulls=2, steps=1, rate=0)
    with pytest.raises(ValueError, match="3 arms"):
        mlutils.train_bandit_learner(mlutils.BanditLearner(3), TWO, pulls=2, steps=1)
    with pytest.raises(ValueError, match="left must be at least 1, got 0"):
        mlutils.optimal_policy(TWO).values(TWO.start, left=0)


def test_half_precision_plays_and_trains():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        learner = mlutils.BanditLearner(2, units=4)
        regrets = mlutils.train_bandit_learner(learner, TWO, pulls=3, steps=2, tasks=8)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(regrets).all()


def test_a_frozen_learner_is_saved_frozen(tmp_path):
    learner = mlutils.BanditLearner(2, units=4)
    learner.trainable = False
    learner.save(tmp_path / "learner.keras")
    assert not keras.saving.load_model(tmp_path / "learner.keras").trainable
