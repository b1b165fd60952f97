"""Scores by hand, what a task counts that diverged, and how often the interval is right."""

import math

import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import Episode, MetaLearner, Score
from mlutils.evaluation import score

# Two tasks, three queries, two classes: the first task has 2 of 3 right, the second 3 of 3.
LABELS = tf.constant([[0, 1, 1], [1, 0, 0]])
LOGITS = tf.one_hot([[0, 1, 0], [1, 0, 0]], 2)


class Constant(MetaLearner):
    """Predicts what it was given, and mean support targets for a regression."""

    def __init__(self, predictions=None):
        super().__init__()
        self.predictions = predictions

    def call(self, inputs, training=None, shift=0.0):
        if self.predictions is None:
            support_y, query_x = inputs[1], inputs[2]
            return tf.zeros_like(query_x) + tf.reduce_mean(support_y, 1, keepdims=True) + shift
        return self.predictions


def labelled(labels=LABELS):
    return Episode(tf.zeros((2, 2, 1)), tf.constant([[0, 1], [1, 0]]), tf.zeros((2, 3, 1)), labels)


# ---------------------------------------------------------------- metrics


def test_accuracy_is_per_task_over_the_class_axis():
    """Three queries and two classes, so that argmax over another axis would not fit
    (museum of bugs, 6).

    The values 2/3 and 1 have a standard error of 1/6; t(1, .975) = 12.706, and 12.706 / 6 = 2.118.
    """
    for dtype in (tf.uint8, tf.int32, tf.int64):
        found = mlutils.evaluate(Constant(LOGITS), [labelled(tf.cast(LABELS, dtype))], tasks=2)
        np.testing.assert_allclose(found.values, [2 / 3, 1])
        assert str(found) == "83.3 ± 211.8 % (2 tasks)"
    found = mlutils.evaluate(Constant(LOGITS), [labelled()], tasks=2, metric="error")
    np.testing.assert_allclose(found.values, [1 / 3, 0], atol=1e-7)
    assert str(found) == "16.7 ± 211.8 % (2 tasks)"


def test_no_number_is_no_right_answer():
    """argmax of NaN is 0: a diverged classifier must not score like a constant one."""
    diverged = tf.where(LABELS[..., tf.newaxis] == 0, math.nan, LOGITS)
    found = mlutils.evaluate(Constant(diverged), [labelled()], tasks=2)
    np.testing.assert_allclose(found.values, [1 / 3, 1 / 3])


def test_squared_error_and_adapt_options():
    episode = Episode(
        tf.zeros((1, 2, 1)), tf.constant([[[1.0], [3.0]]]), *[tf.zeros((1, 2, 1))] * 2
    )
    assert mlutils.evaluate(Constant(), [episode], tasks=1).mean == pytest.approx(4.0)
    assert mlutils.evaluate(Constant(), [episode], tasks=1, shift=1.0).mean == pytest.approx(9.0)


def test_log_likelihood_is_scored_per_task():
    """Two tasks at their means with deviation 1 and e: -log(2 pi) / 2, and one nat less."""
    x, y = np.zeros((2, 3, 1), np.float32), np.ones((2, 5, 1), np.float32)
    deviations = np.exp([[[0.0]] * 5, [[1.0]] * 5]).astype(np.float32)
    predictions = np.concatenate([y, deviations], axis=2)
    options = dict(episodes=[((x, x, y), y)], tasks=2, metric="log likelihood")
    best = -np.log(2 * np.pi) / 2
    np.testing.assert_allclose(
        score(lambda _: predictions, **options).values, [best, best - 1], rtol=1e-6
    )
    with pytest.raises(ValueError, match="twice as many"):
        score(lambda _: y, **options)


NAN = tf.fill((2, 3, 2), math.nan)


@pytest.mark.parametrize(
    "metric, worst",
    [("accuracy", 0), ("error", 1), ("mse", math.inf), ("log likelihood", -math.inf)],
)
def test_a_diverged_task_is_the_worst_there_is(metric, worst):
    """... also where high is good: a likelihood that is not a number is not infinite."""
    targets = LABELS if metric in ("accuracy", "error") else tf.zeros((2, 3, 1))
    predictions = NAN[..., :1] if metric == "mse" else NAN
    found = mlutils.evaluate(Constant(predictions), [labelled(targets)], tasks=2, metric=metric)
    np.testing.assert_array_equal(found.values, [worst, worst])


def test_exactly_the_first_tasks_count():
    batches = mlutils.data.sinusoids(meta_batch=4)
    six, ten = (mlutils.evaluate(Constant(), batches, tasks=tasks) for tasks in (6, 10))
    np.testing.assert_array_equal(six.values, ten.values[:6], strict=True)


WRONG = [
    (dict(tasks=3), "ended after 2 tasks"),
    (dict(tasks=0), "at least 1, got 0"),
    (dict(metric="f1"), "'accuracy', 'error', 'log likelihood', 'mse'"),
    (dict(learner=Constant(LOGITS[:, :2])), r"\(tasks, Q, N\)"),
    (dict(learner=Constant(LOGITS), episodes=mlutils.data.sinusoids()), "that of the targets"),
    (dict(episodes=[(1, 2)]), "An element of a dataset"),
]


@pytest.mark.parametrize("options, words", WRONG)
def test_wrong_input_raises(options, words):
    with pytest.raises(ValueError, match=words):
        mlutils.evaluate(
            **{"learner": Constant(LOGITS), "episodes": [labelled()], "tasks": 2} | options
        )


# ---------------------------------------------------------------- Score


def test_score_of_known_values():
    """Values 1, 2, 3, 6: mean 3, median 2.5, variance 14/3; t(3, .975) = 3.1824."""
    found = Score([1, 2, 3, 6])
    assert (found.mean, found.median, found.tasks) == (3.0, 2.5, 4)
    assert found.ci95 == pytest.approx(3.1824463 * math.sqrt(14 / 3) / 2)
    assert str(found) == "3.00 ± 3.44 (4 tasks)"
    assert repr(found) == "Score(3.00 ± 3.44 (4 tasks))"
    assert math.isnan(Score([1.0]).ci95)
    for values in ([], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="one number for each of some tasks"):
            Score(values)


def test_what_is_no_number_counts_as_the_worst():
    for worst in (math.inf, -math.inf):
        found = Score([1.0, math.nan, 2.0], worst=worst)
        assert (found.mean, found.median) == (worst, 2.0 if worst > 0 else 1.0)
        assert math.isnan(found.ci95)
    assert Score([1.0, math.nan, 2.0]).mean == math.inf
    assert Score([1.0, math.nan, 2.0], worst=0.0).mean == 1.0


def coverage(tasks, half_width, times=10000):
    """How often the interval around the mean of normal values holds the true mean."""
    values = np.random.default_rng(tasks).normal(3, 2, (times, tasks))
    return np.mean([abs(row.mean() - 3) <= half_width(row) for row in values])


@pytest.mark.parametrize("tasks, times", [(5, 10000), (20, 10000), (600, 5000)])
def test_the_interval_holds_the_mean_in_95_of_100_cases(tasks, times):
    assert coverage(tasks, lambda row: Score(row).ci95, times) == pytest.approx(0.95, abs=0.01)


def test_1_96_standard_errors_are_too_few_for_five_tasks():
    """Negative control of the test above."""
    assert coverage(5, lambda row: 1.96 * row.std(ddof=1) / math.sqrt(5)) < 0.9
