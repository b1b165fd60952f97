"""A recurrent network that reads the support set: learning in the activations."""

import keras
import tensorflow as tf

from mlutils.checks import check_count
from mlutils.episodes import check_range, check_support, shape_of
from mlutils.few_shot.prototypical import flat
from mlutils.learner import MetaLearner
from mlutils.networks import check_network


@keras.saving.register_keras_serializable(package="mlutils")
class RecurrentLearner(MetaLearner):
    """An LSTM that adapts by reading (Hochreiter, Younger & Conwell, ICANN 2001).

    Adapting changes no weight: what is learned of a task is the LSTM's state, an *internal*
    memory.  The LSTM reads the support set as a sequence of examples with their labels
    (:eq:`eq-recurrent-state`); every query then takes one more step from the state that is left,
    for itself and without a label (:eq:`eq-recurrent-prediction`).

    The order of the support set matters.  Other numbers of shots than in training work; the
    number of outputs is fixed.

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
        super().__init__(**kwargs)
        check_network(encoder, "encoder")
        shape = shape_of(encoder, "output_shape")
        if shape is None or not shape[1:].is_fully_defined():
            raise ValueError(
                "The encoder's output must have a known length: pass a Sequential or functional "
                f"model; got output shape {shape}."
            )
        self.encoder = encoder
        self.outputs_per_query = check_count("outputs", outputs)
        self.cell = keras.layers.LSTMCell(check_count("units", units))
        self.head = keras.layers.Dense(self.outputs_per_query)
        self.cell.build((None, shape[1:].num_elements() + self.outputs_per_query))
        self.head.build((None, self.cell.units))
        self.built = True

    def adapt(self, support_x, support_y):
        """Read one task's support set, in the order given (:eq:`eq-recurrent-state`).

        Args:
            support_x: ``(S, ...)``.
            support_y: ``(S,)`` integers 0..outputs-1, or ``(S, outputs)`` numbers.

        Returns:
            A predictor from query inputs ``(Q, ...)`` to logits or numbers ``(Q, outputs)``.

        Raises:
            ValueError: if the support set is empty, or its labels do not fit.
        """
        support_x, support_y = tf.convert_to_tensor(support_x), tf.convert_to_tensor(support_y)
        check_support(support_x, support_y, self.encoder)
        labels = self.as_vectors(support_y)
        examples = tf.concat([self.embed(support_x), labels], axis=1)
        state = self.empty_memory()
        for example in tf.split(examples, examples.shape[0]):
            _, state = self.cell(example, state)
        return lambda query_x: self.predict_from(state, query_x)

    def unadapted(self):
        """One step from the empty memory."""
        return lambda query_x: self.predict_from(self.empty_memory(), query_x)

    def predict_from(self, state, query_x):
        """Each query's own step from ``state`` (:eq:`eq-recurrent-prediction`)."""
        queries = self.embed(query_x)
        number = tf.shape(queries)[0]
        no_label = tf.zeros((number, self.outputs_per_query), queries.dtype)
        states = [tf.broadcast_to(s, (number, self.cell.units)) for s in state]
        output, _ = self.cell(tf.concat([queries, no_label], axis=1), states)
        return self.head(output)

    def embed(self, x):
        return flat(self.encoder(x, training=False))

    def empty_memory(self):
        return [tf.zeros((1, self.cell.units), self.compute_dtype)] * 2

    def as_vectors(self, labels):
        """Integer labels ``(S,)`` as one-hot, numbers as they are: ``(S, outputs)``."""
        outputs = self.outputs_per_query
        if labels.dtype.is_integer:
            check_range(labels, outputs)
            return tf.one_hot(labels, outputs, dtype=self.compute_dtype)
        if labels.shape.rank != 2 or labels.shape[1] != outputs:
            raise ValueError(
                f"support_y has shape {labels.shape} and dtype {labels.dtype.name}; allowed are "
                f"(S,) integers from 0 to {outputs - 1} and (S, {outputs}) numbers."
            )
        return tf.cast(labels, self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "outputs": self.outputs_per_query,
            "units": self.cell.units,
        }

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})
