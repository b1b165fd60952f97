"""The one interface of the course: adapt on a support set, then predict on queries."""

import contextlib
import functools

import keras
import tensorflow as tf

from mlutils.adapted import AdaptedModel, check_alone, copy_of, input_spec
from mlutils.compiled import Graphs, as_graph, compiled_steps
from mlutils.door import tasks as door
from mlutils.door.losses import check_comparable, check_loss, compiled_loss
from mlutils.door.networks import check_norms
from mlutils.losses import mean_loss
from mlutils.vectorize import map_tasks
from mlutils.workers import logs_for_keras, of_share, tasks_of_replica

NO_CLASS_WEIGHT = (
    "class_weight is refused: label 0 is another class in each task. Weigh queries by "
    "sample_weight, of shape (tasks, Q)."
)
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

    Example:
        >>> class Mean(mlutils.MetaLearner):  # answers with the mean of the targets
        ...     def adapt(self, support_x, support_y):
        ...         mean = tf.reduce_mean(support_y, axis=0)
        ...         return lambda query_x: tf.zeros_like(query_x) + mean
        ...
        >>> tasks = mlutils.data.sinusoids(shots=5, queries=10, meta_batch=25)
        >>> (support_x, support_y, query_x), query_y = next(iter(tasks))
        >>> tuple(Mean()((support_x, support_y, query_x)).shape)
        (25, 10, 1)
    """

    described, fewest = False, 1  # the support set: is it signatures, what is its least size

    def __init__(self, **kwargs):
        # The door casts inputs to this learner's precision, and Keras would to half of it.
        super().__init__(autocast=False, **kwargs)
        self.graphs, self._function_settings = Graphs(), {}
        self.share = None  # of a replica, in tasks, within ``fit``; one of the ``settings``

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

    def keep(self, support_x, support_y, **adapt_options):
        """What ``recall`` needs of one task, a nest of tensors; here the support set itself.

        Args:
            support_x, support_y: as for ``adapt``, checked tensors.
            **adapt_options: of ``adapt``.
        """
        if adapt_options:
            raise NotImplementedError(
                f"{type(self).__name__} defines no keep that would take {tuple(adapt_options)}: "
                "leave it out, or define keep and recall."
            )
        return support_x, support_y

    def recall(self, kept, query_x):
        """Predictions ``(Q, ...)`` for queries ``(Q, ...)`` from what ``keep`` returned."""
        return self.adapt(*kept)(query_x)

    @as_graph
    def solve(self, support_x, support_y, query_x, **adapt_options):
        """Adapt to and predict for each task of a batch: tensors as for ``call``."""

        def one_task(task):
            support_x, support_y, query_x = task
            return self.adapt(support_x, support_y, **adapt_options)(query_x)

        return map_tasks(one_task, (support_x, support_y, query_x))

    def sees(self):
        """The networks that see a support input and a query, whose shapes must fit; None if none.

        The door (``mlutils.door``) asks this, and what follows.
        """
        return None, None

    def check_tasks(self, support_x, support_y):
        """Raise if the support sets of a batch of tasks do not fit this learner otherwise."""

    def check_options(self, options):
        """Raise if ``adapt`` does not take these options, or cannot run yet."""
        door.check_options(self, options)

    def predicts(self):
        """The shape of what is predicted for a query, ``TensorShape``; None if not known."""
        return None

    def target(self):
        """What one support target is, as a ``TensorSpec``; None if that is not known."""
        return None

    def classes(self, support_y):
        """How many classes the labels of these tasks are of; None if that is not known."""
        return None

    def logits(self):
        """Whether a classifier's predictions are logits, as far as is known."""
        return False

    def prepare(self, element):
        """An element of a dataset as XLA can take it: labels checked, no shape read off values."""
        (support_x, support_y, query_x), query_y, *others = element
        with tf.control_dependencies(door.assert_finite((element[0], query_y))):
            support_y, query_y = tf.identity(support_y), tf.identity(query_y)
        ways = self.classes(support_y)
        if ways is not None and support_y.dtype.is_integer:
            support_y = door.assert_labels("support_y", support_y, ways)
        if ways is not None and query_y.dtype.is_integer:
            query_y = door.assert_labels("query_y", query_y, ways)
        return (support_x, support_y, query_x), query_y, *others

    # ------------------------------------------------------------ what follows

    def adapted_model(self, support_x, support_y, **adapt_options):
        """Adapt to one task, and make a Keras model of the result.

        Its ``predict``, ``save`` and ``export`` are Keras's; an exported model runs without
        ``mlutils``.  It is a copy: the learner stays as it is, and may be trained on.

        Args:
            support_x, support_y: as for ``adapt``.
            **adapt_options: passed to ``adapt``.

        Returns:
            A ``keras.Model`` from inputs ``(batch, ...)`` to predictions ``(batch, ...)``, equal to
            those of ``adapt(support_x, support_y)``.

        Raises:
            ValueError: as ``adapt``.
            NotImplementedError: if predictions depend on which queries come together
                (``BatchNorm`` in a transductive learner); if a class cannot be copied.
        """
        self.check_options(adapt_options)
        check_alone(self)
        support = door.read_support(self, support_x, support_y, axes=1)
        return AdaptedModel(copy_of(self), self.keep(*support, **adapt_options))

    def __call__(self, inputs, *args, **options):
        """``call``, after the door: what the inputs are is checked before Keras sees them."""
        self.check_options({k: v for k, v in options.items() if k not in ("training", "mask")})
        inputs = self.checked_inputs(inputs)
        self.graphs.specs = [tf.TensorSpec([None, None, *x.shape[2:]], x.dtype) for x in inputs]
        return super().__call__(inputs, *args, **options)

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
        return self.solve(*inputs, **adapt_options)

    def checked_inputs(self, inputs):
        """``(support_x, support_y, query_x)`` of a batch of tasks as tensors, or a ValueError."""
        if any(isinstance(x, keras.KerasTensor) for x in tf.nest.flatten(inputs)):
            return inputs  # of a functional model
        return door.read_inputs(self, inputs)

    def task_loss(self, targets, predictions):
        """The compiled loss as a scalar: its mean over all examples.

        Args:
            targets: of the predictions' shape, or integer labels without their last axis.
            predictions: ``(..., examples, outputs)``.
        """
        return mean_loss(compiled_loss(self), targets, predictions)

    def meta_loss(self, episodes):
        """The mean over tasks of the mean query loss after adaptation, a scalar.

        This is what ``fit`` minimises and logs, but for the model's own regularisers, which
        ``fit`` adds.

        Args:
            episodes: an ``Episode`` with a leading axis of tasks, or the same as
                ``((support_x, support_y, query_x), query_y)``.
        """
        return self.query_loss(*door.read_episode(self, episodes))

    @as_graph
    def query_loss(self, support_x, support_y, query_x, query_y):
        """``meta_loss`` of tensors."""
        return self.task_loss(query_y, self((support_x, support_y, query_x)))

    def meta_gradients(self, episodes):
        """The meta-loss of a batch of tasks and its gradient.

        Args:
            episodes: as for ``meta_loss``.

        Returns:
            ``(loss, gradients)``: a scalar, and a list aligned with
            ``trainable_variables``.
        """
        return self.loss_and_gradients(*door.read_episode(self, episodes))

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
        """Keras's; raises a ValueError for a loss that does not fit, as one of probabilities."""
        self.check_loss(loss)
        for name in getattr(self, "networks", ()):
            check_norms(getattr(self, name), name)
        super().compile(optimizer, loss, **options)

    def check_loss(self, loss):
        """Raise if a loss does not fit what the learner predicts."""
        check_loss(loss, type(self).__name__, self.logits())

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras's; nothing is compared by broadcasting, and labels are of the classes there are."""
        if self.loss is not None and y is not None:
            check_comparable(keras.losses.get(self.loss), y, y_pred)
            if y.dtype.is_integer and y.shape.rank < y_pred.shape.rank:
                y = door.assert_labels("query_y", y, tf.shape(y_pred)[-1])
        sample_weight = door.of_queries(sample_weight, y)
        with tf.control_dependencies(door.assert_finite((x, y))):
            return super().compute_loss(x, y, y_pred, sample_weight, training)

    def train_step(self, data):
        return logs_for_keras(super().train_step(of_share(data, self.share)))

    def test_step(self, data):
        return logs_for_keras(super().test_step(data))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred, door.of_queries(sample_weight, y))

    def fit(self, x=None, y=None, batch_size=None, epochs=1, **options):
        """Keras's; what is wrong with the data raises a ValueError before training begins.

        Args:
            x: a dataset of ``((support_x, support_y, query_x), query_y)``, or one batch of tasks
                ``(support_x, support_y, query_x)``.
            y: with the latter, ``query_y``.
            batch_size: of Keras; not with a dataset.
            epochs: of Keras.
            **options: of Keras.  ``sample_weight``, ``(tasks,)`` or ``(tasks, Q)``, weighs the
                loss of the queries.  ``class_weight`` is refused: the labels of a task's classes
                mean another thing in each task.
        """
        if options.get("class_weight") is not None:
            raise ValueError(NO_CLASS_WEIGHT)
        weights = options.get("sample_weight")
        x, y = self.checked_data(x, y, options.get("steps_per_epoch"), "steps_per_epoch", weights)
        validation = options.get("validation_data")
        if isinstance(validation, tf.data.Dataset):
            self.checked_data(validation, None, options.get("validation_steps"), "validation_steps")
        elif isinstance(validation, (tuple, list)) and len(validation) > 1:
            checked = self.checked_data(*validation[:2], None, "validation_steps")
            options["validation_data"] = (*checked, *validation[2:])
        self.share = tasks_of_replica(self, x) if isinstance(x, tf.data.Dataset) else None
        try:
            with door.short_errors():
                return super().fit(x, y, batch_size, epochs, **options)
        finally:
            self.share = None

    def evaluate(self, x=None, y=None, batch_size=None, **options):
        """Keras's, of data as for ``fit``."""
        if "_use_cached_eval_dataset" not in options:  # called by fit
            weights = options.get("sample_weight")
            x, y = self.checked_data(x, y, options.get("steps"), "steps", weights)
        with door.short_errors():
            return super().evaluate(x, y, batch_size, **options)

    def predict(self, x, batch_size=None, **options):
        """Keras's, of data as for ``fit``."""
        x, _ = self.checked_data(x, None, options.get("steps"), "steps", targets=False)
        with door.short_errors():
            return super().predict(x, batch_size, **options)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **options):
        """Keras's, of a batch as for ``fit``."""
        if class_weight is not None:
            raise ValueError(NO_CLASS_WEIGHT)
        x, y = self.checked_data(x, y, 1, "steps", sample_weight)
        with door.short_errors():
            return super().train_on_batch(x, y, sample_weight, **options)

    def test_on_batch(self, x, y=None, sample_weight=None, **options):
        """Keras's, of a batch as for ``fit``."""
        x, y = self.checked_data(x, y, 1, "steps", sample_weight)
        with door.short_errors():
            return super().test_on_batch(x, y, sample_weight, **options)

    def checked_data(self, x, y, steps, argument, weights=None, targets=True):
        """What ``fit`` is given: a dataset that fits, arrays as tensors, generators as they are."""
        if isinstance(x, tf.data.Dataset):
            door.check_ends(x, steps, argument)
            check = door.without_values(self.check_element if targets else self.check_inputs)
            check(x.element_spec)
            if targets and self.distribute_strategy.num_replicas_in_sync > 1 and self.jit_compile:
                x = x.map(self.prepare)
        elif isinstance(x, (tuple, list)):
            x = self.checked_inputs(x)
            y = door.read_query_y(self, x, y) if targets else None
            self.check_weights(weights, y)
        elif not hasattr(x, "__iter__") and not isinstance(x, keras.utils.PyDataset):
            self.checked_inputs(x)  # raises
        return x, y

    def check_element(self, element):
        """Raise if a dataset's element does not fit."""
        inputs, query_y, weights = door.with_weights(element)
        query_y = door.read_query_y(self, self.checked_inputs(inputs), query_y)
        self.check_weights(weights, query_y)

    def check_weights(self, weights, query_y):
        """Raise if sample weights, where there are some, are not of tasks or of queries."""
        if weights is not None:
            door.of_queries(door.as_tensor("sample_weight", weights), query_y)

    def check_inputs(self, element):
        """Raise if the inputs of a dataset's element, with or without targets, do not fit."""
        inside = isinstance(element, tuple) and len(element) < 3
        self.checked_inputs(element[0] if inside else element)

    def compile_from_config(self, config):
        # Keras's own does nothing where ``compile`` is overridden.
        super().compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **more):
        """Keras's; for any numbers of tasks and examples.

        The shape of an example is the one that was seen last; before any was, the network's.
        """
        self.check_options({})
        specs = self.graphs.specs or self.specs()
        if input_signature is None and specs is None:
            raise ValueError(
                "Which shapes is this learner for? Its networks do not tell: call it once on a "
                "batch of tasks before export, or pass input_signature."
            )
        signature = input_signature or [tuple(specs)]
        super().export(filepath, format, verbose, signature, **more)

    def example_specs(self):
        """``TensorSpec`` of one support input, target and query; None for what is not known."""
        support_x, query_x = (input_spec(network, self.compute_dtype) for network in self.sees())
        return support_x, self.target(), query_x

    def specs(self):
        """``TensorSpec`` of ``(support_x, support_y, query_x)`` of any size; None if not known."""
        specs = self.example_specs()
        if None in specs:
            return None
        return [tf.TensorSpec([None, None, *x.shape], x.dtype) for x in specs]

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
