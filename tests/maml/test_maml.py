"""MAML's equations, each checked by hand, by finite differences, and by wrong versions."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import ANIL, MAML, Episode, Reptile, iMAML
from tests.maml.tasks import (
    adapted,
    as_vector,
    classifier,
    conv_model,
    dense_model,
    derivatives,
    gradient_error,
    linear_model,
    named_model,
    norm_model,
    random_episode,
    scalar_episode,
    scalar_learner,
)
from tests.numeric import RELATIVE_TOLERANCE, flatten, relative_error

# ---------------------------------------------------------------- values derived by hand


@pytest.mark.parametrize(
    "options, weight, gradient",
    [
        (dict(inner_steps=0), 1.0, -0.125),
        (dict(inner_steps=1), 0.5, 0.5),
        (dict(inner_steps=2), 0.4375, 0.5 * 0.625 * 1.0625**3),
        (dict(inner_steps=1, first_order=True), 0.5, -1.0),
        (dict(inner_steps=2, first_order=True), 0.4375, -(1.0625**3)),
    ],
)
def test_pocket_quartic(options, weight, gradient):
    """eq-maml-inner, eq-maml-gradient, eq-maml-gradient-k and eq-fomaml on the pocket numbers.

    L^S(theta) = theta^4 / 4 and L^Q(theta) = (theta - 3/2)^4 / 4, theta = 1, alpha = 1/2.
    grad L^S = theta^3, H^S = 3 theta^2, grad L^Q = (theta - 3/2)^3.

    Step 1: theta^1 = 1 - 1/2 * 1       = 1/2.    I - alpha H_0 = 1 - 3/2       = -1/2.
    Step 2: theta^2 = 1/2 - 1/2 * 1/8   = 7/16.   I - alpha H_1 = 1 - 1/2 * 3/4 = 5/8.

    k = 0: G = (1 - 3/2)^3                = -1/8.
    k = 1: G = -1/2 * (1/2 - 3/2)^3       = +1/2;        first order: (-1)^3 = -1.
    k = 2: G = -1/2 * 5/8 * (-17/16)^3    = +0.374832;   first order: (-17/16)^3.
    The first-order approximation has the wrong sign.
    """
    learner = scalar_learner(**options)
    assert adapted(learner) == pytest.approx(weight, rel=1e-6)
    loss, (found,) = learner.meta_gradients(scalar_episode())
    assert loss.numpy() == pytest.approx((weight - 1.5) ** 4 / 4, rel=1e-6)
    assert found.numpy().item() == pytest.approx(gradient, rel=1e-6)


@pytest.mark.parametrize(
    "options, gradient",
    [
        (dict(inner_steps=1), [-1, 2]),
        (dict(inner_steps=2), [0.375, 1.5]),
        (dict(inner_steps=1, first_order=True), [-2, -2]),
        (dict(inner_steps=2, first_order=True), [1.5, 1.5]),
    ],
)
def test_linear_regression(options, gradient):
    """eq-maml-gradient and eq-maml-gradient-k on a linear model with mean squared error.

    Support inputs (1, 0) and (0, 2), targets 0: L^S = (w_1^2 + 4 w_2^2) / 2,
    grad L^S = (w_1, 4 w_2), H^S = diag(1, 4).  Query x = (1, 1), y = 1/2:
    grad L^Q = 2 (w_1 + w_2 - 1/2) (1, 1).  w = (1, 1), alpha = 1/2, I - alpha H = diag(1/2, -1).

    k = 1: w^1 = (1/2, -1), grad L^Q = (-2, -2), G = (-1, 2).
    k = 2: w^2 = (1/4, 1), grad L^Q = (3/2, 3/2), G = diag(1/4, 1) (3/2, 3/2) = (3/8, 3/2).
    """
    model = linear_model()
    model.set_weights([np.array([[1.0], [1.0]])])
    learner = MAML(model, inner_lr=0.5, **options)
    learner.compile(loss="mse")
    episode = Episode([[[1.0, 0.0], [0.0, 2.0]]], [[[0.0], [0.0]]], [[[1.0, 1.0]]], [[[0.5]]])
    _, (found,) = learner.meta_gradients(Episode(*map(tf.constant, episode)))
    np.testing.assert_allclose(found[:, 0], gradient, rtol=1e-6)


def test_the_objective_is_the_query_loss_after_adaptation():
    """eq-meta-objective and eq-maml-objective on the pocket numbers: L^Q(theta') = 1/4.

    Negative controls: L^Q(theta) = 1/64 and L^S(theta') = 1/64 are other numbers.
    """
    episode = scalar_episode()
    learner = scalar_learner()
    assert float(learner.meta_loss(episode)) == pytest.approx(1 / 4)
    before = float(scalar_learner(inner_steps=0).meta_loss(episode))
    support, targets = episode[:2]
    on_support = float(learner.meta_loss(Episode(support, targets, support, targets)))
    assert (before, on_support) == pytest.approx((1 / 64, 1 / 64))


# ---------------------------------------------------------------- finite differences

NORMED = dict(norm=True, activation="softplus")


@pytest.mark.parametrize(
    "options, steps",
    [
        ({}, 1),
        (NORMED, 2),
        (dict(pooling=keras.layers.MaxPooling2D, **NORMED), 1),
    ],
    ids=["conv", "conv and norm", "conv, norm and max-pooling"],
)
def test_meta_gradient_equals_finite_differences(float64, options, steps):
    """eq-maml-gradient (1 step) and eq-maml-gradient-k (2 steps); alpha = 1 is large."""
    learner = classifier(conv_model(**options), inner_lr=1.0, inner_steps=steps)
    episode = random_episode(learner.model)
    assert gradient_error(learner, episode) < RELATIVE_TOLERANCE


def embedding_model():
    inputs = keras.Input((3,), dtype="int32")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(inputs))
    return keras.Model(inputs, keras.layers.Dense(1)(embedded))


def recurrent_model():
    inputs = keras.Input((3, 1))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.LSTM(2, unroll=True)(inputs)))


def shared_layer_model():
    inputs, layer = keras.Input((3,)), keras.layers.Dense(3, activation="tanh")
    return keras.Model(inputs, keras.layers.Dense(1)(layer(layer(inputs))))


@pytest.mark.parametrize("make", [embedding_model, recurrent_model, shared_layer_model])
def test_other_layers(float64, make):
    """eq-maml-gradient with sparse gradients, recurrence and a layer used twice."""
    learner = MAML(make(), inner_lr=0.5)
    learner.compile(loss="mse")
    random = np.random.default_rng(0)
    shape = (2, 4, *learner.model.input_shape[1:])
    x, query_x = (
        random.integers(0, 5, shape) if make is embedding_model else random.normal(size=shape)
        for _ in range(2)
    )
    y, query_y = random.normal(size=(2, 2, 4, 1))
    episode = Episode(*map(tf.constant, (x, y, query_x, query_y)))
    assert gradient_error(learner, episode) < RELATIVE_TOLERANCE


def explicit_meta_gradient(learner, episode, hessian_at="theta", product="forward"):
    """eq-maml-gradient-k written out with whole Hessians, for one task of a batch of one.

    ``hessian_at="adapted"`` evaluates each Hessian after its step instead of before it, and
    ``product="reverse"`` multiplies the factors in the opposite order: both are wrong.
    """
    support_x, support_y, query_x, query_y = (value[0] for value in episode)
    theta, loss = as_vector(learner)
    factors = []
    for _ in range(learner.inner_steps):
        gradient, hessian = derivatives(loss, theta, support_x, support_y)
        theta = theta - learner.inner_lr * gradient
        if hessian_at == "adapted":
            _, hessian = derivatives(loss, theta, support_x, support_y)
        factors.append(np.eye(len(theta)) - learner.inner_lr * hessian)
    gradient, _ = derivatives(loss, theta, query_x, query_y)
    return np.linalg.multi_dot(
        [*(factors if product == "forward" else factors[::-1]), gradient[:, np.newaxis]]
    )[:, 0]


@pytest.mark.parametrize(
    "steps, wrong", [(1, dict(hessian_at="adapted")), (3, dict(product="reverse"))]
)
def test_hessian_at_the_wrong_point_or_in_reverse_order_fails(float64, steps, wrong):
    """Negative controls of eq-maml-gradient and eq-maml-gradient-k, beside the right version."""
    learner = classifier(dense_model(), inner_lr=1.0, inner_steps=steps)
    episode = random_episode(learner.model, tasks=1)
    _, gradients = learner.meta_gradients(episode)
    gradients = flatten(gradients)
    assert relative_error(explicit_meta_gradient(learner, episode), gradients) < 1e-9
    assert relative_error(explicit_meta_gradient(learner, episode, **wrong), gradients) > 1e-3


def test_fit_lowers_the_loss_and_adaptation_helps():
    """Each claim holds with its 95 % interval, over differences on the same tasks."""
    learner = MAML(mlutils.mlp(hidden=(8,)))
    learner.compile(keras.optimizers.Adam(1e-2), loss="mse", steps_per_execution=100)
    batches = mlutils.data.sinusoids(meta_batch=25)
    before = mlutils.evaluate(learner, batches, tasks=200)
    learner.fit(batches.skip(8), steps_per_epoch=500, verbose=0)
    after = mlutils.evaluate(learner, batches, tasks=200)
    worse = mlutils.controls(learner, batches, tasks=200, scratch_steps=20)
    worse["before training"] = before
    for score in worse.values():
        difference = mlutils.Score(score.values - after.values)
        assert difference.mean > difference.ci95


# ---------------------------------------------------------------- queries one at a time


def centring_model():
    """``keras.ops`` that mix the batch, in a functional model: no layer tells of it."""
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(3)(inputs)
    centred = hidden - keras.ops.mean(hidden, axis=0, keepdims=True)
    return keras.Model(inputs, keras.layers.Dense(3)(centred))


@pytest.mark.parametrize("make", [norm_model, centring_model])
def test_a_query_is_seen_beside_the_support_set(float64, make):
    """Not transductive, by hand: the last row of the model on [support; query].

    Negative controls: all queries together, which is transductive, and each quite alone.
    """
    model = make()
    support_x, support_y, query_x, _ = (value[0] for value in random_episode(model))
    learner = classifier(model, inner_lr=1.0, transductive=False)
    weights = learner.adapted_weights(learner.initialisation(), support_x, support_y)
    found = learner.adapt(support_x, support_y)(query_x)
    other = classifier(model, inner_lr=1.0).adapt(support_x, support_y)(query_x)
    model.set_weights([w.numpy() for w in weights])
    by_hand = tf.stack([model(tf.concat([support_x, [query]], 0))[-1] for query in query_x])
    np.testing.assert_allclose(found, by_hand, atol=1e-12)
    np.testing.assert_allclose(other, model(query_x), atol=1e-12)
    for wrong in (other, tf.concat([model(query[tf.newaxis]) for query in query_x], 0)):
        assert np.max(np.abs(by_hand - wrong)) > 1e-2


def test_the_gradient_of_one_query_at_a_time_equals_finite_differences(float64):
    """Not transductive: the support inputs in a query's batch count in the gradient."""
    learner = classifier(norm_model(), inner_lr=1.0, transductive=False)
    assert gradient_error(learner, random_episode(learner.model)) < RELATIVE_TOLERANCE


# ---------------------------------------------------------------- wrong input


def built(*layers):
    return keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])


def sequence(layer):
    return keras.Sequential([keras.Input((3, 2)), layer])


# What is no network at all is refused by every learner: see tests/contract.
WRONG = [
    (lambda: MAML(sequence(keras.layers.Identity())), "no trainable"),
    (lambda: MAML(sequence(keras.layers.LSTM(2))), "unroll=True"),
    (lambda: MAML(built(), inner_lr=-1), "inner_lr must be .* 0, got -1"),
    (lambda: MAML(built(), inner_steps=-1), "inner_steps must be .* 0, got -1"),
    (lambda: iMAML(built(), strength=0), "strength must be .* positive number, got 0"),
    (lambda: iMAML(built(), cg_steps=0), "cg_steps must be .* at least 1, got 0"),
    (lambda: Reptile(built(), batch_size=0), "batch_size must be .* least 1, got 0"),
    (lambda: Reptile(built(), seed=-1), "seed must be .* at least 0, got -1"),
    (lambda: Reptile(built(), inner_steps=0), "inner_steps must be .* 1, got 0"),
    (lambda: ANIL(named_model(), head="top"), r"no layer 'top'.*'body', 'last'"),
]


@pytest.mark.parametrize("make, words", WRONG)
def test_wrong_arguments_say_what_is_allowed(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_inexact_norm_layers_warn_at_second_order_only():
    for options in ({}, dict(center=False, scale=False), dict(trainable=False)):
        model = built(keras.layers.LayerNormalization(**options))
        with pytest.warns(UserWarning, match="LayerNormalization is wrong"):
            MAML(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            MAML(model, first_order=True)
