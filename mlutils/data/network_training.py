"""Training a small network as a function to minimise: what learned optimizers are for."""

import itertools
import math

import keras
import numpy as np
import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.functions import read_theta
from mlutils.door.numbers import check_count, check_counts, check_seed
from mlutils.door.tasks import as_inputs, as_tensor


class NetworkTraining:
    """Functions ``f(theta)``: the loss of a multilayer perceptron (:eq:`eq-network-training`).

    theta holds all weights of the network in one vector, layer by layer, each kernel followed by
    its bias.  f is the mean cross-entropy over a mini-batch, another one at each step; functions
    differ by their theta_0, drawn as Keras draws a ``Dense`` layer's weights, and by their
    mini-batches.

    Args:
        x: inputs, ``(examples, ...)``, flattened here.
        y: integer labels from 0, ``(examples,)``.
        hidden: units of each hidden layer.
        activation: of the hidden layers, as Keras names them.
        batch: examples per mini-batch, drawn with replacement.

    Example:
        >>> x, y = np.zeros((100, 64)), np.arange(100) % 10
        >>> family = mlutils.data.NetworkTraining(x, y, hidden=(20,))
        >>> family.dimension  # 64 * 20 + 20 + 20 * 10 + 10
        1510
    """

    def __init__(self, x, y, hidden=(20,), activation="sigmoid", batch=128):
        x, y = as_inputs("x", x, tf.float32).numpy().astype(np.float32), as_tensor("y", y).numpy()
        fits = x.ndim and len(x) and y.shape == x.shape[:1] and y.dtype.kind in "iu"
        if not fits or y.min() < 0 or y.max() >= len(y):
            raise ValueError(
                "x and y must be (examples, ...) and as many integer labels 0..N-1; got shapes "
                f"{x.shape} and {y.shape}, y of dtype {y.dtype}."
            )
        x, y = x.reshape(len(x), -1), y.astype(np.int32)
        self.x, self.y = tf.constant(x), tf.constant(y)  # once, not in every graph
        hidden = check_counts("hidden", hidden)
        self.sizes = (x.shape[1], *hidden, int(y.max()) + 1)
        self.activation = keras.activations.get(activation)
        self.batch = check_count("batch", batch)

    @property
    def shapes(self):
        """The shapes of kernels and biases, in theta's order."""
        pairs = itertools.pairwise(self.sizes)
        return [shape for n, m in pairs for shape in ((n, m), (m,))]

    @property
    def dimension(self):
        """The number of coordinates of theta."""
        return sum(map(math.prod, self.shapes))

    def problems(self, functions=8, seed=0):
        """Endless batches of functions, and where to start on them.

        Args:
            functions: per batch.
            seed: 0 to 2**32 - 1; the same seed gives the same batches.

        Returns:
            A ``tf.data.Dataset`` of ``(theta_0, key)``: float32 ``(functions, dimension)``, and
            int64 ``(2,)``, from which ``values`` draws the mini-batches.
        """
        functions, seed = check_count("functions", functions), check_seed(seed)

        def sample(draws):
            parts = []
            for shape in self.shapes:
                limit = math.sqrt(6 / sum(shape)) if len(shape) == 2 else 0.0
                parts.append(draws.uniform((functions, math.prod(shape)), -limit, limit))
            return tf.concat(parts, axis=1), draws.seeds()

        return endless(sample, seed)

    def predict(self, theta, x):
        """The networks' outputs, logits.

        Args:
            theta: ``(functions, dimension)``.
            x: ``(functions, batch, inputs)``.

        Returns:
            ``(functions, batch, classes)``.
        """
        theta = read_theta(theta)
        if theta.shape[1] not in (None, self.dimension):
            raise ValueError(
                f"theta has shape {theta.shape}; allowed is (functions, {self.dimension})."
            )
        parts = tf.split(theta, [math.prod(shape) for shape in self.shapes], axis=1)
        for layer, (kernel, bias) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
            if layer:
                x = self.activation(x)
            kernel = tf.reshape(kernel, (-1, *self.shapes[2 * layer]))
            x = tf.matmul(x, kernel) + bias[:, None]
        return x

    def mini_batches(self, functions, key, step):
        """``(x, y)`` of shapes ``(functions, batch, inputs)`` and ``(functions, batch)``."""
        key = tf.random.experimental.stateless_fold_in(key, tf.cast(step, tf.int32))
        drawn = tf.random.stateless_uniform(
            (functions, self.batch), key, 0, len(self.x), dtype=tf.int32
        )
        return tf.gather(self.x, drawn), tf.gather(self.y, drawn)

    def values(self, theta, key, step):
        """f(theta) of each function on the mini-batch of a step.

        Args:
            theta: ``(functions, dimension)``.
            key: from ``problems``.
            step: which mini-batch, a scalar integer.

        Returns:
            ``(functions,)``.
        """
        theta = read_theta(theta)
        x, y = self.mini_batches(tf.shape(theta)[0], key, step)
        logits = self.predict(theta, tf.cast(x, theta.dtype))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        return tf.reduce_mean(losses, axis=1)
