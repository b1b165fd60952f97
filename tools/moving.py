"""Train what the book's two moving pictures show, measure it, and draw their stills.

    python -m tools.moving            trains, measures and draws: 9 minutes of one core
    python -m tools.moving stills     draws the stills again, from what was stored

and with the name of one picture, that one alone.

Writes into ``book/_static/moving``, for ``maml-adapts`` and for ``learned-optimizer``, a script
with the weights and what was measured, and an SVG for print and for browsers without JavaScript.

``maml-adapts``: the sinusoid network of the MAML paper, meta-trained by MAML as on the page "MAML
from its equations", and the same network trained on all tasks together.

``learned-optimizer``: an LSTM rule and Adam on valleys of two coordinates, each with 32 tries at
its hyperparameters, on the same validation valleys; then five rules from five seeds.
"""

import json
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from mlutils import MAML, LearnedOptimizer, LSTMRule, RuleTrainer, Score
from mlutils.data.plumbing.pipeline import endless
from mlutils.plot import COLORS
from mlutils.session import set_threads

FOLDER = Path(__file__).resolve().parent.parent / "book" / "_static" / "moving"
META_STEPS, INNER_LR, RATES = 30_000, 0.01, (0.001, 0.002, 0.005, 0.01, 0.02)
STEPS, TRIES, SEEDS, BATCHES, FUNCTIONS = 20, 32, range(5), 1000, 2000
LEVELS = (0.01, 0.05, 0.2, 0.6, 1.5, 3.5, 8, 16, 30)  # of f, in the picture

# ---------------------------------------------------------------- what is stored


def store(name, content):
    """Write a dictionary as a script, which pages opened as files can load, too."""
    text = json.dumps(content, separators=(",", ":"))
    path = FOLDER / f"{name}-data.js"
    path.write_text(f'mlutilsMoving.data["{name}"] = {text};\n', encoding="utf-8")


def stored(name):
    """The dictionary that ``store`` has written."""
    text = (FOLDER / f"{name}-data.js").read_text(encoding="utf-8")
    return json.loads(text[text.index("{") : text.rindex(";")])


def rounded(values, digits=6):
    """Nested lists of numbers with so many digits."""
    if isinstance(values, (list, tuple)):
        return [rounded(x, digits) for x in values]
    if isinstance(values, dict):
        return {key: rounded(x, digits) for key, x in values.items()}
    values = np.asarray(values)
    return rounded(list(values), digits) if values.ndim else float(f"{values:.{digits}g}")


def round_weights(model):
    """Give a model the weights that are stored, and return these."""
    weights = [rounded(w) for w in model.get_weights()]
    model.set_weights([np.array(w) for w in weights])
    return weights


# ---------------------------------------------------------------- MAML and its rival


def mixed(inputs, query_y):
    """All points of all tasks of a batch, as one big regression problem."""
    support_x, support_y, query_x = inputs
    x = tf.concat([support_x, query_x], axis=1)
    y = tf.concat([support_y, query_y], axis=1)
    return tf.reshape(x, (-1, 1)), tf.reshape(y, (-1, 1))


def learner_of(network, inner_lr=INNER_LR):
    learner = MAML(network, inner_lr=inner_lr, inner_steps=1)
    learner.compile(optimizer="adam", loss="mse", steps_per_execution=100)
    return learner


def train_starts():
    """The two networks by name, and the joint training's loss by tenths of it."""
    train = mlutils.data.sinusoids(shots=10, queries=10, meta_batch=25)
    length = {"steps_per_epoch": META_STEPS // 10, "epochs": 10, "verbose": 0}
    keras.utils.set_random_seed(0)
    meta = mlutils.mlp()
    learner_of(meta).fit(train, **length)
    joint = mlutils.mlp()
    joint.compile(optimizer="adam", loss="mse", steps_per_execution=100)
    history = joint.fit(train.map(mixed), **length)
    return {"maml": meta, "joint": joint}, history.history["loss"]


def errors_of(network):
    """The step size that is best for ten steps on validation tasks, and the errors on new tasks."""
    validation, new = (
        mlutils.data.sinusoids(shots=5, queries=10, meta_batch=100, seed=seed) for seed in (1, 2)
    )
    scores = {
        rate: mlutils.evaluate(learner_of(network, rate), validation, steps=10).mean
        for rate in RATES
    }
    best = min(scores, key=scores.get)
    learner = learner_of(network, best)
    errors = {f"{k} steps": mlutils.evaluate(learner, new, steps=k) for k in (0, 1, 10)}
    return best, {steps: mean_and_ci95(score) for steps, score in errors.items()}


def mean_and_ci95(score):
    return rounded([score.mean, score.ci95], 3)


def make_maml_adapts():
    networks, joint_losses = train_starts()
    content = {"innerLr": {}, "weights": {}, "measured": {"joint losses": rounded(joint_losses, 3)}}
    for name, network in networks.items():
        content["weights"][name] = round_weights(network)
        content["innerLr"][name], content["measured"][name] = errors_of(network)
    task = mlutils.data.sinusoids(shots=5, queries=1, meta_batch=1, seed=16)  # as on the page
    (x, y, _), _ = next(iter(task))
    content["points"] = rounded(np.concatenate([x[0], y[0]], axis=1), 3)
    print(content["innerLr"], content["measured"], flush=True)
    store("maml-adapts", content)


# ---------------------------------------------------------------- valleys


PARTS = ("centre", "angle", "flat", "steep", "bend")


def values(theta, valley, step=None):
    """Curvature ``flat`` along a valley's floor and ``steep`` across it; ``bend`` bends the floor.

    Args:
        theta: ``(functions, 2)``.
        valley: ``(centre, angle, flat, steep, bend)``, of shapes ``(functions, 2)`` and, the
            others, ``(functions,)``.
        step: ignored.

    Returns:
        ``(functions,)``; the minimum, at the centre, is 0.
    """
    centre, angle, flat, steep, bend = valley
    x, y = tf.unstack(theta - centre, axis=-1)
    along = tf.cos(angle) * x + tf.sin(angle) * y
    across = tf.cos(angle) * y - tf.sin(angle) * x - bend * along**2
    return (flat * along**2 + steep * across**2) / 2


KINDS = {
    "trained": {"steeper": 1.0, "bend": (0.0, 0.0)},
    "bent": {"steeper": 1.0, "bend": (0.15, 0.4)},
    "steeper": {"steeper": 10.0, "bend": (0.0, 0.0)},
}
FLAT, STEEP, CENTRE, START = (0.05, 0.5), (0.5, 5.0), 1.5, 3.0
SCENE = {  # what is seen at first
    "valley": {"centre": [0.9, -0.6], "angle": 0.5, "flat": 0.15, "steep": 2.0, "bend": 0.0},
    "start": [-2.4, 1.6],
}


def valleys(functions, seed, kind="trained"):
    """Endless batches ``(theta_0, valley)``."""
    steeper, bend = KINDS[kind]["steeper"], KINDS[kind]["bend"]

    def sample(draws):
        def between(limits):
            """Evenly on a logarithmic scale."""
            return tf.exp(draws.uniform((functions,), *np.log(limits)))

        start = draws.uniform((functions, 2), -START, START)
        centre = draws.uniform((functions, 2), -CENTRE, CENTRE)
        angle = draws.uniform((functions,), 0.0, 2 * np.pi)
        flat, steep = steeper * between(FLAT), steeper * between(STEEP)
        return start, (centre, angle, flat, steep, draws.uniform((functions,), *bend))

    return endless(sample, seed)


def new_valleys(kind, seed, functions=FUNCTIONS):
    return next(iter(valleys(functions, 300 + seed, kind)))


def run(optimizer, start, valley):
    """f after 0 to 20 steps of a Keras optimizer, ``(21, functions)``."""
    return mlutils.run_optimizer(
        optimizer, lambda theta, step: values(theta, valley), start, STEPS
    )[0]


# ---------------------------------------------------------------- the learned rule and Adam


def adam(rate, beta_1, beta_2, end):
    """Adam whose step size falls in a straight line to ``rate * end``."""
    schedule = keras.optimizers.schedules.PolynomialDecay(rate, STEPS, rate * end)
    return keras.optimizers.Adam(schedule, beta_1, beta_2)


def meta_train(seed, meta_rate, output_scale):
    """An LSTM rule, made and trained as in the chapter, but on valleys and for 20 steps."""
    keras.utils.set_random_seed(seed)
    rule = LSTMRule(units=20, layers=2, output_scale=output_scale)
    trainer = RuleTrainer(rule, values, steps=STEPS, first_order=True)
    rates = keras.optimizers.schedules.CosineDecay(meta_rate, BATCHES)
    trainer.compile(keras.optimizers.Adam(rates, global_clipnorm=1.0))
    trainer.fit(valleys(32, 1000 + seed), steps_per_epoch=BATCHES, verbose=0)
    return rule


ADAM = {
    "rate": (0.03, 3.0, "log"),
    "beta_1": (0.0, 0.98, "share"),
    "beta_2": (0.3, 0.9999, "share"),
    "end": (0.0, 0.99, "share"),
}
LEARNED = {"meta_rate": (1e-3, 0.03, "log"), "output_scale": (0.03, 1.0, "log")}


def tuned(make, space, tries=TRIES):
    """The setting whose mean of f after 20 steps on validation valleys is lowest."""
    validation = next(iter(valleys(FUNCTIONS, 100)))
    search = mlutils.tune(
        lambda **setting: run(make(**setting), *validation)[STEPS].mean(), space, tries
    )
    print(search.best(), search.score(), "at an edge:", search.at_edge(), flush=True)
    return rounded(search.best(), 4)


def compare(rules, setting):
    """For each kind of valley f after 20 steps: five rules and Adam on valleys of each seed."""
    table = {}
    for kind in KINDS:
        learned, others = (
            np.array([run(make(seed), *new_valleys(kind, seed))[STEPS] for seed in SEEDS])
            for make in (lambda seed: LearnedOptimizer(rules[seed]), lambda _: adam(**setting))
        )
        table[kind] = {
            "learned": mean_and_ci95(Score(learned.mean(axis=1))),
            "adam": mean_and_ci95(Score(others.mean(axis=1))),
            "adam - learned": mean_and_ci95(Score((others - learned).mean(axis=1))),
            "learned is lower": mean_and_ci95(Score((learned < others).mean(axis=1))),
            "medians": rounded([np.median(learned), np.median(others)], 3),
            "share of adam's worst tenth": rounded(worst_tenth(others), 3),
        }
        print(kind, table[kind], flush=True)
    return table


def worst_tenth(found):
    """How much of the sum of all values is that of the largest tenth."""
    found = np.sort(found, axis=None)
    return found[-found.size // 10 :].sum() / found.sum()


def make_learned_optimizer():
    setting = tuned(adam, ADAM)
    many = tuned(adam, ADAM, 256)
    make = tuned(lambda **setting: LearnedOptimizer(meta_train(100, **setting)), LEARNED)
    rules = {seed: meta_train(seed, **make) for seed in SEEDS}
    weights = round_weights(rules[0])
    measured = compare(rules, setting)
    measured["adam of 256 tries"] = compare(rules, many)
    content = {"steps": STEPS, "adam": setting, "rule": make, "weights": weights, "scene": SCENE}
    content["limits"] = {"flat": FLAT, "steep": STEEP, "centre": CENTRE, "start": START}
    store("learned-optimizer", content | {"kinds": KINDS, "measured": measured})


# ---------------------------------------------------------------- stills


def network_of(data, name):
    """The network of a start as it is stored."""
    network = mlutils.mlp()
    network.set_weights([np.array(w) for w in data["weights"][name]])
    return network


def rule_of(data):
    """The learned rule as it is stored."""
    rule = LSTMRule(units=20, layers=2, output_scale=data["rule"]["output_scale"])
    rule.set_weights([np.array(w) for w in data["weights"]])
    return rule


def draw_maml_adapts():
    data = stored("maml-adapts")
    points = np.array(data["points"], np.float32)
    x = np.linspace(-5, 5, 200, dtype=np.float32)[:, None]
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), sharey=True)
    starts = (
        ("maml", "Start learned by MAML", COLORS[0]),
        ("joint", "Start of joint training", COLORS[1]),
    )
    for ax, (name, title, color) in zip(axes, starts, strict=True):
        rate = data["innerLr"][name]
        learner = learner_of(network_of(data, name), rate)
        for steps, look, shade in ((0, ":", "#777777"), (1, "--", color), (10, "-", color)):
            curve = learner.adapt(points[:, :1], points[:, 1:], steps=steps)(x)
            ax.plot(x, curve, look, color=shade, label=f"steps: {steps}")
        ax.plot(*points.T, "ko", label="the five points")
        ax.set(title=rf"{title}, $\alpha$ = {rate}", xlabel="$x$", ylim=(-6, 6))
    axes[0].set_ylabel("$y$")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def paths(rule, setting):
    """Points and values of the learned rule and of Adam in the valley that is seen at first."""
    start = np.array([SCENE["start"]], np.float32)
    valley = [
        np.float32([SCENE["valley"][k]]) for k in ("centre", "angle", "flat", "steep", "bend")
    ]
    for optimizer in (LearnedOptimizer(rule), adam(**setting)):
        theta, points = tf.Variable(start), [start[0]]
        for _ in range(STEPS):
            with tf.GradientTape() as tape:
                value = values(theta, valley)
            optimizer.apply([tape.gradient(value, theta)], [theta])
            points.append(theta.numpy()[0])
        points = np.array(points)
        yield points, values(points, [np.repeat(v, STEPS + 1, axis=0) for v in valley]).numpy()


def draw_learned_optimizer():
    data = stored("learned-optimizer")
    rule = rule_of(data)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.9))
    side = np.linspace(-3.3, 3.3, 120, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    valley = [
        np.float32([SCENE["valley"][k]]) for k in ("centre", "angle", "flat", "steep", "bend")
    ]
    heights = values(grid, valley).numpy().reshape(120, 120)
    left.contour(side, side, heights, LEVELS, colors="#999999", linewidths=0.7)
    left.plot(*SCENE["valley"]["centre"], "k+", ms=10)
    looks = (("learned optimizer", "-o", COLORS[0]), ("Adam, tuned", "--s", COLORS[1]))
    for (points, found), (name, look, color) in zip(paths(rule, data["adam"]), looks, strict=True):
        left.plot(*points.T, look, color=color, ms=3, lw=1.5)
        right.semilogy(found, look, color=color, ms=3, lw=1.5, label=name)
    left.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", aspect="equal")
    left.grid(False)
    right.set(xlabel="step", ylabel="$f$", xticks=range(0, STEPS + 1, 5))
    right.set_box_aspect(1)
    fig.legend(loc="outside lower center", ncols=2)
    return fig


MAKE = {"maml-adapts": make_maml_adapts, "learned-optimizer": make_learned_optimizer}
DRAW = {"maml-adapts": draw_maml_adapts, "learned-optimizer": draw_learned_optimizer}


def main():
    set_threads(1)
    mlutils.plot.use_style()
    mpl.rcParams["svg.hashsalt"] = "moving"  # the same file each time
    names = [name for name in MAKE if name in sys.argv] or list(MAKE)
    for name in names:
        begin = time.process_time()
        if "stills" not in sys.argv:
            MAKE[name]()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        DRAW[name]().savefig(FOLDER / f"{name}.svg", metadata=nothing)
        print(f"{name}: {(time.process_time() - begin) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
