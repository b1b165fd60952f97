"""A recurrent network that reads the support set: learning in the activations."""

import keras
import tensorflow as tf

from mlutils.door.numbers import check_count, check_flag
from mlutils.few_shot.sequence_learner import SequenceLearner


@keras.saving.register_keras_serializable(package="mlutils")
class RecurrentLearner(SequenceLearner):
    """An LSTM that adapts by reading (Hochreiter, Younger & Conwell, ICANN 2001).

    Adapting changes no weight: what is learned of a task is the LSTM's state, an *internal*
    memory.  Each example comes with the label of the one before it (:eq:`eq-delayed-labels`), so
    that reading and predicting are the same step: what comes out beside an example is its
    prediction, and its label follows.  With ``delayed=False`` an example comes with its own label
    (:eq:`eq-recurrent-state`) and a query with none.  Either way a query takes one step from the
    state that is left, for itself (:eq:`eq-recurrent-prediction`).

    Labels ``support_y`` are ``(S,)`` integers 0..outputs-1, or ``(S, outputs)`` numbers.  The
    order of the support set matters.  Other numbers of shots than in training work, and fewer
    ways; the number of outputs is fixed.

    Args:
        encoder: as for ``EncoderLearner``.
        outputs: the number of classes N, or for a regression the length of a target.
        units: of the LSTM.
        delayed: whether labels come one step late, as along a sequence they must.
        cell: any Keras RNN cell in the LSTM's place; ``units`` then has no effect.

    Example:
        >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
        >>> learner = mlutils.RecurrentLearner(encoder, outputs=3, units=8)
        >>> predict = learner.adapt(np.eye(4), [0, 1, 2, 2])
        >>> tuple(predict(np.eye(4)).shape)  # four queries, three classes
        (4, 3)
    """

    def __init__(self, encoder, outputs, units=64, delayed=True, cell=None, **kwargs):
        super().__init__(encoder, outputs, **kwargs)
        self.delayed = check_flag("delayed", delayed)
        cell = cell or keras.layers.LSTMCell(check_count("units", units))
        self.memory = keras.layers.RNN(cell, return_sequences=True, return_state=True)
        self.head = keras.layers.Dense(self.outputs)
        self.memory.build((None, None, self.features + self.outputs))
        self.head.build((None, cell.output_size))

    def summarize(self, support, labels):
        """What is left after reading the support set in the order given: the cell's state
        (:eq:`eq-delayed-labels`, :eq:`eq-recurrent-state`), and the label that is still to be
        read, zeros if there is none; a list of tensors, first axis tasks."""
        labels = self.as_vectors(labels)
        if self.delayed:
            _, *state = self.memory(self.with_labels_before(support, labels))
            return [*state, labels[:, -1]]
        _, *state = self.memory(tf.concat([support, labels], axis=2))
        return [*state, tf.zeros_like(labels[:, -1])]

    def answer(self, summary, queries):
        """Each query's own step from that state (:eq:`eq-recurrent-prediction`)."""
        tasks, count = tf.shape(queries)[0], tf.shape(queries)[1]
        summary = tf.nest.map_structure(lambda rows: tf.repeat(rows, count, axis=0), summary)
        *state, last = summary
        queries = tf.reshape(queries, (tasks * count, self.features))
        output, _ = self.memory.cell(tf.concat([queries, last], axis=1), state)
        return tf.reshape(self.head(output), (tasks, count, self.outputs))

    def empty_summary(self):
        """The empty memory of one task: the cell's initial state and no label."""
        state = self.memory.get_initial_state(1)
        return [*state, tf.zeros((1, self.outputs), self.compute_dtype)]

    def answer_sequence(self, embeddings, labels):
        """One output at each step of reading (:eq:`eq-recurrent-prediction`)."""
        outputs, *_ = self.memory(self.with_labels_before(embeddings, self.as_vectors(labels)))
        return self.head(outputs)

    def check_sequences(self):
        super().check_sequences()
        if not self.delayed:
            raise ValueError(
                "Where an example comes with its own label (delayed=False), no prediction can be "
                "made along a sequence: use delayed=True, or a support set and queries."
            )

    def with_labels_before(self, embeddings, labels):
        """Each embedding with the label before it, zeros before the first."""
        before = tf.pad(labels[:, :-1], [[0, 0], [1, 0], [0, 0]])
        return tf.concat([embeddings, before], axis=2)

    def get_config(self):
        cell = keras.saving.serialize_keras_object(self.memory.cell)
        return {**super().get_config(), "delayed": self.delayed, "cell": cell}

    @classmethod
    def from_config(cls, config):
        cell = keras.saving.deserialize_keras_object(config["cell"])
        return super().from_config({**config, "cell": cell})
