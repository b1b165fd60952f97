"""Networks at the door: built, and such that a learner trains them rightly."""

import warnings

import keras
import tensorflow as tf


def check_network(model, name="model", mapped=True):
    """Raise unless ``model`` is a built Keras model that can run on one task at a time.

    Args:
        model: what was passed.
        name: the argument's name, for the messages.
        mapped: whether it sees each task by itself, and not all in one batch.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"{name} must be a keras.Model, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"The {name} {model.name!r} has no weights yet: begin it with keras.Input(shape), "
            "or call it once on an input."
        )
    for what in ("inputs", "outputs"):
        if len(getattr(model, what, None) or [None]) > 1:
            raise ValueError(
                f"The {name} {model.name!r} has several {what}; allowed is one: join them in the "
                "network, or take one apart inside it."
            )
    layers = list(model._flatten_layers(include_self=False))
    if penalised := [x.name for x in layers if getattr(x, "activity_regularizer", None)]:
        raise ValueError(
            f"The layers {penalised} of the {name} have an activity_regularizer, which would count "
            "for some learners only: leave it out; kernel and bias regularizers are all right."
        )
    for layer in layers:
        if reason := no_gradient(layer, mapped):
            raise ValueError(f"The layer {layer.name!r} of the {name} {reason}")
    check_norms(model, name)


def check_norms(model, name):
    """Raise if a network holds a trainable ``BatchNormalization``."""
    layers = [] if model is None else model._flatten_layers(include_self=False)
    if any(isinstance(x, keras.layers.BatchNormalization) and x.trainable for x in layers):
        raise ValueError(
            f"The {name} holds a trainable keras.layers.BatchNormalization. Its running "
            "statistics mix all tasks and would never be updated here. Use mlutils.BatchNorm, "
            "which normalises each task by itself, or freeze the layer (layer.trainable = False)."
        )


def check_adaptable(model, first_order):
    """Raise or warn about what an inner loop cannot move, or not differentiate twice."""
    check_network(model)
    if not model.trainable_variables:
        raise ValueError(f"The model {model.name!r} has no trainable weights to adapt.")
    if loops := looping(model):
        raise ValueError(
            f"The recurrent layers {loops} run as a loop, which TensorFlow cannot differentiate "
            "twice when tasks are vectorised: create them with unroll=True."
        )
    if first_order:
        return
    layers = list(model._flatten_layers(include_self=False))
    for layer in layers:
        if reason := no_second_gradient(layer):
            raise ValueError(
                f"The layer {layer.name!r} of the model {reason} Use another layer, or "
                "first_order=True."
            )
    kinds = (keras.layers.LayerNormalization, keras.layers.GroupNormalization)
    if inexact := {kind.__name__ for x in layers for kind in kinds if isinstance(x, kind)}:
        names = ", ".join(sorted(inexact))
        warnings.warn(
            f"The second derivative of keras.layers.{names} is wrong in TensorFlow "
            "(tf.nn.moments stops a gradient), and with it the meta-gradient: use "
            "mlutils.BatchNorm, no norm layer, or first_order=True.",
            stacklevel=4,
        )


def no_gradient(layer, mapped):
    """Why no learner can train through a layer; None if it can.

    The table of layers, ``tests/contract/test_layers.py``, holds what is behind this.
    """
    members = [v for kind in type(layer).__mro__ for v in vars(kind).values()]
    if any(isinstance(v, tf.types.experimental.PolymorphicFunction) for v in members):
        return (
            "has a tf.function as a method, which keeps the weights that it was traced with: take "
            "the decorator away; learners run as graphs anyhow."
        )
    grouped = mapped and isinstance(layer, CONVOLUTIONS) and layer.groups != 1
    if grouped and not tf.config.list_physical_devices("GPU"):
        return (
            f"is a convolution in {layer.groups} groups, which on a CPU TensorFlow differentiates "
            "in some precisions only, where each task has its own: use groups=1, or DepthwiseConv."
        )
    if getattr(layer, "interpolation", None) == "area" and isinstance(layer, RESIZING):
        return 'resizes by interpolation="area", of which TensorFlow has no gradient.'
    return None


CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
RESIZING = (keras.layers.Resizing, keras.layers.UpSampling2D, keras.layers.CenterCrop)
POOLING = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)


def no_second_gradient(layer):
    """Why MAML has no right second derivative through a layer; None if it has."""
    if getattr(layer, "activation", None) is keras.activations.softsign:
        return "has the activation softsign, of which TensorFlow has no second derivative."
    if isinstance(layer, RESIZING) and resizes(layer):
        return "resizes pictures, of which TensorFlow has no right second derivative."
    if keeps_shape(layer):
        return (
            "is a maximum over windows whose output has its input's shape, which TensorFlow "
            "differentiates wrongly the second time."
        )
    return None


def resizes(layer):
    """Whether one of ``RESIZING`` does more than repeat or cut out pixels."""
    if isinstance(layer, keras.layers.CenterCrop):
        return any(before < after for before, after in sizes(layer))
    return isinstance(layer, keras.layers.Resizing) or layer.interpolation != "nearest"


def keeps_shape(layer):
    """Whether a layer is a maximum over windows, and leaves a picture as large as it is."""
    if isinstance(layer, POOLING):
        return set(layer.strides) == {1} and (
            layer.padding == "same" or set(layer.pool_size) == {1}
        )
    adaptive = type(layer).__name__ == "AdaptiveMaxPooling3D"  # not in every Keras
    return adaptive and any(before == after for before, after in sizes(layer))


def sizes(layer):
    """The sizes of a layer's input and output along each axis of a picture, where known."""
    try:
        shapes = layer.input.shape[1:-1], layer.output.shape[1:-1]
    except (AttributeError, ValueError):  # used several times, or never on a symbol
        return []
    return [pair for pair in zip(*shapes, strict=True) if None not in pair]


def looping(model):
    """The names of a model's recurrent layers that run as a loop."""
    layers = model._flatten_layers(include_self=False)
    return [layer.name for layer in layers if getattr(layer, "unroll", None) is False]


def gives_logits(model):
    """Whether a model is known to end with a layer that has no activation."""
    try:
        last = model.outputs[0]._keras_history.operation
    except (AttributeError, IndexError, TypeError):
        return False  # a subclassed model does not tell
    if isinstance(last, keras.Model):
        return gives_logits(last)
    linear = getattr(last, "activation", None) is keras.activations.linear
    return isinstance(last, (keras.layers.Dense, keras.layers.EinsumDense)) and linear
