"""ESZSL: the compatibility of image and description in closed form."""

import keras
import numpy as np
import tensorflow as tf

from mlutils.door.numbers import check_positive
from mlutils.few_shot.encoder_learner import embedding_length
from mlutils.zero_shot.learner import ZeroShotLearner


@keras.saving.register_keras_serializable(package="mlutils")
class ESZSL(ZeroShotLearner):
    """Embarrassingly simple zero-shot learning (Romera-Paredes & Torr, ICML 2015).

    Scores are bilinear in embedding and signature (:eq:`eq-compatibility`), and the matrix
    between them is the solution (:eq:`eq-eszsl-solution`) of a regression on labels of 1
    and -1, regularised on both sides (:eq:`eq-eszsl`): one ridge regression on the embeddings,
    another on the signatures.

    Args:
        encoder: as for ``EncoderLearner``; ``fit`` does not train it.
        attributes: the length of a signature.
        gamma: the ridge on the side of the embeddings, positive.
        lam: the ridge on the side of the signatures, positive.

    Example:
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        >>> signatures = np.array([[0, 0], [0, 1], [1, 0]])
        >>> y = np.arange(30) % 3
        >>> x = signatures[y] + np.random.default_rng(0).normal(scale=0.1, size=(30, 2))
        >>> learner = mlutils.ESZSL(encoder, attributes=2).fit(x, y, signatures)
        >>> predict = learner.adapt(signatures)
        >>> int(tf.argmax(predict([[0.9, 0.1]])[0]))
        2
    """

    def __init__(self, encoder, attributes, gamma=1.0, lam=1.0, **kwargs):
        super().__init__(encoder, attributes, **kwargs)
        self.gamma, self.lam = check_positive("gamma", gamma), check_positive("lam", lam)
        self.matrix = self.unfitted("matrix", embedding_length(encoder), attributes)

    def fit(self, x, y, signatures):
        """Solve for the matrix (:eq:`eq-eszsl-solution`), in float64.

        Args:
            x: inputs ``(n, ...)``.
            y: their classes, integers ``(n,)``: rows of ``signatures``.
            signatures: of the seen classes, ``(classes, attributes)``.

        Returns:
            This learner.
        """
        x, y, S = self.check_examples(x, y, signatures)
        X, S = self.features(x), S.astype(float)
        Y = 2 * np.eye(len(S))[y] - 1
        left = np.linalg.solve(X.T @ X + self.gamma * np.eye(X.shape[1]), X.T @ Y)
        right = S.T @ S + self.lam * np.eye(S.shape[1])
        self.matrix.assign(np.linalg.solve(right, S.T @ left.T).T)
        return self

    def class_vectors(self, signatures):
        """The weights of each class, ``(tasks, N, features)``."""
        self.check_fitted(self.matrix)
        return tf.tensordot(signatures, tf.transpose(self.matrix), 1)

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma, "lam": self.lam}
