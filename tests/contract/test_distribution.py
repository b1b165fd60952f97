"""Two replicas, each with half of the tasks, take the step of one device."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from tests.contract.learners import LEARNERS, compiled, element, having


def step(learner, batch):
    """The weights after one step of ``fit`` and what it logged."""
    data = tf.data.Dataset.from_tensor_slices(batch).batch(len(batch[1]))
    logs = learner.fit(data, verbose=0).history
    return learner.get_weights(), logs["loss"][0]


def whole_tasks(learner):
    """Reptile without minibatches, which each replica would draw for itself."""
    if hasattr(learner, "batch_size"):
        learner.batch_size = None
    return learner


def both(row, strategy, change=whole_tasks):
    """``step`` on one device and on two, from the same weights."""
    batch = element(row.kind)
    alone = change(compiled(row))
    start = alone.get_weights()
    with strategy.scope():
        shared = change(compiled(row))
    shared.set_weights(start)
    return step(alone, batch), step(shared, batch)


@having("replicas")
def test_two_replicas_equal_one(strategy, row):
    """eq-shared-tasks."""
    (alone, loss), (shared, logged) = both(row, strategy)
    assert logged == pytest.approx(loss, rel=1e-4)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError])
def test_the_inner_step_is_the_same_whichever_way_the_loss_is_named(strategy, loss):
    """Keras divides what a ``Loss`` returns by the number of replicas: alpha must not shrink."""
    row = LEARNERS["MAML, numbers"]._replace(loss=lambda: loss if loss == "mse" else loss())
    (alone, value), (shared, logged) = both(row, strategy)
    assert logged == pytest.approx(value, rel=1e-4)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_half_the_inner_step_is_another_step(strategy):
    """Negative control: what a divided loss would have done."""

    def halve(learner):
        if learner.distribute_strategy.num_replicas_in_sync > 1:
            learner.inner_lr /= 2
        return learner

    (alone, _), (shared, _) = both(LEARNERS["MAML, numbers"], strategy, halve)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(alone, shared, strict=True))


@pytest.mark.parametrize("truncation", [2, 4])
def test_a_trainer_of_rules_on_two_replicas(strategy, truncation):
    """Its gradients are averaged over replicas, not added, and it steps after each segment."""
    family = mlutils.data.Quadratics(2)
    problems = family.problems(4, seed=0)

    def trained(scope):
        keras.utils.set_random_seed(0)
        with scope:
            rule = mlutils.LSTMRule(2, 1)
            trainer = mlutils.RuleTrainer(rule, family.values, steps=4, truncation=truncation)
            trainer.compile(keras.optimizers.SGD(0.1))
        logs = trainer.fit(problems, steps_per_epoch=3, verbose=0, shuffle=False).history
        return [np.asarray(w) for w in rule.trainable_variables], logs["loss"][0]

    (alone, loss), (shared, logged) = trained(contextlib.nullcontext()), trained(strategy.scope())
    assert logged == pytest.approx(loss, rel=1e-4)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_how_many_tasks_a_replica_has_is_known_to_its_graph(strategy):
    """Without it a step of MAML took a third longer.  A batch of another size trains after it."""
    seen = []

    class Seen(mlutils.PrototypicalNetwork):
        def solve(self, support_x, support_y, query_x):
            seen.append(support_x.shape[0])
            return super().solve(support_x, support_y, query_x)

    row = LEARNERS["prototypical"]
    with strategy.scope():
        learner = compiled(row, Seen(mlutils.mlp(2, (3,), 3)))
    data = tf.data.Dataset.from_tensor_slices(element(row.kind)).repeat()
    learner.fit(data.batch(4, drop_remainder=True), steps_per_epoch=1, verbose=0)
    assert seen[-1] == 2
    learner.train_on_batch(*element(row.kind, tasks=6))
    learner.fit(data.batch(8, drop_remainder=True), steps_per_epoch=1, verbose=0)
    assert seen[-1] == 4


def test_shares_of_unlike_size_are_refused(strategy):
    with strategy.scope():
        learner = compiled(LEARNERS["MAML, numbers"])
    data = tf.data.Dataset.from_tensor_slices(element("numbers", tasks=3))
    data = data.batch(3, drop_remainder=True)
    with pytest.raises(ValueError, match="3 tasks cannot be divided evenly among 2 replicas"):
        learner.fit(data, verbose=0)
    with strategy.scope():
        trainer = mlutils.RuleTrainer(mlutils.StepSize(0.1), mlutils.data.Quadratics(2).values, 2)
        trainer.compile("sgd")
    with pytest.raises(ValueError, match="5 tasks cannot be divided"):
        trainer.fit(mlutils.data.Quadratics(2).problems(5), steps_per_epoch=1, verbose=0)


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_is_refused(strategy, clip):
    """Keras would clip each replica's gradient by itself."""
    data = tf.data.Dataset.from_tensor_slices(element("numbers")).batch(4)
    row, options = LEARNERS["MAML, numbers"], {clip: 0.01}
    compiled(row, optimizer=keras.optimizers.SGD(0.1, **options)).fit(data, verbose=0)
    with strategy.scope():
        shared = compiled(row, optimizer=keras.optimizers.SGD(0.1, **options))
    with pytest.raises(ValueError, match=f"{clip} is refused with 2 replicas"):
        shared.fit(data, verbose=0)
