"""A recurrent network with an external memory: a table that it writes to and looks things up in."""

import keras
import tensorflow as tf

from mlutils.classes import cosines
from mlutils.door.numbers import check_count, check_finite
from mlutils.few_shot.recurrent import RecurrentLearner
from mlutils.few_shot.sequence_learner import SequenceLearner


@keras.saving.register_keras_serializable(package="mlutils")
class MANN(RecurrentLearner):
    """Memory-augmented neural network (Santoro, Bartunov, Botvinick, Wierstra & Lillicrap, 2016).

    An LSTM reads the examples as in ``RecurrentLearner``, each with the label before it
    (:eq:`eq-delayed-labels`); beside it stands a ``MemoryCell``'s
    table, an *external* memory, whose size is independent of the number of weights.  It is
    addressed by content (:eq:`eq-memory-read`) and written where it was read last or is used
    least (:eq:`eq-memory-write`).

    Args:
        encoder, outputs, units: as for ``RecurrentLearner``.
        slots: rows of the table.
        width: length of a row.
        heads: how many places are written and read in one step, at most ``slots``.
        decay: gamma, from 0 to 1, how slowly use is forgotten (:eq:`eq-memory-usage`).

    Example:
        >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
        >>> learner = mlutils.MANN(encoder, outputs=3, units=8, slots=16, width=4)
        >>> predict = learner.adapt(np.eye(4), [0, 1, 2, 2])
        >>> tuple(predict(np.eye(4)).shape)  # four queries, three classes
        (4, 3)
    """

    def __init__(
        self, encoder, outputs, units=64, slots=64, width=32, heads=1, decay=0.95, **kwargs
    ):
        cell = MemoryCell(units, slots, width, heads, decay)
        super().__init__(encoder, outputs, cell=cell, **kwargs)

    def get_config(self):
        cell = self.memory.cell.get_config()
        sizes = {name: cell[name] for name in ("units", "slots", "width", "heads", "decay")}
        return {**SequenceLearner.get_config(self), **sizes}

    @classmethod
    def from_config(cls, config):
        return super(RecurrentLearner, cls).from_config(config)


@keras.saving.register_keras_serializable(package="mlutils")
class MemoryCell(keras.layers.Layer):
    """One step of a ``MANN``: a Keras RNN cell.

    The state is ``[output and cell of the LSTM, memory (slots, width), read weights
    (heads, slots), usage (slots,)]``, each with a leading batch axis.

    Args:
        units, slots, width, heads, decay: as for ``MANN``.

    Example:
        >>> cell = mlutils.few_shot.mann.MemoryCell(units=8, slots=16, width=4)
        >>> output, state = cell(tf.zeros((5, 3)), cell.get_initial_state(batch_size=5))
        >>> [tuple(part.shape) for part in state]
        [(5, 8), (5, 8), (5, 16, 4), (5, 1, 16), (5, 16)]
    """

    def __init__(self, units=64, slots=64, width=32, heads=1, decay=0.95, **kwargs):
        super().__init__(**kwargs)
        self.units, self.slots = check_count("units", units), check_count("slots", slots)
        self.width, self.heads = check_count("width", width), check_count("heads", heads)
        self.decay = check_finite("decay", decay)
        if self.heads > self.slots:
            raise ValueError(f"heads must be at most slots, which is {slots}; got {heads}.")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, got {decay!r}.")
        self.output_size = self.units + self.heads * self.width
        table, reading = (self.slots, self.width), (self.heads, self.slots)
        self.state_size = [(self.units,), (self.units,), table, reading, (self.slots,)]
        self.controller = keras.layers.LSTMCell(self.units)
        self.key = keras.layers.Dense(self.heads * self.width, activation="tanh")
        self.strength = keras.layers.Dense(self.heads, activation="softplus")
        self.gate = keras.layers.Dense(self.heads, activation="sigmoid")

    def build(self, input_shape):
        self.controller.build((None, input_shape[-1] + self.heads * self.width))
        for layer in (self.key, self.strength, self.gate):
            layer.build((None, self.units))

    def get_initial_state(self, batch_size=None):
        """Zeros: nothing stored, nothing read, nothing used."""
        return [tf.zeros((batch_size, *size), self.compute_dtype) for size in self.state_size]

    def call(self, inputs, states, training=None):
        """Write, then read.

        Args:
            inputs: ``(batch, features)``.
            states: as above.

        Returns:
            The LSTM's output and what was read, ``(batch, units + heads * width)``, and the
            new states.
        """
        output, cell, memory, reading, usage = states
        rows = tf.concat([inputs, self.flat(reading @ memory)], axis=1)
        output, (_, cell) = self.controller(rows, [output, cell])
        keys = tf.reshape(self.key(output), (-1, self.heads, self.width))
        writing, least = self.write_weights(reading, usage, self.gate(output))
        memory = memory * (1 - tf.reduce_sum(least, axis=1))[..., tf.newaxis]
        memory += tf.matmul(writing, keys, transpose_a=True)
        reading = self.read_weights(keys, memory, self.strength(output))
        usage = self.decay * usage + tf.reduce_sum(reading + writing, axis=1)
        result = tf.concat([output, self.flat(reading @ memory)], axis=1)
        return result, [output, cell, memory, reading, usage]

    def read_weights(self, keys, memory, strength):
        """How much of each row is read, by content (:eq:`eq-memory-read`).

        Args:
            keys: ``(batch, heads, width)``.
            memory: ``(batch, slots, width)``.
            strength: beta, ``(batch, heads)``.

        Returns:
            ``(batch, heads, slots)``, adding up to one.
        """
        return tf.nn.softmax(strength[..., tf.newaxis] * cosines(keys, memory))

    def write_weights(self, reading, usage, gate):
        """Where to write (:eq:`eq-memory-write`): what was read last, or what is used least.

        Args:
            reading: the last step's read weights, ``(batch, heads, slots)``.
            usage: ``(batch, slots)``.
            gate: the share of the former, ``(batch, heads)``.

        Returns:
            The write weights ``(batch, heads, slots)``, each head's adding up to one (but to
            ``1 - gate`` before anything was read), and the least-used rows, one for each head, as
            one-hot vectors of the same shape.
        """
        rows = tf.math.top_k(-usage, self.heads).indices
        least = tf.one_hot(rows, self.slots, dtype=usage.dtype)
        gate = gate[..., tf.newaxis]
        return gate * reading + (1 - gate) * least, least

    def flat(self, read):
        return tf.reshape(read, (-1, self.heads * self.width))

    def get_config(self):
        sizes = ("units", "slots", "width", "heads", "decay")
        return {**super().get_config(), **{name: getattr(self, name) for name in sizes}}
