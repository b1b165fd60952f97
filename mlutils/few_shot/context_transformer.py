"""A causal transformer over the support set: what was read stays in the context."""

import keras
import tensorflow as tf

from mlutils.door.numbers import check_count
from mlutils.door.tasks import read_queries, read_support
from mlutils.few_shot.sequence_learner import SequenceLearner


@keras.saving.register_keras_serializable(package="mlutils")
class ContextTransformer(SequenceLearner):
    """A transformer that adapts by attending to the examples in its context.

    Each example with its label becomes a token, and a token attends to itself and those before it
    (:eq:`eq-causal-attention`), so that reading one more example changes nothing that was computed
    for the earlier ones.  ``adapt`` computes each block's tokens of the support set; a query is a
    token without a label, attends to these, and no other query sees it.  There is no code for
    positions: only causality lets the order matter.  Mishra, Rohaninejad, Chen & Abbeel (SNAIL,
    ICLR 2018) meta-learned with causal attention, beside convolutions.

    Labels ``support_y`` are ``(S,)`` integers 0..outputs-1, or ``(S, outputs)`` numbers.  Other
    numbers of shots than in training work, and fewer ways; the number of outputs is fixed.

    Args:
        encoder: as for ``EncoderLearner``.
        outputs: the number of classes N, or for a regression the length of a target.
        units: length of a token.
        heads: of each attention; divides ``units``.
        blocks: attention and two dense layers each.

    Example:
        >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
        >>> learner = mlutils.ContextTransformer(encoder, outputs=3, units=8, heads=2)
        >>> predict = learner.adapt(np.eye(4), [0, 1, 2, 2])
        >>> tuple(predict(np.eye(4)).shape)  # four queries, three classes
        (4, 3)
    """

    def __init__(self, encoder, outputs, units=64, heads=4, blocks=2, **kwargs):
        super().__init__(encoder, outputs, **kwargs)
        self.units, self.heads = check_count("units", units), check_count("heads", heads)
        if self.units % self.heads:
            raise ValueError(f"heads must divide units, which is {units}; got {heads}.")
        self.start = self.add_weight(shape=(1, 1, self.units), initializer="normal", name="start")
        self.token = keras.layers.Dense(self.units)
        self.blocks = [
            Block(self.units, self.heads, name=f"block_{i}")
            for i in range(check_count("blocks", blocks))
        ]
        self.norm = keras.layers.LayerNormalization()
        self.head = keras.layers.Dense(self.outputs)
        self.token.build((None, None, self.features + self.outputs))
        for block in self.blocks:
            block.build((None, None, self.units))
        self.norm.build((None, None, self.units))
        self.head.build((None, None, self.units))

    def summarize(self, support, labels):
        """The tokens that each block attends to: as many tensors ``(tasks, 1 + S, units)``, a token
        to start with and one for each example."""
        tokens = self.token(tf.concat([support, self.as_vectors(labels)], axis=2))
        start = tf.repeat(tf.cast(self.start, tokens.dtype), tf.shape(tokens)[0], axis=0)
        tokens = tf.concat([start, tokens], axis=1)
        before = up_to(tf.shape(tokens)[1], tf.shape(tokens)[1])
        summary = [tokens]
        for block in self.blocks[:-1]:
            summary.append(block(summary[-1], summary[-1], before))
        return summary

    def answer(self, summary, queries):
        """Predictions ``(tasks, Q, outputs)`` of tokens that attend to those of the summary."""
        return self.attend(summary, queries)

    def empty_summary(self):
        """One task's tokens when only the starting one is there."""
        return self.summarize(
            tf.zeros((1, 0, self.features), self.compute_dtype),
            tf.zeros((1, 0, self.outputs), self.compute_dtype),
        )

    def answer_sequence(self, embeddings, labels):
        """As ``answer``, where example t attends to the examples before t only."""
        steps = tf.shape(embeddings)[1]
        return self.attend(self.summarize(embeddings, labels), embeddings, up_to(steps, steps + 1))

    def attend(self, summary, queries, mask=None):
        """``answer`` with a mask ``(Q, 1 + S)`` of what each query may see; None for all."""
        tokens = self.query_tokens(queries)
        for block, memory in zip(self.blocks, summary, strict=True):
            tokens = block(tokens, memory, mask)
        return self.head(self.norm(tokens))

    def query_tokens(self, queries):
        shape = tf.shape(queries)
        no_label = tf.zeros((shape[0], shape[1], self.outputs), queries.dtype)
        return self.token(tf.concat([queries, no_label], axis=2))

    def attention(self, support_x, support_y, query_x):
        """What the queries of one task attend to (:eq:`eq-causal-attention`).

        Args:
            support_x, support_y, query_x: one task's.

        Returns:
            Weights ``(blocks, heads, Q, 1 + S)``, the starting token first; each row adds up to
            one.
        """
        support_x, support_y = read_support(self, support_x, support_y, axes=1)
        query_x = read_queries(self, query_x, axes=1)
        support_x, support_y = support_x[tf.newaxis], support_y[tf.newaxis]
        summary = self.summarize(self.embed_support(support_x), support_y)
        queries = self.embed_queries(support_x, query_x[tf.newaxis])
        tokens, weights = self.query_tokens(queries), []
        for block, memory in zip(self.blocks, summary, strict=True):
            weights.append(block.weights_of(tokens, memory)[0])
            tokens = block(tokens, memory)
        return tf.stack(weights)

    def get_config(self):
        sizes = {"units": self.units, "heads": self.heads, "blocks": len(self.blocks)}
        return {**super().get_config(), **sizes}


@keras.saving.register_keras_serializable(package="mlutils")
class Block(keras.layers.Layer):
    """Attention (:eq:`eq-causal-attention`), then two dense layers, each added to its input.

    Args:
        units: length of a token.
        heads: of the attention.
    """

    def __init__(self, units, heads, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(heads, units // heads)
        self.norms = [keras.layers.LayerNormalization() for _ in range(2)]
        self.dense = [keras.layers.Dense(4 * units, "relu"), keras.layers.Dense(units)]

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)
        for norm in self.norms:
            norm.build(input_shape)
        self.dense[0].build(input_shape)
        self.dense[1].build((*input_shape[:-1], self.dense[0].units))

    def call(self, tokens, memory, mask=None):
        """New tokens ``(tasks, n, units)`` that have attended to memory ``(tasks, m, units)``.

        Args:
            tokens, memory: as above.
            mask: ``(n, m)``, what each token may see; None for everything.
        """
        mask = None if mask is None else mask[tf.newaxis]
        seen = self.norms[0](memory)
        tokens += self.attention(self.norms[0](tokens), seen, attention_mask=mask)
        return tokens + self.dense[1](self.dense[0](self.norms[1](tokens)))

    def weights_of(self, tokens, memory):
        """The attention weights ``(tasks, heads, n, m)`` of ``call`` without a mask."""
        normed = [self.norms[0](x) for x in (tokens, memory)]
        return self.attention(*normed, return_attention_scores=True)[1]


def up_to(rows, columns):
    """A mask ``(rows, columns)`` in which row i sees the columns 0 to i."""
    return tf.linalg.band_part(tf.ones((rows, columns), tf.bool), -1, 0)
