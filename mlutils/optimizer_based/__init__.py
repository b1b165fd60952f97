"""Learned optimizers: the code of the chapter ``chapters/optimizer_based``."""

from mlutils.inner_loop import StepSize, UpdateRule
from mlutils.optimizer_based.baselines import run_optimizer
from mlutils.optimizer_based.learned_optimizer import LearnedOptimizer
from mlutils.optimizer_based.rules import (
    AdamRule,
    LSTMRule,
    MLPRule,
    MomentumRule,
    log_and_sign,
    trained_rule,
)
from mlutils.optimizer_based.unroll import RuleTrainer, step_weights, unroll

__all__ = [
    "AdamRule",
    "LSTMRule",
    "LearnedOptimizer",
    "MLPRule",
    "MomentumRule",
    "RuleTrainer",
    "StepSize",
    "UpdateRule",
    "log_and_sign",
    "run_optimizer",
    "step_weights",
    "trained_rule",
    "unroll",
]
