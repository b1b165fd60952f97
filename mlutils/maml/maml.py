"""MAML: learn an initialisation from which a few gradient steps solve a new task."""

import warnings

import keras
import tensorflow as tf

from mlutils.checks import check_count, check_option, check_rate
from mlutils.episodes import check_labels, check_support
from mlutils.learner import MetaLearner
from mlutils.networks import check_network, predict_with
from mlutils.vectorize import map_tasks


@keras.saving.register_keras_serializable(package="mlutils")
class MAML(MetaLearner):
    """Model-agnostic meta-learning (Finn, Abbeel & Levine, ICML 2017).

    The learner's weights theta are those of ``model``.  ``adapt`` takes
    ``inner_steps`` gradient steps on the support set (:eq:`eq-maml-inner`); training
    minimises the query loss after them (:eq:`eq-maml-objective`) by its gradient *with
    respect to theta, through the steps* (:eq:`eq-maml-gradient`,
    :eq:`eq-maml-gradient-k`), second order included.
    For small alpha the gradient is that of :eq:`eq-maml-taylor`, and without the second
    derivatives :eq:`eq-fomaml-taylor`; on a quadratic the inner loop ends at
    :eq:`eq-map-estimate`.
    The loss of both loops is the compiled one.

    The model is always run with ``training=False``: dropout is inert.

    Args:
        model: any built Keras model, from inputs ``(batch, ...)`` to predictions
            ``(batch, ...)``; it is used and trained in place.
        inner_lr: alpha, the step size of the inner loop, for a loss that is a *mean*
            over examples.
        inner_steps: the number k of inner steps, 0 or more.
        first_order: drop the second derivatives (:eq:`eq-fomaml`).
        learn_lr: None keeps alpha fixed, as the paper does.  ``"step"`` meta-trains one alpha
            for each inner step (Antoniou et al., 2019), ``"parameter"`` one for each weight
            (``MetaSGD``); both begin at ``inner_lr``, and nothing keeps them positive.
        transductive: whether the model sees a task's queries together, as in the paper.  If not,
            it sees each query beside the support set alone, as in the Reptile paper.  The two
            differ only for models whose predictions depend on the rest of the batch, such as
            those with ``BatchNorm``; for these (and for layers that are not Keras's own, which
            may do the same) the latter costs Q times S + 1 predictions instead of Q.

    Raises:
        TypeError: if ``model`` is not a Keras model.
        ValueError: if it is not built or has nothing to train; if it holds
            ``BatchNormalization``, whose running statistics belong to no single task, or a
            recurrent layer that is not unrolled; if ``inner_lr``, ``inner_steps`` or
            ``learn_lr`` is none of what is allowed.
    """

    def __init__(
        self,
        model,
        inner_lr=0.01,
        inner_steps=1,
        first_order=False,
        learn_lr=None,
        transductive=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_network(model)
        if not model.trainable_variables:
            raise ValueError(f"The model {model.name!r} has no trainable weights to adapt.")
        check_second_order(model, first_order)
        self.model = model
        self.inner_lr = check_rate("inner_lr", inner_lr)
        self.inner_steps = check_count("inner_steps", inner_steps, least=0)
        self.first_order = bool(first_order)
        self.learn_lr = check_option("learn_lr", learn_lr, (None, "step", "parameter"))
        self.transductive = bool(transductive)
        self.mixes_examples = mixes_examples(model)
        if learn_lr == "step" and not self.inner_steps:
            raise ValueError('learn_lr="step" needs inner_steps of at least 1, got 0.')
        shapes = {
            None: [],
            "step": [()] * self.inner_steps,
            "parameter": [v.shape for v in model.trainable_variables],
        }[learn_lr]
        self.learned_rates = [
            self.add_weight(
                shape=shape,
                initializer=keras.initializers.Constant(self.inner_lr),
                dtype=model.trainable_variables[0].dtype,
                name=f"inner_lr_{i}",
            )
            for i, shape in enumerate(shapes)
        ]
        self.built = True

    def adapt(self, support_x, support_y, steps=None):
        """Take ``steps`` inner steps on one task (:eq:`eq-maml-inner`).

        Args:
            support_x: ``(S, ...)``.
            support_y: ``(S, ...)``.
            steps: how many inner steps, 0 or more; ``inner_steps`` when None.  Steps beyond
                those with a learned alpha of their own use the last one.

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
        weights = self.adapted_weights(self.initialisation(), support_x, support_y, steps)
        return lambda query_x: self.predict_queries(weights, support_x, query_x)

    def initialisation(self):
        """Theta, as a list of tensors."""
        if not self.model.trainable_variables:
            raise ValueError("The learner is frozen (trainable = False): nothing can adapt.")
        return [tf.convert_to_tensor(v) for v in self.model.trainable_variables]

    def adapted_weights(self, weights, support_x, support_y, steps=None):
        """The weights after ``steps`` inner steps from ``weights``, ``inner_steps`` when None."""
        steps = self.inner_steps if steps is None else check_count("steps", steps, least=0)
        for step in range(steps):
            weights = self.inner_step(weights, support_x, support_y, step)
        return weights

    def inner_step(self, weights, support_x, support_y, step=0):
        """One step of gradient descent on the support loss, as new weights.

        Nothing is assigned: the new weights are a function of the old ones, and an
        outer tape can differentiate it.
        """
        rates = self.rates(step)
        moving = [i for i, rate in enumerate(rates) if rate is not None]
        moved = list(weights)
        with tf.GradientTape() as tape:
            tape.watch([weights[i] for i in moving])
            loss = self.task_loss(support_y, self.predict_with(weights, support_x))
        gradients = tape.gradient(loss, [weights[i] for i in moving], unconnected_gradients="zero")
        for i, gradient in zip(moving, gradients, strict=True):
            gradient = tf.convert_to_tensor(gradient)  # an Embedding's is sparse
            if self.first_order:
                gradient = tf.stop_gradient(gradient)
            moved[i] = weights[i] - rates[i] * gradient
        return moved

    def rates(self, step):
        """Alpha for each trainable weight in inner step ``step``, from 0; None: it stays."""
        if self.learn_lr == "parameter":
            return [tf.convert_to_tensor(rate) for rate in self.learned_rates]
        if self.learn_lr == "step":
            rate = tf.convert_to_tensor(self.learned_rates[min(step, self.inner_steps - 1)])
        else:
            rate = self.inner_lr
        return [rate] * len(self.model.trainable_variables)

    def predict_queries(self, weights, support_x, query_x):
        """Predictions for the queries: all together, or each beside the support set alone."""
        if self.transductive or not self.mixes_examples:
            return self.predict_with(weights, query_x)

        def one_query(x):
            together = tf.concat([support_x, x[tf.newaxis]], 0)
            return self.predict_with(weights, together)[-1]

        return map_tasks(one_query, tf.convert_to_tensor(query_x))

    def predict_with(self, weights, x):
        """The model's predictions for ``x`` with ``weights`` in place of its own."""
        return predict_with(self.model, weights, x)

    def unadapted(self):
        """The model at theta, before any inner step; it sees the queries together."""
        return lambda query_x: self.predict_with(self.model.trainable_variables, query_x)

    def get_config(self):
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "inner_lr": self.inner_lr,
            "inner_steps": self.inner_steps,
            "first_order": self.first_order,
            "learn_lr": self.learn_lr,
            "transductive": self.transductive,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["model"] = keras.saving.deserialize_keras_object(config["model"])
        return cls(**config)


def mixes_examples(model):
    """Whether a prediction may depend on the rest of the batch, for all that is known.

    Keras's own layers treat each example by itself where nothing is trained.
    """
    layers = model._flatten_layers(include_self=True)
    return any(
        isinstance(layer, keras.layers.Lambda) or not type(layer).__module__.startswith("keras.")
        for layer in layers
    )


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
