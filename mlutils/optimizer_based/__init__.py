"""Learned optimizers: the code of the chapter ``chapters/optimizer_based``."""

from mlutils.optimizer_based.baselines import run_optimizer
from mlutils.optimizer_based.learned_optimizer import LearnedOptimizer
from mlutils.optimizer_based.rules import (
    LSTMRule,
    StepSize,
    UpdateRule,
    log_and_sign,
    trained_rule,
)
from mlutils.optimizer_based.unroll import RuleTrainer, step_weights, unroll

__all__ = [
    "LSTMRule",
    "LearnedOptimizer",
    "RuleTrainer",
    "StepSize",
    "UpdateRule",
    "log_and_sign",
    "run_optimizer",
    "step_weights",
    "trained_rule",
    "unroll",
]
