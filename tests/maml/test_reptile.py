"""Reptile by hand, its minibatches, its Taylor expansion, and its place in Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import Episode, Reptile
from tests.maml.test_maml import dense_model, quartic, random_episode, scalar_learner
from tests.maml.test_variants import (
    LINEARLY,
    QUADRATICALLY,
    classifier,
    cross_entropy,
    derivatives,
    linear_model,
    shrinking,
)
from tests.numeric import flatten, relative_error

# ---------------------------------------------------------------- by hand


def scalar_tasks():
    """One task with support target 0 and query target 3/2, one with both at 1."""
    one = tf.ones((2, 1, 1))
    return Episode(one, tf.constant([[[0.0]], [[1.0]]]), one, tf.constant([[[1.5]], [[1.0]]]))


def scalar_reptile(epsilon=1.0, **options):
    learner = Reptile(scalar_learner().model, inner_lr=0.5, **options)
    learner.compile(optimizer=keras.optimizers.SGD(epsilon), loss=quartic)
    return learner


PHI = 25 / 32


@pytest.mark.parametrize("steps, phi", [(1, PHI), (2, PHI - (PHI**3 + (PHI - 1.5) ** 3) / 4)])
def test_reptile_on_the_pocket_quartic(steps, phi):
    """eq-reptile: theta = 1, alpha = 1/2; each task trains on support and query set together.

    First task: L = (theta^4 + (theta - 3/2)^4) / 8, grad L = (theta^3 + (theta - 3/2)^3) / 2
    = (1 - 1/8) / 2 = 7/16, phi = 1 - 7/32 = 25/32.  Second task: L = (theta - 1)^4 / 4, which is
    at its minimum: phi = 1.  Reptile's direction is theta minus the mean, (1 - phi_1) / 2.
    Negative control: without the queries, phi_1 = 1 - 1/2.
    """
    learner = scalar_reptile(inner_steps=steps)
    _, (direction,) = learner.meta_gradients(scalar_tasks())
    assert direction.numpy().item() == pytest.approx((1 - phi) / 2, rel=1e-6)
    assert direction.numpy().item() != pytest.approx((1 - 1 / 2) / 2, rel=1e-2)


def test_fit_moves_theta_toward_the_mean_of_the_trained_weights():
    """eq-reptile with epsilon = 2: theta = 1 + 2 * mean(25/32 - 1, 1 - 1) = 25/32.

    The logged loss is that of the queries after ``adapt`` and before the outer step: the support
    sets alone give theta' = 1/2 and 1, so it is (1/2 - 3/2)^4 / 4 / 2 = 1/8.
    """
    learner = scalar_reptile(epsilon=2.0, inner_steps=1)
    batches = tf.data.Dataset.from_tensors(scalar_tasks().element)
    evaluated = learner.evaluate(batches, verbose=0)
    computed = float(learner.meta_loss(scalar_tasks()))
    logged = learner.fit(batches, verbose=0).history["loss"][0]
    assert [evaluated, computed, logged] == pytest.approx([1 / 8] * 3, rel=1e-6)
    assert learner.model.get_weights()[0].item() == pytest.approx(25 / 32, rel=1e-6)


def test_one_step_on_everything_is_joint_training(float64):
    """eq-reptile with k = 1: the direction is alpha times the gradient of the mean loss.

    Negative control: with two steps it is not.
    """
    model = dense_model()
    episode = random_episode(model, tasks=3)
    x = tf.concat([episode.support_x, episode.query_x], 1)
    y = tf.concat([episode.support_y, episode.query_y], 1)
    for steps in (1, 2):
        learner = classifier(model, Reptile, inner_lr=0.1, inner_steps=steps)
        with tf.GradientTape() as tape:
            loss = learner.task_loss(tf.reshape(y, [-1]), model(tf.reshape(x, (-1, 2))))
        joint = flatten(tape.gradient(loss, model.trainable_variables))
        found = flatten(learner.meta_gradients(episode)[1]) / 0.1 / steps
        assert (relative_error(found, joint) < 1e-9) == (steps == 1)


def test_the_direction_is_theta_minus_the_mean_of_plain_training(float64):
    """eq-reptile against keras's own SGD, one task after the other."""
    model = dense_model()
    episode = random_episode(model, tasks=3)
    learner = classifier(model, Reptile, inner_lr=0.3, inner_steps=4)
    found = flatten(learner.meta_gradients(episode)[1])
    theta, ends = model.get_weights(), []
    model.compile(optimizer=keras.optimizers.SGD(0.3), loss=cross_entropy())
    for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
        model.set_weights(theta)
        x, y = tf.concat([support_x, query_x], 0), tf.concat([support_y, query_y], 0)
        model.fit(x, y, batch_size=len(x), epochs=4, verbose=0)
        ends.append(flatten(model.get_weights()))
    np.testing.assert_allclose(found, flatten(theta) - np.mean(ends, 0), rtol=1e-9, atol=1e-12)


def test_taylor_expansion(float64):
    """eq-reptile-taylor: two steps, on L_1 and then on L_2, go the way g_1 + g_2 - alpha H_2 g_1.

    Negative control: with H_1 g_2 the residual halves with alpha instead of quartering.
    """
    model = dense_model()
    x1, y1, x2, y2 = (v[0] for v in random_episode(model, tasks=1, support=4, queries=4))
    learner = classifier(model, Reptile)
    (g1, h1), (g2, h2) = derivatives(learner, x1, y1), derivatives(learner, x2, y2)
    x, y, order = tf.concat([x1, x2], 0), tf.concat([y1, y2], 0), tf.range(8)

    def residual(alpha, term):
        learner = classifier(model, Reptile, inner_lr=alpha, inner_steps=2, batch_size=4)
        theta = learner.initialisation()
        trained = learner.trained_weights(theta, x, y, order)
        return (flatten(theta) - flatten(trained)) / alpha - (g1 + g2 - alpha * term)

    assert shrinking(lambda alpha: residual(alpha, h2 @ g1)) == QUADRATICALLY
    assert shrinking(lambda alpha: residual(alpha, h1 @ g2)) == LINEARLY


# ---------------------------------------------------------------- minibatches


def powers(tasks=2):
    """Eight examples with x y = 1, 2, 4, ..., 128: a sum says how often each was used."""
    x = tf.tile(tf.constant(2.0 ** np.arange(8))[tf.newaxis, :, tf.newaxis], (tasks, 1, 1))
    return Episode(x[:, :5], tf.ones_like(x[:, :5]), x[:, 5:], tf.ones_like(x[:, 5:]))


def linear_reptile(**options):
    """The loss is linear in the weight, so the steps add up to alpha / B times a sum of x y."""
    learner = Reptile(linear_model(1), inner_lr=0.5, **options)
    learner.compile(optimizer="sgd", loss=lambda y, p: tf.reduce_mean(y * p))
    return learner


def used(learner, tasks=1):
    """The sum of x y over the examples of all steps."""
    _, (direction,) = learner.meta_gradients(powers(tasks))
    return direction.numpy().item() / 0.5 * (learner.batch_size or 8)


@pytest.mark.parametrize("batch_size, steps", [(2, 4), (8, 1), (None, 1), (99, 1)])
def test_every_example_is_used_once_in_a_round(float64, batch_size, steps):
    """1 + 2 + ... + 128 = 255 after the whole task, twice that after two rounds.

    Negative control: one step more or less gives another sum.
    """
    size = min(batch_size or 8, 8)
    for k, total in [(steps, 255), (2 * steps, 510)]:
        learner = linear_reptile(batch_size=size, inner_steps=k)
        learner.batch_size = batch_size
        found = used(learner) / (batch_size or 8) * size
        assert found == pytest.approx(total, rel=1e-12)
    assert used(linear_reptile(batch_size=size, inner_steps=steps + 1)) != pytest.approx(255)


def test_a_batch_that_does_not_divide_the_task_wraps_around(float64):
    """8 steps of 3 are three rounds of 8; 3 steps of 3 use one example twice."""
    assert used(linear_reptile(batch_size=3, inner_steps=8)) == pytest.approx(3 * 255, rel=1e-12)
    twice = used(linear_reptile(batch_size=3, inner_steps=3)) - 255
    assert twice in 2.0 ** np.arange(8)


def first_batches(learner, calls=4):
    """Which two examples the first batch held, in each of some calls."""
    draw = tf.function(lambda: learner.meta_gradients(powers(1))[1][0])
    return [draw().numpy().item() for _ in range(calls)]


def test_the_shuffles_repeat_with_their_seed(float64):
    """... and differ from call to call, from seed to seed, and from task to task.

    If two tasks drew the same two examples, the mean would be a sum of two powers of 2.
    """
    options = dict(batch_size=2, inner_steps=1)
    found = first_batches(linear_reptile(seed=1, **options))
    assert found == first_batches(linear_reptile(seed=1, **options))
    assert found != first_batches(linear_reptile(seed=2, **options))
    assert len(set(found)) > 1
    both = linear_reptile(seed=1, **options)
    two_powers = [2.0**i + 2.0**j for i in range(8) for j in range(i)]
    assert not {used(both, tasks=2) for _ in range(3)} <= set(two_powers)


def test_saved_in_the_middle_of_the_shuffles(float64, tmp_path):
    """The next shuffles are the same as without saving."""
    learner = Reptile(dense_model(), inner_lr=0.1, inner_steps=2, batch_size=2, seed=3)
    learner.compile(optimizer="adam", loss="mse")
    random = np.random.default_rng(0)
    episode = Episode(*(tf.constant(random.normal(size=(2, 4, n))) for n in (2, 3, 2, 3)))
    batches = tf.data.Dataset.from_tensors(episode.element)
    learner.fit(batches, verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    for _ in range(2):
        ours, theirs = (flatten(one.meta_gradients(episode)[1]) for one in (learner, loaded))
        np.testing.assert_array_equal(ours, theirs)


# ---------------------------------------------------------------- a Keras citizen


def test_compiled_metrics_see_the_queries_after_adapting():
    learner = Reptile(dense_model(), inner_lr=0.5, inner_steps=3)
    learner.compile(optimizer=keras.optimizers.SGD(0.0), loss=cross_entropy(), metrics=["accuracy"])
    episode = random_episode(learner.model, tasks=5)
    episode = Episode(
        *(tf.cast(v, tf.int32 if v.dtype.is_integer else tf.float32) for v in episode)
    )
    inputs, query_y = episode.element
    by_hand = np.mean(np.argmax(learner(inputs), -1) == query_y)
    batches = tf.data.Dataset.from_tensors(episode.element)
    history = learner.fit(batches, verbose=0).history
    assert history["accuracy"][0] == pytest.approx(by_hand)


def test_reptile_learns_sinusoids():
    """Adapting after training beats adapting before, with a 95 % interval."""
    learner = Reptile(mlutils.mlp(hidden=(16,)), inner_lr=0.02, inner_steps=3, batch_size=5)
    learner.compile(keras.optimizers.Adam(1e-2), loss="mse", steps_per_execution=100)
    test = mlutils.data.sinusoids(seed=1)
    before = mlutils.evaluate(learner, test, tasks=100)
    learner.fit(mlutils.data.sinusoids(meta_batch=5), steps_per_epoch=200, verbose=0)
    difference = mlutils.Score(before.values - mlutils.evaluate(learner, test, tasks=100).values)
    assert difference.mean > difference.ci95


def test_integer_targets_of_another_type_join():
    """Support labels int64 and query labels int32: the task trains on both."""
    episode = random_episode(dense_model(), tasks=2)
    episode = Episode(*(tf.cast(v, "float32") if v.dtype.is_floating else v for v in episode))
    other = episode._replace(query_y=tf.cast(episode.query_y, "int32"))
    learner = classifier(dense_model(), Reptile, inner_steps=2)
    ours, theirs = (flatten(learner.meta_gradients(one)[1]) for one in (episode, other))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
