"""The one interface of the course: adapt on a support set, then predict on queries."""

import contextlib
import functools

import keras
import tensorflow as tf

from mlutils.compiled import Graphs, as_graph, compiled_steps
from mlutils.episodes import Episode, check_batch, describe
from mlutils.losses import check_single, check_takes_logits, mean_loss
from mlutils.vectorize import map_tasks

PLAIN = (bool, int, float, str, type(None))


@functools.cache
def bookkeeping():
    """The names of a Keras model's own attributes."""
    model = keras.Model()
    model.compile()
    return {*vars(model), "history", "stop_training", "stop_evaluating", "stop_predicting"}


class MetaLearner(keras.Model):
    """Base class of all few-shot learners.

    A subclass defines ``adapt``, for **one** task.
    Everything else follows: ``call`` maps adapt-then-predict over a batch of tasks,
    so with elements ``((support_x, support_y, query_x), query_y)`` Keras's own
    ``compile``, ``fit``, ``evaluate``, callbacks and saving work unchanged, and
    training minimises the meta-learning objective (equation :eq:`eq-meta-objective`):
    the mean over tasks of the mean loss on the queries.

    Called outside a graph, ``call``, ``meta_loss`` and ``meta_gradients`` are traced at the first
    call with tensors of some shapes, which takes a second, and then run as fast as in ``fit``;
    and again for another value of an option or a setting.
    """

    def __init__(self, **kwargs):
        # Inputs are passed on as they came: a float64 model gets its float64 episodes.
        super().__init__(autocast=False, **kwargs)
        self.graphs, self._function_settings = Graphs(), {}

    @property
    def compute_dtype(self):
        # With mixed precision the networks compute in half, and what is made of it in single.
        return self.variable_dtype

    # ------------------------------------------------------------ what a subclass defines

    def adapt(self, support_x, support_y):
        """Adapt to one task.

        Args:
            support_x: ``(S, ...)``.
            support_y: ``(S, ...)``.

        Returns:
            A predictor, which is a callable from query inputs ``(Q, ...)`` to predictions
            ``(Q, ...)``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define adapt.")

    def unadapted(self):
        """The predictor before any support set: the "no adaptation" control.

        Returns:
            A predictor, as ``adapt`` does.

        Raises:
            NotImplementedError: if the method cannot predict without a support set.
        """
        raise NotImplementedError(
            f"{type(self).__name__} makes no prediction without a support set."
        )

    @as_graph
    def solve(self, support_x, support_y, query_x, **adapt_options):
        """Adapt to and predict for each task of a batch: tensors as for ``call``."""

        def one_task(task):
            support_x, support_y, query_x = task
            return self.adapt(support_x, support_y, **adapt_options)(query_x)

        return map_tasks(one_task, (support_x, support_y, query_x))

    def check_tasks(self, support_x, support_y):
        """Raise if the support sets of a batch of tasks do not fit this learner."""

    def logits(self):
        """Whether a classifier's predictions are logits, as far as is known."""
        return False

    def prepare(self, element):
        """An element of a dataset, with everything in shapes that XLA could not read off values."""
        return element

    # ------------------------------------------------------------ what follows

    def call(self, inputs, training=None, **adapt_options):
        """Adapt to and predict for each task of a batch.

        Args:
            inputs: ``(support_x, support_y, query_x)`` of shapes ``(tasks, S, ...)``,
                ``(tasks, S, ...)`` and ``(tasks, Q, ...)``.
            training: ignored; here for Keras.
            **adapt_options: passed to ``adapt``.

        Returns:
            Predictions ``(tasks, Q, ...)``.
        """
        support_x, support_y, query_x = self.checked_inputs(inputs)
        return self.solve(support_x, support_y, query_x, **adapt_options)

    def checked_inputs(self, inputs):
        """``(support_x, support_y, query_x)`` of a batch of tasks as tensors, or a ValueError."""
        if not isinstance(inputs, (tuple, list)) or len(inputs) != 3:
            raise ValueError(
                "A learner takes (support_x, support_y, query_x); got "
                f"{describe(inputs)}. fit and evaluate take a dataset of "
                "((support_x, support_y, query_x), query_y), or x and y like that: "
                "fit(*episode.element)."
            )
        support_x, support_y, query_x = map(tf.convert_to_tensor, inputs)
        check_batch(support_x, support_y, query_x)
        self.check_tasks(support_x, support_y)
        return support_x, support_y, query_x

    def task_loss(self, targets, predictions):
        """The compiled loss as a scalar: its mean over all examples.

        Args:
            targets: of the predictions' shape, or integer labels without their last axis.
            predictions: ``(..., examples, outputs)``.
        """
        loss = check_single(getattr(self, "loss", None), type(self).__name__)
        return mean_loss(loss, targets, predictions)

    def meta_loss(self, episodes):
        """The mean over tasks of the mean query loss after adaptation, a scalar.

        This is what ``fit`` minimises and logs, but for the model's own regularisers, which
        ``fit`` adds.

        Args:
            episodes: an ``Episode`` with a leading axis of tasks, or the same as
                ``((support_x, support_y, query_x), query_y)``.
        """
        inputs, query_y = Episode.from_element(episodes).element
        return self.query_loss(*self.checked_inputs(inputs), tf.convert_to_tensor(query_y))

    @as_graph
    def query_loss(self, support_x, support_y, query_x, query_y):
        """``meta_loss`` of tensors."""
        predictions = self((support_x, support_y, query_x))
        if not predictions.shape[:2].is_compatible_with(query_y.shape[:2]):
            raise ValueError(
                f"query_y has shape {query_y.shape}, the predictions {predictions.shape}; tasks "
                "and queries (the first two axes) must agree."
            )
        return self.task_loss(query_y, predictions)

    def meta_gradients(self, episodes):
        """The meta-loss of a batch of tasks and its gradient.

        Args:
            episodes: as for ``meta_loss``.

        Returns:
            ``(loss, gradients)``: a scalar, and a list aligned with
            ``trainable_variables``.
        """
        inputs, query_y = Episode.from_element(episodes).element
        return self.loss_and_gradients(*self.checked_inputs(inputs), tf.convert_to_tensor(query_y))

    @as_graph
    def loss_and_gradients(self, *tensors):
        """``meta_gradients`` of the four tensors of an episode."""
        with tf.GradientTape() as tape:
            loss = self.query_loss(*tensors)
        variables = [variable.value for variable in self.trainable_variables]
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(g) for g in gradients]  # an Embedding's is sparse

    # ------------------------------------------------------------ Keras

    def compile(self, optimizer="rmsprop", loss=None, **options):
        """Keras's; raises a ValueError for a loss that takes logits for probabilities."""
        if self.logits() and loss is not None and not isinstance(loss, (dict, list, tuple)):
            check_takes_logits(loss)
        super().compile(optimizer, loss, **options)

    def compile_from_config(self, config):
        # Keras's own does nothing where ``compile`` is overridden.
        super().compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def settings(self):
        """What a graph takes for constant and a user may change: to tell when one is stale.

        Plain attributes of the learner, of its rule and its loss, which networks it holds, and
        what of them is trainable; not the attributes of a network's layers.
        """
        loss = getattr(self, "loss", None)
        parts = [p for p in (self, getattr(self, "rule", None), loss) if hasattr(p, "__dict__")]
        named = [(k, v) for p in parts for k, v in vars(p).items() if k not in bookkeeping()]
        plain = [(k, v) for k, v in named if isinstance(v, PLAIN) and k[0] != "_"]
        held = [id(v) for v in vars(self).values() if isinstance(v, keras.Layer)]
        return plain, held, [id(variable) for variable in self.trainable_variables], loss

    def stale(self, function):
        """Whether settings have changed since this was last asked of a function of Keras."""
        settings = self.settings()
        stale = settings != self._function_settings.get(function)
        self._function_settings[function] = settings
        return stale

    def make_train_function(self, force=False):
        """Keras's, made anew when settings have changed.

        With ``jit_compile=True``, on one device, all ``steps_per_execution`` steps are one XLA
        program.
        """
        force |= self.stale("train")
        whole = self.jit_compile and not self.run_eagerly
        if not whole or self.distribute_strategy.num_replicas_in_sync > 1:
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = compiled_steps(
                self.train_step, self.steps_per_execution, self.prepare
            )

    def make_test_function(self, force=False):
        """Keras's, without XLA, which for some learners would compile anew for other labels."""
        force |= self.stale("test")
        with self.without_xla():
            super().make_test_function(force)

    def make_predict_function(self, force=False):
        """Keras's, without XLA, as ``make_test_function``."""
        force |= self.stale("predict")
        with self.without_xla():
            return super().make_predict_function(force)

    @contextlib.contextmanager
    def without_xla(self):
        jit_compile, self.jit_compile = self.jit_compile, False
        try:
            yield
        finally:
            self.jit_compile = jit_compile

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # On several replicas Keras builds from the mean of their first batches, and the mean of
        # labels is no label: build from the first one's.
        if iterator is not None and self.distribute_strategy.num_replicas_in_sync > 1:
            for *_, batches in iterator:
                data_batch = tf.nest.map_structure(
                    lambda x: self.distribute_strategy.experimental_local_results(x)[0],
                    next(batches),
                )
                iterator = None
                break
        super()._maybe_symbolic_build(iterator, data_batch)
