"""The networks of ``keras.applications`` as encoders: are their gradients those of plain Keras?

    python -m benchmarks.applications

Each stands, with its norms frozen and weights drawn at random, in a prototypical network on two
2-way 1-shot tasks.  The meta-gradient is compared with that of the same loss written in plain
Keras, one task after another, both in double precision: in single precision a deep network's two
gradients may differ by rounding alone (InceptionV3's by one part in a hundred).  The result goes
to benchmarks/results/applications.json.
"""

import json
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
import tensorflow as tf

RESULT = Path(__file__).parent / "results" / "applications.json"
SIZES = {  # the least pixels a side that each takes, 32 for most
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "InceptionV3": 75,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}
BYTES = ("ConvNeXtTiny", "EfficientNetB0", "MobileNetV3Small")  # these take pixels 0 to 255
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SCALE = 0.1


def encoder_of(name, size):
    """A network whose norms are frozen."""
    options = {"weights": None, "include_top": False, "pooling": "avg"}
    encoder = getattr(keras.applications, name)(input_shape=(size, size, 3), **options)
    for layer in encoder._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return encoder


def plain_gradients(encoder, x, y, query_x, query_y):
    """The meta-gradient by plain Keras."""
    with tf.GradientTape() as tape:
        total = 0.0
        for task in range(len(x)):
            support, queries = (encoder(v[task], training=False) for v in (x, query_x))
            means = tf.stack([support[list(y[task]).index(label)] for label in (0, 1)])  # one shot
            distances = tf.reduce_sum(tf.square(queries[:, None] - means), axis=-1)
            total += LOSS(query_y[task], -SCALE * distances) / len(x)
    variables = [v.value for v in encoder.trainable_variables]
    return tape.gradient(total, variables, unconnected_gradients="zero")


def length(tensors):
    return float(np.sqrt(sum(np.square(np.asarray(t, "float64")).sum() for t in tensors)))


def difference(name, size):
    """Between the two gradients, relative to the second; or why the network is refused."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    most = 255 if name in BYTES else 1
    x, query_x = (most * random.random((2, 2, size, size, 3)) for _ in range(2))
    y, query_y = np.array([[0, 1], [1, 0]]), np.array([[1, 0], [1, 0]])
    encoder = encoder_of(name, size)
    try:
        learner = mlutils.PrototypicalNetwork(encoder, scale=SCALE, transductive=True)
    except ValueError as error:
        return str(error)
    learner.compile(loss=LOSS)
    _, found = learner.meta_gradients(((x, y, query_x), query_y))
    right = plain_gradients(encoder, x, y, query_x, query_y)
    return length([a - b for a, b in zip(found, right, strict=True)]) / length(right)


def main():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    found = {}
    for name, size in SIZES.items():
        found[name] = difference(name, size)
        keras.utils.clear_session()
        print(name, found[name], flush=True)
    record = {"command": "python -m benchmarks.applications", "keras": keras.__version__}
    text = json.dumps({**record, "differences": found}, indent=1)
    RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
