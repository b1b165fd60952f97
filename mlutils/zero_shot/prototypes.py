"""Prototypes from descriptions: a prototypical network without a single example."""

import keras
import tensorflow as tf

from mlutils.classes import minus_squared_distances
from mlutils.door.networks import check_network
from mlutils.door.numbers import check_positive
from mlutils.door.tasks import shape_of
from mlutils.few_shot.encoder_learner import embed, embedding_length
from mlutils.zero_shot.learner import TrainedZeroShotLearner


@keras.saving.register_keras_serializable(package="mlutils")
class DescribedPrototypes(TrainedZeroShotLearner):
    """Prototypical network for zero shots (Snell, Swersky & Zemel, NeurIPS 2017).

    A second network maps a class's signature to its prototype (:eq:`eq-described-prototype`); a
    query's logits are minus the squared distances to the prototypes, times ``scale``
    (:eq:`eq-prototype-logits`): compile with
    ``SparseCategoricalCrossentropy(from_logits=True)``, and ``fit`` on episodes or on examples.

    Args:
        encoder: as for ``EncoderLearner``.
        describer: a built Keras model from signatures ``(batch, attributes)`` to prototypes
            ``(batch, features)``; likewise.
        scale: what distances are multiplied by, positive.

    Example:
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        >>> learner = mlutils.DescribedPrototypes(encoder, describer=encoder)
        >>> predict = learner.adapt([[1.0, 0.0], [0.0, 1.0]])
        >>> predict([[2.0, 0.0]]).numpy().tolist()
        [[-1.0, -5.0]]
    """

    networks = ("encoder", "describer")

    def __init__(self, encoder, describer, scale=1.0, **kwargs):
        check_network(describer, "describer")
        takes, gives = shape_of(describer, "input_shape"), shape_of(describer, "output_shape")
        if None in (takes, gives) or takes.rank != 2 or takes[1] is None:
            raise ValueError(
                "The describer must map signatures (batch, attributes) to one output; it maps "
                f"{takes} to {gives}."
            )
        super().__init__(encoder, takes[1], **kwargs)
        features = embedding_length(encoder)
        if gives.rank != 2 or gives[1] != features:
            raise ValueError(
                f"The describer maps signatures to {gives}; with this encoder it must be "
                f"(batch, {features})."
            )
        self.describer = describer
        self.scale = check_positive("scale", scale)

    def class_vectors(self, signatures):
        """The prototypes ``(tasks, N, features)`` (:eq:`eq-described-prototype`)."""
        return tf.cast(embed(self.describer, signatures), self.compute_dtype)

    def answer(self, summary, queries):
        """The logits ``(tasks, Q, N)`` (:eq:`eq-prototype-logits`)."""
        return self.scale * minus_squared_distances(queries, summary)

    def get_config(self):
        config = {**super().get_config(), "scale": self.scale}
        del config["attributes"]  # the describer knows
        return config
