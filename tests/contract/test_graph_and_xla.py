"""Eagerly, in a graph and by XLA a learner computes the same, and is not traced again and again."""

import gc
import time

import numpy as np
import pytest
import tensorflow as tf

from tests.contract.learners import LEARNERS, compiled, element, every, having

pytestmark = pytest.mark.usefixtures("xla")


def any_sizes(batch):
    """Its specification with unknown numbers of tasks and examples."""
    return tf.nest.map_structure(
        lambda x: tf.TensorSpec((None, None, *x.shape[2:]), x.dtype), batch
    )


@every
def test_a_graph_that_knows_no_sizes_gives_the_same(row):
    learner, batch = compiled(row), element(row.kind)
    in_graph = tf.function(lambda batch: learner(batch[0]), input_signature=[any_sizes(batch)])
    tf.config.run_functions_eagerly(True)
    eagerly = learner(batch[0])
    tf.config.run_functions_eagerly(False)
    for found in (learner(batch[0]), in_graph(batch)):
        np.testing.assert_allclose(found, eagerly, rtol=1e-4, atol=1e-5)


@every
def test_called_in_a_loop_it_is_traced_once(row):
    """Also where the values differ; for other sizes once more, and then for all."""
    learner = compiled(row)
    for seed in range(3):
        learner(element(row.kind, seed=seed)[0])
    assert traces(learner) == 1
    for tasks in range(2, 6):
        learner(element(row.kind, tasks)[0])
    assert traces(learner) == 2


def traces(learner):
    """How often what ``call`` runs was traced."""
    (function,) = (f for m, f in learner.graphs.functions.items() if m.__name__ == "solve")
    return function.experimental_get_tracing_count()


@having("training")
def test_meta_gradients_in_a_loop_are_traced_once_and_nothing_piles_up(row):
    learner, batch = compiled(row), element(row.kind)

    def objects(calls):
        for _ in range(calls):
            learner.meta_gradients(batch)
        gc.collect()
        return len(gc.get_objects())

    before = objects(2)
    assert objects(5) - before < 20
    functions = learner.graphs.functions.values()
    assert [f.experimental_get_tracing_count() for f in functions] == [1] * len(functions)


@pytest.mark.parametrize("name", ["MAML", "prototypical", "recurrent"])
def test_training_and_evaluating_in_turn_is_traced_once(name):
    """Keras's own bookkeeping is no setting: nothing is made anew where nothing has changed."""
    row = LEARNERS[name]
    learner, data = compiled(row), batches(row, 2)
    made = []
    for _ in range(2):
        learner.fit(data, verbose=0)
        learner.evaluate(data, verbose=0)
        learner(element(row.kind)[0])
        made.append((learner.train_function, learner.test_function, *learner.graphs.functions))
        assert traces(learner) == 1
    assert made[0] == made[1]


def batches(row, number):
    """The same shapes, other labels in every one."""
    parts = [element(row.kind, seed=seed) for seed in range(number)]
    stacked = tf.nest.map_structure(lambda *v: np.stack(v), *parts)
    return tf.data.Dataset.from_tensor_slices(stacked)


@having("training", "XLA")
def test_xla_trains_the_same_with_one_program(row):
    """Four steps on batches with other labels, three of them at once; one trace, no other program.

    Reptile without minibatches: XLA draws other random numbers, and shuffles differently.
    Negative control: a step less gives other weights.
    """
    plain, whole = compiled(row), compiled(row, jit_compile=True, steps_per_execution=3)
    for learner in (plain, whole):
        if hasattr(learner, "batch_size"):
            learner.batch_size = None
    start = plain.get_weights()
    whole.set_weights(start)
    data = batches(row, 4)
    history = whole.fit(data, verbose=0)
    plain.fit(data.take(3), verbose=0)
    with pytest.raises(AssertionError):
        assert_same_weights(plain, whole)
    plain.fit(data.skip(3), verbose=0)
    assert_same_weights(plain, whole)
    assert np.isfinite(history.history["loss"]).all()


def assert_same_weights(one, other):
    for ours, theirs in zip(one.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_labels_do_not_make_new_programs():
    """Of six steps with other labels only the first compiles.

    Negative control: labels that XLA is given as they are have no number of classes.
    """
    row = LEARNERS["prototypical"]

    def seconds(learner):
        learner.make_train_function()
        data, found = iter(batches(row, 6)), []
        for _ in range(6):
            start = time.perf_counter()
            learner.train_function(data)
            found.append(time.perf_counter() - start)
        return found

    learner = compiled(row, jit_compile=True)
    first, *others = seconds(learner)
    assert sorted(others)[-2] < first / 5
    inputs, query_y = batch = element(row.kind, seed=9)
    logged = learner.evaluate(inputs, query_y, verbose=0)  # without XLA
    assert logged == pytest.approx(float(learner.meta_loss(batch)), rel=1e-4)
    learner = compiled(row, jit_compile=True)
    learner.prepare = lambda element: element
    with pytest.raises(tf.errors.InvalidArgumentError, match="compile-time constant"):
        seconds(learner)
