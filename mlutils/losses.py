"""The losses of both loops: what is compiled, as a mean over examples."""

import inspect
import math

import keras
import tensorflow as tf

from mlutils.classes import at_least_single


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
    if not comparable(targets, predictions):
        raise ValueError(
            f"The targets have shape {targets.shape} and the predictions {predictions.shape}; "
            "allowed are equal shapes, or integer labels without the last axis."
        )
    value = tf.reduce_mean(loss(targets, at_least_single(predictions)))
    if isinstance(loss, keras.losses.Loss):
        value *= tf.distribute.get_strategy().num_replicas_in_sync
    return value


def comparable(targets, predictions):
    """Whether the shapes agree without broadcasting: equal ranks, or labels beside logits."""
    ranks = targets.shape.rank, predictions.shape.rank
    if None in ranks or targets.shape.is_compatible_with(predictions.shape):
        return True
    labels = targets.dtype.is_integer and predictions.shape[-1] != 1
    return (
        labels
        and targets.shape[: ranks[1] - 1].is_compatible_with(predictions.shape[:-1])
        and (ranks[0] == ranks[1] - 1 or targets.shape[ranks[1] - 1 :] == [1])
    )


def check_single(loss, name):
    """The compiled loss of the learner ``name`` as a function or ``Loss``; or a ValueError."""
    if loss is None or isinstance(loss, (dict, list, tuple)):
        raise ValueError(
            f"{name} adapts by the loss it is compiled with: call compile(loss=...) with one loss "
            f'first, for example "mse"; got {loss!r}.'
        )
    loss = keras.losses.get(loss)
    if getattr(loss, "reduction", "mean") not in ("mean", "sum_over_batch_size"):
        raise ValueError(
            f"The loss has reduction={loss.reduction!r}; allowed is "
            '"sum_over_batch_size": both loops use the mean over examples, so that step '
            "sizes do not depend on their number."
        )
    return loss


def check_takes_logits(loss):
    """Raise if a loss takes predictions for probabilities, though they are logits."""
    found = keras.losses.get(loss)
    if isinstance(found, keras.losses.Loss):
        from_logits = found.get_config().get("from_logits")
    else:
        option = inspect.signature(found).parameters.get("from_logits")
        from_logits = None if option is None else option.default
    if from_logits is False:
        name = getattr(found, "__name__", type(found).__name__)
        raise ValueError(
            f"The loss {name} takes predictions for probabilities, and this learner's are logits: "
            "use keras.losses.SparseCategoricalCrossentropy(from_logits=True), or another loss "
            "with from_logits=True."
        )


@keras.saving.register_keras_serializable(package="mlutils")
def gaussian_nll(targets, predictions):
    """Minus the logarithm of the normal density (:eq:`eq-gaussian-likelihood`), in nats.

    Args:
        targets: ``(..., outputs)``.
        predictions: ``(..., 2 outputs)``, means and standard deviations.

    Returns:
        ``(...)``, the mean over outputs.
    """
    targets, predictions = map(tf.convert_to_tensor, (targets, predictions))
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
