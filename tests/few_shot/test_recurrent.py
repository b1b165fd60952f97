"""The recurrent learner: by hand, beside an LSTM in plain NumPy, and beside wrong versions."""

import math

import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import RecurrentLearner
from tests.few_shot.tasks import (
    as_vectors,
    check_meta_gradients,
    compiled,
    identity,
    one_task,
    predictions,
    random_episode,
    randomized,
)


def random_learner(units=4, kind=RecurrentLearner):
    """A tanh encoder of 2 inputs."""
    return randomized(kind(mlutils.mlp(2, (3,), 2, activation="tanh"), 3, units))


# ---------------------------------------------------------------- values derived by hand


@pytest.mark.parametrize(
    "gates, prediction",
    [
        (dict(), 1 + 2 * math.tanh(1 / 2)),
        (dict(forget=0), 1),
        (dict(read=0), 1 + 2 * math.tanh(1 / 4)),
        (dict(out=0), 1 + math.tanh(1 / 2)),
    ],
)
def test_pocket_memory(gates, prediction):
    """eq-delayed-labels and eq-recurrent-prediction with one unit that adds up what it reads.

    Each step has c <- f c + i tanh(x + y) with y the label before it, and h = o tanh(c); the
    prediction is 1 + 2 h.  The gates see their bias alone: 100 opens one, 0 opens it by half.
    The support set is (artanh 1/2, artanh 1/4), (0, -1), the query x = 1 - artanh 1/4.

    The tanh's are  tanh(artanh 1/2 + 0) = 1/2, tanh(0 + artanh 1/4) = 1/4, and for the query
    tanh(1 - artanh 1/4 - 1) = -1/4.

    All open:  c = 1/2, 3/4, then 3/4 - 1/4 = 1/2 for the query.
    f = 1/2:   c = 1/2, 1/4 + 1/4 = 1/2, 1/4 - 1/4 = 0.
    i = 1/2:   c = 1/4, 1/4 + 1/8 = 3/8, 3/8 - 1/8 = 1/4.
    o = 1/2:   c = 1/2 in the end as with open gates, half of it comes out.
    """
    learner = RecurrentLearner(identity(), outputs=1, units=1)
    bias = [gates.get("read", 100), gates.get("forget", 100), 0, gates.get("out", 100)]
    learner.memory.set_weights([np.array([[0, 0, 1, 0]] * 2), np.zeros((1, 4)), np.array(bias)])
    learner.head.set_weights([np.array([[2.0]]), np.array([1.0])])
    support_x = tf.constant([[math.atanh(1 / 2)], [0.0]])
    support_y = tf.constant([[math.atanh(1 / 4)], [-1.0]])
    found = learner.adapt(support_x, support_y)(tf.constant([[1 - math.atanh(1 / 4)]]))
    assert found.numpy().item() == pytest.approx(prediction, rel=1e-6)


# ---------------------------------------------------------------- the LSTM in plain NumPy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(learner, vector, state):
    """One step of an LSTM; Keras keeps the gates in the order input, forget, candidate, output."""
    kernel, recurrent, bias = learner.memory.get_weights()
    h, c = state
    i, f, candidate, o = np.split(vector @ kernel + h @ recurrent + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
    return sigmoid(o) * np.tanh(c), c


def numpy_predictions(learner, support_x, labels, query_x):
    """eq-delayed-labels or eq-recurrent-state, and eq-recurrent-prediction, step by step."""
    state, before = np.zeros((2, learner.memory.cell.units)), np.zeros(3)
    for z, label in zip(learner.encoder(support_x).numpy(), labels, strict=True):
        state = numpy_step(
            learner, np.concatenate([z, before if learner.delayed else label]), state
        )
        before = label if learner.delayed else before
    kernel, bias = learner.head.get_weights()
    predictions = []
    for z in learner.encoder(query_x).numpy():
        h, _ = numpy_step(learner, np.concatenate([z, before]), state)
        predictions.append(h @ kernel + bias)
    return np.array(predictions)


class NotDelayed(RecurrentLearner):
    """Wrong: reads each example together with its own label."""

    def with_labels_before(self, embeddings, labels):
        return tf.concat([embeddings, labels], axis=2)


@pytest.mark.parametrize("regression", [False, True])
def test_plain_numpy(float64, regression):
    """eq-delayed-labels after each number of examples, and eq-recurrent-prediction from it.

    Negative control: labels that are not delayed.
    """
    task, errors = one_task(regression=regression), []
    right, wrong = (random_learner(kind=kind) for kind in (RecurrentLearner, NotDelayed))
    labels = as_vectors(task.support_y)
    for shots in (1, 2, 8):
        some = task._replace(support_x=task.support_x[:shots], support_y=task.support_y[:shots])
        expected = numpy_predictions(right, some.support_x, labels[:shots], task.query_x)
        np.testing.assert_allclose(predictions(right, some), expected, atol=1e-12)
        errors.append(np.abs(predictions(wrong, some) - expected).max())
    assert max(errors) > 1e-2


@pytest.mark.parametrize("regression", [False, True])
def test_each_example_with_its_own_label(float64, regression):
    """eq-recurrent-state, beside the learner that reads labels late."""
    learner, task = random_learner(), one_task(regression=regression)
    delayed = predictions(learner, task)
    learner.delayed = False
    labels = as_vectors(task.support_y)
    expected = numpy_predictions(learner, task.support_x, labels, task.query_x)
    np.testing.assert_allclose(predictions(learner, task), expected, atol=1e-12)
    assert np.abs(predictions(learner, task) - delayed).max() > 1e-2
    with pytest.raises(ValueError, match="use delayed=True"):
        learner.predict_sequence(task.support_x[tf.newaxis], task.support_y[tf.newaxis])
    assert not RecurrentLearner.from_config(learner.get_config()).delayed


def test_unadapted_is_one_step_from_the_empty_memory(float64):
    """eq-recurrent-prediction from the zero state: no example has been read."""
    learner, task = random_learner(), one_task()
    expected = numpy_predictions(learner, np.zeros((0, 2)), np.zeros((0, 3)), task.query_x)
    np.testing.assert_allclose(learner.unadapted()(task.query_x), expected, atol=1e-12)


# ---------------------------------------------------------------- what is read, and what is not


class WithoutLabels(RecurrentLearner):
    """Wrong: reads the support set as if every label were zero."""

    def summarize(self, support, labels):
        return super().summarize(support, tf.zeros_like(self.as_vectors(labels)))


@pytest.mark.parametrize("kind, reads", [(RecurrentLearner, True), (WithoutLabels, False)])
def test_the_labels_are_read(float64, kind, reads):
    """eq-delayed-labels: labels in other places are another task, as are pairs in another order."""
    learner, task = random_learner(kind=kind), one_task()
    other = task._replace(support_y=tf.roll(task.support_y, 1, axis=0))
    moved = other._replace(support_x=tf.roll(task.support_x, 1, axis=0))
    change = np.abs(predictions(learner, other) - predictions(learner, task)).max()
    assert change > 1e-2 if reads else change == 0
    assert np.abs(predictions(learner, moved) - predictions(learner, task)).max() > 1e-2


def test_a_query_comes_with_the_last_label(float64):
    """eq-recurrent-prediction: no state has read that label yet, the query's own step does."""
    learner, task = random_learner(), one_task()
    support, queries = (learner.embed(x[tf.newaxis]) for x in (task.support_x, task.query_x))
    labels = tf.one_hot(task.support_y[tf.newaxis], 3, dtype="float64")
    other = tf.concat([labels[:, :-1], 1 - labels[:, -1:]], axis=1)
    (*before, _), (*after, last) = (learner.summarize(support, y) for y in (labels, other))
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(last, other[:, -1])
    changes = [
        np.abs(learner.answer([*before, other[:, -1]], queries) - learner.answer(summary, queries))
        for summary in ([*before, last], [*before, labels[:, -1]])
    ]
    assert changes[0].max() == 0 and changes[1].max() > 1e-2


@pytest.mark.parametrize("kind, leaks", [(RecurrentLearner, False), (NotDelayed, True)])
def test_no_example_comes_with_its_own_label(float64, kind, leaks):
    """eq-recurrent-prediction along a sequence: the last label is in no prediction."""
    learner, episode = random_learner(kind=kind), random_episode()
    x, y = episode.support_x, episode.support_y
    other = tf.concat([y[:, :-1], (y[:, -1:] + 1) % 3], axis=1)
    change = np.abs(learner.predict_sequence(x, other) - learner.predict_sequence(x, y)).max(
        axis=(0, 2)
    )
    assert change[:-1].max() == 0
    assert change[-1] > 1e-2 if leaks else change[-1] == 0


# ---------------------------------------------------------------- finite differences


class ConstantMemory(RecurrentLearner):
    """Wrong: the queries' loss does not reach what the support set did to the state."""

    def summarize(self, support, labels):
        return [tf.stop_gradient(state) for state in super().summarize(support, labels)]


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-recurrent-prediction and all steps of eq-delayed-labels, beside a wrong one."""
    kinds = RecurrentLearner, ConstantMemory
    learners = [compiled(random_learner(3, kind), loss="mse") for kind in kinds]
    check_meta_gradients(*learners, episode=random_episode(regression=True))


# ---------------------------------------------------------------- training


def test_sinusoids():
    """Targets ``(S, 1)``: a few steps of fit lower the loss, and the support set helps."""
    learner = compiled(RecurrentLearner(identity(), outputs=1, units=16), loss="mse")
    batches = mlutils.data.sinusoids(shots=3)
    new = list(batches.take(8))
    before = mlutils.evaluate(learner, new, tasks=200)
    learner.fit(batches.skip(8), steps_per_epoch=100, verbose=0)
    after = mlutils.evaluate(learner, new, tasks=200)
    for worse in (before, mlutils.controls(learner, new, tasks=200)["no adaptation"]):
        difference = mlutils.Score(worse.values - after.values)
        assert difference.mean > difference.ci95
