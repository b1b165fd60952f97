"""Prototypical networks: classify by the nearest class mean in a learned embedding."""

import keras

from mlutils.classes import class_means, cosines, minus_squared_distances
from mlutils.door.numbers import check_option, check_positive
from mlutils.few_shot.encoder_learner import ClassLearner

DISTANCES = ("euclidean", "cosine")


@keras.saving.register_keras_serializable(package="mlutils")
class PrototypicalNetwork(ClassLearner):
    """Prototypical network (Snell, Swersky & Zemel, NeurIPS 2017): a learned metric.

    ``adapt`` embeds the support set and averages each class into a prototype
    (:eq:`eq-prototype`); a query's logits are minus the squared Euclidean distances of its
    embedding to the prototypes (:eq:`eq-prototype-logits`), or its cosines with them, times
    ``scale``: compile with ``SparseCategoricalCrossentropy(from_logits=True)``.
    With distances it is a linear classifier on the embedding (:eq:`eq-prototype-linear`).
    All that is learned is the encoder; no weight changes during adaptation.  Not trained at all,
    on a pretrained encoder, it is the nearest-centroid control.

    Args:
        encoder: as for ``EncoderLearner``.
        distance: ``"euclidean"`` (squared) or ``"cosine"``.
        scale: what distances or cosines are multiplied by, positive.  None is 1 for distances, as
            in the paper, and 10 for cosines, which never exceed 1.  It changes no decision, and
            decides how well training goes: embeddings of length 8, as ``RMSNormalization`` makes
            them of 64 features, are up to 256 apart, and want a scale of about 0.1.

    Example:
        >>> encoder = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
        >>> learner = mlutils.PrototypicalNetwork(encoder)
        >>> predict = learner.adapt([[0.0], [2.0], [9.0]], [0, 0, 1])  # prototypes 1 and 9
        >>> predict([[3.0]]).numpy().tolist()
        [[-4.0, -36.0]]
    """

    def __init__(self, encoder, distance="euclidean", scale=None, **kwargs):
        super().__init__(encoder, **kwargs)
        self.distance = check_option("distance", distance, DISTANCES)
        if scale is None:
            scale = 10.0 if distance == "cosine" else 1.0
        self.scale = check_positive("scale", scale)

    def summarize(self, support, labels):
        """The prototypes ``(tasks, N, features)`` (:eq:`eq-prototype`)."""
        return class_means(support, labels)

    def answer(self, summary, queries):
        """The logits ``(tasks, Q, N)`` (:eq:`eq-prototype-logits`)."""
        alike = cosines if self.distance == "cosine" else minus_squared_distances
        return self.scale * alike(queries, summary)

    def get_config(self):
        return {**super().get_config(), "distance": self.distance, "scale": self.scale}
