"""The conditional neural process: by hand, by a plain loop over points, beside wrong versions."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import mlutils
from benchmarks import gaussian_process as benchmark
from mlutils import ConditionalNeuralProcess, gaussian_nll
from mlutils.data import GaussianProcess
from tests.few_shot.tasks import (
    check_meta_gradients,
    one_task,
    predictions,
    random_episode,
    randomized,
)


def linear(*kernel):
    """A model that multiplies by this matrix."""
    kernel = np.array(kernel, float)
    dense = keras.layers.Dense(kernel.shape[1], use_bias=False)
    model = keras.Sequential([keras.Input((kernel.shape[0],)), dense])
    model.set_weights([kernel])
    return model


def random_learner(kind=ConditionalNeuralProcess, **options):
    """Two inputs, three outputs, as ``random_episode`` has them."""
    encoder, decoder = (mlutils.mlp(5, (3,), size, activation="tanh") for size in (3, 6))
    learner = randomized(kind(encoder, decoder, **options))
    learner.compile(loss=gaussian_nll)
    return learner


# ---------------------------------------------------------------- values derived by hand


def test_pocket_likelihood():
    """eq-gaussian-likelihood: a target 3 is one deviation 2 away from the mean 1.

    Its density is exp(-1/2) / (2 sqrt(2 pi)), so the nats are 1/2 + ln 2 + ln(2 pi) / 2.  A second
    output with target 0, mean 0 and deviation 1 has ln(2 pi) / 2; the two are averaged.
    """
    one = 1 / 2 + math.log(2) + math.log(2 * math.pi) / 2
    np.testing.assert_allclose(gaussian_nll([[3.0]], [[1.0, 2.0]]), [one], rtol=1e-6)
    both = (one + math.log(2 * math.pi) / 2) / 2
    np.testing.assert_allclose(
        gaussian_nll([[3.0, 0.0]], [[1.0, 0.0, 2.0, 1.0]]), [both], rtol=1e-6
    )


def test_pocket_numbers():
    """eq-neural-process where a point is its own code, and the decoder is linear in x.

    The points (0, 1) and (2, 5) have the mean code (1, 3).  The decoder adds x - 1 to 3, a line
    through the middle of slope 1, and lets the spread be x.  As softplus(ln(2^n - 1)) = n ln 2, the
    deviations at x = 0 and x = ln 3 are .1 + .9 ln 2 and .1 + .9 * 2 ln 2.
    """
    learner = ConditionalNeuralProcess(linear([1, 0], [0, 1]), linear([-1, 0], [1, 0], [1, 1]))
    predict = learner.adapt(tf.constant([[0.0], [2.0]]), tf.constant([[1.0], [5.0]]))
    expected = [[2, 0.1 + 0.9 * math.log(2)], [2 + math.log(3), 0.1 + 1.8 * math.log(2)]]
    np.testing.assert_allclose(predict(tf.constant([[0.0], [math.log(3)]])), expected, rtol=1e-6)


# ---------------------------------------------------------------- plain loops


def random_likelihood(*shape, seed=0):
    """Targets, means and deviations."""
    random = np.random.default_rng(seed)
    return random.normal(size=shape), random.normal(size=shape), random.uniform(0.1, 2, shape)


@pytest.mark.parametrize("shape", [(5, 1), (2, 5, 4)])
def test_plain_loop_likelihood(shape):
    """eq-gaussian-likelihood: minus the logarithm of the density, one number at a time; scipy's."""
    targets, mean, deviation = random_likelihood(*shape)
    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        y, m, d = targets[index], mean[index], deviation[index]
        density = math.exp(-(((y - m) / d) ** 2) / 2) / math.sqrt(2 * math.pi * d**2)
        expected[index] = -math.log(density)
    found = gaussian_nll(targets, np.concatenate([mean, deviation], axis=-1))
    assert found.shape == shape[:-1]
    np.testing.assert_allclose(found, expected.mean(axis=-1), rtol=1e-12)
    np.testing.assert_allclose(expected, -stats.norm.logpdf(targets, mean, deviation), rtol=1e-12)


def loop_predictions(learner, support_x, support_y, query_x):
    """eq-neural-process, one point and one query at a time."""
    codes = []
    for x, y in zip(support_x, support_y, strict=True):
        codes.append(learner.encoder(np.array([[*x, *y]]))[0])
    code = sum(codes) / len(codes)
    predictions = []
    for x in query_x:
        decoded = learner.decoder(np.array([[*code, *x]]))[0]
        outputs = len(decoded) // 2
        deviations = [
            learner.smallest + (1 - learner.smallest) * math.log(1 + math.exp(spread))
            for spread in decoded[outputs:]
        ]
        predictions.append([*decoded[:outputs], *deviations])
    return np.array(predictions)


class SumOfCodes(ConditionalNeuralProcess):
    """Wrong: the code grows with the support set."""

    def adapt(self, support_x, support_y):
        code = tf.reduce_sum(self.encoder(tf.concat([support_x, support_y], axis=1)), axis=0)
        return lambda query_x: self.decode(code, query_x)


@pytest.mark.parametrize("kind, right", [(ConditionalNeuralProcess, True), (SumOfCodes, False)])
def test_plain_loop(float64, kind, right):
    """eq-neural-process after each number of points."""
    learner, task = random_learner(kind), one_task(regression=True)
    for shots in range(2, 9):
        some = task._replace(support_x=task.support_x[:shots], support_y=task.support_y[:shots])
        error = np.abs(predictions(learner, some) - loop_predictions(learner, *some[:3])).max()
        assert error < 1e-12 if right else error > 1e-2


# ---------------------------------------------------------------- what the equations imply


@pytest.mark.parametrize("kind, right", [(ConditionalNeuralProcess, True), (SumOfCodes, False)])
def test_the_same_points_twice_change_nothing(float64, kind, right):
    """eq-neural-process has a mean; a sum would double."""
    learner, task = random_learner(kind), one_task(regression=True)
    twice = {name: tf.repeat(getattr(task, name), 2, axis=0) for name in ("support_x", "support_y")}
    change = np.abs(predictions(learner, task._replace(**twice)) - predictions(learner, task)).max()
    assert change < 1e-12 if right else change > 1e-2


class WithoutSmallest(ConditionalNeuralProcess):
    """Wrong: any positive deviation."""

    def decode(self, code, query_x):
        mean, deviation = tf.split(super().decode(code, query_x), 2, axis=1)
        deviation = (deviation - self.smallest) / (1 - self.smallest)
        return tf.concat([mean, deviation], axis=1)


@pytest.mark.parametrize("smallest", [0.1, 0.5])
def test_no_deviation_is_below_the_smallest(float64, smallest):
    """eq-neural-process, and some come near it; beside a wrong version that goes below."""
    for kind in (ConditionalNeuralProcess, WithoutSmallest):
        learner = random_learner(kind, smallest=smallest)
        learner.decoder.set_weights([10 * w for w in learner.decoder.get_weights()])
        least = np.min(predictions(learner, one_task(regression=True))[:, 3:])
        if kind is ConditionalNeuralProcess:
            assert smallest <= least < 1.01 * smallest
        else:
            assert least < smallest


# ---------------------------------------------------------------- finite differences


class ConstantCode(ConditionalNeuralProcess):
    """Wrong: half of the code is a constant to the queries' loss."""

    def decode(self, code, query_x):
        return super().decode((code + tf.stop_gradient(code)) / 2, query_x)


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-gaussian-likelihood and eq-neural-process, beside wrong versions."""
    kinds = ConditionalNeuralProcess, ConstantCode, SumOfCodes
    check_meta_gradients(*map(random_learner, kinds), episode=random_episode(regression=True))


# ---------------------------------------------------------------- training

PROCESS = GaussianProcess()


def test_the_objective_by_hand():
    """eq-gaussian-likelihood averaged over all queries of all tasks: what ``fit`` logs."""
    learner = ConditionalNeuralProcess(mlutils.mlp(2, (8,), 8), mlutils.mlp(9, (8,), 2))
    learner.compile(keras.optimizers.SGD(0.0), gaussian_nll)
    inputs, query_y = element = next(iter(PROCESS.episodes(shots=4, queries=5, meta_batch=3)))
    by_hand = []
    for *task, targets in zip(*inputs, query_y, strict=True):
        for (mean, deviation), (y,) in zip(loop_predictions(learner, *task), targets, strict=True):
            nats = ((y - mean) / deviation) ** 2 / 2 + math.log(deviation * math.sqrt(2 * math.pi))
            by_hand.append(nats)
    logged = learner.fit(tf.data.Dataset.from_tensors(element), verbose=0).history["loss"][0]
    for loss in (logged, float(learner.meta_loss(element))):
        assert loss == pytest.approx(np.mean(by_hand), rel=1e-5)


def nats_above_the_ceiling(predict, tasks=300):
    """How much less likely each task's queries are than by the exact posterior."""
    inputs, query_y = next(iter(PROCESS.episodes(shots=6, meta_batch=tasks, seed=1)))

    def nats(predictions):
        return np.mean(gaussian_nll(query_y, predictions), axis=1)

    return mlutils.Score(nats(predict(inputs, query_y)) - nats(PROCESS.posterior(inputs)))


def test_fit_approaches_the_exact_posterior_and_stays_above_it():
    """eq-gaussian-likelihood: the exact posterior of eq-gp-posterior is the ceiling on average.

    Negative control: a predictor that has seen the answers is better than the ceiling allows.
    """
    encoder, decoder = mlutils.mlp(2, (32, 32), 32), mlutils.mlp(33, (32, 32), 2)
    learner = ConditionalNeuralProcess(encoder, decoder)
    learner.compile(keras.optimizers.Adam(3e-3), gaussian_nll)
    before = nats_above_the_ceiling(lambda inputs, _: learner(inputs))
    losses = learner.fit(PROCESS.episodes(), epochs=2, steps_per_epoch=75, verbose=0)
    assert losses.history["loss"][1] < losses.history["loss"][0]
    after = nats_above_the_ceiling(lambda inputs, _: learner(inputs))
    lowered = mlutils.Score(before.values - after.values)
    assert lowered.mean > 0.1 + lowered.ci95
    assert after.mean > after.ci95
    cheat = nats_above_the_ceiling(lambda _, y: tf.concat([y, 0.05 * tf.ones_like(y)], axis=2))
    assert cheat.mean < -cheat.ci95


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    "x, y, words",
    [
        ((5,), (5,), "allowed"),
        ((5, 2), (5,), "allowed"),
        ((2, 5, 2), (2, 5, 3), "allowed"),
        ((5, 2), (5, 1), "allowed"),
    ],
)
def test_wrong_support_set_raises(x, y, words):
    with pytest.raises(ValueError, match=words):
        random_learner().adapt(tf.zeros(x), tf.zeros(y))


@pytest.mark.parametrize(
    "targets, predictions", [((5, 1), (5, 3)), ((5, 2), (5, 2)), ((5,), (5, 2)), ((4, 1), (5, 2))]
)
def test_shapes_without_a_likelihood_raise(targets, predictions):
    with pytest.raises(ValueError, match="twice as many: means, then deviations"):
        gaussian_nll(tf.zeros(targets), tf.ones(predictions))


def test_the_stored_trainings_are_whole_and_the_ceiling_comes_again():
    stored = mlutils.stored_result("gaussian_process")
    done = [(run["steps"], run["seed"]) for run in stored["runs"]]
    assert done == list(itertools.product(benchmark.LENGTHS, benchmark.SEEDS))
    exact = benchmark.likelihoods(benchmark.PROCESS.posterior)
    assert {str(n): s.mean for n, s in exact.items()} == pytest.approx(stored["exact"], abs=2e-3)
    for run in stored["runs"]:  # nobody is above the ceiling
        assert all(run["nats"][n] < ceiling for n, ceiling in stored["exact"].items())
