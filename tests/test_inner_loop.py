"""The inner loop beside Keras's optimizers, as a graph's loop beside single steps, and by hand."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import MAML, AdamRule, LSTMRule, MomentumRule, StepSize, descend, inner_loop
from mlutils.losses import mean_loss
from tests.maml.tasks import adapted, conv_model, random_episode, scalar_episode, scalar_learner
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def network_loss(weights, step, x, y):
    """Of a layer with a kernel and a bias, other at each step."""
    kernel, bias = weights
    scale = 1 + tf.cast(step, kernel.dtype) / 4
    return tf.reduce_mean((tf.tanh(x @ kernel + bias) - scale * y) ** 2)


def theta(seed=0):
    random = np.random.default_rng(seed)
    return [tf.Variable(random.normal(size=shape)) for shape in ((2, 3), (3,))]


def tasks(number=2):
    random = np.random.default_rng(1)
    return tuple(tf.constant(random.normal(size=(number, 4, size))) for size in (2, 3))


def of_one_task(weights, step):
    x, y = tasks()
    return network_loss(weights, step, x[0], y[0])


def tensors(variables):
    return [tf.convert_to_tensor(v) for v in variables]


# ---------------------------------------------------------------- values


SHARES = dict(beta_1=7 / 8, beta_2=15 / 16, epsilon=1e-12)  # Keras rounds them to float32


@pytest.mark.parametrize(
    "rule, optimizer",
    [
        (lambda: MomentumRule(0.1, 7 / 8), lambda: keras.optimizers.SGD(0.1, momentum=7 / 8)),
        (lambda: AdamRule(0.1, **SHARES), lambda: keras.optimizers.Adam(0.1, **SHARES)),
    ],
    ids=["momentum", "Adam"],
)
def test_steps_are_those_of_keras(float64, rule, optimizer):
    """... for each task by itself, and on a problem without tasks; more than five are a loop."""
    x, y = tasks()
    for steps in (5, 6):
        weights, *_ = descend(rule(), network_loss, tensors(theta()), steps, (x, y))
        alone, *_ = descend(rule(), of_one_task, tensors(theta()), steps)
        for task in range(2):
            variables, of_keras = theta(), optimizer()
            for step in range(steps):
                with tf.GradientTape() as tape:
                    loss = network_loss(tensors(variables), step, x[task], y[task])
                of_keras.apply(tape.gradient(loss, variables), variables)
            found = flatten(w[task] for w in weights)
            np.testing.assert_allclose(found, flatten(variables), rtol=1e-9)
            if task == 0:
                np.testing.assert_allclose(flatten(alone), found, rtol=1e-9)


def test_no_steps_give_back_theta():
    start = tensors(theta())
    weights, *_ = descend(StepSize(), network_loss, start, 0, tasks())
    assert all(w is t for w, t in zip(weights, start, strict=True))


@pytest.mark.parametrize("steps", [2, 8])
def test_a_weight_without_a_rule_stays_and_is_shared(float64, steps):
    """It has no axis of tasks; the other moves as in plain descent down the same loss.

    Negative control: where both move, the bias ends elsewhere.
    """
    kernel, bias = tensors(theta())
    x, y = tasks()
    (same, moved), *_ = descend([None, StepSize(0.5)], network_loss, [kernel, bias], steps, (x, y))
    assert same is kernel and moved.shape == (2, 3)
    features = x @ kernel
    (expected,), *_ = descend(
        StepSize(0.5),
        lambda w, step, z, y: network_loss([tf.eye(3, dtype=z.dtype), w[0]], step, z, y),
        [bias],
        steps,
        (features, y),
    )
    np.testing.assert_allclose(moved, expected, rtol=1e-12)
    (_, other), *_ = descend(StepSize(0.5), network_loss, [kernel, bias], steps, (x, y))
    assert np.max(np.abs(other - moved)) > 1e-2


# ---------------------------------------------------------------- a graph's loop

RULES = {
    "step sizes": lambda: StepSize(0.4, steps=3),
    "Adam": lambda: AdamRule(0.2, epsilon=1e-2),
    "LSTM": lambda: LSTMRule(units=2, layers=1, p=1),
}


@pytest.mark.parametrize(
    "kind, with_tasks",
    [("step sizes", True), ("Adam", True), ("LSTM", False)],
)
def test_twelve_steps_in_a_loop_are_twelve_steps(float64, monkeypatch, kind, with_tasks):
    """Values and second-order gradients; negative control: first-order gradients are others."""
    rule, variables = RULES[kind](), theta()

    def loss(**options):
        problem = (network_loss, tasks()) if with_tasks else (of_one_task, None)
        weights, *_ = descend(rule, problem[0], tensors(variables), 12, problem[1], **options)
        return tf.add_n([tf.reduce_sum(tf.sin(w)) for w in weights])

    def in_a_graph(**options):
        sources = [*variables, *(v.value for v in rule.trainable_variables)]

        @tf.function
        def both():
            with tf.GradientTape() as tape:
                value = loss(**options)
            # The gradient of a gather is sparse.
            return value, [tf.convert_to_tensor(g) for g in tape.gradient(value, sources)]

        operations = [op.type for op in both.get_concrete_function().graph.get_operations()]
        value, gradients = both()
        return any("While" in kind for kind in operations), float(value), flatten(gradients)

    loops, value, gradients = in_a_graph()
    *_, first_order = in_a_graph(first_order=True)
    looped_again, same, again = in_a_graph(recompute=True)
    assert looped_again and same == pytest.approx(value, rel=1e-12)
    assert relative_error(again, gradients) < 1e-9
    reference = finite_differences(loss, variables)
    monkeypatch.setattr(inner_loop, "UNROLLED", 12)
    unrolled_loops, expected, unrolled = in_a_graph()
    assert loops and not unrolled_loops
    assert value == pytest.approx(expected, rel=1e-12)
    assert relative_error(gradients, unrolled) < 1e-9
    assert relative_error(gradients[:9], reference) < RELATIVE_TOLERANCE
    assert relative_error(first_order[:9], reference) > 1e-3


def stored_for_the_gradient(learner, episode):
    """How many tensors the inner loop hands from each of its steps to the meta-gradient."""

    @tf.function
    def both():
        with tf.GradientTape() as tape:
            support_x, support_y, query_x = episode[0]
            value = tf.reduce_sum(learner.solve(support_x, support_y, query_x))
        return tape.gradient(value, learner.trainable_variables)

    graph = both.get_concrete_function().graph
    loop = next(op for op in graph.get_operations() if "While" in op.type)
    return sum(output.dtype == tf.variant for output in loop.outputs)


@pytest.mark.parametrize("kind", [MAML, mlutils.MetaSGD, mlutils.ANIL])
def test_recomputing_steps_keeps_little_and_gives_the_same_gradient(float64, kind):
    """What is kept: each weight, a kernel and a bias in two layers, and which step it is.

    Negative control: without recomputing it is more.
    """
    network, episode = mlutils.mlp(1, (8,), 1), next(iter(mlutils.data.sinusoids(meta_batch=2)))
    kept, gradients = [], []
    for recompute in (False, True):
        learner = kind(network, 0.1, inner_steps=7, recompute=recompute)
        learner.compile(loss="mse")
        kept.append(stored_for_the_gradient(learner, episode))
        gradients.append(flatten(learner.meta_gradients(episode)[1]))
        again = type(learner).from_config(learner.get_config())
        assert again.recompute is recompute
    assert relative_error(*gradients) < 1e-12
    assert kept[1] <= 5 < kept[0]


def test_recomputing_eagerly_twice_and_with_a_weight_that_stays(float64):
    """As a loop of the graph; negative control: a persistent tape that reads a record once."""
    gradients = []
    for recompute in (False, True):
        kernel, bias = tensors(theta())
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([kernel, bias])
            rules, options = [None, StepSize(0.5)], {"recompute": recompute}
            weights, *_ = descend(rules, network_loss, [kernel, bias], 8, tasks(), **options)
            value = tf.reduce_sum(tf.sin(weights[1]))
        found = [flatten(tape.gradient(value, [kernel, bias])) for _ in range(2)]
        np.testing.assert_allclose(*found, rtol=1e-12)
        gradients.append(found[0])
    assert relative_error(*gradients) < 1e-9


def test_a_recomputing_learner_adapts_as_another(float64):
    """ProtoMAML's head starts at the class means, and a user's own tape goes through them."""
    (x, y, query_x), _ = next(iter(mlutils.data.glyphs("train").episodes(ways=3, meta_batch=1)))
    x, y, query_x = (tf.constant(np.asarray(part[0])) for part in (x, y, query_x))
    encoder = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten()])
    encoder.add(keras.layers.Dense(4))
    gradients = []
    for recompute in (False, True):
        learner = mlutils.ProtoMAML(encoder, 0.1, 4, recompute=recompute)
        learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.sin(learner.adapt(x, y)(query_x)))
        gradients.append(flatten(tape.gradient(value, [v.value for v in encoder.weights])))
    assert relative_error(*gradients) < 1e-9


def test_a_hundred_steps_are_traced_in_seconds():
    """Of this process, whatever else the machine does; written out they took 53."""
    learner = MAML(mlutils.mlp(hidden=(8,)), inner_steps=100)
    learner.compile(loss="mse")
    episode = next(iter(mlutils.data.sinusoids(meta_batch=2)))
    start = time.process_time()
    loss, _ = learner.meta_gradients(episode)
    assert time.process_time() - start < 15
    assert np.isfinite(loss)


# ---------------------------------------------------------------- rules in MAML


def test_a_learned_step_size_by_hand():
    """eq-maml-inner with a learned alpha = 1/2 on the pocket quartic: theta' = 1 - 1/2 = 1/2.

    dJ/dalpha = -grad L^S(theta) grad L^Q(theta') = -1 * (1/2 - 3/2)^3 = 1, dJ/dtheta = 1/2.
    """
    learner = scalar_learner(inner_lr=99, rule=StepSize(0.5))
    assert adapted(learner) == pytest.approx(1 / 2)
    assert [v.path.split("/")[-1] for v in learner.trainable_variables] == ["kernel", "alpha"]
    _, gradients = learner.meta_gradients(scalar_episode())
    np.testing.assert_allclose(flatten(gradients), [1 / 2, 1], rtol=1e-6)


def test_each_step_has_an_alpha_of_its_own_and_further_steps_the_last():
    """eq-maml-inner with alpha_0 = 1/2 and alpha_1 = 1/4 on the pocket quartic.

    theta^1 = 1 - 1/2 * 1 = 1/2, theta^2 = 1/2 - 1/4 * 1/8 = 15/32; a third step uses 1/4 again.
    With g = grad L^Q(theta^2) = (15/32 - 3/2)^3 = (-33/32)^3:
    dJ/dalpha_1 = -grad L^S(theta^1) g           = -1/8 g,
    dJ/dalpha_0 = -1 * (1 - 1/4 * 3 (1/2)^2) g   = -13/16 g.
    Negative control: in the other order theta^2 = 3/4 - 1/2 * 27/64 = 69/128.
    """
    learner = scalar_learner(inner_steps=2, rule=StepSize(steps=2))
    learner.rule.alpha.assign([0.5, 0.25])
    weight = [1.0, 1 / 2]
    for _ in range(6):
        weight.append(weight[-1] - weight[-1] ** 3 / 4)
    for steps in (1, 2, 3, 7):
        assert adapted(learner, steps) == pytest.approx(weight[steps], rel=1e-6)
    assert adapted(learner) == pytest.approx(15 / 32, rel=1e-6) != pytest.approx(69 / 128, rel=1e-2)
    g = (-33 / 32) ** 3
    _, (_, alphas) = learner.meta_gradients(scalar_episode())
    np.testing.assert_allclose(alphas, [-13 / 16 * g, -g / 8], rtol=1e-6)


def test_a_rule_on_images_equals_finite_differences(float64):
    """Momentum through seven steps, of which all but the first are a loop, on convolutions."""
    learner = MAML(conv_model(), inner_steps=7, rule=MomentumRule(0.3, 0.5))
    learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    episode = random_episode(learner.model, support=3, queries=2)
    variables = learner.trainable_variables
    reference = finite_differences(lambda: learner.meta_loss(episode), variables[2:])
    _, gradients = learner.meta_gradients(episode)
    assert relative_error(flatten(gradients[2:]), reference) < RELATIVE_TOLERANCE


@pytest.mark.parametrize(
    "loss, function, labels",
    [
        (keras.losses.MeanSquaredError(), keras.losses.mean_squared_error, False),
        (keras.losses.Huber(delta=0.5), lambda y, p: keras.losses.huber(y, p, 0.5), False),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True),
            True,
        ),
    ],
)
def test_a_loss_object_counts_as_its_function(float64, loss, function, labels):
    """On one device Keras's own call is the same number."""
    random = np.random.default_rng(0)
    predictions = tf.constant(random.normal(size=(2, 5, 3)))
    targets = random.integers(0, 3, (2, 5)) if labels else random.normal(size=(2, 5, 3))
    found = float(mean_loss(loss, targets, predictions))
    assert found == pytest.approx(np.mean(function(targets, predictions)), rel=1e-6)
    assert found == pytest.approx(float(loss(targets, predictions)), rel=1e-6)
