"""The external memory: by hand, beside a plain NumPy one, and beside wrong versions."""

from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import MANN, RecurrentLearner
from mlutils.few_shot.mann import MemoryCell
from tests.few_shot.tasks import (
    as_vectors,
    check_meta_gradients,
    compiled,
    one_task,
    predictions,
    random_episode,
    randomized,
)

heads_of_one_or_two = pytest.mark.parametrize("heads", [1, 2])


def random_learner(heads=1, kind=MANN, **sizes):
    """A tanh encoder of 2 inputs and a memory that five examples fill."""
    sizes = {"units": 3, "slots": 5, "width": 3, "decay": 0.8, **sizes}
    return randomized(kind(mlutils.mlp(2, (3,), 2, activation="tanh"), 3, heads=heads, **sizes))


def random_cell(heads=1, gate=None, **sizes):
    """A cell that takes inputs of length 2; with ``gate`` that value whatever it sees."""
    cell = MemoryCell(**{"units": 3, "slots": 4, "width": 2, "heads": heads, **sizes})
    cell.build((None, 2))
    randomized(cell)
    if gate is not None:
        kernel, bias = cell.gate.get_weights()
        cell.gate.set_weights([0 * kernel, 0 * bias + {0: -1000, 1: 1000}[gate]])
    return cell


def states_along(cell, steps, batch=3):
    """The states ``[h, c, memory, reading, usage]`` before any step and after each of them."""
    random = np.random.default_rng(1)
    states = [cell.get_initial_state(batch)]
    for _ in range(steps):
        states.append(cell(tf.constant(random.normal(size=(batch, 2))), states[-1])[1])
    return states


def written(cell, before, after):
    """The write weights and the least-used rows of one step."""
    return cell.write_weights(before[3], before[4], cell.gate(after[0]))


# ---------------------------------------------------------------- values derived by hand


def test_pocket_weights():
    """eq-memory-read and eq-memory-write with two slots.

    Key (3, 4) has cosine 1 with the row (6, 8) and 0 with (4, -3).  With beta = log 3 these become
    e^(log 3) = 3 and e^0 = 1, over 4.
    Of reading (1/4, 3/4) and usage (2, 1), slot 1 is used least.  With gate 1/2 the write weights
    are 1/2 (1/4, 3/4) + 1/2 (0, 1) = (1/8, 7/8).
    """
    cell = MemoryCell(units=1, slots=2, width=2)
    memory, strength = tf.constant([[[6.0, 8.0], [4.0, -3.0]]]), tf.math.log([[3.0]])
    reading = cell.read_weights(tf.constant([[[3.0, 4.0]]]), memory, strength)
    np.testing.assert_allclose(reading, [[[3 / 4, 1 / 4]]], rtol=1e-6)
    reading, usage = tf.constant([[[1 / 4, 3 / 4]]]), tf.constant([[2.0, 1.0]])
    writing, least = cell.write_weights(reading, usage, tf.constant([[1 / 2]]))
    np.testing.assert_array_equal(writing, [[[1 / 8, 7 / 8]]])
    np.testing.assert_array_equal(least, [[[0, 1]]])


def test_pocket_step(float64):
    """One step with eq-memory-write, eq-memory-read and eq-memory-usage, in this order.

    All kernels are zero: the LSTM puts out 0, the key is tanh(artanh 1/2) = 1/2, beta is
    log(1 + e^(log 2)) = log 3, the gate 1/2.  The memory is (-1, 1/4), the reading (1/4, 3/4), the
    usage (2, 1), gamma = 1/2.

    Written is (1/8, 7/8) as above: memory (-1, 0) + 1/2 (1/8, 7/8) = (-15/16, 7/16).
    Cosines are -1 and 1, so reading is (1/3, 3) over 10/3, (1/10, 9/10).
    What is read is (-15/16 + 9 * 7/16) / 10 = 48/160 = 3/10.
    Usage is 1/2 (2, 1) + (1/10, 9/10) + (1/8, 7/8) = (1.225, 2.275).
    """
    cell = MemoryCell(units=1, slots=2, width=1, decay=0.5)
    cell.build((None, 1))
    for weights in cell.weights:
        weights.assign(tf.zeros_like(weights))
    cell.key.bias.assign([np.arctanh(1 / 2)])
    cell.strength.bias.assign([np.log(2)])
    zero, memory = tf.zeros((1, 1)), tf.constant([[[-1.0], [1 / 4]]])
    reading, usage = tf.constant([[[1 / 4, 3 / 4]]]), tf.constant([[2.0, 1.0]])
    state = [tf.cast(value, "float64") for value in (zero, zero, memory, reading, usage)]
    result, (_, _, memory, reading, usage) = cell(tf.ones((1, 1), "float64"), state)
    np.testing.assert_allclose(memory, [[[-15 / 16], [7 / 16]]], rtol=1e-12)
    np.testing.assert_allclose(reading, [[[1 / 10, 9 / 10]]], rtol=1e-12)
    np.testing.assert_allclose(usage, [[1.225, 2.275]], rtol=1e-12)
    np.testing.assert_allclose(result, [[0, 3 / 10]], rtol=1e-12)


# ---------------------------------------------------------------- the whole in plain NumPy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(layer, x):
    kernel, bias = layer.get_weights()
    return x @ kernel + bias


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


def numpy_step(cell, vector, state):
    """One step for one task: the LSTM, eq-memory-write, eq-memory-read and eq-memory-usage."""
    h, c, memory, reading, usage = state
    kernel, recurrent, bias = cell.controller.get_weights()
    vector = np.concatenate([vector, *(weights @ memory for weights in reading)])
    i, f, candidate, o = np.split(vector @ kernel + h @ recurrent + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
    h = sigmoid(o) * np.tanh(c)
    keys = np.tanh(dense(cell.key, h)).reshape(cell.heads, cell.width)
    beta, gate = np.log(1 + np.exp(dense(cell.strength, h))), sigmoid(dense(cell.gate, h))
    least = np.argsort(usage, kind="stable")[: cell.heads]
    memory = memory.copy()
    memory[least] = 0
    usage = cell.decay * usage
    for head in range(cell.heads):
        writing = gate[head] * reading[head] + (1 - gate[head]) * np.eye(cell.slots)[least[head]]
        memory += np.outer(writing, keys[head])
        usage += writing
    reading = np.exp(beta[:, np.newaxis] * (unit(keys) @ unit(memory).T))
    reading /= reading.sum(axis=1, keepdims=True)
    result = np.concatenate([h, *(weights @ memory for weights in reading)])
    return result, (h, c, memory, reading, usage + reading.sum(axis=0))


def numpy_predictions(learner, support_x, labels, query_x):
    """As for ``RecurrentLearner``: each example with the label before it, each query by itself."""
    cell, before = learner.memory.cell, np.zeros(3)
    state = [np.zeros(size) for size in cell.state_size]
    for z, label in zip(learner.encoder(support_x).numpy(), labels, strict=True):
        _, state = numpy_step(cell, np.concatenate([z, before]), state)
        before = label
    queries = learner.encoder(query_x).numpy()
    results = [numpy_step(cell, np.concatenate([z, before]), state)[0] for z in queries]
    return dense(learner.head, np.array(results))


class MostUsed(MemoryCell):
    """Wrong: erases and overwrites what is used most."""

    def write_weights(self, reading, usage, gate):
        return super().write_weights(reading, -usage, gate)


class NotErased(MemoryCell):
    """Wrong: adds to what the least-used rows hold."""

    def write_weights(self, reading, usage, gate):
        writing, least = super().write_weights(reading, usage, gate)
        return writing, tf.zeros_like(least)


class SwappedGate(MemoryCell):
    """Wrong: the gate's share goes to the least-used rows."""

    def write_weights(self, reading, usage, gate):
        return super().write_weights(reading, usage, 1 - gate)


class Uncosined(MemoryCell):
    """Wrong: addresses by the scalar product."""

    def read_weights(self, keys, memory, strength):
        products = tf.matmul(keys, memory, transpose_b=True)
        return tf.nn.softmax(strength[..., tf.newaxis] * products)


class UndecayedUsage(MemoryCell):
    """Wrong: no use is ever forgotten."""

    def call(self, inputs, states, training=None):
        result, after = super().call(inputs, states)
        return result, [*after[:-1], after[-1] + (1 - self.decay) * states[-1]]


class ReadsFirst(MemoryCell):
    """Wrong: reads before it writes."""

    def call(self, inputs, states, training=None):
        _, (h, c, memory, reading, usage) = super().call(inputs, states)
        keys = tf.reshape(self.key(h), (-1, self.heads, self.width))
        first = self.read_weights(keys, states[2], self.strength(h))
        usage += tf.reduce_sum(first - reading, axis=1)
        return tf.concat([h, self.flat(first @ states[2])], axis=1), [h, c, memory, first, usage]


WRONG = [MostUsed, NotErased, SwappedGate, Uncosined, UndecayedUsage, ReadsFirst]


@heads_of_one_or_two
def test_plain_numpy_step(float64, heads):
    """From states that random steps have led to, each part of the state."""
    cell = random_cell(heads, decay=0.8)
    states = states_along(cell, 7)
    random = np.random.default_rng(1)
    for before, after in pairwise(states):
        inputs = random.normal(size=(3, 2))
        for task in range(3):
            state = [value.numpy()[task] for value in before]
            result, expected = numpy_step(cell, inputs[task], state)
            for found, values in zip(after, expected, strict=True):
                np.testing.assert_allclose(found[task], values, atol=1e-12)
            found = cell(inputs[task : task + 1], [value[task : task + 1] for value in before])[0]
            np.testing.assert_allclose(found[0], result, atol=1e-12)


@pytest.mark.parametrize("heads, regression", [(1, False), (2, True)])
def test_plain_numpy(float64, heads, regression):
    """eq-memory-read, eq-memory-usage and eq-memory-write, example after example."""
    learner, task = random_learner(heads), one_task(regression=regression)
    labels = as_vectors(task.support_y)
    for shots in (1, 5, 8):
        some = task._replace(support_x=task.support_x[:shots], support_y=task.support_y[:shots])
        expected = numpy_predictions(learner, some.support_x, labels[:shots], task.query_x)
        np.testing.assert_allclose(predictions(learner, some), expected, atol=1e-12)
    expected = numpy_predictions(learner, np.zeros((0, 2)), np.zeros((0, 3)), task.query_x)
    np.testing.assert_allclose(learner.unadapted()(task.query_x), expected, atol=1e-12)


def with_cell(kind):
    def make(encoder, outputs, **sizes):
        return RecurrentLearner(encoder, outputs, cell=kind(**sizes))

    return make


@pytest.mark.parametrize("kind", [MemoryCell, *WRONG])
def test_plain_numpy_tells_wrong_cells(float64, kind):
    """Negative controls; the right cell in a RecurrentLearner is a MANN."""
    learner, task = random_learner(2, with_cell(kind)), one_task()
    labels = as_vectors(task.support_y)
    expected = numpy_predictions(learner, task.support_x, labels, task.query_x)
    error = np.abs(predictions(learner, task) - expected).max()
    assert error < 1e-12 if kind is MemoryCell else error > 1e-3


# ---------------------------------------------------------------- where it writes and reads


@heads_of_one_or_two
def test_weights_add_up_to_one(float64, heads):
    """eq-memory-read always; eq-memory-write once something was read, before that 1 - gate."""
    cell = random_cell(heads)
    for step, (before, after) in enumerate(pairwise(states_along(cell, 6))):
        writing, least = written(cell, before, after)
        total = 1 if step else 1 - cell.gate(after[0])
        np.testing.assert_allclose(tf.reduce_sum(writing, axis=2), total * np.ones((3, heads)))
        np.testing.assert_allclose(tf.reduce_sum(after[3], axis=2), np.ones((3, heads)))
        np.testing.assert_array_equal(tf.reduce_sum(least, axis=2), np.ones((3, heads)))
        assert min(tf.reduce_min(writing), tf.reduce_min(after[3])) >= 0


@heads_of_one_or_two
@pytest.mark.parametrize("gate", [0, 1])
def test_what_an_open_or_closed_gate_writes(float64, heads, gate):
    """eq-memory-write: the least used rows are erased, and all others stay as they are.

    With gate 0 the keys take their place; with 1 they are added where it was read last.
    """
    cell, states = random_cell(heads, gate=gate), states_along(random_cell(heads), 8)
    for before in states[1:]:
        _, after = cell(tf.ones((3, 2), "float64"), before)
        keys = tf.reshape(cell.key(after[0]), (3, heads, 2)).numpy()
        expected = before[2].numpy()
        for task in range(3):
            rows = np.argsort(before[4][task], kind="stable")[:heads]
            expected[task, rows] = 0 if gate else keys[task]
            expected[task] += gate * before[3][task].numpy().T @ keys[task]
        np.testing.assert_allclose(after[2], expected, atol=1e-12)


@heads_of_one_or_two
def test_slots_are_filled_one_after_the_other(float64, heads):
    """With gate 0 and even reading; then the oldest row is replaced.  Heads never share one."""
    cell = random_cell(heads, gate=0)
    cell.strength.set_weights([np.zeros((3, heads)), np.full(heads, -1000.0)])
    for step, (before, after) in enumerate(pairwise(states_along(cell, 6))):
        changed = np.any(after[2] != before[2], axis=2)
        rows = [(heads * step + head) % 4 for head in range(heads)]
        np.testing.assert_array_equal(np.flatnonzero(changed[0]), rows)
        np.testing.assert_array_equal(changed, changed[[0, 0, 0]])
        _, least = written(cell, before, after)
        np.testing.assert_array_equal(np.argmax(least, axis=2), [rows] * 3)


@pytest.mark.parametrize("heads, decay", [(1, 0), (1, 1), (2, 0.5)])
def test_usage_decays_by_gamma(float64, heads, decay):
    """eq-memory-usage: each step adds one for reading and, with gate 0, one for writing.

    After t steps all usage of one head together is 2 (1 + gamma + ... + gamma^(t - 1)).
    """
    states = states_along(random_cell(heads, gate=0, decay=decay), 5)
    for t, state in enumerate(states):
        total = 2 * heads * sum(decay**k for k in range(t))
        np.testing.assert_allclose(tf.reduce_sum(state[4], axis=1), [total] * 3)


def test_a_stored_key_is_found():
    """eq-memory-read: with a large beta its row alone, however long; with beta 0 all rows alike."""
    cell, memory = random_cell(), tf.random.normal((1, 4, 2))
    for row in range(4):
        keys = memory[:, row : row + 1] / 10
        found = cell.read_weights(keys, memory, tf.constant([[1e4]]))
        np.testing.assert_allclose(found, np.eye(4)[None, row : row + 1], atol=1e-6)
        found = cell.read_weights(keys, memory, tf.zeros((1, 1)))
        np.testing.assert_allclose(found, np.full((1, 1, 4), 1 / 4))


# ---------------------------------------------------------------- queries


class QueriesInTurn(MANN):
    """Wrong: each query reads and writes what the one before it has left."""

    def answer(self, summary, queries):
        *state, last = summary
        labels = tf.repeat(last[:, tf.newaxis], queries.shape[1], axis=1)
        inputs = tf.concat([queries, labels], axis=2)
        return self.head(self.memory(inputs, initial_state=state)[0])


@pytest.mark.parametrize("kind, alone", [(MANN, True), (QueriesInTurn, False)])
def test_queries_do_not_write_for_each_other(float64, kind, alone):
    """In the order that was, and backwards, each query has the same prediction."""
    learner, task = random_learner(2, kind), one_task()
    backwards = task._replace(query_x=task.query_x[::-1])
    change = np.abs(predictions(learner, backwards)[::-1] - predictions(learner, task)).max()
    assert change < 1e-12 if alone else change > 1e-2


# ---------------------------------------------------------------- finite differences


class ConstantMemory(MANN):
    """Wrong: the queries' loss does not reach what the support set wrote."""

    def summarize(self, support, labels):
        h, c, memory, *others = super().summarize(support, labels)
        return [h, c, tf.stop_gradient(memory), *others]


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-memory-read, eq-memory-usage and eq-memory-write, beside a wrong one."""
    sizes, kinds = dict(heads=2, units=2, width=2), (MANN, ConstantMemory)
    right, wrong = (compiled(random_learner(kind=kind, **sizes)) for kind in kinds)
    check_meta_gradients(right, wrong, episode=random_episode(support=6))
