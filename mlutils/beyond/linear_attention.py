"""Attention without a softmax: each layer is a step of gradient descent."""

import keras
import tensorflow as tf

from mlutils.door.numbers import check_count, check_rate
from mlutils.door.tasks import one_task
from mlutils.learner import MetaLearner


@keras.saving.register_keras_serializable(package="mlutils")
class LinearAttention(MetaLearner):
    """Linear regression in context, by layers of attention without a softmax.

    An example pays attention to another in proportion to the product of their inputs, and what it
    gathers are targets.  At the start one layer is one step of gradient descent on half the mean
    squared error, from weights of zero (:eq:`eq-attention-step`), and k layers are k steps
    (:eq:`eq-attention-layers`).  Trained, each layer has a matrix of its own in place of its step
    size, which makes it a step of preconditioned descent.  von Oswald et al. (ICML 2023).

    Support inputs are ``(S, features)``, targets ``(S, outputs)``; predictions ``(Q, outputs)``.
    The order of the support set does not matter, and its size may differ from that in training.

    Args:
        features: d, numbers of an input.
        layers: how many.
        step: alpha, the step size that every layer starts with.

    Example:
        >>> learner = mlutils.LinearAttention(features=2, step=0.5)
        >>> predict = learner.adapt([[1.0, 0.0], [1.0, 2.0]], [[2.0], [4.0]])
        >>> print(predict([[1.0, 1.0]]).numpy())  # .5 / 2 (2 * 1 + 4 * 3)
        [[3.5]]
    """

    def __init__(self, features, layers=1, step=0.1, **kwargs):
        super().__init__(**kwargs)
        self.features, self.depth = check_count("features", features), check_count("layers", layers)
        self.step = check_rate("step", step)
        self.matrices = [
            self.add_weight(
                shape=(self.features, self.features),
                initializer=keras.initializers.Identity(self.step),
                name=f"matrix_{layer}",
            )
            for layer in range(self.depth)
        ]
        self.built = True

    @one_task
    def adapt(self, support_x, support_y):
        """Let the examples of one task attend to one another.

        Args:
            support_x: ``(S, features)``.
            support_y: ``(S, outputs)``.

        Returns:
            A predictor from ``(Q, features)`` to ``(Q, outputs)``.
        """
        kept = self.keep(support_x, support_y)
        return lambda query_x: self.recall(kept, query_x)

    def keep(self, support_x, support_y):
        """The inputs, and what each layer has left of the targets: ``depth`` of ``(S, outputs)``.

        What one layer predicts of them, the next does not have to (:eq:`eq-attention-layers`).
        """
        left = [support_y]
        for matrix in self.matrices[:-1]:
            left.append(left[-1] - attend(support_x, support_x, left[-1], matrix))
        return support_x, left

    def recall(self, kept, query_x):
        """Predictions: what a query gathers in all layers."""
        support_x, left = kept
        layers = zip(left, self.matrices, strict=True)
        return tf.add_n([attend(query_x, support_x, y, matrix) for y, matrix in layers])

    def sees(self):
        return (tf.TensorShape([self.features]),) * 2

    def target(self):
        return tf.TensorSpec([None], self.compute_dtype)

    def check_tasks(self, support_x, support_y):
        if support_y.shape.rank not in (3, None) or not support_y.dtype.is_floating:
            raise ValueError(
                f"support_y of a task has shape {support_y.shape[1:]} and dtype "
                f"{support_y.dtype.name}; allowed are floats (S, outputs)."
            )

    def get_config(self):
        config = {"features": self.features, "layers": self.depth, "step": self.step}
        return {**super().get_config(), **config}


def attend(queries, keys, values, matrix):
    """``(1/S) sum_i values_i (keys_i . matrix queries)``, ``(n, outputs)``."""
    fit = tf.einsum("qd,ed,se->qs", queries, matrix, keys)
    return fit @ values / tf.cast(tf.shape(keys)[0], values.dtype)
