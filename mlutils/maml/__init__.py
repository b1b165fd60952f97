"""Model-agnostic meta-learning: the code of the chapter ``chapters/maml``."""

from mlutils.maml.maml import MAML

__all__ = ["MAML"]
