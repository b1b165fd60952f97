"""Families of tasks, sampled in graph as ``tf.data`` pipelines of episodes."""

from mlutils.data.braille import braille, handwritten_braille
from mlutils.data.characters import Characters
from mlutils.data.colour import in_colour
from mlutils.data.described import ClassSplit, Described
from mlutils.data.diacritics import diacritics
from mlutils.data.digits import digits
from mlutils.data.folder import Pictures, folder, picture
from mlutils.data.gaussian_process import GaussianProcess
from mlutils.data.glyphs import glyphs
from mlutils.data.lake import lake_runs, official_lake_runs, read_lake_runs
from mlutils.data.linear import LinearGaussian
from mlutils.data.network_training import NetworkTraining
from mlutils.data.omniglot import omniglot
from mlutils.data.quadratics import Quadratics
from mlutils.data.sampling import episodes
from mlutils.data.sinusoids import sinusoids
from mlutils.data.table import Scaling, TableTasks, table

__all__ = [
    "Characters",
    "ClassSplit",
    "Described",
    "GaussianProcess",
    "LinearGaussian",
    "NetworkTraining",
    "Pictures",
    "Quadratics",
    "Scaling",
    "TableTasks",
    "braille",
    "diacritics",
    "digits",
    "episodes",
    "folder",
    "glyphs",
    "handwritten_braille",
    "in_colour",
    "lake_runs",
    "official_lake_runs",
    "omniglot",
    "picture",
    "read_lake_runs",
    "sinusoids",
    "table",
]
