"""Direct attribute prediction: recognise the attributes, and look up which class has them."""

import keras
import numpy as np
import tensorflow as tf

from mlutils.door.numbers import check_positive
from mlutils.few_shot.encoder_learner import embedding_length
from mlutils.zero_shot.learner import ZeroShotLearner


@keras.saving.register_keras_serializable(package="mlutils")
class DAP(ZeroShotLearner):
    """Direct attribute prediction (Lampert, Nickisch & Harmeling, CVPR 2009; PAMI 2014).

    ``fit`` trains one logistic regression per attribute on the embeddings of seen classes, each
    on its own.  A class's score is the logarithm of how likely its attributes are, given
    the query, against how common they were among the seen classes (:eq:`eq-dap`).
    Attributes are yes or no, 1 or 0.

    Args:
        encoder: as for ``EncoderLearner``; ``fit`` does not train it.
        attributes: the length of a signature.
        C: how little the logistic regressions are regularised, positive, as in scikit-learn.

    Example:
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        >>> signatures = np.array([[0, 0], [0, 1], [1, 0]])
        >>> y = np.arange(30) % 3
        >>> x = signatures[y] + np.random.default_rng(0).normal(scale=0.1, size=(30, 2))
        >>> learner = mlutils.DAP(encoder, attributes=2).fit(x, y, signatures)
        >>> predict = learner.adapt([[0, 0], [1, 1]])  # (1, 1) was not seen
        >>> int(tf.argmax(predict([[0.9, 1.1]])[0]))
        1
    """

    def __init__(self, encoder, attributes, C=1.0, **kwargs):
        super().__init__(encoder, attributes, **kwargs)
        self.C = check_positive("C", C)
        self.kernel = self.unfitted("kernel", embedding_length(encoder), attributes)
        self.bias = self.unfitted("bias", attributes)
        self.prior = self.unfitted("prior", attributes)

    def fit(self, x, y, signatures):
        """Train the attributes' classifiers.

        Args:
            x: inputs ``(n, ...)``.
            y: their classes, integers ``(n,)``: rows of ``signatures``.
            signatures: of the seen classes, ``(classes, attributes)``, each 0 or 1.

        Returns:
            This learner.
        """
        from sklearn.linear_model import LogisticRegression  # here: importing it takes a second

        x, y, signatures = self.check_examples(x, y, signatures)
        check_binary(tf.constant(signatures))
        features, attributes = self.features(x), signatures[y]
        fits = [
            LogisticRegression(C=self.C, max_iter=1000).fit(features, attribute)
            for attribute in attributes.T
        ]
        self.kernel.assign(np.concatenate([fit.coef_ for fit in fits]).T)
        self.bias.assign(np.concatenate([fit.intercept_ for fit in fits]))
        self.prior.assign(signatures.mean(axis=0))
        return self

    def class_vectors(self, signatures):
        """The signatures themselves, which are 0s and 1s."""
        self.check_fitted(self.prior)
        check_binary(signatures)
        return signatures

    def answer(self, summary, queries):
        """The scores ``(tasks, Q, N)`` (:eq:`eq-dap`)."""
        logits = tf.tensordot(queries, self.kernel, 1) + self.bias
        present = tf.math.log_sigmoid(logits) - tf.math.log(self.prior.value)
        absent = tf.math.log_sigmoid(-logits) - tf.math.log(1 - self.prior.value)
        return tf.matmul(present, summary, transpose_b=True) + tf.matmul(
            absent, 1 - summary, transpose_b=True
        )

    def get_config(self):
        return {**super().get_config(), "C": self.C}


def check_binary(signatures):
    """Raise unless all attributes are 0 or 1; in a graph TensorFlow's InvalidArgumentError."""
    other = (signatures != 0) & (signatures != 1)
    message = "DAP takes attributes that are 0 or 1"
    if not tf.executing_eagerly():
        tf.debugging.assert_equal(tf.reduce_any(other), False, message)
    elif tf.reduce_any(other):
        raise ValueError(
            f"{message}, got {signatures[other][0]}: say from which value on an attribute counts "
            "as present, or use ESZSL or DeViSE."
        )
