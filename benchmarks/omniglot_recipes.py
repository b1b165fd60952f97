"""How each method is trained on Omniglot: the recipes of ``benchmarks.omniglot``.

Each follows its paper as far as two cores go.  All trainings are shorter than the papers'.  Where
no other optimizer is named it is Adam, whose step size falls from .001 along a cosine.  Where else
a recipe leaves its paper, ``differs`` says so, and the result's file with it.
"""

from types import MappingProxyType
from typing import Any, NamedTuple

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import tensorflow as tf
from keras import layers

from mlutils import PairCrossEntropy
from mlutils.networks import BatchNorm

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SHAPE = (28, 28, 1)
MANY = ", many queries"  # a learner that sees the queries together, and more of them


def falling_adam(steps):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps))


class Training(NamedTuple):
    """One training.

    Attributes:
        model: what ``fit`` trains.
        data: endless, and repeatable when made anew.
        steps: how many.
        loss: of a batch.
        learners: from a learner's name in the results to what is tested; the first is validated.
        optimizer: from the number of steps to an optimizer.
        adapt: options of ``adapt`` at the test.
        alpha: the inner step size, where a try may have another.
        queries: of each class at the test, by the learners' names; 15 or 5 where there is none.
        differs: from the paper, in words.
    """

    model: keras.Model
    data: tf.data.Dataset
    steps: int
    learners: dict
    loss: Any = LOGITS
    optimizer: Any = falling_adam
    adapt: Any = MappingProxyType({})
    alpha: float | None = None
    queries: dict = MappingProxyType({})
    differs: str = ""


# ---------------------------------------------------------------- by a learned metric


def prototypical(train, ways, shots, seed):
    """Tasks of 60 ways, whatever the test's (Snell et al. 2017)."""
    learner = mlutils.PrototypicalNetwork(mlutils.conv4(norm=True), transductive=True)
    return Training(
        learner,
        train.episodes(ways=60, shots=shots, queries=2, meta_batch=1, seed=seed),
        16000,
        {
            "prototypical": lambda: mlutils.PrototypicalNetwork(fixed(learner.encoder, train)),
            "prototypical, transductive": lambda: learner,
        },
        differs="2 queries of a class instead of 5; the paper's last training had the validation "
        "characters too",
    )


def matching(train, ways, shots, seed):
    """Cosines, without full context embeddings (Vinyals et al. 2016)."""
    learner = mlutils.MatchingNetwork(mlutils.conv4(norm=True), scale=10.0, transductive=True)
    return Training(
        learner,
        train.episodes(ways=20, shots=shots, queries=2, meta_batch=4, seed=seed),
        3000,
        {
            "matching": lambda: mlutils.MatchingNetwork(fixed(learner.encoder, train), scale=10.0),
            "matching, transductive": lambda: learner,
        },
        differs="cosines times ten; trained with 20 ways, whatever the test's",
    )


def relation(train, ways, shots, seed):
    """Two convolutions look at each pair of feature maps (Sung et al. 2018)."""
    maps = [keras.Input(SHAPE)]
    for block in range(4):
        maps += [layers.Conv2D(64, 3, padding="same"), BatchNorm(), layers.ReLU()]
        maps += [layers.MaxPooling2D()] if block < 2 else []
    pairs = [keras.Input((7, 7, 128))]
    for _ in range(2):
        pairs += [layers.Conv2D(64, 3, padding="same"), layers.ReLU(), layers.MaxPooling2D()]
    pairs += [layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(1)]
    learner = mlutils.RelationNetwork(
        keras.Sequential(maps), keras.Sequential(pairs), transductive=True
    )

    def with_fixed_encoder():
        return mlutils.RelationNetwork(fixed(learner.encoder, train), learner.relation)

    return Training(
        learner,
        train.episodes(ways=ways, shots=shots, queries=5, meta_batch=2, seed=seed),
        10000 if ways == 5 else 3000,
        {"relation": with_fixed_encoder, "relation, transductive": lambda: learner},
        differs="cross-entropy instead of squared error; no norm in the relation module; the mean "
        "of a class's maps instead of their sum; 5 queries of a class instead of up to 19",
    )


def siamese(train, ways, shots, seed):
    """Pairs, a learned weighting of how far each feature differs (Koch et al. 2015)."""
    encoder = keras.Sequential([mlutils.conv4(), layers.RMSNormalization()])
    learner = mlutils.SiameseNetwork(encoder, "weighted")
    return Training(
        learner,
        train.episodes(ways=20, shots=1, queries=1, meta_batch=6, seed=seed),
        6000,
        {"siamese": lambda: learner},
        loss=PairCrossEntropy(),
        differs="conv-4-64 at 28 pixels; no distortions; with five shots the best of five pairs",
    )


def nearest_mean(train, ways, shots, seed):
    """A classifier of all training classes; then class means of its features (Wang et al. 2019)."""
    encoder = mlutils.conv4(norm=True)
    classifier = keras.Sequential([encoder, layers.Dense(len(train))])
    drawings = tf.data.Dataset.from_tensor_slices((train.x, train.y))
    drawings = drawings.shuffle(len(train.y), seed=seed).repeat().batch(128)

    def learner(after):
        features = fixed(encoder, train)
        parts = [keras.Input(SHAPE), features, *after(features)]
        return mlutils.PrototypicalNetwork(keras.Sequential(parts))

    def centred(features):
        mean = tf.reduce_mean(features(some(train)), axis=0)
        return layers.Rescaling(1.0, offset=-mean.numpy())

    unit = layers.UnitNormalization
    return Training(
        classifier,
        drawings.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y)),
        6000,
        {
            "nearest mean, centred and normalised": lambda: learner(lambda f: [centred(f), unit()]),
            "nearest mean, normalised": lambda: learner(lambda f: [unit()]),
            "nearest mean": lambda: learner(lambda f: []),
        },
        differs="the paper's pictures are photographs",
    )


def some(train):
    """2,000 of the training drawings, as the networks take them."""
    return tf.cast(train.x[:: len(train.x) // 2000], tf.float32) / 255


def fixed(network, train):
    """The same network, with training drawings' mean and variance in the place of a batch's.

    So the papers' networks are tested: what is known of one query does not depend on the others.
    Each ``BatchNorm`` goes into the weights of the convolution before it.
    """
    x, kept = some(train), []
    for layer in network.layers:
        if not isinstance(layer, BatchNorm):
            kept.append(type(layer).from_config(layer.get_config()))
            kept[-1].build(x.shape)
            kept[-1].set_weights(layer.get_weights())
            before, x = x, kept[-1](x)
            continue
        mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
        factor = layer.gamma * tf.math.rsqrt(variance + layer.epsilon)
        kernel, bias = kept[-1].get_weights()
        kept[-1].set_weights([kernel * factor, (bias - mean) * factor + layer.beta])
        x = kept[-1](before)
    return keras.Sequential([keras.Input(network.input_shape[1:]), *kept])


# ---------------------------------------------------------------- by gradient steps


def network(outputs):
    """Strides of two, and the statistics of the batch at hand."""
    return mlutils.conv4(outputs=outputs, downsample="stride", norm=True)


def averaged(outputs):
    """The same, with the mean of each channel before the head: MAML's for Omniglot."""
    *blocks, _ = mlutils.conv4(downsample="stride", norm=True).layers
    head = [layers.GlobalAveragePooling2D(), layers.Dense(outputs)]
    return keras.Sequential([keras.Input(SHAPE), *blocks, *head])


class Plan(NamedTuple):
    """Of the methods by gradient steps: alpha, inner steps in training, meta-steps."""

    alpha: float
    inner_steps: int
    steps: int


def gradient_based(name, kind, plans, **options):
    """MAML (Finn et al. 2017) and its kin.

    The reference code's alphas, .4 with 5 ways and .1 with 20, are 2 for a mean loss.  Of .5 and 2,
    with 20 ways .2 too, and for ANIL 8, ours were best on validation tasks after a minute or two.
    """

    def make(train, ways, shots, seed, alpha=None):
        """Few inner steps in training, a few more at the test."""
        plan = plans[ways]
        alpha, inner_steps = alpha or plan.alpha, plan.inner_steps
        differs = "half the meta-batch; the norm's weights take inner steps too"
        differs += (
            "; one inner step in training, not five" if (ways, inner_steps) == (20, 1) else ""
        )
        learner = kind(averaged(ways), inner_lr=alpha, inner_steps=inner_steps, **options)
        return Training(
            learner,
            train.episodes(
                ways=ways, shots=shots, queries=shots, meta_batch=16 if ways == 5 else 8, seed=seed
            ),
            plan.steps,
            {name: lambda: learner, f"{name}{MANY}": lambda: learner},
            adapt={"steps": 3 if inner_steps == 1 else 5},
            alpha=alpha,
            queries={name: shots},
            differs=differs,
        )

    return make


def meta_sgd(train, ways, shots, seed):
    """One step with a learned alpha for each weight (Li et al. 2017)."""
    learner = mlutils.MetaSGD(averaged(ways), inner_lr=0.5, inner_steps=1)
    return Training(
        learner,
        train.episodes(ways=ways, shots=shots, queries=shots, meta_batch=16, seed=seed),
        12000 if ways == 5 else 3000,
        {"Meta-SGD": lambda: learner, f"Meta-SGD{MANY}": lambda: learner},
        queries={"Meta-SGD": shots},
        differs="all alphas start at .5",
    )


def proto_maml(train, ways, shots, seed):
    """Steps from where a prototypical network stands (Triantafillou et al. 2020)."""
    encoder = mlutils.conv4(downsample="stride", norm=True)
    learner = mlutils.ProtoMAML(encoder, inner_lr=0.1, inner_steps=1, first_order=True, scale=0.1)
    return Training(
        learner,
        train.episodes(ways=ways, shots=shots, queries=2, meta_batch=8, seed=seed),
        6000 if ways == 5 else 2000,
        {"ProtoMAML": lambda: learner},
        adapt={"steps": 3},
        differs="the paper has no result on Omniglot alone",
    )


class UnadaptedLog(mlutils.Reptile):
    """Logs the loss before the inner steps: after them it costs as much as the training."""

    def call(self, inputs, training=None, **options):
        return super().call(inputs, training, **({"steps": 0} if training else options))


def reptile(train, ways, shots, seed):
    """Gradient descent inside, and a meta-step that falls to zero (Nichol et al. 2018).

    Ten drawings of each class, whatever the test's shots; how they are divided changes nothing but
    the loss that is logged.  The first learner is the cheaper one to validate: 100 tasks do.  Of
    inner step sizes .02, .1 and .5 the second was best on validation tasks, with 5 ways, after
    1,200 steps: 83 %.  With the paper's Adam, but its state made anew for each task, one training
    was at 73 % after 10,000.
    """
    learner = UnadaptedLog(
        network(ways),
        inner_lr=0.1,
        inner_steps=5 if ways == 5 else 10,
        batch_size=10 if ways == 5 else 20,
        transductive=True,
    )
    alone = mlutils.Reptile(learner.model, inner_lr=0.1)
    return Training(
        learner,
        train.episodes(ways=ways, shots=1, queries=9, meta_batch=5, seed=seed),
        12000 if ways == 5 else 5000,
        {"Reptile": lambda: alone, "Reptile, transductive": lambda: learner},
        optimizer=lambda steps: keras.optimizers.SGD(
            keras.optimizers.schedules.PolynomialDecay(1.0, steps, 0.0)
        ),
        adapt={"steps": 50},
        queries={"Reptile, transductive": 1},
        differs="gradient descent inside, not Adam; at the test all support examples are in each "
        "step",
    )


# ---------------------------------------------------------------- by reading the examples


def mann(train, ways, shots, seed):
    """An external memory, on the pixels (Santoro et al. 2016)."""
    pixels = keras.Sequential([keras.Input(SHAPE), layers.AveragePooling2D(2), layers.Flatten()])
    learner = mlutils.MANN(pixels, ways, units=200, slots=128, width=40, heads=4)
    return Training(
        learner,
        train.episodes(ways=ways, shots=shots, queries=2, meta_batch=16, seed=seed),
        12000,
        {"MANN": lambda: learner},
        differs="one showing of each class, then queries, instead of a sequence of 50 showings; "
        "Adam; 14 x 14 pixels",
    )


def context_transformer(train, ways, shots, seed):
    """Causal attention over the support set."""
    learner = mlutils.ContextTransformer(mlutils.conv4(), ways, units=128, heads=4, blocks=3)
    return Training(
        learner,
        train.episodes(ways=ways, shots=shots, queries=2, meta_batch=16, seed=seed),
        6000,
        {"context transformer": lambda: learner},
        differs="SNAIL is the nearest published one, with a deeper encoder",
    )


SIZES = ((5, 1), (20, 1), (5, 5), (20, 5))  # ways and shots


class Recipe(NamedTuple):
    """A recipe.

    Attributes:
        make: from training characters, ways, shots and a seed to a ``Training``.
        learners: their names in the results.
        serves: whether one training serves only its own "size", both "ways", both "shots", or
            "all" sizes.
        alpha: whether ``make`` takes another inner step size.
    """

    make: Any
    learners: tuple
    serves: str = "size"
    alpha: bool = False

    def sizes(self, ways, shots):
        """The ways and shots that one training serves."""
        return [
            (n, k)
            for n, k in SIZES
            if (n == ways or self.serves in ("ways", "all"))
            and (k == shots or self.serves in ("shots", "all"))
        ]


def of_metric(make, name, serves="size"):
    return Recipe(make, (name, f"{name}, transductive"), serves)


def of_steps(name, kind, plans, **options):
    return Recipe(gradient_based(name, kind, plans, **options), (name, name + MANY), alpha=True)


MEANS = ("nearest mean", "nearest mean, normalised", "nearest mean, centred and normalised")
MAML = {5: Plan(0.5, 1, 12000), 20: Plan(0.5, 1, 10000)}
ANIL = {5: Plan(2.0, 1, 12000), 20: Plan(2.0, 5, 5000)}
RECIPES = {  # in the order of ``--all``
    "prototypical": of_metric(prototypical, "prototypical", "ways"),
    "nearest-mean": Recipe(nearest_mean, MEANS, "all"),
    "maml": of_steps("MAML", mlutils.MAML, MAML),
    "first-order-maml": of_steps("first-order MAML", mlutils.MAML, MAML, first_order=True),
    "reptile": Recipe(reptile, ("Reptile", "Reptile, transductive"), "shots"),
    "anil": of_steps("ANIL", mlutils.ANIL, ANIL),
    "matching": of_metric(matching, "matching", "ways"),
    "relation": of_metric(relation, "relation"),
    "siamese": Recipe(siamese, ("siamese",), "all"),
    "meta-sgd": Recipe(meta_sgd, ("Meta-SGD", "Meta-SGD" + MANY)),
    "proto-maml": Recipe(proto_maml, ("ProtoMAML",)),
    "mann": Recipe(mann, ("MANN",)),
    "context-transformer": Recipe(context_transformer, ("context transformer",)),
}
