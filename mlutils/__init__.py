"""mlutils: the methods of meta-learning behind the course *Learning to Learn*.

Every few-shot method is one thing here: *adapt on a support set, then predict
on queries*.  Public names are importable from ``mlutils``; each chapter's are listed in the
``__init__`` of its room.
"""

from mlutils import _tensorflow  # noqa: F401, I001  must come first: it silences the import

from mlutils import (
    beyond,
    data,
    few_shot,
    maml,
    one_shot,
    optimizer_based,
    plot,
    practice,
    zero_shot,
)
from mlutils.beyond import *
from mlutils.controls import controls
from mlutils.episodes import Episode
from mlutils.evaluation import Score, SplitScore, evaluate, predictions, score
from mlutils.exercises import judge
from mlutils.few_shot import *
from mlutils.inner_loop import StepSize, UpdateRule, descend
from mlutils.learner import MetaLearner
from mlutils.losses import gaussian_nll
from mlutils.maml import *
from mlutils.networks import BatchNorm, conv4, mlp
from mlutils.one_shot import *
from mlutils.optimizer_based import *
from mlutils.practice import pretrained_backbone
from mlutils.results import stored_result
from mlutils.resume import fit_or_resume
from mlutils.session import setup
from mlutils.tuning import Tuning, tune
from mlutils.vectorize import map_tasks
from mlutils.workers import join_workers
from mlutils.zero_shot import *

__version__ = "0.1.0"

__all__ = [
    "BatchNorm",
    "Episode",
    "MetaLearner",
    "Score",
    "SplitScore",
    "StepSize",
    "Tuning",
    "UpdateRule",
    "controls",
    "conv4",
    "data",
    "descend",
    "evaluate",
    "fit_or_resume",
    "gaussian_nll",
    "join_workers",
    "judge",
    "map_tasks",
    "mlp",
    "plot",
    "practice",
    "predictions",
    "pretrained_backbone",
    "score",
    "setup",
    "stored_result",
    "tune",
    *beyond.__all__,
    *few_shot.__all__,
    *maml.__all__,
    *one_shot.__all__,
    *optimizer_based.__all__,
    *zero_shot.__all__,
]
