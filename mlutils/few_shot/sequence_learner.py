"""What learners that read examples one after the other have in common."""

import math

import tensorflow as tf

from mlutils.checks import check_count
from mlutils.classes import check_range
from mlutils.compiled import as_graph
from mlutils.few_shot.encoder_learner import EncoderLearner, embedding_shape


class SequenceLearner(EncoderLearner):
    """A learner that reads the support set in the order given.

    A subclass defines ``summarize``, ``answer``, ``empty_summary`` and ``answer_sequence``.
    The learner can be called, and so trained by ``fit``, in two ways: on ``(support_x, support_y,
    query_x)`` like any other, and on a sequence ``(x, y)``, where it predicts every label just
    before it reads it (``predict_sequence``).

    Labels are ``(S,)`` integers 0..outputs-1, or ``(S, outputs)`` numbers.  Other numbers of shots
    than in training work, and fewer ways; the number of outputs is fixed.

    Args:
        encoder: as for ``EncoderLearner``.
        outputs: the number of classes N, or for a regression the length of a target.
    """

    def __init__(self, encoder, outputs, **kwargs):
        super().__init__(encoder, **kwargs)
        self.features = math.prod(embedding_shape(encoder))
        self.outputs = check_count("outputs", outputs)

    def empty_summary(self):
        """The summary of one task before anything was read, as ``summarize`` gives it."""
        raise NotImplementedError(f"{type(self).__name__} does not define empty_summary.")

    def answer_sequence(self, embeddings, labels):
        """Predict each label of a sequence from what stands before it.

        Args:
            embeddings: ``(tasks, T, features)``.
            labels: ``(tasks, T, ...)``.

        Returns:
            Predictions ``(tasks, T, outputs)``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define answer_sequence.")

    def call(self, inputs, training=None):
        """As ``MetaLearner.call``, or ``predict_sequence`` if the inputs are two."""
        if isinstance(inputs, (tuple, list)) and len(inputs) == 2:
            return self.predict_sequence(*inputs)
        return super().call(inputs, training)

    def predict_sequence(self, x, y):
        """Predict the labels of sequences, each just before it is read.

        The prediction for the n-th drawing of a class is thus an (n - 1)-shot one.  Example t is
        predicted as ``adapt`` on the first t - 1 examples predicts it, if the encoder embeds an
        example whatever stands beside it.

        Args:
            x: ``(tasks, T, ...)``.
            y: labels ``(tasks, T)``, or targets ``(tasks, T, outputs)``.

        Returns:
            Predictions ``(tasks, T, outputs)``.
        """
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        ranks = x.shape.rank, y.shape.rank
        fit = None in ranks or (min(ranks) > 1 and x.shape[:2].is_compatible_with(y.shape[:2]))
        if not fit or x.shape[1] == 0:
            raise ValueError(
                f"The sequences have shape {x.shape} and their labels {y.shape}; allowed are "
                "(tasks, T, ...) and (tasks, T, ...), T at least 1."
            )
        self.check_tasks(x, y)
        return self.solve_sequence(x, y)

    @as_graph
    def solve_sequence(self, x, y):
        """``predict_sequence`` of tensors."""
        return self.answer_sequence(self.embed(x), y)

    def check_tasks(self, support_x, support_y):
        super().check_tasks(support_x, support_y)
        self.as_vectors(support_y)

    def unadapted(self):
        """The predictor that has read nothing."""
        return lambda query_x: self.answer(self.empty_summary(), self.embed_one(query_x))[0]

    def logits(self):
        return True

    def as_vectors(self, labels):
        """Integer labels as one-hot, numbers as they are: ``(tasks, S, outputs)``."""
        outputs = self.outputs
        if labels.dtype.is_integer and labels.shape.rank in (2, None):
            check_range(labels, outputs)
            if not tf.executing_eagerly():
                message = f"The labels must be 0 to {outputs - 1}: there are {outputs} outputs."
                tf.debugging.assert_non_negative(labels, message)
                tf.debugging.assert_less(labels, tf.cast(outputs, labels.dtype), message)
            return tf.one_hot(tf.cast(labels, tf.int32), outputs, dtype=self.compute_dtype)
        if labels.dtype.is_floating and labels.shape.is_compatible_with([None, None, outputs]):
            return tf.cast(labels, self.compute_dtype)
        raise ValueError(
            f"support_y has shape {labels.shape[1:]} and dtype {labels.dtype.name}; allowed are "
            f"(S,) integers from 0 to {outputs - 1} and (S, {outputs}) floats."
        )

    def get_config(self):
        return {**super().get_config(), "outputs": self.outputs}
