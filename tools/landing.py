"""Draw the landing page's three pictures: ``python -m tools.landing``, about two minutes.

Each shows the first task of a seed, by a learner of the package: five points of a wave, one
drawing of each character, a description of each cell.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import mlutils
from mlutils.plot import COLORS, use_style
from tools.notebooks import ROOT

FOLDER = ROOT / "book" / "_static"
SIZE = (3.3, 3.3)


def wave():
    """Five points, and what MAML and random weights make of them in ten steps each."""
    learner = mlutils.MAML(mlutils.mlp(), inner_lr=0.01)
    untrained = mlutils.MAML(mlutils.mlp(), inner_lr=0.01)
    for one in (learner, untrained):
        one.compile(optimizer="adam", loss="mse", steps_per_execution=100)
    tasks = mlutils.data.sinusoids(shots=10, queries=10, meta_batch=25)
    learner.fit(tasks, steps_per_epoch=10_000, verbose=0)
    few = mlutils.data.sinusoids(shots=5, queries=1, meta_batch=1, seed=1)
    (support_x, support_y, _), _ = next(iter(few))
    support_x, support_y = support_x[0], support_y[0]
    x = tf.linspace(-5.0, 5.0, 200)[:, tf.newaxis]

    def sine_and_cosine(x):  # of which each wave is a sum
        return tf.concat([tf.sin(x), tf.cos(x)], axis=1)

    truth = sine_and_cosine(x) @ tf.linalg.lstsq(sine_and_cosine(support_x), support_y)
    figure, axes = plt.subplots(figsize=SIZE)
    axes.plot(x, truth, color="#bbbbbb", lw=6, label="the wave")
    for who, style, color, label in (
        (untrained, "--", COLORS[1], "random start"),
        (learner, "-", COLORS[0], "learned start"),
    ):
        axes.plot(x, who.adapt(support_x, support_y, steps=10)(x), style, color=color, label=label)
    axes.plot(support_x, support_y, "o", color="black", ms=7)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    figure.legend(
        loc="outside lower center", ncols=3, fontsize=9, handlelength=1.2, columnspacing=1
    )
    return figure


def characters():
    """Five characters of unknown scripts, drawn once each, and five others to be named."""
    learner, _ = mlutils.trained_learner("prototypical")
    test = mlutils.data.glyphs("test")
    tasks = test.episodes(ways=5, shots=1, queries=1, meta_batch=1, seed=1)
    (support_x, support_y, query_x), query_y = next(iter(tasks))
    probability = tf.nn.softmax(learner.adapt(support_x[0], support_y[0])(query_x[0])).numpy()
    first, then = np.argsort(support_y[0]), np.argsort(query_y[0])
    return matrix(support_x.numpy()[0, first], query_x.numpy()[0, then], probability[then])


def cells():
    """Five cells of Braille that training never met, described, and drawings to be named."""
    split = mlutils.data.braille().class_split(unseen=64, seed=0)
    encoder = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(32),
        ]
    )
    describer = keras.Sequential([keras.Input((8,)), keras.layers.Dense(32)])
    learner = mlutils.DescribedPrototypes(encoder, describer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(keras.optimizers.Adam(0.003), loss=loss, steps_per_execution=50)
    learner.fit(
        split.train.episodes(ways=32, queries=2, meta_batch=4), steps_per_epoch=300, verbose=0
    )
    tasks = split.unseen.episodes(ways=5, queries=1, meta_batch=1, seed=1)
    (signatures, labels, query_x), query_y = next(iter(tasks))
    probability = tf.nn.softmax(learner.adapt(signatures[0], labels[0])(query_x[0])).numpy()
    first, then = np.argsort(labels[0]), np.argsort(query_y[0])
    return matrix(signatures.numpy()[0, first], query_x.numpy()[0, then], probability[then])


def matrix(support, queries, probability):
    """Supports in a row above, queries in a column, and how probable each pair is: dark is 1."""
    figure, axes = plt.subplots(6, 6, figsize=SIZE)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
        ax.spines[:].set_color("#bbbbbb")
    axes[0, 0].axis("off")
    for n in range(5):
        show(axes[0, n + 1], support[n])
        show(axes[n + 1, 0], queries[n])
        for m in range(5):
            share = probability[n, m]
            axes[n + 1, m + 1].set_facecolor(plt.cm.Blues(0.9 * share))
            if share >= 0.005:
                axes[n + 1, m + 1].text(
                    0.5,
                    0.5,
                    f"{100 * share:.0f}",
                    color="white" if share > 0.6 else "black",
                    ha="center",
                    va="center",
                    fontsize=10,
                )
    return figure


def show(axes, what):
    """A picture, or for a description its dots, as Braille numbers them."""
    if what.ndim == 3:
        axes.imshow(what[..., 0], cmap="gray_r", vmin=0, vmax=1)
        return
    for dot, there in enumerate(what):
        column, row = ((0, dot) if dot < 3 else (1, dot - 3)) if dot < 6 else (dot - 6, 3)
        axes.plot(
            column, -row, "o", ms=6, color=COLORS[1], mfc=COLORS[1] if there else "none", mew=1
        )
    axes.set(xlim=(-1.5, 2.5), ylim=(-3.7, 0.7))


def main():
    mlutils.setup(seed=0, threads=1)
    use_style()
    plt.rcParams["svg.hashsalt"] = "landing"  # the same file each time
    for picture in (wave, characters, cells):
        path = FOLDER / f"landing-{picture.__name__}.svg"
        picture().savefig(path, metadata={"Date": None})
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
