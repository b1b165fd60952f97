"""What learners that change no weight have in common: an encoder, a summary, an answer."""

import math

import tensorflow as tf

from mlutils.classes import class_members
from mlutils.compiled import as_graph
from mlutils.episodes import check_support, shape_of
from mlutils.learner import MetaLearner
from mlutils.networks import WithNetworks, check_network, looping, mixes_examples
from mlutils.vectorize import map_tasks


class EncoderLearner(WithNetworks, MetaLearner):
    """A learner that embeds inputs, summarises the support set, and answers queries from that.

    A subclass defines ``summarize`` and ``answer``, both for a batch of tasks.  A classifier's
    answers are logits: compile with ``SparseCategoricalCrossentropy(from_logits=True)``.
    The encoder sees each set of each task by itself, with ``training=False``: dropout is inert.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened; it is used and trained in place.

    Raises:
        TypeError: if ``encoder`` is not a Keras model.
        ValueError: if it is not built, or holds a trainable ``BatchNormalization``.
    """

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        check_network(encoder, "encoder")
        self.encoder = encoder
        self.built = True

    def summarize(self, support, labels):
        """What is kept of the support sets.

        Args:
            support: embeddings ``(tasks, S, features)``.
            labels: ``(tasks, S, ...)``.

        Returns:
            A nest of tensors, first axis tasks.

        Raises:
            ValueError: if the labels do not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define summarize.")

    def answer(self, summary, queries):
        """Predict from what was kept.

        Args:
            summary: what ``summarize`` returned.
            queries: embeddings ``(tasks, Q, features)``.

        Returns:
            Predictions ``(tasks, Q, outputs)``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define answer.")

    def adapt(self, support_x, support_y):
        """Summarise one task's support set.

        Args:
            support_x: ``(S, ...)``.
            support_y: ``(S, ...)``.

        Returns:
            A predictor from query inputs ``(Q, ...)`` to predictions ``(Q, outputs)``.

        Raises:
            ValueError: if the support set is empty or its labels do not fit.
        """
        support_x, support_y = tf.convert_to_tensor(support_x), tf.convert_to_tensor(support_y)
        self.check_tasks(support_x[tf.newaxis], support_y[tf.newaxis])
        summary = self.summarize(self.embed_one(support_x), support_y[tf.newaxis])
        return lambda query_x: self.answer(summary, self.embed_one(query_x))[0]

    @as_graph
    def solve(self, support_x, support_y, query_x):
        """All tasks' summaries, and their answers."""
        return self.answer(self.summarize(self.embed(support_x), support_y), self.embed(query_x))

    def check_tasks(self, support_x, support_y):
        check_support(support_x.shape[1:], support_y.shape[1:], self.encoder)

    @as_graph
    def embed(self, x):
        """The embeddings ``(tasks, examples, features)`` of ``(tasks, examples, ...)``."""
        return tf.cast(embed(self.encoder, x), self.compute_dtype)

    def embed_one(self, x):
        """The embeddings ``(1, examples, features)`` of one task's ``(examples, ...)``."""
        return tf.cast(flat_embeddings(self.encoder, x)[tf.newaxis], self.compute_dtype)


class ClassLearner(EncoderLearner):
    """An ``EncoderLearner`` that compares queries with the classes of the support set.

    Labels ``support_y`` are ``(S,)`` integers 0..N-1, at least one of each, in any order.  The
    numbers of ways and shots may differ from those in training.
    """

    def check_tasks(self, support_x, support_y):
        super().check_tasks(support_x, support_y)
        class_members(support_y, self.compute_dtype)

    def prepare(self, element):
        """The element with support labels as bools, whose number of classes is a shape."""
        (support_x, support_y, query_x), *others = element
        return (support_x, class_members(support_y, tf.float32) > 0, query_x), *others

    def logits(self):
        return True


def embed(encoder, x):
    """Embed each task's examples by themselves: ``(tasks, n, ...)`` -> ``(tasks, n, features)``."""

    def one_task(examples):
        return flat_embeddings(encoder, examples)

    if not mixes_examples(encoder):
        size = tf.shape(x)
        embeddings = flat_embeddings(encoder, tf.reshape(x, tf.concat([[-1], size[2:]], 0)))
        return tf.reshape(embeddings, (size[0], size[1], embeddings.shape[1]))
    if looping(encoder):  # whose gradient is beyond tf.vectorized_map
        signature = tf.TensorSpec((None, embedding_length(encoder)), encoder.compute_dtype)
        return tf.map_fn(one_task, x, fn_output_signature=signature)
    return map_tasks(one_task, x)


def flat_embeddings(encoder, examples):
    """``(n, ...)`` -> ``(n, features)``."""
    embeddings = encoder(examples, training=False)
    return tf.reshape(embeddings, (tf.shape(embeddings)[0], math.prod(embeddings.shape[1:])))


def embedding_shape(encoder):
    """The shape of one embedding, a list.

    Raises:
        ValueError: if the encoder does not know it.
    """
    shape = shape_of(encoder, "output_shape")
    if shape is None or not shape[1:].is_fully_defined():
        raise ValueError(
            "The encoder's output must have a known length: pass a Sequential or functional "
            f"model; got output shape {shape}."
        )
    return shape[1:].as_list()


def embedding_length(encoder):
    """The length of one embedding, flattened; raises as ``embedding_shape``."""
    return math.prod(embedding_shape(encoder))
