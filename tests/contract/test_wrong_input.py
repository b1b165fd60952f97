"""What a learner refuses, each in the words of what came and what is allowed."""

import keras
import numpy as np
import pytest

import mlutils
from mlutils import Episode
from tests.contract.learners import LEARNERS, compiled, element, every, having, network

NETWORKS = [
    n for n, r in LEARNERS.items() if "norm" not in r.why_not and "training" not in r.why_not
]
of_network = pytest.mark.parametrize("name", NETWORKS)


@of_network
def test_a_wrong_network_raises(name):
    make = LEARNERS[name].make
    for wrong in ("conv4", keras.layers.Dense(2)):
        with pytest.raises(TypeError, match="must be a keras"):
            make(wrong)
    for wrong, words in (
        (keras.Sequential([keras.layers.Dense(3)]), "keras.Input"),
        (network(keras.layers.BatchNormalization()), "mlutils.BatchNorm"),
        (network(keras.layers.Dense(4, activity_regularizer="l2")), "activity_regularizer"),
    ):
        with pytest.raises(ValueError, match=words):
            make(wrong)


@of_network
def test_frozen_batch_normalization_is_allowed(name):
    layer = keras.layers.BatchNormalization()
    layer.trainable = False
    LEARNERS[name].make(network(layer))


@every
def test_a_wrong_support_set_raises(row):
    """Empty; not one target for each input; no axis of examples.  By ``adapt`` and by ``call``."""
    learner = compiled(row)
    (x, y, query_x), _ = element(row.kind)
    for wrong_x, wrong_y, words in (
        (x[:, :0], y[:, :0], r"at least 1|ha(s|ve) shape"),
        (x, y[:, :-1], "the same in both|allowed are"),
    ):
        with pytest.raises(ValueError, match=words):
            learner.adapt(wrong_x[0], wrong_y[0])
        with pytest.raises(ValueError, match=words):
            learner((wrong_x, wrong_y, query_x))
    with pytest.raises(ValueError, match=r"ha(s|ve) shape|Drawings"):
        learner.adapt(x[0, 0, 0], y[0, 0])


@every
def test_something_else_than_three_tensors_raises(row):
    learner, batch = compiled(row), element(row.kind)
    episode = Episode.from_element(batch)
    for wrong in (tuple(episode), episode.query_x):
        with pytest.raises(ValueError, match="A learner takes"):
            learner(wrong)
    with pytest.raises(ValueError, match="numbers of tasks"):
        learner((episode.support_x, episode.support_y, episode.query_x[:2]))
    if "training" not in row.why_not:
        with pytest.raises(ValueError, match=r"got \(int, int, int\)"):
            learner.meta_loss((1, 2, 3))
        with pytest.raises(ValueError, match=r"must|allowed are"):
            learner.meta_loss((batch[0], batch[1][:, :-1]))


@having("training")
def test_labels_that_there_are_not_raise(row):
    """Too high, too low, and a class without an example, where classes are read off labels."""
    if row.kind == "numbers":
        with pytest.raises(ValueError, match="shape"):
            compiled(row).adapt(element(row.kind)[0][0][0], np.zeros(6, "float32"))
        return
    learner = compiled(row)
    (x, y, query_x), _ = element(row.kind)
    wrong = [np.where(y == 2, 7, y), y - 1]
    for labels in wrong:
        with pytest.raises(ValueError, match=r"[Ll]abel"):
            learner.adapt(x[0], labels[0])
        with pytest.raises(ValueError, match=r"[Ll]abel"):
            learner((x, labels, query_x))


@every
def test_probabilities_are_not_taken_for_logits(row):
    """The name of Keras's loss means probabilities, and these learners give logits."""
    if row.kind == "numbers" or row.kind == "drawings":
        pytest.skip("no logits that are trained")
    for loss in (
        "sparse_categorical_crossentropy",
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.CategoricalCrossentropy(),
    ):
        with pytest.raises(ValueError, match="from_logits=True"):
            row.make(network()).compile("sgd", loss)


def test_a_softmax_may_have_its_loss():
    model = network(keras.layers.Dense(3), outputs=3)
    model.add(keras.layers.Softmax())
    mlutils.MAML(model).compile("sgd", "sparse_categorical_crossentropy")


@pytest.mark.parametrize("name", ["prototypical", "matching", "relation", "Siamese", "DAP"])
def test_no_prediction_without_a_support_set(name):
    with pytest.raises(NotImplementedError, match="without a support set"):
        compiled(LEARNERS[name]).unadapted()
