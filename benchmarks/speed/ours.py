"""The meta-steps of MAML with mlutils, to be timed beside the peers'."""

import keras
import numpy as np
import tensorflow as tf

import mlutils
from mlutils import MAML, Episode

STEPS = 1000


def learner_with(weights, problem, steps=1):
    """A compiled ``MAML`` with these weights, in Keras's order."""
    if problem == "sinusoid":
        learner = MAML(mlutils.mlp(), inner_lr=0.01, inner_steps=steps)
        learner.compile("adam", "mse", jit_compile=True, steps_per_execution=STEPS)
    else:
        model = mlutils.conv4(outputs=5, norm=len(weights) == 18)
        learner = MAML(model, inner_lr=0.4, inner_steps=steps)
        learner.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    learner.model.set_weights(weights)
    return learner


def loss_and_gradients(weights, episode, problem, steps=1, variant=None):
    """The mean query loss after the inner steps and its gradients, from NumPy to NumPy."""
    learner = learner_with(weights, problem, steps)
    loss, gradients = learner.meta_gradients(Episode(*map(tf.constant, episode)))
    return loss.numpy(), [g.numpy() for g in gradients]


def timed_sinusoid(weights, steps=1, variant=None):
    """A warm function of no arguments that makes ``STEPS`` meta-steps, sampling included."""
    learner = learner_with(weights, "sinusoid", steps)
    batches = iter(mlutils.data.sinusoids(meta_batch=25))
    learner.make_train_function()

    def run():
        return float(learner.train_function(batches)["loss"])

    run()
    return run


def timed_conv(weights, episode, variant=None):
    """A warm function of no arguments that computes one meta-gradient."""
    learner = learner_with(weights, "conv")
    episode = Episode(*map(tf.constant, episode))
    step = tf.function(learner.meta_gradients).get_concrete_function(episode)

    def run():
        loss, gradients = step(episode)
        return float(loss), gradients[0].numpy()

    run()
    return run


def convolution_throughput(rounds=30):
    """A function of no arguments: one large convolution; and how many operations it takes."""
    x = tf.constant(np.random.default_rng(0).normal(size=(80, 14, 14, 64)), tf.float32)
    filters = tf.constant(np.random.default_rng(1).normal(size=(3, 3, 64, 64)), tf.float32)
    convolve = tf.function(lambda x: tf.nn.conv2d(x, filters, 1, "SAME"))
    convolve = convolve.get_concrete_function(x)

    def run():
        for _ in range(rounds):
            result = convolve(x)
        return result.numpy()[0, 0, 0, 0]

    run()
    return run, rounds * 2 * 80 * 14 * 14 * 9 * 64 * 64
