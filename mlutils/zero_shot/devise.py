"""DeViSE: map images to where the description of their class lies, by a ranking loss."""

import keras
import tensorflow as tf

from mlutils.classes import true_class
from mlutils.door.numbers import check_positive
from mlutils.few_shot.encoder_learner import embedding_length
from mlutils.zero_shot.learner import TrainedZeroShotLearner


@keras.saving.register_keras_serializable(package="mlutils")
class DeViSE(TrainedZeroShotLearner):
    """Deep visual-semantic embedding (Frome et al., NeurIPS 2013).

    A linear layer maps embeddings into the space of the signatures, which are scaled to length
    one; a class's score is the inner product (:eq:`eq-compatibility`).  Compile with
    ``HingeRankLoss()``, and ``fit`` on examples or on episodes.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened; it is used and trained in place, unless it is frozen
            (``encoder.trainable = False``), as in the paper's first stage.
        attributes: the length of a signature.

    Example:
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        >>> learner = mlutils.DeViSE(encoder, attributes=3)
        >>> predict = learner.adapt(np.eye(3))
        >>> tuple(predict([[0.9, 0.1]]).shape)
        (1, 3)
    """

    def __init__(self, encoder, attributes, **kwargs):
        super().__init__(encoder, attributes, **kwargs)
        self.project = keras.layers.Dense(attributes, use_bias=False, dtype=self.compute_dtype)
        self.project.build((None, None, embedding_length(encoder)))

    def class_vectors(self, signatures):
        """The signatures at length one; one of zeros stays."""
        return tf.math.l2_normalize(signatures, axis=-1)

    def answer(self, summary, queries):
        """The scores ``(tasks, Q, N)`` (:eq:`eq-compatibility`)."""
        return super().answer(summary, self.project(queries))


@keras.saving.register_keras_serializable(package="mlutils")
class HingeRankLoss(keras.losses.Loss):
    """Every other class's score that is not a margin below the true one's (:eq:`eq-hinge-rank`).

    Targets ``(..., Q)`` are integers 0..N-1, predictions ``(..., Q, N)`` scores.

    Args:
        margin: delta in the equation, positive; 0.1 in the paper.

    Example:
        >>> loss = mlutils.HingeRankLoss(margin=0.1)
        >>> scores = tf.constant([[0.9, 0.85, 0.2]])
        >>> round(float(loss(tf.constant([0]), scores)), 3)  # the second is only 0.05 below
        0.05
    """

    takes_labels = True

    def __init__(self, margin=0.1, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_positive("margin", margin)

    def call(self, y_true, y_pred):
        own = true_class(y_true, y_pred)
        right = tf.reduce_sum(own * y_pred, axis=-1, keepdims=True)
        short = tf.maximum(self.margin - right + y_pred, 0)
        return tf.reduce_sum((1 - own) * short, axis=-1)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}
