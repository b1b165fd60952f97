"""A recurrent network that reads the support set: learning in the activations."""

import keras
import tensorflow as tf

from mlutils.checks import check_count
from mlutils.episodes import check_range, shape_of
from mlutils.few_shot.encoder_learner import EncoderLearner


@keras.saving.register_keras_serializable(package="mlutils")
class RecurrentLearner(EncoderLearner):
    """An LSTM that adapts by reading (Hochreiter, Younger & Conwell, ICANN 2001).

    Adapting changes no weight: what is learned of a task is the LSTM's state, an *internal*
    memory.  The LSTM reads the support set as a sequence of examples with their labels
    (:eq:`eq-recurrent-state`); every query then takes one more step from the state that is left,
    for itself and without a label (:eq:`eq-recurrent-prediction`).
    A classifier's answers are logits: compile with
    ``SparseCategoricalCrossentropy(from_logits=True)``.

    Labels ``support_y`` are ``(S,)`` integers 0..outputs-1, or ``(S, outputs)`` numbers.  The
    order of the support set matters.  Other numbers of shots than in training work; the number of
    outputs is fixed.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened; it is used and trained in place.
        outputs: the number of classes N, or for a regression the length of a target.
        units: of the LSTM.

    Raises:
        TypeError: if ``encoder`` is not a Keras model.
        ValueError: if it is not built, holds a trainable ``BatchNormalization`` or has an output of
            unknown length; if ``outputs`` or ``units`` is not a positive integer.
    """

    def __init__(self, encoder, outputs, units=64, **kwargs):
        super().__init__(encoder, **kwargs)
        shape = shape_of(encoder, "output_shape")
        if shape is None or not shape[1:].is_fully_defined():
            raise ValueError(
                "The encoder's output must have a known length: pass a Sequential or functional "
                f"model; got output shape {shape}."
            )
        self.outputs = check_count("outputs", outputs)
        self.memory = keras.layers.LSTM(check_count("units", units), return_state=True)
        self.head = keras.layers.Dense(self.outputs)
        self.memory.build((None, None, shape[1:].num_elements() + self.outputs))
        self.head.build((None, self.memory.units))

    def summarize(self, support, labels):
        """The LSTM's state after reading the support set in the order given
        (:eq:`eq-recurrent-state`): two tensors ``(tasks, units)``, output and cell."""
        examples = tf.concat([support, self.as_vectors(labels)], axis=2)
        _, *state = self.memory(examples)
        return state

    def answer(self, summary, queries):
        """Each query's own step from that state (:eq:`eq-recurrent-prediction`)."""
        shape = tf.shape(queries)
        no_label = tf.zeros((shape[0], shape[1], self.outputs), queries.dtype)
        steps = tf.concat([queries, no_label], axis=2)

        def for_each_query(state):
            return tf.broadcast_to(state[:, tf.newaxis], (shape[0], shape[1], self.memory.units))

        def rows(values):
            return tf.reshape(values, (shape[0] * shape[1], values.shape[2]))

        states = [rows(for_each_query(state)) for state in summary]
        output, _ = self.memory.cell(rows(steps), states)
        return tf.reshape(self.head(output), (shape[0], shape[1], self.outputs))

    def unadapted(self):
        """One step from the empty memory."""
        nothing = [tf.zeros((1, self.memory.units), self.compute_dtype)] * 2
        return lambda query_x: self.answer(nothing, self.embed_one(query_x))[0]

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
        return {**super().get_config(), "outputs": self.outputs, "units": self.memory.units}
