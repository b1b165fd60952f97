"""Classes that are Gaussian clouds: a prior whose posterior predictive is known exactly."""

import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_positive, check_seed
from mlutils.door.tasks import Anyone, check_labels, read_inputs
from mlutils.episodes import Episode


class GaussianClasses:
    """Tasks of Gaussian clouds around unknown means, and their exact ceiling.

    A task draws a mean for each class from N(0, spread² I); each example draws its class, all
    equally likely, and its place from N(mean of the class, I).  No predictor has a lower mean
    loss on the queries than the posterior predictive (:eq:`eq-gaussian-classes`).

    Args:
        features: the length of an input.
        classes: N.
        spread: tau, positive: the standard deviation of the classes' means.

    Example:
        >>> family = mlutils.GaussianClasses()
        >>> inputs, query_y = next(iter(family.episodes(shots=6, queries=10, meta_batch=16)))
        >>> tuple(family.posterior(inputs).shape)  # a probability of each class
        (16, 10, 3)
    """

    def __init__(self, features=2, classes=3, spread=2.0):
        self.features = check_count("features", features)
        self.classes = check_count("classes", classes, least=2)
        self.spread = check_positive("spread", spread)

    def episodes(self, shots=12, queries=10, meta_batch=16, seed=0):
        """Endless batches of tasks.

        Args:
            shots: support examples per task, of all classes together; a class may have none.
            queries: query examples per task.
            meta_batch: tasks per batch.
            seed: 0 to 2**32 - 1; the same seed gives the same batches.

        Returns:
            A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)``: float32
            ``(meta_batch, examples, features)`` and int32 labels ``(meta_batch, examples)``.
        """
        shots, queries = check_count("shots", shots), check_count("queries", queries)
        meta_batch, seed = check_count("meta_batch", meta_batch), check_seed(seed)
        examples = shots + queries

        def sample(draws):
            means = self.spread * draws.normal((meta_batch, self.classes, self.features))
            y = tf.cast(draws.uniform((meta_batch, examples)) * self.classes, tf.int32)
            x = tf.gather(means, y, axis=1, batch_dims=1)
            x += draws.normal((meta_batch, examples, self.features))
            return Episode(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:]).element

        return endless(sample, seed)

    def posterior(self, inputs):
        """The posterior predictive (:eq:`eq-gaussian-classes`): the ceiling.

        Args:
            inputs: ``(support_x, support_y, query_x)``, a batch of tasks.

        Returns:
            Probabilities ``(tasks, Q, N)``.
        """
        support_x, support_y, query_x = read_inputs(Anyone(tf.float64), inputs)
        check_clouds(self, support_x, support_y, query_x)
        members = tf.one_hot(support_y, self.classes, dtype=tf.float64)
        counts = tf.reduce_sum(members, axis=1)[..., tf.newaxis]  # (tasks, N, 1)
        variance = 1 / (counts + 1 / self.spread**2)  # of each class's mean, given S
        means = variance * tf.matmul(members, support_x, transpose_a=True)
        differences = query_x[:, :, tf.newaxis] - means[:, tf.newaxis]
        squares = tf.reduce_sum(differences**2, axis=-1)  # (tasks, Q, N)
        spread = 1 + tf.linalg.matrix_transpose(variance)  # (tasks, 1, N)
        log_density = -squares / (2 * spread) - self.features / 2 * tf.math.log(spread)
        return tf.nn.softmax(log_density)


def check_clouds(family, support_x, support_y, query_x):
    """Raise unless tasks are of this family's kind."""
    if not all(
        x.shape.is_compatible_with((None, None, family.features)) for x in (support_x, query_x)
    ):
        raise ValueError(
            f"support_x and query_x have shapes {support_x.shape} and {query_x.shape}; allowed are "
            f"(tasks, S, {family.features}) and (tasks, Q, {family.features})."
        )
    if not support_y.dtype.is_integer or support_y.shape.rank != 2:
        raise ValueError(
            f"support_y has shape {support_y.shape} and dtype {support_y.dtype.name}; allowed are "
            "integer labels (tasks, S)."
        )
    check_labels("support_y", support_y, family.classes)
