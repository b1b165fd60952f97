"""Moved drawings: by hand, and beside moves the wrong way."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import PrototypicalNetwork
from mlutils.one_shot import AverageOverViews, moved, randomly_moved
from mlutils.one_shot.views import LOOKS


def drawings(count=3, size=9):
    """Random ink in the middle, nothing near the border."""
    ink = np.random.default_rng(0).random((count, size - 4, size - 4, 1))
    return np.pad(ink, ((0, 0), (2, 2), (2, 2), (0, 0))).astype("float32")


def centre(images):
    """The ink's mean row and column, ``(n, 2)``, from the images' centre."""
    ink = np.asarray(images)[..., 0]
    at = np.arange(ink.shape[1]) - (ink.shape[1] - 1) / 2
    total = ink.sum(axis=(1, 2))
    return np.stack([(ink.sum(2) * at).sum(1) / total, (ink.sum(1) * at).sum(1) / total], 1)


# ---------------------------------------------------------------- values derived by hand


def test_nothing_moves_nothing():
    np.testing.assert_allclose(moved(drawings()), drawings(), atol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_to_the_right(quarters):
    x = drawings()
    found = moved(x, rotation=quarters * np.pi / 2)
    np.testing.assert_allclose(found, np.rot90(x, -quarters, axes=(1, 2)), atol=1e-5)
    assert np.abs(found - np.rot90(x, quarters, axes=(1, 2))).max() > 0.1 or quarters == 2


def test_shifts_are_down_and_to_the_right():
    x = drawings()
    found = moved(x, shift=(1.0, 2.0))
    np.testing.assert_allclose(found[:, 1:, 2:], x[:, :-1, :-2], atol=1e-6)


def test_a_stretch_moves_a_pixel_away_from_the_centre():
    """Twice the height: a line one pixel above the centre is then two above; as wide as before."""
    line = np.zeros((1, 9, 9, 1), np.float32)
    line[0, 3, 3:6] = 1
    found = moved(line, stretch=(np.log(2), 0.0))
    np.testing.assert_allclose(centre(found), [[-2, 0]], atol=1e-6)
    np.testing.assert_allclose(np.asarray(found).sum(axis=(1, 2, 3)), 6, atol=1e-5)
    wide = moved(line, stretch=(0.0, np.log(2)))
    assert np.count_nonzero(np.asarray(wide)[0, 3] > 0.99) == 5  # 0, 1/2, 1 from the centre: inked


def test_a_slant_leans_to_the_right_above_and_to_the_left_below():
    """By the tangent: 45 degrees move the row two above the centre two to the right."""
    bar = np.zeros((1, 9, 9, 1), np.float32)
    bar[0, 2:7, 4] = 1
    found = np.asarray(moved(bar, slant=np.pi / 4))[0, ..., 0]
    np.testing.assert_allclose(found, np.pad(np.eye(5)[::-1], 2), atol=1e-5)


def test_every_image_in_its_own_way():
    x = drawings()
    shifts = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -2.0]], np.float32)
    found = moved(x, shift=shifts)
    for i in range(3):
        np.testing.assert_allclose(found[i], moved(x[i : i + 1], shift=shifts[i])[0], atol=1e-6)


def test_random_moves_have_the_spread_asked_for():
    """5,000 times one dot: where it goes has mean 0 and the shift's deviation."""
    dot = np.zeros((5000, 21, 21, 1), np.float32)
    dot[:, 10, 10] = 1
    still = {"rotation": 0.0, "slant": 0.0, "stretch": 0.0, "shift": 0.0}
    places = centre(randomly_moved(dot, **{**still, "shift": 1.5}))
    np.testing.assert_allclose(places.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(places.std(axis=0), 1.5, rtol=0.05)
    np.testing.assert_allclose(randomly_moved(dot[:2], **still), dot[:2], atol=1e-6)


@pytest.mark.parametrize(
    "kind, at, moves",
    [
        ("rotation", (10, 18), (1, 0)),  # right of the centre: down and up
        ("slant", (2, 10), (0, 1)),  # above it: to the sides
        ("stretch", (10, 18), (0, 1)),
    ],
)
def test_each_kind_of_random_move_does_its_own(kind, at, moves):
    """A dot 8 pixels from the centre, 2,000 times: along one axis it goes 8 times the spread."""
    dot = np.zeros((2000, 21, 21, 1), np.float32)
    dot[:, *at] = 1
    still = {"rotation": 0.0, "slant": 0.0, "stretch": 0.0, "shift": 0.0}
    found = centre(randomly_moved(dot, **{**still, kind: 0.1})).std(axis=0)
    np.testing.assert_allclose(found, 0.8 * np.array(moves), atol=0.1)


# ---------------------------------------------------------------- several looks


def encoder():
    return keras.Sequential(
        [keras.Input((9, 9, 1)), keras.layers.Flatten(), keras.layers.Dense(4, "tanh")]
    )


def test_average_of_the_views():
    """Each look's embedding scaled to length one, then the mean; not the other way round."""
    eye, x = encoder(), drawings()
    embeddings = [eye(moved(x, *look)).numpy() for look in LOOKS]
    units = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in embeddings]
    np.testing.assert_allclose(AverageOverViews(eye)(x), np.mean(units, axis=0), atol=1e-5)
    assert np.abs(np.mean(embeddings, axis=0) - np.mean(units, axis=0)).max() > 1e-2


def test_as_a_learners_encoder(tmp_path):
    """On many tasks at once as on one, saved and loaded."""
    learner = PrototypicalNetwork(AverageOverViews(encoder()), distance="cosine")
    x, y = np.stack([drawings(), drawings()[::-1]]), tf.constant([[0, 1, 2], [2, 1, 0]])
    found = learner((x, y, x))
    alone = np.stack([learner.adapt(a, b)(a) for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(found, alone, atol=1e-5)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(loaded((x, y, x)), found)


def test_wrong_encoders_raise():
    with pytest.raises(TypeError, match=r"must be a keras\.Model"):
        AverageOverViews(lambda x: x)
    maps = [keras.Input((9, 9, 1)), keras.layers.Conv2D(2, 3)]
    any_size = [keras.Input((None, None, 1)), keras.layers.GlobalAveragePooling2D()]
    for eye in (mlutils.mlp(3, (), 2), keras.Sequential(maps), keras.Sequential(any_size)):
        with pytest.raises(ValueError, match=r"must map images \(None, height, width, 1\)"):
            AverageOverViews(eye)
