"""Metrics and memories: the code of the chapter ``chapters/few_shot``."""

from mlutils.few_shot.context_transformer import ContextTransformer
from mlutils.few_shot.encoder_learner import EncoderLearner
from mlutils.few_shot.mann import MANN
from mlutils.few_shot.matching import MatchingNetwork
from mlutils.few_shot.neural_process import ConditionalNeuralProcess
from mlutils.few_shot.prototypical import PrototypicalNetwork
from mlutils.few_shot.recurrent import RecurrentLearner
from mlutils.few_shot.relation import RelationNetwork
from mlutils.few_shot.sequence_learner import SequenceLearner
from mlutils.few_shot.trained import trained_learner

__all__ = [
    "MANN",
    "ConditionalNeuralProcess",
    "ContextTransformer",
    "EncoderLearner",
    "MatchingNetwork",
    "PrototypicalNetwork",
    "RecurrentLearner",
    "RelationNetwork",
    "SequenceLearner",
    "trained_learner",
]
