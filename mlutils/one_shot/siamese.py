"""Siamese networks: learn from pairs whether two inputs are of one class."""

import keras
import tensorflow as tf

from mlutils.classes import class_members, true_class
from mlutils.door.numbers import check_option, check_positive
from mlutils.few_shot.encoder_learner import ClassLearner, embedding_length

COMPARISONS = ("distance", "weighted")
TINY = 1e-12  # no squared distance is less: the square root has no derivative at 0


@keras.saving.register_keras_serializable(package="mlutils")
class SiameseNetwork(ClassLearner):
    """Siamese network (Bromley, Guyon, LeCun, Säckinger & Shah, NeurIPS 1993).

    One encoder embeds both inputs of a pair, and a pair's score says how much they are of one
    class.  A query's score for a class is the best of its pairs with the class's support
    examples.  Compile with the loss that goes with the comparison:

    * ``"distance"``: minus the Euclidean distance (:eq:`eq-pair-distance`), with
      ``ContrastiveLoss``;
    * ``"weighted"``: the log-odds of Koch, Zemel & Salakhutdinov (2015), a learned weighting of
      how far each feature differs, with a bias (:eq:`eq-siamese`), with ``PairCrossEntropy``.
      Before training it ranks like the city-block distance.

    With several shots the losses see each class's best pair only.

    Args:
        encoder: as for ``EncoderLearner``.
        comparison: ``"distance"`` or ``"weighted"``.

    Example:
        >>> encoder = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
        >>> learner = mlutils.SiameseNetwork(encoder)
        >>> predict = learner.adapt([[0.0], [5.0]], [0, 1])
        >>> predict([[1.0]]).numpy().round(3).tolist()  # minus the distances
        [[-1.0, -4.0]]
    """

    def __init__(self, encoder, comparison="distance", **kwargs):
        super().__init__(encoder, **kwargs)
        self.comparison = check_option("comparison", comparison, COMPARISONS)
        if comparison == "weighted":
            features = embedding_length(encoder)
            start = keras.initializers.Constant(-1 / features)
            self.weigh = keras.layers.Dense(1, kernel_initializer=start, dtype=self.compute_dtype)
            self.weigh.build((None, features))

    def summarize(self, support, labels):
        """The embeddings ``(tasks, S, features)`` and one-hot labels ``(tasks, S, N)``."""
        return support, class_members(labels, support.dtype)

    def answer(self, summary, queries):
        """Each class's best score ``(tasks, Q, N)``."""
        support, of_class = summary
        scores = self.compare(queries[:, :, tf.newaxis], support[:, tf.newaxis])
        mine = of_class[:, tf.newaxis] > 0  # (tasks, 1, S, N)
        lowest = tf.constant(scores.dtype.min, scores.dtype)
        return tf.reduce_max(tf.where(mine, scores[..., tf.newaxis], lowest), axis=2)

    def compare(self, left, right):
        """The scores of pairs of embeddings (:eq:`eq-pair-distance` or :eq:`eq-siamese`).

        Args:
            left, right: ``(..., features)``, broadcast against each other.

        Returns:
            ``(...)``, high for one class.
        """
        if self.comparison == "weighted":
            apart = tf.abs(left - right)
            # Flat: with more axes Keras 3.13, which Colab has, meets TensorFlow's issue 117700.
            flat = self.weigh(tf.reshape(apart, (-1, apart.shape[-1])))
            return tf.reshape(flat, tf.shape(apart)[:-1])
        squares = tf.reduce_sum(tf.square(left - right), axis=-1)
        return -tf.sqrt(tf.maximum(squares, TINY))

    def get_config(self):
        return {**super().get_config(), "comparison": self.comparison}


@keras.saving.register_keras_serializable(package="mlutils")
class ContrastiveLoss(keras.losses.Loss):
    """Contrastive loss (Hadsell, Chopra & LeCun, CVPR 2006), :eq:`eq-contrastive`.

    Pulls the two of a class together, and pushes others apart until they are ``margin`` away.
    A query's pair with its own class counts as much as all its pairs with other classes.

    Targets ``(..., Q)`` are integers 0..N-1, predictions ``(..., Q, N)`` minus distances, N at
    least 2.

    Args:
        margin: a distance, positive.

    Example:
        >>> loss = mlutils.ContrastiveLoss(margin=1.0)
        >>> distances = tf.constant([[0.0, 2.0]])  # of a query to two classes
        >>> float(loss(tf.constant([0]), -distances))  # nothing to mend
        0.0
        >>> float(loss(tf.constant([1]), -distances))
        2.5
    """

    takes_labels = True

    def __init__(self, margin=1.0, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_positive("margin", margin)

    def call(self, y_true, y_pred):
        near = tf.square(y_pred)
        far = tf.square(tf.maximum(self.margin + y_pred, 0))
        return balanced(y_true, near, far)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="mlutils")
class PairCrossEntropy(keras.losses.Loss):
    """Cross-entropy of pairs (Koch, Zemel & Salakhutdinov 2015), :eq:`eq-pair-cross-entropy`.

    Each pair by itself: are the two of one class?  A query's pair with its own class counts as
    much as all its pairs with other classes.

    Targets ``(..., Q)`` are integers 0..N-1, predictions ``(..., Q, N)`` log-odds, N at least 2.

    Example:
        >>> loss = mlutils.PairCrossEntropy()
        >>> round(float(loss(tf.constant([0]), tf.constant([[0.0, 0.0]]))), 3)  # no idea
        0.693
        >>> round(float(loss(tf.constant([0]), tf.constant([[9.0, -9.0]]))), 3)
        0.0
    """

    takes_labels = True

    def call(self, y_true, y_pred):
        return balanced(y_true, tf.nn.softplus(-y_pred), tf.nn.softplus(y_pred))


def balanced(labels, same, different):
    """Half the loss of each query's pair with its class, and half the mean of its other pairs'.

    Args:
        labels: ``(..., Q)`` integers.
        same, different: what each pair costs if it is of one class and if not, ``(..., Q, N)``.

    Returns:
        ``(..., Q)``.
    """
    own = true_class(labels, same)
    single = "With a single class there are no pairs to tell apart: use 2 ways or more."
    if same.shape[-1] == 1:
        raise ValueError(single)
    ways = tf.shape(same)[-1]
    if not tf.executing_eagerly():
        tf.debugging.assert_greater(ways, 1, single)
    others = tf.cast(ways - 1, same.dtype)
    return tf.reduce_sum(own * same + (1 - own) * different / others, axis=-1) / 2
