"""The meta-steps of MAML in JAX, for comparison.

Weights are lists of NumPy arrays in Keras's order and layout; an episode is
``(support_x, support_y, query_x, query_y)`` with a leading task axis, images NHWC.
A problem is "sinusoid" or "conv"; a variant of the gradient "vmap" or "loop" (over tasks).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

INNER_LR = {"sinusoid": 0.01, "conv": 0.4}
TASKS, POINTS, SCAN = 25, 10, 1000


def mlp(weights, x):
    """Dense layers with ReLU between them."""
    *hidden, kernel, bias = weights
    for i in range(0, len(hidden), 2):
        x = jax.nn.relu(x @ hidden[i] + hidden[i + 1])
    return x @ kernel + bias


def batch_norm(x, gamma, beta, epsilon=1e-3):
    """Normalise each channel by the batch at hand."""
    centred = x - x.mean((0, 1, 2))
    return centred * jax.lax.rsqrt(jnp.square(centred).mean((0, 1, 2)) + epsilon) * gamma + beta


def conv4(weights, x):
    """Blocks of convolution, norm if there are weights for it, ReLU, pooling; a dense head."""
    *blocks, kernel, bias = weights
    size = len(blocks) // 4
    for i in range(0, len(blocks), size):
        conv_kernel, conv_bias, *norm = blocks[i : i + size]
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, conv_kernel, (1, 1), "SAME", dimension_numbers=layout)
        x = x + conv_bias
        x = jax.nn.relu(batch_norm(x, *norm) if norm else x)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(len(x), -1) @ kernel + bias


def sinusoid_loss(weights, x, y):
    """Mean squared error of the MLP."""
    return jnp.square(mlp(weights, x) - y).mean()


def conv_loss(weights, x, y):
    """Mean cross-entropy of the convolutional network."""
    log_probabilities = jax.nn.log_softmax(conv4(weights, x))
    return -jnp.take_along_axis(log_probabilities, y[:, None], 1).mean()


LOSSES = {"sinusoid": sinusoid_loss, "conv": conv_loss}


def task_loss(weights, task, problem, steps):
    """The query loss of one task after the inner steps."""
    loss, rate = LOSSES[problem], INNER_LR[problem]
    support_x, support_y, query_x, query_y = task
    for _ in range(steps):
        gradients = jax.grad(loss)(weights, support_x, support_y)
        weights = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
    return loss(weights, query_x, query_y)


@partial(jax.jit, static_argnames=("problem", "steps"))
def vmap_gradient(weights, episode, problem, steps=1):
    """The mean query loss and its gradients, second order included; all tasks at once."""

    def mean_loss(weights):
        return jax.vmap(lambda *task: task_loss(weights, task, problem, steps))(*episode).mean()

    return jax.value_and_grad(mean_loss)(weights)


task_gradient = jax.jit(jax.value_and_grad(task_loss), static_argnames=("problem", "steps"))


def loop_gradient(weights, episode, problem, steps=1):
    """The same, one task after another: XLA's convolutions under vmap are slow on a CPU."""
    tasks = zip(*episode, strict=True)
    results = [task_gradient(weights, task, problem=problem, steps=steps) for task in tasks]
    return jax.tree.map(lambda *values: sum(values) / len(values), *results)


META_GRADIENTS = {"vmap": vmap_gradient, "loop": loop_gradient}


def loss_and_gradients(weights, episode, problem, steps=1, variant="vmap"):
    """The mean query loss after the inner steps and its gradients, from NumPy to NumPy."""
    meta_gradient = META_GRADIENTS[variant]
    return jax.device_get(meta_gradient(list(weights), tuple(episode), problem, steps))


def adam(weights, gradients, state, rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """One step of Adam by Keras's formula."""
    t, m, v = state
    t = t + 1
    m = [a + (g - a) * (1 - beta_1) for a, g in zip(m, gradients, strict=True)]
    v = [a + (jnp.square(g) - a) * (1 - beta_2) for a, g in zip(v, gradients, strict=True)]
    rate = rate * jnp.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    moved = zip(weights, m, v, strict=True)
    return [w - rate * a / (jnp.sqrt(b) + epsilon) for w, a, b in moved], (t, m, v)


def meta_step(weights, state, episode, steps):
    """One step of meta-training on sinusoids."""
    loss, gradients = vmap_gradient(weights, episode, "sinusoid", steps)
    return *adam(weights, gradients, state), loss


def sinusoids(amplitude, phase, x, sin=np.sin):
    """An episode from draws of U[0, 1)."""
    amplitude, phase, x = 0.1 + 4.9 * amplitude, math.pi * phase, 10 * x - 5
    y = amplitude * sin(x - phase)
    return x[:, :POINTS], y[:, :POINTS], x[:, POINTS:], y[:, POINTS:]


SHAPES = ((TASKS, 1, 1), (TASKS, 1, 1), (TASKS, 2 * POINTS, 1))


def timed_sinusoid(weights, steps=1, variant="step", seed=0):
    """A warm function of no arguments to be timed; it returns the losses.

    With ``variant="step"`` it makes one meta-step, tasks sampled by NumPy; with "scan"
    ``SCAN`` of them in one ``lax.scan``, tasks sampled inside.
    """
    draws, key = np.random.default_rng(seed), jax.random.key(seed)
    weights = [jnp.asarray(w) for w in weights]
    zeros = [jnp.zeros_like(w) for w in weights]
    state = (jnp.zeros(()), zeros, zeros)

    def scan_step(carry, key):
        keys = jax.random.split(key, 3)
        episode = sinusoids(*map(jax.random.uniform, keys, SHAPES), sin=jnp.sin)
        *carry, loss = meta_step(*carry, episode, steps)
        return tuple(carry), loss

    @jax.jit
    def scan(weights, state, key):
        key, *keys = jax.random.split(key, SCAN + 1)
        carry, losses = jax.lax.scan(scan_step, (weights, state), jnp.stack(keys))
        return *carry, key, losses

    step = jax.jit(partial(meta_step, steps=steps))

    def run():
        nonlocal weights, state, key
        if variant == "scan":
            weights, state, key, losses = scan(weights, state, key)
        else:
            episode = sinusoids(*(draws.random(shape, np.float32) for shape in SHAPES))
            weights, state, losses = step(weights, state, episode)
        return jax.block_until_ready(losses)

    run()
    return run


def timed_conv(weights, episode, variant="loop"):
    """A warm function of no arguments that computes one meta-gradient."""
    weights, episode = jax.device_put((list(weights), tuple(episode)))

    def run():
        return jax.block_until_ready(META_GRADIENTS[variant](weights, episode, "conv"))

    run()
    return run
