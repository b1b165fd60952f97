"""What these tests share: small networks, tasks of random numbers, and derivatives."""

import keras
import numpy as np
import tensorflow as tf

import mlutils
from mlutils import MAML, BatchNorm, Episode
from tests.numeric import finite_differences, flatten, relative_error

# ---------------------------------------------------------------- one weight


def quartic(targets, predictions):
    return tf.reduce_mean((predictions - targets) ** 4) / 4


def scalar_learner(theta=1.0, kind=MAML, **options):
    """A model with one weight: its prediction for x = 1 is theta."""
    model = linear_model(1)
    model.set_weights([np.array([[theta]])])
    learner = kind(model, **{"inner_lr": 0.5, **options})
    learner.compile(optimizer=keras.optimizers.SGD(1.0), loss=quartic)
    return learner


def scalar_episode(support_y=0.0, query_y=1.5):
    one = tf.ones((1, 1, 1))
    return Episode(one, support_y * one, one, query_y * one)


def adapted(learner, steps=None):
    """The one weight after adapting to the target 0."""
    predict = learner.adapt(tf.ones((1, 1)), tf.zeros((1, 1)), steps=steps)
    return predict(tf.ones((1, 1))).numpy().item()


# ---------------------------------------------------------------- networks


def linear_model(inputs=2):
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(1, use_bias=False)])


def dense_model(hidden=4):
    return mlutils.mlp(input_size=2, hidden=(hidden,), outputs=3, activation="tanh")


def named_model():
    body = keras.layers.Dense(3, activation="tanh", name="body")
    return keras.Sequential([keras.Input((2,)), body, keras.layers.Dense(3, name="last")])


def norm_model():
    layers = [keras.Input((2,)), keras.layers.Dense(3), BatchNorm(), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def conv_model(norm=False, pooling=keras.layers.AveragePooling2D, activation="tanh"):
    layers = [keras.Input((6, 6, 1))]
    for filters in (2, 2):
        layers.append(keras.layers.Conv2D(filters, 3, padding="same"))
        if norm:
            layers.append(BatchNorm())
        layers.append(keras.layers.Activation(activation))
        layers.append(pooling(2))
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(3)])


# ---------------------------------------------------------------- tasks and learners


def random_episode(model, tasks=2, support=4, queries=7, seed=0, dtype="float64"):
    """S and Q differ in content and size; three classes."""
    random = np.random.default_rng(seed)
    shape = model.input_shape[1:]
    return Episode(
        tf.constant(random.normal(size=(tasks, support, *shape)), dtype),
        tf.constant(random.integers(0, 3, size=(tasks, support))),
        tf.constant(random.normal(size=(tasks, queries, *shape)), dtype),
        tf.constant(random.integers(0, 3, size=(tasks, queries))),
    )


def regression_episode(inputs=2, tasks=2, support=6, queries=7, seed=0):
    random = np.random.default_rng(seed)
    sizes = [(support, inputs), (support, 1), (queries, inputs), (queries, 1)]
    return Episode(*(tf.constant(random.normal(size=(tasks, *size))) for size in sizes))


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier(model, kind=MAML, **options):
    learner = kind(model, **options)
    learner.compile(optimizer="sgd", loss=cross_entropy())
    return learner


# ---------------------------------------------------------------- derivatives


def gradient_error(learner, episode):
    """The error of the meta-gradient by everything trainable, against finite differences."""
    reference = finite_differences(lambda: learner.meta_loss(episode), learner.trainable_variables)
    _, gradients = learner.meta_gradients(episode)
    return relative_error(flatten(tf.convert_to_tensor(g) for g in gradients), reference)


def as_vector(learner):
    """Theta as one vector, and the loss of a vector on some examples."""
    shapes = [v.shape for v in learner.model.trainable_variables]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def loss(theta, x, y):
        weights = [tf.reshape(w, s) for w, s in zip(tf.split(theta, sizes), shapes, strict=True)]
        return learner.task_loss(y, learner.predict_with(weights, x))

    return tf.concat([tf.reshape(v, [-1]) for v in learner.initialisation()], 0), loss


def derivatives(loss, theta, x, y):
    """The gradient of a loss of a vector, and its Hessian."""
    with tf.GradientTape() as outer:
        outer.watch(theta)
        with tf.GradientTape() as inner:
            inner.watch(theta)
            value = loss(theta, x, y)
        gradient = inner.gradient(value, theta)
    return gradient.numpy(), outer.jacobian(gradient, theta).numpy()


def shrinking(residual):
    """By what the residual shrinks when alpha is halved, twice: 4 if quadratic, 2 if linear."""
    sizes = [np.max(np.abs(residual(alpha))) for alpha in (0.02, 0.01, 0.005)]
    return [sizes[0] / sizes[1], sizes[1] / sizes[2]]
