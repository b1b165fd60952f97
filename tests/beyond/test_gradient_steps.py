"""The contest of gradient steps: its forward passes and steps, its stored starts and result."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils.networks import predict_with

bench = pytest.importorskip("benchmarks.gradient_steps")


@pytest.fixture(scope="module")
def stored():
    return mlutils.stored_result("gradient_steps")


@pytest.fixture(scope="module")
def starts():
    return {
        name: mlutils.stored_learner(f"gradient-steps-{name}")[0] for name in ("context", "maml")
    }


def tensors(variables):
    return [tf.convert_to_tensor(v) for v in variables]


def repeated(values, tasks=3):
    return [tf.repeat(v[tf.newaxis], tasks, 0) for v in values]


def moved_factors(theta, seed=1):
    factors = mlutils.low_rank_start(theta, bench.RANK, bench.kernels_of(theta))
    random = np.random.default_rng(seed)
    return [f + tf.constant(0.1 * random.normal(size=f.shape), f.dtype) for f in factors]


@pytest.mark.parametrize("moves", ["head", "LoRA", "all"])
def test_the_batched_transformer_is_the_learner(starts, moves):
    learner = starts["context"]
    theta = tensors(learner.trainable_variables)
    own = {"head": theta[-2:], "all": theta, "LoRA": moved_factors(theta)}[moves]
    weights = theta
    if moves == "LoRA":
        weights = mlutils.add_low_rank(theta, own, 1.0, bench.kernels_of(theta))
    x, y, _ = map(tf.constant, mlutils.noisy_sines(3, 9))
    batched = bench.Weights(theta, moves, repeated(own))
    with keras.StatelessScope(zip(learner.trainable_variables, weights, strict=True)):
        along = learner.answer_sequence(x, y)
        after = learner.answer(learner.summarize(x[:, :5], y[:, :5]), x[:, 5:])
    np.testing.assert_allclose(batched.transformer(x, y, x, True), along, atol=2e-5)
    found = batched.transformer(x[:, :5], y[:, :5], x[:, 5:], False)
    np.testing.assert_allclose(found, after, atol=2e-5)


@pytest.mark.parametrize("moves", ["head", "LoRA", "all"])
def test_the_batched_mlp_is_the_network(starts, moves):
    model = starts["maml"].model
    theta = tensors(model.trainable_variables)
    own = {"head": theta[-2:], "all": theta, "LoRA": moved_factors(theta)}[moves]
    weights = theta
    if moves == "LoRA":
        weights = mlutils.add_low_rank(theta, own, 1.0, bench.kernels_of(theta))
    x, _, _ = map(tf.constant, mlutils.noisy_sines(3, 9))
    found = bench.Weights(theta, moves, repeated(own)).mlp(x)
    for task in range(3):
        expected = predict_with(model, weights, x[task])
        np.testing.assert_allclose(found[task], expected, atol=2e-5)


def plain_path(monkeypatch, starts, name, moves, tries, stops):
    monkeypatch.setattr(bench, "theta_of", lambda start, seed: tensors(starts[start]))
    tasks = bench.tasks_of(len(tries), 5, 1.25, seed=3)
    return bench.Adapter(name, moves, 5).path(0, tasks, tries, stops)[0], tasks


def test_the_steps_are_those_of_maml_and_tasks_do_not_mix(monkeypatch, starts):
    """Five steps of SGD from MAML's start are its inner loop; each try has a rate of its own."""
    learner = starts["maml"]
    learner.compile(loss="mse")
    variables = {"maml": learner.model.trainable_variables}
    tries = [("SGD", 0.01), ("SGD", 0.0025), ("Adam", 0.005)]
    errors, (x, y, truth) = plain_path(monkeypatch, variables, "maml", "all", tries, (0, 5))
    for task in (0, 1):
        learner.inner_lr = tries[task][1]
        for row, steps in enumerate((0, 5)):
            found = learner.adapt(x[task, :5], y[task, :5], steps=steps)(x[task, 5:])
            expected = np.mean((found - truth[task, 5:]) ** 2)
            assert errors[row, task] == pytest.approx(expected, rel=1e-3)
    learner.inner_lr = 0.01
    model = keras.models.clone_model(learner.model)
    model.set_weights(learner.model.get_weights())
    optimizer = keras.optimizers.Adam(0.005)
    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x[2, :5]) - y[2, :5]) ** 2)
        slopes = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(slopes, model.trainable_variables, strict=True))
    expected = np.mean((model(x[2, 5:]) - truth[2, 5:]) ** 2)
    assert errors[1, 2] == pytest.approx(expected, rel=1e-3)


def test_the_loss_at_test_time_leaks_nothing(starts):
    """eq-test-time-training: an example's own target moves its own error alone, and later ones."""
    theta = tensors(starts["context"].trainable_variables)
    weights = bench.Weights(theta, "head", repeated(theta[-2:], 1))
    x, y, _ = map(tf.constant, mlutils.noisy_sines(1, 6))
    before = weights.transformer(x, y, x, True)[0, :, 0]
    other = y + tf.one_hot([3], 6)[..., tf.newaxis]
    change = np.abs(weights.transformer(x, other, x, True)[0, :, 0] - before)
    assert change[:4].max() < 1e-6 < 1e-4 < change[4:].max()
    leaks = np.abs(weights.transformer(x, other, x, False) - weights.transformer(x, y, x, False))
    assert leaks[0, 3, 0] > 1e-4  # all in the context: an example sees itself


@pytest.mark.parametrize("name", ["context", "maml"])
def test_the_stored_start_has_the_loss_of_its_record(starts, stored, name):
    run = stored["trainings"][name]["runs"][0]
    learner = starts[name]
    network = learner.model if name == "maml" else learner
    if name == "maml":
        loss = bench.maml_loss(network, run["setting"]["inner"])
    else:
        loss = bench.context_loss(network, 1.0, 1.0)
    loss = tf.function(loss, jit_compile=True)  # outside of XLA the same seed draws other tasks
    found = loss(tensors(network.trainable_variables), tf.constant([999, 0]), tasks=500)
    assert float(found) == pytest.approx(run["validation"][-1], rel=0.02)


def test_the_trainings_had_equal_tries_and_stopped_improving(stored):
    trainings = stored["trainings"]
    assert len(trainings["context"]["tries"]) == len(trainings["maml"]["tries"]) == 5
    for name in ("context", "maml"):
        runs = trainings[name]["runs"]
        assert [run["seed"] for run in runs] == list(bench.SEEDS)
        best = min(t["validation"][-1] or np.inf for t in trainings[name]["tries"])
        chosen = runs[0]["setting"]
        assert [t["setting"] for t in trainings[name]["tries"] if t["validation"][-1] == best] == [
            chosen
        ]
        for run in runs:
            assert 0.95 < run["validation"][-1] / run["validation"][15] < 1.05


@pytest.mark.parametrize("arm", bench.ARMS)
def test_the_result_is_complete(stored, arm):
    seeds = bench.WIDE_SEEDS if arm.startswith("wide") else bench.SEEDS
    for n in bench.PART.get(arm, bench.SHOWN):
        for w in bench.FREQUENCIES:
            cell = stored["cells"][f"{n} {w}"]
            result = cell["arms"][arm]
            assert cell["knows"] <= cell["believes 1"]
            assert len(result["errors"]) == len(result["zero"]) == len(seeds)
            assert result["tuned"]["steps"] in bench.MANY
            same = result["tuned"] == result["plain"]
            assert same or w != 1
            assert not same or result["errors"] == result["plain errors"]


def test_the_stored_ceilings_are_those_of_the_test_tasks(stored):
    found = bench.ceilings(5, 1.25)
    for name, value in found.items():
        assert stored["cells"]["5 1.25"][name] == pytest.approx(value, abs=2e-4)
