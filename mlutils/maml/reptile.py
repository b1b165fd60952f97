"""Reptile: move theta toward where ordinary training on a task ends."""

import keras
import tensorflow as tf

from mlutils.compiled import as_graph
from mlutils.door.numbers import check_count, check_seed
from mlutils.inner_loop import check_fixed
from mlutils.maml.maml import MAML


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

    Args:
        model: as for ``MAML``.
        inner_lr: the step size of the inner loop.
        inner_steps: the number k of inner steps, at least 1, in training and, unless ``adapt`` is
            told otherwise, in adapting.
        batch_size: examples per inner step in training, taken in turn from a shuffled task; all
            when None.  Reptile differs from joint training by what successive minibatches of a
            task have in common, so the paper's setting is a small batch.
        seed: of the shuffles, 0 to 2**32 - 1; XLA makes other ones from the same seed.
        transductive: as for ``MAML``; not transductive unless told so.
        rule: as for ``MAML``, without weights of its own, such as ``AdamRule``.

    Example:
        >>> layer = keras.layers.Dense(1, kernel_initializer="zeros")
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> learner = mlutils.Reptile(model, inner_lr=0.25, inner_steps=1)
        >>> learner.compile(loss="mse")
        >>> learner.adapt([[1.0]], [[2.0]])([[3.0]]).numpy().tolist()
        [[4.0]]
    """

    def __init__(
        self,
        model,
        inner_lr=0.02,
        inner_steps=5,
        batch_size=None,
        seed=0,
        transductive=False,
        rule=None,
        **kwargs,
    ):
        inner_steps = check_count("inner_steps", inner_steps)
        super().__init__(model, inner_lr, inner_steps, True, rule, transductive, False, **kwargs)
        check_fixed(self.rule, "Reptile")
        self.batch_size = None if batch_size is None else check_count("batch_size", batch_size)
        self.seed = check_seed(seed)
        self.shuffles = self.add_weight(  # how many there were; a SeedGenerator is not saved
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            name="shuffles",
            aggregation="only_first_replica",
        )

    def check_weights(self, weights, query_y):
        if weights is not None:
            raise ValueError(
                "Reptile knows no sample_weight: it trains on support and query examples alike, "
                "and not by the loss of the queries."
            )

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        """The query loss; in ``fit`` its gradient is replaced by ``directions``."""
        loss = super().compute_loss(x, y, tf.stop_gradient(y_pred), sample_weight, training)
        if not training:
            return loss
        replicas = self.distribute_strategy.num_replicas_in_sync
        toward = tf.add_n(
            [
                tf.reduce_sum(tf.stop_gradient(d) * tf.convert_to_tensor(v))
                for d, v in zip(self.directions(x, y), self.model.trainable_variables, strict=True)
            ]
        )
        return loss + tf.cast(toward - tf.stop_gradient(toward), loss.dtype) / replicas

    def loss_and_gradients(self, support_x, support_y, query_x, query_y):
        """The query loss, and the directions in a gradient's place: they are not that of it."""
        loss = self.query_loss(support_x, support_y, query_x, query_y)
        return loss, self.directions((support_x, support_y, query_x), query_y)

    def directions(self, inputs, query_y):
        """Theta minus the mean over tasks of the weights after training (:eq:`eq-reptile`).

        Args:
            inputs: ``(support_x, support_y, query_x)`` of a batch of tasks.
            query_y: ``(tasks, Q, ...)``.

        Returns:
            A list of tensors aligned with ``trainable_variables`` of the model.
        """
        support_x, support_y, query_x = self.checked_inputs(inputs)
        x = tf.concat([support_x, query_x], 1)
        y = tf.concat([support_y, tf.cast(query_y, support_y.dtype)], 1)
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.convert_to_tensor(self.shuffles)])
        self.shuffles.assign_add(1)
        order = tf.argsort(tf.random.stateless_uniform(tf.shape(x)[:2], seed), axis=1)
        return self.directions_in_order(x, y, order)

    @as_graph
    def directions_in_order(self, x, y, order):
        """``directions`` of tasks ``(tasks, examples, ...)`` whose examples come in an order."""
        theta = self.initialisation()
        trained = self.descend(self.minibatch_loss, theta, tasks=(x, y, order))
        return [t - tf.reduce_mean(w, 0) for t, w in zip(theta, trained, strict=True)]

    def minibatch_loss(self, weights, step, x, y, order):
        """One task's loss on the examples whose turn it is in step ``step``."""
        examples = tf.shape(order)[0]
        size = examples if self.batch_size is None else tf.minimum(self.batch_size, examples)
        batch = tf.gather(order, (step * size + tf.range(size)) % examples)
        return self.support_loss(weights, step, tf.gather(x, batch), tf.gather(y, batch))

    def get_config(self):
        config = {**super().get_config(), "batch_size": self.batch_size, "seed": self.seed}
        del config["first_order"], config["recompute"]
        return config
