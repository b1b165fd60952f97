"""Tables that random networks made: a prior over small classification problems."""

import math

import tensorflow as tf

from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_seed
from mlutils.episodes import Episode

NODES = 12  # in each layer


class RandomTables:
    """Tables of numbers with a class for each row, made by small random networks.

    A row's numbers are nodes of a network of three layers of 12, in which causes become effects,
    with noise; its class is the highest of some scores that read the middle layer, with noise.
    So a column may stand before the class, beside it or behind it, as in the prior of TabPFN
    (Hollmann et al. 2023), of which this is a small relative.  Each table has a network of its
    own, and draws besides:

    - how far its layers are from linear, how noisy they are, and how noisy its class is;
    - how many columns it has, 2 to ``features``: the others are zeros; each is bent by a power;
    - how many classes, 2 to ``classes``, which are not equally frequent.  Small support sets may
      lack one.

    Args:
        features: the columns of every table, zeros included; at least 2.
        classes: the most classes; at least 2.

    Example:
        >>> prior = mlutils.RandomTables(features=5, classes=3)
        >>> (support_x, support_y, query_x), query_y = next(iter(prior.episodes(meta_batch=8)))
        >>> tuple(support_x.shape), tuple(support_y.shape)
        ((8, 32, 5), (8, 32))
    """

    def __init__(self, features=16, classes=4):
        self.features = check_count("features", features, least=2)
        if self.features > 3 * NODES:
            raise ValueError(
                f"features must be at most {3 * NODES}, the nodes of a network, got {features}."
            )
        self.classes = check_count("classes", classes, least=2)

    def episodes(self, shots=32, queries=32, meta_batch=32, seed=0):
        """Endless batches of tables.

        Args:
            shots: support rows of a table, of all classes together.
            queries: query rows.
            meta_batch: tables per batch.
            seed: 0 to 2**32 - 1; the same seed gives the same batches.

        Returns:
            A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)``: float32
            ``(meta_batch, rows, features)`` and int32 labels ``(meta_batch, rows)``.
        """
        shots, queries = check_count("shots", shots), check_count("queries", queries)
        meta_batch, seed = check_count("meta_batch", meta_batch), check_seed(seed)

        def sample(draws):
            layers = network(draws, meta_batch, shots + queries)
            y = labels(draws, layers[1], self.classes)
            x = columns(draws, tf.concat(layers, axis=2), self.features)
            return Episode(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:]).element

        return endless(sample, seed)


def network(draws, tables, rows):
    """Three layers ``(tables, rows, NODES)``: causes, some of which vary more; two of effects."""
    layer = draws.normal((tables, rows, NODES)) * tf.exp(draws.normal((tables, 1, NODES)))
    layers, gain, noise = [layer], each(draws, tables, 0.2, 3.0), each(draws, tables, 0.01, 0.5)
    for _ in range(2):
        matrix = draws.normal((tables, NODES, NODES)) / math.sqrt(NODES)
        layer = tf.tanh(gain * (layer @ matrix + draws.normal((tables, 1, NODES)))) / gain
        layer += noise * tf.math.reduce_std(layer, 1, True) * draws.normal(layer.shape)
        layers.append(layer)
    return layers


def labels(draws, layer, classes):
    """Labels ``(tables, rows)``: the highest of some noisy scores that read a layer."""
    tables = layer.shape[0]
    scores = standardized(layer @ draws.normal((tables, NODES, classes)))
    scores += 0.5 * draws.normal((tables, 1, classes))
    uniform = draws.uniform(scores.shape, 1e-6, 1.0)
    scores -= each(draws, tables, 0.01, 0.3) * tf.math.log(-tf.math.log(uniform))
    exist = tf.range(classes) < 2 + tf.cast(draws.uniform((tables, 1, 1)) * (classes - 1), tf.int32)
    return tf.argmax(tf.where(exist, scores, -math.inf), axis=2, output_type=tf.int32)


def columns(draws, nodes, features):
    """Columns ``(tables, rows, features)``: some of the nodes, each bent by a power, then zeros."""
    tables = nodes.shape[0]
    chosen = tf.argsort(draws.uniform((tables, nodes.shape[2])))[:, :features]
    x = tf.gather(standardized(nodes), chosen, axis=2, batch_dims=1)
    power = tf.exp(draws.uniform((tables, 1, features), -0.7, 0.7))
    exist = tf.range(features) < 2 + tf.cast(
        draws.uniform((tables, 1, 1)) * (features - 1), tf.int32
    )
    return tf.where(exist, tf.sign(x) * tf.abs(x) ** power, 0.0)


def each(draws, tables, low, high):
    """A number for each table, ``(tables, 1, 1)``, log-uniform."""
    return tf.exp(draws.uniform((tables, 1, 1), math.log(low), math.log(high)))


def standardized(x):
    """Each column of rows ``(tasks, n, columns)``; a node that is stuck becomes 0."""
    mean, spread = tf.reduce_mean(x, 1, True), tf.math.reduce_std(x, 1, True)
    return (x - mean) / (spread + 1e-6)
