"""The networks of the few-shot papers, and a norm layer fit for second derivatives."""

import warnings

import keras
import tensorflow as tf

from mlutils.classes import at_least_single


def mlp(input_size=1, hidden=(40, 40), outputs=1, activation="relu"):
    """A multilayer perceptron; the defaults are the sinusoid network of the MAML paper.

    Args:
        input_size: length of an input vector.
        hidden: units of each hidden layer.
        outputs: length of an output vector (no activation on it).
        activation: of the hidden layers, as Keras names them.

    Returns:
        A built ``keras.Sequential`` from ``(batch, input_size)`` to ``(batch, outputs)``.
    """
    layers = [keras.layers.Dense(units, activation=activation) for units in hidden]
    return keras.Sequential([keras.Input((input_size,)), *layers, keras.layers.Dense(outputs)])


def check_network(model, name="model"):
    """Raise unless ``model`` is a built Keras model that can run on one task at a time.

    Args:
        model: what was passed.
        name: the argument's name, for the messages.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"{name} must be a keras.Model, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"The {name} {model.name!r} has no weights yet: begin it with keras.Input(shape), "
            "or call it once on an input."
        )
    layers = list(model._flatten_layers(include_self=False))
    if penalised := [x.name for x in layers if getattr(x, "activity_regularizer", None)]:
        raise ValueError(
            f"The layers {penalised} of the {name} have an activity_regularizer, which would count "
            "for some learners only: leave it out; kernel and bias regularizers are all right."
        )
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
    kinds = (keras.layers.LayerNormalization, keras.layers.GroupNormalization)
    layers = model._flatten_layers(include_self=False)
    inexact = {kind.__name__ for x in layers for kind in kinds if isinstance(x, kind)}
    if inexact and not first_order:
        names = ", ".join(sorted(inexact))
        warnings.warn(
            f"The second derivative of keras.layers.{names} is wrong in TensorFlow "
            "(tf.nn.moments stops a gradient), and with it the meta-gradient: use "
            "mlutils.BatchNorm, no norm layer, or first_order=True.",
            stacklevel=4,
        )


def looping(model):
    """The names of a model's recurrent layers that run as a loop."""
    layers = model._flatten_layers(include_self=False)
    return [layer.name for layer in layers if getattr(layer, "unroll", None) is False]


def mixes_examples(model):
    """Whether a prediction may depend on the rest of the batch, for all that is known.

    Keras's own layers treat each example by itself where nothing is trained, unless one is told
    to work along axis 0; ``keras.ops`` in a functional model, and what users write, may do
    anything.
    """
    parts = list(model._flatten_layers(include_self=True))
    operations = [x for part in parts for x in getattr(part, "operations", ())]
    return not all(treats_each_alone(x) for x in parts + operations)


def treats_each_alone(part):
    axes = getattr(part, "axis", None)
    axes = [a for a in (axes if isinstance(axes, (list, tuple)) else [axes]) if a is not None]
    try:
        rank = len(part.output.shape)
    except (AttributeError, ValueError):  # used several times, or never on a symbol
        rank = None
    functions = type(part), getattr(part, "activation", None) or type(part)
    return (
        isinstance(part, keras.layers.Layer)
        and all(f.__module__.startswith("keras.") for f in functions)
        and not isinstance(part, keras.layers.Lambda)
        and not any(a == 0 or a == -(rank or -1) for a in axes)
    )


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


class WithNetworks:
    """A Keras model whose configuration holds its networks; stands before its other bases.

    Attributes:
        networks: the names of the attributes and constructor arguments that are networks.
    """

    networks = ("encoder",)

    def get_config(self):
        parts = {n: keras.saving.serialize_keras_object(getattr(self, n)) for n in self.networks}
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config):
        parts = {n: keras.saving.deserialize_keras_object(config[n]) for n in cls.networks}
        return cls(**{**config, **parts})


def predict_with(model, weights, x):
    """A model's predictions with other weights in place of its own; nothing is assigned.

    Args:
        model: a built Keras model; it runs with ``training=False``.
        weights: tensors aligned with ``model.trainable_variables``.
        x: inputs ``(batch, ...)``.

    Returns:
        Predictions ``(batch, ...)``, differentiable by ``weights``.
    """
    # Not stateless_call: it lets the layers inside see the training flag of a surrounding fit.
    with keras.StatelessScope(zip(model.trainable_variables, weights, strict=True)):
        return model(x, training=False)


DOWNSAMPLE = ("pool", "stride")


def conv4(input_shape=(28, 28, 1), outputs=None, filters=64, downsample="pool", norm=True):
    """Four 3x3 convolution blocks, the network of the few-shot papers.

    A block is convolution, norm, ReLU; ``downsample="pool"`` adds 2x2 max-pooling
    (Vinyals et al. 2016, Snell et al. 2017), ``"stride"`` gives the convolution a
    stride of 2 instead (Finn et al. 2017 for Omniglot).

    Args:
        input_shape: ``(height, width, channels)``; with pooling at least 16 x 16.
        outputs: length of the output (a linear head on the flattened features), or None
            for the flattened features themselves: an encoder.
        filters: filters of each convolution.
        downsample: ``"pool"`` or ``"stride"``.
        norm: put ``BatchNorm`` after each convolution.

    Returns:
        A built ``keras.Sequential``.
    """
    if downsample not in DOWNSAMPLE:
        raise ValueError(f"downsample must be one of {DOWNSAMPLE}, got {downsample!r}.")
    if downsample == "pool" and min(input_shape[:2]) < 16:
        raise ValueError(
            f"input_shape {input_shape} is too small for four 2x2 poolings: at least 16 x 16 "
            'is needed; use downsample="stride".'
        )
    layers = [keras.Input(input_shape)]
    for _ in range(4):
        stride = 2 if downsample == "stride" else 1
        layers.append(keras.layers.Conv2D(filters, 3, strides=stride, padding="same"))
        if norm:
            layers.append(BatchNorm())
        layers.append(keras.layers.Activation("relu"))
        if downsample == "pool":
            layers.append(keras.layers.MaxPooling2D())
    layers.append(keras.layers.Flatten())
    if outputs is not None:
        layers.append(keras.layers.Dense(outputs))
    return keras.Sequential(layers)


@keras.saving.register_keras_serializable(package="mlutils")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation by the batch at hand, with exact second derivatives.

    Normalises each channel (last axis) by mean and variance over all other axes, then
    scales and shifts it by learned weights.  There are no running statistics: within a
    learner the batch is one task's support or query set, so a query's prediction
    depends on the queries beside it (the papers call this transductive).

    Keras's own layer forms the variance with ``tf.nn.moments``, which stops the gradient
    through the mean; that is right for first derivatives and wrong for second ones
    (:eq:`eq-variance-hessian`).

    Inputs and outputs have one shape, ``(batch, ..., channels)``.

    Args:
        epsilon: added to the variance, positive.
    """

    def __init__(self, epsilon=1e-3, **kwargs):
        super().__init__(**kwargs)
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {epsilon!r}.")
        self.epsilon = float(epsilon)

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=input_shape[-1:], initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=input_shape[-1:], initializer="zeros", name="beta")

    def call(self, inputs):
        axes = list(range(len(inputs.shape) - 1))
        numbers = at_least_single(inputs)  # the sum over many pixels is beyond half precision
        centred = numbers - tf.reduce_mean(numbers, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
        normed = tf.cast(centred * tf.math.rsqrt(variance + self.epsilon), inputs.dtype)
        return normed * self.gamma + self.beta

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
