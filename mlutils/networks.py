"""The networks of the few-shot papers, and a norm layer fit for second derivatives."""

import math

import keras
import tensorflow as tf

from mlutils.classes import at_least_single
from mlutils.door.numbers import check_count, check_counts, check_flag, check_option, check_positive


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
    input_size, outputs = check_count("input_size", input_size), check_count("outputs", outputs)
    hidden = check_counts("hidden", hidden)
    layers = [keras.layers.Dense(units, activation=activation) for units in hidden]
    return keras.Sequential([keras.Input((input_size,)), *layers, keras.layers.Dense(outputs)])


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


def normalises(model):
    """Whether a model holds a ``BatchNorm``."""
    return any(isinstance(x, BatchNorm) for x in model._flatten_layers())


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


def flat_embeddings(encoder, examples):
    """``(n, ...)`` -> ``(n, features)``."""
    embeddings = encoder(examples, training=False)
    return tf.reshape(embeddings, (tf.shape(embeddings)[0], math.prod(embeddings.shape[1:])))


DOWNSAMPLE = ("pool", "stride")


def conv4(input_shape=(28, 28, 1), outputs=None, filters=64, downsample="pool", norm=False):
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
        norm: put ``BatchNorm`` after each convolution, as the papers do.  Predictions then depend
            on the other queries of the batch (see ``transductive`` of the learners).

    Returns:
        A built ``keras.Sequential``.
    """
    check_option("downsample", downsample, DOWNSAMPLE)
    input_shape, filters = check_counts("input_shape", input_shape), check_count("filters", filters)
    norm, outputs = (
        check_flag("norm", norm),
        None if outputs is None else check_count("outputs", outputs),
    )
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}.")
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
    depends on the queries beside it (the papers call this transductive), unless the learner shows
    each query beside the support set alone: ``transductive=False``.

    Keras's own layer forms the variance with ``tf.nn.moments``, which stops the gradient
    through the mean; that is right for first derivatives and wrong for second ones
    (:eq:`eq-variance-hessian`).

    Inputs and outputs have one shape, ``(batch, ..., channels)``.

    Args:
        epsilon: added to the variance, positive.

    Example:
        >>> mlutils.BatchNorm()(np.array([[0.0], [2.0]])).numpy().round(2).tolist()
        [[-1.0], [1.0]]
    """

    def __init__(self, epsilon=1e-3, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = check_positive("epsilon", epsilon)

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
