"""The unroll and the training through it: by hand, by finite differences, by wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import LSTMRule, RuleTrainer, StepSize, UpdateRule, unroll
from mlutils.data import Quadratics
from mlutils.optimizer_based import step_weights
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error

# ---------------------------------------------------------------- values derived by hand


def quartic(theta, problem=None, step=None):
    return tf.reduce_sum(theta**4, -1) / 4


ONE = tf.ones((1, 1), tf.float64)
THETA = [1, 1 / 2, 7 / 16]


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(
    "weights, values",
    [
        ("ones", [1]),
        ("last", [0, 1]),
        ("ones", [1, 1]),
        ("increasing", [1 / 2, 1]),
        ([3.0, 0.0], [3, 0]),
        ([0.25, 5.0], [0.25, 5]),
    ],
)
def test_pocket_quartic(float64, weights, values, first_order):
    """eq-unrolled-objective, eq-step-size-gradient and eq-unrolled-gradient on pocket numbers.

    f(theta) = theta^4 / 4, grad f = theta^3, H = 3 theta^2; theta_0 = 1, alpha = 1/2.

    Step 1: theta_1 = 1 - 1/2 * 1     = 1/2,   d theta_1 = -1.
    Step 2: theta_2 = 1/2 - 1/2 * 1/8 = 7/16,
            d theta_2 = d theta_1 - theta_1^3 - alpha H(theta_1) d theta_1 = -1 - 1/8 + 3/8 = -3/4.

    T = 1: J = f(1/2),           dJ = -grad f(1/2) grad f(1) = -1/8.
    T = 2: J = f(1/2) + f(7/16), dJ = -1/8 - 3/4 * 343/4096.
    First order: the term with H is not there, d theta_2 = -9/8; of T = 1 nothing is missing.
    """
    trainer = RuleTrainer(
        StepSize(0.5), quartic, steps=len(values), weights=weights, first_order=first_order
    )
    loss, (gradient,) = trainer.meta_gradients((ONE, ()))
    one, two = THETA[1:]
    terms = [one**4 / 4, two**4 / 4]
    slopes = [-1 / 8, -(9 / 8 if first_order else 3 / 4) * 343 / 4096]
    assert float(loss) == pytest.approx(np.dot(values, terms[: len(values)]), rel=1e-14)
    assert float(gradient) == pytest.approx(np.dot(values, slopes[: len(values)]), rel=1e-14)


@pytest.mark.parametrize(
    "steps, by_alpha, by_theta", [(1, -1, 1 - 3 / 2), (2, -3 / 4, (1 - 3 / 2) * (1 - 3 / 8))]
)
def test_values_and_theta_of_the_pocket_quartic(float64, steps, by_alpha, by_theta):
    """eq-update-rule: theta_0, 1/2, 7/16; the values are f(theta_0) to f(theta_T).

    eq-unrolled-gradient: d theta_T / d alpha is as above, d theta_t / d theta_0 takes on a factor
    I - alpha H(theta_{t-1}) with each step.
    """
    rule = StepSize(0.5)
    with tf.GradientTape() as tape:
        tape.watch(ONE)
        values, theta, state = unroll(rule, quartic, ONE, steps)
    np.testing.assert_allclose(values[:, 0], np.array(THETA[: steps + 1]) ** 4 / 4, rtol=1e-15)
    assert theta.numpy().item() == THETA[steps]
    assert state == ()
    found = tape.gradient(theta, [rule.alpha.value, ONE])
    np.testing.assert_array_equal(flatten(found), [by_alpha, by_theta])


class Momentum(UpdateRule):
    """g_t = h_t = beta h_{t-1} - alpha grad, with phi = (alpha, beta)."""

    def __init__(self, alpha, beta):
        super().__init__()
        self.phi = self.add_weight(shape=(2,))
        self.phi.assign([alpha, beta])

    def initial_state(self, shape):
        return (tf.zeros(shape, self.compute_dtype),)

    def call(self, gradient, state):
        alpha, beta = tf.unstack(self.phi)
        update = beta * state[0] - alpha * gradient
        return update, (update,)


def test_momentum_by_hand(float64):
    """eq-update-rule and eq-unrolled-gradient with a state, f(theta) = theta^2 / 2, alpha = 1/2.

    beta = 1/4, theta_0 = 1.  Step 1: h = -1/2, theta = 1/2.  Step 2: h = -1/8 - 1/4 = -3/8,
    theta = 1/8.  Step 3: h = -3/32 - 1/16 = -5/32, theta = -1/32.

    By beta: dh_1 = 0, dtheta_1 = 0.  dh_2 = h_1 + 0 = -1/2, dtheta_2 = -1/2.
    dh_3 = h_2 + beta dh_2 - alpha dtheta_2 = -3/8 - 1/8 + 1/4 = -1/4, dtheta_3 = -3/4.
    By alpha: dh_1 = dtheta_1 = -1.  dh_2 = -1/4 - 1/2 + 1/2 = -1/4, dtheta_2 = -5/4.
    dh_3 = -1/16 - 1/8 + 5/8 = 7/16, dtheta_3 = -13/16.
    With weight on the last step only, dJ = theta_3 dtheta_3, theta_3 = -1/32.
    """

    def half_square(theta, problem=None, step=None):
        return tf.reduce_sum(theta**2, -1) / 2

    rule = Momentum(0.5, 0.25)
    values, theta, (state,) = unroll(rule, lambda theta, step: half_square(theta), ONE, 3)
    np.testing.assert_array_equal(2 * values[:, 0], np.array([1, 1 / 2, 1 / 8, -1 / 32]) ** 2)
    assert (theta.numpy().item(), state.numpy().item()) == (-1 / 32, -5 / 32)
    trainer = RuleTrainer(rule, half_square, steps=3, weights="last")
    _, gradients = trainer.meta_gradients((ONE, ()))
    np.testing.assert_array_equal(gradients[0], [13 / 16 / 32, 3 / 4 / 32])


@pytest.mark.parametrize("coordinates", [None, 3])
def test_the_gradient_of_one_step_by_the_step_size(float64, coordinates):
    """eq-step-size-gradient: dJ/dalpha = -grad f(theta_1) . grad f(theta_0), the functions' mean.

    With alpha of each coordinate the products are not summed.  Negative control: grad f at
    theta_0 twice.
    """
    theta, problem = random_problems()
    rule = StepSize(1 / 16, coordinates)
    _, (found,) = RuleTrainer(rule, coupled, steps=1).meta_gradients((theta, problem))
    with tf.GradientTape() as tape:
        tape.watch(theta)
        value = coupled(theta, problem)
    before = tape.gradient(value, theta)
    theta = theta - before / 16
    with tf.GradientTape() as tape:
        tape.watch(theta)
        value = coupled(theta, problem)
    after = tape.gradient(value, theta)

    def mean(products):
        return np.mean(np.sum(products, 1) if coordinates is None else products, axis=0)

    np.testing.assert_allclose(found, mean(-after * before), rtol=1e-12)
    assert relative_error(found, mean(-before * before)) > 0.1


# ---------------------------------------------------------------- the steps


def random_problems(functions=2, coordinates=3, seed=0):
    random = np.random.default_rng(seed)
    theta, problem = random.normal(size=(2, functions, coordinates))
    return tf.constant(theta), tf.constant(problem)


def coupled(theta, problem, step=None):
    """sum theta^4 / 4 + (sum theta)^2 / 2 + products of neighbours, other ones in each function."""
    products = problem * theta * tf.roll(theta, 1, -1)
    return quartic(theta) + tf.reduce_sum(theta, -1) ** 2 / 2 + tf.reduce_sum(products, -1)


def stochastic(theta, problem, step):
    """Another function at each step: its tilt changes."""
    tilt = tf.reduce_sum(theta * tf.sin(problem + tf.cast(step, theta.dtype)), -1)
    return coupled(theta, problem) + tilt


def lstm_rule(scale=2.0, **options):
    """With large weights, so that the updates depend on the gradients visibly."""
    rule = LSTMRule(**{"units": 3, "p": 1, **options})
    random = np.random.default_rng(1)
    rule.set_weights([scale * random.normal(size=w.shape) for w in rule.get_weights()])
    return rule


RULES = {
    "lstm": lstm_rule,
    "step size": lambda: StepSize(1 / 16),
    "step sizes": lambda: StepSize(1 / 16, coordinates=3),
    "momentum": lambda: Momentum(0.05, 0.8),
}


@pytest.mark.parametrize("kind", RULES)
def test_the_unroll_in_a_plain_loop(float64, kind):
    """eq-update-rule: theta_t = theta_{t-1} + g_t, the gradient taken at theta_{t-1}.

    Negative control: subtracting g_t.
    """
    theta_0, problem = random_problems()
    rule = RULES[kind]()
    values, last, last_state = unroll(
        rule, lambda theta, step: stochastic(theta, problem, step), theta_0, 4
    )

    def loop(sign):
        theta, state, expected = theta_0, rule.initial_state((2, 3)), []
        for step in range(5):
            with tf.GradientTape() as tape:
                tape.watch(theta)
                expected.append(stochastic(theta, problem, step))
            if step < 4:
                update, state = rule(tape.gradient(expected[-1], theta), state)
                theta = theta + sign * update
        return expected, theta, state

    expected, theta, state = loop(1)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(last, theta, rtol=1e-12)
    assert len(last_state) == len(state)
    for found, wanted in zip(last_state, state, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)
    assert np.max(np.abs(loop(-1)[1] - last)) > 0.01


def test_going_on_equals_one_longer_run(float64):
    """eq-update-rule: (theta, state, t) is all there is.  Negative controls: two of them only."""
    theta, problem = random_problems()
    rule = lstm_rule()

    def run(*arguments, **options):
        return unroll(rule, lambda x, step: stochastic(x, problem, step), *arguments, **options)

    values, last, last_state = run(theta, 5)
    first, middle, state = run(theta, 2)
    second, end, end_state = run(middle, 3, state=state, start=2)
    np.testing.assert_allclose(first[:2], values[:2], rtol=1e-12)
    np.testing.assert_allclose(second, values[2:], rtol=1e-12)
    np.testing.assert_allclose(end, last, rtol=1e-12)
    for found, expected in zip(end_state, last_state, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    for wrong in (dict(start=2), dict(state=state)):
        _, end, _ = run(middle, 3, **wrong)
        assert np.max(np.abs(end - last)) > 0.01


@pytest.mark.parametrize("start", [0, 7])
def test_a_stochastic_function_is_asked_for_steps_0_to_t(start):
    """The values are those of steps start to start + T, each asked for once, also in a graph."""
    asked = []

    def function(theta, step):
        asked.append(int(step))
        assert step.dtype == tf.int32
        return tf.cast(step, theta.dtype) + tf.reduce_sum(theta, -1)

    unroll(StepSize(0.5), function, tf.zeros((1, 2)), 3, start=start)
    assert asked == list(range(start, start + 4))

    def number(theta, step):
        return tf.cast(step, theta.dtype) + 0 * tf.reduce_sum(theta, -1)

    rule = StepSize(0.5)
    graph = tf.function(lambda start: unroll(rule, number, tf.ones((1, 2)), 3, start=start))
    values, theta, _ = graph(tf.constant(start))
    np.testing.assert_array_equal(values[:, 0], asked)
    np.testing.assert_array_equal(theta, np.ones((1, 2)))


def test_step_t_uses_the_gradient_of_function_t_minus_1():
    """eq-update-rule with f_t(theta) = 10^t theta and alpha = 1: theta_T = -(1 + 10 + 100)."""

    def function(theta, step):
        return tf.pow(10.0, tf.cast(step, theta.dtype)) * tf.reduce_sum(theta, -1)

    values, theta, _ = unroll(StepSize(1.0), function, tf.zeros((1, 1)), 3)
    assert theta.numpy().item() == -111
    np.testing.assert_allclose(values[:, 0], [0, -10, -1100, -111000], rtol=1e-6)


def test_functions_do_not_mix(float64):
    """A batch of two functions is two runs; J is the mean over them (eq-unrolled-objective)."""
    theta, problem = random_problems()
    rule = lstm_rule()
    trainer = RuleTrainer(rule, coupled, steps=3)
    together = trainer.meta_gradients((theta, problem))
    alone = [trainer.meta_gradients((theta[i : i + 1], problem[i : i + 1])) for i in range(2)]
    assert float(together[0]) == pytest.approx(np.mean([loss for loss, _ in alone]), rel=1e-12)
    mean = np.mean([flatten(gradients) for _, gradients in alone], axis=0)
    assert relative_error(flatten(together[1]), mean) < 1e-12
    for i in range(2):
        values, last, _ = unroll(rule, lambda x, _: coupled(x, problem), theta, 3)
        one, end, _ = unroll(
            rule, lambda x, _, i=i: coupled(x, problem[i : i + 1]), theta[i : i + 1], 3
        )
        np.testing.assert_allclose(one[:, 0], values[:, i], rtol=1e-12)
        np.testing.assert_allclose(end[0], last[i], rtol=1e-12)


# ---------------------------------------------------------------- finite differences


def batch_loss(trainer, batch):
    return lambda: trainer.meta_loss(batch)


@pytest.mark.parametrize("kind", ["lstm", "step sizes", "momentum"])
def test_meta_gradient_equals_finite_differences(float64, kind):
    """eq-unrolled-gradient with H; negative control: the shortcut without it is something else."""
    batch, rule = random_problems(), RULES[kind]()
    trainer = RuleTrainer(rule, stochastic, steps=4, weights=[1.0, 0.0, 2.0, 0.5])
    reference = finite_differences(batch_loss(trainer, batch), rule.trainable_variables)
    loss, gradients = trainer.meta_gradients(batch)
    assert float(loss) == pytest.approx(float(trainer.meta_loss(batch)), rel=1e-13)
    assert relative_error(flatten(gradients), reference) < RELATIVE_TOLERANCE
    trainer.first_order = True
    same_loss, gradients = trainer.meta_gradients(batch)
    assert float(same_loss) == float(loss)
    assert relative_error(flatten(gradients), reference) > 1e-2


@pytest.mark.parametrize("kind", ["lstm", "step sizes", "momentum"])
def test_first_order_equals_finite_differences_with_frozen_gradients(float64, kind):
    """eq-unrolled-gradient without H: the derivative of a run whose gradients are given numbers.

    Only the rule's updates then depend on phi.  Negative control: with H it is something else.
    """
    (theta_0, problem), rule, weights = random_problems(), RULES[kind](), [1.0, 0.0, 2.0, 0.5]
    gradients, theta, state = [], theta_0, rule.initial_state(theta_0.shape)
    for step in range(4):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            value = stochastic(theta, problem, step)
        gradients.append(tape.gradient(value, theta))
        update, state = rule(gradients[-1], state)
        theta = theta + update

    def frozen():
        theta, state, loss = theta_0, rule.initial_state(theta_0.shape), 0.0
        for step, gradient in enumerate(gradients):
            update, state = rule(gradient, state)
            theta = theta + update
            value = stochastic(theta, problem, step + 1)
            loss += weights[step] * tf.reduce_mean(value)
        return loss

    reference = finite_differences(frozen, rule.trainable_variables)
    for first_order in (True, False):
        trainer = RuleTrainer(rule, stochastic, steps=4, weights=weights, first_order=first_order)
        loss, found = trainer.meta_gradients((theta_0, problem))
        assert float(loss) == pytest.approx(float(frozen()), rel=1e-12)
        error = relative_error(flatten(found), reference)
        assert error < RELATIVE_TOLERANCE if first_order else error > 1e-2


def jacobian(tape, output, sources):
    """All entries of one tensor by all entries of some others, a matrix."""
    options = dict(unconnected_gradients="zero", experimental_use_pfor=False)
    parts = tape.jacobian(output, sources, **options)
    return np.concatenate([np.reshape(part, (tf.size(output), -1)) for part in parts], axis=1)


def recursion(rule, batch, steps, hessian_at="before", with_state=True):
    """eq-unrolled-gradient with whole Jacobians: the gradient of J with all weights 1.

    ``hessian_at="after"`` takes H at theta_t, ``hessian_at=None`` leaves it out, and
    ``with_state=False`` leaves out dg/dh: only the default is right.
    """
    theta, problem = batch
    state = rule.initial_state(theta.shape)
    phi = [v.value for v in rule.trainable_variables]

    def gradient_and_hessian(theta):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(theta)
            with tf.GradientTape() as inner:
                inner.watch(theta)
                value = coupled(theta, problem)
            gradient = inner.gradient(value, theta)
        return gradient, jacobian(outer, gradient, [theta])

    width = sum(int(tf.size(v)) for v in phi)
    d_theta = np.zeros((tf.size(theta), width))
    d_state, total = np.zeros((sum(int(tf.size(h)) for h in state), width)), 0.0
    gradient, hessian = gradient_and_hessian(theta)
    for _ in range(steps):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([gradient, *state])
            update, new = rule(gradient, state)
        theta, old = theta + update, gradient
        gradient, hessian_after = gradient_and_hessian(theta)
        used = {"before": hessian, "after": hessian_after, None: 0 * hessian}[hessian_at]
        derivatives = [
            jacobian(tape, output, phi)
            + jacobian(tape, output, [old]) @ used @ d_theta
            + with_state * jacobian(tape, output, state) @ d_state
            for output in (update, *new)
        ]
        d_theta, d_state = d_theta + derivatives[0], np.concatenate(derivatives[1:])
        state, hessian = new, hessian_after
        total += np.ravel(gradient) @ d_theta / len(theta)
    return total


def test_the_recursion_written_out(float64):
    """eq-unrolled-gradient term by term, with and without H; wrong versions give other numbers."""
    batch = random_problems(functions=1, coordinates=2)
    rule = lstm_rule(4.0, units=2, layers=1, output_scale=0.3)
    full, shortcut = (
        flatten(
            RuleTrainer(rule, coupled, steps=3, first_order=first_order).meta_gradients(batch)[1]
        )
        for first_order in (False, True)
    )
    assert relative_error(recursion(rule, batch, 3), full) < 1e-12
    assert relative_error(recursion(rule, batch, 3, hessian_at=None), shortcut) < 1e-12
    assert relative_error(recursion(rule, batch, 3, hessian_at="after"), full) > 1e-2
    assert relative_error(recursion(rule, batch, 3, with_state=False), full) > 1e-2


def test_the_meta_gradient_in_a_graph(float64):
    """eq-unrolled-gradient from a tf.function, where the unroll is one loop, not many steps."""
    batch, rule = random_problems(), lstm_rule()
    for truncation in (None, 2):
        trainer = RuleTrainer(rule, stochastic, steps=4, truncation=truncation)
        loss, gradients = trainer.meta_gradients(batch)
        graph_loss, graph = tf.function(trainer.meta_gradients)(batch)
        assert float(graph_loss) == pytest.approx(float(loss), rel=1e-12)
        assert relative_error(flatten(graph), flatten(gradients)) < 1e-12


@pytest.mark.parametrize("make", [lambda: StepSize(1 / 16), lstm_rule])
def test_any_number_of_functions_in_one_graph(float64, make):
    """eq-update-rule with a leading dimension that the graph does not know."""
    rule = make()

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float64)] * 2)
    def run(theta, problem):
        return unroll(rule, lambda x, step: stochastic(x, problem, step), theta, 3)

    for functions in (1, 4):
        theta, problem = random_problems(functions)
        found = run(theta, problem)
        expected = unroll(rule, lambda x, step, p=problem: stochastic(x, p, step), theta, 3)
        for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)


def test_compiled_by_xla(float64):
    """eq-unrolled-gradient as Keras compiles ``fit`` by itself where there is a GPU."""
    batch = random_problems()
    trainer = RuleTrainer(StepSize(1 / 16), coupled, steps=4, truncation=2)
    loss, gradients = trainer.meta_gradients(batch)
    xla_loss, xla = tf.function(trainer.meta_gradients, jit_compile=True)(batch)
    assert float(xla_loss) == pytest.approx(float(loss), rel=1e-12)
    assert relative_error(flatten(xla), flatten(gradients)) < 1e-12


# ---------------------------------------------------------------- truncation


@pytest.mark.parametrize("first_order", [False, True])
def test_a_truncated_gradient_is_the_sum_of_its_segments(float64, first_order):
    """eq-unrolled-gradient from detached theta and state of each segment: starts 0, 2 and 4.

    Negative control: the whole trajectory's gradient is another one.
    """
    (theta_0, problem), rule = random_problems(), lstm_rule()
    weights = np.array([0.5, 1.0, 2.0, 0.0, 1.5, 1.0])
    options = dict(steps=6, weights=weights, first_order=first_order)
    loss, found = RuleTrainer(rule, stochastic, truncation=2, **options).meta_gradients(
        (theta_0, problem)
    )
    theta, state, expected, expected_loss = theta_0, None, 0.0, 0.0
    for start in (0, 2, 4):
        with tf.GradientTape() as tape:
            values, theta, state = unroll(
                rule,
                lambda x, step: stochastic(x, problem, step),
                theta,
                2,
                state,
                start,
                first_order,
            )
            part = tf.reduce_sum(weights[start : start + 2] * tf.reduce_mean(values[1:], 1))
        expected += flatten(tape.gradient(part, rule.trainable_variables))
        expected_loss += float(part)
        theta, state = tf.constant(theta.numpy()), tuple(tf.constant(s.numpy()) for s in state)
    assert float(loss) == pytest.approx(expected_loss, rel=1e-12)
    assert relative_error(flatten(found), expected) < 1e-12
    whole_loss, whole = RuleTrainer(rule, stochastic, **options).meta_gradients((theta_0, problem))
    assert float(whole_loss) == pytest.approx(float(loss), rel=1e-12)
    assert relative_error(flatten(found), flatten(whole)) > 1e-2


def test_truncation_of_all_steps_is_none(float64):
    batch, rule = random_problems(), lstm_rule()
    found = [
        flatten(RuleTrainer(rule, coupled, steps=4, truncation=t).meta_gradients(batch)[1])
        for t in (None, 4)
    ]
    np.testing.assert_array_equal(*found)


# ---------------------------------------------------------------- the weights of the steps


@pytest.mark.parametrize(
    "weights, numbers",
    [
        ("ones", [1, 1, 1, 1]),
        ("last", [0, 0, 0, 1]),
        ("increasing", [1 / 4, 1 / 2, 3 / 4, 1]),
        ([0.0, 3.0, 0.5, 0.0], [0, 3, 0.5, 0]),
        (np.array([1, 0, 0, 2]), [1, 0, 0, 2]),
    ],
)
def test_the_meta_loss_is_the_weighted_sum_of_mean_values(float64, weights, numbers):
    """eq-unrolled-objective: J = sum_t w_t mean f(theta_t), t from 1, f(theta_0) without a weight.

    Negative control: the values from f(theta_0) on.
    """
    found = step_weights(weights, 4)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, numbers)
    (theta, problem), rule = random_problems(), lstm_rule()
    loss = float(RuleTrainer(rule, coupled, steps=4, weights=weights).meta_loss((theta, problem)))
    values, _, _ = unroll(rule, lambda x, _: coupled(x, problem), theta, 4)
    means = np.mean(values, axis=1)
    assert loss == pytest.approx(np.dot(numbers, means[1:]), rel=1e-12)
    assert abs(loss - np.dot(numbers, means[:-1])) > 1e-2


@pytest.mark.parametrize(
    "weights, words",
    [
        ("first", r"one of \('ones', 'last', 'increasing'\) or 3 numbers, got 'first'"),
        ([1.0, 1.0], "3 finite numbers"),
        ([[1.0, 1.0, 1.0]], "3 finite numbers"),
        (1.0, "3 finite numbers"),
        (None, "3 finite numbers"),
        ([1.0, math.nan, 1.0], "3 finite numbers"),
        ([1.0, math.inf, 1.0], "3 finite numbers"),
        ([1.0, -0.1, 1.0], "at least 0"),
        ([0, 0, 0], "not all 0"),
    ],
)
def test_wrong_weights_raise(weights, words):
    """eq-unrolled-objective: w_t >= 0."""
    for use in (
        lambda: step_weights(weights, 3),
        lambda: RuleTrainer(StepSize(), quartic, steps=3, weights=weights),
    ):
        with pytest.raises(ValueError, match=f"^weights must be .*{words}"):
            use()


# ---------------------------------------------------------------- training


def trainer_of(rule, optimizer=None, function=Quadratics.values, **options):
    names = ("run_eagerly", "steps_per_execution")
    compiled = {name: options.pop(name) for name in names if name in options}
    trainer = RuleTrainer(rule, function, **{"steps": 4, **options})
    trainer.compile(optimizer=optimizer or keras.optimizers.SGD(1e-3), **compiled)
    return trainer


def one_batch(functions=16, dtype="float32", dimension=2):
    """One batch of quadratics, and a dataset that repeats it for ever."""
    batch = next(iter(Quadratics(dimension).problems(functions)))
    batch = tf.nest.map_structure(lambda x: tf.cast(x, dtype), batch)
    return batch, tf.data.Dataset.from_tensors(batch).repeat()


@pytest.mark.parametrize("first_order", [False, True])
def test_training_finds_the_best_step_size_for_one_step(first_order):
    """eq-step-size-gradient: its zero.  J(alpha) = mean f(theta - alpha g) is quadratic in alpha,

    with H = 2 W'W of each function, J' = -sum g.g + alpha sum g.Hg, over the number of functions,
    so alpha* = sum g.g / sum g.Hg.  Meta-SGD with half of Newton's learning rate halves the
    distance with each step.
    """
    (theta, (w, y)), batches = one_batch()
    g = 2 * tf.linalg.matvec(w, tf.linalg.matvec(w, theta) - y, transpose_a=True)
    g_h_g = 2 * tf.reduce_sum(tf.linalg.matvec(w, g) ** 2)
    best = float(tf.reduce_sum(g**2) / g_h_g)
    rule = StepSize(1e-4)
    newton = len(theta) / float(g_h_g)
    trainer = trainer_of(rule, keras.optimizers.SGD(newton / 2), steps=1, first_order=first_order)
    before = float(trainer.meta_loss((theta, (w, y))))
    losses = trainer.fit(batches, epochs=20, steps_per_epoch=1, verbose=0).history["loss"]
    after = float(trainer.meta_loss((theta, (w, y))))
    assert losses[0] == pytest.approx(before, rel=1e-5)
    assert np.isfinite(losses).all() and after < 0.9 * before
    assert (np.diff(losses) <= 1e-5 * before).all()
    assert float(rule.alpha) == pytest.approx(best, rel=1e-4)
    for other in (0.9 * best, 1.1 * best):
        rule.alpha.assign(other)
        assert float(trainer.meta_loss((theta, (w, y)))) > after


@pytest.mark.parametrize("rule", [lambda: StepSize(1e-4), lambda: LSTMRule(units=3)])
def test_fit_lowers_the_meta_loss(rule):
    """eq-unrolled-objective on functions that were not trained on, by a good part."""
    trainer = trainer_of(rule(), keras.optimizers.Adam(1e-2), steps=5, truncation=None)
    test, _ = one_batch(64)
    batches = Quadratics(2).problems(16, seed=1)
    before = float(trainer.meta_loss(test))
    history = trainer.fit(batches, epochs=3, steps_per_epoch=20, verbose=0).history
    assert list(history) == ["loss"] and np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    assert float(trainer.meta_loss(test)) < 0.8 * before


def test_fit_follows_the_meta_gradient(float64):
    """eq-unrolled-gradient: SGD moves phi by -0.01 dJ/dphi."""
    batch, batches = one_batch(3, "float64")
    trainer = trainer_of(lstm_rule(0.3), keras.optimizers.SGD(0.01))
    before = flatten(trainer.rule.get_weights())
    _, gradients = trainer.meta_gradients(batch)
    trainer.fit(batches, steps_per_epoch=1, verbose=0)
    after = flatten(trainer.rule.get_weights())
    np.testing.assert_allclose(after, before - 0.01 * flatten(gradients), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "optimizer", [lambda: keras.optimizers.SGD(0.1), lambda: keras.optimizers.Adam(0.01)]
)
def test_phi_is_updated_after_each_segment(float64, optimizer):
    """Two batches in a hand-written loop of segments, each with the phi that the last one left.

    Negative control: one update by the sum of the segments' gradients ends elsewhere.
    """
    batch, batches = one_batch(3, "float64")
    trainer = trainer_of(lstm_rule(1.0), optimizer(), steps=6, truncation=2, weights="increasing")
    history = trainer.fit(batches, epochs=2, steps_per_epoch=1, verbose=0).history

    rule, by_hand, losses = lstm_rule(1.0), optimizer(), []
    for _ in range(2):
        (theta, problem), state, loss = batch, None, 0.0
        for start in (0, 2, 4):
            with tf.GradientTape() as tape:
                values, theta, state = unroll(
                    rule, lambda x, _, p=problem: Quadratics.values(x, p), theta, 2, state, start
                )
                weights = np.arange(start + 1, start + 3) / 6
                part = tf.reduce_sum(weights * tf.reduce_mean(values[1:], 1))
            loss += float(part)
            gradients = tape.gradient(part, rule.trainable_variables)
            by_hand.apply(gradients, rule.trainable_variables)
        losses.append(loss)
    found, expected = (flatten(r.get_weights()) for r in (trainer.rule, rule))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-10)
    assert int(trainer.optimizer.iterations) == 6

    wrong, once = lstm_rule(1.0), optimizer()
    start = flatten(wrong.get_weights())
    trainer = RuleTrainer(wrong, Quadratics.values, 6, truncation=2, weights="increasing")
    for _ in range(2):
        once.apply(trainer.meta_gradients(batch)[1], wrong.trainable_variables)
    assert relative_error(flatten(wrong.get_weights()) - start, found - start) > 1e-2


@pytest.mark.parametrize("truncation", [None, 2])
def test_logged_validation_and_hand_computed_loss_agree(truncation):
    """eq-unrolled-objective: one number, however it is asked for."""
    (theta, problem), batches = one_batch()
    trainer = trainer_of(
        LSTMRule(units=3),
        keras.optimizers.SGD(0.0),
        truncation=truncation,
        weights=[2.0, 0.0, 1.0, 0.5],
    )
    values, _, _ = unroll(trainer.rule, lambda x, _: Quadratics.values(x, problem), theta, 4)
    by_hand = np.dot([2.0, 0.0, 1.0, 0.5], np.mean(values[1:], axis=1))
    history = trainer.fit(
        batches, steps_per_epoch=2, validation_data=batches, validation_steps=2, verbose=0
    ).history
    assert history["loss"][0] == pytest.approx(by_hand, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(by_hand, rel=1e-5)
    assert trainer.evaluate(batches, steps=1, verbose=0) == pytest.approx(by_hand, rel=1e-5)
    assert float(trainer.meta_loss((theta, problem))) == pytest.approx(by_hand, rel=1e-5)
    assert float(trainer.meta_gradients((theta, problem))[0]) == pytest.approx(by_hand, rel=1e-5)


def test_evaluate_averages_over_batches_and_changes_nothing():
    batches = Quadratics(2).problems(4)
    trainer = trainer_of(LSTMRule(units=3))
    weights = trainer.rule.get_weights()
    found = trainer.evaluate(batches, steps=3, verbose=0)
    expected = np.mean([trainer.meta_loss(batch) for batch in batches.take(3)])
    assert found == pytest.approx(expected, rel=1e-5)
    for old, new in zip(weights, trainer.rule.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def trained(dtype="float32", **options):
    keras.utils.set_random_seed(0)
    rule, optimizer = LSTMRule(units=2, layers=1), keras.optimizers.Adam(1e-2)
    trainer = trainer_of(rule, optimizer, truncation=2, **options)
    batches = Quadratics(2).problems(4)
    batches = batches.map(lambda *batch: tf.nest.map_structure(lambda x: tf.cast(x, dtype), batch))
    losses = trainer.fit(batches, epochs=2, steps_per_epoch=2, verbose=0).history["loss"]
    return flatten(rule.get_weights()), losses


def test_the_same_seeds_give_the_same_rule():
    (one, losses), (same, same_losses) = trained(), trained()
    np.testing.assert_array_equal(same, one)
    np.testing.assert_array_equal(same_losses, losses)
    keras.utils.set_random_seed(1)
    fresh = [flatten(LSTMRule(units=2, layers=1).get_weights()) for _ in range(2)]
    assert not np.array_equal(*fresh)


def test_in_double_precision_and_eagerly_the_result_is_the_same(float64):
    """Also with two batches in one graph; all in float64, so the differences are tiny."""
    weights, losses = trained(dtype="float64")
    assert weights.dtype == np.float64
    for options in (dict(run_eagerly=True), dict(steps_per_execution=2)):
        same_weights, same_losses = trained(dtype="float64", **options)
        np.testing.assert_allclose(same_weights, weights, rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(same_losses, losses, rtol=1e-10)


@pytest.mark.parametrize("make", [StepSize, lambda: LSTMRule(units=3)])
def test_a_smaller_last_batch(make):
    """A dataset of finite length, whose graph does not know the number of functions."""
    functions = next(iter(Quadratics(2).problems(5)))
    batches = tf.data.Dataset.from_tensor_slices(functions).batch(3)
    trainer = trainer_of(make())
    losses = [float(trainer.meta_loss(batch)) for batch in batches]
    assert trainer.evaluate(batches, verbose=0) == pytest.approx(np.mean(losses), rel=1e-5)
    assert np.isfinite(trainer.fit(batches, verbose=0).history["loss"]).all()


def test_the_trainer_trains_the_rule_in_place():
    rule = LSTMRule(units=3)
    trainer = trainer_of(rule)
    assert trainer.rule is rule
    assert len(trainer.trainable_variables) == len(rule.trainable_variables) == 8
    before = rule.get_weights()
    trainer.fit(Quadratics(2).problems(4), steps_per_epoch=1, verbose=0)
    assert not np.array_equal(before[0], rule.get_weights()[0])


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3)])
def test_theta_of_another_rank_raises(shape):
    words = r"allowed is \(functions, coordinates\)"
    with pytest.raises(ValueError, match=words):
        unroll(StepSize(), lambda theta, _: quartic(theta), tf.zeros(shape), 2)
    with pytest.raises(ValueError, match=words):
        RuleTrainer(StepSize(), quartic, steps=2).meta_loss((tf.zeros(shape), ()))


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", None])
def test_wrong_number_of_steps_raises(steps):
    for use in (
        lambda: unroll(StepSize(), lambda theta, _: quartic(theta), tf.zeros((1, 1)), steps),
        lambda: step_weights("ones", steps),
        lambda: RuleTrainer(StepSize(), quartic, steps=steps),
    ):
        with pytest.raises(ValueError, match=r"^steps must be"):
            use()


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(truncation=4), "must divide steps, got truncation=4, steps=6"),
        (dict(truncation=12), "must divide steps, got truncation=12, steps=6"),
        (dict(truncation=0), "truncation must be"),
        (dict(truncation=1.5), "truncation must be"),
        (dict(truncation=3, weights="last"), "a whole segment has weight 0"),
        (dict(truncation=2, weights=[1, 1, 0, 0, 1, 1]), "a whole segment has weight 0"),
        (dict(weights=[1, 1]), "6 finite numbers"),
    ],
)
def test_wrong_trainer_raises(options, words):
    with pytest.raises(ValueError, match=words):
        RuleTrainer(StepSize(), quartic, steps=6, **options)


def test_segments_that_each_have_some_weight_are_allowed():
    RuleTrainer(StepSize(), quartic, steps=6, truncation=2, weights=[1, 0, 0, 1, 2, 0])
    RuleTrainer(StepSize(), quartic, steps=6, truncation=6, weights="last")


def test_names_of_the_package():
    for name in ("RuleTrainer", "unroll"):
        assert getattr(mlutils, name) is getattr(mlutils.optimizer_based, name)
        assert name in mlutils.__all__
