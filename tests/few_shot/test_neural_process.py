"""The conditional neural process: by hand, by a plain loop over points, beside wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import mlutils
from mlutils import ConditionalNeuralProcess, gaussian_nll
from mlutils.data import GaussianProcess
from tests.few_shot.tasks import random_episode
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def linear(*kernel):
    """A model that multiplies by this matrix."""
    kernel = np.array(kernel, float)
    dense = keras.layers.Dense(kernel.shape[1], use_bias=False)
    model = keras.Sequential([keras.Input((kernel.shape[0],)), dense])
    model.set_weights([kernel])
    return model


def random_learner(kind=ConditionalNeuralProcess, seed=0, **options):
    """Two inputs, three outputs; weights and biases so large that nothing is nearly linear."""
    encoder, decoder = (mlutils.mlp(5, (3,), size, activation="tanh") for size in (3, 6))
    learner = kind(encoder, decoder, **options)
    random = np.random.default_rng(seed)
    learner.set_weights([random.normal(size=w.shape) for w in learner.get_weights()])
    learner.compile(loss=gaussian_nll)
    return learner


def task_and_predictions(learner):
    """One task's support set and queries, and what the learner predicts for these."""
    (support_x, support_y, query_x), _ = random_episode(tasks=1, regression=True).element
    predict = learner.adapt(support_x[0], support_y[0])
    return support_x[0], support_y[0], query_x[0], predict(query_x[0]).numpy()


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


@pytest.mark.parametrize("shape", [(5, 1), (4, 3), (2, 3, 1), (2, 5, 4)])
def test_plain_loop_likelihood(shape):
    """eq-gaussian-likelihood: minus the logarithm of the density, one number at a time."""
    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        y, mean, deviation = (values[index] for values in random_likelihood(*shape))
        density = math.exp(-(((y - mean) / deviation) ** 2) / 2)
        expected[index] = -math.log(density / math.sqrt(2 * math.pi * deviation**2))
    targets, *predictions = random_likelihood(*shape)
    found = gaussian_nll(targets, np.concatenate(predictions, axis=-1))
    assert found.shape == shape[:-1]
    np.testing.assert_allclose(found, expected.mean(axis=-1), rtol=1e-12)


def test_likelihood_beside_scipy():
    """eq-gaussian-likelihood."""
    targets, mean, deviation = random_likelihood(50, 2)
    found = gaussian_nll(targets, np.concatenate([mean, deviation], axis=1))
    expected = -stats.norm.logpdf(targets, mean, deviation).mean(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


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
    learner = random_learner(kind)
    support_x, support_y, query_x, _ = task_and_predictions(learner)
    for shots in range(2, 9):
        found = learner.adapt(support_x[:shots], support_y[:shots])(query_x)
        expected = loop_predictions(learner, support_x[:shots], support_y[:shots], query_x)
        assert found.shape == (5, 6)
        error = np.abs(found - expected).max()
        assert error < 1e-12 if right else error > 1e-2


def test_a_batch_equals_one_task_at_a_time(float64):
    learner, (inputs, _) = random_learner(), random_episode(tasks=4, regression=True).element
    together = learner(inputs)
    assert together.shape == (4, 5, 6)
    for *support, query_x, predictions in zip(*inputs, together, strict=True):
        np.testing.assert_allclose(learner.adapt(*support)(query_x), predictions, atol=1e-12)


def test_shapes_unknown_to_the_graph(float64):
    learner, (inputs, _) = random_learner(), random_episode(regression=True).element
    signature = [tf.TensorSpec((None, None, size), tf.float64) for size in (2, 3, 2)]
    in_graph = tf.function(lambda *task: learner(task), input_signature=signature)
    np.testing.assert_allclose(in_graph(*inputs), learner(inputs), atol=1e-12)


# ---------------------------------------------------------------- what the equations imply


def test_the_order_of_the_support_set_does_not_matter(float64):
    """eq-neural-process has a mean.  Negative control: moving the inputs without their targets."""
    learner = random_learner()
    support_x, support_y, query_x, before = task_and_predictions(learner)
    order = np.random.default_rng(1).permutation(8)
    moved_x, moved_y = tf.gather(support_x, order), tf.gather(support_y, order)
    np.testing.assert_allclose(learner.adapt(moved_x, moved_y)(query_x), before, atol=1e-12)
    assert np.abs(learner.adapt(moved_x, support_y)(query_x) - before).max() > 1e-2


@pytest.mark.parametrize("kind, right", [(ConditionalNeuralProcess, True), (SumOfCodes, False)])
def test_the_same_points_twice_change_nothing(float64, kind, right):
    """eq-neural-process has a mean; a sum would double."""
    learner = random_learner(kind)
    support_x, support_y, query_x, before = task_and_predictions(learner)
    twice = tf.repeat(support_x, 2, axis=0), tf.repeat(support_y, 2, axis=0)
    change = np.abs(learner.adapt(*twice)(query_x) - before).max()
    assert change < 1e-12 if right else change > 1e-2


def test_queries_do_not_see_each_other(float64):
    learner = random_learner()
    support_x, support_y, query_x, together = task_and_predictions(learner)
    predict = learner.adapt(support_x, support_y)
    for i in (3, 0, 2, 4, 1, 3):
        np.testing.assert_allclose(predict(query_x[i : i + 1])[0], together[i], atol=1e-12)
    np.testing.assert_allclose(predict(query_x[::-1]), together[::-1], atol=1e-12)


class WithoutSmallest(ConditionalNeuralProcess):
    """Wrong: any positive deviation."""

    def decode(self, code, query_x):
        mean, deviation = tf.split(super().decode(code, query_x), 2, axis=1)
        deviation = (deviation - self.smallest) / (1 - self.smallest)
        return tf.concat([mean, deviation], axis=1)


@pytest.mark.parametrize("smallest", [0.01, 0.1, 0.5])
def test_no_deviation_is_below_the_smallest(float64, smallest):
    """eq-neural-process, and some come near it; beside a wrong version that goes below."""
    for kind in (ConditionalNeuralProcess, WithoutSmallest):
        learner = random_learner(kind, smallest=smallest)
        learner.decoder.set_weights([10 * w for w in learner.decoder.get_weights()])
        least = np.min(task_and_predictions(learner)[3][:, 3:])
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
    episode, learner = random_episode(regression=True), random_learner()
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    errors = []
    for kind in (ConditionalNeuralProcess, ConstantCode, SumOfCodes):
        _, gradients = random_learner(kind).meta_gradients(episode)
        errors.append(relative_error(flatten(gradients), reference))
    right, *wrong = errors
    assert right < RELATIVE_TOLERANCE
    assert min(wrong) > 1e-2


# ---------------------------------------------------------------- training

PROCESS = GaussianProcess()


def regressor(units=8, optimizer="sgd", **options):
    """One input, one output."""
    encoder = mlutils.mlp(2, (units, units), units)
    decoder = mlutils.mlp(1 + units, (units, units), 2)
    learner = ConditionalNeuralProcess(encoder, decoder, **options)
    learner.compile(optimizer=optimizer, loss=gaussian_nll)
    return learner


def test_logged_validation_and_hand_computed_loss_agree():
    """The objective: eq-gaussian-likelihood averaged over all queries of all tasks."""
    learner = regressor(optimizer=keras.optimizers.SGD(0.0))
    inputs, query_y = element = next(iter(PROCESS.episodes(shots=4, queries=5, meta_batch=3)))
    by_hand = []
    for *task, targets in zip(*inputs, query_y, strict=True):
        for (mean, deviation), (y,) in zip(loop_predictions(learner, *task), targets, strict=True):
            nats = ((y - mean) / deviation) ** 2 / 2 + math.log(deviation * math.sqrt(2 * math.pi))
            by_hand.append(nats)
    batches = tf.data.Dataset.from_tensors(element)
    logged = learner.fit(batches, validation_data=batches, verbose=0).history
    for loss in (
        logged["loss"][0],
        logged["val_loss"][0],
        learner.evaluate(batches, verbose=0),
        float(learner.meta_loss(element)),
    ):
        assert loss == pytest.approx(np.mean(by_hand), rel=1e-5)


def nats_above_the_ceiling(predict, tasks=600):
    """How much less likely each task's queries are than by the exact posterior."""
    inputs, query_y = next(iter(PROCESS.episodes(shots=6, meta_batch=tasks, seed=1)))

    def nats(predictions):
        return np.mean(gaussian_nll(query_y, predictions), axis=1)

    return mlutils.Score(nats(predict(inputs, query_y)) - nats(PROCESS.posterior(inputs)))


def test_fit_approaches_the_exact_posterior_and_stays_above_it():
    """eq-gaussian-likelihood: the exact posterior of eq-gp-posterior is the ceiling on average.

    Negative control: a predictor that has seen the answers is better than the ceiling allows.
    """
    learner = regressor(units=32, optimizer=keras.optimizers.Adam(3e-3))
    before = nats_above_the_ceiling(lambda inputs, _: learner(inputs))
    losses = learner.fit(PROCESS.episodes(), epochs=2, steps_per_epoch=150, verbose=0)
    assert losses.history["loss"][1] < losses.history["loss"][0]
    after = nats_above_the_ceiling(lambda inputs, _: learner(inputs))
    lowered = mlutils.Score(before.values - after.values)
    assert lowered.mean > 0.1 + lowered.ci95
    assert after.mean > after.ci95
    cheat = nats_above_the_ceiling(lambda _, y: tf.concat([y, 0.05 * tf.ones_like(y)], axis=2))
    assert cheat.mean < -cheat.ci95


def test_other_shots_than_in_training():
    learner = regressor()
    learner.fit(PROCESS.episodes(shots=4), steps_per_epoch=2, verbose=0)
    for shots in (1, 20):
        batches = PROCESS.episodes(shots=shots)
        loss = learner.evaluate(batches, steps=1, verbose=0)
        assert loss == pytest.approx(float(learner.meta_loss(next(iter(batches)))), rel=1e-5)


def test_saved_and_loaded_learner_goes_on_exactly(tmp_path):
    batches = PROCESS.episodes()
    learner = regressor(optimizer=keras.optimizers.Adam(1e-2), smallest=0.3)
    learner.fit(batches, steps_per_epoch=3, verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded) is ConditionalNeuralProcess and loaded.smallest == 0.3
    inputs, _ = next(iter(batches))
    for one in (learner, loaded):
        one.fit(batches, steps_per_epoch=3, verbose=0)
    np.testing.assert_array_equal(learner(inputs), loaded(inputs))


# ---------------------------------------------------------------- wrong input


def unbuilt():
    return keras.Sequential([keras.layers.Dense(2)])


def normalising():
    return keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])


@pytest.mark.parametrize(
    "network, error, words",
    [
        (lambda: "mlp", TypeError, "must be a keras.Model, got str"),
        (lambda: keras.layers.Dense(2), TypeError, "must be a keras.Model, got Dense"),
        (unbuilt, ValueError, "keras.Input"),
        (normalising, ValueError, "mlutils.BatchNorm"),
    ],
)
def test_wrong_networks_raise(network, error, words):
    with pytest.raises(error, match=f"encoder.*{words}"):
        ConditionalNeuralProcess(network(), mlutils.mlp(4, (), 2))
    with pytest.raises(error, match=f"decoder.*{words}"):
        ConditionalNeuralProcess(mlutils.mlp(2, (), 3), network())


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_decoder_whose_outputs_cannot_be_halved_raises(outputs):
    with pytest.raises(ValueError, match=f"gives .*{outputs}.; it must be .None, 2 outputs"):
        ConditionalNeuralProcess(mlutils.mlp(2, (), 3), mlutils.mlp(4, (), outputs))


@pytest.mark.parametrize("smallest", [0, -0.1, 1, 3.0, np.nan, "1", True])
def test_wrong_smallest_raises(smallest):
    with pytest.raises(ValueError, match="smallest must be"):
        ConditionalNeuralProcess(mlutils.mlp(2, (), 3), mlutils.mlp(4, (), 2), smallest=smallest)


@pytest.mark.parametrize(
    "x, y, words",
    [
        ((0, 1), (0, 1), "at least 1"),
        ((5, 1), (4, 1), "the same in both"),
        ((), (), "first axis counts"),
        ((5,), (5,), r"allowed are \(S, inputs\) and \(S, outputs\)"),
        ((5, 1), (5,), r"allowed are \(S, inputs\) and \(S, outputs\)"),
        ((2, 5, 1), (2, 5, 1), r"allowed are \(S, inputs\) and \(S, outputs\)"),
        ((5, 2), (5, 1), "expected axis -1 of input shape to have value 2"),
        ((5, 1), (5, 2), "expected axis -1 of input shape to have value 2"),
    ],
)
def test_wrong_support_set_raises(x, y, words):
    with pytest.raises(ValueError, match=words):
        regressor().adapt(tf.zeros(x), tf.zeros(y))


def test_tasks_without_support_raise():
    with pytest.raises(ValueError, match="at least 1"):
        regressor()((tf.zeros((2, 0, 1)), tf.zeros((2, 0, 1)), tf.zeros((2, 5, 1))))


@pytest.mark.parametrize(
    "targets, predictions",
    [((5, 1), (5, 3)), ((5, 2), (5, 2)), ((5,), (5, 2)), ((4, 1), (5, 2)), ((5, 1), (2,))],
)
def test_shapes_without_a_likelihood_raise(targets, predictions):
    with pytest.raises(ValueError, match="twice as many: means, then deviations"):
        gaussian_nll(tf.zeros(targets), tf.ones(predictions))


def test_no_prediction_without_a_support_set():
    with pytest.raises(NotImplementedError, match="without a support set"):
        regressor().unadapted()
