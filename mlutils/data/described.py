"""Characters with descriptions: what zero-shot learners practise on."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mlutils.data.characters import Characters
from mlutils.data.plumbing import rendering
from mlutils.data.plumbing.cache import cached_arrays
from mlutils.data.sampling import episodes
from mlutils.door.numbers import check_count, check_rate, check_seed
from mlutils.episodes import describe


@dataclass(frozen=True, eq=False, repr=False)
class Described(Characters):
    """Drawings of characters, and a description of each character, its signature.

    Attributes:
        images, names, scripts, source: as in ``Characters``.
        signatures: float32 ``(classes, attributes)``, a row describes a class; all finite.
        attributes: what the numbers of a signature say, ``(attributes,)`` strings.

    Example:
        >>> images = np.zeros((2, 3, 28, 28, 1), "uint8")
        >>> two = mlutils.data.Described(
        ...     images, ("a", "á"), ("latin",) * 2, "made up", np.float32([[0], [1]]), ("acute",)
        ... )
        >>> two.signatures.tolist(), two.attributes
        ([[0.0], [1.0]], ('acute',))
    """

    signatures: np.ndarray
    attributes: tuple[str, ...]

    def __post_init__(self):
        super().__post_init__()
        found, attributes = self.signatures, self.attributes
        if not isinstance(found, np.ndarray) or not hasattr(attributes, "__len__"):
            raise TypeError(
                "signatures must be an array and attributes a tuple of strings; got "
                f"{describe((found, attributes))}."
            )
        wanted = len(self.images), len(attributes)
        if found.dtype != np.float32 or found.shape != wanted:
            raise ValueError(
                "signatures must be float32 (classes, attributes), here "
                f"{wanted}; got {found.dtype} {found.shape}."
            )
        if not np.isfinite(found).all():
            class_, attribute = np.argwhere(~np.isfinite(found))[0]
            raise ValueError(
                f"The description of {self.names[class_]!r} lacks {self.attributes[attribute]!r}: "
                f"it is {found[class_, attribute]}."
            )

    def episodes(self, ways=5, queries=4, meta_batch=16, seed=0):
        """Endless N-way zero-shot tasks, whose support set is one description of each class.

        Args:
            ways: N, classes per task.
            queries: query drawings per class, fewer than there are drawings (a ``class_split``
                holds out five of each class).
            meta_batch: tasks per batch.
            seed: 0 to 2**32 - 1.

        Returns:
            A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)`` as
            ``mlutils.data.episodes`` makes it, but for ``support_x``: signatures, float32
            ``(meta_batch, ways, attributes)``.
        """
        if check_count("queries", queries) >= self.images.shape[1]:
            raise ValueError(
                f"queries must be less than the {self.images.shape[1]} drawings of a class, got "
                f"{queries}."
            )
        # The episodes of drawings' numbers; the support drawing stands for its class.
        numbers = np.arange(len(self.y))
        chosen = episodes(numbers, self.y, ways, 1, queries, meta_batch, seed)
        images, signatures = tf.constant(self.x), tf.constant(self.signatures)
        drawings = self.images.shape[1]

        def look_up(inputs, query_y):
            support, support_y, query = inputs
            described = tf.gather(signatures, tf.cast(support, tf.int32) // drawings)
            shown = tf.cast(tf.gather(images, tf.cast(query, tf.int32)), tf.float32) / 255
            return (described, support_y, shown), query_y

        return chosen.map(look_up).prefetch(tf.data.AUTOTUNE)

    def class_split(self, unseen, seed=0, held_out=5):
        """Deal the classes into seen and unseen ones at random.

        Every attribute still takes two values among the seen classes, so that it can be learned:
        unseen classes are new combinations of what was seen.

        Args:
            unseen: how many classes are to be unseen; a ValueError if so many cannot be spared.
            seed: 0 to 2**32 - 1; another seed deals otherwise.
            held_out: of how many drawers, the last ones, the drawings are kept from training.

        Returns:
            A ``ClassSplit``.
        """
        unseen = check_count("unseen", unseen)
        drawings = self.images.shape[1]
        if check_count("held_out", held_out) >= drawings:
            raise ValueError(
                f"held_out must be less than the {drawings} drawings of a class, got {held_out}."
            )
        seen = set(range(len(self)))
        for class_ in np.random.default_rng(check_seed(seed)).permutation(len(self)):
            if len(self) - len(seen) == unseen:
                break
            rest = self.signatures[sorted(seen - {class_})]
            if len(rest) and not constant_attributes(rest).any():
                seen.remove(class_)
        spared = len(self) - len(seen)
        if spared < unseen:
            raise ValueError(
                f"unseen is {unseen}; of these {len(self)} classes only {spared} can be spared in "
                f"the order of seed {seed} if every attribute is still to be learned from the rest."
            )
        early, late = range(drawings - held_out), range(drawings - held_out, drawings)
        known = self.subset(sorted(seen))
        new = self.subset([class_ for class_ in range(len(self)) if class_ not in seen])
        return ClassSplit(known.of_drawers(early), known.of_drawers(late), new.of_drawers(late))

    def turned(self):
        """Not for these: a ValueError, since the descriptions are of upright characters."""
        raise ValueError("The descriptions are of upright characters: turned ones have none.")

    def subset(self, kept):
        """The characters at some positions."""
        kept = list(kept)
        return super().subset(kept, signatures=self.signatures[kept])


class ClassSplit(NamedTuple):
    """Seen and unseen classes.

    Attributes:
        train: seen classes, the drawings to train on.
        seen: the same classes, drawn by others.
        unseen: the other classes, drawn by those of ``seen``.

    Example:
        >>> images = np.zeros((4, 6, 28, 28, 1), "uint8")
        >>> signatures = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> four = mlutils.data.Described(
        ...     images, tuple("abcd"), ("made up",) * 4, "made up", signatures, ("first", "second")
        ... )
        >>> split = four.class_split(1, held_out=2)
        >>> len(split.train), len(split.seen), len(split.unseen)
        (3, 3, 1)
    """

    train: Described
    seen: Described
    unseen: Described


def constant_attributes(signatures):
    """Which attributes have one value in all classes, ``(attributes,)`` bools."""
    return np.ptp(signatures, axis=0) == 0


def draw_described(file, characters, script, signatures, attributes, seed, jitter, frame=None):
    """Draw a script's characters, once, and describe them.

    Args:
        file: the module that chooses the characters; its name is the cache file's.
        characters: their names, which are the characters themselves.
        script: the script's name.
        signatures, attributes: as in ``Described``.
        seed: of the distortions, 0 to 2**32 - 1.
        jitter: their strength, as for ``rendering.drawn``.
        frame: as for ``rendering.printed``.

    Returns:
        A ``Described``.
    """
    seed, jitter, size = check_seed(seed), abs(check_rate("jitter", jitter)), rendering.SIZE
    shape = (len(characters), rendering.DRAWINGS, size, size, 1)

    def make():
        random = np.random.default_rng(seed)
        return {"images": rendering.drawn(characters, random, frame, jitter)[..., np.newaxis]}

    def fits(arrays):
        return arrays["images"].dtype == np.uint8 and arrays["images"].shape == shape

    name = f"{Path(file).stem}-{rendering.recipe(file, __file__)}-{seed}-{jitter!r}.npz"
    arrays = cached_arrays(name, make, fits)
    return Described(
        arrays["images"],
        tuple(characters),
        (script,) * len(characters),
        rendering.SOURCE,
        np.asarray(signatures, np.float32),
        tuple(attributes),
    )
