import numpy as np
import pytest
import tensorflow as tf

from mlutils.data import Quadratics
from tests.data.helpers import check_normal


def batch(dimension=4, rotated=True, **options):
    """theta_0, W and y of a batch, float64: exact copies of the float32 numbers."""
    element = next(iter(Quadratics(dimension, rotated).problems(**options)))
    return [np.asarray(x, np.float64) for x in tf.nest.flatten(element)]


def well_conditioned(functions=6, d=5, seed=0):
    """theta_0, W and y, float64, W's singular values between 1 and 2."""
    random = np.random.default_rng(seed)
    u, _, v = np.linalg.svd(random.normal(size=(functions, d, d)))
    w = u * random.uniform(1, 2, (functions, 1, d)) @ v
    return random.normal(size=(functions, d)), w, random.normal(size=(functions, d))


def times(w, x):
    return np.einsum("fij,fj->fi", w, x)


def half_gradient(theta, w, y):
    return times(w.transpose(0, 2, 1), times(w, theta) - y)


def loss(theta, w, y):
    return np.sum((times(w, theta) - y) ** 2, axis=-1)


def conjugate_gradients(theta, w, y, steps):
    return Quadratics.conjugate_gradients(theta, (w, y), steps).numpy()


def without_beta(theta, w, y, steps):
    """A wrong conjugate gradients: every direction is the gradient's.  The negative control."""
    values = [loss(theta, w, y)]
    for _ in range(steps):
        down = -half_gradient(theta, w, y)
        length = np.sum(down**2, -1) / np.sum(times(w, down) ** 2, -1)
        theta = theta + length[:, None] * down
        values.append(loss(theta, w, y))
    return np.stack(values)


def krylov_minima(theta, w, y, steps):
    """min of f over theta_0 + span{g, A g, ..., A^(t-1) g} for t = 0 to ``steps``; A = W'W.

    By least squares, in an orthonormal basis of the span.
    """
    minima = []
    for start, W, target in zip(theta, w, y, strict=True):
        residual = target - W @ start
        new, basis, values = W.T @ residual, np.zeros((len(start), 0)), [residual @ residual]
        for _ in range(steps):
            new = new - basis @ (basis.T @ new)
            new = new - basis @ (basis.T @ new)  # twice is enough
            basis = np.column_stack([basis, new / np.linalg.norm(new)])
            weights, *_ = np.linalg.lstsq(W @ basis, residual, rcond=None)
            values.append(np.sum((residual - W @ basis @ weights) ** 2))
            new = W.T @ (W @ basis[:, -1])
        minima.append(values)
    return np.transpose(minima)


def test_pocket_numbers():
    """eq-quadratic with W = ((1, 2), (0, 1)), y = (1, 1), theta = (1, 2).

    W theta = (5, 2), the misfit (4, 1): f = 17.
    """
    problem = [[[1.0, 2.0], [0.0, 1.0]]], [[1.0, 1.0]]
    np.testing.assert_array_equal(Quadratics.values([[1.0, 2.0]], problem), [17.0])


@pytest.mark.parametrize("d", [1, 4])
def test_values_are_the_squared_misfits(d):
    """eq-quadratic: f(theta) = |W theta - y|², by a loop; the step does not matter.

    All step sizes in one call: theta may be of shape (..., functions, d).
    """
    theta, (w, y) = next(iter(Quadratics(d).problems(functions=7)))
    values = Quadratics.values(theta, (w, y))
    assert values.shape == (7,) and values.dtype == tf.float32
    np.testing.assert_array_equal(Quadratics.values(theta, (w, y), 3), values)
    many = np.stack([[theta, 2 * theta, -theta]] * 2)
    together = Quadratics.values(many, (w, y))
    assert together.shape == (2, 3, 7)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(together[i, j], loss(many[i, j], w, y), rtol=1e-5)
    theta, w, y = (x.numpy().tolist() for x in (theta, w, y))
    for i, value in enumerate(values.numpy()):
        misfits = [sum(w[i][j][k] * theta[i][k] for k in range(d)) - y[i][j] for j in range(d)]
        assert value == pytest.approx(sum(m**2 for m in misfits), rel=1e-5, abs=1e-6)


def test_the_gradient_and_the_minimum():
    """eq-quadratic's gradient is 2 W' (W theta - y); f = 0 at W^-1 y, and not beside it."""
    theta, w, y = batch(functions=3)
    variable = tf.Variable(theta)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(Quadratics.values(variable, (w, y)))
    gradient = tape.gradient(total, variable)
    np.testing.assert_allclose(gradient, 2 * half_gradient(theta, w, y), rtol=1e-12)
    best = np.linalg.solve(w, y[..., None])[..., 0]
    assert np.max(Quadratics.values(best, (w, y))) < 1e-20
    assert np.min(Quadratics.values(best + 0.1, (w, y))) > 1e-8


def test_shapes_and_defaults():
    family = Quadratics()
    assert (family.dimension, family.rotated) == (10, True)
    assert family.problems().element_spec[0].shape == (128, 10)
    for rotated in (True, False):
        problems = Quadratics(3, rotated=rotated).problems(functions=2)
        for theta, (w, y) in (next(iter(problems)), problems.element_spec):
            assert (theta.shape, w.shape, y.shape) == ((2, 3), (2, 3, 3), (2, 3))
            assert theta.dtype == w.dtype == y.dtype == tf.float32


def test_all_numbers_are_normal_and_independent():
    """W, y and theta_0 are N(0, 1), within five standard errors over n functions.

    A correlation has the standard error 1 / sqrt(n), as has that of the squares.
    """
    n, d = 20_000, 3
    theta, w, y = batch(d, functions=n)
    numbers = np.concatenate([theta, w.reshape(n, -1), y], axis=1)
    for column in numbers.T:
        check_normal(column)
    pairs = np.triu_indices(numbers.shape[1], 1)
    for values in (numbers, numbers**2):
        assert np.max(np.abs(np.corrcoef(values.T)[pairs])) < 5 / np.sqrt(n)


def test_unrotated_functions_have_the_curvatures_of_the_rotated():
    """W is diagonal, with the singular values of a Gaussian W.

    Means and mean squares of the largest to the smallest one, within five standard errors of
    NumPy's; the squares' sum is tr W'W, of expectation d².  The negative control is a W of
    which only the diagonal is kept.
    """
    n, d = 20_000, 4
    _, w, _ = batch(d, rotated=False, functions=n)
    diagonal = np.diagonal(w, axis1=1, axis2=2)
    np.testing.assert_array_equal(w, diagonal[..., None] * np.eye(d))

    def standard_errors(a, b):
        return (np.mean(a, 0) - np.mean(b, 0)) / np.sqrt((np.var(a, 0) + np.var(b, 0)) / n)

    gaussian = np.random.default_rng(0).normal(size=(n, d, d))
    reference = np.linalg.svd(gaussian, compute_uv=False)
    found = np.sort(np.abs(diagonal))[:, ::-1]
    only = np.sort(np.abs(np.diagonal(gaussian, axis1=1, axis2=2)))[:, ::-1]
    for power in (1, 2):
        assert np.max(np.abs(standard_errors(found**power, reference**power))) < 5
        assert np.max(np.abs(standard_errors(only**power, reference**power))) > 50
    squares = np.sum(found**2, axis=1)
    assert np.mean(squares) == pytest.approx(d**2, abs=5 * np.std(squares) / np.sqrt(n))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_conjugate_gradients_are_the_best_combination_of_gradients(d):
    """eq-quadratic's minimum over theta_0 and all combinations of the first t gradients.

    By brute force; the negative control, of which only the first step is right, fails.
    """
    problem = well_conditioned(d=d)
    minima = krylov_minima(*problem, steps=d)
    start = minima[0]
    values = conjugate_gradients(*problem, steps=d)
    assert values.shape == (d + 1, 6) and values.dtype == np.float64
    np.testing.assert_allclose(values / start, minima / start, rtol=1e-8, atol=1e-20)
    wrong = without_beta(*problem, steps=d)
    np.testing.assert_allclose(wrong[:2], minima[:2], rtol=1e-8, atol=1e-20)
    assert np.all(wrong[2:] > 1.001 * minima[2:])


def test_conjugate_gradients_are_the_best_on_gaussian_functions_too():
    """eq-quadratic as drawn: conditions to 1e5, squared, cost some digits at the last step.

    They are computed in double precision whatever comes.
    """
    theta, problem = next(iter(Quadratics(4).problems(functions=50)))
    minima = krylov_minima(*batch(4, functions=50), steps=4)
    values = Quadratics.conjugate_gradients(theta, problem, 4)
    assert values.dtype == tf.float64
    np.testing.assert_allclose(values / minima[0], minima / minima[0], rtol=1e-6, atol=1e-9)


def test_conjugate_gradients_never_increase_not_even_in_long_runs():
    """Squares of 1e-160 and less underflow; from there the values must not grow."""
    for d in (2, 10):
        problem = batch(d, functions=100)
        values = conjugate_gradients(*problem, steps=30)
        np.testing.assert_allclose(values[0], loss(*problem), rtol=1e-12)
        assert np.all(np.diff(values, axis=0) <= 1e-12 * values[:-1])
    # One of these once grew to 1e32 in 600 steps, and was not a number after 1100.
    some = (x[900:950] for x in batch(4, functions=3000))
    values = conjugate_gradients(*some, steps=1200)
    assert np.isfinite(values).all()
    assert np.all(np.diff(values, axis=0) <= 1e-20 * values[0])


def test_nothing_that_adds_up_gradients_is_lower():
    """Nesterov momentum at many step sizes; without_beta is not that low."""
    theta, w, y = batch(10, functions=50)
    floor = conjugate_gradients(theta, w, y, steps=15)
    wrong, beaten = without_beta(theta, w, y, steps=15), False
    for rate in (0.003, 0.01, 0.02, 0.03):
        position, velocity = theta, np.zeros_like(theta)
        for step in range(1, 16):
            ahead = position + 0.9 * velocity
            velocity = 0.9 * velocity - 2 * rate * half_gradient(ahead, w, y)
            position = position + velocity
            assert np.all(floor[step] <= (1 + 1e-9) * loss(position, w, y))
            beaten |= np.any(wrong[step] > 1.1 * loss(position, w, y))
    assert beaten


def test_conjugate_gradients_from_the_minimum_stay_there():
    """In one batch: a function at its minimum, one near it by rounding, one that has none, as
    its W is 0, and one like all others."""
    theta, w, y = well_conditioned(functions=4, d=3)
    theta[0], w[0], y[0] = [1, 2, 3], np.diag([1, 2, 4]), [1, 4, 12]
    theta[1] = np.linalg.solve(w[1], y[1])
    w[2] = 0
    values = conjugate_gradients(theta, w, y, steps=10)
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values[:, 0], 0)
    assert np.max(values[:, 1]) < 1e-28
    np.testing.assert_allclose(values[:, 2], np.sum(y[2] ** 2), rtol=1e-12)
    assert values[0, 3] > 0.1 and values[3, 3] < 1e-20
