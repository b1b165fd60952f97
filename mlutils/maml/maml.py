"""MAML: learn an initialisation from which a few gradient steps solve a new task."""

import warnings

import keras
import tensorflow as tf

from mlutils.checks import check_count, check_rate
from mlutils.episodes import check_labels, check_support
from mlutils.learner import MetaLearner
from mlutils.networks import check_network, predict_with


@keras.saving.register_keras_serializable(package="mlutils")
class MAML(MetaLearner):
    """Model-agnostic meta-learning (Finn, Abbeel & Levine, ICML 2017).

    The learner's weights theta are those of ``model``.  ``adapt`` takes
    ``inner_steps`` gradient steps on the support set (:eq:`eq-maml-inner`); training
    minimises the query loss after them (:eq:`eq-maml-objective`) by its gradient *with
    respect to theta, through the steps* (:eq:`eq-maml-gradient`,
    :eq:`eq-maml-gradient-k`), second order included.
    The loss of both loops is the compiled one.

    The model is always run with ``training=False``: dropout is inert.

    Args:
        model: any built Keras model, from inputs ``(batch, ...)`` to predictions
            ``(batch, ...)``; it is used and trained in place.
        inner_lr: alpha, the step size of the inner loop, for a loss that is a *mean*
            over examples.
        inner_steps: the number k of inner steps, 0 or more.
        first_order: drop the second derivatives (:eq:`eq-fomaml`).

    Raises:
        TypeError: if ``model`` is not a Keras model.
        ValueError: if it is not built or has nothing to train; if it holds
            ``BatchNormalization``, whose running statistics belong to no single task, or a
            recurrent layer that is not unrolled; if ``inner_lr`` or ``inner_steps`` is out of
            range.
    """

    def __init__(self, model, inner_lr=0.01, inner_steps=1, first_order=False, **kwargs):
        super().__init__(**kwargs)
        check_network(model)
        if not model.trainable_variables:
            raise ValueError(f"The model {model.name!r} has no trainable weights to adapt.")
        check_second_order(model, first_order)
        self.model = model
        self.inner_lr = check_rate("inner_lr", inner_lr)
        self.inner_steps = check_count("inner_steps", inner_steps, least=0)
        self.first_order = bool(first_order)
        self.built = True

    def adapt(self, support_x, support_y, steps=None):
        """Take ``steps`` inner steps on one task (:eq:`eq-maml-inner`).

        Args:
            support_x: ``(S, ...)``.
            support_y: ``(S, ...)``.
            steps: how many inner steps, 0 or more; ``inner_steps`` when None.

        Returns:
            A predictor from query inputs ``(Q, ...)`` to predictions ``(Q, ...)``.

        Raises:
            ValueError: if the support set is empty, has not one target per input or labels out
                of range; if ``steps`` is negative; if the learner is frozen; before
                ``compile(loss=...)``.
        """
        support_x, support_y = tf.convert_to_tensor(support_x), tf.convert_to_tensor(support_y)
        check_support(support_x, support_y, self.model)
        check_labels(support_y, self.model)
        steps = self.inner_steps if steps is None else check_count("steps", steps, least=0)
        if not self.model.trainable_variables:
            raise ValueError("The learner is frozen (trainable = False): nothing can adapt.")
        weights = [tf.convert_to_tensor(v) for v in self.model.trainable_variables]
        for _ in range(steps):
            weights = self.inner_step(weights, support_x, support_y)
        return lambda query_x: self.predict_with(weights, query_x)

    def inner_step(self, weights, support_x, support_y):
        """One step of gradient descent on the support loss, as new weights.

        Nothing is assigned: the new weights are a function of the old ones, and an
        outer tape can differentiate it.
        """
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self.task_loss(support_y, self.predict_with(weights, support_x))
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(g) for g in gradients]  # an Embedding's is sparse
        if self.first_order:
            gradients = [tf.stop_gradient(g) for g in gradients]
        return [w - self.inner_lr * g for w, g in zip(weights, gradients, strict=True)]

    def predict_with(self, weights, x):
        """The model's predictions for ``x`` with ``weights`` in place of its own."""
        return predict_with(self.model, weights, x)

    def unadapted(self):
        """The model at theta, before any inner step."""
        return lambda query_x: self.predict_with(self.model.trainable_variables, query_x)

    def get_config(self):
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "inner_lr": self.inner_lr,
            "inner_steps": self.inner_steps,
            "first_order": self.first_order,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["model"] = keras.saving.deserialize_keras_object(config["model"])
        return cls(**config)


def check_second_order(model, first_order):
    """Raise or warn about layers whose second derivatives fail or are wrong."""
    layers = model._flatten_layers(include_self=False)
    looping = [layer.name for layer in layers if getattr(layer, "unroll", None) is False]
    if looping:
        raise ValueError(
            f"The recurrent layers {looping} run as a loop, which TensorFlow cannot differentiate "
            "twice when tasks are vectorised: create them with unroll=True."
        )
    kinds = (keras.layers.LayerNormalization, keras.layers.GroupNormalization)
    inexact = {kind.__name__ for kind in kinds for x in layers if isinstance(x, kind)}
    if inexact and not first_order:
        names = ", ".join(sorted(inexact))
        warnings.warn(
            f"The second derivative of keras.layers.{names} is wrong in TensorFlow "
            "(tf.nn.moments stops a gradient), and with it the meta-gradient: use "
            "mlutils.BatchNorm, no norm layer, or first_order=True.",
            stacklevel=3,
        )
