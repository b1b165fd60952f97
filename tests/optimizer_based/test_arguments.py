"""Wrong arguments of rules, unrolls and optimizers: the message names them, and what is allowed."""

import math

import keras
import pytest
import tensorflow as tf

import mlutils
from mlutils import (
    AdamRule,
    LearnedOptimizer,
    LSTMRule,
    MomentumRule,
    RuleTrainer,
    StepSize,
    UpdateRule,
    run_optimizer,
    unroll,
)
from mlutils.optimizer_based import log_and_sign, step_weights

THETA = tf.ones((1, 3))


def value(theta, *_):
    return tf.reduce_sum(theta**2, -1)


def trainer(**options):
    return RuleTrainer(StepSize(), value, **{"steps": 6, **options})


def run(steps=1, rates=None, optimizer=None):
    return run_optimizer(optimizer or keras.optimizers.SGD(), value, THETA, steps, rates)


def used():
    optimizer = keras.optimizers.SGD()
    optimizer.build([tf.Variable(1.0)])
    return optimizer


WRONG = [
    (lambda: StepSize("0.1"), "^initial must be a finite number"),
    (lambda: StepSize(coordinates=0), "^coordinates must be"),
    (lambda: StepSize(steps=0), "^steps must be"),
    (
        lambda: StepSize(coordinates=3)(tf.ones(2)),
        r"3 step sizes, .* shape \(2,\), whose last axis",
    ),
    (lambda: StepSize(coordinates=3)(tf.ones(())), r"3 step sizes, .* \(\), whose last axis"),
    (lambda: MomentumRule(0), "^learning_rate must be"),
    (lambda: MomentumRule(momentum=1), "^momentum must be at least 0 and less than 1, got 1"),
    (lambda: AdamRule(-1), "^learning_rate must be"),
    (lambda: AdamRule(beta_1=-0.1), "^beta_1 must be at least 0 and less than 1, got -0.1"),
    (lambda: AdamRule(beta_2=1.0), "^beta_2 must be"),
    (lambda: AdamRule(epsilon=0), "^epsilon must be"),
    (lambda: LSTMRule(units=0), "^units must be"),
    (lambda: LSTMRule(layers=0), "^layers must be"),
    (lambda: LSTMRule(output_scale=0), "^output_scale must be"),
    (lambda: LSTMRule(p=0), "^p must be"),
    # exp(-p) would be too near to 0 for float32, and log(0) infinite
    (lambda: log_and_sign(THETA, 81), "^p must be at most 80, got 81"),
    (lambda: mlutils.trained_rule("../trained/digits"), r"^name must be one of \('digits',"),
    (lambda: unroll(StepSize(), value, THETA, 0), "^steps must be"),
    (
        lambda: unroll(StepSize(), value, tf.zeros(3), 1),
        r"are floats \(functions, coord",
    ),
    (
        lambda: trainer().meta_loss((tf.zeros(3), ())),
        r"are floats \(functions, coord",
    ),
    (lambda: trainer(steps=2.5), "^steps must be"),
    (lambda: trainer(truncation=0), "^truncation must be"),
    (lambda: trainer(truncation=4), "must divide steps, got truncation=4, steps=6"),
    (lambda: trainer(truncation=12), "must divide steps, got truncation=12, steps=6"),
    (lambda: trainer(truncation=3, weights="last"), "a whole segment has weight 0"),
    (lambda: trainer(truncation=2, weights=[1, 1, 0, 0, 1, 1]), "a whole segment has weight 0"),
    (lambda: trainer(weights=[1, 1]), "6 finite numbers"),
    (lambda: step_weights("first", 3), r"one of \('ones', 'last', 'increasing'\) or 3 numbers"),
    (lambda: step_weights([[1.0, 1.0, 1.0]], 3), "3 finite numbers"),
    (lambda: step_weights([1.0, math.nan, 1.0], 3), "3 finite numbers"),
    (lambda: step_weights([1.0, -0.1, 1.0], 3), "at least 0"),  # eq-unrolled-objective: w_t >= 0
    (lambda: step_weights([0, 0, 0], 3), "not all 0"),
    (lambda: run(steps=0), "^steps must be"),
    (lambda: UpdateRule().initial_state((2,)), "UpdateRule does not define initial_state"),
    (lambda: UpdateRule()(tf.ones(2), ()), "UpdateRule does not define call"),
    (lambda: run(optimizer=used()), "make a new one"),
    (lambda: LearnedOptimizer(StepSize(coordinates=3)), "has 3 step sizes"),
    (lambda: LearnedOptimizer(StepSize(), learning_rate="fast"), "learning_rate"),
    (lambda: LearnedOptimizer(StepSize(), momentum=0.9), "momentum"),
    (lambda: LearnedOptimizer("lstm"), "mlutils.UpdateRule, got str"),
    (lambda: LearnedOptimizer(LSTMRule), "mlutils.UpdateRule, got type"),
    (lambda: LearnedOptimizer(keras.optimizers.SGD()), "got SGD"),
]


@pytest.mark.parametrize("call, words", WRONG)
def test_wrong_arguments_say_what_is_allowed(call, words):
    with pytest.raises((NotImplementedError, TypeError, ValueError), match=words):
        call()
