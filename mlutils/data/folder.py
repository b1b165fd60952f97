"""A folder of pictures, one folder for each class: what most people who ask have."""

import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlutils.data.plumbing.archives import remove_leftovers
from mlutils.data.plumbing.cache import cache_folder
from mlutils.data.sampling import episodes
from mlutils.door.numbers import (
    check_count,
    check_flag,
    check_option,
    check_positive,
    check_seed,
)
from mlutils.episodes import describe

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FRAMES = ("crop", "pad")
THREADS = 4  # that decode; PIL lets the others run meanwhile
CHUNK = 256  # pictures decoded, but not yet written, at most
LARGE = 2**28  # bytes; more than that stays on disk
DARK = 2**14  # brightest number of pictures of 16 bits that fill them badly
NAMED = 5  # files in a message
PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}
REFUSED = {
    "I": "its 32-bit numbers have no known white: save it with 8 or 16 bits",
    "F": "its floats have no known white: save it with 8 or 16 bits",
}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of some classes, which need not have equally many.

    Attributes:
        x: uint8 ``(n, height, width, channels)``, one or three channels; a ``np.memmap`` where
            they are too large for memory, and so are then the parts that the methods below make.
        y: their classes, int ``(n,)``, positions in ``names``.
        names: the classes' names, all different, a picture of each at least.
        files: where each picture comes from, ``(n,)`` strings.

    Example:
        >>> x = np.zeros((3, 28, 28, 1), "uint8")
        >>> pictures = mlutils.data.Pictures(x, [0, 0, 1], ("cat", "dog"), ("a", "b", "c"))
        >>> pictures
        3 pictures of 2 classes, 1 to 2 of each, 28 x 28 grey
        >>> pictures.at_least(2).names
        ('cat',)
    """

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, ...]
    files: tuple[str, ...]

    def __post_init__(self):
        x = self.x
        if not isinstance(x, np.ndarray) or isinstance(self.names, str):
            raise TypeError(
                f"x must be an array and names a tuple of strings; got {describe((x, self.names))}."
            )
        object.__setattr__(self, "y", np.array(self.y))
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3):
            raise ValueError(
                "x must be uint8 (n, height, width, channels) of 1 or 3 channels; got "
                f"{x.dtype} {x.shape}."
            )
        if (
            self.y.shape != x.shape[:1]
            or len(self.files) != len(x)
            or self.y.dtype.kind not in "iu"
        ):
            raise ValueError(
                f"x holds {len(x)} pictures; y must be {len(x)} integers and files as many "
                f"strings; got {self.y.dtype} {self.y.shape} and {len(self.files)}."
            )
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise ValueError(f"names must differ; more than once there is {some(twice)}.")
        if not len(x) or sorted(set(self.y.tolist())) != list(range(len(self.names))):
            raise ValueError(
                f"There are {len(self.names)} names, so y must hold each of 0 to "
                f"{len(self.names) - 1}; it holds {some(sorted(set(self.y.tolist())))}."
            )

    def __len__(self):
        """The number of classes."""
        return len(self.names)

    def __repr__(self):
        low, high = self.counts.min(), self.counts.max()
        height, width, channels = self.x.shape[1:]
        return (
            f"{len(self.x):,} picture{'s' * (len(self.x) > 1)} of {len(self)} "
            f"class{'es' * (len(self) > 1)}, {low if low == high else f'{low} to {high}'} of each, "
            f"{height} x {width} {'grey' if channels == 1 else 'in colour'}"
        )

    @property
    def counts(self):
        """How many pictures each class has, int ``(classes,)``."""
        return np.bincount(self.y, minlength=len(self))

    def episodes(self, **options):
        """Endless N-way K-shot tasks: ``mlutils.data.episodes`` of these pictures.

        Args:
            **options: its ``ways``, ``shots``, ``queries``, ``meta_batch``, ``seed``, ``balanced``
                and ``classes``, which are names here.
        """
        return episodes(self.x, np.array(self.names)[self.y], **options)

    def of_classes(self, names):
        """Only the classes with these names, numbered anew.

        Args:
            names: names of classes, or of folders above them: ``"Greek"`` names
                ``"Greek/character01"`` and all others of its kind.  Several, or a single string.
        """
        names = [names] if isinstance(names, str) else names
        if not hasattr(names, "__iter__"):
            raise TypeError(f"names must be names of classes, got {names!r}.")
        names = list(names)
        if not names:
            raise ValueError("names must be one class or more, got none.")
        folders = [{name, *map(str, parents(name))} for name in self.names]
        if unknown := [n for n in names if not any(n in f for f in folders)]:
            raise ValueError(f"No such classes: {some(unknown)}; there are {some(self.names)}.")
        return self._with([i for i, f in enumerate(folders) if f & set(names)])

    def at_least(self, count):
        """Only the classes that have at least so many pictures, numbered anew."""
        count = check_count("count", count)
        if count > self.counts.max():
            raise ValueError(f"No class has {count} pictures; the largest has {self.counts.max()}.")
        return self._with(np.flatnonzero(self.counts >= count).tolist())

    def split(self, shares=(0.6, 0.2, 0.2), seed=0):
        """Parts that share no class, dealt out by chance.

        Classes are dealt one by one: of nested folders, ``"Greek/character01"`` may come into
        one part and ``"Greek/character02"`` into another.  Where what is tested should be of
        another alphabet, another hospital or another camera, choose the folders by hand with
        ``of_classes``.

        Args:
            shares: of the classes, positive numbers that sum to 1.
            seed: of the dealing, 0 to 2**32 - 1.

        Returns:
            A tuple of ``Pictures``, one for each share.
        """
        dealt = deal(len(self), check_shares("shares", shares), check_seed(seed), "shares")
        return tuple(self._with(kept) for kept in dealt)

    def _with(self, kept):
        """The classes at these positions, which ascend."""
        if len(kept) == len(self):
            return self
        rows = np.flatnonzero(np.isin(self.y, kept))
        names, files = tuple(self.names[i] for i in kept), tuple(self.files[i] for i in rows)
        y = np.searchsorted(kept, self.y[rows])
        return replace(self, x=taken(self.x, rows), y=y, names=names, files=files)


def folder(path, image_size=28, color=False, frame="crop", splits=None, seed=0, skip_broken=False):
    """The pictures of a folder in which each class has a folder of its own.

    A class is a folder that directly holds pictures, ``cat/1.png``, and its name is the way to it:
    ``Greek/character01/1.png`` is of the class ``"Greek/character01"``.  Pictures are files that
    end in png, jpg, jpeg, bmp, gif, webp, tif or tiff, in small letters or capitals; hidden files
    and all others are passed over.  Of animations and of several pages the first is taken.

    Each picture is turned as its camera's note (EXIF) says, laid on white paper where it is
    transparent, made grey or given colour, and brought to one size.  All are decoded once, by a
    few threads, and kept in Keras's cache folder; a file that changes is noticed, and they are
    decoded anew.  What is larger than 256 MiB is not held in memory.

    Args:
        path: the folder.
        image_size: height and width in pixels, a number for both or a pair.
        color: whether they have three channels (red, green, blue) or one.
        frame: how a picture of another shape is made to fit, its proportions kept: ``"crop"``
            cuts from its longer side, as suits photographs with their subject in the middle;
            ``"pad"`` adds margins in the median colour of its own edge, as suits signs, leaves on
            paper, and all that must not lose an end.
        splits: such as ``(0.6, 0.2, 0.2)``: shares of the classes, as for ``Pictures.split``.
        seed: of the dealing into splits, 0 to 2**32 - 1.
        skip_broken: whether pictures that cannot be read are left out, with a warning that also
            names the classes of which none is left.

    Returns:
        ``Pictures``, sorted by the names of their classes and files; with ``splits`` a tuple of
        as many, which share no class.

    Raises:
        OSError: if there is no such folder.
        ValueError: if there are no pictures in it, or some outside of any class's folder, or
            some that cannot be read (which names them all, or the first five and how many more).

    Warns:
        UserWarning: if two pictures are the same, pixel by pixel; if pictures are left out; if the
            first folders are called train and test; if no picture of 16 bits uses more than 14 of
            them; if the cache cannot be written.
    """
    size = check_size(image_size)
    options = size, check_flag("color", color), check_option("frame", frame, FRAMES)
    skip_broken, seed = check_flag("skip_broken", skip_broken), check_seed(seed)
    splits = None if splits is None else check_shares("splits", splits)
    root = check_path("path", path)
    files = found(root)
    about, x = decoded(root, files, options)
    report_broken(root, files, about["broken"], skip_broken and len(x))
    report_twins(about["twins"])
    report_darkness(about["brightest"])
    good = [file for file in files if file not in about["broken"]]
    classes = [file.rpartition("/")[0] for file in good]
    names, y = np.unique(np.array(classes), return_inverse=True)
    pictures = Pictures(x, y, tuple(names.tolist()), tuple(good))
    if splits is None:
        return pictures
    return tuple(pictures._with(kept) for kept in deal(len(pictures), splits, seed, "splits"))


def picture(file, image_size=28, color=False, frame="crop"):
    """One picture, read as ``folder`` reads them: what a learner is shown that learned from one.

    Args:
        file: its path, or a binary file object, as of an upload; ``io.BytesIO`` makes one of
            bytes.
        image_size, color, frame: as for ``folder``.

    Returns:
        uint8 ``(height, width, channels)``.  Learners take ``(n, height, width, channels)``:
        ``picture(file)[np.newaxis]``.

    Raises:
        ValueError: if it is no picture that can be read.
        OSError: if there is no such file, or it is a folder.
    """
    options = check_size(image_size), check_flag("color", color)
    frame = check_option("frame", frame, FRAMES)
    if not hasattr(file, "read"):
        path = check_path("file", file, " or a binary file object (wrap bytes in io.BytesIO)")
        if path.is_dir():
            raise IsADirectoryError(f"{file} is a folder; needed is one picture's file.")
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {file}.")
    try:
        return read(file, *options, frame)[0]
    except Exception as error:  # PIL has many kinds
        raise ValueError(f"{file} is no picture that can be read: {reason(error)}.") from error


# ------------------------------------------------------------------ what users hand in


def check_size(value):
    """``image_size`` as ``(height, width)``."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"image_size must be a number or (height, width), got {value!r}.")
    return tuple(check_count("image_size", side) for side in pair)


def check_path(name, value, or_else=""):
    """A path as a ``Path``."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path{or_else}, got {describe(value)}.")
    return Path(value)


def check_shares(name, shares):
    """A tuple of positive shares that sum to one."""
    if not isinstance(shares, (tuple, list)) or not shares:
        raise ValueError(f"{name} must be numbers such as (0.6, 0.2, 0.2), got {shares!r}.")
    shares = tuple(check_positive(f"each of {name}", share) for share in shares)
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"{name} must sum to 1, and {shares} sum to {sum(shares):g}.")
    return shares


def deal(classes, shares, seed, name):
    """Positions 0..classes-1 dealt into parts, each in ascending order."""
    ends = np.rint(np.cumsum(shares) * classes).astype(int)[:-1]
    parts = np.split(np.random.default_rng(seed).permutation(classes), ends)
    if not all(len(part) for part in parts):
        raise ValueError(
            f"{classes} classes are too few for {name} of {shares}: a part would have "
            f"{min(map(len, parts))}."
        )
    return [sorted(part.tolist()) for part in parts]


def some(values):
    """The first of some values, and how many more there are."""
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(map(str, values[:NAMED])) + more


def parents(name):
    """The folders above a class: of ``"a/b/c"`` they are ``"a/b"`` and ``"a"``."""
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]


# ------------------------------------------------------------------ files


def found(root):
    """The pictures below a folder, as sorted ways from it; or an error that says what is wrong."""
    if not root.exists():
        raise FileNotFoundError(f"There is no folder {root}.")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is a file; needed is the folder that holds the classes.")
    files = sorted(
        (path.relative_to(root).as_posix() for path in below(root)),
        key=lambda file: file.rpartition("/"),
    )
    if loose := [file for file in files if "/" not in file]:
        raise ValueError(
            f"{root} holds pictures outside of any class: {some(loose)}. Put each into the folder "
            "of its class, such as cat/1.png; or name the folder above."
        )
    if not files:
        raise ValueError(
            f"{root} holds no pictures in folders of classes, such as cat/1.png; pictures end in "
            f"{', '.join(SUFFIXES)}."
        )
    firsts = {file.split("/")[0].lower() for file in files if file.count("/") > 1}
    if len(firsts) > 1 and firsts <= PARTS:
        warnings.warn(
            f"{root} holds folders {', '.join(sorted(firsts))}, and below them classes: a class "
            "that stands in two of them counts as two. To read one of them, name it in path.",
            stacklevel=3,
        )
    return files


def below(place, above=()):
    """The pictures below a folder; links are followed, but not in circles."""
    real = place.resolve()
    if real in above:
        return
    for entry in place.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from below(entry, (*above, real))
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


def report_broken(root, files, broken, skip):
    """An error, or a warning, that names the pictures that cannot be read, and classes lost."""
    if not broken:
        return
    named = some([f"{file} ({why})" for file, why in broken.items()])
    if not skip:
        raise ValueError(
            f"{len(broken)} of the pictures in {root} cannot be read: {named}. Mend or remove "
            "them, or leave them out by skip_broken=True."
        )
    left = {class_of([file]) for file in files if file not in broken}
    lost = sorted({class_of([file]) for file in broken} - left)
    gone = f" No picture is left of these classes: {some(lost)}." if lost else ""
    many = "1 picture is" if len(broken) == 1 else f"{len(broken)} pictures are"
    warnings.warn(f"{many} left out: {named}.{gone}", stacklevel=3)


def report_twins(twins):
    """A warning that names the first pictures that are there twice."""
    for across, what in (
        (False, "of one class: one may be learned from and the other asked for"),
        (True, "of two classes: nobody can tell which is right"),
    ):
        pairs = [" = ".join(pair) for pair in twins if (class_of(pair) is None) == across]
        if pairs:
            many = (
                "1 pair of pictures is"
                if len(pairs) == 1
                else f"{len(pairs)} pairs of pictures are"
            )
            warnings.warn(
                f"{many} the same, pixel by pixel, and {what}: {some(pairs)}.",
                stacklevel=3,
            )


def report_darkness(brightest):
    """A warning where numbers of 12 bits, say, stand in files of 16: they become nearly black."""
    if 0 < brightest < DARK:
        warnings.warn(
            f"The brightest number of the pictures of 16 bits is {brightest} of 65535, so they are "
            "nearly black as bytes. If they hold fewer bits, 12 say, multiply them by 16 and save "
            "them anew.",
            stacklevel=3,
        )


def class_of(files):
    """The class that some files have in common, or None."""
    classes = {file.rpartition("/")[0] for file in files}
    return classes.pop() if len(classes) == 1 else None


# ------------------------------------------------------------------ decoding


def read(file, size, color, frame):
    """One picture as uint8 ``(height, width, channels)``, and its brightest number of 16 bits."""
    import PIL.Image
    from PIL import ImageOps

    with PIL.Image.open(file) as image:
        image.draft(None, (2 * max(size),) * 2)  # large JPEGs: decode no more than is needed
        image, brightest = in_bytes(ImageOps.exif_transpose(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(paper, image)
    image = image.convert("RGB" if color else "L")
    method, (height, width) = PIL.Image.Resampling.BICUBIC, size
    if frame == "crop":
        image = ImageOps.fit(image, (width, height), method)
    else:
        image = ImageOps.pad(image, (width, height), method, edge(np.asarray(image)))
    return np.asarray(image).reshape(height, width, -1), brightest


def in_bytes(image):
    """A picture whose numbers are bytes; those of 16 bits are scaled, and the highest is told."""
    import PIL.Image

    if image.mode in REFUSED:
        raise ValueError(REFUSED[image.mode])
    if not image.mode.startswith("I;16"):
        return image, 0
    values = np.asarray(image).astype(np.uint32)
    scaled = PIL.Image.fromarray(((values + 128) // 257).astype(np.uint8))
    return scaled, int(values.max())


def edge(values):
    """The median colour along the edge of a picture, as PIL takes colours."""
    sides = [values[0], values[-1], values[:, 0], values[:, -1]]
    colour = np.rint(np.median(np.concatenate(sides), axis=0)).astype(int)
    return tuple(colour.tolist()) if colour.ndim else int(colour)


def reason(error):
    """What an error of PIL says, in a line, without the file's name or a full stop."""
    text = "cannot identify image file" if "cannot identify" in str(error) else str(error)
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")


def decode_into(file, root, files, options):
    """Write the pictures' bytes one behind the other, and say what there is to be told of them."""

    def attempt(name):
        try:
            return read(root / name, *options)
        except Exception as error:  # PIL has many kinds
            return reason(error)

    broken, twins, seen, brightest = {}, [], {}, 0
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), CHUNK):
            names = files[start : start + CHUNK]
            for name, result in zip(names, pool.map(attempt, names), strict=True):
                if isinstance(result, str):
                    broken[name] = result
                    continue
                content = result[0].tobytes()
                file.write(content)
                brightest = max(brightest, result[1])
                key = hashlib.blake2b(content, digest_size=16).digest()
                if seen.setdefault(key, name) != name:
                    twins.append([seen[key], name])
    return {"broken": broken, "twins": twins, "brightest": brightest}


# ------------------------------------------------------------------ the cache


def decoded(root, files, options):
    """The pictures, from the cache or put there; with what ``decode_into`` told."""
    place = f"folder-{digest(root, files, options)}"
    try:
        place = cache_folder() / place
        return opened(place, len(files), options)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, or damaged
    try:
        make(place, root, files, options)
        return opened(place, len(files), options)
    except OSError as error:
        warnings.warn(
            f"{place} could not be written ({error}); the pictures are decoded anew each time, "
            "and held in memory. Set KERAS_HOME to a folder that can be written.",
            stacklevel=3,
        )
    file = io.BytesIO()
    about = decode_into(file, root, files, options)
    return about, np.frombuffer(file.getvalue(), np.uint8).reshape(-1, *shape_of(options))


def shape_of(options):
    (height, width), color, _ = options
    return height, width, 3 if color else 1


def digest(root, files, options):
    """A name for all that decides the pixels: the files as they are now, how they are read."""
    import PIL

    known = [(file, *state(root / file)) for file in files]
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return hashlib.sha256(repr((known, options, PIL.__version__, code)).encode()).hexdigest()[:16]


def state(path):
    """What changes when a file does; nothing for a link that leads nowhere."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns


def opened(place, count, options):
    """What ``make`` wrote; in memory unless it is large."""
    about = json.loads((place / "about.json").read_text(encoding="utf-8"))
    shape = count - len(about["broken"]), *shape_of(options)
    path, size = place / "pictures.bin", int(np.prod(shape, dtype=np.int64))
    if path.stat().st_size != size or sorted(about) != ["brightest", "broken", "twins"]:
        raise ValueError(f"{path} does not hold {shape}.")
    if size > LARGE:
        return about, np.memmap(path, np.uint8, "r", shape=shape)
    return about, np.fromfile(path, np.uint8).reshape(shape)


def make(place, root, files, options):
    """Decode into a folder of the cache, which is there whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place)
    new = place.with_name(f"{place.name}.{uuid.uuid4().hex}.new")
    new.mkdir()
    try:
        with (new / "pictures.bin").open("wb") as file:
            about = decode_into(file, root, files, options)
        (new / "about.json").write_text(json.dumps(about), encoding="utf-8")
        if place.is_dir():  # damaged, or another writer's
            shutil.rmtree(place)
        os.replace(new, place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def taken(x, rows):
    """Some rows of an array; of one on disk they are copied on disk, and not into memory."""
    if not isinstance(x, np.memmap):
        return x[rows]
    place = cache_folder()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place) as file:  # it goes when nothing uses it any more
        part = np.memmap(file, x.dtype, "w+", shape=(len(rows), *x.shape[1:]))
    for start in range(0, len(rows), CHUNK):
        part[start : start + CHUNK] = x[rows[start : start + CHUNK]]
    return part
