"""What a learner has made of one task, as a Keras model that saves, and exports, by itself."""

import inspect

import keras
import tensorflow as tf

from mlutils.door import tasks as door
from mlutils.door.losses import SPARSE
from mlutils.networks import normalises


@keras.saving.register_keras_serializable(package="mlutils")
class AdaptedModel(keras.Model):
    """A learner adapted to one task; ``learner.adapted_model(support_x, support_y)`` makes it.

    It holds a learner, of which ``adapted_model`` makes a copy for it, and, as weights that nothing
    trains, what ``keep`` kept of the support set.  Its call is ``recall``.  Saved, it loads
    wherever ``mlutils`` is imported; exported, it needs nothing of it.

    In Python it divides bytes (uint8) by 255; what it exports does not.  For a file that takes
    bytes put the division before it: ``keras.Sequential([keras.Input(shape, dtype="uint8"),
    keras.layers.Rescaling(1 / 255), model])``.

    Args:
        learner: which answers; held as it is, not copied.
        kept: what the learner's ``keep`` returned; or the shape and dtype of each of its tensors,
            in the same nest.

    Example:
        >>> encoder = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
        >>> learner = mlutils.PrototypicalNetwork(encoder)
        >>> model = learner.adapted_model([[0.0], [2.0], [9.0]], [0, 0, 1])
        >>> model.predict(np.array([[3.0]]), verbose=0).tolist()  # prototypes 1 and 9
        [[-4.0, -36.0]]
    """

    def __init__(self, learner, kept, **kwargs):
        kwargs.setdefault("dtype", learner.variable_dtype)
        super().__init__(autocast=False, **kwargs)
        self.learner = learner
        flat = tf.nest.flatten(kept)
        self.nest = tf.nest.pack_sequence_as(kept, list(range(len(flat))))
        self.kept = [
            self.add_weight(
                shape=tuple(part.shape),
                dtype=part.dtype.name,
                initializer="zeros",
                trainable=False,
                name=f"kept_{i}",
            )
            for i, part in enumerate(flat)
        ]
        for weight, part in zip(self.kept, flat, strict=True):
            if tf.is_tensor(part):
                weight.assign(part)
        self.built = True

    def __call__(self, inputs, *args, **options):
        """``call``, after the door: bytes become 0..1, and a wrong shape raises a ValueError."""
        if not isinstance(inputs, keras.KerasTensor):  # of a functional model
            inputs = read_inputs(self.learner, inputs)
        return super().__call__(inputs, *args, **options)

    def call(self, inputs, training=None):
        """The learner's predictions ``(batch, ...)`` of inputs ``(batch, ...)``."""
        flat = [tf.convert_to_tensor(weight) for weight in self.kept]
        return self.learner.recall(tf.nest.pack_sequence_as(self.nest, flat), inputs)

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **more):
        """Keras's; the shape of an input is the network's, if that knows it."""
        spec = input_spec(self.learner.sees()[1], self.compute_dtype)
        if input_signature is None and spec is None:
            raise ValueError(
                "Which shape has an input of this model? Its network does not know: pass "
                "input_signature=[tf.TensorSpec((None, ...), dtype)]."
            )
        signature = input_signature or [tf.TensorSpec([None, *spec.shape], spec.dtype)]
        super().export(filepath, format, verbose, signature, **more)

    def get_config(self):
        specs = [[list(weight.shape), weight.dtype] for weight in self.kept]
        return {
            **super().get_config(),
            "learner": keras.saving.serialize_keras_object(self.learner),
            "nest": keras.saving.serialize_keras_object(self.nest),
            "specs": specs,
        }

    @classmethod
    def from_config(cls, config):
        config = {**config}
        learner, nest = (
            keras.saving.deserialize_keras_object(config.pop(name)) for name in ("learner", "nest")
        )
        specs = [tf.TensorSpec(shape, dtype) for shape, dtype in config.pop("specs")]
        return cls(learner, tf.nest.pack_sequence_as(nest, specs), **config)


@door.as_written
def read_inputs(learner, inputs):
    """Inputs ``(n, ...)`` of an adapted model as a tensor that fits its learner."""
    name, network = "inputs (queries)", learner.sees()[1]
    x, one = door.as_inputs(name, inputs, learner.compute_dtype, network), door.one_input(network)
    shape = x.shape
    if shape.rank is None:
        return x
    if 0 in shape[:1] or shape.rank < 1 or (one is not None and not door.fits(shape[1:], one)):
        sizes = ["..."] if one is None else [str(size) for size in one]
        allowed = f"({', '.join(['n', *sizes])})" if sizes else "(n,)"
        raise ValueError(f"{name} have shape {shape}; allowed is {allowed}, at least one of them.")
    return x


def check_alone(learner):
    """Raise if a learner's networks are known to see a task's queries together."""
    networks = [n for n in learner.sees() if isinstance(n, keras.Model)]
    if getattr(learner, "transductive", False) and any(map(normalises, networks)):
        raise NotImplementedError(
            "This learner is transductive and its network holds a BatchNorm: a query's prediction "
            "depends on those beside it, and one alone has none. Set learner.transductive = False, "
            "then each is normalised beside the support set; or take a network without the norm."
        )


def copy_of(model):
    """A Keras model anew, with the same configuration and the same values.

    Raises:
        NotImplementedError: if its configuration does not make it again.
    """
    try:
        copy = keras.models.clone_model(model)
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        copy.set_weights(model.get_weights())
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise NotImplementedError(
            f"{type(model).__name__} cannot be copied: saving and loading it would fail too. "
            "Classes of your own in it need @keras.saving.register_keras_serializable() and a "
            "get_config that holds the arguments of __init__; and one network must not stand in "
            "two places."
        ) from error
    return copy


def input_spec(network, dtype):
    """What one example of a network's inputs is, as a ``TensorSpec``; None if it is not known.

    Args:
        network: a Keras model, a ``TensorShape``, or None.
        dtype: of numbers; those of a network that takes integers have its own.
    """
    one = door.one_input(network)
    if one is None:
        return None
    integers = [x.dtype for x in getattr(network, "inputs", None) or [] if "int" in x.dtype]
    return tf.TensorSpec(one, integers[0] if integers else dtype)


def target_of(learner):
    """What the compiled loss takes for one target: a label, or what is predicted; None if unknown.

    Known are Keras's losses, and those that say ``takes_labels``.
    """
    loss, shape = getattr(learner, "loss", None), learner.predicts()
    if loss is None or shape is None:
        return None
    found = keras.losses.get(loss)
    if found in SPARSE or isinstance(found, SPARSE[0]) or getattr(found, "takes_labels", False):
        return tf.TensorSpec([], tf.int32)
    owner = found if inspect.isfunction(found) else type(found)
    theirs = owner.__module__.startswith("keras.")
    return tf.TensorSpec(shape, learner.compute_dtype) if theirs else None
