"""What all learners that read a sequence do alike, each test with all of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import MANN, ContextTransformer, RecurrentLearner
from tests.few_shot.tasks import identity, one_task, random_episode


def recurrent(encoder, outputs=3):
    return RecurrentLearner(encoder, outputs, units=4)


def gated(encoder, outputs=3):
    return RecurrentLearner(encoder, outputs, cell=keras.layers.GRUCell(4))


def stacked(encoder, outputs=3):
    cells = [keras.layers.LSTMCell(3), keras.layers.GRUCell(4)]
    return RecurrentLearner(encoder, outputs, cell=keras.layers.StackedRNNCells(cells))


def mann(encoder, outputs=3):
    return MANN(encoder, outputs, units=4, slots=3, width=2, heads=2)


def transformer(encoder, outputs=3):
    return ContextTransformer(encoder, outputs, units=4, heads=2)


every = pytest.mark.parametrize("make", [recurrent, gated, mann, transformer])


def randomize(learner):
    """Weights and biases so large that no label goes unnoticed."""
    random = np.random.default_rng(0)
    learner.set_weights([random.normal(size=w.shape) for w in learner.get_weights()])
    return learner


def random_learner(make, outputs=3):
    return randomize(make(mlutils.mlp(2, (3,), 2, activation="tanh"), outputs))


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


def test_a_cell_of_cells(float64):
    """Whose state is a list of lists."""
    learner, (x, y) = random_learner(stacked), sequences()
    np.testing.assert_allclose(learner.along(x, y), by_adapting(learner, x, y), atol=1e-12)


# ---------------------------------------------------------------- what is read, and when


def labels_beside(self, embeddings, labels):
    """Wrong: each example is read together with its own label."""
    return tf.concat([embeddings, labels], axis=2)


def answers_beside(self, embeddings, labels):
    """Wrong: each query attends to the example with its own label too."""
    summary = self.summarize(embeddings, labels)
    steps = tf.shape(embeddings)[1]
    mask = tf.linalg.band_part(tf.ones((steps, steps + 1), tf.bool), -1, 1)
    return self.attend(summary, embeddings, mask)


def do_not_delay(monkeypatch):
    monkeypatch.setattr(RecurrentLearner, "with_labels_before", labels_beside)
    monkeypatch.setattr(ContextTransformer, "answers_along", answers_beside)


@every
@pytest.mark.parametrize("regression", [False, True])
def test_along_equals_adapting_anew_for_each_example(float64, monkeypatch, make, regression):
    """Also called with two inputs.  Negative control: labels that are not delayed."""
    learner, (x, y) = random_learner(make), sequences(regression)
    expected = by_adapting(learner, x, y)
    assert expected.shape == (2, 5, 3)
    np.testing.assert_allclose(learner.along(x, y), expected, atol=1e-12)
    np.testing.assert_array_equal(learner((x, y)), learner.along(x, y))
    do_not_delay(monkeypatch)
    assert np.abs(learner.along(x, y) - expected).max() > 1e-2


@every
@pytest.mark.parametrize("delayed", [True, False])
def test_a_label_changes_later_predictions_only(float64, monkeypatch, make, delayed):
    """Negative control: labels that are not delayed change the prediction beside them."""
    if not delayed:
        do_not_delay(monkeypatch)
    learner, (x, y) = random_learner(make), sequences()
    before = learner.along(x, y)
    for t in range(5):
        other = tf.concat([y[:, :t], (y[:, t:] + 1) % 3], axis=1)
        change = np.abs(learner.along(x, other) - before).max(axis=(0, 2))
        assert change[:t].max(initial=0) < 1e-12
        assert change[t] < 1e-12 if delayed else change[t] > 1e-4
        assert t == 4 or change[t + 1 :].max() > 1e-4


@every
def test_an_input_changes_no_earlier_prediction(float64, make):
    learner, (x, y) = random_learner(make), sequences()
    other = tf.concat([x[:, :2], -x[:, 2:]], axis=1)
    change = np.abs(learner.along(other, y) - learner.along(x, y)).max(axis=(0, 2))
    assert change[:2].max() < 1e-12 and change[2:].min() > 1e-4


@every
def test_sequences_do_not_see_each_other(float64, make):
    learner, (x, y) = random_learner(make), sequences()
    together = learner.along(x, y)
    for i in range(2):
        alone = learner.along(x[i : i + 1], y[i : i + 1])[0]
        np.testing.assert_allclose(alone, together[i], atol=1e-12)


@every
def test_integer_labels_are_read_as_one_hot(float64, make):
    learner, (x, y) = random_learner(make), sequences()
    expected = learner.along(x, tf.one_hot(y, 3, dtype="float64"))
    for dtype in ("uint8", "int32", "int64"):
        np.testing.assert_array_equal(learner.along(x, tf.cast(y, dtype)), expected)


@every
def test_lengths_unknown_to_the_graph(float64, make):
    learner, (x, y) = random_learner(make), sequences()
    signature = [tf.TensorSpec((None, None, 2), "float64"), tf.TensorSpec((None, None), y.dtype)]
    in_graph = tf.function(lambda *inputs: learner(inputs), input_signature=signature)
    for T in (1, 5):
        expected = learner.along(x[:, :T], y[:, :T])
        np.testing.assert_allclose(in_graph(x[:, :T], y[:, :T]), expected, atol=1e-12)


# ---------------------------------------------------------------- outputs and embeddings


@every
def test_more_outputs_than_ways(float64, make):
    """Five outputs on three-way tasks: as if the other two classes had not been drawn yet."""
    learner, (x, y), task = random_learner(make, outputs=5), sequences(), one_task()
    assert learner.along(x, y).shape == (2, 5, 5)
    np.testing.assert_allclose(learner.along(x, y), by_adapting(learner, x, y), atol=1e-12)
    assert learner.adapt(task.support_x, task.support_y)(task.query_x).shape == (5, 5)
    element = random_episode().element
    right = np.argmax(learner(element[0]), axis=2) == element[1]
    score = mlutils.evaluate(learner, [element], tasks=3)
    np.testing.assert_allclose(score.values, np.mean(right, axis=1))
    with pytest.raises(ValueError, match="allowed are 0 to 4"):
        learner.along(x, y + 3)


@every
def test_embeddings_of_more_axes_are_flattened(make):
    image = [keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)]
    learner = make(keras.Sequential(image))
    flat = make(keras.Sequential([*image, keras.layers.Flatten()]))
    flat.set_weights(learner.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 4, 1)).astype("float32")
    y = np.array([[0, 1, 2, 0, 1, 2], [2, 1, 1, 0, 2, 1]])
    assert learner.features == 8 and learner((x, y)).shape == (2, 6, 3)
    np.testing.assert_allclose(learner((x, y)), flat((x, y)), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- Keras citizens


def clouds(tasks=16):
    """Sequences of ten points from three clouds in the plane, named anew for each sequence."""
    random = np.random.default_rng(0)
    clouds = random.integers(3, size=(tasks, 10))
    centres = np.array([[2, 0], [-2, 0], [0, 2]])
    x = centres[clouds] + random.normal(size=(tasks, 10, 2)) / 2
    names = random.permuted(np.tile(np.arange(3), (tasks, 1)), axis=1)
    return x.astype("float32"), np.take_along_axis(names, clouds, axis=1)


def compiled(learner):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss)
    return learner


@every
def test_fit_along_sequences(make):
    """On elements ((x, y), y): the loss falls, and is minus the log softmax, averaged."""
    learner, (x, y) = compiled(make(mlutils.mlp(2, (8,), 4))), clouds()
    batches = tf.data.Dataset.from_tensors(((x, y), y))
    before = learner.evaluate(batches, verbose=0)
    losses = learner.fit(batches.repeat(), steps_per_epoch=10, epochs=4, verbose=0).history["loss"]
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert learner.evaluate(batches, verbose=0) < 0.95 * before
    x, y = x[:2], y[:2]
    logits = by_adapting(learner, tf.constant(x), tf.constant(y))
    log_softmax = logits - np.log(np.sum(np.exp(logits), axis=2, keepdims=True))
    by_hand = -np.mean(np.take_along_axis(log_softmax, y[..., np.newaxis], axis=2))
    assert learner.evaluate((x, y), y, verbose=0) == pytest.approx(by_hand, rel=1e-4)


@every
def test_saved_and_loaded_learner_predicts_the_same(tmp_path, make):
    learner, (x, y) = random_learner(make), clouds()
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded) is type(learner)
    np.testing.assert_array_equal(learner((x, y)), loaded((x, y)))
    np.testing.assert_array_equal(learner((x, y, x)), loaded((x, y, x)))
    np.testing.assert_array_equal(learner.unadapted()(x[0]), loaded.unadapted()(x[0]))


@every
def test_config_round_trip(make):
    learner = make(mlutils.mlp(2, (3,), 2), outputs=4)
    config = learner.get_config()
    again = type(learner).from_config(config)
    assert again.get_config() == config
    shapes = [[w.shape for w in one.get_weights()] for one in (learner, again)]
    assert shapes[0] == shapes[1] and again.outputs == 4


def test_the_cell_of_the_users_choice(float64):
    """A GRU cell: its own state and step, and no LSTM's."""
    learner, task = random_learner(gated), one_task()
    cell = learner.memory.cell
    state = np.zeros((1, 4))
    labels = [np.zeros(3), *np.eye(3)[task.support_y]]
    embeddings = learner.encoder(tf.concat([task.support_x, task.query_x[:1]], axis=0))
    for z, label in zip(embeddings, labels, strict=True):
        output, state = cell(tf.concat([z, label], axis=0)[tf.newaxis], state)
    found = learner.adapt(task.support_x, task.support_y)(task.query_x[:1])
    np.testing.assert_allclose(found, learner.head(output), atol=1e-12)
    assert len(learner.nothing()) == 2  # one state and the label


# ---------------------------------------------------------------- wrong input


@every
@pytest.mark.parametrize(
    "x, y, words",
    [
        ((3, 5, 2), (3, 4), r"allowed are \(tasks, T"),
        ((3, 5, 2), (2, 5), r"allowed are \(tasks, T"),
        ((3, 0, 2), (3, 0), "T at least 1"),
        ((5, 2), (5,), r"allowed are \(tasks, T"),
        ((3,), (3, 5), r"allowed are \(tasks, T"),
        ((3, 5, 3), (3, 5), r"the model takes \(None, 2\)"),
        ((3, 5, 4, 2), (3, 5), r"the model takes \(None, 2\)"),
        ((3, 5, 2), (3, 5, 1), r"allowed are \(S,\) integers"),
        ((3, 5, 2), (3, 5, 3), r"allowed are \(S,\) integers"),
    ],
)
def test_wrong_sequences_raise(make, x, y, words):
    with pytest.raises(ValueError, match=words):
        make(identity(2))((tf.zeros(x), tf.zeros(y, tf.int32)))


@every
def test_wrong_labels_along_a_sequence_raise(make):
    learner, x = make(identity(2)), tf.zeros((1, 2, 2))
    with pytest.raises(ValueError, match="and dtype float32"):
        learner((x, tf.zeros((1, 2))))
    with pytest.raises(ValueError, match="allowed are 0 to 2"):
        learner((x, tf.constant([[0, 3]])))


@every
@pytest.mark.parametrize("number", [1, 4])
def test_other_numbers_of_inputs_raise(make, number):
    with pytest.raises(ValueError, match="A learner takes"):
        make(identity(2))((tf.zeros((3, 5, 2)),) * number)
