"""The one interface of the course: adapt on a support set, then predict on queries."""

import keras
import tensorflow as tf

from mlutils.compiled import compiled_steps
from mlutils.episodes import Episode, check_batch, describe
from mlutils.vectorize import map_tasks


class MetaLearner(keras.Model):
    """Base class of all few-shot learners.

    A subclass defines ``adapt``, for **one** task.
    Everything else follows: ``call`` maps adapt-then-predict over a batch of tasks,
    so with elements ``((support_x, support_y, query_x), query_y)`` Keras's own
    ``compile``, ``fit``, ``evaluate``, callbacks and saving work unchanged, and
    training minimises the meta-learning objective (equation :eq:`eq-meta-objective`):
    the mean over tasks of the mean loss on the queries.
    """

    def __init__(self, **kwargs):
        # Inputs are passed on as they came: a float64 model gets its float64 episodes.
        super().__init__(autocast=False, **kwargs)

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

    def call(self, inputs, training=None, **adapt_options):
        """Adapt to and predict for each task of a batch.

        Args:
            inputs: ``(support_x, support_y, query_x)`` of shapes ``(tasks, S, ...)``,
                ``(tasks, S, ...)`` and ``(tasks, Q, ...)``.
            training: ignored; here for Keras.
            **adapt_options: passed to ``adapt``.

        Returns:
            Predictions ``(tasks, Q, ...)``.

        Raises:
            ValueError: if the shapes do not agree.
        """
        inputs = self.three_tensors(inputs)

        def one_task(task):
            support_x, support_y, query_x = task
            return self.adapt(support_x, support_y, **adapt_options)(query_x)

        return map_tasks(one_task, inputs)

    def three_tensors(self, inputs):
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
        return support_x, support_y, query_x

    def task_loss(self, targets, predictions):
        """The compiled loss as a scalar: its mean over all examples.

        Args:
            targets: of the predictions' shape, or integer labels without their last axis.
            predictions: ``(..., examples, outputs)``.

        Raises:
            ValueError: before ``compile``; if the compiled loss is not a single mean; if the
                shapes could be compared only by broadcasting.
        """
        loss = getattr(self, "loss", None)
        if loss is None or isinstance(loss, (dict, list, tuple)):
            raise ValueError(
                f"{type(self).__name__} adapts by the loss it is compiled with: call "
                f'compile(loss=...) with one loss first, for example "mse"; got {loss!r}.'
            )
        loss = keras.losses.get(loss)
        if getattr(loss, "reduction", "mean") not in ("mean", "sum_over_batch_size"):
            raise ValueError(
                f"The loss has reduction={loss.reduction!r}; allowed is "
                '"sum_over_batch_size": both loops use the mean over examples, so that step '
                "sizes do not depend on their number."
            )
        targets, predictions = map(tf.convert_to_tensor, (targets, predictions))
        if not comparable(targets, predictions):
            raise ValueError(
                f"The targets have shape {targets.shape} and the predictions {predictions.shape}; "
                "allowed are equal shapes, or integer labels without the last axis."
            )
        return tf.reduce_mean(loss(targets, predictions))

    def meta_loss(self, episodes):
        """The mean over tasks of the mean query loss after adaptation, a scalar.

        This is what ``fit`` minimises and logs, but for the model's own regularisers, which
        ``fit`` adds.

        Args:
            episodes: an ``Episode`` with a leading axis of tasks, or the same as
                ``((support_x, support_y, query_x), query_y)``.

        Raises:
            ValueError: if ``episodes`` is neither, or its shapes do not agree.
        """
        inputs, query_y = Episode.from_element(episodes).element
        predictions = self(inputs)
        if not predictions.shape[:2].is_compatible_with(tf.TensorShape(query_y.shape)[:2]):
            raise ValueError(
                f"query_y has shape {tuple(query_y.shape)}, the predictions "
                f"{tuple(predictions.shape)}; tasks and queries (the first two axes) must agree."
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
        with tf.GradientTape() as tape:
            loss = self.meta_loss(episodes)
        variables = [variable.value for variable in self.trainable_variables]
        return loss, tape.gradient(loss, variables, unconnected_gradients="zero")

    def make_train_function(self, force=False):
        """Keras's, or the whole of ``steps_per_execution`` steps as one XLA program.

        The latter with ``compile(jit_compile=True, steps_per_execution=...)``, on one device.
        """
        if self.train_function is None or force:
            whole = self.jit_compile and self.steps_per_execution > 1 and not self.run_eagerly
            if whole and self.distribute_strategy.num_replicas_in_sync == 1:
                self.train_function = compiled_steps(self.train_step, self.steps_per_execution)
            else:
                super().make_train_function(force)


def comparable(targets, predictions):
    """Whether the shapes agree without broadcasting: equal ranks, or labels beside logits."""
    ranks = targets.shape.rank, predictions.shape.rank
    if None in ranks or targets.shape.is_compatible_with(predictions.shape):
        return True
    labels = targets.dtype.is_integer and predictions.shape[-1] != 1
    return (
        labels
        and targets.shape[: ranks[1] - 1].is_compatible_with(predictions.shape[:-1])
        and (ranks[0] == ranks[1] - 1 or targets.shape[ranks[1] - 1 :] == [1])
    )
