"""ProtoMAML: MAML whose head starts from the class means, for any number of classes."""

import keras
import tensorflow as tf

from mlutils.adapted import input_spec
from mlutils.classes import AnyWays, class_means, class_members
from mlutils.compiled import as_graph
from mlutils.door.numbers import check_count, check_positive
from mlutils.inner_loop import map_weights
from mlutils.maml.maml import MAML
from mlutils.networks import flat_embeddings, predict_with
from mlutils.vectorize import map_tasks


@keras.saving.register_keras_serializable(package="mlutils")
class ProtoMAML(AnyWays, MAML):
    """MAML that starts from a prototypical network (Triantafillou et al., ICLR 2020).

    The model ends in embeddings.  Each task gets a linear head upon them, which starts as the
    linear classifier that nearest class means are (:eq:`eq-prototype-linear`); then embeddings
    and head take ``inner_steps`` gradient steps (:eq:`eq-proto-maml`).  The meta-gradient goes
    through the head's start, also with ``first_order=True``, which drops second derivatives alone.
    With no step it is a ``PrototypicalNetwork``.  Ways and shots may differ from task to task.

    Args:
        model: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened; otherwise as for ``MAML``.
        inner_lr, inner_steps, first_order: as for ``MAML``.
        scale: of the squared distances at the start, as for ``PrototypicalNetwork``.
        rule, transductive, recompute: as for ``MAML``; ``rule`` steps the head too.

    Example:
        >>> layer = keras.layers.Dense(1, kernel_initializer="ones")  # embeds x as x
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> learner = mlutils.ProtoMAML(model)
        >>> learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> predict = learner.adapt([[0.0], [2.0]], [0, 1], steps=0)
        >>> first, second = predict([[0.5]]).numpy()[0]
        >>> print(first - second)  # of squared distances: 2.25 - 0.25
        2.0
    """

    def __init__(self, model, inner_lr=0.01, inner_steps=1, first_order=False, scale=1.0, **kwargs):
        super().__init__(model, inner_lr, inner_steps, first_order, **kwargs)
        self.scale = check_positive("scale", scale)

    def keep(self, support_x, support_y, steps=None):
        """One task's weights of embeddings and head after the inner steps, and its inputs."""
        members = class_members(support_y[tf.newaxis], self.variable_dtype)[0]
        start = self.head(support_x, members)

        def loss(weights, step):
            return self.support_loss(weights, step, support_x, members, *start)

        steps = self.inner_steps if steps is None else check_count("steps", steps, least=0)
        return upon(start, self.descend(loss, self.theta(start), steps)), support_x

    def network_with(self, weights):
        """A copy of the network with these weights, and the head behind it."""
        *weights, kernel, bias = weights
        network, dtype = super().network_with(weights), self.variable_dtype
        head = keras.layers.Dense(kernel.shape[1], dtype=dtype)
        flat = keras.layers.Flatten(dtype=dtype)
        spec = input_spec(network, dtype)
        inputs = keras.Input(spec.shape, dtype=spec.dtype)
        model = keras.Sequential([inputs, network, flat, head])
        head.set_weights([kernel, bias])
        return model

    def target(self):
        return tf.TensorSpec([], tf.int32)

    @as_graph
    def solve(self, support_x, support_y, query_x, steps=None):
        """Each task's logits, by embeddings and a head of its own."""
        members = class_members(support_y, self.variable_dtype)
        start = map_tasks(lambda task: self.head(*task), (support_x, members))
        theta = self.theta([part[0] for part in start])
        weights = self.descend(self.support_loss, theta, steps, (support_x, members, *start))

        def answer(weights, support_x, query_x, *start):
            return self.predict_queries(upon(start, weights), support_x, query_x)

        return map_weights(answer, weights, theta, (support_x, query_x, *start))

    def head(self, support_x, members):
        """One task's linear head before any step (:eq:`eq-prototype-linear`).

        Args:
            support_x: ``(S, ...)``.
            members: ``(S, N)``, which example is of which class.

        Returns:
            The kernel ``(features, N)``, twice the class means, and the bias ``(N,)``, minus their
            squared lengths; both times ``scale``.
        """
        embeddings = self.embed(self.initialisation(), support_x)
        means = class_means(embeddings[tf.newaxis], members[tf.newaxis] > 0)[0]
        lengths = tf.reduce_sum(tf.square(means), axis=-1)
        return self.scale * 2 * tf.transpose(means), -self.scale * lengths

    def theta(self, start):
        """Where a task's weights begin: the model's, and how far the head is from its start, 0."""
        return [*self.initialisation(), *(tf.zeros_like(part) for part in start)]

    def support_loss(self, weights, step, support_x, members, *start):
        """The loss of one task's support set before an inner step, a scalar."""
        labels = tf.argmax(members, axis=-1, output_type=tf.int32)
        return super().support_loss(upon(start, weights), step, support_x, labels)

    def rules(self):
        """The update rule of the model's weights, the head's kernel and its bias."""
        return [*super().rules(), *super().rules()[:1] * 2]

    def embed(self, weights, x):
        """``(n, ...)`` -> ``(n, features)``, in the precision of the weights."""
        embeddings = flat_embeddings(lambda x, training: predict_with(self.model, weights, x), x)
        return tf.cast(embeddings, self.variable_dtype)

    def predict_with(self, weights, x):
        """The logits for ``x`` with the weights of embeddings and head."""
        *weights, kernel, bias = weights
        return tf.cast(tf.matmul(self.embed(weights, x), kernel) + bias, self.compute_dtype)

    def unadapted(self):
        raise NotImplementedError("ProtoMAML has no head, and predicts nothing, without examples.")

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def upon(start, weights):
    """A task's weights, whose last two are how far its head has moved from its start."""
    *weights, kernel, bias = weights
    return [*weights, start[0] + kernel, start[1] + bias]
