"""The context transformer: by hand, as a whole in plain NumPy, and beside wrong versions."""

import math

import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import ContextTransformer
from mlutils.few_shot import context_transformer
from tests.few_shot.tasks import (
    as_vectors,
    check_meta_gradients,
    compiled,
    identity,
    one_task,
    predictions,
    random_episode,
    randomized,
)


def random_learner(kind=ContextTransformer, blocks=2):
    """A tanh encoder of 2 inputs."""
    encoder = mlutils.mlp(2, (3,), 2, activation="tanh")
    return randomized(kind(encoder, 3, units=4, heads=2, blocks=blocks))


def see_everything(rows, columns):
    """Wrong: a mask that hides nothing."""
    return tf.ones((rows, columns), tf.bool)


# ---------------------------------------------------------------- values derived by hand


def pocket_transformer():
    """One head on inputs and labels of 1 and -1; nothing but its attention does anything.

    A token is (x, -x, y, -y), the starting one 0.  Normalised, and rescaled against Keras's
    epsilon of .001, an example stays as it is; a query, with y = 0 and so half the variance, is
    kept as it is by its query matrix.  A query's q is 2 ln 2 (x, 0, 0, 0), a key (x, 0, 0, 0), a
    value (0, 0, y, 0), which is put out as y (0, 0, 1, -1).  The head reads the third number.
    """
    learner = ContextTransformer(identity(), outputs=1, units=4, heads=1, blocks=1)
    learner.set_weights([np.zeros(w.shape) for w in learner.get_weights()])
    learner.token.kernel.assign([[1, -1, 0, 0], [0, 0, 1, -1]])
    (block,) = learner.blocks
    block.norms[0].gamma.assign(np.full(4, math.sqrt(1.001)))
    query, key, value, out = np.zeros((4, 4, 4))
    query[0, 0] = 2 * math.log(2) * math.sqrt(0.501 / 1.001)
    key[0, 0] = value[2, 2] = 1
    out[2] = [0, 0, 1, -1]
    no_bias = np.zeros((1, 4))
    kernels = [kernel.reshape(4, 1, 4) for kernel in (query, key, value)]
    query, key, value = ([kernel, no_bias] for kernel in kernels)
    block.attention.set_weights([*query, *key, *value, out.reshape(1, 4, 4), np.zeros(4)])
    learner.norm.gamma.assign(np.ones(4))
    learner.head.kernel.assign([[0], [0], [1], [0]])
    return learner


def test_pocket_attention():
    """eq-causal-attention, d = 4: q k / sqrt(d) = ln 2 for a like x, -ln 2 for an unlike one, and 0
    for the starting token.

    Their exponentials are 2, 1/2 and 1.  With the support set (1, 1), (-1, -1) they add up to 7/2:
    the weights of start, like and unlike are 2/7, 4/7 and 1/7.  The query 1 sees y on average as
    4/7 - 1/7 = 3/7.  Its token (1, -1, 3/7, -3/7) has variance (1 + 9/49) / 2 = 29/49; the third
    number over the root of this and .001 is 3 / sqrt(29.049).  For the query -1 all is mirrored.
    """
    learner = pocket_transformer()
    support = tf.constant([[1.0], [-1.0]]), tf.constant([[1.0], [-1.0]])
    query_x = tf.constant([[1.0], [-1.0]])
    weights = np.array([[2, 4, 1], [2, 1, 4]]) / 7
    np.testing.assert_allclose(learner.attention(*support, query_x), [[weights]], rtol=1e-5)
    expected = np.array([[3], [-3]]) / math.sqrt(29.049)
    np.testing.assert_allclose(learner.adapt(*support)(query_x), expected, rtol=1e-5)
    np.testing.assert_array_equal(learner.unadapted()(query_x), [[0], [0]])


# ---------------------------------------------------------------- the whole in plain NumPy


def numpy_norm(layer, x):
    gamma, beta = layer.get_weights()
    x = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(x**2, axis=-1, keepdims=True)
    return gamma * x / np.sqrt(variance + layer.epsilon) + beta


def numpy_attention(layer, token, memory, d):
    """eq-causal-attention of one token, one head after the other."""
    query, query_bias, key, key_bias, value, value_bias, out, bias = layer.get_weights()
    result = bias
    for head in range(len(out)):
        q = token @ query[:, head] + query_bias[head]
        k = memory @ key[:, head] + key_bias[head]
        v = memory @ value[:, head] + value_bias[head]
        weights = np.exp(k @ q / np.sqrt(d))
        result = result + weights / np.sum(weights) @ v @ out[head]
    return result


def numpy_block(block, token, memory, d):
    seen = numpy_norm(block.norms[0], np.array(memory))
    normed = numpy_norm(block.norms[0], token)
    token = token + numpy_attention(block.attention, normed, seen, d)
    hidden = numpy_norm(block.norms[1], token)
    for dense in block.dense:
        kernel, bias = dense.get_weights()
        hidden = hidden @ kernel + bias
        if dense is block.dense[0]:
            hidden = np.maximum(hidden, 0)
    return token + hidden


def numpy_predictions(learner, support_x, labels, query_x, d=2):
    """All of it, one token at a time; a token's memory is what stands before it, and itself."""
    kernel, bias = learner.token.get_weights()
    memory = [learner.start.numpy()[0, 0]]
    for z, label in zip(learner.encoder(support_x).numpy(), labels, strict=True):
        memory.append(np.concatenate([z, label]) @ kernel + bias)
    memories = [memory]
    for block in learner.blocks[:-1]:
        memory = [numpy_block(block, t, memory[: i + 1], d) for i, t in enumerate(memory)]
        memories.append(memory)
    predictions = []
    for z in learner.encoder(query_x).numpy():
        token = np.concatenate([z, np.zeros(learner.outputs)]) @ kernel + bias
        for block, memory in zip(learner.blocks, memories, strict=True):
            token = numpy_block(block, token, memory, d)
        head, bias_of_head = learner.head.get_weights()
        predictions.append(numpy_norm(learner.norm, token) @ head + bias_of_head)
    return np.array(predictions)


@pytest.mark.parametrize("blocks, regression", [(1, False), (2, True), (3, False)])
def test_plain_numpy(float64, blocks, regression):
    """eq-causal-attention after each number of examples; two heads of length d = 2.

    To 1e-8, because Keras rounds epsilon and 1 / sqrt(d) to float32.  Negative control: another d.
    """
    learner, task = random_learner(blocks=blocks), one_task(regression=regression)
    labels = as_vectors(task.support_y)
    for shots in (0, 1, 8):
        support = task.support_x[:shots], task.support_y[:shots]
        predict = learner.adapt(*support) if shots else learner.unadapted()
        found, inputs = predict(task.query_x), (support[0], labels[:shots], task.query_x)
        np.testing.assert_allclose(found, numpy_predictions(learner, *inputs), atol=1e-8)
        if shots:  # with the starting token alone its weight is one, whatever is asked
            assert np.abs(found - numpy_predictions(learner, *inputs, d=1)).max() > 1e-3


# ---------------------------------------------------------------- what is seen, and what is not


def test_attention_weights(float64):
    """eq-causal-attention has a softmax; heads and queries differ."""
    learner, task = random_learner(blocks=3), one_task()
    weights = learner.attention(*task[:3]).numpy()
    assert weights.shape == (3, 2, 5, 1 + 8)
    assert np.all(weights >= 0)
    np.testing.assert_allclose(np.sum(weights, axis=3), 1, atol=1e-12)
    assert np.abs(weights[:, 0] - weights[:, 1]).max() > 1e-2
    assert np.all(np.ptp(weights, axis=2) > 0)


@pytest.mark.parametrize("masked", [True, False])
def test_reading_on_changes_nothing_of_what_was_read(float64, monkeypatch, masked):
    """eq-causal-attention: the tokens of the first examples, beside those without a mask."""
    if not masked:
        monkeypatch.setattr(context_transformer, "up_to", see_everything)
    learner, (inputs, _) = random_learner(blocks=3), random_episode().element
    support, labels = learner.embed(inputs[0]), inputs[1]
    whole = learner.summarize(support, labels)
    assert [tokens.shape for tokens in whole] == 3 * [(3, 9, 4)]
    changes = []
    for shots in range(1, 8):
        parts = learner.summarize(support[:, :shots], labels[:, :shots])
        for part, tokens in zip(parts, whole, strict=True):
            changes.append(np.abs(part - tokens[:, : 1 + shots]).max())
    assert max(changes) < 1e-12 if masked else max(changes) > 1e-2


@pytest.mark.parametrize("masked, blocks", [(True, 1), (True, 2), (False, 2)])
def test_only_causality_lets_the_order_matter(float64, monkeypatch, masked, blocks):
    """eq-causal-attention: only between two blocks, and not without a mask."""
    if not masked:
        monkeypatch.setattr(context_transformer, "up_to", see_everything)
    learner, task = random_learner(blocks=blocks), one_task()
    moved = {n: tf.roll(getattr(task, n), 1, axis=0) for n in ("support_x", "support_y")}
    after = predictions(learner, task._replace(**moved))
    change = np.abs(after - predictions(learner, task)).max()
    assert change > 1e-3 if masked and blocks > 1 else change < 1e-12


class QueriesTogether(ContextTransformer):
    """Wrong: the queries attend to each other too."""

    def answer(self, summary, queries):
        queried = self.query_tokens(queries)
        return super().answer([tf.concat([m, queried], axis=1) for m in summary], queries)


@pytest.mark.parametrize("kind, right", [(ContextTransformer, True), (QueriesTogether, False)])
def test_queries_do_not_see_each_other(float64, kind, right):
    """In the order that was, and alone, each query has the same prediction."""
    learner, task = random_learner(kind), one_task()
    together = predictions(learner, task)
    for i in range(5):
        alone = predictions(learner, task._replace(query_x=task.query_x[i : i + 1]))
        change = np.abs(alone[0] - together[i]).max()
        assert change < 1e-12 if right else change > 1e-2


class WithoutLabels(ContextTransformer):
    """Wrong: reads the support set as if every label were zero."""

    def summarize(self, support, labels):
        return super().summarize(support, tf.zeros_like(self.as_vectors(labels)))


@pytest.mark.parametrize("kind, reads", [(ContextTransformer, True), (WithoutLabels, False)])
def test_the_labels_are_read(float64, kind, reads):
    learner, task = random_learner(kind), one_task()
    other = task._replace(support_y=tf.roll(task.support_y, 1, axis=0))
    change = np.abs(predictions(learner, other) - predictions(learner, task)).max()
    assert change > 1e-2 if reads else change == 0


# ---------------------------------------------------------------- finite differences


class ConstantExamples(ContextTransformer):
    """Wrong: the queries' loss does not reach what became of the examples."""

    def summarize(self, support, labels):
        summary = super().summarize(support, labels)
        return [tf.concat([m[:, :1], tf.stop_gradient(m[:, 1:])], axis=1) for m in summary]


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-causal-attention of queries and examples, beside a wrong one."""
    right, wrong = map(compiled, (random_learner(), random_learner(ConstantExamples)))
    check_meta_gradients(right, wrong, episode=random_episode(tasks=2, support=4, queries=3))
