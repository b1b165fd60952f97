"""MAML: learn an initialisation from which a few gradient steps solve a new task."""

import keras
import tensorflow as tf

from mlutils.adapted import check_alone, copy_of, target_of
from mlutils.compiled import as_graph
from mlutils.door.losses import compiled_loss
from mlutils.door.networks import check_adaptable, gives_logits
from mlutils.door.numbers import check_count, check_flag, check_rate
from mlutils.door.tasks import (
    check_labels,
    check_predicted,
    one_task,
    predictor,
    read_support,
    shape_of,
)
from mlutils.inner_loop import GradientDescent, check_rule, descend, map_weights
from mlutils.learner import MetaLearner
from mlutils.networks import WithNetworks, mixes_examples, predict_with
from mlutils.vectorize import map_tasks


@keras.saving.register_keras_serializable(package="mlutils")
class MAML(WithNetworks, MetaLearner):
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
            ``(batch, ...)``; it is used and trained in place.  Not allowed are
            ``BatchNormalization``, whose running statistics belong to no single task, and
            recurrent layers that are not unrolled.
        inner_lr: alpha, the step size of the inner loop, for a loss that is a *mean*
            over examples.
        inner_steps: the number k of inner steps, 0 or more.  More than five are a loop of the
            graph, however many as quick to trace.
        first_order: drop the second derivatives (:eq:`eq-fomaml`).
        rule: an ``UpdateRule`` that takes the steps in place of ``-alpha * gradient``, shared by
            all weights and meta-trained with them: ``StepSize``, ``MomentumRule``, ``AdamRule``,
            or ``LSTMRule``, the meta-learner of Ravi & Larochelle (ICLR 2017).
        transductive: whether the model sees a task's queries together, as in the paper.  If not,
            it sees each query beside the support set alone, as in the Reptile paper.  The two
            differ only for models whose predictions depend on the rest of the batch, such as
            those with ``BatchNorm``; for these (and for layers that are not Keras's own, which
            may do the same) the latter costs Q times S + 1 predictions instead of Q.
        recompute: in ``fit`` and ``solve``, keep nothing of each inner step after the first but the
            weights that it began with, and take it once more for the meta-gradient: less memory
            for many steps on a large network.  Not for models that draw at random.

    Example:
        >>> layer = keras.layers.Dense(1, kernel_initializer="zeros")
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> learner = mlutils.MAML(model, inner_lr=0.25)
        >>> learner.compile(loss="mse")
        >>> predict = learner.adapt([[1.0]], [[2.0]])  # weight and bias: 0 - 0.25 * (-4) = 1
        >>> predict([[1.0], [3.0]]).numpy().tolist()
        [[2.0], [4.0]]
    """

    networks = ("model", "rule")

    def __init__(
        self,
        model,
        inner_lr=0.01,
        inner_steps=1,
        first_order=False,
        rule=None,
        transductive=True,
        recompute=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_adaptable(model, first_order)
        check_rule(rule, model)
        self.model, self.rule = model, rule
        self.inner_lr = check_rate("inner_lr", inner_lr)
        self.inner_steps = check_count("inner_steps", inner_steps, least=0)
        self.first_order = check_flag("first_order", first_order)
        self.transductive = check_flag("transductive", transductive)
        self.recompute = check_flag("recompute", recompute)
        self.built = True

    @one_task
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
        kept = self.keep(support_x, support_y, steps)
        return lambda query_x: self.recall(kept, query_x)

    def adapted_model(self, support_x, support_y, **adapt_options):
        """As ``MetaLearner``: the network itself with the weights after the inner steps.

        If its layers are Keras's, it is a plain Keras model, and loads without ``mlutils``.  It
        takes numbers as the network does, and divides no bytes by 255.  Where a query is seen
        beside the support set (``transductive=False`` and a network that mixes examples), it
        is an ``AdaptedModel``, which holds that set.
        """
        if not self.transductive and mixes_examples(self.model):
            return super().adapted_model(support_x, support_y, **adapt_options)
        self.check_options(adapt_options)
        check_alone(self)
        support = read_support(self, support_x, support_y, axes=1)
        weights, support_x = self.keep(*support, **adapt_options)
        network = self.network_with(weights)
        network(support_x[:1])  # Keras exports to ONNX only what was called
        return network

    def network_with(self, weights):
        """A copy of the network with these values of its trainable weights."""
        copy, place = copy_of(self.model), {id(v): i for i, v in enumerate(self.model.weights)}
        for variable, value in zip(self.model.trainable_variables, weights, strict=True):
            copy.weights[place[id(variable)]].assign(value)
        return copy

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **more):
        """As ``MetaLearner``; raises a NotImplementedError for ONNX, which has no inner loop."""
        if format == "onnx":
            raise NotImplementedError(
                f"ONNX lacks operations of {type(self).__name__}'s inner loop, and the file would "
                "not run: export what it adapts to, adapted_model(support_x, support_y), or the "
                'learner with format="tf_saved_model".'
            )
        recompute, self.recompute = self.recompute, False  # for gradients, which no export has
        try:
            super().export(filepath, format, verbose, input_signature, **more)
        finally:
            self.recompute = recompute

    def keep(self, support_x, support_y, steps=None):
        """One task's weights after the inner steps, and its support inputs."""
        steps = self.inner_steps if steps is None else check_count("steps", steps, least=0)
        weights = self.adapted_weights(self.initialisation(), support_x, support_y, steps)
        return weights, support_x

    def recall(self, kept, query_x):
        """Predictions with these weights."""
        return self.predict_queries(*kept, query_x)

    @as_graph
    def adapted_weights(self, weights, support_x, support_y, steps=None):
        """One task's weights after ``steps`` inner steps from ``weights``."""

        def loss(weights, step):
            return self.support_loss(weights, step, support_x, support_y)

        return self.descend(loss, weights, steps)

    @as_graph
    def solve(self, support_x, support_y, query_x, steps=None):
        """Each task's predictions, by weights of its own."""
        theta = self.initialisation()
        weights = self.descend(self.support_loss, theta, steps, (support_x, support_y))
        return map_weights(self.predict_queries, weights, theta, (support_x, query_x))

    def initialisation(self):
        """Theta, as a list of tensors."""
        if not self.model.trainable_variables:
            raise ValueError("The learner is frozen (trainable = False): nothing can adapt.")
        return [tf.convert_to_tensor(v) for v in self.model.trainable_variables]

    def support_loss(self, weights, step, support_x, support_y):
        """The loss of one task's support set before an inner step, a scalar."""
        return self.task_loss(support_y, self.predict_with(weights, support_x))

    def descend(self, loss, theta, steps=None, tasks=None):
        """The weights after ``steps`` inner steps from ``theta``, ``inner_steps`` when None."""
        steps = self.inner_steps if steps is None else check_count("steps", steps, least=0)
        recompute = self.recompute and tasks is not None  # a loss of one task holds its tensors
        options = {"first_order": self.first_order, "recompute": recompute}
        return descend(self.rules(), loss, theta, steps, tasks, **options)[0]

    def rules(self):
        """The update rule of each trainable weight, None for one that stays."""
        rule = GradientDescent(self.inner_lr) if self.rule is None else self.rule
        return [rule] * len(self.model.trainable_variables)

    @as_graph
    def predict_queries(self, weights, support_x, query_x):
        """Predictions for the queries: all together, or each beside the support set alone."""
        if self.transductive or not mixes_examples(self.model):
            return self.predict_with(weights, query_x)

        def one_query(x):
            together = tf.concat([support_x, x[tf.newaxis]], 0)
            return self.predict_with(weights, together)[-1]

        return map_tasks(one_query, query_x)

    def predict_with(self, weights, x):
        """The model's predictions for ``x`` with ``weights`` in place of its own."""
        return predict_with(self.model, weights, x)

    def unadapted(self):
        """The model at theta, before any inner step; it sees the queries together."""
        return predictor(self, lambda query_x: self.predict_with(self.initialisation(), query_x))

    def sees(self):
        return self.model, self.model

    def check_options(self, options):
        super().check_options(options)
        compiled_loss(self)
        if options.get("steps") is not None and not tf.is_tensor(options["steps"]):
            check_count("steps", options["steps"], least=0)

    def check_tasks(self, support_x, support_y):
        check_predicted(self, support_y, getattr(self, "loss", None))
        if support_y.dtype.is_integer:
            check_labels("support_y", support_y, self.classes(support_y))

    def predicts(self):
        outputs = shape_of(self.model, "output_shape")
        return None if outputs is None else outputs[1:]

    def classes(self, support_y):
        """As many as the model has outputs, if these are labels beside several outputs."""
        outputs = shape_of(self.model, "output_shape")
        labels = support_y.dtype.is_integer and outputs is not None and outputs[-1] != 1
        return outputs[-1] if labels else None

    def target(self):
        return target_of(self)

    def logits(self):
        return gives_logits(self.model)

    def get_config(self):
        options = ("inner_lr", "inner_steps", "first_order", "transductive", "recompute")
        return {**super().get_config(), **{name: getattr(self, name) for name in options}}

    @classmethod
    def from_config(cls, config):
        config = {**dict.fromkeys(cls.networks), **config}
        config.pop("learn_lr", None)  # files of 0.1.0 have this, None, and no rule
        return super().from_config(config)
