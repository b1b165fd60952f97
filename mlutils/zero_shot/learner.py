"""What zero-shot learners have in common: the support set is one description of each class."""

import keras
import numpy as np
import tensorflow as tf

from mlutils.classes import class_means
from mlutils.data.described import constant_attributes
from mlutils.door.numbers import check_count
from mlutils.door.tasks import as_targets, as_tensor, read_queries
from mlutils.few_shot.encoder_learner import ClassLearner
from mlutils.networks import flat_embeddings

BATCH = 1000  # inputs embedded at once


class ZeroShotLearner(ClassLearner):
    """A learner that adapts to descriptions of classes, ``K = 0`` (:eq:`eq-zero-shot`).

    A task's support set holds no example: ``support_x`` are signatures ``(S, attributes)``,
    ``support_y`` says which class each describes, one each or several, which are averaged.  So
    ``mlutils.evaluate`` and ``mlutils.controls`` take these learners as all others, and Keras
    saves them.  Each is fitted on examples of seen classes, ``fit(x, y, signatures)``; those that
    learn by gradient descent also on episodes.

    A subclass defines ``class_vectors``, and ``answer`` where a score is not an inner product.

    Args:
        encoder: a built Keras model from inputs ``(batch, ...)`` to embeddings ``(batch, ...)``,
            which are flattened.
        attributes: the length of a signature.

    Example:
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        >>> class InnerProduct(mlutils.ZeroShotLearner):
        ...     def class_vectors(self, signatures):
        ...         return signatures
        ...
        >>> predict = InnerProduct(encoder, attributes=2).adapt([[1.0, 0.0], [0.0, 1.0]])
        >>> predict([[3.0, 1.0]]).numpy().tolist()
        [[3.0, 1.0]]
    """

    described = True

    def __init__(self, encoder, attributes, **kwargs):
        super().__init__(encoder, **kwargs)
        self.attributes = check_count("attributes", attributes)

    def adapt(self, signatures, labels=None):
        """Adapt to the description of a task's classes.

        Args:
            signatures: ``(S, attributes)``, a row for each class, or several, which are averaged.
            labels: which class each row describes, ``(S,)`` integers 0..N-1, at least one of each,
                in any order; by default row k describes class k.

        Returns:
            A predictor from query inputs ``(Q, ...)`` to scores ``(Q, N)``.

        Raises:
            ValueError: if a signature has another length or lacks a number (where only running a
                graph shows it, TensorFlow's ``InvalidArgumentError``), or the labels do not fit; if
                the learner has still to be fitted.
        """
        return super().adapt(*with_labels(signatures, labels))

    def adapted_model(self, signatures, labels=None):
        """As ``MetaLearner``, of ``adapt(signatures, labels)``."""
        return super().adapted_model(*with_labels(signatures, labels))

    def example_specs(self):
        signature = tf.TensorSpec([self.attributes], self.compute_dtype)
        return signature, *super().example_specs()[1:]

    def embed_support(self, support_x):
        """The signatures themselves."""
        return support_x

    def embed_queries(self, support_x, query_x):
        """As ``EncoderLearner``; a signature is no example that could stand beside a query."""
        return super().embed_queries(None, query_x)

    def sees(self):
        return None, self.encoder

    def check_tasks(self, signatures, labels):
        self.check_signatures(signatures)
        super().check_tasks(signatures, labels)

    def check_signatures(self, signatures):
        """Raise unless ``(tasks, N, attributes)``, finite."""
        shape = signatures.shape[1:]
        if shape.rank != 2 or shape[1] != self.attributes or shape[0] == 0:
            raise ValueError(
                f"The signatures have shape {shape}; this learner takes (N, {self.attributes}): a "
                f"row of {self.attributes} attributes for each class."
            )
        if not tf.executing_eagerly():  # else the door has looked
            finite = tf.math.is_finite(tf.cast(signatures, tf.float64))
            tf.debugging.Assert(tf.reduce_all(finite), ["An attribute is missing"])

    def summarize(self, signatures, labels):
        """The classes' vectors, class 0 first, ``(tasks, N, features)``."""
        signatures = tf.cast(signatures, self.compute_dtype)
        return self.class_vectors(class_means(signatures, labels))

    def class_vectors(self, signatures):
        """What stands for each class: ``(tasks, N, attributes)`` -> ``(tasks, N, ...)``."""
        raise NotImplementedError(f"{type(self).__name__} does not define class_vectors.")

    def answer(self, summary, queries):
        """The inner products of classes' vectors and embeddings, ``(tasks, Q, N)``."""
        return tf.matmul(queries, summary, transpose_b=True)

    def unfitted(self, name, *shape):
        """A weight that ``fit`` will set, not a number until then."""
        nan = keras.initializers.Constant(np.nan)
        return self.add_weight(shape=shape, initializer=nan, trainable=False, name=name)

    def check_fitted(self, weight):
        """Raise if a weight is as ``unfitted`` left it."""
        with tf.init_scope():  # while a graph is made, too: in it the weight has a value
            if tf.executing_eagerly() and np.isnan(weight).any():
                raise ValueError(
                    f"This {type(self).__name__} has still to be fitted: call "
                    "fit(x, y, signatures)."
                )

    def features(self, x):
        """The embeddings ``(n, features)`` of inputs ``(n, ...)`` as a float64 array."""
        parts = (x[start : start + BATCH] for start in range(0, len(x), BATCH))
        found = np.concatenate([flat_embeddings(self.encoder, part) for part in parts], dtype=float)
        if not np.isfinite(found).all():
            raise ValueError(
                f"The encoder's embedding of example {np.argwhere(~np.isfinite(found))[0][0]} is "
                "not finite."
            )
        return found

    def check_examples(self, x, y, signatures):
        """Examples of described classes as arrays.

        Args:
            x: inputs ``(n, ...)``.
            y: their classes, integers ``(n,)``: rows of ``signatures``.
            signatures: of the seen classes, ``(classes, attributes)``.

        Returns:
            ``x``, ``y``, ``signatures`` as arrays, the latter of floats.

        Raises:
            ValueError: if they do not fit together; for a class without a
                signature or without examples; for an attribute that is missing, or the same for
                all classes.
        """
        signatures = tf.cast(as_targets("signatures", signatures, tf.float64), self.compute_dtype)
        self.check_signatures(signatures[tf.newaxis])
        x, y = (t.numpy() for t in (read_queries(self, x, axes=1, name="x"), as_tensor("y", y)))
        signatures = signatures.numpy()
        if y.ndim != 1 or x.shape[:1] != y.shape or not np.issubdtype(y.dtype, np.integer):
            raise ValueError(
                "y must be one integer class per example; got x of shape "
                f"{x.shape} and y of {y.dtype} {y.shape}."
            )
        unknown = sorted(set(y.tolist()) - set(range(len(signatures))))
        if unknown:
            raise ValueError(
                f"There are examples of classes {unknown}, and {len(signatures)} signatures, of "
                f"classes 0 to {len(signatures) - 1}."
            )
        without = sorted(set(range(len(signatures))) - set(y.tolist()))
        if without:
            raise ValueError(
                f"Classes {without} have a signature and no example: fit takes the signatures of "
                "the seen classes only, or unseen ones leak into training."
            )
        same = np.flatnonzero(constant_attributes(signatures))
        if len(same):
            raise ValueError(
                f"Attributes {same.tolist()} are the same for all {len(signatures)} classes, so "
                "nothing can be learned of them: leave them out, or show more classes."
            )
        return x, y, signatures

    def get_config(self):
        return {**super().get_config(), "attributes": self.attributes}


def with_labels(signatures, labels):
    """Signatures and labels, by default that row k describes class k."""
    if labels is None:
        signatures = as_tensor("signatures", signatures)
        labels = tf.range(tf.shape(signatures)[0] if signatures.shape.rank else 1)
    return signatures, labels


class TrainedZeroShotLearner(ZeroShotLearner):
    """A zero-shot learner trained by gradient descent, on episodes or on labelled examples."""

    def fit(self, x=None, y=None, signatures=None, batch_size=None, **options):
        """Train on examples of all seen classes at once; without signatures it is Keras's ``fit``.

        Args:
            x: inputs ``(n, ...)``; or a dataset of episodes, and no ``signatures``.
            y: their classes, integers ``(n,)``: rows of ``signatures``.
            signatures: of the seen classes, ``(classes, attributes)``.
            batch_size: examples per step, 64 by default; those left over at the end of an epoch
                wait for the next.  Without signatures as Keras has it.
            **options: of Keras's ``fit``, such as ``epochs``.  With signatures there are no class
                or sample weights, and ``validation_data`` are episodes.

        Returns:
            Keras's ``History``.
        """
        if signatures is None:
            return super().fit(x, y, batch_size, **options)
        unknown = {"class_weight", "sample_weight", "validation_split"}
        if weights := unknown & set(options):
            raise ValueError(f"With signatures fit knows no {weights.pop()}.")
        batch_size = check_count("batch_size", 64 if batch_size is None else batch_size)
        x, y, signatures = self.check_examples(x, y, signatures)
        described = tf.constant(signatures[np.newaxis])
        labels = tf.range(len(signatures))[tf.newaxis]

        def as_task(x, y):
            """A batch as the queries of one task."""
            return (described, labels, x[tf.newaxis]), y[tf.newaxis]

        examples = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x))
        batches = examples.batch(min(batch_size, len(x)), drop_remainder=True).map(as_task)
        return super().fit(batches.prefetch(tf.data.AUTOTUNE), **options)
