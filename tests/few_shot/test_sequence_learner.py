"""What all learners that read a sequence do alike, each test with all of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import MANN, ContextTransformer, RecurrentLearner
from tests.few_shot.tasks import (
    as_vectors,
    compiled,
    identity,
    one_task,
    random_episode,
    randomized,
)


def recurrent(encoder, cell=None):
    return RecurrentLearner(encoder, outputs=3, units=4, cell=cell)


def gated(encoder):
    return recurrent(encoder, keras.layers.GRUCell(4))


def stacked(encoder):
    """Whose state is a list of lists."""
    cells = [keras.layers.LSTMCell(3), keras.layers.GRUCell(4)]
    return recurrent(encoder, keras.layers.StackedRNNCells(cells))


def mann(encoder):
    return MANN(encoder, outputs=3, units=4, slots=3, width=2, heads=2)


def transformer(encoder):
    return ContextTransformer(encoder, outputs=3, units=4, heads=2)


every = pytest.mark.parametrize("make", [recurrent, mann, transformer])


def random_learner(make):
    return randomized(make(mlutils.mlp(2, (3,), 2, activation="tanh")))


def sequences(regression=False):
    """Two sequences of five examples: inputs ``(2, 5, 2)``, labels or targets."""
    episode = random_episode(tasks=2, support=5, regression=regression)
    return episode.support_x, episode.support_y


def by_adapting(learner, x, y):
    """Each label predicted by ``adapt`` on the examples before it, the first by ``unadapted``."""
    predictions = []
    for inputs, labels in zip(x, y, strict=True):
        predictions.append([learner.unadapted()(inputs[:1])[0]])
        for t in range(1, len(inputs)):
            predictions[-1].append(learner.adapt(inputs[:t], labels[:t])(inputs[t : t + 1])[0])
    return np.array(predictions)


# ---------------------------------------------------------------- what is read, and when


def labels_beside(self, embeddings, labels):
    """Wrong: each example is read together with its own label."""
    return tf.concat([embeddings, labels], axis=2)


def answers_beside(self, embeddings, labels):
    """Wrong: each query attends to the example with its own label too."""
    summary, steps = self.summarize(embeddings, labels), tf.shape(embeddings)[1]
    mask = tf.linalg.band_part(tf.ones((steps, steps + 1), tf.bool), -1, 1)
    return self.attend(summary, embeddings, mask)


@pytest.fixture
def not_delayed(monkeypatch, request):
    """Whether labels are wrongly not delayed."""
    if request.param:
        monkeypatch.setattr(RecurrentLearner, "with_labels_before", labels_beside)
        monkeypatch.setattr(ContextTransformer, "answer_sequence", answers_beside)
    return request.param


@pytest.mark.parametrize(
    "make, regression",
    [(recurrent, False), (stacked, True), (mann, True), (transformer, False)],
)
def test_along_equals_adapting_anew_for_each_example(float64, make, regression):
    """Called with two inputs, of lengths unknown to the graph."""
    learner, (x, y) = random_learner(make), sequences(regression)
    expected, any_y = by_adapting(learner, x, y), (None, None, 3)[: len(y.shape)]
    assert expected.shape == (2, 5, 3)
    np.testing.assert_allclose(learner((x, y)), expected, atol=1e-12)
    signature = [tf.TensorSpec((None, None, 2), x.dtype), tf.TensorSpec(any_y, y.dtype)]
    along = tf.function(lambda *inputs: learner(inputs), input_signature=signature)
    for T in (1, 5):
        np.testing.assert_allclose(along(x[:, :T], y[:, :T]), expected[:, :T], atol=1e-12)


@every
@pytest.mark.parametrize("not_delayed", [False, True], indirect=True)
def test_what_changes_later_predictions_only(float64, not_delayed, make):
    """A label those after it, an input also its own.

    Negative control: labels that are not delayed change the prediction beside them.
    """
    learner, (x, y) = random_learner(make), sequences()
    before = learner.predict_sequence(x, y)
    for t in range(5):
        other = tf.concat([y[:, :t], (y[:, t:] + 1) % 3], axis=1)
        change = np.abs(learner.predict_sequence(x, other) - before).max(axis=(0, 2))
        assert change[:t].max(initial=0) < 1e-12
        assert change[t] > 1e-4 if not_delayed else change[t] < 1e-12
        assert t == 4 or change[t + 1 :].max() > 1e-4
    other = tf.concat([x[:, :2], -x[:, 2:]], axis=1)
    change = np.abs(learner.predict_sequence(other, y) - before).max(axis=(0, 2))
    assert change[:2].max() < 1e-12 and change[2:].min() > 1e-4


def test_integer_labels_are_read_as_one_hot(float64):
    learner, (x, y) = random_learner(recurrent), sequences()
    expected = learner.predict_sequence(x, tf.one_hot(y, 3, dtype="float64"))
    for dtype in ("uint8", "int64"):
        np.testing.assert_array_equal(learner.predict_sequence(x, tf.cast(y, dtype)), expected)


def test_the_cell_of_the_users_choice(float64):
    """A GRU cell: its own state and step, and no LSTM's."""
    learner, task = random_learner(gated), one_task()
    cell, state = learner.memory.cell, np.zeros((1, 4))
    embeddings = learner.encoder(tf.concat([task.support_x, task.query_x[:1]], axis=0))
    labels = [np.zeros(3), *as_vectors(task.support_y)]
    for z, label in zip(embeddings, labels, strict=True):
        output, state = cell(tf.concat([z, label], axis=0)[tf.newaxis], state)
    found = learner.adapt(task.support_x, task.support_y)(task.query_x[:1])
    np.testing.assert_allclose(found, learner.head(output), atol=1e-12)
    assert len(learner.empty_summary()) == 2  # one state and the label
    config = learner.get_config()
    assert RecurrentLearner.from_config(config).get_config() == config


# ---------------------------------------------------------------- training


def test_fit_along_sequences():
    """On elements ((x, y), y): the loss is minus the log softmax, averaged, and falls."""
    learner, (x, y) = compiled(recurrent(mlutils.mlp(2, (8,), 4)), rate=5e-2), sequences()
    x = tf.cast(x, tf.float32)
    logits = by_adapting(learner, x, y)
    log_softmax = logits - np.log(np.sum(np.exp(logits), axis=2, keepdims=True))
    by_hand = -np.mean(np.take_along_axis(log_softmax, y.numpy()[..., np.newaxis], axis=2))
    losses = learner.fit((x, y), y, epochs=20, verbose=0).history["loss"]
    assert losses[0] == pytest.approx(by_hand, rel=1e-4)
    assert losses[-1] < 0.9 * losses[0]


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    "x, y, words",
    [
        ((3, 5, 2), (2, 5), r"allowed are \(tasks, S"),
        ((3, 5, 2), (3, 4), r"allowed are \(tasks, S"),
        ((3, 0, 2), (3, 0), "at least one of each"),
        ((5, 2), (5,), r"allowed is \(tasks, S, 2"),
        ((3, 5, 3), (3, 5), r"allowed is \(tasks, S, 2\)"),
        ((3, 5, 2), (3, 5, 3), r"\(5, 3\) and dtype int32; allowed are \(S,\) integers"),
    ],
)
def test_wrong_sequences_raise(x, y, words):
    with pytest.raises(ValueError, match=words):
        recurrent(identity(2))((tf.zeros(x), tf.zeros(y, tf.int32)))


@pytest.mark.parametrize("make", [recurrent, transformer])
@pytest.mark.parametrize(
    "support_y, words",
    [
        (tf.constant([0, 3]), "from 0 to 3; allowed are 0 to 2"),
        (tf.constant([-1, 0]), "from -1 to 0; allowed are 0 to 2"),
        (tf.zeros((2,)), r"and dtype float32; allowed are \(S,\) integers"),
        (tf.zeros((2, 2)), r"and \(S, 3\) floats"),
        (tf.constant([True, False]), r"allowed are \(S,\) integers"),
    ],
)
def test_wrong_labels_raise(make, support_y, words):
    """In a support set, along a sequence, and where attention is looked at."""
    learner, x = make(identity(2)), tf.zeros((2, 2))
    calls = [learner.adapt, lambda x, y: learner((x[tf.newaxis], y[tf.newaxis]))]
    if make is transformer:
        calls.append(lambda x, y: learner.attention(x, y, x))
    for call in calls:
        with pytest.raises(ValueError, match=words):
            call(x, support_y)


def test_labels_out_of_range_are_not_scored():
    """Nor read as zeros: five-way tasks for a learner with three outputs."""
    x, y = np.zeros((50, 2), np.float32), np.repeat(np.arange(5), 10)
    with pytest.raises(ValueError, match="allowed are 0 to 2"):
        mlutils.evaluate(recurrent(identity(2)), mlutils.data.episodes(x, y, ways=5), tasks=16)
