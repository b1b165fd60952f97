"""Scores with intervals."""

import math
from numbers import Real

import numpy as np
import tensorflow as tf
from scipy.special import stdtrit

from mlutils.door import tasks as door
from mlutils.door.numbers import check_count, check_flag
from mlutils.episodes import describe
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

    Example:
        >>> score = mlutils.Score([0.5, 0.7, 0.9], percent=True)
        >>> score
        Score(70.0 ± 49.7 % (3 tasks))
        >>> round(score.mean, 2), score.tasks
        (0.7, 3)
    """

    unit = "tasks"

    def __init__(self, values, percent=False, worst=math.inf):
        try:
            self.values = np.array(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"values must be numbers, got {values!r}.") from None
        if self.values.ndim != 1 or self.values.size == 0:
            raise ValueError(
                f"values must be one number for each of some {self.unit}, at least one; got shape "
                f"{self.values.shape}."
            )
        if not isinstance(worst, Real) or isinstance(worst, bool):
            raise ValueError(f"worst must be a number, such as math.inf, got {worst!r}.")
        self.values[np.isnan(self.values)] = worst
        self.percent = check_flag("percent", percent)

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
        values: ``(splits,)``, from 0 to 1; or differences of such.

    Example:
        >>> mlutils.SplitScore([0.5, 0.7, 0.9])
        SplitScore(70.0 ± 49.7 % (3 splits))
    """

    unit = "splits"

    def __init__(self, values):
        super().__init__(values, percent=True)
        if not (abs(self.values) <= 1).all():
            raise ValueError(
                "values must be accuracies from 0 to 1, or differences of such, from -1 to 1; got "
                f"{self.values.tolist()}."
            )


def accuracy(query_y, predictions):
    """The share of queries right per task.

    Labels ``(tasks, Q)`` or one-hot ``(tasks, Q, N)``, predictions ``(tasks, Q, N)`` ->
    ``(tasks,)``.
    """
    if query_y.shape.rank == predictions.shape.rank:
        query_y = tf.argmax(query_y, axis=-1)
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


def evaluate(learner, episodes, tasks=None, metric=None, **adapt_options):
    """Score a learner on new tasks.

    Args:
        learner: a ``MetaLearner``.
        episodes: an iterable of batches ``((support_x, support_y, query_x), query_y)``, such
            as ``mlutils.data.sinusoids(seed=1)``, or of batched ``Episode``; of another
            seed than those in training.  Or one such batched ``Episode``.
        tasks: how many tasks to score on, the first ones of ``episodes``; by default 600, or all
            of a single ``Episode``.
        metric: ``"accuracy"``, ``"error"`` (the share wrong), ``"mse"``, or
            ``"log likelihood"`` of predicted means and deviations; by default accuracy for
            integer labels, else the mean squared error.  Or a function of TensorFlow from
            ``query_y`` and predictions, both ``(tasks, Q, ...)``, to numbers ``(tasks, ...)``, of
            which each task gets the mean, such as a function of ``keras.metrics``.
        **adapt_options: passed to ``learner.adapt``, for example ``steps=5``.

    Returns:
        A ``Score``.
    """
    door.check_learner(learner)
    learner.check_options(adapt_options)
    return score(lambda inputs: learner(inputs, **adapt_options), episodes, tasks, metric, learner)


def predictions(learner, episodes, tasks=None, **adapt_options):
    """What a learner predicts for new tasks, beside what is true: for a score of any kind.

    ``sklearn.metrics.confusion_matrix(y.ravel(), predicted.argmax(-1).ravel())``, and per-class
    accuracies, are made of it where a label is the same class in all tasks.

    Args:
        learner, episodes, tasks, adapt_options: as for ``evaluate``; all batches of one shape.

    Returns:
        ``(query_y, predictions)``: arrays ``(tasks, Q, ...)``.
    """
    door.check_learner(learner)
    learner.check_options(adapt_options)

    def predict(inputs):
        return learner(inputs, **adapt_options)

    parts = [(y, predicted.numpy()) for y, predicted in answers(predict, episodes, tasks, learner)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def score(predict, episodes, tasks=None, metric=None, reader=None):
    """Score any rule, such as an exact ceiling, on new tasks; otherwise as ``evaluate``.

    Args:
        predict: from ``(support_x, support_y, query_x)``, a batch of tasks, to predictions
            ``(tasks, Q, ...)``; TensorFlow code.
        episodes, tasks, metric: as for ``evaluate``.
        reader: the learner that the tasks have to fit, if any.

    Returns:
        A ``Score``.
    """
    check_metric(metric)
    own = callable(metric)
    values = []
    for query_y, predicted in answers(predict, episodes, tasks, reader):
        name = metric or default_metric(query_y)
        if not own:
            check_predictions(name, query_y, predicted)
        function, *shown = (metric, False, math.inf) if own else METRICS[name]
        numbers = np.asarray(function(query_y, predicted), np.float64)
        if numbers.shape[:1] != (len(query_y),):
            raise ValueError(
                f"metric gives shape {numbers.shape} for {len(query_y)} tasks; allowed is a number "
                "for each task, (tasks,), or some, (tasks, ...)."
            )
        values.extend(numbers.reshape(len(query_y), -1).mean(axis=1))
    return Score(values, *shown)


def check_metric(metric):
    """Raise for what is no metric."""
    known = metric is None or callable(metric) or (isinstance(metric, str) and metric in METRICS)
    if not known:
        raise ValueError(
            f"metric must be one of {sorted(METRICS)}, a function or None, got {metric!r}."
        )


def answers(predict, episodes, tasks=None, reader=None):
    """``(query_y, predictions)`` of the first tasks, batch after batch, as for ``score``."""
    episodes, reader = door.as_batches(episodes), reader or door.Anyone()
    if tasks is None:
        tasks = len(episodes[0].query_y) if isinstance(episodes, door.SingleEpisode) else 600
    left = check_count("tasks", tasks)
    if not callable(predict) or isinstance(predict, type):
        raise TypeError(f"predict must be a function of inputs, got {describe(predict)}.")
    run = tf.function(predict, reduce_retracing=True)
    for element in episodes:
        *inputs, query_y = door.read_episode(reader, element, scored=True)
        with door.short_errors():
            # Called directly, TensorFlow would warn of retracing in a page that scores many.
            predicted = run.get_concrete_function(tuple(inputs))(tuple(inputs))
        predicted = door.as_tensor("what predict returns", predicted)
        yield query_y[:left], predicted[:left]
        left -= len(query_y)
        if left <= 0:
            return
    raise ValueError(
        f"The episodes ended after {tasks - left} tasks; {tasks} were asked for (tasks={tasks})."
    )


def default_metric(query_y):
    """Accuracy for labels, else the mean squared error; a ValueError where that is a guess."""
    if looks_one_hot(query_y):
        raise ValueError(
            f'query_y of shape {query_y.shape} looks one-hot: say metric="accuracy", or "mse" if '
            "these are numbers."
        )
    return "accuracy" if query_y.dtype.is_integer else "mse"


def looks_one_hot(targets):
    """Whether targets ``(tasks, Q, N)`` are floats, in each row a single 1 among 0s."""
    if targets.shape.rank < 3 or targets.shape[-1] == 1 or not targets.dtype.is_floating:
        return False
    values = targets.numpy()
    return bool(((values == 0) | (values == 1)).all() and (values.sum(axis=-1) == 1).all())


def check_predictions(name, targets, predictions):
    """Raise if the shapes could be compared only by broadcasting, which hides mistakes."""
    if name == "log likelihood":
        return  # gaussian_nll checks them
    same = len(targets.shape) == len(predictions.shape) and targets.shape.is_compatible_with(
        predictions.shape
    )
    if name == "mse" and not same:
        raise ValueError(
            f"The predictions have shape {predictions.shape} and the targets {targets.shape}; for "
            "metric 'mse' the predictions' shape must be that of the targets."
        )
    labels = targets.dtype.is_integer and targets.shape.is_compatible_with(predictions.shape[:-1])
    several = predictions.shape[-1] != 1 and len(predictions.shape) > 2
    if name != "mse" and not (several and (labels or same)):
        raise ValueError(
            f"The predictions have shape {predictions.shape} and the targets {targets.shape} of "
            f"{targets.dtype.name}; for metric {name!r} predictions must be (tasks, Q, N), N at "
            "least 2, and targets (tasks, Q) integers or (tasks, Q, N) one-hot. For one output "
            "pass a function as metric."
        )
    if labels and name != "mse":
        door.check_labels("query_y", targets, predictions.shape[-1])
