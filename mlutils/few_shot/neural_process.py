"""Conditional neural processes: a set of points in, a distribution at any other point out."""

import keras
import tensorflow as tf

from mlutils.door.losses import check_loss, name_of
from mlutils.door.networks import check_network
from mlutils.door.numbers import check_positive
from mlutils.door.tasks import one_task, shape_of
from mlutils.learner import MetaLearner
from mlutils.losses import gaussian_nll, mean_loss
from mlutils.networks import WithNetworks


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

    Example:
        >>> encoder, decoder = mlutils.mlp(2, (16,), 8), mlutils.mlp(9, (16,), 2)
        >>> learner = mlutils.ConditionalNeuralProcess(encoder, decoder)
        >>> predict = learner.adapt([[0.0], [1.0]], [[2.0], [3.0]])
        >>> tuple(predict([[0.1], [0.5], [0.9]]).shape)  # a mean and a standard deviation each
        (3, 2)
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
        self.sizes = sizes_of(encoder, decoder)
        self.encoder, self.decoder = encoder, decoder
        self.smallest = check_positive("smallest", smallest)
        if self.smallest >= 1:
            raise ValueError(f"smallest must be less than 1, got {smallest!r}.")
        self.built = True

    @one_task
    def adapt(self, support_x, support_y):
        """Encode one task's support set.

        Args:
            support_x: ``(S, inputs)``.
            support_y: ``(S, outputs)``.

        Returns:
            A predictor from ``(Q, inputs)`` to ``(Q, 2 outputs)``.
        """
        code = self.keep(support_x, support_y)
        return lambda query_x: self.recall(code, query_x)

    def keep(self, support_x, support_y):
        """One task's code, ``(features,)``."""
        points = tf.concat([self.numbers(support_x), self.numbers(support_y)], axis=1)
        return tf.reduce_mean(self.numbers(self.encoder(points, training=False)), axis=0)

    def recall(self, kept, query_x):
        """Means and standard deviations from the code."""
        return self.decode(kept, self.numbers(query_x))

    def target(self):
        known = self.sizes[1] is not None
        return tf.TensorSpec([self.sizes[1]], self.compute_dtype) if known else None

    def check_tasks(self, support_x, support_y):
        x, y, (inputs, outputs) = support_x.shape[1:], support_y.shape[1:], self.sizes
        if not (x.is_compatible_with([None, inputs]) and y.is_compatible_with([None, outputs])):
            raise ValueError(
                f"support_x has shape {x} and support_y {y}; allowed are (S, inputs) and "
                f"(S, outputs), here (S, {inputs or '...'}) and (S, {outputs or '...'})."
            )

    def sees(self):
        return (tf.TensorShape([self.sizes[0]]),) * 2

    def numbers(self, values):
        return tf.cast(values, self.compute_dtype)

    def decode(self, code, query_x):
        """Means and standard deviations ``(Q, 2 outputs)`` (:eq:`eq-neural-process`)."""
        codes = tf.repeat(code[tf.newaxis], tf.shape(query_x)[0], axis=0)
        decoded = self.numbers(self.decoder(tf.concat([codes, query_x], axis=1), training=False))
        mean, spread = tf.split(decoded, 2, axis=1)
        deviation = self.smallest + (1 - self.smallest) * tf.math.softplus(spread)
        return tf.concat([mean, deviation], axis=1)

    def task_loss(self, targets, predictions):
        """Minus the mean log likelihood, a scalar (:eq:`eq-gaussian-likelihood`)."""
        return mean_loss(getattr(self, "loss", None) or gaussian_nll, targets, predictions)

    def check_loss(self, loss):
        check_loss(loss, type(self).__name__, False)
        if loss is not None and (isinstance(loss, str) or loss.__module__.startswith("keras.")):
            name = loss if isinstance(loss, str) else name_of(loss)
            raise ValueError(
                f"The loss {name} takes predictions of the targets' shape, and "
                f"{type(self).__name__}'s are means and standard deviations: use "
                "loss=mlutils.gaussian_nll."
            )

    def get_config(self):
        return {**super().get_config(), "smallest": self.smallest}


def sizes_of(encoder, decoder):
    """The lengths of an input and of a target, None where they are not known; or a ValueError."""
    point, code = (shape_of(encoder, f"{end}put_shape") for end in ("in", "out"))
    takes, gives = (shape_of(decoder, f"{end}put_shape") for end in ("in", "out"))
    known = all(s is not None and s.rank == 2 and s[1] for s in (point, code, takes, gives))
    if not known:
        return None, None
    inputs, outputs = takes[1] - code[1], gives[1] // 2
    if inputs < 1 or inputs + outputs != point[1]:
        raise ValueError(
            f"The encoder maps {point} to {code} and the decoder {takes} to {gives}; allowed are "
            "(None, inputs + outputs) to (None, features), and (None, features + inputs) to "
            "(None, 2 outputs)."
        )
    return inputs, outputs
