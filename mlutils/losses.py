"""The losses of both loops: what is compiled, as a mean over examples."""

import math

import keras
import tensorflow as tf

from mlutils.classes import at_least_single
from mlutils.door.losses import check_comparable
from mlutils.door.tasks import as_tensor


def mean_loss(loss, targets, predictions):
    """A loss as a scalar: its mean over all examples.

    A ``Loss`` of Keras divides by the number of replicas, which is right for the outer loop and
    would change the step size of the inner one: here that is undone.

    Args:
        loss: a ``keras.losses.Loss``, or a function of targets and predictions.
        targets: of the predictions' shape, or integer labels without their last axis.
        predictions: ``(..., examples, outputs)``.
    """
    targets, predictions = tf.convert_to_tensor(targets), tf.convert_to_tensor(predictions)
    check_comparable(loss, targets, predictions)
    value = tf.reduce_mean(loss(targets, at_least_single(predictions)))
    if isinstance(loss, keras.losses.Loss):
        value *= tf.distribute.get_strategy().num_replicas_in_sync
    return value


@keras.saving.register_keras_serializable(package="mlutils")
def gaussian_nll(targets, predictions):
    """Minus the logarithm of the normal density (:eq:`eq-gaussian-likelihood`), in nats.

    Args:
        targets: ``(..., outputs)``.
        predictions: ``(..., 2 outputs)``, means and standard deviations.

    Returns:
        ``(...)``, the mean over outputs.
    """
    targets, predictions = as_tensor("targets", targets), as_tensor("predictions", predictions)
    if not predictions.shape.rank or predictions.shape[-1] is None:
        raise ValueError(
            f"The predictions have shape {predictions.shape}; the last axis must hold means, then "
            "deviations."
        )
    expected = [*predictions.shape[:-1], predictions.shape[-1] // 2]
    if predictions.shape[-1] % 2 or not targets.shape.is_compatible_with(expected):
        raise ValueError(
            f"The targets have shape {targets.shape} and the predictions {predictions.shape}; "
            "the last axis must hold outputs, and twice as many: means, then deviations."
        )
    mean, deviation = tf.split(predictions, 2, axis=-1)
    error = (tf.cast(targets, mean.dtype) - mean) / deviation
    nats = tf.square(error) / 2 + tf.math.log(deviation) + math.log(2 * math.pi) / 2
    return tf.reduce_mean(nats, axis=-1)
