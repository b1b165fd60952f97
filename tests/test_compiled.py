"""Many steps in one XLA program are the same steps one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import MAML
from mlutils.compiled import compiled_steps

pytestmark = pytest.mark.usefixtures("xla")


def sinusoid_learner(steps=1, compiled=False, metrics=()):
    keras.utils.set_random_seed(0)
    learner = MAML(mlutils.mlp(hidden=(2,)))
    learner.compile(
        keras.optimizers.Adam(1e-2),
        loss="mse",
        metrics=list(metrics),
        jit_compile=compiled,
        steps_per_execution=steps,
    )
    return learner


def batches(size=4, seed=0):
    return mlutils.data.sinusoids(shots=5, queries=6, meta_batch=size, seed=seed)


def test_the_whole_program_is_what_runs():
    """Negative control: the learner without XLA has another train function.

    Compiling again discards it.
    """
    whole, plain = sinusoid_learner(steps=5, compiled=True), sinusoid_learner(steps=5)
    for learner in (whole, plain):
        learner.make_train_function()
    assert whole.train_function.__module__ == compiled_steps.__module__
    assert plain.train_function.__module__ != compiled_steps.__module__
    whole.compile("sgd", loss="mse", jit_compile=False, steps_per_execution=5)
    whole.make_train_function()
    assert whole.train_function.__module__ != compiled_steps.__module__


def test_a_dataset_that_ends_in_the_middle_and_one_that_ends_with_a_program():
    """13 steps, 5 at a time: the last program takes 3, and the logs are the means of all 13.

    Then 10 more: nothing is left for a third program.  Validation is as usual.
    """
    learners = (
        sinusoid_learner(steps=5, compiled=True, metrics=["mae"]),
        sinusoid_learner(metrics=["mae"]),
    )
    for elements, count in [(13, 13), (10, 23)]:
        data, validation = batches().take(elements), batches(seed=1).take(4)
        whole, plain = (
            one.fit(data, validation_data=validation, verbose=0).history for one in learners
        )
        assert [int(one.optimizer.iterations) for one in learners] == [count, count]
        assert whole.keys() == plain.keys() == {"loss", "mae", "val_loss", "val_mae"}
        for name in whole:
            np.testing.assert_allclose(whole[name], plain[name], rtol=1e-3)
        for ours, theirs in zip(*(one.get_weights() for one in learners), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------- the function itself


def counting(total):
    """A step that adds its element to ``total`` and logs the sum so far."""

    def step(element):
        total.assign_add(element)
        return {"sum": total.read_value()}

    return step


@pytest.mark.parametrize("elements, logs", [(6, [6, 21]), (5, [6, 15]), (4, [6, 10]), (3, [6])])
def test_every_element_is_taken_once_and_in_turn(elements, logs):
    """1 + 2 + 3 after the first program of three steps; then what is left; then the end."""
    total = tf.Variable(0)
    function = compiled_steps(counting(total), 3)
    iterator = iter(tf.data.Dataset.range(1, elements + 1).map(lambda n: tf.cast(n, tf.int32)))
    assert [int(function(iterator)["sum"]) for _ in logs] == logs
    with pytest.raises(StopIteration):
        function(iterator)
    assert int(total) == logs[-1]


def test_a_smaller_last_batch_raises():
    total = tf.Variable(0)
    sums = counting(total)
    function = compiled_steps(lambda batch: sums(tf.reduce_sum(batch)), 3)
    data = tf.data.Dataset.range(1, 12).map(lambda n: tf.cast(n, tf.int32)).batch(4)
    with pytest.raises(ValueError, match="drop_remainder=True"):
        function(iter(data))
