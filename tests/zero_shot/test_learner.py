"""What all zero-shot learners do alike, each test with every one of them."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.zero_shot import DAP, ESZSL, DescribedPrototypes, DeViSE, ZeroShotLearner
from tests.few_shot.tasks import identity
from tests.zero_shot.tasks import (
    BITS,
    EVEN,
    KINDS,
    ODD,
    built,
    drawings,
    fitted,
    random_tasks,
    ready,
    unseen_accuracy,
)

TRAINED = [DeViSE, DescribedPrototypes]
every = pytest.mark.parametrize("kind", KINDS)
trained = pytest.mark.parametrize("kind", TRAINED)
right_and_wrong = pytest.mark.parametrize("right", [True, False])


def ignoring_labels(kind):
    class IgnoringLabels(kind):
        """Wrong: row k describes class k, whatever the labels say."""

        def summarize(self, signatures, labels):
            return self.class_vectors(tf.cast(signatures, self.compute_dtype))

    return IgnoringLabels


def with_softmax(kind):
    class WithSoftmax(kind):
        """Wrong: a score that depends on which other classes are described."""

        def answer(self, summary, queries):
            return tf.nn.softmax(super().answer(summary, queries))

    return WithSoftmax


def first_description(kind):
    class FirstDescription(kind):
        """Wrong: only the first description of a class counts."""

        def summarize(self, signatures, labels):
            first = tf.argmax(tf.one_hot(labels, tf.reduce_max(labels) + 1), axis=1)
            rows = tf.gather(signatures, first, batch_dims=1)
            return self.class_vectors(tf.cast(rows, self.compute_dtype))

    return FirstDescription


def version(kind, right, wrong):
    """A learner of the right kind or of its wrong version, able to answer."""
    return ready(kind) if right else ready(wrong(kind), base=kind)


def one_at_a_time(learner, inputs):
    """The scores ``(tasks, Q, N)`` by ``adapt``."""
    return np.stack([learner.adapt(a, y)(x) for a, y, x in zip(*inputs, strict=True)])


# ---------------------------------------------------------------- what the equation implies


@every
@right_and_wrong
def test_a_score_depends_on_the_class_s_own_description(float64, kind, right):
    """eq-zero-shot: F(x, a_k) is the same alone and beside any other classes."""
    learner, (signatures, _, query_x) = version(kind, right, with_softmax), random_tasks()
    together = learner.adapt(signatures[0])(query_x[0]).numpy()
    alone = [learner.adapt(signatures[0][k : k + 1])(query_x[0])[:, 0] for k in range(4)]
    difference = np.abs(together - np.transpose(alone)).max()
    assert difference < 1e-12 if right else difference > 1e-2


@every
@right_and_wrong
def test_the_order_of_the_descriptions_does_not_matter(float64, kind, right):
    """eq-zero-shot: rows and labels permuted alike; labels alone rename the scores."""
    learner, (signatures, _, query_x) = version(kind, right, ignoring_labels), random_tasks()
    order = [2, 0, 3, 1]
    before = learner.adapt(signatures[0])(query_x[0]).numpy()
    after = learner.adapt(tf.gather(signatures[0], order), order)(query_x[0])
    renamed = learner.adapt(signatures[0], order)(query_x[0]).numpy()
    differences = np.abs(after - before).max(), np.abs(renamed[:, order] - before).max()
    assert max(differences) < 1e-12 if right else min(differences) > 1e-2


@every
def test_without_labels_row_k_describes_class_k(kind):
    """Negative control: other labels."""
    learner, (signatures, _, query_x) = ready(kind), random_tasks()
    found = learner.adapt(signatures[0])(query_x[0])
    np.testing.assert_array_equal(learner.adapt(signatures[0], range(4))(query_x[0]), found)
    other = learner.adapt(signatures[0], [1, 2, 3, 0])(query_x[0])
    assert np.abs(other - found).max() > 1e-2


@every
@right_and_wrong
def test_without_knowing_which_description_is_whose_it_is_chance(kind, right):
    """eq-zero-shot: of all 4! dealings of the labels 1/4 is right, exactly, for every query."""
    learner, (signatures, _, query_x) = version(kind, right, ignoring_labels), random_tasks()
    dealings = np.array(list(itertools.permutations(range(4))))
    rows, queries = (tf.repeat(x[:1], len(dealings), axis=0) for x in (signatures, query_x))
    chosen = np.argmax(learner((rows, dealings, queries)), axis=2)
    for label in range(4):
        shares = (chosen == label).mean(axis=0)
        assert (shares == 1 / 4).all() if right else not (shares == 1 / 4).any()


@every
@pytest.mark.parametrize("same", [True, False])
def test_equal_descriptions_say_nothing(float64, kind, same):
    """eq-zero-shot: classes described alike score alike.  Negative control: different ones."""
    signatures, _, query_x = random_tasks()
    rows = tf.repeat(signatures[0][:1], 4, axis=0) if same else signatures[0]
    spread = np.ptp(ready(kind).adapt(rows)(query_x[0]), axis=1)
    assert spread.max() < 1e-12 if same else spread.min() > 1e-2


@pytest.mark.parametrize("kind", [ESZSL, DeViSE, DescribedPrototypes])
@right_and_wrong
def test_descriptions_of_one_class_are_averaged(float64, kind, right):
    """(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 0, 0) of one class are (1/3, 1/3, 0, 2/3) once."""
    learner = version(kind, right, first_description)
    rows = tf.constant([[1.0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]], tf.float64)
    once = tf.constant([[1 / 3, 1 / 3, 0, 2 / 3], [0, 0, 1, 0]], tf.float64)
    query_x = random_tasks()[2][0]
    found = learner.adapt(rows, [0, 1, 0, 0])(query_x)
    difference = np.abs(found - learner.adapt(once)(query_x)).max()
    assert difference < 1e-12 if right else difference > 1e-2


def test_dap_averages_descriptions_that_agree():
    """Where two descriptions of a class differ, an attribute is neither there nor not."""
    learner, query_x = ready(DAP), random_tasks()[2][0]
    found = learner.adapt(EVEN[[1, 2, 1]], [0, 1, 0])(query_x)
    np.testing.assert_allclose(found, learner.adapt(EVEN[[1, 2]])(query_x), rtol=1e-6)
    with pytest.raises(ValueError, match=r"0 or 1, got 0\.5"):
        learner.adapt(EVEN[[1, 2, 3]], [0, 1, 0])


# ---------------------------------------------------------------- one task, and many


@every
@right_and_wrong
def test_a_batch_equals_one_task_at_a_time(float64, kind, right):
    """Negative control: the next task's labels."""
    learner, (signatures, labels, query_x) = ready(kind), random_tasks()
    expected = one_at_a_time(learner, (signatures, labels, query_x))
    assert expected.shape == (3, 5, 4)
    found = learner((signatures, labels if right else labels[::-1], query_x))
    difference = np.abs(found - expected).max()
    assert difference < 1e-12 if right else difference > 1e-2


@every
@pytest.mark.parametrize("ways, queries", [(1, 1), (1, 4), (4, 1)])
def test_a_single_class_or_query(kind, ways, queries):
    learner, inputs = ready(kind), random_tasks(ways=ways, queries=queries)
    found = learner(inputs)
    assert found.shape == (3, queries, ways)
    np.testing.assert_allclose(found, one_at_a_time(learner, inputs), rtol=1e-4, atol=1e-5)


@every
def test_shapes_unknown_to_the_graph(kind):
    learner, inputs = ready(kind), random_tasks()
    vectors, labels = tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.int64)
    in_graph = tf.function(lambda *task: learner(task), input_signature=[vectors, labels, vectors])
    expected = one_at_a_time(learner, inputs)
    np.testing.assert_allclose(in_graph(*inputs), expected, rtol=1e-4, atol=1e-5)


@every
def test_embeddings_of_more_axes_are_flattened(kind):
    """An image (2, 2, 1) is its four numbers, row by row."""
    signatures, labels, query_x = random_tasks()
    images = tf.reshape(query_x, (3, 5, 2, 2, 1))
    encoder = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Identity()])
    vectors, pictures = ready(kind), built(kind, encoder)
    pictures.set_weights(vectors.get_weights())
    found = pictures((signatures, labels, images))
    np.testing.assert_allclose(found, vectors((signatures, labels, query_x)), rtol=1e-5)


# ---------------------------------------------------------------- scores and controls


@every
def test_on_unseen_classes_beside_the_shuffled_control(kind):
    """eq-zero-shot learned on even signatures, asked for odd ones.

    With shuffled labels it is at 1/4, up to four standard errors.
    """
    score = unseen_accuracy(fitted(kind))
    new = drawings(ODD, seed=1).episodes(4, meta_batch=50, seed=1)
    controls = mlutils.controls(fitted(kind), new, tasks=200)
    assert list(controls) == ["shuffled support labels"]
    shuffled = controls["shuffled support labels"]
    assert abs(shuffled.mean - 1 / 4) < 4 * shuffled.ci95 / 1.96
    assert shuffled.ci95 < 0.05
    assert score.mean > 0.9


@every
def test_evaluate_counts_what_adapt_gets_right(kind):
    inputs, query_y = element = next(iter(drawings(ODD, seed=1).episodes(4, meta_batch=8)))
    score = mlutils.evaluate(fitted(kind), [element], tasks=8)
    right = np.argmax(one_at_a_time(fitted(kind), inputs), axis=2) == query_y.numpy()
    np.testing.assert_allclose(score.values, right.mean(axis=1))
    assert score.percent


# ---------------------------------------------------------------- fit


@trained
@right_and_wrong
def test_fit_on_examples_minimises_the_loss_against_all_seen_classes(kind, right):
    """eq-zero-shot in training.  Negative control: the descriptions in another order."""
    learner, y = ready(kind), np.repeat(np.arange(8), 5)
    learner.optimizer.learning_rate = 0.0
    x = EVEN[y] + np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    logged = learner.fit(x, y, EVEN, batch_size=40, verbose=0).history["loss"][0]
    rows = EVEN if right else EVEN[::-1]
    task = (rows[np.newaxis], np.arange(8)[np.newaxis], x[np.newaxis]), y[np.newaxis]
    difference = abs(float(learner.meta_loss(task)) - logged)
    assert difference < 1e-5 if right else difference > 1e-2


@trained
def test_fit_on_examples_takes_whole_batches(kind):
    """Forty examples are two batches of sixteen, in each of two epochs, and eight that wait.

    A batch is one task: a smaller one would weigh as much.
    """
    learner, y = built(kind), np.repeat(np.arange(8), 5)
    history = learner.fit(EVEN[y], y, EVEN, batch_size=16, epochs=2, verbose=0)
    assert int(learner.optimizer.iterations) == 4
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize("kind", [DAP, ESZSL])
def test_fit_returns_the_learner_and_leaves_the_encoder(kind):
    encoder, y = mlutils.mlp(4, (), 3), np.repeat(np.arange(8), 5)
    learner, before = built(kind, encoder), [np.array(w) for w in encoder.get_weights()]
    assert learner.fit(EVEN[y], y, EVEN) is learner
    for found, weights in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, weights)


@every
def test_many_inputs_are_embedded_in_parts(kind):
    """All 2001, in order, as float64."""
    x = np.random.default_rng(0).normal(size=(2001, 2, 2, 1)).astype(np.float32)
    found = built(kind, pixels_doubled()).features(x)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, 2 * x.reshape(2001, 4))


def pixels_doubled():
    return keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Rescaling(2.0)])


# ---------------------------------------------------------------- saving


OPTIONS = {DAP: {"C": 3.0}, ESZSL: {"gamma": 2.0, "lam": 5.0}, DescribedPrototypes: {"scale": 0.5}}


@every
def test_saved_and_loaded(tmp_path, kind):
    """Fitted, with the same answers.  Negative control: its configuration alone, other weights."""
    fitted(kind).save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    inputs, _ = next(iter(drawings(ODD, seed=1).episodes(4, meta_batch=2)))
    expected = fitted(kind)(inputs)
    assert type(loaded) is kind
    np.testing.assert_array_equal(loaded(inputs), expected)
    new = kind.from_config(fitted(kind).get_config())
    new.set_weights([np.full_like(w, 0.5) for w in new.get_weights()])
    assert np.abs(new(inputs) - expected).max() > 1e-2


@pytest.mark.parametrize("kind", OPTIONS)
def test_saved_and_loaded_with_its_options(tmp_path, kind):
    built(kind, **OPTIONS[kind]).save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.attributes == 4
    for name, value in OPTIONS[kind].items():
        assert getattr(loaded, name) == value != getattr(built(kind), name)


@pytest.mark.parametrize("kind", [DAP, ESZSL])
def test_saved_before_fit_it_has_still_to_be_fitted(tmp_path, kind):
    built(kind).save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    with pytest.raises(ValueError, match=f"This {kind.__name__} has still to be fitted"):
        loaded.adapt(ODD)


# ---------------------------------------------------------------- wrong input


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


Y = np.repeat(np.arange(8), 3)
X = EVEN[Y]


@every
@pytest.mark.parametrize(
    "x, y, signatures, words",
    [
        (X, changed(Y, 0, 8), EVEN, r"examples of classes \[8\], and 8 signatures, .* 0 to 7"),
        (X, changed(Y, 5, -1), EVEN, r"examples of classes \[-1\]"),
        (X, Y, BITS, r"Classes \[8, .*15\] have a signature and no example"),
        (X[Y != 3], Y[Y != 3], EVEN, r"Classes \[3\] have a signature and no example: .* leak"),
        (X, Y, changed(EVEN, np.s_[:, 2], 1), r"Attributes \[2\] are the same for all 8 classes"),
        (X[:3], Y[:3], EVEN[:1], r"Attributes \[0, 1, 2, 3\] are the same for all 1 classes"),
        (X, Y, changed(EVEN, (5, 1), np.nan), "Attribute 1 of signature 5 is missing: it is nan"),
        (X, Y, changed(EVEN, (0, 3), -np.inf), "Attribute 3 of signature 0 is missing: .* -inf"),
        (X, Y, EVEN[:, :3], r"signatures have shape \(8, 3\); this learner takes \(N, 4\)"),
        (X, Y, EVEN[0], r"signatures have shape \(4,\); this learner takes \(N, 4\)"),
        (X, Y, EVEN[np.newaxis], r"signatures have shape \(1, 8, 4\)"),
        (X, Y.astype(float), EVEN, r"y must be one integer class per example; .* float64 \(24,\)"),
        (X, Y[:, np.newaxis], EVEN, r"y must be one integer class .* int\d+ \(24, 1\)"),
        (X, np.eye(8)[Y], EVEN, r"y must be one integer class .* float64 \(24, 8\)"),
        (X[1:], Y, EVEN, r"x of shape \(23, 4\) and y of int\d+ \(24,\)"),
        (X, Y.astype(str), EVEN, "y must be one integer class"),
    ],
)
def test_wrong_examples_raise(kind, x, y, signatures, words):
    with pytest.raises(ValueError, match=words):
        built(kind).fit(x, y, signatures)


@every
@pytest.mark.parametrize(
    "signatures, labels, words",
    [
        (ODD[:, :3], None, r"signatures have shape \(8, 3\); this learner takes \(N, 4\)"),
        (ODD[0], None, r"signatures have shape \(4,\)"),
        (ODD[np.newaxis], None, r"signatures have shape \(1, 8, 4\)"),
        (np.float32(1), None, r"signatures have shape \(\)"),
        (changed(ODD, (2, 3), np.nan), None, "Attribute 3 of signature 2 is missing: it is nan"),
        (changed(ODD, (0, 0), np.inf), None, "Attribute 0 of signature 0 is missing: it is inf"),
        (ODD[:0], None, r"a row of 4 attributes for each class"),
        (ODD, np.arange(7), r"support_y \(7,\); the first axis"),
        (ODD[:3], np.array([0, 1, 3]), "every class, labelled 0..N-1"),
        (ODD[:3], np.array([1, 2, 3]), "every class, labelled 0..N-1"),
        (ODD[:3], np.array([-1, 0, 1]), "every class, labelled 0..N-1"),
        (ODD[:3], np.array([0.0, 1.0, 2.0]), "integer labels"),
        (ODD[:3], np.array([[0], [1], [2]]), "integer labels"),
    ],
)
def test_wrong_descriptions_raise(kind, signatures, labels, words):
    """In ``adapt``, and eagerly in a batch."""
    learner = ready(kind)
    with pytest.raises(ValueError, match=words):
        learner.adapt(signatures, labels)
    if labels is None and np.ndim(signatures) == 2 and len(signatures):
        rows = tf.constant(signatures)[tf.newaxis]
        with pytest.raises(ValueError, match=words):
            learner((rows, tf.range(len(signatures))[tf.newaxis], tf.zeros((1, 2, 4))))


@every
@pytest.mark.parametrize(
    "encoder, error, words",
    [
        (lambda: "conv4", TypeError, "encoder must be a keras.Model, got str"),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), ValueError, "encoder .* no weights"),
        (
            lambda: keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()]),
            ValueError,
            "The encoder holds .* mlutils.BatchNorm",
        ),
        (
            lambda: keras.Sequential([keras.Input((None, 4)), keras.layers.Conv1D(2, 3)]),
            ValueError,
            "must have a known length",
        ),
    ],
)
def test_wrong_encoder_raises(kind, encoder, error, words):
    with pytest.raises(error, match=words):
        built(kind, encoder())


@pytest.mark.parametrize("kind", [DAP, ESZSL, DeViSE])
@pytest.mark.parametrize("attributes", [0, -1, 2.0, "4", True, None])
def test_a_wrong_number_of_attributes_raises(kind, attributes):
    with pytest.raises(ValueError, match="attributes must be an integer of at least 1, got"):
        kind(identity(4), attributes)


@pytest.mark.parametrize("kind", [DAP, ESZSL])
def test_adapt_before_fit_raises(kind):
    """And so does a batch; fitted it does not."""
    learner, inputs = built(kind), random_tasks()
    words = rf"This {kind.__name__} has still to be fitted: call fit\(x, y, signatures\)"
    for unfitted in (lambda: learner.adapt(ODD), lambda: learner(inputs)):
        with pytest.raises(ValueError, match=words):
            unfitted()
    learner.fit(X, Y, EVEN)
    assert np.isfinite(learner.adapt(ODD)(X)).all()


@every
def test_without_a_description_there_is_no_prediction(kind):
    with pytest.raises(NotImplementedError, match="no prediction without a support set"):
        ready(kind).unadapted()


def test_a_subclass_defines_what_stands_for_a_class():
    with pytest.raises(NotImplementedError, match="ZeroShotLearner does not define class_vectors"):
        ZeroShotLearner(identity(4), 4).adapt(ODD)


# ---------------------------------------------------------------- what is checked where


@every
def test_yes_and_no_may_be_bools(kind):
    built(kind).fit(X, Y, EVEN.astype(bool))


@every
def test_bytes_raise(kind):
    """Episodes give 0..1: a learner fitted on 0..255 would be tested on something else."""
    with pytest.raises(ValueError, match="divide by 255"):
        built(kind).fit((255 * X).astype(np.uint8), Y, EVEN)


@trained
def test_the_batch_size_of_episodes_is_kept(kind):
    learner, (a, labels, x) = built(kind), random_tasks(tasks=64)
    learner.fit((a, labels, x), np.zeros((64, 5), int), batch_size=8, verbose=0)
    assert int(learner.optimizer.iterations) == 8


@pytest.mark.parametrize("kind", [DAP, ESZSL])
def test_missing_inputs_raise(kind):
    with pytest.raises(ValueError, match="example 3 is not finite"):
        built(kind).fit(changed(X, (3, 0), np.nan), Y, EVEN)


@every
def test_every_task_is_checked(kind):
    a, labels, x = random_tasks()
    with pytest.raises(ValueError, match="Attribute 0 of signature 0 is missing"):
        ready(kind)((changed(a, (1, 0, 0), np.nan), labels, x))


@pytest.mark.parametrize("kind", [DAP, ESZSL])
def test_an_unfitted_learner_is_not_scored(kind):
    """Inside evaluate's graph too: not 0 %, but an error."""
    element = random_tasks(tasks=2), np.zeros((2, 5), int)
    with pytest.raises(ValueError, match="has still to be fitted"):
        mlutils.evaluate(built(kind), [element], tasks=2)


@pytest.mark.parametrize("kind", [DAP, ESZSL])
def test_missing_attributes_are_not_scored(kind):
    """Inside evaluate's graph TensorFlow says so."""
    a, labels, x = random_tasks(tasks=2)
    element = (changed(a, (1, 0, 0), np.nan), labels, x), np.zeros((2, 5), int)
    with pytest.raises(tf.errors.InvalidArgumentError, match="attribute"):
        mlutils.evaluate(ready(kind), [element], tasks=2)


def test_attributes_of_halves_are_not_scored_by_dap():
    a, labels, x = random_tasks(tasks=2)
    element = (np.full_like(a, 0.5), labels, x), np.zeros((2, 5), int)
    with pytest.raises(tf.errors.InvalidArgumentError, match="DAP takes attributes"):
        mlutils.evaluate(ready(DAP), [element], tasks=2)


@every
def test_queries_of_bytes_raise(kind):
    a, labels, x = random_tasks()
    with pytest.raises(ValueError, match="divide by 255"):
        ready(kind).adapt(a[0], labels[0])(tf.cast(x[0], tf.uint8))
    with pytest.raises(ValueError, match="divide by 255"):
        ready(kind)((a, labels, tf.cast(x, tf.uint8)))


@trained
@pytest.mark.parametrize("options", [{"class_weight": {0: 2.0}}, {"sample_weight": np.ones(24)}])
def test_weights_raise(kind, options):
    with pytest.raises(ValueError, match="With signatures fit knows no"):
        built(kind).fit(X, Y, EVEN, **options)


@trained
def test_wrong_batch_sizes_raise(kind):
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        built(kind).fit(X, Y, EVEN, batch_size=0)


@every
def test_saved_in_double_precision_and_loaded_in_single(kind, tmp_path, float64):
    a, labels, x = random_tasks()
    learner = ready(kind)
    learner.save(tmp_path / "learner.keras")
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    again = keras.saving.load_model(tmp_path / "learner.keras")
    np.testing.assert_allclose(again((a, labels, x)), learner((a, labels, x)), rtol=1e-4, atol=1e-4)


@keras.saving.register_keras_serializable(package="tests")
class Matching(ZeroShotLearner):
    """The smallest zero-shot learner: signatures are class vectors."""

    def class_vectors(self, signatures):
        return signatures


def test_a_learner_of_ones_own_is_saved(tmp_path):
    a, labels, x = random_tasks()
    learner = Matching(identity(4), 4)
    learner.save(tmp_path / "learner.keras")
    again = keras.saving.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(again((a, labels, x)), learner((a, labels, x)))
