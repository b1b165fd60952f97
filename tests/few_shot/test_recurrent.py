"""The recurrent learner: by hand, beside an LSTM in plain NumPy, and beside wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import RecurrentLearner
from tests.few_shot.tasks import identity, one_task, random_episode
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def random_learner(units=4, kind=RecurrentLearner, seed=0):
    """A tanh encoder of 2 inputs; weights and biases so large that nothing is nearly linear."""
    learner = kind(mlutils.mlp(2, (3,), 2, activation="tanh"), 3, units)
    random = np.random.default_rng(seed)
    learner.set_weights([random.normal(size=w.shape) for w in learner.get_weights()])
    return learner


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
    task = one_task(regression=regression)
    labels = task.support_y.numpy() if regression else np.eye(3)[task.support_y]
    right, wrong = (random_learner(kind=kind) for kind in (RecurrentLearner, NotDelayed))
    errors = []
    for shots in range(1, 9):
        support = task.support_x[:shots], task.support_y[:shots]
        expected = numpy_predictions(right, support[0], labels[:shots], task.query_x)
        np.testing.assert_allclose(right.adapt(*support)(task.query_x), expected, atol=1e-12)
        errors.append(np.abs(wrong.adapt(*support)(task.query_x) - expected).max())
    assert max(errors) > 1e-2


@pytest.mark.parametrize("regression", [False, True])
def test_each_example_with_its_own_label(float64, regression):
    """eq-recurrent-state, beside the learner that reads labels late."""
    learner, task = random_learner(), one_task(regression=regression)
    delayed = learner.adapt(task.support_x, task.support_y)(task.query_x)
    learner.delayed = False
    labels = task.support_y.numpy() if regression else np.eye(3)[task.support_y]
    expected = numpy_predictions(learner, task.support_x, labels, task.query_x)
    found = learner.adapt(task.support_x, task.support_y)(task.query_x)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.abs(found - delayed).max() > 1e-2
    with pytest.raises(ValueError, match="use delayed=True"):
        learner.along(task.support_x[tf.newaxis], task.support_y[tf.newaxis])


def test_delayed_is_saved(tmp_path):
    learner = RecurrentLearner(identity(2), outputs=3, units=4, delayed=False)
    learner.save(tmp_path / "learner.keras")
    assert not keras.models.load_model(tmp_path / "learner.keras").delayed


def test_unadapted_is_one_step_from_the_empty_memory(float64):
    """eq-recurrent-prediction from the zero state: no example has been read."""
    learner, task = random_learner(), one_task()
    expected = numpy_predictions(learner, np.zeros((0, 2)), np.zeros((0, 3)), task.query_x)
    np.testing.assert_allclose(learner.unadapted()(task.query_x), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integer_labels_are_read_as_one_hot(dtype):
    learner, task = random_learner(), one_task()
    support_x, query_x = (tf.cast(x, tf.float32) for x in (task.support_x, task.query_x))
    by_integers = learner.adapt(support_x, tf.cast(task.support_y, dtype))(query_x)
    by_vectors = learner.adapt(support_x, tf.one_hot(task.support_y, 3))(query_x)
    np.testing.assert_array_equal(by_integers, by_vectors)


def test_a_batch_of_regressions_equals_one_task_at_a_time(float64):
    learner, episode = random_learner(), random_episode(tasks=4, regression=True)
    together = learner(episode.element[0])
    assert together.shape == (4, 5, 3)
    for task in range(4):
        predict = learner.adapt(episode.support_x[task], episode.support_y[task])
        np.testing.assert_allclose(together[task], predict(episode.query_x[task]), atol=1e-12)


# ---------------------------------------------------------------- what is read, and what is not


class WithoutLabels(RecurrentLearner):
    """Wrong: reads the support set as if every label were zero."""

    def summarize(self, support, labels):
        return super().summarize(support, tf.zeros_like(self.as_vectors(labels)))


@pytest.mark.parametrize("kind, reads", [(RecurrentLearner, True), (WithoutLabels, False)])
def test_the_labels_are_read(float64, kind, reads):
    """eq-delayed-labels: labels in other places are another task."""
    learner, task = random_learner(kind=kind), one_task()
    before = learner.adapt(task.support_x, task.support_y)(task.query_x)
    after = learner.adapt(task.support_x, tf.roll(task.support_y, 1, axis=0))(task.query_x)
    change = np.abs(after - before).max()
    assert change > 1e-2 if reads else change == 0


def test_a_query_comes_with_the_last_label(float64):
    """eq-recurrent-prediction: no state has read that label yet, the query's own step does."""
    learner, task = random_learner(), one_task()
    support, queries = (learner.embed_one(x) for x in (task.support_x, task.query_x))
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
    change = np.abs(learner.along(x, other) - learner.along(x, y)).max(axis=(0, 2))
    assert change[:-1].max() == 0
    assert change[-1] > 1e-2 if leaks else change[-1] == 0


def test_query_labels_change_the_score_only():
    """With two classes, the other labels for all queries make right wrong and wrong right."""
    learner, (inputs, query_y) = classifier(), next(iter(blobs()))
    score = mlutils.evaluate(learner, [(inputs, query_y), (inputs, 1 - query_y)], tasks=32)
    np.testing.assert_allclose(score.values[16:], 1 - score.values[:16], atol=1e-6)
    assert 0 < score.values[:16].mean() < 1


def test_the_order_of_the_support_set_matters(float64):
    learner, task = random_learner(), one_task()
    before = learner.adapt(task.support_x, task.support_y)(task.query_x)
    support = (tf.roll(values, 1, axis=0) for values in (task.support_x, task.support_y))
    after = learner.adapt(*support)(task.query_x)
    assert np.abs(after - before).max() > 1e-2


# ---------------------------------------------------------------- finite differences


class ConstantMemory(RecurrentLearner):
    """Wrong: the queries' loss does not reach what the support set did to the state."""

    def summarize(self, support, labels):
        return [tf.stop_gradient(state) for state in super().summarize(support, labels)]


@pytest.mark.parametrize("regression", [False, True])
def test_meta_gradient_equals_finite_differences(float64, regression):
    """Through eq-recurrent-prediction and all steps of eq-delayed-labels, beside a wrong one."""
    right, wrong = (random_learner(units=3, kind=k) for k in (RecurrentLearner, ConstantMemory))
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    episode = random_episode(regression=regression)
    for learner in (right, wrong):
        learner.compile(loss="mse" if regression else crossentropy)
    reference = finite_differences(lambda: right.meta_loss(episode), right.trainable_variables)
    errors = [
        relative_error(flatten(learner.meta_gradients(episode)[1]), reference)
        for learner in (right, wrong)
    ]
    assert errors[0] < RELATIVE_TOLERANCE
    assert errors[1] > 1e-2


# ---------------------------------------------------------------- training


def blobs(shots=1, **options):
    """Two clouds of points whose names 0 and 1 are drawn anew for each task."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 40, 2)) / 2 + np.array([[[2, 0]], [[-2, 0]]])
    y = np.repeat([0, 1], 40)
    return mlutils.data.episodes(x.reshape(80, 2), y, 2, shots, **options)


def classifier(units=8):
    learner = RecurrentLearner(identity(2), outputs=2, units=units)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=keras.optimizers.Adam(2e-2), loss=loss)
    return learner


def test_fit_learns_to_read_the_labels():
    """The clouds' names change from task to task: who does not read them is right by halves."""
    learner = classifier(units=16)
    learner.fit(blobs(), steps_per_epoch=100, verbose=0)
    new = blobs(seed=1)
    score, controls = mlutils.evaluate(learner, new), mlutils.controls(learner, new, tasks=200)
    assert list(controls) == ["no adaptation", "shuffled support labels"]
    assert score.mean > 0.9
    for control in controls.values():
        assert control.mean < 0.6


def test_sinusoids():
    """Targets ``(S, 1)``: a few steps of fit lower the loss, and the support set helps."""
    learner = RecurrentLearner(identity(), outputs=1, units=16)
    learner.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    batches = mlutils.data.sinusoids(shots=3)
    before = mlutils.evaluate(learner, batches, tasks=200)
    learner.fit(batches.skip(8), steps_per_epoch=100, verbose=0)
    after = mlutils.evaluate(learner, batches, tasks=200)
    for worse in (before, mlutils.controls(learner, batches, tasks=200)["no adaptation"]):
        difference = mlutils.Score(worse.values - after.values)
        assert difference.mean > difference.ci95


def test_other_shots_than_in_training():
    """After one ``compile``; where three tasks come two at a time, the last batch is of one."""
    learner = classifier()
    (x, y, query_x), query_y = next(iter(blobs(shots=3, meta_batch=3)))
    one, two, three = (((x[:, :S], y[:, :S], query_x), query_y) for S in (2, 4, 6))
    learner.fit(*two, batch_size=2, verbose=0)
    for inputs, _ in (one, three):
        by_hand = [learner.adapt(*support)(query) for *support, query in zip(*inputs, strict=True)]
        loss = float(learner.task_loss(query_y, tf.stack(by_hand)))
        assert learner.evaluate(inputs, query_y, verbose=0) == pytest.approx(loss, rel=1e-5)
    found = learner.predict(three[0], batch_size=2, verbose=0)
    np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-6)
    assert mlutils.evaluate(learner, [one, three], tasks=6).tasks == 6
    learner.fit(*three, verbose=0)


# ---------------------------------------------------------------- wrong input


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(3)

    def call(self, x):
        return self.layer(x)


def built_subclassed():
    model = Subclassed()
    model(tf.zeros((1, 2)))
    return model


def of_unknown_length():
    return keras.Sequential([keras.Input((None, 1)), keras.layers.Conv1D(2, 3)])


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: RecurrentLearner(built_subclassed(), 2), "known length"),
        (lambda: RecurrentLearner(of_unknown_length(), 2), "known length"),
        (lambda: RecurrentLearner(identity(), 0), "outputs must be .* 1, got 0"),
        (lambda: RecurrentLearner(identity(), 1.5), "outputs must be .* 1, got 1.5"),
        (lambda: RecurrentLearner(identity(), 2, 0), "units must be .* 1, got 0"),
        (lambda: RecurrentLearner(identity(), 2, True), "units must be .* got True"),
    ],
)
def test_wrong_learner_raises(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "support_y, words",
    [
        (tf.constant([0, 3]), "from 0 to 3; allowed are 0 to 2"),
        (tf.constant([-1, 0]), "from -1 to 0; allowed are 0 to 2"),
        (tf.zeros((2,)), r"allowed are \(S,\) integers"),
        (tf.zeros((2, 2)), r"and \(S, 3\) floats"),
        (tf.zeros((2, 3, 1)), r"and \(S, 3\) floats"),
        (tf.constant([True, False]), r"allowed are \(S,\) integers"),
        (tf.zeros((2, 1), tf.int32), r"allowed are \(S,\) integers"),
        (tf.zeros((2, 3), tf.int32), r"allowed are \(S,\) integers"),
    ],
)
def test_wrong_labels_raise(support_y, words):
    with pytest.raises(ValueError, match=words):
        RecurrentLearner(identity(2), 3, 4).adapt(tf.zeros((2, 2)), support_y)


def test_labels_out_of_range_raise_in_a_graph():
    """Not read as zeros: five-way tasks for a learner with three outputs."""
    x, y = np.zeros((50, 2), np.float32), np.repeat(np.arange(5), 10)
    tasks = mlutils.data.episodes(x, y, ways=5)
    learner = RecurrentLearner(identity(2), outputs=3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be 0 to 2"):
        mlutils.evaluate(learner, tasks, tasks=16)


def test_labels_out_of_range_raise_in_a_batch():
    """Eagerly, where their values are known; a one-hot vector of zeros would hide them."""
    inputs = tf.zeros((2, 2, 2)), tf.constant([[0, 1], [0, 2]]), tf.zeros((2, 1, 2))
    with pytest.raises(ValueError, match="allowed are 0 to 1"):
        RecurrentLearner(identity(2), 2, 4)(inputs)
