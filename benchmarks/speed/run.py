"""Compare the speed of a meta-step with that of peers: the same work, in one run, interleaved.

    uv pip install --group peers
    python -m benchmarks.speed.run

Each library has a process of its own, since their threads disturb each other.  First all compute
the same meta-gradients, which must agree; then they are timed in turn, round after round, and the
medians go to ``benchmarks/results/speed.json``.
"""

import importlib
import itertools
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import numpy as np

RESULT = Path(__file__).parents[1] / "results" / "speed.json"
ROUNDS = 9

# What is timed: name, module, variant, meta-steps per call.
SINUSOID = (
    ("mlutils", "ours", None, 1000),
    ("JAX jit + vmap, a call per step", "peers_jax", "step", 1),
    ("JAX lax.scan", "peers_jax", "scan", 1000),
    ("torch.func + vmap", "peers_torch", "func", 1),
    ("higher", "peers_torch", "higher", 1),
)
CONV = (
    ("mlutils", "ours", None, 1),
    ("torch.func + vmap", "peers_torch", "func", 1),
    ("higher", "peers_torch", "higher", 1),
    ("JAX jit, a loop over tasks", "peers_jax", "loop", 1),
)


def operations_of_conv_step(tasks=16, images=5, filters=64):
    """Floating-point operations of the convolutions in one second-order meta-gradient.

    A convolution of h x w images with c channels takes 2 * 9 * h * w * c * filters operations per
    image, and so do its two gradients.  The support set needs it forward, both gradients, and for
    the derivative of these two each for the three: 9; the query set forward and both gradients: 3.
    (For the first layer some of these are not needed; it takes 5 % of the operations.)
    """
    sizes = ((28, 1), (14, filters), (7, filters), (3, filters))
    per_image = sum(2 * 9 * side**2 * channels * filters for side, channels in sizes)
    return tasks * images * (9 + 3) * per_image


def problem_data(problem, norm=False, seed=0):
    """Weights in Keras's order and one episode, NumPy float32."""
    random = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return (scale * random.normal(size=shape)).astype(np.float32)

    if problem == "sinusoid":
        sizes = (1, 40, 40, 1)
        weights = []
        for inputs, outputs in itertools.pairwise(sizes):
            weights += [normal(inputs, outputs, scale=inputs**-0.5), normal(outputs, scale=0.1)]
        return weights, tuple(normal(25, 10, 1) for _ in range(4))
    weights, channels = [], 1
    for _ in range(4):
        weights += [normal(3, 3, channels, 64, scale=(9 * channels) ** -0.5), normal(64, scale=0.1)]
        if norm:
            weights += [np.ones(64, np.float32), np.zeros(64, np.float32)]
        channels = 64
    weights += [normal(64, 5, scale=0.125), normal(5, scale=0.1)]
    x, query_x = (normal(16, 5, 28, 28, 1) for _ in range(2))
    y, query_y = (random.integers(0, 5, (16, 5)) for _ in range(2))
    return weights, (x, y, query_x, query_y)


def work(module, connection):
    """A library's process: answer requests until told to stop."""
    module = importlib.import_module(f"benchmarks.speed.{module}")
    ready = {}
    for kind, name, arguments in iter(connection.recv, None):
        if kind == "gradients":
            connection.send(module.loss_and_gradients(*arguments))
        elif kind == "prepare":
            prepared = getattr(module, name)(*arguments)
            ready[arguments[-1], name], extra = (
                prepared if isinstance(prepared, tuple) else (prepared, None)
            )
            connection.send(extra)
        else:
            variant, calls = arguments
            start = time.perf_counter()
            for _ in range(calls):
                ready[variant, name]()
            connection.send((time.perf_counter() - start) / calls)


class Library:
    """The process of one module."""

    def __init__(self, module):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(module, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process ends the waiting for an answer

    def ask(self, kind, name, arguments):
        self.connection.send((kind, name, arguments))
        return self.connection.recv()

    def stop(self):
        self.connection.send(None)
        self.process.join()


def largest_error(found, reference):
    """Of a list of gradients, relative to the reference's norm."""
    flat = [np.concatenate([np.ravel(g) for g in gradients]) for gradients in (found, reference)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]))


def check_agreement(libraries, problem, contestants, steps, norm, tolerance=1e-4):
    """Raise ``ValueError`` unless all compute the same meta-gradients.

    Of three draws the best counts: where a unit lies on ReLU's kink as far as float32 can tell,
    libraries fall to different sides, and differ in that draw.
    """
    errors = {label: [] for label, *_ in contestants}
    for seed in range(3):
        weights, episode = problem_data(problem, norm, seed)
        found = {}
        for label, module, variant, _ in contestants:
            variant = "vmap" if variant in ("step", "scan") else variant
            arguments = (weights, episode, problem, steps, variant)
            _, found[label] = libraries[module].ask("gradients", None, arguments)
            errors[label].append(largest_error(found[label], found["mlutils"]))
    for label, values in errors.items():
        if min(values) > tolerance:
            raise ValueError(
                f"{label} differs from mlutils on {problem} by {values}, draw by draw; allowed is "
                f"{tolerance} in the best of them."
            )


def compare(libraries, problem, contestants, steps=1, norm=False):
    """Check that all agree, time them, and return milliseconds per meta-step by name."""
    check_agreement(libraries, problem, contestants, steps, norm)
    weights, episode = problem_data(problem, norm)
    name = f"timed_{problem}"
    for _, module, variant, _ in contestants:
        given = steps if problem == "sinusoid" else episode
        libraries[module].ask("prepare", name, (weights, given, variant))
    times = {label: [] for label, *_ in contestants}
    for _ in range(ROUNDS):
        for label, module, variant, per_call in contestants:
            calls = 300 if variant == "step" else 1
            seconds = libraries[module].ask("time", name, (variant, calls))
            times[label].append(1e3 * seconds / per_call)
    medians = {label: statistics.median(values) for label, values in times.items()}
    print(f"{problem}, {steps} steps, norm={norm}:", medians, flush=True)
    return medians


def main():
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or PyTorch spins where a core is busy
    libraries = {name: Library(name) for name in ("ours", "peers_jax", "peers_torch")}
    results = {
        "sinusoid, 1 step": compare(libraries, "sinusoid", SINUSOID, 1),
        "sinusoid, 5 steps": compare(libraries, "sinusoid", SINUSOID, 5),
        "conv": compare(libraries, "conv", CONV),
        "conv with norm": compare(libraries, "conv", CONV, norm=True),
    }
    operations = libraries["ours"].ask("prepare", "convolution_throughput", (30,))
    seconds = [
        libraries["ours"].ask("time", "convolution_throughput", (30, 1)) for _ in range(ROUNDS)
    ]
    for library in libraries.values():
        library.stop()
    throughput = operations / statistics.median(seconds)
    share = operations_of_conv_step() / (results["conv"]["mlutils"] / 1e3) / throughput
    document = {
        "milliseconds per meta-step": results,
        "one large convolution, GFLOP/s": throughput / 1e9,
        "conv: share of that throughput": share,
        "cores": os.cpu_count(),
        "rounds": ROUNDS,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
