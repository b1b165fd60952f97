"""The table of Keras's layers: through which of them a learner's gradients are right.

Each row stands in a network ``Input -> Dense -> layer -> Dense``, whose first weights are reached
only through the layer.  What a learner makes of it is compared with plain Keras, run eagerly and
task by task: with central differences of its loss, so that nothing is taken from a derivative that
may itself be wrong.  A layer new in Keras, or one whose derivative has changed, fails here.
"""

import functools
import math
import warnings
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import mlutils
from mlutils import MAML, PrototypicalNetwork
from tests.numeric import flatten

# ------------------------------------------------------------------ the questions

INNER_LR = 0.3
# A prototypical network that sees the tasks together, and one that sees each by itself, as it does
# beside a layer that is not Keras's own; MAML without and with second derivatives.
QUESTIONS = ("together", "apart", "first order", "second order")
# The first and the last are asked of every layer, "first order" of those with any fault, and
# "apart", which "second order" includes, where a row says so.
LEARNERS = {
    "together": functools.partial(PrototypicalNetwork, transductive=True),
    "apart": functools.partial(PrototypicalNetwork, transductive=True),
    "first order": functools.partial(MAML, inner_lr=INNER_LR, first_order=True),
    "second order": functools.partial(MAML, inner_lr=INNER_LR),
}

# ------------------------------------------------------------------ the table


class Fault(NamedTuple):
    """Where a layer is not simply accepted and exact.

    Attributes:
        says: what the package does about it: ``"refused"``, ``"warned"`` or ``"accepted"``.
        truth: what comes out if it is let in all the same: ``"exact"``, ``"wrong"`` or the name of
            an exception; None if that is not asked.
    """

    says: str
    truth: str | None = None


class Row(NamedTuple):
    """A layer in a network.

    Attributes:
        make: makes the layer, or a function of a symbolic tensor.
        shape: of one input of the layer.
        faults: from questions to ``Fault``; it is accepted and exact for all others.
        inputs: ``"numbers"`` from -1 to 1, ``"pictures"`` from 0 to 1 or ``"integers"`` 0 to 5.
        dtype: ``"float32"`` where TensorFlow has no kernel for double precision.
    """

    make: object
    shape: tuple = (4,)
    faults: dict = {}  # noqa: RUF012  nobody writes to it
    inputs: str = "numbers"
    dtype: str = "float64"


SEQUENCE, IMAGE, VOLUME = (5, 3), (5, 5, 3), (4, 4, 4, 2)

BY_DESIGN = dict.fromkeys(QUESTIONS, Fault("refused"))
# tf.nn.moments stops a gradient.
MOMENTS = {"second order": Fault("warned", "wrong")}
# TensorFlow declares the gradient of a bilinear resize a constant.
CONSTANT = {"second order": Fault("refused", "wrong")}
# TensorFlow's MaxPoolGradGrad writes over its input where that has the shape of its output.
OVERWRITTEN = {"second order": Fault("refused", "wrong")}
# TensorFlow has no second derivative, or not even a first one.
MISSING = {"second order": Fault("refused", "LookupError")}
NO_GRADIENT = dict.fromkeys(QUESTIONS, Fault("refused", "LookupError"))
# Beyond tf.vectorized_map.
LOOP = {"first order": Fault("refused"), "second order": Fault("refused", "TypeError")}
# Keras runs these through XLA, whose program tf.vectorized_map takes apart; without XLA a CPU can
# do no more than those of one and two dimensions in single precision, if oneDNN is on.
GROUPED = dict.fromkeys(QUESTIONS[1:], Fault("refused"))
# Traced once, such a layer keeps the weights that it was traced with.
TRACED = {
    **dict.fromkeys(QUESTIONS[:2], Fault("refused")),
    **dict.fromkeys(QUESTIONS[2:], Fault("refused", "wrong")),
}


def of_two(layer):
    """The layer, of two tensors made from one."""
    return lambda x: layer([x, keras.ops.sigmoid(x)])


def chain(*parts):
    return lambda x: functools.reduce(lambda x, part: part(x), parts, x)


class Traced(layers.Layer):
    """What a user may write: a layer with a weight whose ``call`` is a ``tf.function``."""

    def build(self, shape):
        self.factor = self.add_weight(shape=shape[-1:], initializer="ones")

    @tf.function
    def call(self, inputs):
        return tf.tanh(self.factor * inputs) + inputs


def each_rank(name, *args):
    """Rows of ``name1D``, ``name2D``, ``name3D``."""
    return {
        f"{name}{rank}D": Row(functools.partial(getattr(layers, f"{name}{rank}D"), *args), shape)
        for rank, shape in enumerate((SEQUENCE, IMAGE, VOLUME), 1)
    }


def pooling(name, *args):
    rows = each_rank(name, *args)
    single = rows[f"{name}3D"]._replace(shape=(4, 2, 2, 2), dtype="float32")
    return rows | {f"{name}3D": single}


def convolutional_lstm(rank):
    kind, shape = getattr(layers, f"ConvLSTM{rank}D"), (2, *[2] * rank, 1)
    return {f"ConvLSTM{rank}D": Row(lambda: kind(1, 2, unroll=True), shape)}


def resizing(interpolation, faults, dtype="float32"):
    return {
        f"Resizing, {interpolation}": Row(
            lambda: layers.Resizing(4, 3, interpolation=interpolation), IMAGE, faults, dtype=dtype
        )
    }


def upsampling(interpolation, faults):
    return {
        f"UpSampling2D, {interpolation}": Row(
            lambda: layers.UpSampling2D(2, interpolation=interpolation),
            (3, 3, 2),
            faults,
            dtype="float32",
        )
    }


def augmentation(name, *args, **options):
    """A layer that changes pictures in training only."""
    return {name: Row(lambda: getattr(layers, name)(*args, **options), IMAGE, inputs="pictures")}


RANGE = {"value_range": (0, 1)}
ACTIVATIONS = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_tanh leaky_relu linear log_sigmoid "
    "log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus sparse_plus "
    "sparse_sigmoid sparsemax squareplus tanh tanh_shrink"
).split()

TABLE = {
    # ---------------- dense
    "Dense": Row(lambda: layers.Dense(3, "tanh")),
    "Dense, low rank": Row(lambda: layers.Dense(3, "tanh", lora_rank=1), dtype="float32"),
    "EinsumDense": Row(
        lambda: layers.EinsumDense("bsf,fg->bsg", (5, 4), "tanh", bias_axes="g"), SEQUENCE
    ),
    "Embedding": Row(lambda: layers.Embedding(6, 3), inputs="integers"),
    "Embedding, a mask for LSTM": Row(
        lambda: chain(layers.Embedding(6, 3, mask_zero=True), layers.LSTM(2, unroll=True)),
        inputs="integers",
    ),
    "ReversibleEmbedding": Row(lambda: layers.ReversibleEmbedding(6, 3), inputs="integers"),
    "SpectralNormalization": Row(lambda: layers.SpectralNormalization(layers.Dense(3, "tanh"))),
    "TimeDistributed": Row(lambda: layers.TimeDistributed(layers.Dense(2, "tanh")), SEQUENCE),
    "a tf.function": Row(Traced, faults=TRACED),
    # ---------------- activations
    **{
        f"Activation, {name}": Row(functools.partial(layers.Activation, name))
        for name in ACTIVATIONS
    },
    "Activation, softsign": Row(lambda: layers.Activation("softsign"), faults=MISSING),
    "Dense, softsign": Row(lambda: layers.Dense(3, "softsign"), faults=MISSING),
    "ELU": Row(layers.ELU),
    "LeakyReLU": Row(layers.LeakyReLU),
    "PReLU": Row(layers.PReLU),
    "ReLU": Row(lambda: layers.ReLU(max_value=0.9, negative_slope=0.1)),
    "Softmax": Row(layers.Softmax),
    # ---------------- convolutions
    **each_rank("Conv", 2, 2),
    "Conv1D, causal and dilated": Row(
        lambda: layers.Conv1D(2, 2, dilation_rate=2, padding="causal"), SEQUENCE
    ),
    "Conv2D, strided": Row(lambda: layers.Conv2D(2, 3, 2, "same"), IMAGE),
    "Conv2D, dilated": Row(lambda: layers.Conv2D(2, 2, dilation_rate=2), IMAGE),
    "Conv3D, strided": Row(lambda: layers.Conv3D(2, 2, 2), VOLUME),
    "Conv1D, grouped": Row(lambda: layers.Conv1D(2, 2, groups=2), (3, 2), GROUPED),
    "Conv2D, grouped": Row(lambda: layers.Conv2D(2, 2, groups=2), (3, 3, 2), GROUPED),
    "Conv3D, grouped": Row(lambda: layers.Conv3D(2, 2, groups=2), (2, 2, 2, 2), GROUPED),
    "Conv1DTranspose": Row(lambda: layers.Conv1DTranspose(2, 2, 2), SEQUENCE),
    "Conv2DTranspose": Row(lambda: layers.Conv2DTranspose(2, 2, 2), IMAGE),
    "Conv3DTranspose": Row(lambda: layers.Conv3DTranspose(2, 2, 2), (2, 2, 2, 2)),
    "DepthwiseConv1D": Row(lambda: layers.DepthwiseConv1D(2, depth_multiplier=2), SEQUENCE),
    "DepthwiseConv2D": Row(lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), IMAGE),
    "DepthwiseConv2D, strided": Row(lambda: layers.DepthwiseConv2D(3, 2, "same"), IMAGE),
    "DepthwiseConv2D, dilated": Row(lambda: layers.DepthwiseConv2D(2, dilation_rate=2), IMAGE),
    "SeparableConv1D": Row(lambda: layers.SeparableConv1D(2, 2), SEQUENCE),
    "SeparableConv2D": Row(lambda: layers.SeparableConv2D(2, 2), IMAGE),
    "SeparableConv2D, strided": Row(lambda: layers.SeparableConv2D(2, 3, 2, "same"), IMAGE),
    # ---------------- pooling
    **pooling("AveragePooling", 2),
    **pooling("MaxPooling", 2),
    **pooling("GlobalAveragePooling"),
    **pooling("GlobalMaxPooling"),
    **pooling("AdaptiveAveragePooling", 2),
    **pooling("AdaptiveMaxPooling", 2),
    "MaxPooling2D, overlapping": Row(lambda: layers.MaxPooling2D(3, 2, "same"), IMAGE),
    "AveragePooling2D, of the inputs' shape": Row(
        lambda: layers.AveragePooling2D(3, 1, "same"), IMAGE
    ),
    "MaxPooling1D, of the inputs' shape": Row(
        lambda: layers.MaxPooling1D(2, 1, "same"), SEQUENCE, OVERWRITTEN
    ),
    "MaxPooling2D, of the inputs' shape": Row(
        lambda: layers.MaxPooling2D(3, 1, "same"), IMAGE, OVERWRITTEN
    ),
    "MaxPooling3D, of the inputs' shape": Row(
        lambda: layers.MaxPooling3D(2, 1, "same"), VOLUME, OVERWRITTEN, dtype="float32"
    ),
    "AdaptiveMaxPooling3D": Row(
        lambda: layers.AdaptiveMaxPooling3D(2), (4, 4, 4, 1), dtype="float32"
    ),
    "AdaptiveMaxPooling3D, along one axis": Row(
        lambda: layers.AdaptiveMaxPooling3D(2), (4, 2, 2, 2), OVERWRITTEN, dtype="float32"
    ),
    # ---------------- recurrent
    "GRU": Row(lambda: layers.GRU(2, unroll=True), (2, 2)),
    "LSTM": Row(lambda: layers.LSTM(2, unroll=True, return_sequences=True), (2, 2)),
    "SimpleRNN": Row(lambda: layers.SimpleRNN(2, unroll=True), (2, 2)),
    "RNN": Row(lambda: layers.RNN(layers.SimpleRNNCell(2), unroll=True), (2, 2)),
    "GRU, a loop": Row(lambda: layers.GRU(2), (2, 2), LOOP),
    "StackedRNNCells": Row(
        lambda: layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)], unroll=True), (2, 2)
    ),
    "Bidirectional": Row(lambda: layers.Bidirectional(layers.SimpleRNN(2, unroll=True)), (3, 2)),
    "Bidirectional, a loop": Row(lambda: layers.Bidirectional(layers.LSTM(2)), (2, 2), LOOP),
    **convolutional_lstm(1),
    **convolutional_lstm(2),
    **convolutional_lstm(3),
    "Masking": Row(lambda: chain(layers.Masking(), layers.SimpleRNN(2, unroll=True)), (3, 2)),
    # ---------------- attention
    "AdditiveAttention": Row(lambda: of_two(layers.AdditiveAttention()), SEQUENCE),
    "Attention": Row(lambda: of_two(layers.Attention(use_scale=True)), SEQUENCE),
    "Attention, concat": Row(lambda: of_two(layers.Attention(score_mode="concat")), SEQUENCE),
    "GroupQueryAttention": Row(
        lambda: lambda x: layers.GroupQueryAttention(2, 4, 2)(x, x), SEQUENCE
    ),
    "MultiHeadAttention": Row(lambda: lambda x: layers.MultiHeadAttention(2, 2)(x, x), SEQUENCE),
    # ---------------- norms
    "BatchNormalization": Row(layers.BatchNormalization, faults=BY_DESIGN),
    "BatchNormalization, frozen": Row(lambda: layers.BatchNormalization(trainable=False), IMAGE),
    "GroupNormalization": Row(lambda: layers.GroupNormalization(2), (5, 4), MOMENTS),
    "LayerNormalization": Row(layers.LayerNormalization, faults=MOMENTS),
    "Normalization": Row(lambda: layers.Normalization(mean=[0.1] * 4, variance=[0.5] * 4)),
    "RMSNormalization": Row(layers.RMSNormalization),
    "UnitNormalization": Row(layers.UnitNormalization),
    # ---------------- of several
    **{
        name: Row(lambda name=name: of_two(getattr(layers, name)()))
        for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
    },
    "Dot": Row(lambda: of_two(layers.Dot(axes=-1)), SEQUENCE),
    # ---------------- shapes
    **each_rank("Cropping", 1),
    **each_rank("ZeroPadding", 1),
    **each_rank("UpSampling", 2),
    "Flatten": Row(layers.Flatten, SEQUENCE),
    "Identity": Row(layers.Identity),
    "Lambda": Row(lambda: layers.Lambda(lambda x: x**3)),
    "Permute": Row(lambda: layers.Permute((2, 1)), SEQUENCE),
    "RepeatVector": Row(lambda: layers.RepeatVector(2)),
    "Rescaling": Row(lambda: layers.Rescaling(2.0, 1.0)),
    "Reshape": Row(lambda: layers.Reshape((2, 2))),
    # ---------------- resizing
    **resizing("nearest", MISSING, "float64"),
    **resizing("bilinear", CONSTANT),
    **resizing("bicubic", MISSING),
    **resizing("lanczos3", MISSING),
    **resizing("lanczos5", MISSING),
    **resizing("area", NO_GRADIENT),
    "Resizing, antialias": Row(
        lambda: layers.Resizing(4, 3, antialias=True), IMAGE, MISSING, dtype="float32"
    ),
    **upsampling("bilinear", CONSTANT),
    **upsampling("bicubic", MISSING),
    **upsampling("lanczos3", MISSING),
    **upsampling("lanczos5", MISSING),
    "CenterCrop": Row(lambda: layers.CenterCrop(3, 3), IMAGE),
    "CenterCrop, larger": Row(lambda: layers.CenterCrop(6, 6), IMAGE, CONSTANT, dtype="float32"),
    # ---------------- inert here, where training=False
    "ActivityRegularization": Row(lambda: layers.ActivityRegularization(0.1), faults=BY_DESIGN),
    "AlphaDropout": Row(lambda: layers.AlphaDropout(0.3)),
    "Dropout": Row(lambda: layers.Dropout(0.3)),
    "GaussianDropout": Row(lambda: layers.GaussianDropout(0.3)),
    "GaussianNoise": Row(lambda: layers.GaussianNoise(0.3)),
    **each_rank("SpatialDropout", 0.3),
    **augmentation("AugMix", **RANGE),
    **augmentation("AutoContrast", **RANGE),
    **augmentation("ContrastLimitedAdaptiveHistogramEqualization", **RANGE, tile_grid_size=(2, 2)),
    **augmentation("CutMix"),
    **augmentation("MaxNumBoundingBoxes", 3),
    **augmentation("MixUp"),
    **augmentation("RandAugment", **RANGE),
    **augmentation("RandomBrightness", 0.2, **RANGE),
    **augmentation("RandomColorDegeneration", 0.2, **RANGE),
    **augmentation("RandomColorJitter", brightness_factor=0.2, **RANGE),
    **augmentation("RandomContrast", 0.2, **RANGE),
    **augmentation("RandomCrop", 5, 5),
    **augmentation("RandomElasticTransform", **RANGE),
    **augmentation("RandomErasing", **RANGE),
    **augmentation("RandomFlip"),
    **augmentation("RandomGaussianBlur", **RANGE),
    **augmentation("RandomGrayscale"),
    **augmentation("RandomHue", 0.2, **RANGE),
    **augmentation("RandomInvert", **RANGE),
    **augmentation("RandomPerspective"),
    **augmentation("RandomPosterization", 4, **RANGE),
    **augmentation("RandomRotation", 0.2),
    **augmentation("RandomSaturation", 0.2, **RANGE),
    **augmentation("RandomSharpness", 0.2, **RANGE),
    **augmentation("RandomShear", 0.2),
    **augmentation("RandomTranslation", 0.2, 0.2),
    **augmentation("RandomZoom", 0.2),
    **augmentation("Solarization", 0.1, 0.6, **RANGE),
    "Pipeline": Row(
        lambda: layers.Pipeline([layers.Rescaling(2.0), layers.RandomFlip()]),
        IMAGE,
        inputs="pictures",
    ),
    # ---------------- of numbers to codes, and of sounds
    "CategoryEncoding": Row(lambda: layers.CategoryEncoding(6, "count"), inputs="integers"),
    "Discretization": Row(lambda: layers.Discretization([-0.5, 0.0, 0.5])),
    "HashedCrossing": Row(
        lambda: lambda x: layers.HashedCrossing(5, output_mode="one_hot")((x[:, :1], x[:, 1:2])),
        inputs="integers",
    ),
    "Hashing": Row(lambda: layers.Hashing(5, output_mode="multi_hot"), inputs="integers"),
    "IntegerLookup": Row(
        lambda: layers.IntegerLookup(vocabulary=[0, 1, 2], output_mode="multi_hot"),
        inputs="integers",
    ),
    "MelSpectrogram": Row(
        lambda: layers.MelSpectrogram(8, 4, num_mel_bins=3, sampling_rate=100, power_to_db=False),
        (16,),
        dtype="float32",
    ),
    "STFTSpectrogram": Row(
        lambda: layers.STFTSpectrogram("log", frame_length=8, frame_step=4), (16, 1)
    ),
    # ---------------- of mlutils
    "mlutils.BatchNorm": Row(mlutils.BatchNorm),
}

STRINGS = "takes strings"
ELSEWHERE = "is a network of another library, or of a file"
BASE = "is a base class"
CELL = "stands in layers.RNN only, as in the rows of RNN and StackedRNNCells"
WHY_NOT = {
    "Equalization": "gives its own input as its output, which Keras 3.15 takes for a cycle",
    "FlaxLayer": ELSEWHERE,
    "GRUCell": CELL,
    "InputLayer": "begins every network here",
    "JaxLayer": ELSEWHERE,
    "LSTMCell": CELL,
    "Layer": BASE,
    "SimpleRNNCell": CELL,
    "StringLookup": STRINGS,
    "TFSMLayer": ELSEWHERE,
    "TextVectorization": STRINGS,
    "TorchModuleWrapper": ELSEWHERE,
    "Wrapper": BASE,
}


def test_every_layer_of_keras_is_in_the_table():
    names = {}
    for name, kind in vars(layers).items():
        if isinstance(kind, type) and issubclass(kind, layers.Layer):
            names.setdefault(kind, set()).add(name)
    here = {name.split(",")[0] for name in TABLE} | set(WHY_NOT)
    missing = [sorted(some) for some in names.values() if not some & here]
    assert not missing, f"Keras {keras.__version__} has {missing}: add rows to TABLE, or to WHY_NOT"


# ------------------------------------------------------------------ networks and tasks

WIDTH = 4  # of the inputs
CHUNK = {"float64": 4, "float32": 3}  # rows that share a network, where all are exact


@keras.saving.register_keras_serializable("tests.layers")
def unknown(x):
    """What a user may write: for all the package knows, it mixes the examples of a batch."""
    return tf.identity(x)


def network(rows, mixing=False):
    """``Input -> Dense -> layer -> Dense``, summed over rows; and which weights are the layers'."""
    integers = rows[0].inputs == "integers"
    inputs = keras.Input((WIDTH,), dtype="int32" if integers else None)
    outputs, before, through = [], set(), set()
    for row in rows:
        x = inputs
        if not integers:
            activation = "sigmoid" if row.inputs == "pictures" else "tanh"
            x = layers.Dense(math.prod(row.shape), activation)(x)
            x = layers.Reshape(row.shape)(x)
        y = row.make()(x)
        before |= {id(w) for w in keras.Model(inputs, x).trainable_variables}
        through |= {id(w) for w in keras.Model(inputs, y).trainable_variables}
        outputs.append(layers.Dense(3)(layers.Flatten()(y)))
    total = layers.Add()(outputs) if len(outputs) > 1 else outputs[0]
    model = keras.Model(inputs, layers.Activation(unknown)(total) if mixing else total)
    random = np.random.default_rng(0)
    for w in model.trainable_variables:  # off the zeros and ones that some begin with
        w.assign(w + 0.2 * random.normal(size=w.shape))
    return model, [id(w) in through - before for w in model.trainable_variables]


def episode(integers, tasks=2, support=4, queries=3):
    random = np.random.default_rng(1)

    def inputs(number):
        size = (tasks, number, WIDTH)
        return random.integers(6, size=size) if integers else random.normal(size=size)

    y, query_y = [[0, 1, 2, 1], [2, 0, 1, 1]], [[0, 1, 2], [1, 1, 0]]
    dtype = "int32" if integers else keras.config.floatx()
    x, query_x = (inputs(n).astype(dtype) for n in (support, queries))
    return (x, np.array(y), query_x), np.array(query_y)


# ------------------------------------------------------------------ plain Keras


def apply(model, x):
    return np.asarray(model(tf.constant(x), training=False), "float64")


def cross_entropy(logits, labels):
    chosen = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)[:, 0]
    top = logits.max(1)
    return np.mean(top + np.log(np.exp(logits - top[:, np.newaxis]).sum(1)) - chosen)


def prototypical_loss(model, x, y, query_x, query_y):
    support, queries = apply(model, x), apply(model, query_x)
    prototypes = np.stack([support[y == label].mean(0) for label in range(3)])
    distances = np.square(queries[:, np.newaxis] - prototypes).sum(-1)
    return cross_entropy(-distances, query_y)


def gradients(model, x, y):
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
            y, model(tf.constant(x), training=False)
        )
    found = tape.gradient(loss, variables, unconnected_gradients="zero")
    return [np.asarray(tf.convert_to_tensor(g)) for g in found]


def set_weights(model, weights):
    for variable, weight in zip(model.trainable_variables, weights, strict=True):
        variable.assign(weight)


def get_weights(model):
    return [variable.numpy() for variable in model.trainable_variables]


def after_inner_step(model, x, y, ask):
    """What ``ask()`` gives after an inner step on a task; the weights are then as before."""
    start = get_weights(model)
    moved = zip(start, gradients(model, x, y), strict=True)
    set_weights(model, [w - INNER_LR * g for w, g in moved])
    answer = ask()
    set_weights(model, start)
    return answer


def maml_loss(model, x, y, query_x, query_y):
    return after_inner_step(model, x, y, lambda: cross_entropy(apply(model, query_x), query_y))


def first_order(model, inputs, query_y):
    """The first-order meta-gradient: that of the queries, where the inner step leads."""
    return sum(
        after_inner_step(model, x, y, lambda q=q, t=t: flatten(gradients(model, q, t)))
        for *(x, y, q), t in zip(*inputs, query_y, strict=True)
    ) / len(query_y)


def differences(loss, model, inputs, query_y, directions, step):
    """Central differences of the mean loss of the tasks along some directions."""
    start = get_weights(model)

    def mean_at(direction, size):
        set_weights(model, [w + size * d for w, d in zip(start, direction, strict=True)])
        return np.mean([loss(model, *task) for task in zip(*inputs, query_y, strict=True)])

    slopes = [(mean_at(d, step) - mean_at(d, -step)) / (2 * step) for d in directions]
    set_weights(model, start)
    return np.array(slopes)


# ------------------------------------------------------------------ answers

STEP = {"float64": 1e-5, "float32": 1e-3}
TOLERANCE = {"float64": 1e-5, "float32": 1e-2}
FLOOR = {"float64": 1e-3, "float32": 0.3}  # of what an error is relative to, of the largest


def unit_directions(model, own):
    """Two of all weights and one of the layers' own, each of length one."""
    random = np.random.default_rng(2)
    where = [[True] * len(own)] * 2 + [own] * any(own)
    for some in where:
        parts = [
            random.normal(size=w.shape) * s
            for w, s in zip(model.trainable_variables, some, strict=True)
        ]
        yield [part / np.linalg.norm(flatten(parts)) for part in parts]


def learner_of(question, model):
    """The learner, and what the package says of its network."""
    names = {type(layer).__name__ for layer in model._flatten_layers(include_self=False)}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        learner = LEARNERS[question](model)
    warned = any(name in str(w.message) for w in heard for name in names)
    learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return learner, "warned" if warned else "accepted"


def says(question, row):
    """What the package does with a layer: ``"refused"``, ``"warned"`` or ``"accepted"``."""
    try:
        return learner_of(question, network([row], question == "apart")[0])[1]
    except ValueError:
        return "refused"


def largest_error(question, rows):
    """Between a learner's derivatives and those of plain Keras, relative to each."""
    model, own = network(rows, question == "apart")
    inputs, query_y = episode(rows[0].inputs == "integers")
    directions = list(unit_directions(model, own))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner, _ = learner_of(question, model)
        found = flatten(learner.meta_gradients((inputs, query_y))[1])
    along = [found @ flatten(direction) for direction in directions]
    if question == "first order":
        gradient = first_order(model, inputs, query_y)
        right = np.array([gradient @ flatten(direction) for direction in directions])
    else:
        loss = maml_loss if question == "second order" else prototypical_loss
        step = STEP[rows[0].dtype]
        right = differences(loss, model, inputs, query_y, directions, step)
    scale = np.maximum(np.abs(right), FLOOR[rows[0].dtype] * np.abs(right).max())
    return np.max(np.abs(along - right) / scale)


def truth(question, rows):
    """``"exact"``, ``"wrong"`` or the name of an exception."""
    try:
        error = largest_error(question, rows)
    except Exception as error:
        return type(error).__name__
    return "exact" if error < TOLERANCE[rows[0].dtype] else "wrong"


@pytest.fixture
def precision(request):
    def set_to(dtype):
        if dtype == "float64":
            request.getfixturevalue("float64")

    return set_to


def chunks(question):
    """The names of rows that are exact, some together."""
    kinds = {}
    for name, row in TABLE.items():
        asked = {"together", "second order", *["first order"] * bool(row.faults)} - set(row.faults)
        if question in asked:
            kinds.setdefault((row.inputs == "integers", row.dtype), []).append(name)
    sizes = {kind: CHUNK[kind[1]] for kind in kinds}
    return [
        names[i : i + sizes[kind]]
        for kind, names in kinds.items()
        for i in range(0, len(names), sizes[kind])
    ]


@pytest.mark.parametrize(
    "question, names",
    [
        pytest.param(question, names, id=f"{question}: {names[0]} and {len(names) - 1} more")
        for question in QUESTIONS
        for names in chunks(question)
    ],
)
def test_exact_layers(question, names, precision):
    """Accepted and exact; several layers share a network, and are asked alone if it is not."""
    rows = [TABLE[name] for name in names]
    precision(rows[0].dtype)
    if truth(question, rows) != "exact":
        answers = {name: truth(question, [TABLE[name]]) for name in names}
        assert set(answers.values()) != {"exact"}, (
            f"{question}: only together are {names} not exact"
        )
        pytest.fail(f"{question}: { ({n: a for n, a in answers.items() if a != 'exact'}) }")


FAULTS = [
    pytest.param(name, question, fault, id=f"{name}, {question}")
    for name, row in TABLE.items()
    for question, fault in row.faults.items()
]


@pytest.mark.parametrize("name, question, fault", FAULTS)
def test_what_the_package_says(name, question, fault, precision):
    precision(TABLE[name].dtype)
    assert says(question, TABLE[name]) == fault.says


@pytest.mark.parametrize("name, question, fault", [f for f in FAULTS if f.values[2].truth])
def test_what_would_come_out(name, question, fault, precision, monkeypatch):
    """If this fails, Keras or TensorFlow has changed: what the package says may be out of date."""
    for place in ("maml.maml.check_adaptable", "few_shot.encoder_learner.check_network"):
        monkeypatch.setattr(f"mlutils.{place}", lambda *args: None)
    precision(TABLE[name].dtype)
    assert truth(question, [TABLE[name]]) == fault.truth
