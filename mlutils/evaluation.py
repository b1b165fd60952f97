"""Scores with intervals, and the controls that every result is shown beside."""

import math

import keras
import numpy as np
import tensorflow as tf
from scipy.special import stdtrit

from mlutils.checks import check_count
from mlutils.episodes import Episode
from mlutils.few_shot.neural_process import gaussian_nll
from mlutils.few_shot.prototypical import PrototypicalNetwork
from mlutils.networks import predict_with
from mlutils.vectorize import map_tasks


class Score:
    """A score's values on each of a number of tasks.

    Attributes:
        values: array ``(tasks,)``, one value per task; infinite where a task diverged and
            its value is not a number.
        tasks: their number.
        mean: their mean.
        median: their median; unlike the mean, it does not move when a few tasks diverge.
        ci95: half the width of the 95 % confidence interval of the mean, 1.96 standard
            errors; NaN for a single task, or if a value is infinite.
        percent: whether ``str`` shows percent (accuracies and errors) or the bare number (losses).

    Raises:
        ValueError: if ``values`` is not one-dimensional or empty.
    """

    unit = "tasks"

    def __init__(self, values, percent=False):
        self.values = np.array(values, dtype=np.float64)
        if self.values.ndim != 1 or self.values.size == 0:
            raise ValueError(
                f"values must be one number for each of some {self.unit}, at least one; got shape "
                f"{self.values.shape}."
            )
        self.values[np.isnan(self.values)] = np.inf
        self.percent = percent

    @property
    def tasks(self):
        return self.values.size

    @property
    def mean(self):
        return float(self.values.mean())

    @property
    def median(self):
        return float(np.median(self.values))

    @property
    def ci95(self):
        if self.tasks == 1 or not np.isfinite(self.values).all():
            return math.nan
        return float(self.quantile() * self.values.std(ddof=1) / math.sqrt(self.tasks))

    def quantile(self):
        """How many standard errors make half the interval."""
        return 1.96

    def __str__(self):
        if self.percent:
            return f"{100 * self.mean:.1f} ± {100 * self.ci95:.1f} % ({self.tasks} {self.unit})"
        return f"{self.mean:.2f} ± {self.ci95:.2f} ({self.tasks} {self.unit})"

    def __repr__(self):
        return f"{type(self).__name__}({self})"


class SplitScore(Score):
    """Accuracies on some splits of the classes into seen and unseen.

    As ``Score``, of splits in place of tasks.  Splits are few, so ``ci95`` takes Student's
    quantile; they share classes, so it says how much the split matters, and not how much another
    set of classes would.

    Args:
        values: ``(splits,)``, from 0 to 1.

    Raises:
        ValueError: if ``values`` is not one-dimensional or empty.
    """

    unit = "splits"

    def __init__(self, values):
        super().__init__(values, percent=True)

    def quantile(self):
        return float(stdtrit(self.tasks - 1, 0.975))


def accuracy(query_y, predictions):
    """The share of queries right per task: ``(tasks, Q)``, ``(tasks, Q, N)`` -> ``(tasks,)``."""
    right = tf.argmax(predictions, axis=-1) == tf.cast(query_y, tf.int64)
    right &= ~tf.reduce_any(tf.math.is_nan(predictions), axis=-1)  # diverged: no answer at all
    return tf.reduce_mean(tf.cast(right, tf.float32), axis=1)


def error(query_y, predictions):
    """The share of queries wrong per task: one less ``accuracy``."""
    return 1 - accuracy(query_y, predictions)


def mean_squared_error(query_y, predictions):
    """The mean squared error per task: two times ``(tasks, Q, ...)`` -> ``(tasks,)``."""
    squares = tf.square(predictions - tf.cast(query_y, predictions.dtype))
    return tf.reduce_mean(squares, axis=list(range(1, len(squares.shape))))


def log_likelihood(query_y, predictions):
    """The mean log density per task (:eq:`eq-gaussian-likelihood`), in nats.

    Targets ``(tasks, Q, outputs)``, means and deviations ``(tasks, Q, 2 outputs)`` ->
    ``(tasks,)``.
    """
    return -tf.reduce_mean(gaussian_nll(query_y, predictions), axis=1)


METRICS = {
    "accuracy": accuracy,
    "error": error,
    "mse": mean_squared_error,
    "log likelihood": log_likelihood,
}


def evaluate(learner, episodes, tasks=600, metric=None, **adapt_options):
    """Score a learner on new tasks.

    Args:
        learner: a ``MetaLearner``.
        episodes: an iterable of batches ``((support_x, support_y, query_x), query_y)``, such
            as ``mlutils.data.sinusoids(seed=1)``, or of batched ``Episode``; of another
            seed than those in training.
        tasks: how many tasks to score on, the first ones of ``episodes``.
        metric: ``"accuracy"``, ``"error"`` (the share wrong), ``"mse"``, or
            ``"log likelihood"`` of predicted means and deviations; by default accuracy for
            integer labels, else the mean squared error.
        **adapt_options: passed to ``learner.adapt``, for example ``steps=5``.

    Returns:
        A ``Score``.

    Raises:
        ValueError: if ``episodes`` ends before ``tasks`` tasks, for an unknown ``metric``, or
            if the predictions' shape does not fit the targets'.
    """
    return score(lambda inputs: learner(inputs, **adapt_options), episodes, tasks, metric)


def score(predict, episodes, tasks=600, metric=None):
    """Score any rule, such as an exact ceiling, on new tasks; otherwise as ``evaluate``.

    Args:
        predict: from ``(support_x, support_y, query_x)``, a batch of tasks, to predictions
            ``(tasks, Q, ...)``; TensorFlow code.
        episodes, tasks, metric: as for ``evaluate``.

    Returns:
        A ``Score``.

    Raises:
        ValueError: as ``evaluate``.
    """
    tasks = check_count("tasks", tasks)
    if metric not in (None, *METRICS):
        raise ValueError(f"metric must be one of {sorted(METRICS)} or None, got {metric!r}.")

    @tf.function(reduce_retracing=True)
    def values_of(episode):
        inputs, query_y = episode.element
        predictions = predict(inputs)
        name = metric or ("accuracy" if query_y.dtype.is_integer else "mse")
        check_predictions(name, query_y.shape, predictions.shape)
        return name in ("accuracy", "error"), METRICS[name](query_y, predictions)

    values, percent = [], False
    for element in episodes:
        episode = Episode(*map(tf.convert_to_tensor, Episode.from_element(element)))
        # Called directly, TensorFlow would warn of retracing in a page that scores many learners.
        percent, batch = values_of.get_concrete_function(episode)(episode)
        values.extend(batch.numpy())
        if len(values) >= tasks:
            return Score(values[:tasks], percent=bool(percent))
    raise ValueError(
        f"The episodes ended after {len(values)} tasks; {tasks} were asked for (tasks={tasks})."
    )


def check_predictions(name, targets, predictions):
    """Raise if the shapes could be compared only by broadcasting, which hides mistakes."""
    if name == "log likelihood":
        return  # gaussian_nll checks them
    expected = targets if name == "mse" else predictions[:-1]
    given = predictions if name == "mse" else targets
    if len(given) != len(expected) or not given.is_compatible_with(expected):
        allowed = "(tasks, Q, N)" if name != "mse" else f"that of the targets, {targets}"
        raise ValueError(
            f"The predictions have shape {predictions} and the targets {targets}; for metric "
            f"{name!r} the predictions' shape must be {allowed}."
        )


def controls(
    learner,
    episodes,
    tasks=600,
    *,
    model=None,
    encoder=None,
    scratch_steps=100,
    seed=0,
    metric=None,
    **adapt_options,
):
    """The scores that tell what adaptation by ``learner`` is worth.

    Args:
        learner: a ``MetaLearner``.
        episodes: as for ``evaluate``; iterated once per control, so it must give the same
            tasks each time, as the package's own pipelines do.
        tasks: how many tasks to score on.
        model: the network to train from scratch on each support set;
            ``learner.model`` by default.  It is cloned, not changed.
        encoder: a pretrained Keras model from inputs to embeddings, for the
            nearest-centroid control; classification only.
        scratch_steps: steps of Adam (0.01) when training from scratch.
        seed: of the shuffles.
        metric: as for ``evaluate``.
        **adapt_options: passed to ``learner.adapt``, for example ``steps=5``.

    Returns:
        A dict from the control's name to its ``Score``: ``"no adaptation"`` (absent if the
        method predicts nothing without a support set), ``"shuffled support labels"``,
        ``"trained from scratch"`` (absent without a model) and
        ``"nearest centroid"`` (absent without an encoder).

    Raises:
        ValueError: as ``evaluate``; if ``episodes`` can be iterated only once; if ``model``
            cannot be cloned; with an encoder, if the labels are not integers.
    """
    if iter(episodes) is episodes:
        raise ValueError(
            "episodes can be iterated only once, so that each control would get other tasks: "
            "give a dataset or a list, not an iterator."
        )
    results = {}
    try:
        unadapted = learner.unadapted()
    except NotImplementedError:
        pass
    else:
        results["no adaptation"] = score(
            lambda inputs: map_tasks(unadapted, inputs[2]), episodes, tasks, metric
        )

    shuffle = keras.random.SeedGenerator(seed)

    def predict_shuffled(inputs):
        support_x, support_y, query_x = inputs
        order = tf.argsort(keras.random.uniform(tf.shape(support_y)[:2], seed=shuffle), axis=1)
        shuffled_y = tf.gather(support_y, order, axis=1, batch_dims=1)
        return learner((support_x, shuffled_y, query_x), **adapt_options)

    results["shuffled support labels"] = score(predict_shuffled, episodes, tasks, metric)

    model = model if model is not None else getattr(learner, "model", None)
    if model is not None:
        scratch = FromScratch(model, learner.task_loss, scratch_steps)
        results["trained from scratch"] = score(scratch, episodes, tasks, metric)
    if encoder is not None:
        results["nearest centroid"] = score(PrototypicalNetwork(encoder), episodes, tasks, metric)
    return results


class FromScratch:
    """Train a fresh copy of a model on each support set with Adam; predict the queries.

    The copies start from ten random initialisations in turn.

    Args:
        model: a Keras model that can be cloned, which a subclassed one cannot.
        task_loss: from targets and predictions of one task to a scalar.
        steps: of Adam.
        learning_rate: of Adam.
    """

    STARTS = 10

    def __init__(self, model, task_loss, steps=100, learning_rate=0.01):
        self.task_loss, self.steps, self.learning_rate = task_loss, steps, learning_rate
        self.model = model
        try:
            clones = [keras.models.clone_model(model) for _ in range(self.STARTS)]
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ValueError(
                f"The model {model.name!r} cannot be cloned to be trained from scratch; pass a "
                f"Sequential or functional one as model=... ({error})"
            ) from error
        self.starts = [
            tf.stack([tf.convert_to_tensor(v) for v in values])
            for values in zip(*(c.trainable_variables for c in clones), strict=True)
        ]

    def __call__(self, inputs):
        support_x, support_y, query_x = inputs

        def loss_of_task(task):
            weights, x, y = task
            return self.task_loss(y, predict_with(self.model, weights, x))

        def adam_step(step, weights, means, squares):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                losses = map_tasks(loss_of_task, (weights, support_x, support_y))
            gradients = tape.gradient(losses, weights, unconnected_gradients="zero")
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
            squares = [0.999 * s + 0.001 * g * g for s, g in zip(squares, gradients, strict=True)]
            t = tf.cast(step + 1, weights[0].dtype)
            rate = self.learning_rate * tf.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            weights = [
                w - rate * m / (tf.sqrt(s) + 1e-7)
                for w, m, s in zip(weights, means, squares, strict=True)
            ]
            return step + 1, weights, means, squares

        which = tf.range(tf.shape(support_x)[0]) % self.STARTS
        weights = [tf.gather(start, which) for start in self.starts]
        zeros = [tf.zeros_like(w) for w in weights]
        _, weights, _, _ = tf.while_loop(
            lambda step, *_: step < self.steps, adam_step, (0, weights, zeros, zeros)
        )
        return map_tasks(lambda task: predict_with(self.model, *task), (weights, query_x))
