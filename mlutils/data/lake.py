"""Lake's one-shot test: one person draws each character once, another draws them to be named."""

import contextlib
import io
import math
import re
import struct
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image

from mlutils.data.characters import Characters
from mlutils.data.omniglot import ink_of, omniglot, resized
from mlutils.data.plumbing.archives import read_archive
from mlutils.data.plumbing.pipeline import endless
from mlutils.door.numbers import check_count, check_flag, check_seed
from mlutils.episodes import Episode

LARGEST = 1024  # pixels a side: nothing that claims more is decoded
# In all runs of an archive; the official one has 800 drawings of together 8,820,000 pixels.
MOST_DRAWINGS, MOST_PIXELS = 10_000, 2**26
# The official test: of each alphabet the drawers of its two runs, who teaches and who asks, and the
# twenty characters.  As jvlmdr/omniglot-eval lists them, with checksums of all images, which fit.
OFFICIAL = {
    "Atlantean": (((5, 8), (3, 2)), "1 2 3 4 5 7 8 9 10 13 14 16 19 20 21 22 23 24 25 26"),
    "Ge_ez": (((3, 7), (4, 2)), "1 2 3 4 5 6 8 9 10 12 14 15 16 17 18 20 21 23 24 25"),
    "Glagolitic": (((6, 4), (3, 2)), "1 2 3 5 6 7 14 17 18 19 20 21 26 28 31 34 36 37 40 43"),
    "Gurmukhi": (((5, 2), (8, 3)), "3 6 7 8 9 13 14 15 16 17 22 25 26 29 31 32 33 38 43 44"),
    "Kannada": (((2, 1), (8, 3)), "1 3 5 8 11 12 13 14 19 20 21 23 25 26 27 28 33 35 40 41"),
    "Malayalam": (((3, 7), (4, 2)), "2 4 5 9 13 14 15 16 17 19 20 21 22 25 27 29 30 37 43 46"),
    "Manipuri": (((8, 4), (7, 3)), "3 4 6 8 9 11 12 13 15 17 19 21 22 25 29 33 35 36 37 39"),
    "Old_Church_Slavonic_(Cyrillic)": (
        ((4, 8), (1, 2)),
        "2 4 5 6 7 8 9 11 12 13 14 15 23 24 25 30 33 41 44 45",
    ),
    "Tengwar": (((1, 4), (8, 7)), "1 2 4 5 7 8 9 10 11 12 13 16 18 19 20 21 22 23 24 25"),
    "Tibetan": (((1, 3), (8, 5)), "1 2 3 5 6 7 8 9 11 13 14 15 21 22 24 33 35 36 38 41"),
}

UNREADABLE = (OSError, SyntaxError, ValueError, struct.error)  # what Pillow raises


def lake_runs(characters, ways=20, within=True, queries=1, meta_batch=1, seed=0):
    """Endless one-shot tasks as in Lake's test (Lake, Salakhutdinov & Tenenbaum, Science 2015).

    A run takes ``ways`` characters of one script; the support set is one person's drawings of
    them, the query set another's.  The scripts take turns; each run draws new characters and new
    people.

    Args:
        characters: ``Characters``.
        ways: N, the characters of a run; 20 in the test.  Scripts with fewer take no part.
        within: False takes the characters from all scripts: as in the usual few-shot episodes,
            what must be told apart then mostly looks different.  Drawings with one number are
            then by several people, one for each script.
        queries: people who draw queries; each draws every character once.
        meta_batch: runs per batch.
        seed: 0 to 2**32 - 1; the same seed gives the same runs.

    Returns:
        A ``tf.data.Dataset`` of ``((support_x, support_y, query_x), query_y)`` as
        ``mlutils.data.episodes`` gives: ``ways`` support examples a task and ``ways * queries``
        queries, one person's after the other's.
    """
    if not isinstance(characters, Characters):
        raise TypeError(f"characters must be Characters, got {type(characters).__name__}.")
    ways, queries = check_count("ways", ways), check_count("queries", queries)
    meta_batch, seed = check_count("meta_batch", meta_batch), check_seed(seed)
    drawings = characters.images.shape[1]
    if drawings < 1 + queries:
        raise ValueError(
            f"Each character is drawn by {drawings} people; a run needs one for the support set "
            f"and queries={queries} for the query set."
        )
    scripts, script_of = np.unique(characters.scripts, return_inverse=True)
    sizes = np.bincount(script_of)
    within = check_flag("within", within)
    large = np.flatnonzero(sizes >= ways) if within else np.arange(1)
    if not len(large) or len(characters) < ways:
        raise ValueError(
            f"ways is {ways}, and the largest script, {scripts[sizes.argmax()]}, has "
            f"{sizes.max()} characters, all together {len(characters)}: take fewer ways."
        )
    images, large = tf.constant(characters.images), tf.constant(large)
    script_of = tf.constant(script_of if within else np.zeros_like(script_of))

    def sample(draws):
        def distinct(number, of, among=True):
            """Different numbers below ``of``, ``(meta_batch, number)``, from those ``among``."""
            ranks = tf.where(among, draws.uniform((meta_batch, of)), -1.0)
            return tf.math.top_k(ranks, number).indices

        turn = draws.index * meta_batch + tf.range(meta_batch, dtype=tf.int64)
        script = tf.gather(large, turn % len(large))
        chosen = distinct(ways, len(characters), among=script[:, tf.newaxis] == script_of)
        person = distinct(1 + queries, drawings)

        def drawn_by(people, order):
            """Inputs and labels ``(meta_batch, ways)`` of one person each, in some order."""
            where = tf.stack(
                [
                    tf.gather(chosen, order, batch_dims=1),
                    tf.broadcast_to(people[:, tf.newaxis], (meta_batch, ways)),
                ],
                axis=2,
            )
            return tf.cast(tf.gather_nd(images, where), tf.float32) / 255, order

        support = drawn_by(person[:, 0], distinct(ways, ways))
        query = [drawn_by(person[:, 1 + q], distinct(ways, ways)) for q in range(queries)]
        query_x, query_y = (tf.concat(parts, axis=1) for parts in zip(*query, strict=True))
        return Episode(*support, query_x, query_y).element

    return endless(sample, seed)


def official_lake_runs(size=28):
    """The 20 runs of the official test, made of Omniglot's own drawings.

    They are of ten of the evaluation alphabets, two runs each, with the same characters and other
    drawers.  At ``size=105``, the original pixels, the modified Hausdorff distance is wrong in
    38.75 % of the answers, as Omniglot's repository states; at 28, in 44.25 %.

    Args:
        size: pixels a side, as for ``omniglot``: 105 for what was published.

    Returns:
        An ``Episode`` as of ``read_lake_runs``, whose queries are in the order of the classes.
    """
    evaluation = omniglot("evaluation", size)
    taught, asked = [], []
    for alphabet, (runs, characters) in OFFICIAL.items():
        numbers = np.array(characters.split(), int) - 1
        images = evaluation.of_scripts(alphabet).images[numbers]
        for teacher, pupil in runs:
            taught.append(images[:, teacher - 1])
            asked.append(images[:, pupil - 1])
    taught, asked = (tf.cast(np.stack(images), tf.float32) / 255 for images in (taught, asked))
    labels = tf.tile(tf.range(20)[tf.newaxis], (len(taught), 1))
    return Episode(taught, labels, asked, labels)


def read_lake_runs(path, size=28):
    """The runs of an archive in the layout of the official ``all_runs.zip``.

    It holds, for each run, ``runNN/training/classCC.png``, ``runNN/test/itemII.png`` and
    ``runNN/class_labels.txt`` with lines ``runNN/test/itemII.png runNN/training/classCC.png``.

    Args:
        path: the archive.
        size: pixels a side, to which the drawings are averaged as by ``omniglot``, 1 to 1,024.

    Returns:
        An ``Episode`` of all runs in order of their names: ``support_x`` float32
        ``(runs, ways, size, size, 1)``, ink 1, paper 0, ``support_y`` ``(runs, ways)``, ``query_x``
        and ``query_y`` alike.  ``mlutils.evaluate(learner, [runs], tasks=20)`` scores on the
        first 20.

    Raises:
        OSError: if the archive cannot be read.
        ValueError: if it is damaged, or not of this layout, or names more than 10,000 drawings or
            drawings of together more than 2**26 pixels.
    """
    if check_count("size", size) > LARGEST:
        raise ValueError(f"size must be at most {LARGEST}, got {size}.")
    files = read_archive(path)
    lists = [name for name in files if name.endswith("class_labels.txt")]
    lists = [name for name in lists if not name.startswith("__MACOSX/")]  # a packer's shadows
    try:
        pairs = [listed(files, name) for name in lists]
        if not pairs:
            raise ValueError("there is no runNN/class_labels.txt")
        check_pixels(files, pairs)
        runs = [one_run(files, *run, size) for run in zip(lists, pairs, strict=True)]
        shapes = {run.query_x.shape for run in runs}
        if len(shapes) > 1:
            raise ValueError("the runs have different numbers of characters")
    except ValueError as error:
        raise ValueError(
            f"{path} is not of the layout of all_runs.zip: {error}. It must hold "
            "runNN/class_labels.txt with lines 'runNN/test/itemII.png "
            "runNN/training/classCC.png', and those drawings."
        ) from error
    return Episode(*(tf.stack(values) for values in zip(*runs, strict=True)))


def listed(files, name):
    """The drawings in a run's list, the file ``name``: those of the test and their answers."""
    match = re.fullmatch(r"(.*/)?run\d+/class_labels\.txt", name)
    if not match:
        raise ValueError(f"the name {name!r}")
    top = match[1] or ""  # folder
    lines = files[name].decode(errors="replace").split("\n")
    pairs = sorted(line.split() for line in lines if line.strip())
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{name} must hold two names a line")
    items, answers = zip(*pairs, strict=True)
    if len(set(answers)) < len(answers) or len(set(items)) < len(items):
        raise ValueError(f"{name} names a drawing twice")
    missing = [drawing for drawing in (*items, *answers) if top + drawing not in files]
    if missing:
        raise ValueError(f"{name} names {missing[0]!r}, which is not there")
    return [top + drawing for drawing in items], [top + drawing for drawing in answers]


def check_pixels(files, runs):
    """Raise a ValueError if the runs have too many drawings or pixels; none is decoded for that."""
    drawings = [drawing for run in runs for part in run for drawing in part]
    pixels = {name: math.prod(opened(name, files[name]).size) for name in set(drawings)}
    total = sum(pixels[drawing] for drawing in drawings)
    if len(drawings) > MOST_DRAWINGS or total > MOST_PIXELS:
        raise ValueError(
            f"it names {len(drawings):,} drawings of together {total:,} pixels; allowed are "
            f"{MOST_DRAWINGS:,} and {MOST_PIXELS:,}"
        )


def one_run(files, name, pairs, size):
    """The run, an ``Episode``, whose list is the file ``name`` and holds these ``pairs``."""
    items, answers = pairs
    classes = sorted(answers)

    def read(drawings):
        ink = [decoded(drawing, files[drawing]) for drawing in drawings]
        if len({picture.shape for picture in ink}) > 1:
            raise ValueError(f"{name}: its drawings have different sizes")
        return tf.cast(resized(np.stack(ink), size)[..., np.newaxis], tf.float32) / 255

    labels = tf.constant([classes.index(answer) for answer in answers])
    return Episode(read(classes), tf.range(len(classes)), read(items), labels)


@contextlib.contextmanager
def naming(name):
    """What goes wrong with a drawing that nobody has checked is a ValueError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (*UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} is no PNG picture that can be read ({error})") from error


def opened(name, png):
    """The picture, which knows its size and is not decoded yet."""
    with naming(name):
        image = Image.open(io.BytesIO(png), formats=["PNG"])
        if max(image.size) > LARGEST:
            raise ValueError(f"it has {image.size} pixels; allowed are {LARGEST} a side")
        return image


def decoded(name, png):
    """The ink of a drawing."""
    image = opened(name, png)
    with naming(name):
        return ink_of(image)
