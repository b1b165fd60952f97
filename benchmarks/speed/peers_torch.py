"""The meta-steps of MAML in PyTorch, with torch.func and with higher, for comparison.

Weights are lists of NumPy arrays in Keras's order and layout; an episode is
``(support_x, support_y, query_x, query_y)`` with a leading task axis, images NHWC.
A problem is "sinusoid" or "conv"; a variant "func" or "higher".

Where another process keeps a core busy, PyTorch's threads wait for each other for ages:
time it on an idle machine, the sinusoids with ``torch.set_num_threads(1)``.
"""

import math

import higher
import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, grad_and_value, vmap

INNER_LR = {"sinusoid": 0.01, "conv": 0.4}
LOSSES = {"sinusoid": nn.functional.mse_loss, "conv": nn.functional.cross_entropy}
TASKS, POINTS = 25, 10


def to_torch(w):
    """A weight with its axes as PyTorch has them: HWIO to OIHW, (in, out) to (out, in)."""
    return torch.tensor(w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T)


def to_keras(w):
    """A weight or gradient with its axes as Keras has them."""
    w = w.numpy()
    return w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T


class BatchNorm(nn.Module):
    """Batch normalisation by the batch at hand.

    The second derivative of ``nn.BatchNorm2d`` is silently wrong in ``grad(vmap(...))``
    (seen in PyTorch 2.13; https://github.com/pytorch/functorch/issues/534).
    """

    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x, epsilon=1e-3):
        centred = x - x.mean((0, 2, 3), keepdim=True)
        variance = centred.square().mean((0, 2, 3), keepdim=True)
        return centred * torch.rsqrt(variance + epsilon) * self.gamma + self.beta


def network(weights):
    """The ``nn.Sequential`` with these weights: an MLP, or Conv4, with norm if given 18."""
    layers = []
    for w in weights[:-2]:
        if w.ndim == 4:
            norm = [BatchNorm(w.shape[3])] if len(weights) == 18 else []
            layers += [nn.Conv2d(*w.shape[2:], 3, padding=1), *norm, nn.ReLU(), nn.MaxPool2d(2)]
        elif w.ndim == 2:
            layers += [nn.Linear(*w.shape), nn.ReLU()]
    if weights[0].ndim == 4:
        layers.append(nn.Flatten())  # of 1 x 1 images: the order of the axes does not matter
    model = nn.Sequential(*layers, nn.Linear(*weights[-2].shape))
    with torch.no_grad():
        for parameter, w in zip(model.parameters(), weights, strict=True):
            parameter.copy_(to_torch(w).view_as(parameter))
    return model


def tensors(episode):
    """The episode as tensors, images NCHW."""
    arrays = [np.moveaxis(a, -1, 2) if a.ndim == 5 else a for a in episode]
    arrays = [torch.tensor(np.ascontiguousarray(a)) for a in arrays]
    return [a if a.is_floating_point() else a.long() for a in arrays]


def func_gradients(model, episode, problem, steps=1):
    """The mean query loss after the inner steps and its gradients, with torch.func."""

    def loss(parameters, x, y):
        return LOSSES[problem](functional_call(model, parameters, (x,)), y)

    def task_loss(parameters, support_x, support_y, query_x, query_y):
        for _ in range(steps):
            gradients = grad(loss)(parameters, support_x, support_y)
            parameters = {k: p - INNER_LR[problem] * gradients[k] for k, p in parameters.items()}
        return loss(parameters, query_x, query_y)

    def mean_loss(parameters):
        return vmap(task_loss, (None, 0, 0, 0, 0))(parameters, *episode).mean()

    parameters = {k: p.detach() for k, p in model.named_parameters()}
    gradients, value = grad_and_value(mean_loss)(parameters)
    return value, list(gradients.values())


def higher_gradients(model, episode, problem, steps=1):
    """The same with higher, in a loop over the tasks."""
    loss, total = LOSSES[problem], 0.0
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters(), INNER_LR[problem])
    for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
        context = higher.innerloop_ctx(model, optimizer, copy_initial_weights=False)
        with context as (adapted, inner):
            for _ in range(steps):
                inner.step(loss(adapted(support_x), support_y))
            query_loss = loss(adapted(query_x), query_y) / len(episode[0])
            query_loss.backward()
            total += query_loss.detach()
    return total, [p.grad for p in model.parameters()]


META_GRADIENTS = {"func": func_gradients, "higher": higher_gradients}


def loss_and_gradients(weights, episode, problem, steps=1, variant="func"):
    """The mean query loss after the inner steps and its gradients, from NumPy to NumPy."""
    meta_gradient = META_GRADIENTS[variant]
    loss, gradients = meta_gradient(network(weights), tensors(episode), problem, steps)
    gradients = [to_keras(g) for g in gradients]
    return loss.numpy(), [g.reshape(w.shape) for g, w in zip(gradients, weights, strict=True)]


class Adam:
    """Adam by Keras's formula, in place."""

    def __init__(self, weights):
        self.weights, self.t = list(weights), 0
        self.m, self.v = ([torch.zeros_like(w) for w in self.weights] for _ in range(2))

    @torch.no_grad()
    def step(self, gradients, rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
        self.t += 1
        rate = rate * math.sqrt(1 - beta_2**self.t) / (1 - beta_1**self.t)
        for w, m, v, g in zip(self.weights, self.m, self.v, gradients, strict=True):
            m.lerp_(g, 1 - beta_1)
            v.mul_(beta_2).addcmul_(g, g, value=1 - beta_2)
            w.addcdiv_(m, v.sqrt().add_(epsilon), value=-rate)


def sinusoids():
    """One random episode."""
    amplitude = torch.empty(TASKS, 1, 1).uniform_(0.1, 5)
    phase = torch.empty(TASKS, 1, 1).uniform_(0, math.pi)
    x = torch.empty(TASKS, 2 * POINTS, 1).uniform_(-5, 5)
    y = amplitude * torch.sin(x - phase)
    return x[:, :POINTS], y[:, :POINTS], x[:, POINTS:], y[:, POINTS:]


def warm(run):
    """``run``, after one call."""
    run()
    return run


def timed_sinusoid(weights, steps=1, variant="func"):
    """A warm function of no arguments that makes one meta-step, sampling included."""
    model = network(weights)
    adam = Adam(model.parameters())

    def run():
        loss, gradients = META_GRADIENTS[variant](model, sinusoids(), "sinusoid", steps)
        adam.step(gradients)
        return loss

    return warm(run)


def timed_conv(weights, episode, variant="func"):
    """A warm function of no arguments that computes one meta-gradient."""
    model, episode = network(weights), tensors(episode)
    return warm(lambda: META_GRADIENTS[variant](model, episode, "conv"))
