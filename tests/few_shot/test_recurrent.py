"""The recurrent learner: by hand, beside an LSTM in plain NumPy, and beside wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import Episode, RecurrentLearner
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def identity(size=1):
    """An encoder whose embeddings are its inputs."""
    return keras.Sequential([keras.Input((size,)), keras.layers.Identity()])


def random_learner(outputs=3, units=4, kind=RecurrentLearner, seed=0):
    """A tanh encoder of 2 inputs; weights and biases so large that nothing is nearly linear."""
    learner = kind(mlutils.mlp(2, (3,), 2, activation="tanh"), outputs, units)
    random = np.random.default_rng(seed)
    learner.set_weights([random.normal(size=w.shape) for w in learner.get_weights()])
    return learner


def random_episode(tasks=3, support=5, queries=4, outputs=3, regression=False, seed=0):
    random = np.random.default_rng(seed)

    def targets(examples):
        if regression:
            return random.normal(size=(tasks, examples, outputs))
        return random.permuted(np.tile(np.arange(examples) % outputs, (tasks, 1)), axis=1)

    return Episode(
        tf.constant(random.normal(size=(tasks, support, 2))),
        tf.constant(targets(support)),
        tf.constant(random.normal(size=(tasks, queries, 2))),
        tf.constant(targets(queries)),
    )


def one_task(**options):
    return Episode(*(value[0] for value in random_episode(**options)))


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
    """eq-recurrent-state and eq-recurrent-prediction with one unit that adds up what it reads.

    Each step has c <- f c + i tanh(x + y) and h = o tanh(c), the prediction is 1 + 2 h.  The
    gates see their bias alone: 100 opens one, 0 opens it by half.  The support set is
    (0, artanh 1/2), (artanh 1/4, 0), the query x = artanh(-1/4), its y is 0.

    All open:  c = 1/2, 3/4, then 3/4 - 1/4 = 1/2 for the query.
    f = 1/2:   c = 1/2, 1/4 + 1/4 = 1/2, 1/4 - 1/4 = 0.
    i = 1/2:   c = 1/4, 1/4 + 1/8 = 3/8, 3/8 - 1/8 = 1/4.
    o = 1/2:   c = 1/2 in the end as with open gates, half of it comes out.
    """
    learner = RecurrentLearner(identity(), outputs=1, units=1)
    bias = [gates.get("read", 100), gates.get("forget", 100), 0, gates.get("out", 100)]
    learner.cell.set_weights([np.array([[0, 0, 1, 0]] * 2), np.zeros((1, 4)), np.array(bias)])
    learner.head.set_weights([np.array([[2.0]]), np.array([1.0])])
    support_x = tf.constant([[0.0], [math.atanh(1 / 4)]])
    support_y = tf.constant([[math.atanh(1 / 2)], [0.0]])
    found = learner.adapt(support_x, support_y)(tf.constant([[math.atanh(-1 / 4)]]))
    assert found.numpy().item() == pytest.approx(prediction, rel=1e-6)


# ---------------------------------------------------------------- the LSTM in plain NumPy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(learner, vector, state):
    """One step of an LSTM; Keras keeps the gates in the order input, forget, candidate, output."""
    kernel, recurrent, bias = learner.cell.get_weights()
    h, c = state
    i, f, candidate, o = np.split(vector @ kernel + h @ recurrent + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
    return sigmoid(o) * np.tanh(c), c


def numpy_predictions(learner, support_x, labels, query_x):
    """eq-recurrent-state and eq-recurrent-prediction, one example and one query at a time."""
    state = np.zeros((2, learner.cell.units))
    for z, label in zip(learner.embed(support_x).numpy(), labels, strict=True):
        state = numpy_step(learner, np.concatenate([z, label]), state)
    kernel, bias = learner.head.get_weights()
    predictions = []
    for z in learner.embed(query_x).numpy():
        h, _ = numpy_step(learner, np.concatenate([z, np.zeros(len(bias))]), state)
        predictions.append(h @ kernel + bias)
    return np.array(predictions)


@pytest.mark.parametrize("regression", [False, True])
def test_plain_numpy(float64, regression):
    """eq-recurrent-state after each number of examples, and eq-recurrent-prediction from it."""
    learner, task = random_learner(), one_task(regression=regression)
    labels = task.support_y.numpy() if regression else np.eye(3)[task.support_y]
    for shots in range(1, 6):
        found = learner.adapt(task.support_x[:shots], task.support_y[:shots])(task.query_x)
        expected = numpy_predictions(learner, task.support_x[:shots], labels[:shots], task.query_x)
        np.testing.assert_allclose(found, expected, atol=1e-12)


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


@pytest.mark.parametrize("regression", [False, True])
def test_a_batch_equals_one_task_at_a_time(float64, regression):
    learner, episode = random_learner(), random_episode(tasks=4, regression=regression)
    together = learner(episode.element[0])
    assert together.shape == (4, 4, 3)
    for task in range(4):
        predict = learner.adapt(episode.support_x[task], episode.support_y[task])
        np.testing.assert_allclose(together[task], predict(episode.query_x[task]), atol=1e-12)


# ---------------------------------------------------------------- what is read, and what is not


def test_queries_leave_the_memory_alone(float64):
    """eq-recurrent-prediction starts each query from the same state: alone, again, in any order."""
    learner, task = random_learner(), one_task()
    predict = learner.adapt(task.support_x, task.support_y)
    together = predict(task.query_x)
    for i in (3, 0, 2, 1, 3):
        np.testing.assert_allclose(predict(task.query_x[i : i + 1])[0], together[i], atol=1e-12)
    np.testing.assert_allclose(predict(task.query_x[::-1]), together[::-1], atol=1e-12)


class WithoutLabels(RecurrentLearner):
    """Wrong: reads the support set as if every label were zero."""

    def as_vectors(self, labels):
        return tf.zeros_like(super().as_vectors(labels))


@pytest.mark.parametrize("kind, reads", [(RecurrentLearner, True), (WithoutLabels, False)])
def test_the_labels_are_read(float64, kind, reads):
    """eq-recurrent-state: labels in other places are another task."""
    learner, task = random_learner(kind=kind), one_task()
    before = learner.adapt(task.support_x, task.support_y)(task.query_x)
    after = learner.adapt(task.support_x, tf.roll(task.support_y, 1, axis=0))(task.query_x)
    change = np.abs(after - before).max()
    assert change > 1e-2 if reads else change == 0


def test_a_query_comes_without_a_label(float64):
    """eq-recurrent-prediction: what the cell does with labels matters to the support set only."""
    learner, task = random_learner(), one_task()

    def predictions():
        adapted = learner.adapt(task.support_x, task.support_y)
        return [predict(task.query_x).numpy() for predict in (learner.unadapted(), adapted)]

    unadapted, adapted = predictions()
    kernel = learner.cell.kernel.numpy()
    kernel[2:] += 1.0  # the rows of the labels, below two for the embedding
    learner.cell.kernel.assign(kernel)
    after = predictions()
    np.testing.assert_array_equal(after[0], unadapted)
    assert np.abs(after[1] - adapted).max() > 1e-2


def test_query_labels_change_the_score_only():
    """With two classes, the other labels for all queries make right wrong and wrong right."""
    learner, (inputs, query_y) = RecurrentLearner(identity(2), 2, 8), next(iter(blobs(shots=1)))
    score = mlutils.evaluate(learner, [(inputs, query_y), (inputs, 1 - query_y)], tasks=32)
    np.testing.assert_allclose(score.values[16:], 1 - score.values[:16], atol=1e-6)
    assert 0 < score.values[:16].mean() < 1


def test_the_order_of_the_support_set_matters(float64):
    learner, task = random_learner(), one_task()
    before = learner.adapt(task.support_x, task.support_y)(task.query_x)
    after = learner.adapt(task.support_x[::-1], task.support_y[::-1])(task.query_x)
    assert np.abs(after - before).max() > 1e-2


def test_embeddings_of_more_axes_are_flattened():
    image = [keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)]
    flat = keras.Sequential([*image, keras.layers.Flatten()])
    learner = RecurrentLearner(keras.Sequential(image), 2, 4)
    other = RecurrentLearner(flat, 2, 4)
    other.set_weights(learner.get_weights())
    x, query_x = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 4, 1)).astype("float32")
    inputs = x, np.array([[0, 1, 1, 0]] * 3), query_x
    np.testing.assert_allclose(learner(inputs), other(inputs), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- finite differences


class ConstantMemory(RecurrentLearner):
    """Wrong: the queries' loss does not reach what the support set did to the state."""

    def predict_from(self, state, query_x):
        return super().predict_from([tf.stop_gradient(s) for s in state], query_x)


@pytest.mark.parametrize(
    "kind, regression, right",
    [
        (RecurrentLearner, False, True),
        (RecurrentLearner, True, True),
        (ConstantMemory, False, False),
    ],
)
def test_meta_gradient_equals_finite_differences(float64, kind, regression, right):
    """Through eq-recurrent-prediction and all steps of eq-recurrent-state, beside a wrong one."""
    learner, episode = random_learner(units=3, kind=kind), random_episode(regression=regression)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(loss="mse" if regression else crossentropy)
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    _, gradients = learner.meta_gradients(episode)
    error = relative_error(flatten(gradients), reference)
    assert error < RELATIVE_TOLERANCE if right else error > 1e-2


# ---------------------------------------------------------------- a Keras citizen


def classifier(encoder=None, outputs=2, units=8, learning_rate=1e-2):
    learner = RecurrentLearner(encoder or identity(2), outputs, units)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=loss)
    return learner


def blobs(shots=2, seed=0, **options):
    """Two clouds of points whose names 0 and 1 are drawn anew for each task."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 40, 2)) / 2 + np.array([[[2, 0]], [[-2, 0]]])
    y = np.repeat([0, 1], 40)
    return mlutils.data.episodes(x.reshape(80, 2), y, 2, shots, seed=seed, **options)


def test_logged_and_hand_computed_loss_agree():
    learner = classifier(mlutils.mlp(2, (4,), 3))
    learner.compile(optimizer=keras.optimizers.SGD(0.0), loss=learner.loss)
    batches = blobs(shots=1, meta_batch=4)
    episode = Episode.from_element(next(iter(batches)))
    by_hand = []
    for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
        logits = numpy_predictions(learner, support_x, np.eye(2)[support_y], query_x)
        log_softmax = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
        by_hand.extend(-log_softmax[np.arange(len(logits)), query_y.numpy()])
    by_hand = np.mean(by_hand)
    (logged,) = learner.fit(batches, steps_per_epoch=1, verbose=0).history["loss"]
    assert logged == pytest.approx(by_hand, rel=1e-5)
    assert float(learner.meta_loss(episode)) == pytest.approx(by_hand, rel=1e-5)


def test_fit_learns_to_read_the_labels():
    """The clouds' names change from task to task: who does not read them is right by halves."""
    learner = classifier(units=16, learning_rate=2e-2)
    learner.fit(blobs(shots=1), steps_per_epoch=300, verbose=0)
    new = blobs(shots=1, seed=1)
    score, controls = mlutils.evaluate(learner, new), mlutils.controls(learner, new, tasks=200)
    assert list(controls) == ["no adaptation", "shuffled support labels"]
    assert score.mean > 0.9
    for control in controls.values():
        assert control.mean < 0.6


def test_other_shots_than_in_training():
    """Shorter and longer support sets, after one ``compile``."""
    learner = classifier()
    learner.fit(blobs(shots=2, meta_batch=4), steps_per_epoch=2, verbose=0)
    for shots in (1, 2, 3):
        batches = blobs(shots=shots, meta_batch=4)
        inputs, query_y = next(iter(batches))
        by_hand = [learner.adapt(x, y)(query) for x, y, query in zip(*inputs, strict=True)]
        loss = float(learner.task_loss(query_y, tf.stack(by_hand)))
        assert learner.evaluate(batches, steps=1, verbose=0) == pytest.approx(loss, rel=1e-5)
    learner.fit(blobs(shots=3, meta_batch=4), steps_per_epoch=2, verbose=0)


def test_tasks_of_different_shots_in_one_evaluation():
    batches = [next(iter(blobs(shots=shots))) for shots in (1, 2)]
    assert mlutils.evaluate(classifier(), batches, tasks=32).tasks == 32


def test_a_graph_for_any_number_of_tasks_and_queries():
    learner, (inputs, _) = classifier(), next(iter(blobs(shots=2)))
    any_number = [
        tf.TensorSpec((None, 4, 2)),
        tf.TensorSpec((None, 4), tf.int32),
        tf.TensorSpec((None, None, 2)),
    ]
    in_graph = tf.function(lambda *task: learner(task), input_signature=any_number)
    np.testing.assert_allclose(in_graph(*inputs), learner(inputs), rtol=1e-4, atol=1e-6)


def test_a_last_batch_of_one_task():
    """fit and predict on arrays of five tasks, two at a time."""
    learner, (inputs, query_y) = classifier(), next(iter(blobs(shots=1, meta_batch=5)))
    found = learner.predict(inputs, batch_size=2, verbose=0)
    np.testing.assert_allclose(found, learner(inputs), rtol=1e-4, atol=1e-6)
    learner.fit(inputs, query_y, batch_size=2, verbose=0)


def test_sinusoids():
    """Targets ``(S, 1)``: a few steps of fit lower the loss, and the support set helps."""
    learner = RecurrentLearner(identity(), outputs=1, units=16)
    learner.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    batches = mlutils.data.sinusoids(shots=3)
    before = mlutils.evaluate(learner, batches)
    learner.fit(batches.skip(24), steps_per_epoch=200, verbose=0)
    after = mlutils.evaluate(learner, batches)
    for worse in (before, mlutils.controls(learner, batches)["no adaptation"]):
        difference = mlutils.Score(worse.values - after.values)
        assert difference.mean > difference.ci95


def test_saved_and_loaded_learner_predicts_the_same(tmp_path):
    learner, (inputs, _) = RecurrentLearner(mlutils.mlp(2, (4,), 3), 2, 5), next(iter(blobs()))
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(learner(inputs), loaded(inputs))
    assert (loaded.outputs_per_query, loaded.cell.units) == (2, 5)


def test_dropout_is_inert():
    encoder = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.9)])
    learner, (inputs, _) = classifier(encoder), next(iter(blobs()))
    np.testing.assert_array_equal(learner(inputs, training=True), learner(inputs))


def test_adapting_leaves_the_weights_alone():
    learner, (inputs, _) = classifier(), next(iter(blobs()))
    before = learner.get_weights()
    learner(inputs)
    for old, new in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


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


def batch_normalised():
    return keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])


def of_unknown_length():
    return keras.Sequential([keras.Input((None, 1)), keras.layers.Conv1D(2, 3)])


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: RecurrentLearner("mlp", 2), TypeError, "encoder must be a keras.Model, got str"),
        (
            lambda: RecurrentLearner(keras.Sequential([keras.layers.Dense(1)]), 2),
            ValueError,
            "keras.Input",
        ),
        (lambda: RecurrentLearner(batch_normalised(), 2), ValueError, "mlutils.BatchNorm"),
        (lambda: RecurrentLearner(built_subclassed(), 2), ValueError, "known length"),
        (lambda: RecurrentLearner(of_unknown_length(), 2), ValueError, "known length"),
        (lambda: RecurrentLearner(identity(), 0), ValueError, "outputs must be .* 1, got 0"),
        (lambda: RecurrentLearner(identity(), 1.5), ValueError, "outputs must be .* 1, got 1.5"),
        (lambda: RecurrentLearner(identity(), 2, 0), ValueError, "units must be .* 1, got 0"),
        (lambda: RecurrentLearner(identity(), 2, True), ValueError, "units must be .* got True"),
    ],
)
def test_wrong_learner_raises(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    "support_x, support_y, words",
    [
        (tf.zeros((0, 2)), tf.zeros((0,), tf.int32), "at least 1"),
        (tf.zeros((5, 2)), tf.zeros((4,), tf.int32), "the same in both"),
        (tf.zeros(()), tf.zeros((), tf.int32), "first axis counts"),
        (tf.zeros((5, 3)), tf.zeros((5,), tf.int32), r"the model takes \(None, 2\)"),
        (tf.zeros((3, 5, 2)), tf.zeros((3, 5), tf.int32), r"the model takes \(None, 2\)"),
        (tf.zeros((2, 2)), tf.constant([0, 3]), "from 0 to 3; allowed are 0 to 2"),
        (tf.zeros((2, 2)), tf.constant([-1, 0]), "from -1 to 0; allowed are 0 to 2"),
        (tf.zeros((2, 2)), tf.zeros((2,)), r"allowed are \(S,\) integers"),
        (tf.zeros((2, 2)), tf.zeros((2, 2)), r"and \(S, 3\) numbers"),
        (tf.zeros((2, 2)), tf.zeros((2, 3, 1)), r"and \(S, 3\) numbers"),
        (tf.zeros((2, 2)), tf.constant([True, False]), r"allowed are \(S,\) integers"),
        (tf.zeros((2, 2)), tf.zeros((2, 1), tf.int32), r"allowed are \(S,\) integers"),
        (tf.zeros((2, 2)), tf.zeros((2, 3), tf.int32), r"allowed are \(S,\) integers"),
    ],
)
def test_wrong_support_set_raises(support_x, support_y, words):
    with pytest.raises(ValueError, match=words):
        RecurrentLearner(identity(2), 3, 4).adapt(support_x, support_y)


def test_labels_out_of_range_raise_in_a_batch():
    """Eagerly, where their values are known; a one-hot vector of zeros would hide them."""
    inputs = tf.zeros((2, 2, 2)), tf.constant([[0, 1], [0, 2]]), tf.zeros((2, 1, 2))
    with pytest.raises(ValueError, match="allowed are 0 to 1"):
        RecurrentLearner(identity(2), 2, 4)(inputs)


def test_tasks_without_support_raise():
    with pytest.raises(ValueError, match="at least 1"):
        mlutils.evaluate(RecurrentLearner(identity(2), 2, 4), blobs(shots=0), tasks=16)


def test_an_episode_instead_of_its_element_raises():
    with pytest.raises(ValueError, match="A learner takes"):
        RecurrentLearner(identity(2), 3, 4)(tuple(random_episode()))
