"""Update rules with weights of their own: pure functions (gradient, state) -> (update, state)."""

import math
from pathlib import Path

import keras
import tensorflow as tf

from mlutils.door.numbers import (
    check_count,
    check_counts,
    check_option,
    check_positive,
    check_share,
)
from mlutils.door.tasks import as_tensor
from mlutils.inner_loop import UpdateRule


@keras.saving.register_keras_serializable(package="mlutils")
class MomentumRule(UpdateRule):
    """Gradient descent with momentum, nothing of it learned.

    Args:
        learning_rate: positive.
        momentum: the share of the last update that is kept, from 0 to 1.

    Example:
        >>> rule = mlutils.MomentumRule(learning_rate=0.5, momentum=0.5)
        >>> state, gradient = rule.initial_state((1,)), tf.constant([1.0])
        >>> for step in range(3):
        ...     update, state = rule(gradient, state)
        ...     print(update.numpy())
        ...
        [-0.5]
        [-0.75]
        [-0.875]
    """

    def __init__(self, learning_rate=0.01, momentum=0.9, **kwargs):
        super().__init__(**kwargs)
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.momentum = check_share("momentum", momentum)
        self.built = True

    def initial_state(self, shape):
        return (tf.zeros(shape, self.compute_dtype),)

    def call(self, gradient, state):
        velocity = self.momentum * state[0] - self.learning_rate * gradient
        return velocity, (velocity,)

    def get_config(self):
        options = {"learning_rate": self.learning_rate, "momentum": self.momentum}
        return {**super().get_config(), **options}


@keras.saving.register_keras_serializable(package="mlutils")
class AdamRule(UpdateRule):
    """Adam (Kingma & Ba, ICLR 2015) as a pure function, nothing of it learned.

    ``epsilon`` stands inside the root, whose second derivative is then finite where a gradient
    is 0.

    Args:
        learning_rate: positive.
        beta_1, beta_2: how slowly the means of the gradient and of its square are forgotten,
            from 0 to 1.
        epsilon: positive.

    Example:
        >>> rule = mlutils.AdamRule(learning_rate=0.1)
        >>> update, state = rule(tf.constant([3.0, -0.5]), rule.initial_state((2,)))
        >>> print(update.numpy().round(2))  # at first whatever the size of the gradient
        [-0.1  0.1]
    """

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **kwargs):
        super().__init__(**kwargs)
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.beta_1, self.beta_2 = check_share("beta_1", beta_1), check_share("beta_2", beta_2)
        self.epsilon = check_positive("epsilon", epsilon)
        self.built = True

    def initial_state(self, shape):
        """Both means, and the number of steps."""
        zeros = tf.zeros(shape, self.compute_dtype)
        return zeros, zeros, tf.zeros((), self.compute_dtype)

    def call(self, gradient, state):
        mean, square, steps = state
        mean = self.beta_1 * mean + (1 - self.beta_1) * gradient
        square = self.beta_2 * square + (1 - self.beta_2) * gradient**2
        steps += 1
        rate = self.learning_rate * tf.sqrt(1 - self.beta_2**steps) / (1 - self.beta_1**steps)
        update = -rate * mean * tf.math.rsqrt(square + self.epsilon**2)
        return update, (mean, square, steps)

    def get_config(self):
        options = ("learning_rate", "beta_1", "beta_2", "epsilon")
        return {**super().get_config(), **{name: getattr(self, name) for name in options}}


@keras.saving.register_keras_serializable(package="mlutils")
class LSTMRule(UpdateRule):
    """An LSTM that reads a coordinate's gradients and writes its updates (:eq:`eq-lstm-rule`).

    Its weights are shared by all coordinates, its state is kept for each of them by itself
    (Andrychowicz et al., NeurIPS 2016).  A gradient enters as ``log_and_sign``.

    Args:
        units: of each LSTM layer.
        layers: how many of them.
        output_scale: what the last, linear layer's output is multiplied by.
        p: of ``log_and_sign``.

    Example:
        >>> rule = mlutils.LSTMRule(units=20)
        >>> update, state = rule(tf.constant([3.0, -0.5]), rule.initial_state((2,)))
        >>> tuple(update.shape), len(rule.trainable_variables)
        ((2,), 8)
    """

    def __init__(self, units=20, layers=2, output_scale=0.1, p=10.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.p = check_count("units", units), check_p(p)
        self.output_scale = check_positive("output_scale", output_scale)
        dtype = self.dtype_policy
        self.cells = [
            keras.layers.LSTMCell(self.units, dtype=dtype)
            for _ in range(check_count("layers", layers))
        ]
        self.head = keras.layers.Dense(1, dtype=dtype)
        for cell, inputs in zip(self.cells, [2] + [self.units] * (layers - 1), strict=True):
            cell.build((None, inputs))
        self.head.build((None, self.units))
        self.built = True

    def initial_state(self, shape):
        """Zeros: of each layer its output and its memory, each ``(*shape, units)``."""
        zeros = tf.zeros((*shape, self.units), self.compute_dtype)
        return (zeros,) * (2 * len(self.cells))

    def call(self, gradient, state):
        values = tf.reshape(log_and_sign(gradient, self.p), (-1, 2))
        flat = [tf.reshape(x, (-1, self.units)) for x in state]
        new = []
        for cell, output, memory in zip(self.cells, flat[::2], flat[1::2], strict=True):
            values, state_of_cell = cell(values, [output, memory])
            new += state_of_cell
        update = shaped_like(gradient, self.output_scale * self.head(values))
        return update, tuple(map(shaped_like, state, new))

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "layers": len(self.cells),
            "output_scale": self.output_scale,
            "p": self.p,
        }


@keras.saving.register_keras_serializable(package="mlutils")
class MLPRule(UpdateRule):
    """A small network without a memory of its own: it reads running means (:eq:`eq-mlp-rule`).

    What a coordinate's gradients were is summed up by their running means at several time scales
    and by one of their squares, as momentum and Adam do; the network makes an update of these, of
    the present gradient, of its size and of the time.  All coordinates share its weights.  A small
    relative of the rules of Metz et al. (2019, 2020), which read more.

    Args:
        hidden: units of the hidden layers.
        decays: how slowly each mean of the gradient is forgotten, from 0 to 1.
        square_decay: the same for the mean of the squared gradient.
        output_scale: what the update is multiplied by.
        p: sizes below exp(-p) count as small.

    Example:
        >>> rule = mlutils.MLPRule()
        >>> update, state = rule(tf.constant([3.0, -0.5]), rule.initial_state((2,)))
        >>> tuple(update.shape), len(rule.trainable_variables)
        ((2,), 6)
    """

    def __init__(
        self,
        hidden=(16, 16),
        decays=(0.5, 0.9, 0.99),
        square_decay=0.99,
        output_scale=0.1,
        p=10.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden = check_counts("hidden", hidden)
        if not isinstance(decays, (tuple, list)) or not decays:
            raise ValueError(f"decays must be a tuple of shares, at least one, got {decays!r}.")
        self.decays = tuple(check_share("decays", decay) for decay in decays)
        self.square_decay = check_share("square_decay", square_decay)
        self.output_scale, self.p = check_positive("output_scale", output_scale), check_p(p)
        dtype, inputs = self.dtype_policy, len(self.decays) + 4
        self.layers_of_net = [
            keras.layers.Dense(n, activation="relu", dtype=dtype) for n in self.hidden
        ] + [keras.layers.Dense(2, dtype=dtype)]
        for layer, size in zip(self.layers_of_net, (inputs, *self.hidden), strict=True):
            layer.build((None, size))
        self.built = True

    def initial_state(self, shape):
        """The means, ``(*shape, decays)``, the mean square, and the number of steps."""
        zeros = tf.zeros(shape, self.compute_dtype)
        return tf.stack([zeros] * len(self.decays), -1), zeros, tf.zeros((), self.compute_dtype)

    def call(self, gradient, state):
        """The update is ``output_scale * direction * exp(size)``, both from the network."""
        means, square, steps = state
        decays = tf.constant(self.decays, means.dtype)
        means = decays * means + (1 - decays) * gradient[..., None]
        square = self.square_decay * square + (1 - self.square_decay) * gradient**2
        steps += 1
        # Of a mean that began at 0, what it lacks is known, as in Adam.
        whole = means / (1 - decays**steps)
        variance = square / (1 - self.square_decay**steps) + math.exp(-2 * self.p)
        relative = tf.concat([gradient[..., None], whole], -1) * tf.math.rsqrt(variance)[..., None]
        size_and_time = tf.stack(
            [tf.math.log(variance) / (2 * self.p), *self.clock(gradient, steps)], -1
        )
        values = tf.reshape(tf.concat([relative, size_and_time], -1), (-1, len(self.decays) + 4))
        for layer in self.layers_of_net:
            values = layer(values)
        update = self.output_scale * values[:, 0] * tf.exp(values[:, 1])
        return shaped_like(gradient, update), (means, square, steps)

    def clock(self, gradient, steps):
        """The time on two scales, for every coordinate."""
        return [tf.fill(tf.shape(gradient), tf.tanh(steps / scale)) for scale in (10.0, 100.0)]

    def get_config(self):
        names = ("hidden", "decays", "square_decay", "output_scale", "p")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def shaped_like(example, values):
    """``values`` in the shape of ``example``, as far as that is known also statically."""
    return tf.ensure_shape(tf.reshape(values, tf.shape(example)), example.shape)


def log_and_sign(gradient, p=10.0):
    """A gradient as two numbers of moderate size, whatever its own (:eq:`eq-log-and-sign`).

    ``(log|g| / p, sign g)`` where ``|g| >= exp(-p)``, else ``(-1, exp(p) g)``: continuous, and
    useful over many orders of magnitude (Andrychowicz et al. 2016, appendix A).

    Args:
        gradient: ``(...)``.
        p: positive, at most 80: magnitudes below exp(-p) count as small.

    Returns:
        ``(..., 2)``.
    """
    p = check_p(p)
    gradient = as_tensor("gradient", gradient)
    if not gradient.dtype.is_floating:
        raise TypeError(f"gradient must be floats, got {gradient.dtype.name}.")
    smallest = math.exp(-p)
    size = tf.abs(gradient)
    large = size >= smallest
    # The maximum keeps log(0), whose gradient is not a number, out of the branch not taken.
    log = tf.math.log(tf.maximum(size, smallest)) / p
    direction = tf.where(large, tf.sign(gradient), gradient / smallest)
    return tf.stack([log, direction], axis=-1)


def check_p(p):
    """``p`` as a float, or a ValueError; exp(-p) must be a number of float32."""
    if check_positive("p", p) > 80:
        raise ValueError(f"p must be at most 80, got {p!r}.")
    return float(p)


def trained_rule(name):
    """A rule that was trained by ``benchmarks/train_rules.py`` and comes with the package.

    Args:
        name: "digits", an ``LSTMRule`` trained on 3,000 runs of 100 steps of
            ``NetworkTraining(*mlutils.data.digits())``.
    """
    files = {path.stem: path for path in (Path(__file__).parent / "trained").glob("*.keras")}
    return keras.saving.load_model(files[check_option("name", name, sorted(files))])
