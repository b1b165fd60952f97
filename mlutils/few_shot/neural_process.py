"""Conditional neural processes: a set of points in, a distribution at any other point out."""

import keras
import tensorflow as tf

from mlutils.checks import check_positive
from mlutils.episodes import check_support, shape_of
from mlutils.learner import MetaLearner
from mlutils.losses import gaussian_nll
from mlutils.networks import WithNetworks, check_network


@keras.saving.register_keras_serializable(package="mlutils")
class ConditionalNeuralProcess(WithNetworks, MetaLearner):
    """Conditional neural process (Garnelo et al., ICML 2018): regression with its uncertainty.

    Each support point, input and target side by side, is encoded, and the mean of the codes is the
    summary; a decoder makes of it and a query's input a mean and a standard deviation
    (:eq:`eq-neural-process`).  It is trained by the queries' density
    (:eq:`eq-gaussian-likelihood`): compile with ``loss=mlutils.gaussian_nll``.

    Predictions are ``(Q, 2 outputs)``: the means, then the standard deviations.  The order of the
    support set does not matter, and its size may differ from that in training.

    Args:
        encoder: a built Keras model from points ``(batch, inputs + outputs)`` to codes
            ``(batch, features)``; it is used and trained in place.
        decoder: one from ``(batch, features + inputs)`` to ``(batch, 2 outputs)``.
        smallest: the least standard deviation, between 0 and 1; .1 in the paper.
    """

    networks = ("encoder", "decoder")

    def __init__(self, encoder, decoder, smallest=0.1, **kwargs):
        super().__init__(**kwargs)
        check_network(encoder, "encoder")
        check_network(decoder, "decoder")
        gives = shape_of(decoder, "output_shape")
        if gives is not None and (gives.rank != 2 or gives[1] is None or gives[1] % 2):
            raise ValueError(
                f"The decoder gives {gives}; it must be (None, 2 outputs), a mean and a standard "
                "deviation of each output."
            )
        self.encoder, self.decoder = encoder, decoder
        self.smallest = check_positive("smallest", smallest)
        if self.smallest >= 1:
            raise ValueError(f"smallest must be less than 1, got {smallest!r}.")
        self.built = True

    def adapt(self, support_x, support_y):
        """Encode one task's support set.

        Args:
            support_x: ``(S, inputs)``.
            support_y: ``(S, outputs)``.

        Returns:
            A predictor from ``(Q, inputs)`` to ``(Q, 2 outputs)``.
        """
        support_x, support_y = self.numbers(support_x), self.numbers(support_y)
        self.check_tasks(support_x[tf.newaxis], support_y[tf.newaxis])
        points = tf.concat([support_x, support_y], axis=1)
        code = tf.reduce_mean(self.numbers(self.encoder(points, training=False)), axis=0)
        return lambda query_x: self.decode(code, self.numbers(query_x))

    def check_tasks(self, support_x, support_y):
        x, y = support_x.shape[1:], support_y.shape[1:]
        check_support(x, y)
        if x.rank != 2 or y.rank != 2:
            raise ValueError(
                f"support_x has shape {x} and support_y {y}; allowed are (S, inputs) and "
                "(S, outputs)."
            )

    def numbers(self, values):
        return tf.cast(tf.convert_to_tensor(values), self.compute_dtype)

    def decode(self, code, query_x):
        """Means and standard deviations ``(Q, 2 outputs)`` (:eq:`eq-neural-process`)."""
        codes = tf.repeat(code[tf.newaxis], tf.shape(query_x)[0], axis=0)
        decoded = self.numbers(self.decoder(tf.concat([codes, query_x], axis=1), training=False))
        mean, spread = tf.split(decoded, 2, axis=1)
        deviation = self.smallest + (1 - self.smallest) * tf.math.softplus(spread)
        return tf.concat([mean, deviation], axis=1)

    def task_loss(self, targets, predictions):
        """Minus the mean log likelihood, a scalar (:eq:`eq-gaussian-likelihood`)."""
        return tf.reduce_mean(gaussian_nll(targets, predictions))

    def get_config(self):
        return {**super().get_config(), "smallest": self.smallest}
