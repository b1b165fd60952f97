"""Metrics and memories: the code of the chapter ``chapters/few_shot``."""

from mlutils.few_shot.prototypical import PrototypicalNetwork
from mlutils.few_shot.recurrent import RecurrentLearner

__all__ = ["PrototypicalNetwork", "RecurrentLearner"]
