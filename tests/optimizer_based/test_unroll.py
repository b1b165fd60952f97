"""The unroll and the training through it: by hand, by finite differences, by wrong versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils import LSTMRule, RuleTrainer, StepSize, UpdateRule, unroll
from mlutils.data import Quadratics
from mlutils.optimizer_based import step_weights
from tests.numeric import flatten, relative_error

# ---------------------------------------------------------------- values derived by hand


def quartic(theta, problem=None, step=None):
    return tf.reduce_sum(theta**4, -1) / 4


ONE = tf.ones((1, 1), tf.float64)
THETA = [1, 1 / 2, 7 / 16]
WEIGHTED = [("ones", [1]), ("last", [0, 1]), ("ones", [1, 1]), ("increasing", [0.5, 1])]
WEIGHTED += [([3.0, 0.0], [3, 0])]


@pytest.mark.parametrize("first_order, d_theta_2", [(False, -3 / 4), (True, -9 / 8)])
def test_pocket_quartic(float64, first_order, d_theta_2):
    """eq-unrolled-objective, eq-step-size-gradient and eq-unrolled-gradient on pocket numbers.

    f(theta) = theta^4 / 4, grad f = theta^3, H = 3 theta^2; theta_0 = 1, alpha = 1/2.

    Step 1: theta_1 = 1 - 1/2 * 1     = 1/2,   d theta_1 = -1.
    Step 2: theta_2 = 1/2 - 1/2 * 1/8 = 7/16,
            d theta_2 = d theta_1 - theta_1^3 - alpha H(theta_1) d theta_1 = -1 - 1/8 + 3/8 = -3/4.

    T = 1: J = f(1/2),           dJ = -grad f(1/2) grad f(1) = -1/8.
    T = 2: J = f(1/2) + f(7/16), dJ = -1/8 - 3/4 * 343/4096.
    First order: the term with H is not there, d theta_2 = -9/8; of T = 1 nothing is missing.
    """
    terms, slopes = [1 / 2**6, (7 / 16) ** 4 / 4], [-1 / 8, d_theta_2 * 343 / 4096]
    for weights, w in WEIGHTED:
        trainer = RuleTrainer(
            StepSize(0.5), quartic, steps=len(w), weights=weights, first_order=first_order
        )
        loss, (gradient,) = trainer.meta_gradients((ONE, ()))
        assert float(loss) == pytest.approx(np.dot(w, terms[: len(w)]), rel=1e-14)
        assert float(gradient) == pytest.approx(np.dot(w, slopes[: len(w)]), rel=1e-14)


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
    values, theta, (state,) = unroll(rule, half_square, ONE, 3)
    np.testing.assert_array_equal(2 * values[:, 0], np.array([1, 1 / 2, 1 / 8, -1 / 32]) ** 2)
    assert (theta.numpy().item(), state.numpy().item()) == (-1 / 32, -5 / 32)
    trainer = RuleTrainer(rule, half_square, steps=3, weights="last")
    _, gradients = trainer.meta_gradients((ONE, ()))
    np.testing.assert_array_equal(gradients[0], [13 / 16 / 32, 3 / 4 / 32])


def value_and_gradient(function, *arguments):
    with tf.GradientTape() as tape:
        tape.watch(arguments[0])
        value = function(*arguments)
    return value, tape.gradient(value, arguments[0])


def random_problems(functions=2, coordinates=3):
    theta, problem = np.random.default_rng(0).normal(size=(2, functions, coordinates))
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


def test_going_on_equals_one_longer_run(float64):
    """eq-update-rule: (theta, state, t) is all there is.  Negative controls: two of them only."""
    theta, problem = random_problems()
    rule = lstm_rule()

    def run(*arguments, **options):
        return unroll(rule, lambda x, step: stochastic(x, problem, step), *arguments, **options)

    values, last, last_state = run(theta, 8)
    first, middle, state = run(theta, 2)
    second, end, end_state = run(middle, 6, state=state, start=2)
    np.testing.assert_allclose(first[:2], values[:2], rtol=1e-12)
    np.testing.assert_allclose(second, values[2:], rtol=1e-12)
    np.testing.assert_allclose(end, last, rtol=1e-12)
    for found, expected in zip(end_state, last_state, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    for wrong in (dict(start=2), dict(state=state)):
        _, end, _ = run(middle, 6, **wrong)
        assert np.max(np.abs(end - last)) > 0.01


@pytest.mark.parametrize("start", [0, 7])
def test_a_stochastic_function_is_asked_for_steps_start_to_start_plus_t(start):
    """Each asked for once; and step t uses the gradient of function t - 1:

    with f_t(theta) = 10^t theta and alpha = 1, theta_3 = -(1 + 10 + 100) 10^start.
    """
    asked = []

    def function(theta, step):
        asked.append(int(step))
        return tf.pow(10.0, tf.cast(step, theta.dtype)) * tf.reduce_sum(theta, -1)

    values, theta, _ = unroll(StepSize(1.0), function, tf.zeros((1, 1)), 3, start=start)
    assert asked == list(range(start, start + 4))
    assert theta.numpy().item() == pytest.approx(-111 * 10.0**start)
    expected = np.array([0, -10, -1100, -111000]) * 10.0 ** (2 * start)
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-6)


# ---------------------------------------------------------------- the meta-gradient


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
            _, gradient = value_and_gradient(coupled, theta, problem)
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
        flatten(RuleTrainer(rule, coupled, 3, first_order=first_order).meta_gradients(batch)[1])
        for first_order in (False, True)
    )
    assert relative_error(recursion(rule, batch, 3), full) < 1e-12
    assert relative_error(recursion(rule, batch, 3, hessian_at=None), shortcut) < 1e-12
    assert relative_error(recursion(rule, batch, 3, hessian_at="after"), full) > 1e-2
    assert relative_error(recursion(rule, batch, 3, with_state=False), full) > 1e-2


# ---------------------------------------------------------------- truncation

WEIGHTS = np.array([0.5, 1.0, 2.0, 0.0, 1.5, 1.0])


def by_segments(rule, batch, first_order=False, optimizer=None):
    """J and its gradient, from detached theta and state of each segment: starts 0, 2 and 4.

    An optimizer updates the rule after each.
    """
    (theta, problem), state, gradient, loss = batch, None, 0.0, 0.0
    for start in (0, 2, 4):
        with tf.GradientTape() as tape:
            values, theta, state = unroll(
                rule, lambda x, t: stochastic(x, problem, t), theta, 2, state, start, first_order
            )
            part = tf.reduce_sum(WEIGHTS[start : start + 2] * tf.reduce_mean(values[1:], 1))
        gradients = tape.gradient(part, rule.trainable_variables)
        gradient, loss = gradient + flatten(gradients), loss + float(part)
        if optimizer is not None:
            optimizer.apply(gradients, rule.trainable_variables)
        theta, state = tf.constant(theta.numpy()), tuple(tf.constant(s.numpy()) for s in state)
    return loss, gradient


@pytest.mark.parametrize("first_order", [False, True])
def test_a_truncated_gradient_is_the_sum_of_its_segments(float64, first_order):
    """eq-unrolled-gradient, also in a graph.  Negative control: the whole trajectory's gradient."""
    batch, rule = random_problems(), lstm_rule()
    options = dict(steps=6, weights=WEIGHTS, first_order=first_order)
    trainer = RuleTrainer(rule, stochastic, truncation=2, **options)
    expected_loss, expected = by_segments(rule, batch, first_order)
    for run in (trainer.meta_gradients, tf.function(trainer.meta_gradients)):
        loss, found = run(batch)
        assert float(loss) == pytest.approx(expected_loss, rel=1e-12)
        assert relative_error(flatten(found), expected) < 1e-12
    whole_loss, whole = RuleTrainer(rule, stochastic, **options).meta_gradients(batch)
    assert float(whole_loss) == pytest.approx(float(loss), rel=1e-12)
    assert relative_error(expected, flatten(whole)) > 1e-2


def test_phi_is_updated_after_each_segment(float64):
    """Two batches in a hand-written loop of segments, each with the phi that the last one left.

    Negative control: one update by the sum of the segments' gradients ends elsewhere.
    """
    batch = random_problems()
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    rules = [lstm_rule(1.0) for _ in range(3)]
    start = flatten(rules[0].get_weights())
    trainer = RuleTrainer(rules[0], stochastic, 6, truncation=2, weights=WEIGHTS)
    trainer.compile(keras.optimizers.Adam(0.01))
    losses = trainer.fit(batches, epochs=2, steps_per_epoch=1, verbose=0).history["loss"]
    assert int(trainer.optimizer.iterations) == 6

    optimizer, once = keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.01)
    expected_losses = [by_segments(rules[1], batch, optimizer=optimizer)[0] for _ in range(2)]
    wrong = RuleTrainer(rules[2], stochastic, 6, truncation=2, weights=WEIGHTS)
    for _ in range(2):
        once.apply(wrong.meta_gradients(batch)[1], rules[2].trainable_variables)
    found, expected, wrong = (flatten(rule.get_weights()) for rule in rules)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    assert relative_error(wrong - start, found - start) > 1e-2


# ---------------------------------------------------------------- training


def test_the_weights_of_the_steps():
    """eq-unrolled-objective: w_1 to w_4."""
    for weights, numbers in [
        ("ones", [1, 1, 1, 1]),
        ("last", [0, 0, 0, 1]),
        ("increasing", [1 / 4, 1 / 2, 3 / 4, 1]),
        (np.array([0, 3, 0.5, 0]), [0, 3, 0.5, 0]),
    ]:
        found = step_weights(weights, 4)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, numbers)


def trainer_of(rule, optimizer, steps=4, truncation=None, weights="ones", **options):
    trainer = RuleTrainer(rule, Quadratics.values, steps, truncation, weights)
    trainer.compile(optimizer=optimizer, **options)
    return trainer


def one_batch(functions=16):
    """One batch of quadratics, and a dataset that repeats it for ever."""
    batch = next(iter(Quadratics(2).problems(functions)))
    return batch, tf.data.Dataset.from_tensors(batch).repeat()


def test_training_finds_the_best_step_size_for_one_step():
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
    trainer = trainer_of(rule, keras.optimizers.SGD(newton / 2), steps=1)
    trainer.fit(batches, epochs=20, steps_per_epoch=1, verbose=0)
    assert float(rule.alpha) == pytest.approx(best, rel=1e-4)
    after = float(trainer.meta_loss((theta, (w, y))))
    for other in (0.9 * best, 1.1 * best):
        rule.alpha.assign(other)
        assert float(trainer.meta_loss((theta, (w, y)))) > after


def test_logged_validation_and_hand_computed_loss_agree():
    """eq-unrolled-objective: one number, however it is asked for.

    The dataset's graph does not know the number of functions.
    """
    (theta, problem), _ = one_batch()
    batches = tf.data.Dataset.from_tensor_slices((theta, problem)).batch(16).repeat()
    rule, weights = LSTMRule(units=3), [2.0, 0.0, 1.0, 0.5]
    trainer = trainer_of(rule, keras.optimizers.SGD(0.0), 4, 2, weights, steps_per_execution=2)
    values, _, _ = unroll(rule, lambda x, _: Quadratics.values(x, problem), theta, 4)
    by_hand = np.dot(weights, np.mean(values[1:], axis=1))
    history = trainer.fit(
        batches, steps_per_epoch=2, validation_data=batches, validation_steps=2, verbose=0
    ).history
    found = [history["loss"][0], history["val_loss"][0]]
    found += [trainer.evaluate(batches, steps=2, verbose=0), trainer.meta_loss((theta, problem))]
    assert [float(loss) for loss in found] == pytest.approx([by_hand] * 4, rel=1e-5)
