"""Model-agnostic meta-learning: the code of the chapter ``chapters/maml``."""

from mlutils.maml.anil import ANIL
from mlutils.maml.imaml import iMAML
from mlutils.maml.maml import MAML
from mlutils.maml.meta_sgd import MetaSGD
from mlutils.maml.proto_maml import ProtoMAML
from mlutils.maml.reptile import Reptile
from mlutils.maml.tangent_kernel import tangent_kernel

__all__ = ["ANIL", "MAML", "MetaSGD", "ProtoMAML", "Reptile", "iMAML", "tangent_kernel"]
