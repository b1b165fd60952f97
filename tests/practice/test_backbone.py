"""The backbone that comes with the package, and what the stored study says of it."""

import keras
import numpy as np
import pytest

import mlutils
from mlutils.data import episodes, glyphs, in_colour


@pytest.fixture(scope="module")
def backbone():
    return mlutils.pretrained_backbone()


def test_it_is_what_networks_of_keras_applications_are(backbone):
    """Norms with running statistics, which a learner refuses until they are frozen."""
    norms = [x for x in backbone.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 4 and backbone.input_shape == (None, 28, 28, 3)
    with pytest.raises(ValueError, match=r"freeze the layer \(layer.trainable = False\)"):
        mlutils.PrototypicalNetwork(backbone)
    for norm in norms:
        assert not np.allclose(norm.moving_variance, 1)
        norm.trainable = False
    mlutils.PrototypicalNetwork(backbone)


def test_it_knows_unseen_characters(backbone):
    """91 % in 5-way 1-shot where it was made; pixels have 40."""
    test = glyphs("test")
    x = in_colour(test.x, 5) / np.float32(255)
    features = backbone.predict(x, batch_size=256, verbose=0)
    encoder = keras.Sequential([keras.Input((512,)), keras.layers.Identity()])
    tasks = episodes(features, test.y, ways=5, shots=1, meta_batch=50, seed=1)
    score = mlutils.evaluate(mlutils.PrototypicalNetwork(encoder, "cosine"), tasks, tasks=200)
    assert score.mean > 0.87
