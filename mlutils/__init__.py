"""mlutils: the methods of meta-learning behind the course *Learning to Learn*.

Every few-shot method is one thing here: *adapt on a support set, then predict
on queries*.  Public names are importable from ``mlutils``.
"""

from mlutils import _tensorflow  # noqa: F401, I001  must come first: it silences the import

from mlutils import data, plot
from mlutils.episodes import Episode
from mlutils.evaluation import Score, SplitScore, controls, evaluate
from mlutils.exercises import judge
from mlutils.few_shot import (
    MANN,
    ConditionalNeuralProcess,
    ContextTransformer,
    EncoderLearner,
    MatchingNetwork,
    PrototypicalNetwork,
    RecurrentLearner,
    RelationNetwork,
    SequenceLearner,
    gaussian_nll,
    trained_learner,
)
from mlutils.learner import MetaLearner
from mlutils.maml import ANIL, MAML, MetaSGD, Reptile, iMAML
from mlutils.networks import BatchNorm, conv4, mlp
from mlutils.one_shot import (
    ContrastiveLoss,
    ModifiedHausdorff,
    PairCrossEntropy,
    SiameseNetwork,
)
from mlutils.optimizer_based import (
    LearnedOptimizer,
    LSTMRule,
    RuleTrainer,
    StepSize,
    UpdateRule,
    run_optimizer,
    trained_rule,
    unroll,
)
from mlutils.session import setup
from mlutils.zero_shot import (
    DAP,
    ESZSL,
    DeViSE,
    DescribedPrototypes,
    HingeRankLoss,
    Generalized,
    SeenUnseenCurve,
    ZeroShotLearner,
    calibrated,
    class_accuracy,
    generalized_accuracy,
    harmonic_mean,
    seen_unseen_curve,
)

__version__ = "0.1.0"

__all__ = [
    "ANIL",
    "DAP",
    "ESZSL",
    "MAML",
    "MANN",
    "BatchNorm",
    "ConditionalNeuralProcess",
    "ContextTransformer",
    "ContrastiveLoss",
    "DeViSE",
    "DescribedPrototypes",
    "EncoderLearner",
    "Episode",
    "Generalized",
    "HingeRankLoss",
    "LSTMRule",
    "LearnedOptimizer",
    "MatchingNetwork",
    "MetaLearner",
    "MetaSGD",
    "ModifiedHausdorff",
    "PairCrossEntropy",
    "PrototypicalNetwork",
    "RecurrentLearner",
    "RelationNetwork",
    "Reptile",
    "RuleTrainer",
    "Score",
    "SeenUnseenCurve",
    "SequenceLearner",
    "SiameseNetwork",
    "SplitScore",
    "StepSize",
    "UpdateRule",
    "ZeroShotLearner",
    "calibrated",
    "class_accuracy",
    "controls",
    "conv4",
    "data",
    "evaluate",
    "gaussian_nll",
    "generalized_accuracy",
    "harmonic_mean",
    "iMAML",
    "judge",
    "mlp",
    "plot",
    "run_optimizer",
    "seen_unseen_curve",
    "setup",
    "trained_learner",
    "trained_rule",
    "unroll",
]
