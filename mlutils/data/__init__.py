"""Families of tasks, sampled in graph as ``tf.data`` pipelines of episodes."""

from mlutils.data.characters import Characters
from mlutils.data.glyphs import glyphs
from mlutils.data.linear import LinearGaussian
from mlutils.data.sampling import episodes
from mlutils.data.sinusoids import sinusoids

__all__ = ["Characters", "LinearGaussian", "episodes", "glyphs", "sinusoids"]
