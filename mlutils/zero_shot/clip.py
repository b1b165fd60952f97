"""Contrastive training of images and descriptions: each of a batch finds its partner."""

import keras
import tensorflow as tf

from mlutils.classes import class_means, cosines, true_class
from mlutils.zero_shot.prototypes import DescribedPrototypes

LARGEST = 100.0  # the scale never exceeds it, as in the paper


@keras.saving.register_keras_serializable(package="mlutils")
class CLIP(DescribedPrototypes):
    """Contrastive language-image pre-training (Radford et al., ICML 2021).

    One network embeds images, another descriptions; a query's logits are the cosines of its
    embedding with those of the descriptions, times a scale that is learned, ``scale`` to begin
    with (:eq:`eq-clip-score`).  Compile with ``InfoNCE()``, and ``fit`` on episodes with one query
    for each class: the batches of the paper, without its repeated classes.

    Args:
        encoder: as for ``EncoderLearner``.
        describer: a built Keras model from descriptions ``(batch, length)`` to embeddings
            ``(batch, features)``.  A description may be a row of attributes, or the numbers of a
            sentence's words: floats, exact up to 2**24 (float16: 2048, bfloat16: 256).
        scale: what cosines are multiplied by at the start; 1/0.07, as in the paper.  Training
            multiplies it by the exponential of a weight, ``log_gain``, up to 100.

    Example:
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        >>> learner = mlutils.CLIP(encoder, describer=encoder, scale=10.0)
        >>> predict = learner.adapt([[1.0, 0.0], [0.0, 1.0]])
        >>> predict([[3.0, 0.0]]).numpy().round(2).tolist()  # ten times the cosines
        [[10.0, 0.0]]
    """

    def __init__(self, encoder, describer, scale=1 / 0.07, **kwargs):
        super().__init__(encoder, describer, scale, **kwargs)
        self.log_gain = self.add_weight(shape=(), initializer="zeros", name="log_gain")

    def summarize(self, descriptions, labels):
        """The classes' embeddings ``(tasks, N, features)``; of several descriptions the mean.

        They are averaged at length one, as the paper's sentences about one class are.
        """
        embedded = self.class_vectors(tf.cast(descriptions, self.compute_dtype))
        return class_means(tf.math.l2_normalize(embedded, axis=-1), labels)

    def answer(self, summary, queries):
        """The logits ``(tasks, Q, N)`` (:eq:`eq-clip-score`)."""
        gain = tf.exp(tf.convert_to_tensor(self.log_gain))
        scale = tf.minimum(self.scale * gain, LARGEST)
        alike = cosines(queries, summary)
        return tf.cast(scale, alike.dtype) * alike


@keras.saving.register_keras_serializable(package="mlutils")
class InfoNCE(keras.losses.Loss):
    """Which description goes with an image, and which image with a description (:eq:`eq-infonce`).

    The mean of two cross-entropies, of a query's own class among the classes, and of the query
    among those of other classes and itself (van den Oord, Li & Vinyals, 2018, called one of the
    two InfoNCE; Radford et al., ICML 2021, take both).  With one query for each class it is the
    paper's; other queries of a query's own class count as neither.

    Targets ``(..., Q)`` are integers 0..N-1, predictions ``(..., Q, N)`` logits.

    Example:
        >>> loss = mlutils.InfoNCE()
        >>> y = tf.constant([[0, 1]])
        >>> round(float(loss(y, tf.zeros((1, 2, 2)))), 3)  # no idea: log 2
        0.693
        >>> round(float(loss(y, 9.0 * tf.eye(2)[tf.newaxis])), 3)
        0.0
    """

    takes_labels = True

    def call(self, y_true, y_pred):
        own = true_class(y_true, y_pred)
        right = tf.reduce_sum(own * y_pred, axis=-1)
        never = tf.constant(y_pred.dtype.min, y_pred.dtype)
        others = tf.reduce_logsumexp(tf.where(own > 0, never, y_pred), axis=-2, keepdims=True)
        rivals = tf.reduce_sum(own * others, axis=-1)  # of a query, in its own class's column
        of_image = tf.reduce_logsumexp(y_pred, axis=-1) - right
        return (of_image + tf.nn.softplus(rivals - right)) / 2
