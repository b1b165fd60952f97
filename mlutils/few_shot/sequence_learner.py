"""What learners that read examples one after the other have in common."""

import math

import tensorflow as tf

from mlutils.adapted import target_of
from mlutils.compiled import as_graph
from mlutils.door.numbers import check_count
from mlutils.door.tasks import assert_labels, check_labels, predictor, read_support
from mlutils.few_shot.encoder_learner import EncoderLearner, embedding_shape
from mlutils.networks import mixes_examples


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

    Example:
        >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
        >>> learner = mlutils.RecurrentLearner(encoder, outputs=3, units=8)  # one of them
        >>> x, y = np.eye(4)[np.newaxis], np.array([[0, 1, 2, 2]])
        >>> tuple(learner((x, y)).shape)  # each label is predicted before it is read
        (1, 4, 3)
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
        return self.solve_sequence(*inputs) if len(inputs) == 2 else self.solve(*inputs)

    def checked_inputs(self, inputs):
        """As ``MetaLearner``; and two, ``(x, y)`` of sequences."""
        if isinstance(inputs, (tuple, list)) and len(inputs) == 2:
            self.check_sequences()
            return read_support(self, *inputs)
        return super().checked_inputs(inputs)

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
        return self((x, y))

    def check_sequences(self):
        """Raise if this learner cannot predict along a sequence."""
        if not self.transductive and mixes_examples(self.encoder):
            raise ValueError(
                "This encoder's embeddings depend on the rest of the batch, as with BatchNorm, and "
                "along a sequence each example would see the later ones: use an encoder without, "
                "or transductive=True."
            )

    @as_graph
    def solve_sequence(self, x, y):
        """``predict_sequence`` of tensors."""
        return self.answer_sequence(self.embed(x), y)

    def check_tasks(self, support_x, support_y):
        labels = support_y.dtype.is_integer and support_y.shape.rank in (2, None)
        if labels:
            check_labels("support_y", support_y, self.outputs)
        elif not (
            support_y.dtype.is_floating
            and support_y.shape.is_compatible_with([None, None, self.outputs])
        ):
            raise ValueError(
                f"support_y of a task has shape {support_y.shape[1:]} and dtype "
                f"{support_y.dtype.name}; allowed are (S,) integers from 0 to {self.outputs - 1} "
                f"and (S, {self.outputs}) floats."
            )

    def classes(self, support_y):
        return self.outputs if support_y.dtype.is_integer else None

    def predicts(self):
        return tf.TensorShape([self.outputs])

    def target(self):
        return target_of(self)

    def prepare(self, element):
        inputs, query_y, *others = element
        if len(inputs) == 3:
            return super().prepare(element)
        x, y = inputs
        if y.dtype.is_integer:
            y, query_y = (assert_labels("y", labels, self.outputs) for labels in (y, query_y))
        return (x, y), query_y, *others

    def unadapted(self):
        """The predictor that has read nothing."""

        def predict(query_x):
            queries = self.embed_queries(None, query_x[tf.newaxis])
            return self.answer(self.empty_summary(), queries)[0]

        return predictor(self, predict)

    def logits(self):
        return True

    def as_vectors(self, labels):
        """Integer labels as one-hot, numbers as they are: ``(tasks, S, outputs)``."""
        if not labels.dtype.is_integer:
            return tf.cast(labels, self.compute_dtype)
        if not tf.executing_eagerly():
            labels = assert_labels("support_y", labels, self.outputs)
        return tf.one_hot(tf.cast(labels, tf.int32), self.outputs, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "outputs": self.outputs}
