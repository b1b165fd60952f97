"""Scores with intervals."""

import math

import numpy as np
import tensorflow as tf
from scipy.special import stdtrit

from mlutils.checks import check_count
from mlutils.episodes import Episode
from mlutils.losses import gaussian_nll


class Score:
    """A score's values on each of a number of tasks.

    Args:
        values: ``(tasks,)``.
        percent: whether ``str`` shows percent (accuracies and errors) or the bare number.
        worst: what counts where a task diverged and its value is not a number: infinity for what
            should be low, minus infinity for what should be high.

    Attributes:
        values: array ``(tasks,)``, one value per task.
        tasks: their number.
        mean: their mean.
        median: their median; unlike the mean, it does not move when a few tasks diverge.
        ci95: half the width of the 95 % confidence interval of the mean, by Student's quantile
            (1.96 standard errors for many tasks, 4.30 for three); NaN for a single task, or if a
            value is infinite.
    """

    unit = "tasks"

    def __init__(self, values, percent=False, worst=math.inf):
        self.values = np.array(values, dtype=np.float64)
        if self.values.ndim != 1 or self.values.size == 0:
            raise ValueError(
                f"values must be one number for each of some {self.unit}, at least one; got shape "
                f"{self.values.shape}."
            )
        self.values[np.isnan(self.values)] = worst
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
        quantile = stdtrit(self.tasks - 1, 0.975)
        return float(quantile * self.values.std(ddof=1) / math.sqrt(self.tasks))

    def __str__(self):
        if self.percent:
            return f"{100 * self.mean:.1f} ± {100 * self.ci95:.1f} % ({self.tasks} {self.unit})"
        return f"{self.mean:.2f} ± {self.ci95:.2f} ({self.tasks} {self.unit})"

    def __repr__(self):
        return f"{type(self).__name__}({self})"


class SplitScore(Score):
    """Accuracies on some splits of the classes into seen and unseen.

    As ``Score``, of splits in place of tasks.  They share classes, so ``ci95`` says how much the
    split matters, and not how much another set of classes would.

    Args:
        values: ``(splits,)``, from 0 to 1.
    """

    unit = "splits"

    def __init__(self, values):
        super().__init__(values, percent=True)


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


# Each with whether it is shown in percent, and what a task counts where it is not a number.
METRICS = {
    "accuracy": (accuracy, True, 0.0),
    "error": (error, True, 1.0),
    "mse": (mean_squared_error, False, math.inf),
    "log likelihood": (log_likelihood, False, -math.inf),
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
    """
    tasks = check_count("tasks", tasks)
    if metric not in (None, *METRICS):
        raise ValueError(f"metric must be one of {sorted(METRICS)} or None, got {metric!r}.")

    @tf.function(reduce_retracing=True)
    def values_of(episode):
        inputs, query_y = episode.element
        predictions = predict(inputs)
        name = metric or default_metric(query_y)
        check_predictions(name, query_y.shape, predictions.shape)
        return METRICS[name][0](query_y, predictions)

    values = []
    for element in episodes:
        episode = Episode(*map(tf.convert_to_tensor, Episode.from_element(element)))
        # Called directly, TensorFlow would warn of retracing in a page that scores many learners.
        values.extend(values_of.get_concrete_function(episode)(episode).numpy())
        if len(values) >= tasks:
            name = metric or default_metric(episode.query_y)
            return Score(values[:tasks], *METRICS[name][1:])
    raise ValueError(
        f"The episodes ended after {len(values)} tasks; {tasks} were asked for (tasks={tasks})."
    )


def default_metric(query_y):
    return "accuracy" if query_y.dtype.is_integer else "mse"


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
