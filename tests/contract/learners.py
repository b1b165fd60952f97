"""The table of learners: how to make each, what a task of it looks like, how it is compiled.

Every learner meets every property of the tests beside this file, or says here why not.  A new
learner is a new row.
"""

from typing import NamedTuple

import keras
import numpy as np
import pytest

import mlutils
from mlutils import (
    ANIL,
    CLIP,
    DAP,
    ESZSL,
    MAML,
    MANN,
    ConditionalNeuralProcess,
    ContextTransformer,
    ContrastiveLoss,
    DescribedPrototypes,
    DeViSE,
    HingeRankLoss,
    InfoNCE,
    LinearAttention,
    LSTMRule,
    MatchingNetwork,
    MetaSGD,
    ModifiedHausdorff,
    PairCrossEntropy,
    PriorFittedNetwork,
    ProtoMAML,
    PrototypicalNetwork,
    RecurrentLearner,
    RelationNetwork,
    Reptile,
    SiameseNetwork,
    StepSize,
    iMAML,
)

WAYS, ATTRIBUTES = 3, 4


class Row(NamedTuple):
    """A learner.

    Attributes:
        make: from a network of 2 inputs and 3 outputs to the learner.
        kind: of its tasks: see ``element``.
        loss: makes what it is compiled with.
        why_not: from a property to why this learner lacks it.
    """

    make: object
    kind: str = "classes"
    loss: object = lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    why_not: dict = {}  # noqa: RUF012  nobody writes to it


def network(*layers, inputs=2, outputs=3):
    """A small network without kinks; ``layers`` stand before its last one."""
    first, last = keras.layers.Dense(3, "tanh"), keras.layers.Dense(outputs)
    return keras.Sequential([keras.Input((inputs,)), first, *layers, last])


def relation(net):
    return RelationNetwork(net, network(inputs=6, outputs=1))


def neural_process(net):
    return ConditionalNeuralProcess(network(inputs=5), network(inputs=5, outputs=6), 0.2)


def described(net):
    return DescribedPrototypes(net, network(inputs=ATTRIBUTES))


def fitted(kind):
    """A learner that is fitted in closed form, on examples of described classes."""

    def make(net):
        random = np.random.default_rng(0)
        signatures = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]], "float32")
        x = random.normal(size=(40, 2)).astype(keras.config.floatx())
        return kind(net, ATTRIBUTES).fit(x, np.arange(40) % 4, signatures)

    return make


ORDERED = {"order of the support set": "reads examples one after the other"}
UNTRAINED = dict.fromkeys(
    ["training", "gradients", "freezing", "replicas", "float16"], "nothing is trained by gradients"
)
OF_NETWORK = {"norm": "has no encoder that could see several examples"}
SHORTCUT = {"gradients": "leaves out second derivatives, or replaces the gradient, on purpose"}

LEARNERS = {
    "MAML": Row(lambda net: MAML(net, 0.5, 2)),
    "MAML, a loop of 8 steps": Row(lambda net: MAML(net, 0.2, 8)),
    "ProtoMAML, steps recomputed": Row(
        lambda net: ProtoMAML(net, 0.3, 3, scale=0.5, recompute=True)
    ),
    "MAML, first order": Row(lambda net: MAML(net, 0.5, 2, first_order=True), why_not=SHORTCUT),
    "MAML, learned step size": Row(lambda net: MAML(net, inner_steps=2, rule=StepSize(0.5))),
    "MAML, LSTM": Row(lambda net: MAML(net, inner_steps=2, rule=LSTMRule(2, 1))),
    "MAML, numbers": Row(lambda net: MAML(net, 0.1, 2), "numbers", lambda: "mse"),
    "Meta-SGD": Row(lambda net: MetaSGD(net, 0.5)),
    "ANIL": Row(lambda net: ANIL(net, 0.5, 2)),
    "ProtoMAML": Row(lambda net: ProtoMAML(net, 0.3, 2, scale=0.5)),
    "iMAML": Row(
        lambda net: iMAML(net, 0.1, 3, cg_steps=2),
        why_not={"gradients": "exact at a minimum only, which three steps do not reach"},
    ),
    "Reptile": Row(lambda net: Reptile(net, 0.1, 2, batch_size=4), why_not=SHORTCUT),
    "prototypical": Row(lambda net: PrototypicalNetwork(net, "cosine", 7.0)),
    "matching": Row(lambda net: MatchingNetwork(net, scale=7.0)),
    "relation": Row(relation),
    "Siamese": Row(SiameseNetwork, loss=ContrastiveLoss),
    "Siamese, weighted": Row(lambda net: SiameseNetwork(net, "weighted"), loss=PairCrossEntropy),
    "recurrent": Row(lambda net: RecurrentLearner(net, WAYS, units=4), why_not=ORDERED),
    "MANN": Row(lambda net: MANN(net, WAYS, units=4, slots=5, width=3), why_not=ORDERED),
    "transformer": Row(
        lambda net: ContextTransformer(net, WAYS, units=4, heads=2),
        why_not=ORDERED,
    ),
    "neural process": Row(
        neural_process, "numbers", lambda: mlutils.gaussian_nll, why_not=OF_NETWORK
    ),
    "linear attention": Row(
        lambda net: LinearAttention(2, layers=2, step=0.3),
        "numbers",
        lambda: "mse",
        why_not={
            **OF_NETWORK,
            "freezing": "has no layer that could be frozen",
            "bfloat16": "has no network, and its own products are in single precision",
        },
    ),
    "prior-fitted": Row(
        lambda net: PriorFittedNetwork(2, WAYS, units=4, heads=2, blocks=2), why_not=OF_NETWORK
    ),
    "Hausdorff": Row(
        lambda net: ModifiedHausdorff(),
        "drawings",
        why_not={
            **UNTRAINED,
            **OF_NETWORK,
            "XLA": "keeps as many points as a drawing has ink, a shape that XLA cannot know",
            "bfloat16": "has no weights, and takes numbers as they come",
        },
    ),
    "described prototypes": Row(described, "described"),
    "CLIP": Row(lambda net: CLIP(net, network(inputs=ATTRIBUTES), scale=3.0), "described", InfoNCE),
    "DeViSE": Row(lambda net: DeViSE(net, ATTRIBUTES), "described", lambda: HingeRankLoss(10.0)),
    "DAP": Row(fitted(DAP), "described", why_not=UNTRAINED),
    "ESZSL": Row(fitted(ESZSL), "described", why_not=UNTRAINED),
}


def having(*properties):
    """Parametrise a test with all learners that have some properties."""
    rows = {n: r for n, r in LEARNERS.items() if not set(properties) & set(r.why_not)}
    return pytest.mark.parametrize("row", [pytest.param(r, id=n) for n, r in rows.items()])


every = having()


def element(kind, tasks=4, support=6, queries=5, dtype="float32", seed=0):
    """A batch of tasks ``((support_x, support_y, query_x), query_y)`` as arrays.

    Args:
        kind: ``"classes"``: points in clouds, labels 0..2; ``"numbers"``: points and three
            targets each; ``"drawings"``: 5 x 5 pixels, labels; ``"described"``: signatures of
            4 attributes, which classes they describe, points and labels.
    """
    random = np.random.default_rng(seed)

    def labels(number):
        every_class = np.tile(np.arange(WAYS), (tasks, 1))
        others = random.integers(WAYS, size=(tasks, max(number - WAYS, 0)))
        together = np.concatenate([every_class, others], axis=1)
        return random.permuted(together, axis=1)[:, :number].astype("int32")

    def points(y):
        return (random.normal(size=(tasks, WAYS, 2))[np.arange(tasks)[:, None], y]).astype(dtype)

    def noisy(y):
        return points(y) + random.normal(scale=0.3, size=(*y.shape, 2)).astype(dtype)

    if kind == "numbers":
        x, query_x = (random.normal(size=(tasks, n, 2)).astype(dtype) for n in (support, queries))
        y, query_y = (np.sin(v @ random.normal(size=(2, 3))).astype(dtype) for v in (x, query_x))
        return (x, y, query_x), query_y
    y, query_y = labels(support), labels(queries)
    if kind == "drawings":
        x, query_x = (
            (random.random((tasks, n, 5, 5, 1)) < 0.3).astype(dtype) for n in (support, queries)
        )
    elif kind == "described":
        codes = np.array([[0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 1]])
        x, query_x = codes[y].astype(dtype), noisy(query_y)
    else:
        x, query_x = noisy(y), noisy(query_y)
    return (x, y, query_x), query_y


def compiled(row, learner=None, optimizer=None, **options):
    """The row's learner, or this one, compiled with its loss."""
    learner = row.make(network()) if learner is None else learner
    learner.compile(optimizer or keras.optimizers.SGD(0.1), row.loss(), **options)
    return learner


def one_at_a_time(learner, inputs):
    """The predictions ``(tasks, Q, outputs)`` by ``adapt``."""
    return np.stack([learner.adapt(x, y)(query_x) for x, y, query_x in zip(*inputs, strict=True)])
