"""Relation networks: the comparison itself is learned."""

import keras
import tensorflow as tf

from mlutils.classes import class_means
from mlutils.door.networks import check_network
from mlutils.door.tasks import shape_of
from mlutils.few_shot.encoder_learner import ClassLearner, embedding_shape
from mlutils.vectorize import map_tasks


@keras.saving.register_keras_serializable(package="mlutils")
class RelationNetwork(ClassLearner):
    """Relation network (Sung, Yang, Zhang, Xiang, Torr & Hospedales, CVPR 2018).

    A second network looks at each pair of a class's mean embedding and a query's, side by side,
    and says how well they go together (:eq:`eq-relation`).  Its numbers are logits here: compile
    with ``SparseCategoricalCrossentropy(from_logits=True)``.  The paper adds up a class's
    embeddings, so that their size grows with the number of shots, and fits the scores to 0 and 1
    by squared error.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings; it is used and
            trained in place.
        relation: a built Keras model from pairs to scores ``(batch, 1)``.  A pair is the class's
            mean embedding followed by the query's, on the last axis: ``(batch, 2 features)`` for
            embeddings ``(batch, features)``, ``(batch, height, width, 2 channels)`` for feature
            maps.

    Example:
        >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
        >>> learner = mlutils.RelationNetwork(encoder, mlutils.mlp(8, (16,), 1))
        >>> predict = learner.adapt(np.eye(4), [0, 1, 2, 2])
        >>> tuple(predict(np.eye(4)).shape)  # four queries, three classes
        (4, 3)
    """

    networks = ("encoder", "relation")

    def __init__(self, encoder, relation, **kwargs):
        super().__init__(encoder, **kwargs)
        check_network(relation, "relation")
        self.relation = relation
        *rest, channels = embedding_shape(encoder)
        self.pair = [*rest, 2 * channels]
        takes, gives = shape_of(relation, "input_shape"), shape_of(relation, "output_shape")
        if not (fits(takes, [None, *self.pair]) and fits(gives, [None, 1])):
            raise ValueError(
                f"The relation network maps {takes} to {gives}; with this encoder it must map "
                f"{tf.TensorShape([None, *self.pair])} to (None, 1): a pair of embeddings to its "
                "score."
            )

    def summarize(self, support, labels):
        """The class means ``(tasks, N, features)``."""
        return class_means(support, labels)

    def answer(self, summary, queries):
        """The scores ``(tasks, Q, N)`` (:eq:`eq-relation`)."""
        return map_tasks(lambda task: self.scores(*task), (summary, queries))

    def scores(self, classes, queries):
        """One task's scores ``(Q, N)`` of ``(N, features)`` and ``(Q, features)``."""
        count, ways = tf.shape(queries)[0], tf.shape(classes)[0]
        maps = [*self.pair[:-1], self.pair[-1] // 2]
        classes = tf.reshape(tf.tile(classes, (count, 1)), (-1, *maps))
        queries = tf.reshape(tf.repeat(queries, ways, axis=0), (-1, *maps))
        scores = self.relation(tf.concat([classes, queries], axis=-1), training=False)
        return tf.reshape(tf.cast(scores, self.compute_dtype), (count, ways))


def fits(shape, expected):
    """Whether a shape, if it is known, is the expected one."""
    return shape is None or shape.is_compatible_with(expected)
