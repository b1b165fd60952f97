"""A network that is fitted to a prior: it reads a small table and classifies further rows."""

import keras
import tensorflow as tf

from mlutils.compiled import as_graph
from mlutils.door.numbers import check_count, check_flag
from mlutils.door.tasks import assert_labels, check_labels, one_task, sizes_of
from mlutils.few_shot.context_transformer import Block
from mlutils.learner import MetaLearner

LARGEST = 5.0  # of a standardised number


@keras.saving.register_keras_serializable(package="mlutils")
class PriorFittedNetwork(MetaLearner):
    """A transformer over the rows of a table (Müller et al. 2022, Hollmann et al. 2023).

    A row with its label becomes a token, and so does a row without one.  The tokens of the support
    set attend to each other; a query's token attends to these, and no query sees another.  There
    is no code for positions: the order of the rows does not matter.

    Its tasks are drawn from a prior.  The mean loss on the queries is then the distance from the
    posterior predictive (:eq:`eq-posterior-predictive`), and a constant
    (:eq:`eq-prior-fitted-loss`).

    Labels ``support_y`` are ``(S,)`` integers 0..classes-1.  Tables may have fewer columns than
    ``features``, fewer classes, and other numbers of rows than in training.

    Args:
        features: the most columns of a table; fewer are padded with zeros.
        classes: the most classes, and the number of logits.
        units: length of a token.
        heads: of each attention; divides ``units``.
        blocks: attention and two dense layers each.
        standardize: take off each column's mean over the support set, divide by its standard
            deviation there, and cut at 5, of a query's numbers too; then make up for missing
            columns by a factor, ``sqrt(features / columns that vary)``.

    Example:
        >>> learner = mlutils.PriorFittedNetwork(features=5, classes=3, units=8, heads=2)
        >>> predict = learner.adapt([[0.0, 5.0], [1.0, 6.0], [2.0, 9.0]], [0, 1, 1])
        >>> tuple(predict([[0.5, 5.0], [2.0, 8.0]]).shape)  # two columns, of five that it could be
        (2, 3)
    """

    def __init__(
        self, features=16, classes=4, units=64, heads=4, blocks=4, standardize=True, **kwargs
    ):
        super().__init__(**kwargs)
        self.features = check_count("features", features)
        self.ways = check_count("classes", classes)
        self.units, self.heads = check_count("units", units), check_count("heads", heads)
        if self.units % self.heads:
            raise ValueError(f"heads must divide units, which is {units}; got {heads}.")
        self.standardize = check_flag("standardize", standardize)
        self.row, self.label = keras.layers.Dense(self.units), keras.layers.Dense(self.units)
        self.blocks = [
            Block(self.units, self.heads, name=f"block_{i}")
            for i in range(check_count("blocks", blocks))
        ]
        self.norm, self.head = keras.layers.LayerNormalization(), keras.layers.Dense(self.ways)
        self.row.build((None, None, self.features))
        self.label.build((None, None, self.ways))
        for part in (*self.blocks, self.norm, self.head):
            part.build((None, None, self.units))
        self.built = True

    @one_task
    def adapt(self, support_x, support_y):
        """Read one table.

        Args:
            support_x: ``(S, columns)``, at most ``features`` columns.
            support_y: ``(S,)`` integers 0..classes-1.

        Returns:
            A predictor from ``(Q, columns)`` to logits ``(Q, classes)``.

        Raises:
            ValueError: if there are more columns or classes, or queries have other columns.
        """
        kept = self.keep(support_x, support_y)
        return lambda query_x: self.recall(kept, query_x)

    def keep(self, support_x, support_y):
        """What the queries need of one table: its columns' scaling, and each block's tokens."""
        return self.summarize(support_x[tf.newaxis], support_y[tf.newaxis])

    def recall(self, kept, query_x):
        """Logits ``(Q, classes)``."""
        return self.answer(kept, query_x[tf.newaxis])[0]

    @as_graph
    def solve(self, support_x, support_y, query_x):
        """Logits ``(tasks, Q, classes)``."""
        return self.answer(self.summarize(support_x, support_y), query_x)

    def summarize(self, support_x, support_y):
        """The scaling of the columns, ``(tasks, 1, columns)`` twice, and as many tensors ``(tasks,
        S, units)`` as there are blocks."""
        x = tf.cast(support_x, self.compute_dtype)
        scaling = scaling_of(x, self.features) if self.standardize else no_scaling(x)
        tokens = self.token(x, scaling) + self.label(self.one_hot(support_y))
        summary = [tokens]
        for block in self.blocks[:-1]:
            summary.append(block(summary[-1], summary[-1]))
        return scaling, summary

    def answer(self, kept, query_x):
        """Logits ``(tasks, Q, classes)``."""
        scaling, summary = kept
        tokens = self.token(tf.cast(query_x, self.compute_dtype), scaling)
        for block, memory in zip(self.blocks, summary, strict=True):
            tokens = block(tokens, memory)
        return tf.cast(self.head(self.norm(tokens)), self.compute_dtype)

    def token(self, x, scaling):
        """Rows ``(tasks, n, columns)`` as ``(tasks, n, units)``."""
        mean, factor, share = scaling
        if not x.shape[2:].is_compatible_with(mean.shape[2:]):
            raise ValueError(
                f"query_x has shape {x.shape[1:]}; allowed are the {mean.shape[2]} columns that "
                "support_x has."
            )
        x = (x - mean) * factor
        if self.standardize:
            x = share * tf.clip_by_value(x, -LARGEST, LARGEST)
        x = tf.pad(x, [[0, 0], [0, 0], [0, self.features - sizes_of(x)[2]]])
        return self.row(tf.ensure_shape(x, [None, None, self.features]))

    def one_hot(self, labels):
        if not tf.executing_eagerly():
            labels = assert_labels("support_y", labels, self.ways)
        return tf.one_hot(tf.cast(labels, tf.int32), self.ways, dtype=self.compute_dtype)

    # ------------------------------------------------------------ what the door asks

    def sees(self):
        return (tf.TensorShape([None]),) * 2

    def check_tasks(self, support_x, support_y):
        columns = support_x.shape[2]
        if columns is not None and columns > self.features:
            raise ValueError(
                f"support_x has shape {support_x.shape[1:]}; allowed are at most {self.features} "
                "columns, the features of this network: choose some, or make fewer of them."
            )
        if not support_y.dtype.is_integer or support_y.shape.rank not in (2, None):
            raise ValueError(
                f"The labels of a task have shape {support_y.shape[1:]} and dtype "
                f"{support_y.dtype.name}; classes need (S,) integer labels 0..N-1."
            )
        check_labels("support_y", support_y, self.ways)

    def target(self):
        return tf.TensorSpec([], tf.int32)

    def predicts(self):
        return tf.TensorShape([self.ways])

    def classes(self, support_y):
        return self.ways

    def logits(self):
        return True

    def get_config(self):
        sizes = {"units": self.units, "heads": self.heads, "blocks": len(self.blocks)}
        table = {"features": self.features, "classes": self.ways, "standardize": self.standardize}
        return {**super().get_config(), **table, **sizes}


def scaling_of(x, features):
    """Mean and factor of each column ``(tasks, 1, columns)``, and a factor for all, of rows
    ``(tasks, S, columns)``; a column that does not vary becomes 0."""
    mean = tf.reduce_mean(x, axis=1, keepdims=True)
    spread = tf.math.reduce_std(x, axis=1, keepdims=True)
    varies = spread > 1e-6 * (1 + tf.abs(mean))
    columns = tf.reduce_sum(tf.cast(varies, x.dtype), axis=2, keepdims=True)
    share = tf.sqrt(features / tf.maximum(columns, 1))
    return mean, tf.where(varies, 1 / spread, tf.zeros_like(spread)), share


def no_scaling(x):
    """As ``scaling_of``, where numbers stay as they are."""
    first = x[:, :1]
    return tf.zeros_like(first), tf.ones_like(first), tf.ones_like(first[:, :, :1])
