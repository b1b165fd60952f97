"""One-shot learning: the code of the chapter ``chapters/one_shot``."""

from mlutils.one_shot.hausdorff import ModifiedHausdorff
from mlutils.one_shot.siamese import ContrastiveLoss, PairCrossEntropy, SiameseNetwork

__all__ = ["ContrastiveLoss", "ModifiedHausdorff", "PairCrossEntropy", "SiameseNetwork"]
