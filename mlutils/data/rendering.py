"""Characters as pictures: printed from the DejaVu fonts, then distorted as if drawn by hand."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from matplotlib.ft2font import FT2Font

# The faces of the DejaVu family that matplotlib ships; the first ones know the most characters.
FACES = (
    "DejaVuSans",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSans-Bold",
    "DejaVuSerif-Bold",
    "DejaVuSansMono-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif-Italic",
    "DejaVuSansMono-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif-BoldItalic",
    "DejaVuSansMono-BoldOblique",
)
SIZE = 28  # pixels of a picture's side
PRINT = 2 * SIZE  # of a print, which has twice the resolution
INK = 2 * 20  # of a print's longer side; the rest is room for the distortion
KNOTS = 5  # per side of the grid whose random shifts bend a picture
CHUNK = 2000  # pictures distorted at once, to keep memory small


def font_file(face):
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"


@functools.cache
def coverage(face):
    """The code points that a face can draw."""
    return frozenset(FT2Font(str(font_file(face))).get_charmap())


def faces_of(character):
    """The faces that can draw a character, in the order of ``FACES``."""
    return [face for face in FACES if ord(character) in coverage(face)]


@functools.cache
def font(face):
    layout = PIL.ImageFont.Layout.BASIC
    return PIL.ImageFont.truetype(str(font_file(face)), 96, layout_engine=layout)


def printed(character, face):
    """A character as the font has it: centred, its longer side ``INK`` pixels.

    Returns:
        uint8 array ``(PRINT, PRINT)``, ink 255; None if the character leaves no ink.
    """
    left, top, right, bottom = font(face).getbbox(character)
    picture = PIL.Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    PIL.ImageDraw.Draw(picture).text((-left, -top), character, fill=255, font=font(face))
    box = picture.getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    width, height = (max(1, round(side * INK / max(picture.size))) for side in picture.size)
    picture = picture.resize((width, height), PIL.Image.Resampling.BOX)
    paper = PIL.Image.new("L", (PRINT, PRINT))
    paper.paste(picture, ((PRINT - width) // 2, (PRINT - height) // 2))
    return np.asarray(paper)


def affine(rotation=0.0, slant=0.0, aspect=0.0, scale=0.0):
    """The map from a drawing's coordinates to its print's, ``(..., 2, 2)``, rows x and y.

    Args:
        rotation: in radians, clockwise in the drawing.
        slant: horizontal shift per unit of height, a tangent.
        aspect: logarithm of width over height.
        scale: logarithm of the size.
    """
    rotation, slant, aspect, scale = np.broadcast_arrays(rotation, slant, aspect, scale)
    cos, sin = np.cos(rotation), np.sin(rotation)
    one, zero = np.ones_like(cos), np.zeros_like(cos)
    stretch = _matrix(np.exp(-scale - aspect / 2), zero, zero, np.exp(-scale + aspect / 2))
    return stretch @ _matrix(one, slant, zero, one) @ _matrix(cos, sin, -sin, cos)


def _matrix(a, b, c, d):
    return np.stack([np.stack([a, b], -1), np.stack([c, d], -1)], -2)


def distorted(prints, linear, shift, bend):
    """Prints seen through an affine and an elastic distortion.

    The elastic part, as Simard, Steinkraus & Platt (2003) proposed for handwriting, moves
    every pixel by a smooth random field: here by interpolation between ``KNOTS`` x
    ``KNOTS`` random shifts.

    Args:
        prints: uint8 ``(n, PRINT, PRINT)``.
        linear: ``(n, 2, 2)``, as ``affine`` gives it.
        shift: ``(n, 2)``, where in the print to look, in units of half a picture's side, x first:
            the ink moves the other way, to the left and up.
        bend: ``(n, 2, KNOTS, KNOTS)``, the shifts at the knots, in the same units.

    Returns:
        uint8 ``(n, SIZE, SIZE)``.
    """
    slices = [slice(i, i + CHUNK) for i in range(0, len(prints), CHUNK)]
    parts = [_distorted(prints[s], linear[s], shift[s], bend[s]) for s in slices]
    return np.concatenate(parts)


def _distorted(prints, linear, shift, bend):
    n = len(prints)
    # A pixel of the drawing is four of the print: average them first, or thin strokes flicker.
    soft = np.zeros((n, PRINT + 1, PRINT + 1), np.float32)
    soft[:, :-1, :-1] = prints
    soft = (soft[:, :-1, :-1] + soft[:, 1:, :-1] + soft[:, :-1, 1:] + soft[:, 1:, 1:]) / 4

    centres = (2 * np.arange(SIZE) + 1) / SIZE - 1
    grid = np.stack(np.meshgrid(centres, centres), -1)  # (SIZE, SIZE, 2), x first
    weights = spline_weights()
    field = weights @ bend @ weights.T  # (n, 2, SIZE, SIZE)
    source = np.einsum("nij,yxj->niyx", linear, grid) + shift[:, :, None, None] + field
    # From -1..1 to indices into soft, whose sample i lies between the print's pixels i and i + 1.
    source = (source + 1) * (PRINT / 2) - 1
    corner = np.floor(source)
    right, down = (source - corner).astype(np.float32).transpose(1, 0, 2, 3)
    column, row = np.clip(corner.astype(np.int64), -1, PRINT - 1).transpose(1, 0, 2, 3)
    paper = np.pad(soft, ((0, 0), (1, 1), (1, 1)))  # white around, index -1 becomes 0
    which = np.arange(n)[:, None, None]
    top = (
        paper[which, row + 1, column + 1] * (1 - right) + paper[which, row + 1, column + 2] * right
    )
    low = (
        paper[which, row + 2, column + 1] * (1 - right) + paper[which, row + 2, column + 2] * right
    )
    return np.rint(top * (1 - down) + low * down).astype(np.uint8)


@functools.cache
def spline_weights():
    """Cubic B-spline weights ``(SIZE, KNOTS)`` of the knots at each pixel; each row sums to one."""
    distance = np.linspace(0, KNOTS - 1, SIZE)[:, None] - np.arange(KNOTS)
    near = np.abs(distance)
    weights = np.where(near < 1, 2 / 3 - near**2 + near**3 / 2, np.maximum(2 - near, 0) ** 3 / 6)
    return weights / weights.sum(axis=1, keepdims=True)
