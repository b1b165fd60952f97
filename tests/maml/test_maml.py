"""MAML's equations, each checked by hand, by finite differences, and by wrong versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import MAML, BatchNorm, Episode
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error

# ---------------------------------------------------------------- values derived by hand


def quartic(targets, predictions):
    return tf.reduce_mean((predictions - targets) ** 4) / 4


def scalar_learner(theta=1.0, **options):
    """A model with one weight: its prediction for x = 1 is theta."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[theta]])])
    learner = MAML(model, inner_lr=0.5, **options)
    learner.compile(loss=quartic)
    return learner


def scalar_episode(support_y=0.0, query_y=1.5):
    one = tf.ones((1, 1, 1))
    return Episode(one, support_y * one, one, query_y * one)


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
    predict = learner.adapt(tf.ones((1, 1)), tf.zeros((1, 1)))
    assert predict(tf.ones((1, 1))).numpy().item() == pytest.approx(weight, rel=1e-6)
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
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [1.0]])])
    learner = MAML(model, inner_lr=0.5, **options)
    learner.compile(loss="mse")
    episode = Episode([[[1.0, 0.0], [0.0, 2.0]]], [[[0.0], [0.0]]], [[[1.0, 1.0]]], [[[0.5]]])
    episode = Episode(*map(tf.constant, episode))
    _, (found,) = learner.meta_gradients(episode)
    np.testing.assert_allclose(found[:, 0], gradient, rtol=1e-6)


# ---------------------------------------------------------------- finite differences


def dense_model():
    return mlutils.mlp(input_size=2, hidden=(4,), outputs=3, activation="tanh")


def conv_model(norm, pooling, activation):
    layers = [keras.Input((6, 6, 1))]
    for filters in (2, 2):
        layers.append(keras.layers.Conv2D(filters, 3, padding="same"))
        if norm:
            layers.append(BatchNorm())
        layers.append(keras.layers.Activation(activation))
        layers.append(pooling(2))
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(3)])


MODELS = {
    "dense": dense_model,
    "conv": lambda: conv_model(False, keras.layers.AveragePooling2D, "tanh"),
    "conv and norm": lambda: conv_model(True, keras.layers.AveragePooling2D, "softplus"),
    "conv, norm and max-pooling": lambda: conv_model(True, keras.layers.MaxPooling2D, "softplus"),
}


def random_episode(model, tasks=2, support=4, queries=7, seed=0):
    """S and Q differ in content and size; three classes."""
    random = np.random.default_rng(seed)
    shape = model.input_shape[1:]
    return Episode(
        tf.constant(random.normal(size=(tasks, support, *shape))),
        tf.constant(random.integers(0, 3, size=(tasks, support))),
        tf.constant(random.normal(size=(tasks, queries, *shape))),
        tf.constant(random.integers(0, 3, size=(tasks, queries))),
    )


def classifier(model, **options):
    learner = MAML(model, **options)
    learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return learner


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", MODELS)
def test_meta_gradient_equals_finite_differences(float64, kind, steps):
    """eq-maml-gradient (1 step) and eq-maml-gradient-k (3 steps); alpha = 1 is large."""
    learner = classifier(MODELS[kind](), inner_lr=1.0, inner_steps=steps)
    episode = random_episode(learner.model)
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    _, gradients = learner.meta_gradients(episode)
    assert relative_error(flatten(gradients), reference) < RELATIVE_TOLERANCE


@pytest.mark.parametrize("kind", ["dense", "conv and norm"])
def test_first_order_fails_the_second_order_check(float64, kind):
    """Negative control: eq-fomaml is not the gradient."""
    learner = classifier(MODELS[kind](), inner_lr=1.0, first_order=True)
    episode = random_episode(learner.model)
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    _, gradients = learner.meta_gradients(episode)
    assert relative_error(flatten(gradients), reference) > 1e-2


def explicit_meta_gradient(learner, episode, hessian_at="theta", product="forward"):
    """eq-maml-gradient-k written out with whole Hessians, for one task of a batch of one.

    ``hessian_at="adapted"`` evaluates each Hessian after its step instead of before it, and
    ``product="reverse"`` multiplies the factors in the opposite order: both are wrong.
    """
    shapes = [v.shape for v in learner.trainable_variables]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def loss(theta, x, y):
        weights = [tf.reshape(w, s) for w, s in zip(tf.split(theta, sizes), shapes, strict=True)]
        return learner.task_loss(y, learner.predict_with(weights, x))

    def derivatives(theta, x, y):
        with tf.GradientTape() as outer:
            outer.watch(theta)
            with tf.GradientTape() as inner:
                inner.watch(theta)
                value = loss(theta, x, y)
            gradient = inner.gradient(value, theta)
        return gradient, outer.jacobian(gradient, theta)

    support_x, support_y, query_x, query_y = (value[0] for value in episode)
    theta = tf.concat([tf.reshape(v, [-1]) for v in learner.trainable_variables], 0)
    factors = []
    for _ in range(learner.inner_steps):
        gradient, hessian = derivatives(theta, support_x, support_y)
        theta = theta - learner.inner_lr * gradient
        if hessian_at == "adapted":
            _, hessian = derivatives(theta, support_x, support_y)
        factors.append(np.eye(len(theta)) - learner.inner_lr * hessian.numpy())
    gradient, _ = derivatives(theta, query_x, query_y)
    return np.linalg.multi_dot(
        [*(factors if product == "forward" else factors[::-1]), gradient.numpy()[:, np.newaxis]]
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


# ---------------------------------------------------------------- tasks do not mix


def test_permuting_tasks_changes_nothing(float64):
    """eq-maml-gradient is a mean over tasks (museum of bugs, 3)."""
    learner = classifier(dense_model(), inner_lr=1.0)
    episode = random_episode(learner.model, tasks=5)
    order = [3, 0, 4, 2, 1]
    loss, gradients = learner.meta_gradients(episode)
    permuted_loss, permuted = learner.meta_gradients(
        Episode(*(tf.gather(value, order) for value in episode))
    )
    assert float(loss) == pytest.approx(float(permuted_loss), rel=1e-12)
    assert relative_error(flatten(permuted), flatten(gradients)) < 1e-12


@pytest.mark.parametrize("kind", ["dense", "conv and norm"])
def test_vectorised_equals_one_task_at_a_time(float64, kind):
    learner = classifier(MODELS[kind](), inner_lr=1.0, inner_steps=2)
    episode = random_episode(learner.model, tasks=3)
    together = learner(episode.element[0])
    for task in range(3):
        predict = learner.adapt(episode.support_x[task], episode.support_y[task])
        np.testing.assert_allclose(together[task], predict(episode.query_x[task]), atol=1e-12)


def test_every_inner_step_starts_where_the_last_ended():
    """On L = h theta^2 / 2, k steps give (1 - alpha h)^k theta (museum of bugs, 4)."""
    learner = scalar_learner(theta=2.0)
    learner.compile(loss=lambda y, p: 3.0 * tf.reduce_mean(tf.square(p - y)) / 2)
    for steps in range(5):
        predict = learner.adapt(tf.ones((1, 1)), tf.zeros((1, 1)), steps=steps)
        assert predict(tf.ones((1, 1))).numpy().item() == pytest.approx((1 - 0.5 * 3) ** steps * 2)


def test_adapting_leaves_the_initialisation_alone():
    learner = classifier(dense_model(), inner_lr=1.0)
    episode = random_episode(learner.model)
    before = learner.model.get_weights()
    learner.adapt(episode.support_x[0], episode.support_y[0])(episode.query_x[0])
    for old, new in zip(before, learner.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# ---------------------------------------------------------------- a Keras citizen


def sinusoid_learner(**options):
    learner = MAML(mlutils.mlp(hidden=(8,)), **options)
    learner.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return learner


def test_logged_validation_and_hand_computed_loss_agree():
    """eq-meta-objective and eq-maml-objective: one number, however it is asked for."""
    learner = sinusoid_learner()
    learner.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    batches = mlutils.data.sinusoids(shots=5, queries=7, meta_batch=4)
    episode = Episode.from_element(next(iter(batches)))
    by_hand = 0.0
    for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
        prediction = learner.adapt(support_x, support_y)(query_x)
        by_hand += float(np.mean((prediction - query_y) ** 2)) / 4
    history = learner.fit(
        batches, steps_per_epoch=1, validation_data=batches, validation_steps=1, verbose=0
    ).history
    assert history["loss"][0] == pytest.approx(by_hand, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(by_hand, rel=1e-5)
    assert learner.evaluate(batches, steps=1, verbose=0) == pytest.approx(by_hand, rel=1e-5)
    assert float(learner.meta_loss(episode)) == pytest.approx(by_hand, rel=1e-5)
    assert mlutils.evaluate(learner, batches, tasks=4).mean == pytest.approx(by_hand, rel=1e-5)


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


def test_fit_follows_the_meta_gradient():
    learner = sinusoid_learner()
    learner.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    batches = mlutils.data.sinusoids(meta_batch=4)
    _, gradients = learner.meta_gradients(next(iter(batches)))
    before = [v.numpy() for v in learner.trainable_variables]
    learner.fit(batches, steps_per_epoch=1, verbose=0)
    for old, new, gradient in zip(before, learner.trainable_variables, gradients, strict=True):
        np.testing.assert_allclose(new.numpy(), old - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_fit_lowers_the_loss_and_adaptation_helps():
    """Each claim holds with its 95 % interval, over differences on the same tasks."""
    learner = sinusoid_learner()
    learner.compile(optimizer="adam", loss="mse", steps_per_execution=100)
    batches = mlutils.data.sinusoids(meta_batch=25)
    before = mlutils.evaluate(learner, batches)
    learner.fit(batches.skip(24), steps_per_epoch=2000, verbose=0)
    after = mlutils.evaluate(learner, batches)
    worse = mlutils.controls(learner, batches)
    worse["before training"] = before
    for score in worse.values():
        difference = mlutils.Score(score.values - after.values)
        assert difference.mean > difference.ci95


def test_saved_and_loaded_learner_goes_on_exactly(tmp_path):
    batches = mlutils.data.sinusoids(meta_batch=4)
    learner = sinusoid_learner(inner_lr=0.02, inner_steps=2, first_order=True)
    learner.fit(batches, steps_per_epoch=3, verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert (loaded.inner_lr, loaded.inner_steps, loaded.first_order) == (0.02, 2, True)
    inputs, _ = next(iter(batches))
    np.testing.assert_array_equal(learner(inputs), loaded(inputs))
    for one in (learner, loaded):
        one.fit(batches, steps_per_epoch=3, verbose=0)
    np.testing.assert_array_equal(learner(inputs), loaded(inputs))


def test_functional_and_subclassed_models():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)

        def call(self, x):
            return self.head(self.hidden(x))

    inputs = keras.Input((1,))
    functional = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(4, "tanh")(inputs)))
    subclassed = Subclassed()
    subclassed(tf.zeros((1, 1)))
    subclassed.set_weights(functional.get_weights())
    element = next(iter(mlutils.data.sinusoids()))
    losses = []
    for model in (functional, subclassed):
        learner = MAML(model)
        learner.compile(loss="mse")
        losses.append(float(learner.meta_loss(element)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


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
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    _, gradients = learner.meta_gradients(episode)
    gradients = flatten(tf.convert_to_tensor(g) for g in gradients)
    assert relative_error(gradients, reference) < RELATIVE_TOLERANCE


def test_dropout_is_inert_even_where_call_takes_no_training_flag():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.sequence = keras.Sequential([keras.layers.Dropout(0.9), keras.layers.Dense(1)])

        def call(self, x):
            return self.sequence(x)

    model = Subclassed()
    model(tf.zeros((1, 1)))
    learner = MAML(model)
    learner.compile(loss="mse")
    inputs, _ = next(iter(mlutils.data.sinusoids()))
    np.testing.assert_array_equal(learner(inputs, training=True), learner(inputs))


# ---------------------------------------------------------------- wrong input


def built(*layers):
    return keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])


def frozen():
    model = built()
    model.trainable = False
    return model


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: MAML("mlp"), TypeError, "keras.Model, got str"),
        (lambda: MAML(keras.Sequential([keras.layers.Dense(1)])), ValueError, "keras.Input"),
        (lambda: MAML(frozen()), ValueError, "no trainable"),
        (
            lambda: MAML(built(keras.layers.BatchNormalization())),
            ValueError,
            "mlutils.BatchNorm",
        ),
        (
            lambda: MAML(keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(2)])),
            ValueError,
            "unroll=True",
        ),
        (lambda: MAML(built(), inner_lr=-1), ValueError, "at least 0, got -1"),
        (lambda: MAML(built(), inner_lr=float("nan")), ValueError, "finite"),
        (lambda: MAML(built(), inner_steps=-1), ValueError, "integer of at least 0, got -1"),
        (lambda: MAML(built(), inner_steps=1.5), ValueError, "integer of at least 0, got 1.5"),
    ],
)
def test_wrong_learner_raises(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_frozen_batch_normalization_is_allowed():
    layer = keras.layers.BatchNormalization()
    layer.trainable = False
    MAML(built(layer))


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("options", [{}, dict(center=False, scale=False), dict(trainable=False)])
def test_inexact_norm_layers_warn_at_second_order_only(first_order, options, recwarn):
    MAML(built(keras.layers.LayerNormalization(**options)), first_order=first_order)
    assert any("LayerNormalization" in str(w.message) for w in recwarn) != first_order


@pytest.mark.parametrize(
    "support_shapes, words",
    [
        (((0, 1), (0, 1)), "at least 1"),
        (((5, 1), (4, 1)), "the same in both"),
        (((), ()), "first axis counts"),
        (((2, 5, 1), (2, 5, 1)), r"the model takes \(None, 1\)"),
    ],
)
def test_wrong_support_set_raises(support_shapes, words):
    with pytest.raises(ValueError, match=words):
        sinusoid_learner().adapt(*map(tf.zeros, support_shapes))


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 5, 1), (2, 4, 1), (2, 3, 1)),
        ((2, 5, 1), (2, 5, 1), (3, 3, 1)),
        ((5,), (5,), (3,)),
    ],
)
def test_wrong_batch_raises(shapes):
    with pytest.raises(ValueError, match="allowed are"):
        sinusoid_learner()(tuple(map(tf.zeros, shapes)))


def test_queries_without_one_target_each_raise():
    episode = Episode(*map(tf.zeros, [(2, 5, 1), (2, 5, 1), (2, 3, 1), (2, 4, 1)]))
    with pytest.raises(ValueError, match="must agree"):
        sinusoid_learner().meta_loss(episode)


def test_labels_out_of_range_raise():
    learner = classifier(dense_model())
    with pytest.raises(ValueError, match="from 0 to 3; allowed are 0 to 2"):
        learner.adapt(tf.zeros((2, 2)), tf.constant([0, 3]))


@pytest.mark.parametrize("targets", [tf.zeros((2,)), tf.zeros((2,), tf.int32), tf.zeros((2, 3))])
def test_targets_that_would_be_broadcast_raise(targets):
    with pytest.raises(ValueError, match="allowed are equal shapes"):
        sinusoid_learner().adapt(tf.zeros((2, 1)), targets)


def test_a_frozen_learner_raises():
    learner = sinusoid_learner()
    learner.trainable = False
    with pytest.raises(ValueError, match="frozen"):
        learner.adapt(tf.zeros((2, 1)), tf.zeros((2, 1)))


@pytest.mark.parametrize(
    "loss, words",
    [
        (None, "compile"),
        (["mse", "mae"], "with one loss"),
        (keras.losses.MeanSquaredError(reduction="sum"), "sum_over_batch_size"),
    ],
)
def test_wrong_loss_raises(loss, words):
    learner = MAML(mlutils.mlp())
    if loss is not None:
        learner.compile(loss=loss)
    with pytest.raises(ValueError, match=words):
        learner.adapt(tf.zeros((3, 1)), tf.zeros((3, 1)))


@pytest.mark.parametrize(
    "use",
    [
        lambda learner, episode: learner.fit(episode, verbose=0),
        lambda learner, episode: learner(episode.query_x),
        lambda learner, episode: learner(tuple(episode)),
    ],
)
def test_a_learner_given_something_else_says_what_it_takes(use):
    episode = Episode.from_element(next(iter(mlutils.data.sinusoids(meta_batch=2))))
    with pytest.raises(ValueError, match="A learner takes"):
        use(sinusoid_learner(), episode)


def test_not_an_episode_raises():
    with pytest.raises(ValueError, match=r"got \(int, int, int\)"):
        sinusoid_learner().meta_loss((1, 2, 3))
