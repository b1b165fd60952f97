"""Reptile by hand, its minibatches, its Taylor expansion, and its place in Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils import Episode, Reptile
from tests.maml.tasks import (
    as_vector,
    classifier,
    cross_entropy,
    dense_model,
    derivatives,
    linear_model,
    random_episode,
    scalar_learner,
    shrinking,
)
from tests.numeric import flatten

# ---------------------------------------------------------------- by hand


def scalar_tasks():
    """One task with support target 0 and query target 3/2, one with both at 1."""
    one = tf.ones((2, 1, 1))
    return Episode(one, tf.constant([[[0.0]], [[1.0]]]), one, tf.constant([[[1.5]], [[1.0]]]))


PHI = 25 / 32


@pytest.mark.parametrize("steps, phi", [(1, PHI), (2, PHI - (PHI**3 + (PHI - 1.5) ** 3) / 4)])
def test_reptile_on_the_pocket_quartic(steps, phi):
    """eq-reptile: theta = 1, alpha = 1/2; each task trains on support and query set together.

    First task: L = (theta^4 + (theta - 3/2)^4) / 8, grad L = (theta^3 + (theta - 3/2)^3) / 2
    = (1 - 1/8) / 2 = 7/16, phi = 1 - 7/32 = 25/32.  Second task: L = (theta - 1)^4 / 4, which is
    at its minimum: phi = 1.  Reptile's direction is theta minus the mean, (1 - phi_1) / 2.
    Negative control: without the queries, phi_1 = 1 - 1/2.
    """
    learner = scalar_learner(kind=Reptile, inner_steps=steps)
    _, (direction,) = learner.meta_gradients(scalar_tasks())
    assert direction.numpy().item() == pytest.approx((1 - phi) / 2, rel=1e-6)
    assert direction.numpy().item() != pytest.approx((1 - 1 / 2) / 2, rel=1e-2)


def test_fit_moves_theta_toward_the_mean_of_the_trained_weights():
    """eq-reptile with epsilon = 2: theta = 1 + 2 * mean(25/32 - 1, 1 - 1) = 25/32.

    The logged loss is that of the queries after ``adapt`` and before the outer step: the support
    sets alone give theta' = 1/2 and 1, so it is (1/2 - 3/2)^4 / 4 / 2 = 1/8.
    """
    learner = scalar_learner(kind=Reptile, inner_steps=1)
    learner.compile(keras.optimizers.SGD(2.0), learner.loss)
    batches = tf.data.Dataset.from_tensors(scalar_tasks().element)
    evaluated = learner.evaluate(batches, verbose=0)
    computed = float(learner.meta_loss(scalar_tasks()))
    logged = learner.fit(batches, verbose=0).history["loss"][0]
    assert [evaluated, computed, logged] == pytest.approx([1 / 8] * 3, rel=1e-6)
    assert learner.model.get_weights()[0].item() == pytest.approx(25 / 32, rel=1e-6)


def test_the_direction_is_theta_minus_the_mean_of_plain_training(float64):
    """eq-reptile against Keras's own SGD, one task after the other; 7 steps are a graph's loop.

    One step is that of joint training: the mean of the gradients.
    """
    model = dense_model()
    episode = random_episode(model, tasks=3)
    learner = classifier(model, Reptile, inner_lr=0.3, inner_steps=7)
    found = flatten(learner.meta_gradients(episode)[1])
    theta, ends = model.get_weights(), []
    model.compile(optimizer=keras.optimizers.SGD(0.3), loss=cross_entropy())
    for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
        model.set_weights(theta)
        x, y = tf.concat([support_x, query_x], 0), tf.concat([support_y, query_y], 0)
        model.fit(x, y, batch_size=len(x), epochs=7, verbose=0)
        ends.append(flatten(model.get_weights()))
    np.testing.assert_allclose(found, flatten(theta) - np.mean(ends, 0), rtol=1e-9, atol=1e-12)


def test_taylor_expansion(float64):
    """eq-reptile-taylor: two steps, on L_1 and then on L_2, go the way g_1 + g_2 - alpha H_2 g_1.

    Negative control: with H_1 g_2 the residual halves with alpha instead of quartering.
    """
    learner = classifier(dense_model(), Reptile, inner_steps=2, batch_size=4)
    x1, y1, x2, y2 = (v[0] for v in random_episode(learner.model, tasks=1, support=4, queries=4))
    theta, loss = as_vector(learner)
    (g1, h1), (g2, h2) = derivatives(loss, theta, x1, y1), derivatives(loss, theta, x2, y2)
    task = [tf.concat([x1, x2], 0), tf.concat([y1, y2], 0), tf.range(8)]
    task = [tf.expand_dims(t, 0) for t in task]

    def residual(alpha, term):
        learner.inner_lr = alpha
        directions = learner.directions_in_order(*task)
        return flatten(directions) / alpha - (g1 + g2 - alpha * term)

    assert shrinking(lambda alpha: residual(alpha, h2 @ g1)) == pytest.approx([4, 4], abs=0.5)
    assert shrinking(lambda alpha: residual(alpha, h1 @ g2)) == pytest.approx([2, 2], abs=0.25)


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
    return direction.numpy().item() / 0.5 * min(learner.batch_size or 8, 8)


@pytest.mark.parametrize("batch_size, steps", [(2, 4), (None, 1), (99, 1)])
def test_every_example_is_used_once_in_a_round(float64, batch_size, steps):
    """1 + 2 + ... + 128 = 255 after the whole task, twice that after two rounds.

    Negative control: one step more gives another sum.
    """
    for k, total in [(steps, 255), (2 * steps, 510)]:
        learner = linear_reptile(batch_size=batch_size, inner_steps=k)
        assert used(learner) == pytest.approx(total, rel=1e-12)
    more = linear_reptile(batch_size=batch_size, inner_steps=steps + 1)
    assert used(more) != pytest.approx(255)


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
    """The next shuffles are the same as without saving, and not the first ones again."""
    learner = linear_reptile(batch_size=2, inner_steps=1, seed=3)
    learner.compile(optimizer="sgd", loss="mae")
    first = first_batches(learner, 3)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    following = first_batches(learner, 3)
    assert first_batches(loaded, 3) == following != first


def test_integer_targets_of_another_type_join():
    """Support labels int64 and query labels int32: the task trains on both."""
    episode = random_episode(dense_model(), dtype="float32")
    other = episode._replace(query_y=tf.cast(episode.query_y, "int32"))
    learner = classifier(dense_model(), Reptile, inner_steps=2)
    ours, theirs = (flatten(learner.meta_gradients(one)[1]) for one in (episode, other))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
