"""Characters of many scripts, each drawn several times: what few-shot learners practise on."""

from dataclasses import dataclass, replace

import numpy as np

from mlutils.data.sampling import episodes
from mlutils.door.numbers import check_count
from mlutils.episodes import describe


@dataclass(frozen=True, eq=False)
class Characters:
    """Drawings of characters, each character a class.

    Attributes:
        images: uint8 ``(classes, drawings, height, width, 1)``, one class or more; ink 255,
            paper 0.
        names: the characters' names, ``(classes,)`` strings.
        scripts: the name of each character's script, ``(classes,)`` strings.
        source: where they come from, to be shown beside every result.

    Example:
        >>> images = np.zeros((2, 3, 28, 28, 1), "uint8")  # two characters, three drawings of each
        >>> characters = mlutils.data.Characters(images, ("a", "b"), ("latin", "latin"), "made up")
        >>> len(characters), characters.x.shape, characters.y.tolist()
        (2, (6, 28, 28, 1), [0, 0, 0, 1, 1, 1])
    """

    images: np.ndarray
    names: tuple[str, ...]
    scripts: tuple[str, ...]
    source: str

    def __post_init__(self):
        images, labels = self.images, (self.names, self.scripts)
        if not isinstance(images, np.ndarray) or not all(hasattr(v, "__len__") for v in labels):
            raise TypeError(
                "images must be an array, names and scripts tuples of strings; got "
                f"{describe((images, *labels))}."
            )
        counts = {len(v) if np.ndim(v) else 0 for v in (images, *labels)}
        drawn = images.dtype == np.uint8 and images.ndim == 5 and images.shape[-1] == 1
        if not drawn or len(counts) > 1 or not images.size:
            raise ValueError(
                "images must be uint8 (classes, drawings, height, width, 1), of one class and one "
                "drawing at least, with a name and a script for each; got "
                f"{images.dtype} {images.shape}, {len(self.names)} names, "
                f"{len(self.scripts)} scripts."
            )

    def __len__(self):
        """The number of classes."""
        return len(self.images)

    def __repr__(self):
        drawings, scripts = self.images.shape[1], len(set(self.scripts))
        return (
            f"{len(self)} characters of {scripts} script{'s' if scripts > 1 else ''}, "
            f"{drawings} drawings each ({self.source})"
        )

    @property
    def x(self):
        """All drawings, ``(classes * drawings, height, width, 1)``."""
        return self.images.reshape(-1, *self.images.shape[2:])

    @property
    def y(self):
        """Their classes, int ``(classes * drawings,)``."""
        return np.repeat(np.arange(len(self)), self.images.shape[1])

    def episodes(self, **options):
        """Endless N-way K-shot tasks: ``mlutils.data.episodes`` with these ``x`` and ``y``.

        Args:
            **options: its ``ways``, ``shots``, ``queries``, ``meta_batch`` and ``seed``.
        """
        return episodes(self.x, self.y, **options)

    def of_scripts(self, scripts):
        """The characters of some scripts only, named by a collection of strings or a single one."""
        if not hasattr(scripts, "__iter__"):
            raise TypeError(f"scripts must be names of scripts, got {scripts!r}.")
        scripts = {scripts} if isinstance(scripts, str) else set(scripts)
        unknown = sorted(scripts - set(self.scripts), key=str)
        if unknown:
            raise ValueError(f"No such scripts: {unknown}; there are {sorted(set(self.scripts))}.")
        return self.subset([i for i, script in enumerate(self.scripts) if script in scripts])

    def of_drawers(self, drawers):
        """Only the drawings with some numbers: the n-th drawings of a script have one drawer.

        Args:
            drawers: one or more different positions 0, 1, ... in the axis of drawings.
        """
        try:
            kept = [check_count("a drawer", drawer, least=0) for drawer in drawers]
        except (TypeError, ValueError):
            kept = []
        there = self.images.shape[1]
        if not kept or len(set(kept)) < len(kept) or max(kept) >= there:
            raise ValueError(
                f"drawers must be different numbers from 0 to {there - 1}, at least one; "
                f"got {drawers!r}."
            )
        return replace(self, images=self.images[:, kept])

    def turned(self):
        """Four times as many classes: these, then turned left by 90, 180 and 270 degrees.

        The turned ones are characters of other scripts, as their names say: ``"Greek turned 90"``.
        (Santoro et al., ICML 2016, made new classes so, and most papers since.)
        """
        images = [np.rot90(self.images, quarters, axes=(2, 3)) for quarters in range(4)]
        marks = ["", " turned 90", " turned 180", " turned 270"]
        names, scripts = (
            tuple(f"{name}{mark}" for mark in marks for name in some)
            for some in (self.names, self.scripts)
        )
        return replace(self, images=np.concatenate(images), names=names, scripts=scripts)

    def subset(self, kept, **others):
        """The characters at some positions, and what else changes with them."""
        if isinstance(kept, str) or not hasattr(kept, "__iter__"):
            raise TypeError(f"kept must be positions of characters, got {kept!r}.")
        kept = [check_count("kept", i, least=0) for i in kept]
        if max(kept, default=0) >= len(self):
            raise ValueError(f"kept must be positions from 0 to {len(self) - 1}, got {kept}.")
        names, scripts = (tuple(v[i] for i in kept) for v in (self.names, self.scripts))
        return replace(self, images=self.images[kept], names=names, scripts=scripts, **others)
