"""A learned update rule as an optimizer that any Keras model can be compiled with."""

import json
import zipfile
from numbers import Real
from pathlib import Path

import keras
import tensorflow as tf

from mlutils.door.numbers import check_rate
from mlutils.inner_loop import StepSize, UpdateRule


@keras.saving.register_keras_serializable(package="mlutils")
class LearnedOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer that updates by a rule (:eq:`eq-update-rule`).

    ``model.compile(optimizer=LearnedOptimizer.load(path), ...)``, and ``fit``, clipping, weight
    decay, moving averages and saving are Keras's.  Training a model leaves the rule's own
    weights as they are; ``RuleTrainer`` trains them.  A copy made from the config alone has a rule
    with new weights.

    Args:
        rule: an ``UpdateRule`` that all coordinates share.
        learning_rate: what every update is multiplied by, a number or a Keras schedule.
        **kwargs: as for every Keras optimizer: ``weight_decay``, ``clipnorm``, ``use_ema``, ...

    Raises:
        TypeError: if ``rule`` is no ``UpdateRule``.
        ValueError: if it has a step size for each coordinate of one function.

    Example:
        >>> optimizer = mlutils.LearnedOptimizer(mlutils.StepSize(0.5))
        >>> weight = keras.Variable([1.0])
        >>> optimizer.apply([tf.constant([4.0])], [weight])
        >>> weight.numpy().tolist()
        [-1.0]
    """

    def __init__(self, rule, learning_rate=1.0, name="learned_optimizer", **kwargs):
        if isinstance(learning_rate, Real):
            learning_rate = check_rate("learning_rate", learning_rate)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not isinstance(rule, UpdateRule):
            raise TypeError(f"rule must be an mlutils.UpdateRule, got {type(rule).__name__}.")
        if isinstance(rule, StepSize) and rule.coordinates is not None:
            raise ValueError(
                f"The rule has {rule.coordinates} step sizes, one of each coordinate of the "
                "function that it was trained on; a Keras optimizer needs a rule that all "
                "coordinates share."
            )
        self.rule = rule
        for variable in rule.variables:
            self._track_variable(variable)

    def __dir__(self):
        # Keras saves every attribute that dir() names.  The rule's weights are among the
        # optimizer's variables: files that another optimizer wrote can then be loaded.
        return [name for name in super().__dir__() if name != "rule"]

    def load_own_variables(self, store):
        """Restore what was saved, also by an optimizer that had no states yet."""
        own = 2 + len(self.rule.variables)  # the counter, the learning rate, the rule's
        count = len(store.keys())
        pairs = [(v, store[str(i)]) for i, v in enumerate(self.variables[:count])]
        if count in (own, len(self.variables)) and all(v.shape == x.shape for v, x in pairs):
            for variable, value in pairs:
                variable.assign(value)
        elif count != len(self.variables):
            super().load_own_variables(store)  # warns and skips

    def build(self, variables):
        """Give every variable its state, at the rule's initial values."""
        if self.built:
            return
        super().build(variables)
        self.states = []
        with tf.init_scope():  # fit builds within a graph, which may be XLA's
            for variable in variables:
                initial = self.rule.initial_state(variable.shape)
                self.states.append(
                    [
                        self.add_variable(
                            x.shape, lambda shape, dtype, x=x: x, x.dtype.name, name="state"
                        )
                        for x in initial
                    ]
                )

    def update_step(self, gradient, variable, learning_rate):
        """Add the rule's update, times the learning rate, to one variable."""
        kept = self.states[self._get_variable_index(variable)]
        gradient = tf.cast(tf.convert_to_tensor(gradient), self.rule.compute_dtype)
        update, state = self.rule(gradient, tuple(tf.convert_to_tensor(s) for s in kept))
        for old, new in zip(kept, state, strict=True):
            self.assign(old, new)
        learning_rate = tf.cast(learning_rate, variable.dtype)
        self.assign_add(variable, learning_rate * tf.cast(update, variable.dtype))

    def save(self, path):
        """Save the rule; ``path`` ends in ``.keras``.  Models save their optimizer themselves."""
        self.rule.save(path)

    @classmethod
    def load(cls, path, **options):
        """An optimizer with the rule that was saved at ``path``.

        Args:
            path: as written by ``save`` here or by the rule's.
            **options: as for the class.

        Raises:
            ValueError: if ``path`` does not end in ``.keras``, or there is no such file, or it is
                no intact Keras archive; or as for the class.
            TypeError: if it holds something else than a rule of a registered class; nothing of
                that is made.
        """
        return cls(saved_rule(Path(path)), **options)

    def get_config(self):
        return {
            **super().get_config(),
            "rule": keras.saving.serialize_keras_object(self.rule),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["rule"] = keras.saving.deserialize_keras_object(config["rule"], custom_objects)
        return super().from_config(config, custom_objects)


def saved_rule(path):
    """The rule that was saved at ``path``; of an archive of anything else nothing is made."""
    allowed = "Allowed is the path of a file ....keras that a rule's save wrote."
    if path.suffix != ".keras":
        raise ValueError(f"{path} does not end in .keras. {allowed}")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        name = config["registered_name"] or config["class_name"]
        kind = keras.saving.get_registered_object(name)
        is_rule = isinstance(kind, type) and issubclass(kind, UpdateRule)
        rule = keras.saving.load_model(path) if is_rule else None
    except Exception as error:  # of zipfile, zlib, JSON, h5py or Keras
        raise ValueError(f"{path} cannot be read as a rule ({error}). {allowed}") from error
    if not is_rule:
        raise TypeError(
            f"{path} holds {name}; rule must be an mlutils.UpdateRule, of a class that is "
            "registered by keras.saving.register_keras_serializable."
        )
    return rule
