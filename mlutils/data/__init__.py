"""Families of tasks, sampled in graph as ``tf.data`` pipelines of episodes."""

from mlutils.data.braille import braille, handwritten_braille
from mlutils.data.characters import Characters
from mlutils.data.described import ClassSplit, Described
from mlutils.data.diacritics import diacritics
from mlutils.data.digits import digits
from mlutils.data.gaussian_process import GaussianProcess
from mlutils.data.glyphs import glyphs
from mlutils.data.lake import lake_runs, official_lake_runs, read_lake_runs
from mlutils.data.linear import LinearGaussian
from mlutils.data.network_training import NetworkTraining
from mlutils.data.omniglot import omniglot
from mlutils.data.quadratics import Quadratics
from mlutils.data.sampling import episodes
from mlutils.data.sinusoids import sinusoids

__all__ = [
    "Characters",
    "ClassSplit",
    "Described",
    "GaussianProcess",
    "LinearGaussian",
    "NetworkTraining",
    "Quadratics",
    "braille",
    "diacritics",
    "digits",
    "episodes",
    "glyphs",
    "handwritten_braille",
    "lake_runs",
    "official_lake_runs",
    "omniglot",
    "read_lake_runs",
    "sinusoids",
]
