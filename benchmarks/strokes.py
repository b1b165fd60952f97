"""Characters as strokes: the picture of a drawing, and the strokes of a picture.

A stroke is an array of points ``(n, 2)``, x to the right and y down, in any unit; a drawing is a
list of strokes.  ``book/_static/draw/network.js`` makes the same pictures in the browser.
"""

import numpy as np
import PIL.Image
import PIL.ImageDraw
from scipy.ndimage import distance_transform_edt

from mlutils.data.plumbing import rendering

SIZE = 28  # pixels of a picture's side
BOX = 20  # of a drawing's longer side
LINE = 2  # width of the line
THICKEST, MOST_STROKES = 8, 12  # of a print that is a line drawing: half its line, in pixels
DOT = 0.1  # what is smaller than this part of the pad is not enlarged further

# ---------------------------------------------------------------- strokes to pictures


def segments(strokes):
    """The straight pieces of a drawing, ``(n, 2)`` ends each; a point alone is a piece too."""
    strokes = [np.asarray(stroke, float) for stroke in strokes]
    first = [stroke[:-1] if len(stroke) > 1 else stroke for stroke in strokes]
    last = [stroke[1:] if len(stroke) > 1 else stroke for stroke in strokes]
    return np.concatenate(first), np.concatenate(last)


def picture(strokes, pad=1.0):
    """A drawing as the network sees it.

    The box around all points is brought to the middle of 28 x 28 pixels, its longer side to 20 of
    them.  (What is smaller than a tenth of the pad, such as a dot, is enlarged as if it had that
    size.)  The line is 2 pixels wide and has round ends: a pixel whose middle is d from it is
    ``1.5 - d`` black, but at most 1 and at least 0.

    Args:
        strokes: a drawing, with a point at least.
        pad: the side of the pad it was drawn on.

    Returns:
        float32 ``(28, 28, 1)``, ink 1, paper 0.
    """
    start, end = segments(strokes)
    low, high = (f(np.concatenate([start, end]), axis=0) for f in (np.min, np.max))
    scale = BOX / max(*(high - low), DOT * pad)
    start, end = ((ends - (low + high) / 2) * scale + SIZE / 2 for ends in (start, end))
    middles = np.arange(SIZE) + 0.5
    x, y = middles[np.newaxis, :, np.newaxis], middles[:, np.newaxis, np.newaxis]
    dx, dy = (end - start).T
    along = (x - start[:, 0]) * dx + (y - start[:, 1]) * dy
    along = np.clip(along / np.maximum(dx**2 + dy**2, 1e-12), 0, 1)
    square = (x - start[:, 0] - along * dx) ** 2 + (y - start[:, 1] - along * dy) ** 2
    distance = np.sqrt(square.min(axis=2))
    return np.clip(LINE / 2 + 0.5 - distance, 0, 1)[..., np.newaxis].astype(np.float32)


# ---------------------------------------------------------------- pictures to strokes

# Where a pixel's eight neighbours are, rows and columns, from above and on to the right.
AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def thinned(ink):
    """Lines of one pixel's width (Zhang and Suen, 1984), bool ``(n, height, width)`` to the same.

    A pixel of the rim goes if the ink around it is one piece; those of the south-east and those of
    the north-west in turn, until none does.
    """
    ink = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    before = -1
    while before != ink.sum():
        before = ink.sum()
        for turn in (0, 1):
            around = [np.roll(ink, (-row, -column), axis=(1, 2)) for row, column in AROUND]
            n, e, s, w = around[::2]
            count = np.sum(around, axis=0)
            pieces = np.sum(
                [~a & b for a, b in zip(around, around[1:] + around[:1], strict=True)], axis=0
            )
            rim = ~(e & s & (n | w)) if turn == 0 else ~(n & w & (e | s))
            ink = ink & ~((count >= 2) & (count <= 6) & (pieces == 1) & rim)
    return ink[:, 1:-1, 1:-1]


def traced(thin):
    """The strokes of lines one pixel wide, bool ``(height, width)``: a drawing, in pixels.

    A stroke starts at a loose end, if there is one, goes on to the neighbour that turns it least,
    and ends where all are drawn already; there it is joined to what it touches.
    """
    left = {(int(row), int(column)) for row, column in np.argwhere(thin)}
    everything, strokes = set(left), []
    while left:
        start = min(left, key=lambda pixel: (len(neighbours(pixel, left)), pixel))
        stroke = [start, *walk(start, left)]
        for _ in range(2):  # each end
            ahead = neighbours(stroke[-1], everything - left - set(stroke))
            stroke = [*stroke, *ahead[:1]][::-1]
        strokes.append(stroke)
    return [np.array(stroke)[:, ::-1] + 0.5 for stroke in strokes]


def neighbours(pixel, among):
    """Those of a pixel's eight neighbours, the straight ones first."""
    row, column = pixel
    near = [(row + down, column + right) for down, right in AROUND[::2] + AROUND[1::2]]
    return [other for other in near if other in among]


def walk(pixel, left):
    """The pixels after one; takes them and it out of those that are left."""
    path, heading = [], np.zeros(2)
    left.discard(pixel)
    while ahead := neighbours(pixel, left):
        steps = np.array(ahead) - pixel
        ways = steps / np.linalg.norm(steps, axis=1, keepdims=True)
        before, pixel = pixel, ahead[int(np.argmax(ways @ heading))]
        heading = 0.7 * heading + ways[ahead.index(pixel)]
        left -= {pixel, *corners(before, pixel)}
        path.append(pixel)
    return path


def corners(pixel, other):
    """Of two neighbours that touch at a corner, the two pixels that touch both; else themselves."""
    return {(pixel[0], other[1]), (other[0], pixel[1])}


def simplified(stroke, tolerance):
    """The stroke with as few of its points as keep it this near (Douglas and Peucker, 1973)."""
    start, end = stroke[0], stroke[-1]
    across = np.array([start[1] - end[1], end[0] - start[0]])
    length = np.linalg.norm(across)
    offset = stroke - start
    away = abs(offset @ across) / length if length else np.linalg.norm(offset, axis=1)
    far = int(np.argmax(away))
    if away[far] <= tolerance:
        return stroke[[0, -1]] if len(stroke) > 1 else stroke
    parts = simplified(stroke[: far + 1], tolerance), simplified(stroke[far:], tolerance)
    return np.concatenate([parts[0][:-1], parts[1]])


def of_print(character, face):
    """The strokes of a character in a font, in pixels, or None if it is no line drawing.

    Areas, whose middle is farther from the paper than half of a bold line, are none; nor is what
    falls into very many strokes.
    """
    left, top, right, bottom = rendering.font(face).getbbox(character)
    page = PIL.Image.new("L", (right - left + 2, bottom - top + 2))
    draw = PIL.ImageDraw.Draw(page)
    draw.text((1 - left, 1 - top), character, fill=255, font=rendering.font(face))
    ink = np.asarray(page) > 127
    if not ink.any() or distance_transform_edt(ink).max() > THICKEST:
        return None
    strokes = [simplified(stroke, 1.0) for stroke in traced(thinned(ink[np.newaxis])[0])]
    return strokes if len(strokes) <= MOST_STROKES else None


# ---------------------------------------------------------------- another hand


def redrawn(strokes, random, strength=1.0):
    """A drawing once more, as if by another hand.

    The whole is turned, slanted and stretched, each stroke a little by itself, and all is bent by
    three long waves.

    Args:
        strokes: a drawing, in pixels.
        random: a ``numpy.random.Generator``.
        strength: 1 is how the network was trained.

    Returns:
        A drawing, in units of half the longer side of the one given.
    """
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    half = max((high - low).max() / 2, 1)  # a dot stays one
    strokes = [(dense(stroke, half / 6) - (low + high) / 2) / half for stroke in strokes]
    whole = matrix(random, 0.15 * strength, 0.2 * strength, 0.2 * strength)
    directions, phases = random.normal(0, 1.5, (3, 2)), random.uniform(0, 2 * np.pi, 3)
    heights = random.normal(0, 0.09 * strength, (3, 2))
    found = []
    for stroke in strokes:
        middle = stroke.mean(axis=0)
        own = matrix(random, 0.07 * strength, 0.05 * strength, 0.1 * strength)
        stroke = (stroke - middle) @ own + middle + random.normal(0, 0.05 * strength, 2)
        waves = np.sin(stroke @ directions.T + phases) @ heights
        found.append((stroke + waves) @ whole)
    return found


def matrix(random, rotation, slant, stretch):
    """A random turn, slant and stretch with these standard deviations."""
    angle, lean, (wide, high) = (
        random.normal(0, rotation),
        random.normal(0, slant),
        random.normal(0, stretch, 2),
    )
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.array([[1, 0], [lean, 1]]) @ np.diag(np.exp([wide, high])) @ turn


def dense(stroke, step):
    """The stroke with points on its straight pieces, at most this far apart."""
    if len(stroke) < 2:
        return stroke
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(stroke, axis=0), axis=1))]
    new = np.linspace(0, along[-1], int(along[-1] / step) + 2)
    new = np.union1d(along, new)
    return np.stack([np.interp(new, along, stroke[:, i]) for i in (0, 1)], axis=1)
