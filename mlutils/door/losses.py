"""Losses at the door: one, a mean, and one that fits what the learner predicts."""

import inspect

import keras
import tensorflow as tf

SPARSE = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.sparse_categorical_crossentropy,
)


def check_loss(loss, name, logits):
    """The loss that the learner ``name`` is to be compiled with; or a ValueError.

    Args:
        loss: what Keras's ``compile`` takes.
        name: of the learner, for the messages.
        logits: whether the learner's predictions are logits.
    """
    if isinstance(loss, (dict, list, tuple)) or (
        loss is not None and not callable(loss) and not isinstance(loss, str)
    ):
        raise ValueError(
            f'{name} has one output and takes one loss, for example "mse"; got {loss!r}.'
        )
    if loss is None:
        return
    try:
        found = keras.losses.get(loss)
    except ValueError:
        raise ValueError(f"There is no loss {loss!r} in Keras.") from None
    if getattr(found, "reduction", "mean") not in ("mean", "sum_over_batch_size"):
        raise ValueError(
            f"The loss has reduction={found.reduction!r}; allowed is "
            '"sum_over_batch_size": both loops use the mean over examples, so that step '
            "sizes do not depend on their number."
        )
    if logits and name_of(found) == "gaussian_nll":
        raise ValueError(
            f"The loss gaussian_nll takes means and deviations, and {name} predicts logits."
        )
    if logits and takes_probabilities(found):
        raise ValueError(
            f"The loss {name_of(found)} takes predictions for probabilities, and {name}'s are "
            "logits: use keras.losses.SparseCategoricalCrossentropy(from_logits=True), or another "
            "loss with from_logits=True."
        )


def takes_probabilities(loss):
    """Whether a loss of Keras takes predictions for probabilities."""
    if isinstance(loss, keras.losses.Loss):
        return loss.get_config().get("from_logits") is False
    option = inspect.signature(loss).parameters.get("from_logits")
    return option is not None and option.default is False


def name_of(loss):
    return getattr(loss, "__name__", type(loss).__name__)


@tf.autograph.experimental.do_not_convert
def compiled_loss(learner):
    """The one loss that a learner is compiled with, which its inner loop needs; or a ValueError."""
    loss = getattr(learner, "loss", None)
    if loss is None:
        raise ValueError(
            f"{type(learner).__name__} adapts by the loss it is compiled with: call "
            'compile(loss=...) with one loss first, for example "mse".'
        )
    return keras.losses.get(loss)


@tf.autograph.experimental.do_not_convert
def check_comparable(loss, targets, predictions):
    """Raise if targets and predictions could be compared only by broadcasting.

    Allowed are equal shapes; integer labels without the predictions' last axis, if the loss may
    take such; and whatever a loss takes that is not Keras's own and has equal ranks.
    """
    shapes = targets.shape, predictions.shape
    takes_labels = loss in SPARSE or isinstance(loss, SPARSE[0])
    takes_labels |= getattr(loss, "takes_labels", False)
    if takes_labels and not targets.dtype.is_integer:
        raise ValueError(
            f"The targets are {targets.dtype.name} of shape {shapes[0]}, and the loss "
            f"{name_of(loss)} takes integer labels."
        )
    if None in (shapes[0].rank, shapes[1].rank) or shapes[0].is_compatible_with(shapes[1]):
        return
    owner = loss if inspect.isfunction(loss) else type(loss)
    theirs = owner.__module__.startswith("keras.")
    sparse = not theirs or loss in SPARSE or isinstance(loss, SPARSE[0])
    labels = targets.dtype.is_integer and shapes[1][-1] != 1 and sparse
    short = shapes[0].is_compatible_with(shapes[1][:-1])
    single = shapes[0].is_compatible_with([*shapes[1][:-1], 1])
    others = not theirs and shapes[0][:-1].is_compatible_with(shapes[1][:-1])
    if short and shapes[1][-1] == 1:
        raise ValueError(
            f"The targets have shape {shapes[0]} and the predictions {shapes[1]}: with one output "
            "targets need that last axis of 1, and classes a network with one output for each."
        )
    if not (labels and (short or single)) and not others:
        raise ValueError(
            f"The targets have shape {shapes[0]} and the predictions {shapes[1]}; allowed are "
            "equal shapes, or integer labels without the last axis, with a loss that takes "
            "labels such as SparseCategoricalCrossentropy."
        )
