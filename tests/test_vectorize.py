"""Many tasks at once equal one task at a time, for all kinds of convolution and any number."""

import importlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops.parallel_for import control_flow_ops, pfor

from mlutils import vectorize
from mlutils.vectorize import map_tasks
from tests.maml.tasks import classifier, random_episode
from tests.numeric import flatten, relative_error

IMAGE, SERIES, VOLUME = (5, 5, 2), (6, 2), (4, 4, 4, 1)


def twice(layer, options):
    """Two layers: the second has inputs of its own for each task, unlike the first."""
    return [layer(2, 2, **options), keras.layers.Activation("tanh"), layer(2, 2, **options)]


LAYERS = {
    "same": (IMAGE, lambda: twice(keras.layers.Conv2D, dict(padding="same"))),
    "strides": (IMAGE, lambda: twice(keras.layers.Conv2D, dict(strides=2, padding="same"))),
    "dilation": (IMAGE, lambda: twice(keras.layers.Conv2D, dict(dilation_rate=2))),
    "depthwise": (
        IMAGE,
        lambda: [keras.layers.DepthwiseConv2D(2), keras.layers.DepthwiseConv2D(2)],
    ),
    "separable": (IMAGE, lambda: twice(keras.layers.SeparableConv2D, {})),
    "transposed": (IMAGE, lambda: twice(keras.layers.Conv2DTranspose, dict(strides=2))),
    "1D": (SERIES, lambda: twice(keras.layers.Conv1D, {})),
    "3D": (VOLUME, lambda: twice(keras.layers.Conv3D, {})),
}


def network(kind):
    shape, layers = LAYERS[kind]
    return keras.Sequential(
        [keras.Input(shape), *layers(), keras.layers.Flatten(), keras.layers.Dense(3)]
    )


def one_task_at_a_time(learner, episode):
    """Predictions, and the meta-gradient as a mean, without any vectorised map."""

    @tf.function
    def one(support_x, support_y, query_x, query_y):
        with tf.GradientTape() as tape:
            predictions = learner.adapt(support_x, support_y)(query_x)
            loss = learner.task_loss(query_y, predictions)
        return predictions, tape.gradient(loss, learner.trainable_variables)

    tasks = [one(*task) for task in zip(*episode, strict=True)]
    gradients = [flatten(gradients) for _, gradients in tasks]
    return np.stack([predictions for predictions, _ in tasks]), np.mean(gradients, 0)


@pytest.mark.parametrize(
    "kind, tasks",
    [*((kind, 3) for kind in LAYERS), *(("same", n) for n in (32, 35))],
)
def test_all_tasks_at_once_equal_one_at_a_time(float64, kind, tasks):
    """eq-maml-gradient for 3 tasks, the most that are written out, and more with a remainder."""
    learner = classifier(network(kind), inner_lr=1.0)
    episode = random_episode(learner.model, tasks=tasks, support=3, queries=2)

    expected, mean = one_task_at_a_time(learner, episode)
    np.testing.assert_allclose(learner(episode.element[0]), expected, atol=1e-10)
    assert relative_error(flatten(learner.meta_gradients(episode)[1]), mean) < 1e-9


@pytest.mark.parametrize("tasks", [3, 35])
def test_grouped_convolutions(tasks):
    """Values alone: TensorFlow has no gradient of a grouped convolution on a CPU."""
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(tasks, 1, 4, 4, 4)))
    filters = tf.constant(random.normal(size=(tasks, 2, 2, 2, 4)))
    found = map_tasks(lambda task: tf.nn.conv2d(*task, 1, "VALID"), (images, filters))
    for image, kernel, one in zip(images, filters, found, strict=True):
        np.testing.assert_allclose(one, tf.nn.conv2d(image, kernel, 1, "VALID"), rtol=1e-12)


def meta_gradient_graph(model, tasks):
    """The nodes of MAML's meta-gradient for so many tasks, and of all functions it calls."""
    learner = classifier(model)
    episode = random_episode(model, tasks=tasks, support=3, queries=2, dtype="float32")
    function = tf.function(lambda: learner.meta_gradients(episode)).get_concrete_function()
    graph = function.graph.as_graph_def()
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]


def loops(nodes):
    return sum(node.op in ("While", "StatelessWhile") for node in nodes)


def test_the_graph_does_not_grow_with_the_number_of_tasks():
    """Above 32 tasks, in whole groups of 16; negative control: written out, it does."""

    def size(tasks):
        specs = tf.TensorSpec((tasks, 1, 4, 4, 2)), tf.TensorSpec((tasks, 2, 2, 2, 1))
        convolve = tf.function(lambda *t: map_tasks(lambda t: tf.nn.conv2d(*t, 1, "SAME"), t))
        return len(convolve.get_concrete_function(*specs).graph.as_graph_def().node)

    assert size(48) == size(64) == size(80)
    assert size(4) < size(8) < size(32)


def test_no_convolution_runs_in_a_loop_over_the_tasks(monkeypatch):
    """... nor warns; with TensorFlow's own converters some do run so.

    If this fails, TensorFlow has renamed what ``mlutils.vectorize`` replaces, and the learners
    are right and slow.
    """
    monkeypatch.setattr(vectorize, "_reported", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loops(meta_gradient_graph(network("same"), 3)) == 0
    for ours, theirs in [
        ("one_by_one", vectorize.builtin_fallback),
        ("filter_gradient", vectorize.builtin_filter_gradient),
    ]:
        with monkeypatch.context() as patched:
            patched.setattr(vectorize, ours, theirs)
            assert loops(meta_gradient_graph(network("same"), 3)) > 0


# ---------------------------------------------------------------- TensorFlow's registry


def registered():
    """What TensorFlow converts with, and whether it says that it is within XLA."""
    kinds = ("Conv2DBackpropFilter", "BatchMatMulV2")
    found = [pfor._pfor_converter_registry[kind] for kind in kinds]
    return [*found, pfor._fallback_converter, control_flow_ops._is_under_xla_context]


def test_tensorflow_is_left_as_it_was():
    """The converters are in effect within the function, and only there, whatever happens."""
    before, within = registered(), []

    def function(x):
        within.append(registered())
        return 2 * x

    np.testing.assert_array_equal(map_tasks(function, tf.ones((3, 2))), 2 * np.ones((3, 2)))
    ours = [vectorize.filter_gradient, vectorize.matrix_product, vectorize.one_by_one]
    assert within[0][:3] == ours
    assert registered() == before and not set(before) & set(ours)
    map_tasks(lambda x: map_tasks(function, x), tf.ones((3, 2, 2)))
    assert within[1][:3] == ours and registered() == before

    def fails(x):
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        map_tasks(fails, tf.ones((3, 2)))
    assert registered() == before


def test_a_tensorflow_without_these_names_is_used_as_it_is(monkeypatch):
    """It is imported with a warning, and tasks are mapped."""
    images, filters = tf.random.normal((3, 1, 4, 4, 2)), tf.random.normal((3, 2, 2, 2, 1))

    def convolve(task):
        return tf.nn.conv2d(*task, 1, "VALID")

    expected = map_tasks(convolve, (images, filters))
    try:
        with monkeypatch.context() as older:
            older.delattr(pfor, "_fallback_converter")
            with pytest.warns(UserWarning, match="_fallback_converter.* several times slower"):
                importlib.reload(vectorize)
            assert vectorize.pfor is None
        np.testing.assert_allclose(map_tasks(convolve, (images, filters)), expected, rtol=1e-5)
    finally:
        importlib.reload(vectorize)
    assert vectorize.pfor is pfor


SHAPES = [((3, 4), (4, 2)), ((1, 3, 4), (4, 2)), ((1, 3, 4), (1, 4, 2)), ((2, 3, 4), (4, 2))]
SHAPES += [((2, 1, 3, 4), (1, 1, 4, 2)), ((2, 3, 4), (2, 4, 2)), ((3, 4), (1, 1, 4, 2))]


@pytest.mark.parametrize("left, right", SHAPES)
@pytest.mark.parametrize("adjoint", [False, True])
def test_products_with_a_matrix_that_all_tasks_share(left, right, adjoint):
    """Values and gradients, of both factors, in either order."""
    if adjoint:
        right = (*right[:-2], right[-1], right[-2])
    x = tf.random.normal((5, *left))
    shared = tf.random.normal(right)

    def forward(x):
        return tf.matmul(x, shared, adjoint_b=adjoint)

    def backward(x):
        product = tf.matmul(shared, x, adjoint_a=not adjoint, adjoint_b=True)
        return tf.gradients(tf.reduce_sum(tf.sin(product)), x)[0]

    for function in (forward, backward):
        one_by_one = tf.stack([tf.function(function)(task) for task in x])
        np.testing.assert_allclose(map_tasks(function, x), one_by_one, rtol=1e-5, atol=1e-5)


def test_such_products_are_flat(monkeypatch):
    """Where oneDNN is on, TensorFlow 2.21 damages memory with ``(tasks, 1, n, m)`` times
    ``(m, k)``.  Negative control: with TensorFlow's own converter there is such a product."""
    shared, x = tf.ones((4, 2)), tf.ones((5, 1, 3, 4))

    def broadcast_products():
        function = tf.function(lambda x: map_tasks(lambda task: tf.matmul(task, shared), x))
        nodes = function.get_concrete_function(x).graph.as_graph_def().node
        return [n for n in nodes if n.op == "BatchMatMulV2" and "/pfor/" in n.name]

    assert not broadcast_products()
    monkeypatch.setattr(vectorize, "matrix_product", vectorize.builtin_matrix_product)
    assert broadcast_products()


# ---------------------------------------------------------------- other operations


@pytest.mark.parametrize("tasks", [3, 35])
def test_an_operation_without_a_vectorised_form_is_right_and_warns_once(monkeypatch, tasks):
    """Dilation2D, with filters of each task's own or shared; when it gets a form, take another."""
    monkeypatch.setattr(vectorize, "_reported", set())
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(tasks, 1, 4, 4, 2)))
    filters = tf.constant(random.normal(size=(tasks, 2, 2, 2)))

    def dilate(image, kernel):
        return tf.nn.dilation2d(image, kernel, (1, 1, 1, 1), "VALID", "NHWC", (1, 1, 1, 1))

    with pytest.warns(UserWarning, match="Dilation2D .* once per task") as caught:
        own = map_tasks(lambda task: dilate(*task), (images, filters))
        shared = map_tasks(lambda image: dilate(image, filters[0]), images)
    assert sum("once per task" in str(w.message) for w in caught) == 1
    for image, kernel, ours, theirs in zip(images, filters, own, shared, strict=True):
        np.testing.assert_array_equal(ours, dilate(image, kernel))
        np.testing.assert_array_equal(theirs, dilate(image, filters[0]))


def test_such_an_operation_inside_a_learner(float64, monkeypatch):
    """Its first and second derivatives, too: cumulative_logsumexp has no form for many tasks."""
    monkeypatch.setattr(vectorize, "_reported", set())
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3),
            keras.layers.Lambda(lambda x: tf.math.cumulative_logsumexp(x, axis=1)),
            keras.layers.Dense(3),
        ]
    )
    learner = classifier(model, inner_lr=1.0)
    episode = random_episode(model, tasks=3)
    with pytest.warns(UserWarning, match="CumulativeLogsumexp .* once per task") as caught:
        predictions = learner(episode.element[0])
        _, gradients = learner.meta_gradients(episode)
    messages = [str(w.message) for w in caught if "once per task" in str(w.message)]
    assert len(messages) == len({message.split()[2] for message in messages})
    expected, mean = one_task_at_a_time(learner, episode)
    np.testing.assert_allclose(predictions, expected, atol=1e-12)
    assert relative_error(flatten(gradients), mean) < 1e-9


@pytest.mark.parametrize("tasks", [3, 35])
@pytest.mark.parametrize(
    "draw",
    [
        lambda: tf.random.shuffle(tf.range(5)),
        lambda: tf.py_function(lambda: tf.range(4, -1, -1), [], tf.int32),
    ],
)
def test_an_operation_with_an_effect_and_no_input_of_the_task(draw, tasks):
    """A stateful operation runs once per task even where nothing of the task goes in.

    So it does in TensorFlow without ``mlutils``.
    """
    found = map_tasks(lambda x: x + tf.ensure_shape(draw(), (5,)), tf.zeros((tasks, 5), tf.int32))
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(5), (tasks, 1)))


@pytest.mark.filterwarnings("ignore:The operation Unique")
def test_several_outputs():
    """Of one operation without a vectorised form: the unique values and their places."""
    x = tf.constant([[3, 1, 3, 1], [2, 5, 5, 2], [7, 8, 8, 7]])
    values, places = map_tasks(lambda row: tuple(tf.unique(row)), x)
    np.testing.assert_array_equal(values, [[3, 1], [2, 5], [7, 8]])
    np.testing.assert_array_equal(places, [[0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]])
