"""Zero shots: recognise classes from a description, without an example."""

from mlutils.zero_shot.clip import CLIP, InfoNCE
from mlutils.zero_shot.dap import DAP
from mlutils.zero_shot.devise import DeViSE, HingeRankLoss
from mlutils.zero_shot.eszsl import ESZSL
from mlutils.zero_shot.generalized import (
    GeneralizedAccuracy,
    SeenUnseenCurve,
    calibrated,
    class_accuracy,
    generalized_accuracy,
    harmonic_mean,
    seen_unseen_curve,
)
from mlutils.zero_shot.learner import ZeroShotLearner
from mlutils.zero_shot.prototypes import DescribedPrototypes

__all__ = [
    "CLIP",
    "DAP",
    "ESZSL",
    "DeViSE",
    "DescribedPrototypes",
    "GeneralizedAccuracy",
    "HingeRankLoss",
    "InfoNCE",
    "SeenUnseenCurve",
    "ZeroShotLearner",
    "calibrated",
    "class_accuracy",
    "generalized_accuracy",
    "harmonic_mean",
    "seen_unseen_curve",
]
