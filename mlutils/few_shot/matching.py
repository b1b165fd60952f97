"""Matching networks: every support example votes, those that look alike most."""

import keras
import tensorflow as tf

from mlutils.classes import class_members, cosines
from mlutils.door.numbers import check_positive
from mlutils.few_shot.encoder_learner import ClassLearner


@keras.saving.register_keras_serializable(package="mlutils")
class MatchingNetwork(ClassLearner):
    """Matching network (Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra, NeurIPS 2016).

    A query attends to the support examples by the cosines of the embeddings
    (:eq:`eq-cosine-attention`), and the labels of those it attends to are its prediction
    (:eq:`eq-matching`).  The predictions are logarithms of these probabilities, which are logits
    too: compile with ``SparseCategoricalCrossentropy(from_logits=True)``.  The paper's optional
    "full context embeddings", in which the examples' embeddings depend on one another, are left
    out.

    Args:
        encoder: as for ``EncoderLearner``.
        scale: what the cosines are multiplied by, positive; 1 in the paper.  With 1 no example
            can outweigh another by more than e², and 5-way 1-shot no probability exceeds .65.

    Example:
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        >>> learner = mlutils.MatchingNetwork(encoder, scale=1.0)
        >>> predict = learner.adapt([[1.0, 0.0], [0.0, 1.0]], [0, 1])
        >>> print(np.exp(predict([[3.0, 0.0]])).round(2))  # of cosines 1 and 0
        [[0.73 0.27]]
    """

    def __init__(self, encoder, scale=1.0, **kwargs):
        super().__init__(encoder, **kwargs)
        self.scale = check_positive("scale", scale)

    def summarize(self, support, labels):
        """The embeddings ``(tasks, S, features)`` and one-hot labels ``(tasks, S, N)``."""
        return support, class_members(labels, support.dtype)

    def answer(self, summary, queries):
        """The logarithms ``(tasks, Q, N)`` of the probabilities (:eq:`eq-matching`)."""
        support, of_class = summary
        log_attention = self.log_attention(support, queries)[..., tf.newaxis]  # (tasks, Q, S, 1)
        mine = of_class[:, tf.newaxis] > 0  # (tasks, 1, S, N)
        lowest = tf.constant(log_attention.dtype.min, log_attention.dtype)
        return tf.reduce_logsumexp(tf.where(mine, log_attention, lowest), axis=2)

    def log_attention(self, support, queries):
        """The logarithms ``(tasks, Q, S)`` of the attention (:eq:`eq-cosine-attention`).

        Args:
            support: embeddings ``(tasks, S, features)``.
            queries: embeddings ``(tasks, Q, features)``.
        """
        return tf.nn.log_softmax(self.scale * cosines(queries, support))

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}
