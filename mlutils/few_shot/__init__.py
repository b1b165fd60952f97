"""Metrics and memories: the code of the chapter ``chapters/few_shot``."""

from mlutils.few_shot.encoder_learner import EncoderLearner
from mlutils.few_shot.prototypical import PrototypicalNetwork
from mlutils.few_shot.recurrent import RecurrentLearner

__all__ = ["EncoderLearner", "PrototypicalNetwork", "RecurrentLearner"]
