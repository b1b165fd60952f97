"""What is peculiar to zero-shot learners, beyond ``tests/contract``: descriptions for examples."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.zero_shot import (
    DAP,
    ESZSL,
    DescribedPrototypes,
    DeViSE,
    HingeRankLoss,
    ZeroShotLearner,
)
from tests.few_shot.tasks import identity
from tests.zero_shot.tasks import (
    BITS,
    EVEN,
    KINDS,
    ODD,
    built,
    fitted,
    pixels,
    random_tasks,
    ready,
    unseen_accuracy,
    unseen_tasks,
)

every = pytest.mark.parametrize("kind", KINDS)
trained = pytest.mark.parametrize("kind", [DeViSE, DescribedPrototypes])
in_closed_form = pytest.mark.parametrize("kind", [DAP, ESZSL])


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


def right_and_wrong(kind, wrong):
    """A learner and its wrong version, both able to answer."""
    return (ready(kind), True), (ready(wrong(kind), base=kind), False)


# ---------------------------------------------------------------- what the equation implies


@every
def test_a_score_depends_on_the_class_s_own_description(float64, kind):
    """eq-zero-shot: F(x, a_k) is the same alone and beside any other classes."""
    signatures, _, query_x = (x[0] for x in random_tasks())
    for learner, right in right_and_wrong(kind, with_softmax):
        together = learner.adapt(signatures)(query_x).numpy()
        alone = [learner.adapt(signatures[k : k + 1])(query_x)[:, 0] for k in range(4)]
        difference = np.abs(together - np.transpose(alone)).max()
        assert difference < 1e-12 if right else difference > 1e-2


@every
def test_labels_say_which_class_a_row_describes(float64, kind):
    """eq-zero-shot: rows and labels permuted alike; labels alone rename the scores.

    Without labels row k describes class k.
    """
    (signatures, _, query_x), order = (x[0] for x in random_tasks()), [2, 0, 3, 1]
    for learner, right in right_and_wrong(kind, ignoring_labels):
        before = learner.adapt(signatures)(query_x).numpy()
        after = learner.adapt(tf.gather(signatures, order), order)(query_x)
        renamed = learner.adapt(signatures, order)(query_x).numpy()
        differences = np.abs(after - before).max(), np.abs(renamed[:, order] - before).max()
        assert max(differences) < 1e-12 if right else min(differences) > 1e-2
        np.testing.assert_array_equal(learner.adapt(signatures, range(4))(query_x), before)


@every
def test_without_knowing_which_description_is_whose_it_is_chance(kind):
    """eq-zero-shot: of all 4! dealings of the labels 1/4 is right, exactly, for every query."""
    dealings = np.array(list(itertools.permutations(range(4))))
    signatures, _, query_x = random_tasks()
    rows, queries = (tf.repeat(x[:1], len(dealings), axis=0) for x in (signatures, query_x))
    for learner, right in right_and_wrong(kind, ignoring_labels):
        chosen = np.argmax(learner((rows, dealings, queries)), axis=2)
        for label in range(4):
            shares = (chosen == label).mean(axis=0)
            assert (shares == 1 / 4).all() if right else not (shares == 1 / 4).any()


@every
def test_equal_descriptions_say_nothing(float64, kind):
    """eq-zero-shot: classes described alike score alike.  Negative control: different ones."""
    signatures, _, query_x = (x[0] for x in random_tasks())
    spreads = [
        np.ptp(ready(kind).adapt(rows)(query_x), axis=1)
        for rows in (tf.repeat(signatures[:1], 4, axis=0), signatures)
    ]
    assert spreads[0].max() < 1e-12 and spreads[1].min() > 1e-2


@pytest.mark.parametrize("kind", [ESZSL, DeViSE, DescribedPrototypes])
def test_descriptions_of_one_class_are_averaged(float64, kind):
    """(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 0, 0) of one class are (1/3, 1/3, 0, 2/3) once."""
    rows = tf.constant([[1.0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]], tf.float64)
    once = tf.constant([[1 / 3, 1 / 3, 0, 2 / 3], [0, 0, 1, 0]], tf.float64)
    query_x = random_tasks()[2][0]
    for learner, right in right_and_wrong(kind, first_description):
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


# ---------------------------------------------------------------- fit


@every
def test_unseen_classes_beside_the_controls(kind):
    """eq-zero-shot, by eq-hinge-rank and eq-described-prototype too: learned on even signatures,
    asked for odd ones.

    Learned from labels drawn by lot they are not recognised; with shuffled labels in the support
    set it is at 1/4, up to four standard errors.
    """
    assert unseen_accuracy(fitted(kind)).mean > 0.9
    assert unseen_accuracy(fitted(kind, by_lot=True)).mean < 0.8
    controls = mlutils.controls(fitted(kind), unseen_tasks(), tasks=200)
    assert list(controls) == ["shuffled support labels"]
    shuffled = controls["shuffled support labels"]
    assert abs(shuffled.mean - 1 / 4) < 4 * shuffled.ci95 / 1.96
    assert shuffled.ci95 < 0.05


@trained
def test_fit_on_examples_minimises_the_loss_against_all_seen_classes(kind):
    """eq-zero-shot in training.  Negative control: the descriptions in another order."""
    learner, y = ready(kind), np.repeat(np.arange(8), 5)
    learner.optimizer.learning_rate = 0.0
    x = EVEN[y] + np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    logged = learner.fit(x, y, EVEN, batch_size=40, verbose=0).history["loss"][0]
    for rows, right in ((EVEN, True), (EVEN[::-1], False)):
        task = (rows[np.newaxis], np.arange(8)[np.newaxis], x[np.newaxis]), y[np.newaxis]
        difference = abs(float(learner.meta_loss(task)) - logged)
        assert difference < 1e-5 if right else difference > 1e-2


def test_fit_on_examples_takes_whole_batches():
    """Forty examples are two batches of sixteen, in each of two epochs, and eight that wait.

    A batch is one task: a smaller one would weigh as much.  Of episodes ``fit`` is Keras's.
    """
    learner, y = built(DeViSE), np.repeat(np.arange(8), 5)
    history = learner.fit(EVEN[y], y, EVEN, batch_size=16, epochs=2, verbose=0)
    assert int(learner.optimizer.iterations) == 4
    assert len(history.history["loss"]) == 2
    learner.fit(random_tasks(tasks=64), np.zeros((64, 5), int), batch_size=8, verbose=0)
    assert int(learner.optimizer.iterations) == 4 + 8


@in_closed_form
def test_fit_returns_the_learner_and_leaves_the_encoder(kind):
    encoder, y = mlutils.mlp(4, (), 3), np.repeat(np.arange(8), 5)
    learner, before = built(kind, encoder), [np.array(w) for w in encoder.get_weights()]
    assert learner.fit(EVEN[y], y, EVEN.astype(bool)) is learner  # yes and no may be bools
    for found, weights in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, weights)


def test_many_inputs_are_embedded_in_parts():
    """All 2001, in order, as float64."""
    x = np.random.default_rng(0).normal(size=(2001, 2, 2, 1)).astype(np.float32)
    found = built(ESZSL, pixels()).features(x)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, 2 * x.reshape(2001, 4) - 1)


# ---------------------------------------------------------------- saving


OPTIONS = {DAP: {"C": 3.0}, ESZSL: {"gamma": 2.0, "lam": 5.0}, DescribedPrototypes: {"scale": 0.5}}


@pytest.mark.parametrize("kind", OPTIONS)
def test_its_options_are_saved(kind):
    again = kind.from_config(built(kind, **OPTIONS[kind]).get_config())
    assert again.attributes == 4
    for name, value in OPTIONS[kind].items():
        assert getattr(again, name) == value != getattr(built(kind), name)


@in_closed_form
def test_it_has_to_be_fitted_first(tmp_path, kind):
    """In ``adapt``, in a batch, inside evaluate's graph (not 0 %, but an error), when loaded."""
    learner, inputs = built(kind), random_tasks(tasks=2)
    learner.save(tmp_path / "learner.keras")
    loaded, element = (
        keras.models.load_model(tmp_path / "learner.keras"),
        (inputs, np.zeros((2, 5), int)),
    )
    words = rf"This {kind.__name__} has still to be fitted: call fit\(x, y, signatures\)"
    for unfitted in (
        lambda: learner.adapt(ODD),
        lambda: learner(inputs),
        lambda: mlutils.evaluate(learner, [element], tasks=2),
        lambda: loaded.adapt(ODD),
    ):
        with pytest.raises(ValueError, match=words):
            unfitted()
    learner.fit(X, Y, EVEN)
    assert np.isfinite(learner.adapt(ODD)(X)).all()


@pytest.mark.parametrize("kind", [ESZSL, DeViSE])
def test_saved_in_double_precision_and_loaded_in_single(kind, tmp_path, float64):
    inputs, learner = random_tasks(), ready(kind)
    learner.save(tmp_path / "learner.keras")
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    again = keras.saving.load_model(tmp_path / "learner.keras")
    np.testing.assert_allclose(again(inputs), learner(inputs), rtol=1e-4, atol=1e-4)


@keras.saving.register_keras_serializable(package="tests")
class Matching(ZeroShotLearner):
    """The smallest zero-shot learner: signatures are class vectors."""

    def class_vectors(self, signatures):
        return signatures


def test_a_learner_of_ones_own_is_saved(tmp_path):
    inputs, learner = random_tasks(), Matching(identity(4), 4)
    learner.save(tmp_path / "learner.keras")
    again = keras.saving.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(again(inputs), learner(inputs))
    with pytest.raises(NotImplementedError, match="ZeroShotLearner does not define class_vectors"):
        ZeroShotLearner(identity(4), 4).adapt(ODD)


# ---------------------------------------------------------------- wrong input


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


Y = np.repeat(np.arange(8), 3)
X = EVEN[Y]
TAKES = r"; this learner takes \(N, 4\)"
FLAT = r"Attributes \[{}\] are the same for all {} classes"


@pytest.mark.parametrize(
    "kind, x, y, signatures, words",
    [
        (DAP, X, changed(Y, 0, 8), EVEN, r"examples of classes \[8\], and 8 signatures, .* 0 to 7"),
        (ESZSL, X, changed(Y, 5, -1), EVEN, r"examples of classes \[-1\]"),
        (DeViSE, X, Y, BITS, r"Classes \[8, .*15\] have a signature and no example: .* leak"),
        (DescribedPrototypes, X, Y, changed(EVEN, np.s_[:, 2], 1), FLAT.format(2, 8)),
        (DAP, X[:3], Y[:3], EVEN[:1], FLAT.format("0, 1, 2, 3", 1)),
        (
            ESZSL,
            X,
            Y,
            changed(EVEN, (5, 1), np.nan),
            r"signatures must .* \(5, 1\) it holds nan",
        ),
        (DeViSE, X, Y, EVEN[:, :3], r"signatures have shape \(8, 3\)" + TAKES),
        (DescribedPrototypes, X, Y, EVEN[np.newaxis], r"signatures have shape \(1, 8, 4\)"),
        (DAP, X, Y.astype(float), EVEN, r"y must be one integer class per .* float64 \(24,\)"),
        (ESZSL, X, np.eye(8)[Y], EVEN, r"y must be one integer class .* float64 \(24, 8\)"),
        (DeViSE, X[1:], Y, EVEN, r"x of shape \(23, 4\) and y of int\d+ \(24,\)"),
        (DAP, changed(X, (3, 0), np.nan), Y, EVEN, r"finite .* \(3, 0\) it holds nan"),
        (ESZSL, changed(X, (3, 0), np.nan), Y, EVEN, r"finite .* \(3, 0\) it holds nan"),
    ],
)
def test_wrong_examples_raise(kind, x, y, signatures, words):
    with pytest.raises(ValueError, match=words):
        built(kind).fit(x, y, signatures)


@pytest.mark.parametrize(
    "kind, signatures, labels, words",
    [
        (DAP, ODD[:, :3], None, r"signatures have shape \(8, 3\)" + TAKES),
        (ESZSL, ODD[0], None, r"signatures have shape \(4,\)" + TAKES),
        (DeViSE, np.float32(1), None, r"signatures has shape \(\)"),
        (
            DAP,
            changed(ODD, (2, 3), np.nan),
            None,
            r"signatures must .*2, 3\) it holds nan",
        ),
        (
            ESZSL,
            changed(ODD, (0, 0), np.inf),
            None,
            r"signatures must .*0, 0\) it holds inf",
        ),
        (DescribedPrototypes, ODD[:0], None, r"signatures has shape \(0, 4\)"),
        (DeViSE, ODD, np.arange(7), r"labels \(7,\); allowed are"),
        (DescribedPrototypes, ODD[:3], np.array([0, 1, 3]), "every class, labelled 0..N-1"),
        (DAP, ODD[:3], np.array([0.0, 1.0, 2.0]), "integer labels"),
    ],
)
def test_wrong_descriptions_raise(kind, signatures, labels, words):
    """In ``adapt``, and eagerly in a batch, where every task is checked."""
    learner = ready(kind)
    with pytest.raises(ValueError, match=words):
        learner.adapt(signatures, labels)
    if labels is None and np.ndim(signatures) == 2 and len(signatures):
        rows = tf.constant(np.stack([signatures] * 2))
        with pytest.raises(ValueError, match=words):
            learner((rows, np.tile(np.arange(len(signatures)), (2, 1)), tf.zeros((2, 2, 4))))


@pytest.mark.parametrize("value, words", [(np.nan, "signatures"), (0.5, "DAP takes attributes")])
def test_wrong_descriptions_are_not_scored(value, words):
    a, labels, x = random_tasks(tasks=2)
    element = (changed(a, (1, 0, 0), value), labels, x), np.zeros((2, 5), int)
    with pytest.raises(ValueError, match=words):
        mlutils.evaluate(ready(DAP), [element], tasks=2)


@every
def test_bytes_are_pictures_among_queries_and_numbers_among_attributes(kind):
    (a, labels, x), learner = random_tasks(), ready(kind)
    a, pixels = tf.cast(a > 0, tf.float32), tf.cast(100 + 20 * x, tf.uint8)
    expected = learner((a, labels, tf.cast(pixels, tf.float32) / 255))
    np.testing.assert_allclose(learner((tf.cast(a, tf.uint8), labels, pixels)), expected, rtol=1e-5)
    alone = learner.adapt(tf.cast(a[0], tf.uint8), labels[0])(pixels[0])
    np.testing.assert_allclose(alone, expected[0], rtol=1e-4, atol=1e-5)


@trained
def test_wrong_options_of_fit_raise(kind):
    for options in ({"class_weight": {0: 2.0}}, {"sample_weight": np.ones(24)}):
        with pytest.raises(ValueError, match="With signatures fit knows no"):
            built(kind).fit(X, Y, EVEN, **options)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        built(kind).fit(X, Y, EVEN, batch_size=0)
    uncompiled = DeViSE(identity(4), 4)
    with pytest.raises(ValueError, match="compile"):
        uncompiled.fit(X, Y, EVEN)


class Subclassed(keras.Model):
    """A network that knows neither the shape of its inputs nor that of its outputs."""

    def __init__(self):
        super().__init__()
        self.built = True


def describe(*layers, shape=(4,)):
    """With an encoder of embeddings of length 2."""
    return DescribedPrototypes(identity(2), keras.Sequential([keras.Input(shape), *layers]))


def two_outputs():
    x = keras.Input((4,))
    return keras.Model(x, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)])


FITS = r"; with this encoder it must be \(batch, 2\)"
MAPS = r"describer must map signatures \(batch, attributes\) .* it maps"


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: DeViSE(identity(4), 0), "attributes must be an integer of at least 1, got 0"),
        (lambda: built(DAP, C=0), "C must be a finite positive number, got 0"),
        (lambda: built(ESZSL, gamma=-1.0), "gamma must be a finite positive number, got -1"),
        (lambda: built(ESZSL, lam=math.nan), "lam must be a finite positive number, got nan"),
        (lambda: HingeRankLoss(margin=0), "margin must be a finite positive number, got 0"),
        (lambda: built(DescribedPrototypes, scale="1"), "scale must be .* positive .* got '1'"),
        (lambda: DescribedPrototypes(identity(2), "mlp"), "describer must be .* got str"),
        (lambda: DescribedPrototypes(identity(2), keras.Sequential()), "describer .* no weights"),
        (lambda: DescribedPrototypes(identity(2), Subclassed()), MAPS + " None to None"),
        (
            lambda: DescribedPrototypes(identity(2), two_outputs()),
            "describer .* has several outputs",
        ),
        (lambda: describe(keras.layers.Dense(2), shape=(3, 4)), MAPS + r" \(None, 3, 4\) to"),
        (lambda: describe(keras.layers.Identity(), shape=(None,)), MAPS + r" \(None, None\) to"),
        (lambda: describe(keras.layers.Dense(3)), r"to \(None, 3\)" + FITS),
        (lambda: describe(keras.layers.Reshape((1, 4))), r"to \(None, 1, 4\)" + FITS),
        (lambda: describe(keras.layers.BatchNormalization()), "describer holds .*BatchNorm"),
    ],
)
def test_wrong_arguments_raise(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()
