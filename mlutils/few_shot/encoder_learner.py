"""What learners that change no weight have in common: an encoder, a summary, an answer."""

import math

import keras
import tensorflow as tf

from mlutils.classes import AnyWays
from mlutils.compiled import as_graph
from mlutils.door.networks import check_network, looping
from mlutils.door.numbers import check_flag
from mlutils.door.tasks import one_task, shape_of, sizes_of
from mlutils.learner import MetaLearner
from mlutils.networks import (
    WithNetworks,
    flat_embeddings,
    mixes_examples,
    normalises,
    predict_with,
)
from mlutils.vectorize import map_tasks


class EncoderLearner(WithNetworks, MetaLearner):
    """A learner that embeds inputs, summarises the support set, and answers queries from that.

    A subclass defines ``summarize`` and ``answer``, both for a batch of tasks.  A classifier's
    answers are logits: compile with ``SparseCategoricalCrossentropy(from_logits=True)``.
    The encoder sees each set of each task by itself, with ``training=False``: dropout is inert.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened; it is used and trained in place.
        transductive: whether the encoder sees a task's queries together.  If not, a query is
            answered as if it came alone: an encoder whose embeddings depend on the rest of the
            batch, as with ``BatchNorm``, sees each query beside the support set.  That costs S + 1
            embeddings for each query (and the same for layers that are not Keras's own, which may
            do anything); for other encoders the two are the same.

    Raises:
        TypeError: if ``encoder`` is not a Keras model.
        ValueError: if it is not built, or holds a trainable ``BatchNormalization``.

    Example:
        >>> encoder = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
        >>> class Nearest(mlutils.EncoderLearner):
        ...     def summarize(self, support, labels):
        ...         return support, tf.one_hot(labels, 2)
        ...     def answer(self, summary, queries):
        ...         support, members = summary
        ...         return tf.exp(-tf.abs(queries - tf.linalg.matrix_transpose(support))) @ members
        ...
        >>> print(Nearest(encoder).adapt([[0.0], [5.0]], [0, 1])([[4.0]]).numpy().round(2))
        [[0.02 0.37]]
    """

    def __init__(self, encoder, transductive=False, **kwargs):
        super().__init__(**kwargs)
        mapped = not isinstance(encoder, keras.Model) or mixes_examples(encoder)
        check_network(encoder, "encoder", mapped)
        self.encoder = encoder
        self.transductive = check_flag("transductive", transductive)
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

    @one_task
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
        kept = self.keep(support_x, support_y)
        return lambda query_x: self.recall(kept, query_x)

    def keep(self, support_x, support_y):
        """One task's summary, and ``support_x`` where queries are embedded beside it."""
        summary = self.summarize(self.embed_support(support_x[tf.newaxis]), support_y[tf.newaxis])
        alone = self.transductive or not mixes_examples(self.encoder)
        return (summary,) if alone else (summary, support_x)

    def recall(self, kept, query_x):
        """Answers ``(Q, outputs)`` from the summary, beside the support set if it was kept."""
        summary, *support_x = kept
        support_x = support_x[0][tf.newaxis] if support_x else None
        return self.answer(summary, self.embed_queries(support_x, query_x[tf.newaxis]))[0]

    @as_graph
    def solve(self, support_x, support_y, query_x):
        """All tasks' summaries, and their answers."""
        summary = self.summarize(self.embed_support(support_x), support_y)
        return self.answer(summary, self.embed_queries(support_x, query_x))

    def embed_support(self, support_x):
        """The embeddings ``(tasks, S, features)`` that ``summarize`` takes."""
        return self.embed(support_x)

    def embed_queries(self, support_x, query_x):
        """The embeddings ``(tasks, Q, features)`` of queries, each as if it came alone."""
        if self.transductive or not mixes_examples(self.encoder):
            return self.embed(query_x)
        return self.embed_beside(support_x, query_x)

    @as_graph
    def embed_beside(self, support_x, query_x):
        """The embeddings ``(tasks, Q, features)`` of queries, each beside its support set."""
        if support_x is None and normalises(self.encoder):
            raise ValueError(
                "The encoder holds a BatchNorm, and there are no support examples that a query "
                "could be normalised with: use an encoder without, such as conv4(norm=False), or "
                "transductive=True, which normalises a task's queries together."
            )
        tasks, count, *one = sizes_of(query_x)
        each = tf.reshape(query_x, (tasks * count, 1, *one))
        if support_x is not None:
            each = tf.concat([tf.repeat(support_x, count, axis=0), each], axis=1)
        embeddings = self.embed(each)[:, -1]
        return tf.reshape(embeddings, (tasks, count, embeddings.shape[-1]))

    def sees(self):
        return self.encoder, self.encoder

    def embed(self, x):
        """The embeddings ``(tasks, examples, features)`` of ``(tasks, examples, ...)``."""
        return tf.cast(embed(self.encoder, x), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "transductive": self.transductive}


class ClassLearner(AnyWays, EncoderLearner):
    """An ``EncoderLearner`` that compares queries with the classes of the support set.

    Labels ``support_y`` are ``(S,)`` integers 0..N-1, at least one of each, in any order.  The
    numbers of ways and shots may differ from those in training.
    """

    def target(self):
        return tf.TensorSpec([], tf.int32)


def embed(encoder, x):
    """Embed each task's examples by themselves: ``(tasks, n, ...)`` -> ``(tasks, n, features)``."""

    if x.shape[0] == 1:
        return flat_embeddings(encoder, x[0])[tf.newaxis]
    if not mixes_examples(encoder):
        tasks, examples, *one = sizes_of(x)
        embeddings = flat_embeddings(encoder, tf.reshape(x, (-1, *one)))
        return tf.reshape(embeddings, (tasks, examples, embeddings.shape[1]))
    # Read before the map: within it, a layer that is a tf.function would not be trained.
    weights = [tf.convert_to_tensor(v) for v in encoder.trainable_variables]

    def one_task(examples):
        return flat_embeddings(lambda x, training: predict_with(encoder, weights, x), examples)

    if looping(encoder):  # whose gradient is beyond tf.vectorized_map
        signature = tf.TensorSpec((None, embedding_length(encoder)), encoder.compute_dtype)
        return tf.map_fn(one_task, x, fn_output_signature=signature)
    return map_tasks(one_task, x)


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
