"""Beyond the source: the code of the chapter ``chapters/beyond``."""

from mlutils.beyond.along import descent_along, pool_along, ridge_along
from mlutils.beyond.bandits import (
    BernoulliArms,
    InformativeArm,
    expected_rewards,
    greedy_policy,
    histories,
    optimal_policy,
    random_policy,
    thompson_policy,
    ucb_policy,
)
from mlutils.beyond.gaussian_classes import GaussianClasses
from mlutils.beyond.linear_attention import LinearAttention
from mlutils.beyond.low_rank import add_low_rank, low_rank_start
from mlutils.beyond.noisy_sines import noisy_sines, sine_bayes
from mlutils.beyond.policy_gradient import (
    BanditLearner,
    policy_gradient_loss,
    rewards_to_go,
    train_bandit_learner,
)
from mlutils.beyond.prior_fitted import PriorFittedNetwork
from mlutils.beyond.random_tables import RandomTables
from mlutils.beyond.small_tables import class_probabilities, small_tables
from mlutils.beyond.stored import stored_learner

__all__ = [
    "BanditLearner",
    "BernoulliArms",
    "GaussianClasses",
    "InformativeArm",
    "LinearAttention",
    "PriorFittedNetwork",
    "RandomTables",
    "add_low_rank",
    "class_probabilities",
    "descent_along",
    "expected_rewards",
    "greedy_policy",
    "histories",
    "low_rank_start",
    "noisy_sines",
    "optimal_policy",
    "policy_gradient_loss",
    "pool_along",
    "random_policy",
    "rewards_to_go",
    "ridge_along",
    "sine_bayes",
    "small_tables",
    "stored_learner",
    "thompson_policy",
    "train_bandit_learner",
    "ucb_policy",
]
