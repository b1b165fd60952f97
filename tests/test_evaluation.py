import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import Episode, MetaLearner, Score

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


def test_accuracy_is_per_task_over_the_class_axis():
    """Three queries and two classes, so that argmax over another axis would not fit
    (museum of bugs, 6)."""
    for dtype in (tf.uint8, tf.int32, tf.int64):
        score = mlutils.evaluate(Constant(LOGITS), [labelled(tf.cast(LABELS, dtype))], tasks=2)
        np.testing.assert_allclose(score.values, [2 / 3, 1])
        assert str(score) == "83.3 ± 32.7 % (2 tasks)"


def test_error_is_one_less_accuracy():
    score = mlutils.evaluate(Constant(LOGITS), [labelled()], tasks=2, metric="error")
    np.testing.assert_allclose(score.values, [1 / 3, 0], atol=1e-7)
    assert str(score) == "16.7 ± 32.7 % (2 tasks)"


def test_no_number_is_no_right_answer():
    """argmax of NaN is 0: a diverged classifier must not score like a constant one."""
    diverged = tf.where(LABELS[..., tf.newaxis] == 0, math.nan, LOGITS)
    score = mlutils.evaluate(Constant(diverged), [labelled()], tasks=2)
    np.testing.assert_allclose(score.values, [1 / 3, 1 / 3])


def test_score_of_known_values():
    """Values 1, 2, 3, 6: mean 3, median 2.5, variance 14/3, ci95 = 1.96 sqrt(14/3) / 2."""
    score = Score([1, 2, 3, 6])
    assert (score.mean, score.median, score.tasks) == (3.0, 2.5, 4)
    assert score.ci95 == pytest.approx(1.96 * math.sqrt(14 / 3) / 2)
    assert str(score) == "3.00 ± 2.12 (4 tasks)"
    assert repr(score) == "Score(3.00 ± 2.12 (4 tasks))"
    assert math.isnan(Score([1.0]).ci95)


def test_a_diverged_task_counts_as_infinite():
    score = Score([1.0, math.nan, 2.0])
    assert (score.mean, score.median) == (math.inf, 2.0)
    assert math.isnan(score.ci95)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_score_needs_one_value_per_task(values):
    with pytest.raises(ValueError, match="one number for each of some tasks"):
        Score(values)


def test_squared_error_and_adapt_options():
    episode = Episode(
        tf.zeros((1, 2, 1)), tf.constant([[[1.0], [3.0]]]), *[tf.zeros((1, 2, 1))] * 2
    )
    assert mlutils.evaluate(Constant(), [episode], tasks=1).mean == pytest.approx(4.0)
    assert mlutils.evaluate(Constant(), [episode], tasks=1, shift=1.0).mean == pytest.approx(9.0)


def test_exactly_the_first_tasks_count():
    batches = mlutils.data.sinusoids(meta_batch=4)
    six = mlutils.evaluate(Constant(), batches, tasks=6)
    ten = mlutils.evaluate(Constant(), batches, tasks=10)
    assert six.tasks == 6
    np.testing.assert_array_equal(six.values, ten.values[:6])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: mlutils.evaluate(Constant(LOGITS), [labelled()], tasks=3), "ended after 2 tasks"),
        (lambda: mlutils.evaluate(Constant(LOGITS), [labelled()], tasks=0), "at least 1, got 0"),
        (
            lambda: mlutils.evaluate(Constant(LOGITS), [labelled()], tasks=2, metric="f1"),
            "'accuracy', 'error', 'log likelihood', 'mse'",
        ),
        (
            lambda: mlutils.evaluate(Constant(LOGITS[:, :2]), [labelled()], tasks=2),
            r"\(tasks, Q, N\)",
        ),
        (
            lambda: mlutils.evaluate(
                Constant(tf.zeros((25, 10))), mlutils.data.sinusoids(), tasks=2
            ),
            "that of the targets",
        ),
        (lambda: mlutils.evaluate(Constant(LOGITS), [(1, 2)], tasks=2), "An element of a dataset"),
    ],
)
def test_wrong_input_raises(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---------------------------------------------------------------- controls


def blobs(tasks=50, seed=0):
    """Two-class tasks: class means at random, six examples each, integer labels."""
    random = np.random.default_rng(seed)
    means = random.normal(size=(tasks, 2, 4)) * 3
    labels = np.tile(np.repeat([0, 1], 6), (tasks, 1))
    x = means[np.arange(tasks)[:, None], labels] + random.normal(size=(tasks, 12, 4))
    support, query = [0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]
    x, labels = tf.constant(x, tf.float32), tf.constant(labels)
    return [Episode(*(tf.gather(v, i, axis=1) for i in (support, query) for v in (x, labels)))]


def test_controls_of_a_classifier():
    learner = mlutils.MAML(mlutils.mlp(4, (8,), 2), inner_lr=0.1, inner_steps=5)
    learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    identity = keras.Sequential([keras.Input((4,)), keras.layers.Activation("linear")])
    before = learner.model.get_weights()
    episodes = blobs()
    scores = mlutils.controls(learner, episodes, tasks=50, encoder=identity)
    assert list(scores) == [
        "no adaptation",
        "shuffled support labels",
        "trained from scratch",
        "nearest centroid",
    ]
    assert all(score.percent and score.tasks == 50 for score in scores.values())
    # An untrained network knows nothing; centroids and training separate the blobs.
    assert abs(scores["no adaptation"].mean - 0.5) < 0.2
    assert scores["nearest centroid"].mean > 0.95
    assert scores["trained from scratch"].mean > 0.9
    adapted = mlutils.evaluate(learner, episodes, tasks=50)
    assert adapted.mean - adapted.ci95 > scores["shuffled support labels"].mean
    for old, new in zip(before, learner.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_log_likelihood_is_scored_per_task():
    """Two tasks at their means with deviation 1 and e: -log(2 pi) / 2, and one nat less."""
    x, y = np.zeros((2, 3, 1), np.float32), np.ones((2, 5, 1), np.float32)
    deviations = np.exp([[[0.0]] * 5, [[1.0]] * 5]).astype(np.float32)
    predictions = np.concatenate([y, deviations], axis=2)
    found = mlutils.evaluation.score(
        lambda inputs: predictions, [((x, x, y), y)], tasks=2, metric="log likelihood"
    )
    best = -np.log(2 * np.pi) / 2
    np.testing.assert_allclose(found.values, [best, best - 1], rtol=1e-6)
    with pytest.raises(ValueError, match="twice as many"):
        mlutils.evaluation.score(lambda _: y, [((x, x, y), y)], tasks=2, metric="log likelihood")


def test_training_from_scratch_equals_keras_adam():
    """One task, so that Keras's own Adam can run beside it from the same start."""
    episode = Episode.from_element(next(iter(mlutils.data.sinusoids(meta_batch=1))))
    learner = mlutils.MAML(mlutils.mlp(hidden=(4,)))
    learner.compile(loss="mse")
    scratch = mlutils.evaluation.FromScratch(learner.model, learner.task_loss, steps=20)
    model = keras.models.clone_model(learner.model)
    model.set_weights([start[0].numpy() for start in scratch.starts])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    model.fit(episode.support_x[0], episode.support_y[0], epochs=20, batch_size=10, verbose=0)
    found = scratch(episode.element[0])
    np.testing.assert_allclose(found[0], model(episode.query_x[0]), rtol=1e-4, atol=1e-5)


def test_a_learner_without_a_model_has_fewer_controls():
    scores = mlutils.controls(Constant(), mlutils.data.sinusoids(), tasks=25)
    assert list(scores) == ["shuffled support labels"]


def test_centroids_of_a_regression_raise():
    identity = keras.Sequential([keras.Input((1,)), keras.layers.Activation("linear")])
    with pytest.raises(ValueError, match=r"dtype float32; classes need \(S,\) integer labels"):
        mlutils.controls(Constant(), mlutils.data.sinusoids(), tasks=25, encoder=identity)


def test_controls_pass_options_on_and_refuse_an_iterator():
    episodes = mlutils.data.sinusoids()
    plain = mlutils.controls(Constant(), episodes, tasks=25)["shuffled support labels"]
    shifted = mlutils.controls(Constant(), episodes, tasks=25, shift=9.0)["shuffled support labels"]
    assert shifted.mean > plain.mean + 9
    with pytest.raises(ValueError, match="iterated only once"):
        mlutils.controls(Constant(), iter(episodes), tasks=25)


def test_a_model_that_cannot_be_cloned_raises():
    class Subclassed(keras.Model):
        def __init__(self, units):
            super().__init__()
            self.head = keras.layers.Dense(units)

        def call(self, x):
            return self.head(x)

    model = Subclassed(1)
    model(tf.zeros((1, 1)))
    with pytest.raises(ValueError, match="cannot be cloned"):
        mlutils.controls(Constant(), mlutils.data.sinusoids(), tasks=25, model=model)
