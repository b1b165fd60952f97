"""Evolution strategies: unbiased where they promise it, biased where they don't."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils import (
    LSTMRule,
    MLPRule,
    MomentumRule,
    RuleTrainer,
    StepSize,
    UpdateRule,
    fit_or_resume,
)
from mlutils.data import Quadratics

ONE = tf.ones((1, 1))


def valleys(theta, problem=None, step=None):
    """1 - cos theta: bounded, so that a step that is far too long does no more harm."""
    return tf.reduce_sum(1 - tf.cos(theta), -1)


def smoothed_slope(phi, sigma, steps):
    """d/dphi of E J(phi + sigma e), e ~ N(0, 1), by quadrature: E[e J(phi + sigma e)] / sigma."""
    points, shares = np.polynomial.hermite_e.hermegauss(100)
    theta, total = np.full(100, 0.5), 0.0
    for _ in range(steps):
        theta = theta - (phi + sigma * points) * np.sin(theta)
        total = total + 1 - np.cos(theta)
    return float((shares / shares.sum()) @ (points * total) / sigma)


def estimates(trainer, batch, calls):
    return np.array([float(trainer.meta_gradients(batch)[1][0]) for _ in range(calls)])


@pytest.mark.parametrize("kind", ["es", "pes"])
@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_the_estimate_is_unbiased_for_the_smoothed_loss(kind, sigma):
    """eq-smoothed-objective, eq-es and, with one segment, eq-pes: against quadrature.

    Negative control: the slope of J itself, which is not smoothed, is told apart.
    """
    batch = ONE / 2, ()
    options = {"steps": 4, "gradient": kind, "sigma": sigma, "pairs": 500}
    found = estimates(RuleTrainer(StepSize(1.8), valleys, **options), batch, 40)
    expected, error = smoothed_slope(1.8, sigma, 4), found.std() / np.sqrt(len(found))
    assert abs(found.mean() - expected) < 4 * error
    tape = float(RuleTrainer(StepSize(1.8), valleys, steps=4).meta_gradients(batch)[1][0])
    if sigma == 0.3:
        assert abs(found.mean() - tape) > 8 * error


def test_a_small_sigma_gives_the_tapes_gradient(float64):
    """For J a polynomial of low degree in phi the two differ by O(sigma^2)."""
    theta, problem = (
        tf.nest.map_structure(lambda x: tf.cast(x, tf.float64), part)
        for part in next(iter(Quadratics(3).problems(2, seed=0)))
    )
    options = {"steps": 3, "function": Quadratics.values}
    rule = StepSize(0.01)
    tape = float(RuleTrainer(rule, **options).meta_gradients((theta, problem))[1][0])
    es = RuleTrainer(rule, gradient="es", sigma=1e-5, pairs=300, **options)
    found = estimates(es, (theta, problem), 30)
    assert abs(found.mean() / tape - 1) < 4 * found.std() / np.sqrt(30) / abs(tape) + 1e-4


class Influence(UpdateRule):
    """phi helps at once and harms later (the influence-balancing problem of Tallec & Ollivier 2017,
    as in Vicol et al. 2021): s <- A s + phi b; theta is s's first number."""

    n, positive = 23, 10
    A = (np.eye(n) + np.eye(n, k=1)) / 2
    b = np.array([1.0] * positive + [-1.0] * (n - positive))

    def __init__(self, phi):
        super().__init__()
        self.phi = self.add_weight(shape=(), initializer="zeros")
        self.phi.assign(phi)

    def initial_state(self, shape):
        return (tf.ones((*shape[:-1], self.n), self.compute_dtype),)

    def call(self, gradient, state):
        A, b = (tf.constant(x, state[0].dtype) for x in (self.A, self.b))
        new = tf.linalg.matvec(A, state[0]) + self.phi * b
        return new[..., :1] - state[0][..., :1], (new,)


def distance(theta, problem, step):
    return tf.reduce_sum((theta - 1) ** 2, -1) / 2


def test_persistent_estimates_have_no_truncation_bias():
    """eq-pes: one step a segment, and the mean is the slope of the whole run.

    J is quadratic in phi, so smoothing changes no slope.  Truncated ES, and a truncated tape, have
    the wrong sign.
    """
    batch, options = (ONE, ()), {"function": distance, "steps": 100}
    whole = float(RuleTrainer(Influence(0.5), **options).meta_gradients(batch)[1][0])
    short = float(RuleTrainer(Influence(0.5), truncation=1, **options).meta_gradients(batch)[1][0])
    options |= {"truncation": 1, "sigma": 0.1, "pairs": 50}
    found = {
        kind: estimates(RuleTrainer(Influence(0.5), gradient=kind, **options), batch, 40)
        for kind in ("es", "pes")
    }
    errors = {kind: values.std() / np.sqrt(40) for kind, values in found.items()}
    assert whole > 1000 and short < 0
    assert abs(found["pes"].mean() - whole) < 4 * errors["pes"] < whole / 2
    assert abs(found["es"].mean() - short) < 4 * errors["es"] < whole / 2


def test_training_goes_where_the_whole_run_says():
    """By PES phi falls to where J is least, by truncation it goes up."""

    def trained(**options):
        rule = Influence(0.5)
        trainer = RuleTrainer(rule, distance, steps=100, truncation=5, **options)
        trainer.compile(keras.optimizers.Adam(0.02))
        data = tf.data.Dataset.from_tensors((ONE, ())).repeat()
        trainer.fit(data, steps_per_epoch=10, verbose=0)
        return float(rule.phi)

    assert trained(gradient="pes", sigma=0.1, pairs=20) < 0.3
    assert trained() > 0.5


@pytest.mark.parametrize("kind", ["es", "pes"])
def test_variance_falls_with_pairs_and_does_not_depend_on_sigma_where_J_is_linear(kind):
    """A linear J: each pair gives slope * e², of variance 2 slope², whatever sigma."""

    def spread(sigma, pairs):
        trainer = RuleTrainer(
            StepSize(1.0),
            lambda theta, problem, step: theta[:, 0],
            steps=1,
            gradient=kind,
            sigma=sigma,
            pairs=pairs,
        )
        return estimates(trainer, (ONE, ()), 400).var()

    for sigma, pairs in ((0.1, 1), (0.01, 1), (0.1, 8)):
        assert spread(sigma, pairs) == pytest.approx(2 / pairs, rel=0.35)


def test_opposite_moves_cancel_what_is_even():
    """eq-es in pairs: of an even J the estimate is exactly 0; one-sided it is not."""
    trainer = RuleTrainer(
        StepSize(0.0),
        lambda theta, problem, step: (theta[:, 0] - 1) ** 2,
        steps=1,
        gradient="es",
        sigma=0.5,
        pairs=3,
    )
    np.testing.assert_allclose(estimates(trainer, (ONE, ()), 5), 0, atol=1e-6)
    (moves,) = trainer.estimator.moves(tf.constant([1, 2], tf.int64), 0)
    np.testing.assert_array_equal(moves[:3], -moves[3:])
    assert abs(np.mean(moves[:3] * moves[:3] ** 2)) > 1e-3


@pytest.mark.parametrize("make", [lambda: LSTMRule(3, 2), lambda: MLPRule((4,))])
@pytest.mark.parametrize("kind", ["es", "pes"])
def test_it_trains_rules_of_networks(make, kind):
    """A real rule goes down on quadratics, and the rule's weights are as they were in between."""
    keras.utils.set_random_seed(0)
    family, rule = Quadratics(2), make()
    options = {"steps": 10, "truncation": 5, "gradient": kind, "sigma": 0.05, "pairs": 8}
    trainer = RuleTrainer(rule, family.values, **options)
    batch = next(iter(family.problems(32, seed=1)))
    before = rule.get_weights()
    trainer.meta_gradients(batch)
    for old, new in zip(before, rule.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    first = float(trainer.meta_loss(batch))
    trainer.compile(keras.optimizers.Adam(0.01))
    trainer.fit(family.problems(32, seed=0), steps_per_epoch=40, verbose=0)
    assert float(trainer.meta_loss(batch)) < 0.9 * first


def test_the_same_seed_gives_the_same_moves_and_a_training_goes_on_exactly(tmp_path):
    """The seeds' state is among the variables that fit_or_resume keeps."""
    family = Quadratics(2)

    def trainer(seed=0):
        keras.utils.set_random_seed(0)
        options = {"steps": 4, "truncation": 2, "gradient": "pes", "seed": seed}
        made = RuleTrainer(StepSize(0.05), family.values, **options)
        made.compile("adam")
        return made

    def run(folder, epochs, made):
        fit_or_resume(made, family.problems(4), folder, epochs=epochs, steps_per_epoch=3, verbose=0)
        return float(made.rule.alpha)

    whole = run(tmp_path / "a", 4, trainer())
    run(tmp_path / "b", 2, trainer())
    assert run(tmp_path / "b", 4, trainer()) == whole
    assert run(tmp_path / "c", 4, trainer(seed=1)) != whole


@pytest.mark.parametrize(
    "options, words",
    [
        ({"gradient": "reinforce"}, r"gradient must be one of \('tape', 'es', 'pes'\)"),
        ({"gradient": "es", "sigma": 0}, "sigma must be a finite positive number, got 0"),
        ({"gradient": "pes", "pairs": 0}, "pairs must be an integer of at least 1, got 0"),
        ({"gradient": "es", "seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"gradient": "es", "first_order": True}, "first_order is True"),
        ({"gradient": "pes", "rule": MomentumRule()}, "The rule has 0 weights"),
    ],
)
def test_wrong_options_raise(options, words):
    with pytest.raises(ValueError, match=words):
        RuleTrainer(**{"rule": StepSize(0.1), "function": valleys, "steps": 4} | options)
