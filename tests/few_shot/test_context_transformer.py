"""The context transformer: by hand, as a whole in plain NumPy, and beside wrong versions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import ContextTransformer
from mlutils.few_shot import context_transformer
from tests.few_shot.tasks import identity, one_task, random_episode
from tests.numeric import RELATIVE_TOLERANCE, finite_differences, flatten, relative_error


def random_learner(kind=ContextTransformer, blocks=2, seed=0):
    """A tanh encoder of 2 inputs; weights and biases so large that nothing is nearly linear."""
    learner = kind(mlutils.mlp(2, (3,), 2, activation="tanh"), 3, units=4, heads=2, blocks=blocks)
    random = np.random.default_rng(seed)
    learner.set_weights([random.normal(size=w.shape) for w in learner.get_weights()])
    return learner


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


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_plain_numpy(float64, blocks, regression):
    """eq-causal-attention after each number of examples; two heads of length d = 2.

    To 1e-8, because Keras rounds epsilon and 1 / sqrt(d) to float32.  Negative control: another d.
    """
    learner, task = random_learner(blocks=blocks), one_task(regression=regression)
    labels = task.support_y.numpy() if regression else np.eye(3)[task.support_y]
    for shots in (1, 2, 8):
        found = learner.adapt(task.support_x[:shots], task.support_y[:shots])(task.query_x)
        inputs = task.support_x[:shots], labels[:shots], task.query_x
        np.testing.assert_allclose(found, numpy_predictions(learner, *inputs), atol=1e-8)
        assert np.abs(found - numpy_predictions(learner, *inputs, d=1)).max() > 1e-3


def test_unadapted_attends_to_the_starting_token_only(float64):
    """eq-causal-attention with nothing before: its weight is one, whatever the query asks."""
    learner, task = random_learner(), one_task()
    expected = numpy_predictions(learner, np.zeros((0, 2)), np.zeros((0, 3)), task.query_x)
    np.testing.assert_allclose(learner.unadapted()(task.query_x), expected, atol=1e-8)
    for block in learner.blocks:
        query_kernel = block.attention.get_weights()[0]
        block.attention.set_weights([-query_kernel, *block.attention.get_weights()[1:]])
    np.testing.assert_allclose(learner.unadapted()(task.query_x), expected, atol=1e-8)


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
    before = learner.adapt(task.support_x, task.support_y)(task.query_x)
    moved = (tf.roll(values, 1, axis=0) for values in (task.support_x, task.support_y))
    after = learner.adapt(*moved)(task.query_x)
    change = np.abs(after - before).max()
    assert change > 1e-3 if masked and blocks > 1 else change < 1e-12


class QueriesTogether(ContextTransformer):
    """Wrong: the queries attend to each other too."""

    def answer(self, summary, queries):
        queried = self.query_tokens(queries)
        return super().answer([tf.concat([m, queried], axis=1) for m in summary], queries)


@pytest.mark.parametrize("kind, right", [(ContextTransformer, True), (QueriesTogether, False)])
def test_queries_do_not_see_each_other(float64, kind, right):
    """Alone, again, in any order, each query has the same prediction."""
    learner, task = random_learner(kind), one_task()
    predict = learner.adapt(task.support_x, task.support_y)
    together = predict(task.query_x)
    alone = [predict(task.query_x[i : i + 1])[0] - together[i] for i in (3, 0, 2, 4, 1, 3)]
    assert np.abs(alone).max() < 1e-12 if right else np.abs(alone).max() > 1e-2
    np.testing.assert_allclose(predict(task.query_x[::-1]), together[::-1], atol=1e-12)


def test_a_batch_equals_one_task_at_a_time(float64):
    for regression in (False, True):
        learner, (inputs, _) = random_learner(), random_episode(regression=regression).element
        together = learner(inputs)
        assert together.shape == (3, 5, 3)
        for *support, query_x, predictions in zip(*inputs, together, strict=True):
            alone = learner.adapt(*support)(query_x)
            np.testing.assert_allclose(alone, predictions, atol=1e-12)


class WithoutLabels(ContextTransformer):
    """Wrong: reads the support set as if every label were zero."""

    def summarize(self, support, labels):
        return super().summarize(support, tf.zeros_like(self.as_vectors(labels)))


@pytest.mark.parametrize("kind, reads", [(ContextTransformer, True), (WithoutLabels, False)])
def test_the_labels_are_read(float64, kind, reads):
    learner, task = random_learner(kind), one_task()
    before = learner.adapt(task.support_x, task.support_y)(task.query_x)
    after = learner.adapt(task.support_x, tf.roll(task.support_y, 1, axis=0))(task.query_x)
    change = np.abs(after - before).max()
    assert change > 1e-2 if reads else change == 0


# ---------------------------------------------------------------- finite differences


class ConstantExamples(ContextTransformer):
    """Wrong: the queries' loss does not reach what became of the examples."""

    def summarize(self, support, labels):
        summary = super().summarize(support, labels)
        return [tf.concat([m[:, :1], tf.stop_gradient(m[:, 1:])], axis=1) for m in summary]


def test_meta_gradient_equals_finite_differences(float64):
    """Through eq-causal-attention of queries and examples, beside a wrong one."""
    right, wrong = random_learner(), random_learner(ConstantExamples)
    episode = random_episode(tasks=2, support=4, queries=3)
    for learner in (right, wrong):
        learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    reference = finite_differences(lambda: right.meta_loss(episode), right.trainable_variables)
    errors = [
        relative_error(flatten(learner.meta_gradients(episode)[1]), reference)
        for learner in (right, wrong)
    ]
    assert errors[0] < RELATIVE_TOLERANCE
    assert errors[1] > 1e-2


# ---------------------------------------------------------------- training


def blobs(ways=2, shots=1, **options):
    """Clouds of points whose names are drawn anew for each task."""
    random = np.random.default_rng(0)
    centres = np.array([[[2, 0]], [[-2, 0]], [[0, 3]]])[:ways]
    x = random.normal(size=(ways, 40, 2)) / 2 + centres
    y = np.repeat(np.arange(ways), 40)
    return mlutils.data.episodes(x.reshape(-1, 2), y, ways, shots, **options)


def classifier(outputs=2, blocks=1):
    learner = ContextTransformer(identity(2), outputs, units=16, heads=2, blocks=blocks)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=keras.optimizers.Adam(5e-3), loss=loss)
    return learner


def test_fit_learns_to_read_the_labels():
    """The clouds' names change from task to task: who does not read them is right by halves."""
    learner = classifier(blocks=2)
    learner.fit(blobs(), steps_per_epoch=100, verbose=0)
    new = blobs(seed=1)
    score, controls = mlutils.evaluate(learner, new), mlutils.controls(learner, new, tasks=200)
    assert list(controls) == ["no adaptation", "shuffled support labels"]
    assert score.mean > 0.9
    for control in controls.values():
        assert control.mean < 0.6


def test_more_outputs_than_ways():
    """Five outputs, three classes: the learner learns that there are no others."""
    learner, batches = classifier(outputs=5), blobs(ways=3)
    before = learner.evaluate(batches, steps=1, verbose=0)
    learner.fit(batches, steps_per_epoch=60, verbose=0)
    inputs, query_y = next(iter(blobs(ways=3, seed=1)))
    logits = learner(inputs)
    assert logits.shape == (16, 15, 5)
    assert np.max(np.argmax(logits, axis=2)) == 2
    assert float(learner.task_loss(query_y, logits)) < before


def test_other_shots_than_in_training():
    """After one ``compile``."""
    learner = classifier()
    (x, y, query_x), query_y = next(iter(blobs(shots=3, meta_batch=3)))
    one, two, three = (((x[:, :S], y[:, :S], query_x), query_y) for S in (2, 4, 6))
    learner.fit(*two, verbose=0)
    for inputs, _ in (one, three):
        by_hand = [learner.adapt(*support)(query) for *support, query in zip(*inputs, strict=True)]
        loss = float(learner.task_loss(query_y, tf.stack(by_hand)))
        assert learner.evaluate(inputs, query_y, verbose=0) == pytest.approx(loss, rel=1e-5)


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    "sizes, words",
    [
        (dict(units=6, heads=4), "heads must divide units, which is 6; got 4"),
        (dict(units=2, heads=4), "heads must divide units, which is 2; got 4"),
        (dict(outputs=0), "outputs must be .* 1, got 0"),
        (dict(units=0), "units must be .* 1, got 0"),
        (dict(heads=0), "heads must be .* 1, got 0"),
        (dict(blocks=0), "blocks must be .* 1, got 0"),
        (dict(blocks=1.5), "blocks must be .* 1, got 1.5"),
        (dict(heads=True), "heads must be .* got True"),
    ],
)
def test_wrong_sizes_raise(sizes, words):
    with pytest.raises(ValueError, match=words):
        ContextTransformer(identity(2), **{"outputs": 3, **sizes})


@pytest.mark.parametrize(
    "support_y, words",
    [
        (tf.constant([0, 3]), "from 0 to 3; allowed are 0 to 2"),
        (tf.constant([-1, 0]), "from -1 to 0; allowed are 0 to 2"),
        (tf.zeros((2,)), r"allowed are \(S,\) integers"),
        (tf.zeros((2, 2)), r"and \(S, 3\) floats"),
        (tf.zeros((2, 3), tf.int32), r"allowed are \(S,\) integers"),
    ],
)
def test_wrong_labels_raise(support_y, words):
    learner = ContextTransformer(identity(2), outputs=3)
    with pytest.raises(ValueError, match=words):
        learner.adapt(tf.zeros((2, 2)), support_y)
    with pytest.raises(ValueError, match=words):
        learner.attention(tf.zeros((2, 2)), support_y, tf.zeros((1, 2)))


def test_labels_out_of_range_raise_in_a_graph():
    """Not read as zeros: three-way tasks for a learner with two outputs."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be 0 to 1"):
        mlutils.evaluate(classifier(), blobs(ways=3), tasks=16)
