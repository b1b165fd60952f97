"""One-shot learning: the code of the chapter ``chapters/one_shot``."""

from mlutils.one_shot.hausdorff import ModifiedHausdorff
from mlutils.one_shot.siamese import ContrastiveLoss, PairCrossEntropy, SiameseNetwork
from mlutils.one_shot.views import AverageOverViews, moved, randomly_moved

__all__ = [
    "AverageOverViews",
    "ContrastiveLoss",
    "ModifiedHausdorff",
    "PairCrossEntropy",
    "SiameseNetwork",
    "moved",
    "randomly_moved",
]
