"""Drawings moved a little: to learn from, and to look at more than once."""

import keras
import numpy as np
import tensorflow as tf

from mlutils.door.networks import check_network
from mlutils.door.numbers import check_rate
from mlutils.door.tasks import as_inputs, as_tensor, finite, shape_of
from mlutils.networks import WithNetworks

# Rotation and slant, in radians, of each look.
LOOKS = ((0.0, 0.0), (0.12, 0.0), (-0.12, 0.0), (0.0, 0.15), (0.0, -0.15))


def moved(images, rotation=0.0, slant=0.0, stretch=0.0, shift=0.0):
    """Turn, slant, stretch and shift images about their centre.

    Args:
        images: float ``(n, height, width, channels)``; what comes in from outside is 0.
        rotation: radians, to the right; ``(n,)``, or one for all.
        slant: shear in radians; likewise.
        stretch: logarithms of the factors by which height and width grow, ``(n, 2)``; likewise.
        shift: pixels down and to the right, ``(n, 2)``; likewise.

    Returns:
        Images of the same shape.
    """
    images = read_images(images)
    count = tf.shape(images)[0]
    options = {"rotation": rotation, "slant": slant, "stretch": stretch, "shift": shift}
    for name, value in options.items():
        value = finite(name, tf.cast(as_tensor(name, value), tf.float32))
        allowed = [images.shape[0], 2][: 1 + (name in ("stretch", "shift"))]
        shapes = [], allowed[1:], allowed
        if not any(value.shape.is_compatible_with(shape) for shape in shapes):
            raise ValueError(
                f"{name} has shape {value.shape}; allowed are a number and {tuple(allowed)}, for "
                f"images of shape {images.shape}."
            )
        options[name] = value
    rotation, slant, stretch, shift = options.values()
    rotation, slant = (tf.broadcast_to(value, (count,)) for value in (rotation, slant))
    stretch, shift = (tf.broadcast_to(value, (count, 2)) for value in (stretch, shift))
    middle = tf.constant([images.shape[2] - 1, images.shape[1] - 1], tf.float32) / 2  # x, y
    # Where a new pixel's colour comes from: undo the shift, the rotation, the slant, the stretch.
    cos, sin = tf.cos(rotation), tf.sin(rotation)
    turn = tf.stack([tf.stack([cos, sin], -1), tf.stack([-sin, cos], -1)], axis=1)
    ones, zeros = tf.ones_like(slant), tf.zeros_like(slant)
    lean = tf.stack([tf.stack([ones, tf.tan(slant)], -1), tf.stack([zeros, ones], -1)], axis=1)
    matrix = tf.exp(-stretch[:, ::-1])[..., tf.newaxis] * tf.matmul(lean, turn)
    offset = middle - tf.linalg.matvec(matrix, middle + shift[:, ::-1])
    rows = tf.concat([matrix, offset[..., tf.newaxis]], axis=2)
    transforms = tf.concat([tf.reshape(rows, (-1, 6)), tf.zeros((count, 2))], axis=1)
    return keras.ops.image.affine_transform(images, transforms)


def read_images(images):
    """Images as a tensor of floats ``(n, height, width, channels)``, bytes as 0..1."""
    images = as_inputs("images", images, tf.float32)
    if images.shape.rank != 4:
        raise ValueError(f"images has shape {images.shape}; allowed is (n, height, width, c).")
    return images


def randomly_moved(images, rotation=0.15, slant=0.15, stretch=0.12, shift=1.5):
    """Every image moved in its own way, normally distributed.

    Args:
        images: as for ``moved``.
        rotation, slant, stretch, shift: the standard deviations of what ``moved`` takes.

    Returns:
        Images of the same shape.
    """
    images = read_images(images)
    count = tf.shape(images)[0]
    spreads = {"rotation": rotation, "slant": slant, "stretch": stretch, "shift": shift}
    rotation, slant, stretch, shift = (check_rate(*pair) for pair in spreads.items())

    def normal(spread, *shape):
        return spread * tf.random.normal((count, *shape))

    return moved(images, normal(rotation), normal(slant), normal(stretch, 2), normal(shift, 2))


@keras.saving.register_keras_serializable(package="mlutils")
class AverageOverViews(WithNetworks, keras.Model):
    """An encoder that looks at every image five times, turned or slanted a little.

    The five embeddings, each scaled to length one, are averaged.  It takes five times as long, and
    holds ``5 (height width)^2`` numbers: 12 MB for images of 28 x 28.

    Args:
        encoder: a built Keras model from images ``(batch, height, width, 1)`` to embeddings
            ``(batch, features)``.

    Example:
        >>> encoder = mlutils.conv4((28, 28, 1), filters=4)
        >>> views = mlutils.one_shot.AverageOverViews(encoder)
        >>> x = np.zeros((3, 28, 28, 1))
        >>> tuple(encoder(x).shape), tuple(views(x).shape)
        ((3, 4), (3, 4))
    """

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        check_network(encoder, "encoder")
        self.encoder = encoder
        takes, gives = (shape_of(encoder, f"{end}put_shape") for end in ("in", "out"))
        single = takes is not None and takes.rank == 4 and takes[1:].is_fully_defined()
        if not single or takes[-1] != 1 or gives.rank != 2 or gives[1] is None:
            raise ValueError(
                f"The encoder maps {takes} to {gives}; it must map images (None, height, width, 1) "
                "to embeddings (None, features), all known: pass a Sequential or functional model "
                "that ends with Flatten or Dense."
            )
        height, width = takes[1:3]
        # Moving is linear in the pixels: a matrix does it, to many tasks at once.
        single = np.eye(height * width, dtype=np.float32).reshape(-1, height, width, 1)
        moves = [moved(single, *look).numpy().reshape(height * width, -1) for look in LOOKS]
        self.moves = tf.constant(np.concatenate(moves, axis=1))
        self.built = True

    @property
    def input_shape(self):
        return self.encoder.input_shape

    @property
    def output_shape(self):
        return self.encoder.output_shape

    def call(self, images, training=None):
        height, width, _ = self.input_shape[1:]
        pixels = tf.reshape(images, (-1, height * width))
        views = tf.reshape(tf.matmul(pixels, self.moves), (-1, height, width, 1))
        embeddings = tf.math.l2_normalize(self.encoder(views, training=False), axis=-1)
        return tf.reduce_mean(
            tf.reshape(embeddings, (-1, len(LOOKS), embeddings.shape[-1])), axis=1
        )
