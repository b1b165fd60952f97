"""Update rules with weights of their own: pure functions (gradient, state) -> (update, state)."""

import math
from pathlib import Path

import keras
import tensorflow as tf

from mlutils.checks import check_count, check_finite, check_option, check_positive


class UpdateRule(keras.Model):
    """What a learned optimizer learns: theta_t = theta_{t-1} + g_t (:eq:`eq-update-rule`).

    A subclass defines ``initial_state`` and ``call``, both pure: the state goes in and comes
    out, nothing is assigned.  The rule's weights, ``trainable_variables``, are the
    meta-parameters phi; make them in ``__init__``.  ``save(path)`` and
    ``keras.saving.load_model(path)`` keep a rule whose class is registered with Keras and has a
    ``get_config``.
    """

    def __init__(self, **kwargs):
        # Gradients span more than float16 can: a mixed policy is not for rules.
        kwargs.setdefault("dtype", keras.config.floatx())
        super().__init__(autocast=False, **kwargs)

    def initial_state(self, shape):
        """The state h_0 before any gradient was seen.

        Args:
            shape: of the gradients to come.

        Returns:
            A tuple of tensors, maybe empty.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define initial_state.")

    def call(self, gradient, state):
        """One step of the rule.

        Args:
            gradient: of any shape.
            state: as ``initial_state`` and earlier calls gave it.

        Returns:
            ``(update, state)``: what to *add* to the parameters, of the gradient's shape, and
            the new state.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define call.")


@keras.saving.register_keras_serializable(package="mlutils")
class StepSize(UpdateRule):
    """Gradient descent whose step size is learned: ``-alpha * gradient`` (:eq:`eq-step-size`).

    Args:
        initial: alpha before meta-training, a finite number.
        coordinates: None for one step size; a number n for one of each of the n coordinates
            (the last axis of the gradients).

    Raises:
        ValueError: if ``initial`` is not finite or ``coordinates`` not a positive integer.
    """

    def __init__(self, initial=0.01, coordinates=None, **kwargs):
        super().__init__(**kwargs)
        self.initial = check_finite("initial", initial)
        if coordinates is not None:
            coordinates = check_count("coordinates", coordinates)
        self.coordinates = coordinates
        self.alpha = self.add_weight(
            shape=() if coordinates is None else (coordinates,),
            initializer=lambda shape, dtype: tf.fill(shape, tf.constant(self.initial, dtype)),
            name="alpha",
        )
        self.built = True

    def initial_state(self, shape):
        return ()

    def call(self, gradient, state=()):
        if self.coordinates not in (None, *gradient.shape[-1:]):
            raise ValueError(
                f"The rule has {self.coordinates} step sizes, one of each coordinate; the "
                f"gradient has shape {tuple(gradient.shape)}, whose last axis must be that long."
            )
        return -self.alpha * gradient, state

    def get_config(self):
        return {
            **super().get_config(),
            "initial": self.initial,
            "coordinates": self.coordinates,
        }


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

    Raises:
        ValueError: if a number is out of range.
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

    Raises:
        ValueError: if ``p`` is out of range.
    """
    p = check_p(p)
    gradient = tf.convert_to_tensor(gradient)
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

    Raises:
        ValueError: for an unknown name.
    """
    files = {path.stem: path for path in (Path(__file__).parent / "trained").glob("*.keras")}
    return keras.saving.load_model(files[check_option("name", name, sorted(files))])
