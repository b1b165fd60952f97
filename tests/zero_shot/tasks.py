"""What these tests share: sixteen classes that are four bits each, seen and unseen ones."""

import functools
import itertools

import keras
import numpy as np
import tensorflow as tf

import mlutils
from mlutils.data.described import Described
from mlutils.zero_shot import DAP, ESZSL, DescribedPrototypes, DeViSE, HingeRankLoss
from tests.few_shot.tasks import identity

KINDS = [DAP, ESZSL, DeViSE, DescribedPrototypes]
BITS = np.array(list(itertools.product((0, 1), repeat=4)), np.float32)
# Half of the signatures: among them every bit is 1 as often as 0, and no two bits go together.
EVEN, ODD = BITS[BITS.sum(axis=1) % 2 == 0], BITS[BITS.sum(axis=1) % 2 == 1]


def drawings(signatures, seed, each=20):
    """Images of 2 x 2 pixels: dark and bright ones spell the bits, with noise."""
    random = np.random.default_rng(seed)
    pixels = 64 + 128 * signatures[:, np.newaxis] + 25 * random.normal(size=(1, each, 4))
    images = np.clip(pixels, 0, 255).astype(np.uint8).reshape(-1, each, 2, 2, 1)
    names = tuple("".join(str(int(bit)) for bit in row) for row in signatures)
    return Described(images, names, ("bits",) * len(names), "here", signatures, tuple("abcd"))


def pixels():
    """An encoder of images, embeddings (2, 2, 1) from -1 to 1, without a weight."""
    return keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Rescaling(2.0, -1.0)])


def built(kind, encoder=None, **options):
    """A learner of four attributes, compiled if it has to be; by default vectors come in."""
    encoder = encoder or identity(4)
    if kind is DescribedPrototypes:
        learner = kind(encoder, mlutils.mlp(4, (), 4), **options)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        learner, loss = kind(encoder, 4, **options), HingeRankLoss()
    if kind in (DeViSE, DescribedPrototypes):
        learner.compile(keras.optimizers.Adam(0.05), loss, jit_compile=False)
        learner.optimizer.build(learner.trainable_variables)
    return learner


def ready(kind, base=None, **options):
    """One that can answer: with random weights, or with those of a fit to vectors of bits."""
    base, random = base or kind, np.random.default_rng(0)
    learner = built(base, **options) if kind is base else remade(kind, built(base, **options))
    if isinstance(learner, (DAP, ESZSL)):
        y = np.repeat(np.arange(8), 6)
        learner.fit(EVEN[y] + random.normal(size=(48, 4)), y, EVEN)
    return learner


def remade(kind, learner):
    """The same networks in a learner of another kind, a wrong version."""
    networks = [getattr(learner, name) for name in learner.networks]
    return kind(*networks) if len(networks) > 1 else kind(*networks, learner.attributes)


@functools.cache
def fitted(kind, by_lot=False):
    """One fitted to drawings of the even signatures; or ``by_lot``, to labels that mean nothing."""
    learner, data = built(kind, pixels()), drawings(EVEN, seed=0)
    y = np.random.default_rng(0).permutation(data.y) if by_lot else data.y
    trained = kind in (DeViSE, DescribedPrototypes)
    options = dict(epochs=15, verbose=0) if trained else {}
    return learner.fit((data.x / 255).astype(np.float32), y, data.signatures, **options) and learner


def random_tasks(tasks=3, ways=4, queries=5, seed=0):
    """``(signatures, labels, query_x)``: different signatures of bits, the classes in any order."""
    random = np.random.default_rng(seed)
    signatures = [BITS[random.permutation(16)[:ways]] for _ in range(tasks)]
    labels = random.permuted(np.tile(np.arange(ways), (tasks, 1)), axis=1)
    floats = keras.config.floatx()
    return (
        tf.constant(np.array(signatures), floats),
        tf.constant(labels),
        tf.constant(random.normal(size=(tasks, queries, 4)), floats),
    )


@functools.cache
def unseen_tasks(ways=4):
    """Two hundred tasks of unseen classes, as one batch."""
    return [next(iter(drawings(ODD, seed=1).episodes(ways, meta_batch=200, seed=1)))]


def unseen_accuracy(learner):
    return mlutils.evaluate(learner, unseen_tasks(), tasks=200)
