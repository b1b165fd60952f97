"""Reptile: move theta toward where ordinary training on a task ends."""

import keras
import tensorflow as tf

from mlutils.checks import check_count, check_seed
from mlutils.episodes import Episode
from mlutils.maml.maml import MAML
from mlutils.vectorize import map_tasks


@keras.saving.register_keras_serializable(package="mlutils")
class Reptile(MAML):
    """Reptile (Nichol, Achiam & Schulman, 2018).

    A meta-step trains on each task by ``inner_steps`` steps of gradient descent, and moves theta
    toward the mean of where they end (:eq:`eq-reptile`): the "gradient" is theta minus that mean,
    and for small steps :eq:`eq-reptile-taylor`.
    Compile it with ``SGD(epsilon)``, the paper's outer step, or another optimizer.
    There is no division into support and query set in training: each task trains on both
    together.  ``adapt``, and with it ``evaluate``, sees the support set alone; the loss that
    ``fit`` logs is that of the queries after ``adapt``, as for every learner.
    A model's own regularisers have no part in it.

    Args:
        model: as for ``MAML``.
        inner_lr: the step size of the inner loop.
        inner_steps: the number k of inner steps, in training and, unless ``adapt`` is told
            otherwise, in adapting.
        batch_size: examples per inner step in training, taken in turn from a shuffled task; all
            when None.  Reptile differs from joint training by what successive minibatches of a
            task have in common, so the paper's setting is a small batch.
        seed: of the shuffles, 0 to 2**32 - 1; XLA makes other ones from the same seed.
        transductive: as for ``MAML``; not transductive unless told so.

    Raises:
        TypeError, ValueError: as ``MAML``; ValueError if ``inner_steps`` is 0, or ``batch_size``
            or ``seed`` out of range.
    """

    def __init__(
        self,
        model,
        inner_lr=0.02,
        inner_steps=5,
        batch_size=None,
        seed=0,
        transductive=False,
        **kwargs,
    ):
        inner_steps = check_count("inner_steps", inner_steps)
        super().__init__(
            model, inner_lr, inner_steps, first_order=True, transductive=transductive, **kwargs
        )
        self.batch_size = None if batch_size is None else check_count("batch_size", batch_size)
        self.seed = check_seed(seed)
        self.shuffles = self.add_weight(  # how many there were; a SeedGenerator is not saved
            shape=(), initializer="zeros", dtype="int64", trainable=False, name="shuffles"
        )

    def train_step(self, data):
        """One outer step, for Keras's ``fit``."""
        inputs, query_y = Episode.from_element(data).element
        predictions = self(inputs)
        loss = self.task_loss(query_y, predictions)
        gradients = self.directions(inputs, query_y)
        replicas = self.distribute_strategy.num_replicas_in_sync
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(query_y)[0])
        self.optimizer.apply([g / replicas for g in gradients], self.trainable_variables)
        return self.compute_metrics(inputs, query_y, predictions)

    def meta_gradients(self, episodes):
        """The meta-loss of a batch of tasks, and theta minus the mean of the trained weights.

        Args:
            episodes: as for ``meta_loss``.

        Returns:
            ``(loss, directions)``; the directions take a gradient's place, and are not that of
            the loss.
        """
        inputs, query_y = Episode.from_element(episodes).element
        return self.meta_loss((inputs, query_y)), self.directions(inputs, query_y)

    def directions(self, inputs, query_y):
        """Theta minus the mean over tasks of the weights after training (:eq:`eq-reptile`).

        Args:
            inputs: ``(support_x, support_y, query_x)`` of a batch of tasks.
            query_y: ``(tasks, Q, ...)``.

        Returns:
            A list of tensors aligned with ``trainable_variables``.
        """
        support_x, support_y, query_x = self.three_tensors(inputs)
        x = tf.concat([support_x, query_x], 1)
        y = tf.concat([support_y, tf.cast(query_y, support_y.dtype)], 1)
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.convert_to_tensor(self.shuffles)])
        self.shuffles.assign_add(1)
        order = tf.argsort(tf.random.stateless_uniform(tf.shape(x)[:2], seed), axis=1)
        theta = self.initialisation()
        trained = map_tasks(lambda task: self.trained_weights(theta, *task), (x, y, order))
        return [t - tf.reduce_mean(w, 0) for t, w in zip(theta, trained, strict=True)]

    def trained_weights(self, weights, x, y, order):
        """The weights after ``inner_steps`` steps on minibatches of one task, taken in turn."""
        examples = tf.shape(order)[0]
        size = examples if self.batch_size is None else tf.minimum(self.batch_size, examples)
        for step in range(self.inner_steps):
            batch = tf.gather(order, (step * size + tf.range(size)) % examples)
            weights = self.inner_step(weights, tf.gather(x, batch), tf.gather(y, batch), step)
        return weights

    def get_config(self):
        config = super().get_config()
        del config["first_order"], config["learn_lr"]
        return {**config, "batch_size": self.batch_size, "seed": self.seed}
