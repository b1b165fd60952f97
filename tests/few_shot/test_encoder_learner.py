"""What few-shot learners do alike beyond ``tests/contract``: which examples meet, what fits."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import (
    MANN,
    ConditionalNeuralProcess,
    ContextTransformer,
    MatchingNetwork,
    PrototypicalNetwork,
    RecurrentLearner,
    RelationNetwork,
    SiameseNetwork,
)
from mlutils.few_shot.encoder_learner import EncoderLearner
from tests.few_shot.tasks import (
    blobs,
    compiled,
    identity,
    named_anew,
    one_at_a_time,
    one_task,
    predictions,
    random_episode,
    tanh_encoder,
)


def matching(encoder):
    """With a scale that lets it be certain."""
    return MatchingNetwork(encoder, scale=10.0)


def cosine(encoder):
    return PrototypicalNetwork(encoder, distance="cosine")


def relation(encoder):
    return RelationNetwork(encoder, mlutils.mlp(2 * encoder.output_shape[1], (16,)))


def recurrent(encoder, outputs=3):
    return RecurrentLearner(encoder, outputs, units=16)


def mann(encoder, outputs=3):
    return MANN(encoder, outputs, units=16, slots=6, width=4, heads=2)


def transformer(encoder, outputs=3):
    return ContextTransformer(encoder, outputs, units=16, heads=2, blocks=1)


COMPARING = [PrototypicalNetwork, cosine, matching, relation, SiameseNetwork]

# ---------------------------------------------------------------- which examples meet


def embed_tasks_together(self, x):
    """Wrong: all tasks as one batch of an encoder that normalises."""
    embeddings = self.encoder(tf.reshape(x, (-1, x.shape[2])), training=False)
    return tf.reshape(embeddings, (x.shape[0], x.shape[1], -1))


@pytest.mark.parametrize("together", [False, True])
def test_an_encoder_that_normalises_sees_one_set_of_one_task(float64, monkeypatch, together):
    layers = [keras.layers.Dense(4), mlutils.BatchNorm(), keras.layers.Dense(3, "tanh")]
    learner = PrototypicalNetwork(keras.Sequential([keras.Input((2,)), *layers]))
    inputs, _ = random_episode().element
    if together:
        monkeypatch.setattr(EncoderLearner, "embed", embed_tasks_together)
    error = np.abs(learner(inputs) - one_at_a_time(learner, inputs)).max()
    assert error > 1e-2 if together else error < 1e-12


@pytest.mark.parametrize("make", COMPARING)
def test_renaming_the_classes_renames_the_logits(float64, make):
    """Negative control: it changes them."""
    learner, task = make(tanh_encoder()), one_task()
    names = [2, 0, 1]  # class 0 is now called 2
    before = predictions(learner, task)
    after = predictions(learner, task._replace(support_y=tf.gather(names, task.support_y)))
    np.testing.assert_allclose(after[:, names], before, atol=1e-12)
    assert np.abs(after - before).max() > 1e-2


@pytest.mark.parametrize("make", COMPARING)
def test_inputs_and_labels_belong_together(float64, make):
    """The order of the pairs changes nothing.  Negative control: that of the inputs alone."""
    learner, task = make(tanh_encoder()), one_task()
    alone = task._replace(support_x=task.support_x[::-1])
    both, before = alone._replace(support_y=task.support_y[::-1]), predictions(learner, task)
    np.testing.assert_allclose(predictions(learner, both), before, atol=1e-12)
    assert np.abs(predictions(learner, alone) - before).max() > 1e-2


# ---------------------------------------------------------------- fit learns something


@functools.cache
def new_classes():
    """Tasks of new classes, always the same ones, as one batch."""
    return [next(iter(blobs(seed=1, meta_batch=200)))]


@pytest.mark.parametrize("make", [PrototypicalNetwork, matching])
def test_fit_learns_which_inputs_matter(make):
    """On new classes, with its 95 % interval; distances between the inputs know no better."""
    learner = compiled(make(mlutils.mlp(8, (16,), 2)), rate=2e-2)
    before = mlutils.evaluate(learner, new_classes(), tasks=200)
    learner.fit(blobs(), steps_per_epoch=120, verbose=0)
    after = mlutils.evaluate(learner, new_classes(), tasks=200)
    worse = before, mlutils.evaluate(make(identity(8)), new_classes(), tasks=200)
    for score in worse:
        difference = mlutils.Score(after.values - score.values)
        assert difference.mean > 0.1 + difference.ci95


@pytest.mark.parametrize("make", [recurrent, mann, transformer])
def test_fit_learns_to_read_the_labels(make):
    """The clouds' names change from task to task: who does not read them is right by halves.

    Three outputs and two classes: it learns that there is no third.
    """
    learner = compiled(make(identity(2)), rate=2e-2)
    learner.fit(named_anew(), steps_per_epoch=80, verbose=0)
    (support_x, support_y, query_x), query_y = next(iter(named_anew(seed=1, meta_batch=200)))
    shuffled = tf.constant(np.random.default_rng(0).permuted(support_y, axis=1))

    def accuracy(logits):
        return np.mean(np.argmax(logits, axis=-1) == query_y)

    assert accuracy(learner((support_x, support_y, query_x))) > 0.9
    assert accuracy(learner((support_x, shuffled, query_x))) < 0.6
    nothing_read = learner.unadapted()(tf.reshape(query_x, (-1, 2)))
    assert accuracy(tf.reshape(nothing_read, (200, -1, 3))) < 0.6


# ---------------------------------------------------------------- wrong arguments

UNBUILT = keras.Sequential([keras.layers.Dense(1)])
NORMALISING = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
UNKNOWN = keras.Sequential([keras.Input((None, 1)), keras.layers.Conv1D(2, 3)])
MAPS = keras.Sequential([keras.Input((1, 2, 2)), keras.layers.Identity()])


class Subclassed(keras.Model):
    """It does not know the shape of its outputs."""

    def __init__(self):
        super().__init__()
        self.built = True


def relate(relation, encoder=None):
    return RelationNetwork(encoder or identity(2), relation)


def process(encoder=None, decoder=None, **options):
    encoder, decoder = encoder or mlutils.mlp(2, (), 3), decoder or mlutils.mlp(4, (), 2)
    return ConditionalNeuralProcess(encoder, decoder, **options)


@pytest.mark.parametrize("norm", [(), (mlutils.BatchNorm,)])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_encoders_that_loop_are_trained(kind, norm):
    """By the gradients of the same encoder unrolled, also beside a norm layer; ``fit`` runs."""

    def learner(unroll):
        layer = getattr(keras.layers, kind)(3, unroll=unroll)
        layers = [keras.Input((4, 1)), layer, *(make() for make in norm), keras.layers.Dense(2)]
        return compiled(PrototypicalNetwork(keras.Sequential(layers)))

    loops, unrolled = learner(False), learner(True)
    unrolled.set_weights(loops.get_weights())
    x, query_x = np.random.default_rng(0).normal(size=(2, 2, 6, 4, 1)).astype("float32")
    labels = np.array([[0, 1, 2, 0, 1, 2], [2, 1, 1, 0, 2, 1]])
    batch = (x, labels, query_x), labels
    (loss, mine), (_, theirs) = (one.meta_gradients(batch) for one in (loops, unrolled))
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert np.abs(mine[0]).max() > 1e-4
    logged = loops.fit(*batch, verbose=0).history["loss"][0]
    assert logged == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: PrototypicalNetwork(identity(), "dot"), r"one of \('euclidean', 'cosine'\), got"),
        (lambda: PrototypicalNetwork(identity(), scale=0), "scale must be .* positive .* got 0"),
        (lambda: MatchingNetwork(identity(), scale=-1), "scale must be .* positive .* got -1"),
        (lambda: relate("mlp"), "relation must be a keras.Model, got str"),
        (lambda: relate(UNBUILT), "relation .* no weights"),
        (lambda: relate(NORMALISING), "The relation holds .* mlutils.BatchNorm"),
        (lambda: relate(mlutils.mlp(2)), r"\(None, 2\) to .* it must map \(None, 4\)"),
        (lambda: relate(mlutils.mlp(4, outputs=2)), r"\(None, 2\); .* to \(None, 1\)"),
        (lambda: relate(mlutils.mlp(8), MAPS), r"it must map \(None, 1, 2, 4\)"),
        (lambda: relate(mlutils.mlp(4), UNKNOWN), "known length"),
        (lambda: process(encoder="mlp"), "encoder must be a keras.Model, got str"),
        (lambda: process(encoder=UNBUILT), "encoder .* no weights"),
        (lambda: process(decoder="mlp"), "decoder must be a keras.Model, got str"),
        (lambda: process(decoder=UNBUILT), "decoder .* no weights"),
        (lambda: process(decoder=NORMALISING), "The decoder holds .* mlutils.BatchNorm"),
        (lambda: process(decoder=mlutils.mlp(4, (), 3)), "gives .*3.; it must be .None, 2 outputs"),
        (lambda: process(smallest=0), "smallest must be .* positive .* got 0"),
        (lambda: process(smallest=1), "smallest must be less than 1, got 1"),
        (lambda: RecurrentLearner(UNKNOWN, 2), "known length"),
        (lambda: RecurrentLearner(Subclassed(), 2), "known length"),
        (lambda: RecurrentLearner(identity(), 0), "outputs must be .* 1, got 0"),
        (lambda: RecurrentLearner(identity(), 2, 1.5), "units must be .* 1, got 1.5"),
        (lambda: MANN(identity(), 2, 0), "units must be .* 1, got 0"),
        (lambda: MANN(identity(), 2, slots=0), "slots must be .* 1, got 0"),
        (lambda: MANN(identity(), 2, width=0), "width must be .* 1, got 0"),
        (lambda: MANN(identity(), 2, heads=True), "heads must be .* got True"),
        (lambda: MANN(identity(), 2, slots=2, heads=3), "at most slots, which is 2; got 3"),
        (lambda: MANN(identity(), 2, decay=1.5), "decay must be from 0 to 1, got 1.5"),
        (lambda: MANN(identity(), 2, decay=math.nan), "decay must be a finite number, got nan"),
        (lambda: ContextTransformer(identity(), 0), "outputs must be .* 1, got 0"),
        (lambda: ContextTransformer(identity(), 3, 0), "units must be .* 1, got 0"),
        (lambda: ContextTransformer(identity(), 3, heads=0), "heads must be .* 1, got 0"),
        (lambda: ContextTransformer(identity(), 3, blocks=1.5), "blocks must be .* got 1.5"),
        (lambda: ContextTransformer(identity(), 3, 6, 4), "divide units, which is 6; got 4"),
    ],
)
def test_wrong_arguments_raise(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()
