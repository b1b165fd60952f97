"""Meta-SGD, learned step sizes, ANIL, the Taylor expansions, and what all variants share."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import ANIL, MAML, BatchNorm, Episode, MetaSGD, Reptile, iMAML
from tests.maml.test_maml import (
    MODELS,
    conv_model,
    dense_model,
    quartic,
    random_episode,
    scalar_episode,
    scalar_learner,
)
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error

VARIANTS = (MAML, MetaSGD, ANIL, iMAML, Reptile)


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier(model, kind=MAML, **options):
    learner = kind(model, **options)
    learner.compile(optimizer="sgd", loss=cross_entropy())
    return learner


def gradients_by_kind(learner, episode):
    """The meta-gradient by theta, and that by the learned alphas."""
    _, gradients = learner.meta_gradients(episode)
    gradient_of = {id(v): g for v, g in zip(learner.trainable_variables, gradients, strict=True)}
    theta, alpha = learner.model.trainable_variables, learner.learned_rates
    return [gradient_of[id(v)] for v in theta], [gradient_of[id(v)] for v in alpha]


def gradient_error(learner, episode):
    """The error of the meta-gradient by everything trainable, against finite differences."""
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    _, gradients = learner.meta_gradients(episode)
    return relative_error(flatten(gradients), reference)


# ---------------------------------------------------------------- Meta-SGD


def scalar_variant(kind, theta=1.0, **options):
    learner = kind(scalar_learner(theta).model, inner_lr=0.5, **options)
    learner.compile(optimizer=keras.optimizers.SGD(1.0), loss=quartic)
    return learner


@pytest.mark.parametrize("first_order, by_theta", [(False, 0.5), (True, -1.0)])
def test_meta_sgd_on_the_pocket_quartic(first_order, by_theta):
    """eq-meta-sgd on the pocket numbers: theta = 1, alpha = 1/2, theta' = 1/2.

    dJ/dalpha = -grad L^S(theta) grad L^Q(theta') = -1 * (1/2 - 3/2)^3 = 1, also without second
    derivatives, of which it has none; dJ/dtheta is as in MAML.  At alpha = 1/4, theta' = 3/4:
    dJ/dalpha = -(3/4 - 3/2)^3 = 27/64.
    """
    learner = scalar_variant(MetaSGD, first_order=first_order)
    (theta,), (alpha,) = gradients_by_kind(learner, scalar_episode())
    assert (theta.numpy().item(), alpha.numpy().item()) == pytest.approx((by_theta, 1.0))
    learner.learned_rates[0].assign([[0.25]])
    _, (alpha,) = gradients_by_kind(learner, scalar_episode())
    assert alpha.numpy().item() == pytest.approx(27 / 64)


def test_fit_trains_alpha_and_may_turn_its_sign():
    """eq-meta-sgd: one outer step of size 1 makes alpha = 1/2 - 1 and theta = 1 - 1/2.

    Then theta' = 1/2 + 1/2 * (1/2)^3 = 9/16: the inner step goes uphill.
    """
    learner = scalar_variant(MetaSGD)
    learner.fit(tf.data.Dataset.from_tensors(scalar_episode().element), verbose=0)
    assert learner.learned_rates[0].numpy().item() == pytest.approx(-0.5)
    assert learner.model.get_weights()[0].item() == pytest.approx(0.5)
    predict = learner.adapt(tf.ones((1, 1)), tf.zeros((1, 1)))
    assert predict(tf.ones((1, 1))).numpy().item() == pytest.approx(9 / 16)


@pytest.mark.parametrize("first_order", [False, True])
def test_meta_sgd_is_maml_while_all_alphas_are_equal(float64, first_order):
    """eq-meta-sgd with a constant vector is eq-maml-inner; with one entry changed it is not."""
    model, options = dense_model(), dict(inner_lr=0.5, inner_steps=2, first_order=first_order)
    maml, meta_sgd = classifier(model, **options), classifier(model, MetaSGD, **options)
    episode = random_episode(model)
    loss, gradients = maml.meta_gradients(episode)
    theta, _ = gradients_by_kind(meta_sgd, episode)
    assert float(meta_sgd.meta_loss(episode)) == pytest.approx(float(loss), rel=1e-12)
    assert relative_error(flatten(theta), flatten(gradients)) < 1e-12
    meta_sgd.learned_rates[0].assign(np.eye(2, 4))
    assert float(meta_sgd.meta_loss(episode)) != pytest.approx(float(loss), rel=1e-3)


def spread(rates):
    """Give every alpha a value of its own, some of them negative."""
    random = np.random.default_rng(1)
    for rate in rates:
        rate.assign(random.normal(0.5, 0.5, rate.shape))


@pytest.mark.parametrize(
    "kind, options",
    [
        (MetaSGD, dict(inner_steps=2)),
        (MAML, dict(inner_steps=3, learn_lr="step")),
    ],
)
def test_the_gradient_by_theta_and_alpha_equals_finite_differences(float64, kind, options):
    """eq-meta-sgd, with one alpha for each weight, and with one for each step."""
    model = conv_model(False, keras.layers.AveragePooling2D, "tanh")
    learner = classifier(model, kind, inner_lr=1.0, **options)
    spread(learner.learned_rates)
    assert gradient_error(learner, random_episode(model)) < RELATIVE_TOLERANCE


def test_each_step_has_a_rate_of_its_own_and_further_steps_the_last():
    """eq-maml-inner with alpha_0 = 1/2 and alpha_1 = 1/4 on the pocket quartic.

    theta^1 = 1 - 1/2 * 1 = 1/2, theta^2 = 1/2 - 1/4 * 1/8 = 15/32; a third step uses 1/4 again.
    With g = grad L^Q(theta^2) = (15/32 - 3/2)^3 = (-33/32)^3:
    dJ/dalpha_1 = -grad L^S(theta^1) g           = -1/8 g,
    dJ/dalpha_0 = -1 * (1 - 1/4 * 3 (1/2)^2) g   = -13/16 g.
    Negative control: in the other order theta^2 = 3/4 - 1/2 * 27/64 = 69/128.
    """
    learner = scalar_variant(MAML, inner_steps=2, learn_lr="step")
    learner.learned_rates[1].assign(0.25)
    one, zero = tf.ones((1, 1)), tf.zeros((1, 1))
    two, three = 15 / 32, 15 / 32 - (15 / 32) ** 3 / 4
    for steps, weight in [(None, two), (1, 1 / 2), (3, three)]:
        found = learner.adapt(one, zero, steps=steps)(one).numpy().item()
        assert found == pytest.approx(weight, rel=1e-6)
        assert found != pytest.approx(69 / 128, rel=1e-2)
    g = (-33 / 32) ** 3
    _, alphas = gradients_by_kind(learner, scalar_episode())
    assert [a.numpy().item() for a in alphas] == pytest.approx([-13 / 16 * g, -g / 8], rel=1e-6)


# ---------------------------------------------------------------- ANIL


def anil_by_hand(model, episode, inner_lr, steps):
    """eq-anil with the features computed once; the meta-loss and its gradient by all weights."""
    variables, cross_entropy_of = model.trainable_variables, cross_entropy()
    body = keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers[:-1]])
    kernel, bias = (v.value for v in variables[-2:])
    with tf.GradientTape() as outer:
        losses = []
        for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
            head, features = [kernel, bias], body(support_x)
            for _ in range(steps):
                with tf.GradientTape() as inner:
                    inner.watch(head)
                    loss = cross_entropy_of(support_y, features @ head[0] + head[1])
                gradients = inner.gradient(loss, head)
                head = [w - inner_lr * g for w, g in zip(head, gradients, strict=True)]
            losses.append(cross_entropy_of(query_y, body(query_x) @ head[0] + head[1]))
        loss = tf.add_n(losses) / len(losses)
    return loss, outer.gradient(loss, variables)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_anil_adapts_the_head_on_fixed_features(float64, kind):
    """eq-anil; negative control: MAML on the same model gives another gradient."""
    model, options = MODELS[kind](), dict(inner_lr=1.0, inner_steps=2)
    learner = classifier(model, ANIL, **options)
    episode = random_episode(model)
    by_hand, expected = anil_by_hand(model, episode, 1.0, 2)
    loss, gradients = learner.meta_gradients(episode)
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-10)
    assert relative_error(flatten(gradients), flatten(expected)) < 1e-9
    _, maml = classifier(model, **options).meta_gradients(episode)
    assert relative_error(flatten(maml), flatten(expected)) > 1e-2


def test_anil_equals_finite_differences(float64):
    """eq-anil: the outer loop trains the body too."""
    model = dense_model()
    learner = classifier(model, ANIL, inner_lr=1.0, inner_steps=2)
    assert gradient_error(learner, random_episode(model)) < RELATIVE_TOLERANCE


def named_model():
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, activation="tanh", name="body"),
            keras.layers.Dense(3, name="last"),
        ]
    )


@pytest.mark.parametrize("head, moving", [(None, "last"), ("last", "last"), ("body", "body")])
def test_only_the_chosen_head_moves(head, moving):
    """eq-anil: the last layer when none is named."""
    learner = classifier(named_model(), ANIL, inner_lr=1.0, head=head)
    support_x, support_y, *_ = (value[0] for value in random_episode(learner.model))
    theta = learner.initialisation()
    adapted = learner.adapted_weights(theta, tf.cast(support_x, tf.float32), support_y)
    for variable, old, new in zip(learner.model.trainable_variables, theta, adapted, strict=True):
        assert np.any(old != new) == (moving in variable.path)


def test_a_head_in_a_nested_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), named_model()])
    assert len(ANIL(model, head="body").head_variables) == 2


def test_a_wrong_head_is_told_the_allowed_names():
    with pytest.raises(ValueError, match=r"no layer 'top'.*'body', 'last'"):
        ANIL(named_model(), head="top")


class OwnWeights(keras.Model):
    """A model without layers, whose weight is its own."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.built = True

    def call(self, x):
        return self.scale * x


def test_a_model_without_any_head_raises():
    with pytest.raises(ValueError, match="No layer"):
        ANIL(OwnWeights())


# ---------------------------------------------------------------- expansions


def linear_model(inputs=2):
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(1, use_bias=False)])


def regression_episode(inputs=2, tasks=2, support=6, queries=7, seed=0):
    random = np.random.default_rng(seed)
    sizes = [(support, inputs), (support, 1), (queries, inputs), (queries, 1)]
    return Episode(*(tf.constant(random.normal(size=(tasks, *size))) for size in sizes))


@pytest.mark.parametrize("steps", [1, 3])
def test_first_order_is_exact_for_losses_linear_in_the_weights(float64, steps):
    """eq-fomaml equals eq-maml-gradient-k where H^S = 0; with mean squared error it does not."""
    episode, gradients = regression_episode(), {}
    for loss in ("mse", lambda targets, predictions: tf.reduce_mean(targets * predictions)):
        for first_order in (False, True):
            keras.utils.set_random_seed(0)
            options = dict(inner_lr=0.5, inner_steps=steps, first_order=first_order)
            learner = MAML(linear_model(), **options)
            learner.compile(loss=loss)
            gradients[loss == "mse", first_order] = flatten(learner.meta_gradients(episode)[1])
    np.testing.assert_allclose(gradients[False, True], gradients[False, False], rtol=1e-12)
    assert relative_error(gradients[True, True], gradients[True, False]) > 1e-2


def derivatives(learner, x, y):
    """The gradient of one loss at theta, and its Hessian, with theta as one vector."""
    variables = learner.model.trainable_variables
    shapes = [v.shape for v in variables]
    sizes = [int(np.prod(shape)) for shape in shapes]
    theta = tf.concat([tf.reshape(v, [-1]) for v in variables], 0)
    with tf.GradientTape() as outer:
        outer.watch(theta)
        with tf.GradientTape() as inner:
            inner.watch(theta)
            weights = [
                tf.reshape(w, s) for w, s in zip(tf.split(theta, sizes), shapes, strict=True)
            ]
            loss = learner.task_loss(y, learner.predict_with(weights, x))
        gradient = inner.gradient(loss, theta)
    return gradient.numpy(), outer.jacobian(gradient, theta).numpy()


def shrinking(residual):
    """By what the residual shrinks when alpha is halved, twice."""
    sizes = [np.max(np.abs(residual(alpha))) for alpha in (0.02, 0.01, 0.005)]
    return [sizes[0] / sizes[1], sizes[1] / sizes[2]]


QUADRATICALLY, LINEARLY = pytest.approx([4, 4], abs=0.5), pytest.approx([2, 2], abs=0.25)


@pytest.mark.parametrize("first_order", [False, True])
def test_taylor_expansions(float64, first_order):
    """eq-maml-taylor and eq-fomaml-taylor: halving alpha quarters what they leave out.

    grad [L^Q - alpha grad L^S . grad L^Q] = g^Q - alpha (H^S g^Q + H^Q g^S), and FOMAML is
    g^Q - alpha H^Q g^S.
    Negative control: with H^S g^Q in place of H^Q g^S, or H^Q g^S twice, halving alpha only
    halves it.
    """
    model = dense_model()
    episode = random_episode(model, tasks=1)
    support_x, support_y, query_x, query_y = (value[0] for value in episode)
    learner = classifier(model)
    support, support_hessian = derivatives(learner, support_x, support_y)
    query, query_hessian = derivatives(learner, query_x, query_y)
    right, wrong = query_hessian @ support, support_hessian @ query
    if not first_order:
        right, wrong = right + wrong, 2 * right

    def residual(alpha, term):
        learner = classifier(model, inner_lr=alpha, first_order=first_order)
        return flatten(learner.meta_gradients(episode)[1]) - (query - alpha * term)

    assert shrinking(lambda alpha: residual(alpha, right)) == QUADRATICALLY
    assert shrinking(lambda alpha: residual(alpha, wrong)) == LINEARLY


@pytest.mark.parametrize("steps", range(1, 6))
def test_few_steps_on_a_quadratic_stay_between_the_start_and_the_minimum(float64, steps):
    """eq-map-estimate: theta_k = (I - M) theta_hat + M theta_0, with M = (I - alpha H)^k.

    For mean squared error of X w, H = 2/S X'X, and theta_hat solves the least squares.
    Negative control: k + 1 in place of k.
    """
    learner = MAML(linear_model(3), inner_lr=0.1, inner_steps=steps)
    learner.compile(loss="mse")
    x, y, *_ = (value[0].numpy() for value in regression_episode(3))
    start, minimum = learner.model.get_weights()[0], np.linalg.lstsq(x, y)[0]

    def estimate(k):
        left = np.linalg.matrix_power(np.eye(3) - 0.1 * 2 / len(x) * x.T @ x, k)
        return (np.eye(3) - left) @ minimum + left @ start

    (found,) = learner.adapted_weights(learner.initialisation(), tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(found, estimate(steps), rtol=1e-9)
    assert np.max(np.abs(found - estimate(steps + 1))) > 1e-3


# ---------------------------------------------------------------- queries one at a time


def norm_model():
    layers = [keras.Input((2,)), keras.layers.Dense(3), BatchNorm(), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def alone_and_together(transductive, model):
    """Predictions for queries beside others, and the same in another order beside new ones."""
    learner = classifier(model, inner_lr=1.0, transductive=transductive)
    episode = random_episode(model)
    support_x, support_y, query_x, _ = episode
    order = [6, 2, 0]
    others = tf.concat([tf.gather(query_x, order, axis=1), 5 + query_x], 1)
    together = tf.gather(learner((support_x, support_y, query_x)), order, axis=1)
    return together.numpy(), learner((support_x, support_y, others))[:, :3].numpy()


def test_a_query_does_not_depend_on_the_others(float64):
    """Not transductive; negative control: with BatchNorm, transductive predictions do."""
    model = norm_model()
    np.testing.assert_allclose(*alone_and_together(False, model), atol=1e-12)
    one, other = alone_and_together(True, model)
    assert np.max(np.abs(one - other)) > 1e-2


def test_a_query_is_seen_beside_the_support_set(float64):
    """Not transductive, by hand: the last row of the model on [support; query]."""
    model = norm_model()
    learner = classifier(model, inner_lr=1.0, transductive=False)
    support_x, support_y, query_x, _ = (value[0] for value in random_episode(model))
    weights = learner.adapted_weights(learner.initialisation(), support_x, support_y)
    found = learner.adapt(support_x, support_y)(query_x)
    model.set_weights([w.numpy() for w in weights])
    for query, prediction in zip(query_x, found, strict=True):
        by_hand = model(tf.concat([support_x, [query]], 0))[-1]
        np.testing.assert_allclose(prediction, by_hand, atol=1e-12)
        assert np.max(np.abs(by_hand - model(query[tf.newaxis])[0])) > 1e-3


def test_without_norm_layers_both_agree(float64):
    """Not transductive, with a model that sees each example by itself."""
    model = dense_model()
    inputs, _ = random_episode(model).element
    alone, together = (
        classifier(model, inner_lr=1.0, transductive=transductive)(inputs)
        for transductive in (False, True)
    )
    np.testing.assert_allclose(alone, together, atol=1e-12)


def test_the_gradient_of_one_query_at_a_time_equals_finite_differences(float64):
    """Not transductive: the support inputs in a query's batch count in the gradient."""
    model = norm_model()
    learner = classifier(model, inner_lr=1.0, transductive=False)
    assert gradient_error(learner, random_episode(model)) < RELATIVE_TOLERANCE


def test_who_is_transductive_unless_told_otherwise():
    found = {kind: kind(named_model()).transductive for kind in VARIANTS}
    assert found == {MAML: True, MetaSGD: True, ANIL: True, iMAML: True, Reptile: False}


# ---------------------------------------------------------------- all of them


OPTIONS = [
    (MAML, dict(inner_steps=2, learn_lr="step", transductive=False)),
    (MAML, dict(inner_steps=2, learn_lr="parameter", first_order=True)),
    (MetaSGD, dict(inner_steps=2, first_order=True, transductive=False)),
    (ANIL, dict(inner_steps=2, head="body", first_order=True, transductive=False)),
    (iMAML, dict(inner_steps=3, strength=3.0, cg_steps=2, transductive=False)),
    (Reptile, dict(inner_steps=2, batch_size=3, seed=5, transductive=True)),
]


def regressor(kind, **options):
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(4, activation="tanh", name="body"),
            keras.layers.Dense(1, name="last"),
        ]
    )
    learner = kind(model, inner_lr=0.02, **options)
    learner.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return learner


@pytest.mark.parametrize("kind, options", OPTIONS)
def test_a_saved_variant_is_the_same(tmp_path, kind, options):
    """After fit on sinusoids: its options, weights, learned alphas and optimizer."""
    learner = regressor(kind, **options)
    batches = mlutils.data.sinusoids(shots=5, queries=4, meta_batch=4)
    learner.fit(batches, steps_per_epoch=3, verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded) is kind
    ours, theirs = (json.loads(json.dumps(one.get_config())) for one in (learner, loaded))
    assert theirs == ours  # but for tuples, which a file holds as lists
    assert options.items() <= theirs.items()
    pairs = zip(
        learner.weights + learner.optimizer.variables,
        loaded.weights + loaded.optimizer.variables,
        strict=True,
    )
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", [ANIL, iMAML, Reptile])
def test_fit_on_33_tasks_of_images(kind):
    """More tasks than are written out side by side (``mlutils.vectorize.UNROLLED``)."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    options = dict(cg_steps=1) if kind is iMAML else {}  # each is written out in the graph
    learner = classifier(model, kind, inner_lr=0.1, inner_steps=1, **options)
    episode = Episode(
        *(
            tf.cast(v, tf.int32 if v.dtype.is_integer else tf.float32)
            for v in random_episode(model, tasks=33)
        )
    )
    before = model.get_weights()
    history = learner.fit(tf.data.Dataset.from_tensors(episode.element), verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: MAML(named_model(), learn_lr="layer"), "learn_lr must be one of .*'layer'"),
        (lambda: MAML(named_model(), inner_steps=0, learn_lr="step"), "inner_steps of at least 1"),
        (lambda: MetaSGD(named_model(), inner_lr=-1), "inner_lr must be .* at least 0, got -1"),
        (lambda: iMAML(named_model(), strength=0), "strength must be .* positive number, got 0"),
        (lambda: iMAML(named_model(), strength=float("inf")), "strength must be a finite"),
        (lambda: iMAML(named_model(), cg_steps=0), "cg_steps must be .* at least 1, got 0"),
        (lambda: Reptile(named_model(), batch_size=0), "batch_size must be .* least 1, got 0"),
        (lambda: Reptile(named_model(), seed=-1), "seed must be .* at least 0, got -1"),
        (lambda: Reptile(named_model(), inner_steps=0), "inner_steps must be .* least 1, got 0"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(make, words):
    with pytest.raises(ValueError, match=words):
        make()
