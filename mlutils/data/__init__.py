"""Families of tasks, sampled in graph as ``tf.data`` pipelines of episodes."""

from mlutils.data.sinusoids import sinusoids

__all__ = ["sinusoids"]
