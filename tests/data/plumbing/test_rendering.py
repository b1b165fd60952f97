import math
from pathlib import Path

import numpy as np
import pytest

from mlutils.data.plumbing import rendering
from mlutils.data.plumbing.rendering import FACES, INK, KNOTS, PRINT, SIZE, affine, distorted

CHARACTERS = ("A", "g", "|", "—", ".", "Щ", "ᐁ", "☃", "ꓤ")
PIXEL = 2 / SIZE  # in units of half a picture's side


def drawing(picture, shift=(0.0, 0.0), bend=None, **manner):
    """One print, distorted: ``(SIZE, SIZE)``, float."""
    bend = np.zeros((2, KNOTS, KNOTS)) if bend is None else bend
    arguments = (picture, affine(**manner), np.asarray(shift), bend)
    return distorted(*(a[np.newaxis] for a in arguments))[0].astype(float)


def reduced(picture):
    """Each pixel the mean of 2 x 2 of the print's."""
    return picture.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))


def block(rows, columns):
    """A print with a filled rectangle."""
    picture = np.zeros((PRINT, PRINT), np.uint8)
    picture[slice(*rows), slice(*columns)] = 255
    return picture


def centroid(picture):
    """Where the ink is, x and y from -1 to 1."""
    centres = (2 * np.arange(SIZE) + 1) / SIZE - 1
    total = picture.sum()
    return np.array([picture.sum(axis=0) @ centres, picture.sum(axis=1) @ centres]) / total


@pytest.fixture(scope="module")
def letter():
    """An F has no symmetry: every wrong direction shows."""
    return rendering.printed("F", "DejaVuSans")


def test_faces_come_in_order_and_only_those_that_know_the_character():
    assert rendering.faces_of("A") == list(FACES)
    ogham = rendering.faces_of("ᚁ")
    assert ogham[0] == "DejaVuSans" and set(ogham) < set(FACES)
    assert ogham == [face for face in FACES if face in ogham]
    assert rendering.faces_of("一") == rendering.faces_of("\U0010ffff") == []


@pytest.mark.parametrize("character", CHARACTERS)
def test_a_print_is_centred_of_one_size_and_leaves_a_margin(character):
    """Its longer side has 40 of 56 pixels, one less where the outermost are too pale to count.

    Without distortion a pixel is the mean of four; its own frame changes nothing.
    """
    for face in rendering.faces_of(character):
        picture = rendering.printed(character, face)
        assert picture.dtype == np.uint8 and picture.shape == (PRINT, PRINT)
        rows, columns = np.nonzero(picture)
        assert INK - 1 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= INK
        for where in (rows, columns):
            assert abs(where.min() + where.max() - (PRINT - 1)) <= 1
            assert where.min() >= (PRINT - INK) // 2 and where.max() < (PRINT + INK) // 2
        np.testing.assert_allclose(drawing(picture), reduced(picture), atol=0.51)
        np.testing.assert_array_equal(rendering.printed(character, face, character), picture)


def test_shift_moves_what_is_looked_at(letter):
    """The map goes from the drawing to the print: a shift to the right looks further right,
    so that the ink moves to the left; one downwards moves it up."""
    still = drawing(letter)
    for axis, shift in ((1, (PIXEL, 0)), (0, (0, PIXEL))):
        np.testing.assert_allclose(drawing(letter, shift), np.roll(still, -1, axis), atol=1)
        back = drawing(letter, -np.array(shift))
        np.testing.assert_allclose(back, np.roll(still, 1, axis), atol=1)
    # By half a pixel: the mean of the print's middle two columns of four.
    soft = reduced(np.roll(letter, -1, 1))
    np.testing.assert_allclose(drawing(letter, (PIXEL / 2, 0)), soft, atol=1)
    # Beside the paper all is white.
    for shift in ((3.03, 0), (-3.03, 0), (0, 3.03), (0, -3.03)):
        assert not drawing(letter, shift).any()


def test_rotation_is_clockwise(letter):
    still = drawing(letter)
    np.testing.assert_allclose(drawing(letter, rotation=math.pi / 2), np.rot90(still, -1), atol=1)
    np.testing.assert_allclose(drawing(letter, rotation=-math.pi / 2), np.rot90(still), atol=1)
    np.testing.assert_allclose(drawing(letter, rotation=math.pi), still[::-1, ::-1], atol=1)
    # A spot at three o'clock goes down: from (r, 0) to (r cos, r sin), y downwards.
    spot = block((26, 30), (44, 48))
    radius = centroid(drawing(spot))[0]
    for angle in (0.2, -0.2):
        expected = radius * np.array([math.cos(angle), math.sin(angle)])
        np.testing.assert_allclose(centroid(drawing(spot, rotation=angle)), expected, atol=0.005)


def test_slant_shifts_by_height():
    """A vertical bar with slant .5 leans to the right: at height h it is h/2 off the middle."""
    bar = block((10, 46), (26, 30))
    for slant in (0.5, -0.3):
        picture = drawing(bar, slant=slant)
        for row in range(6, 22):
            alone = np.zeros_like(picture)
            alone[row] = picture[row]
            x, y = centroid(alone)
            assert x == pytest.approx(-slant * y, abs=0.01)
    # What lies in one row stays in it.
    np.testing.assert_allclose(
        drawing(bar, slant=0.5).sum(axis=1), drawing(bar).sum(axis=1), rtol=0.01
    )


def extent(**manner):
    """Width and height in pixels, by its ink, of a filled square of 10 pixels, drawn like this.

    Where its sides lie between two pixels makes a difference: the mean over all such places.
    """
    square, middle = block((18, 38), (18, 38)), slice(SIZE // 2 - 1, SIZE // 2 + 1)
    step = PIXEL * affine(**manner).diagonal()
    pictures = [drawing(square, step * part, **manner) for part in np.arange(-4, 4) / 8]
    return np.mean([(p[middle].sum() / 510, p[:, middle].sum() / 510) for p in pictures], axis=0)


def test_aspect_and_scale_are_the_logarithms_of_width_over_height_and_of_the_size():
    """A square of 10 pixels and aspect log 2: 10 sqrt 2 wide, 10 / sqrt 2 high."""
    np.testing.assert_allclose(extent(), 10, atol=0.02)
    for ratio in (2, 0.7):
        expected = 10 * math.sqrt(ratio), 10 / math.sqrt(ratio)
        np.testing.assert_allclose(extent(aspect=math.log(ratio)), expected, atol=0.02)
    for factor in (1.5, 0.6):
        np.testing.assert_allclose(extent(scale=math.log(factor)), 10 * factor, atol=0.02)


def test_affine_broadcasts():
    maps = affine(rotation=np.zeros((3, 1)), slant=np.arange(4.0), scale=math.log(2))
    assert maps.shape == (3, 4, 2, 2)
    np.testing.assert_allclose(maps[1, 3], [[0.5, 1.5], [0, 0.5]], rtol=1e-12)
    np.testing.assert_array_equal(affine(), np.eye(2))


def test_spline_weights_of_a_pixel_sum_to_one():
    weights = rendering.spline_weights()
    assert weights.shape == (SIZE, KNOTS) and np.min(weights) >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)
    # On an outermost knot, of weights 2/3 and 1/6 (and 1/6 that is not there): 4/5 and 1/5.
    np.testing.assert_allclose(weights[0], [0.8, 0.2, 0, 0, 0], atol=1e-12)


def test_equal_bends_are_a_shift(letter):
    shift = np.array([0.13, -0.07])
    bend = np.broadcast_to(shift[:, None, None], (2, KNOTS, KNOTS))
    np.testing.assert_allclose(drawing(letter, bend=bend), drawing(letter, shift), atol=1)


def test_a_knot_bends_what_is_near_it_only(letter):
    """Knots are counted by row, then column; a spline reaches two knots far, half of the paper."""
    square, half = block((10, 46), (10, 46)), SIZE // 2
    for row, column in ((0, 0), (0, KNOTS - 1), (KNOTS - 1, 0), (KNOTS - 1, KNOTS - 1)):
        bend = np.zeros((2, KNOTS, KNOTS))
        bend[:, row, column] = 0.5
        moved = drawing(square, bend=bend) != drawing(square)
        quarter = (
            (slice(half) if row == 0 else slice(half, None)),
            (slice(half) if column == 0 else slice(half, None)),
        )
        assert moved[quarter].any()
        moved[quarter] = False
        assert not moved.any()
    # The first of a bend's two fields is x: only along the rows does it move.
    bend = np.zeros((2, KNOTS, KNOTS))
    bend[0] = 2 * PIXEL
    expected = np.roll(drawing(letter), -2, axis=1)
    np.testing.assert_allclose(drawing(letter, bend=bend), expected, atol=1)


def test_each_picture_is_distorted_by_its_own(monkeypatch):
    """Whether alone, or among others, or in several chunks."""
    random = np.random.default_rng(0)
    prints = np.stack([rendering.printed(c, "DejaVuSans") for c in "ABCFG"])
    manner = {"rotation": random.normal(size=5), "slant": random.normal(size=5)}
    shift, bend = random.normal(0, 0.1, (5, 2)), random.normal(0, 0.1, (5, 2, KNOTS, KNOTS))
    together = distorted(prints, affine(**manner), shift, bend)
    assert together.dtype == np.uint8 and together.shape == (5, SIZE, SIZE)
    for i, picture in enumerate(prints):
        alone = drawing(picture, shift[i], bend[i], **{k: v[i] for k, v in manner.items()})
        np.testing.assert_array_equal(together[i], alone)
    monkeypatch.setattr(rendering, "CHUNK", 2)
    np.testing.assert_array_equal(distorted(prints, affine(**manner), shift, bend), together)


# ---------------------------------------------------------------- frame, jitter, recipe


@pytest.mark.parametrize("face", FACES)
def test_in_a_frame_ink_lies_where_it_stands_in_the_line(face):
    """A stop is at the foot of an M and a quotation mark at its head; alone, both are centred."""
    stop, quote = ({f: rendering.printed(c, face, f) for f in (None, "M")} for c in (".", '"'))
    for picture in (stop[None], quote[None]):
        assert abs(centroid(reduced(picture))[1]) < 0.1
    assert centroid(reduced(quote["M"]))[1] < -0.25 < 0.25 < centroid(reduced(stop["M"]))[1]
    # The frame's ink is as large as a print's: that of the stop is smaller than by itself.
    assert 0 < stop["M"].sum() < stop[None].sum() / 4


def test_ink_outside_the_frame_is_cut_off():
    """Of an M one sees what stands in the box of a hyphen, at half its height."""
    framed = rendering.printed("M", "DejaVuSans", "-")
    rows, columns = np.nonzero(rendering.printed("-", "DejaVuSans"))
    inside = np.zeros((PRINT, PRINT), bool)
    inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    assert framed[inside].any() and not framed[~inside].any()


def test_a_frame_needs_ink_and_its_character_none():
    assert rendering.printed(" ", "DejaVuSans") is None
    assert rendering.printed("A", "DejaVuSans", frame=" ") is None
    white = rendering.printed(" ", "DejaVuSans", frame="A")
    assert white.shape == (PRINT, PRINT) and white.dtype == np.uint8 and not white.any()


def drawings(characters="AB", seed=0, **options):
    return rendering.drawn(characters, np.random.default_rng(seed), **options)


def test_jitter_1_is_the_default_and_no_frame_is():
    np.testing.assert_array_equal(drawings(), drawings(frame=None, jitter=1.0))
    assert np.mean(drawings() != drawings(jitter=0.5)) > 0.1


@pytest.mark.parametrize("frame", [None, "M"])
def test_without_jitter_a_drawing_is_a_print_in_one_face_per_drawer(frame):
    """The n-th drawings of b and d are of one face; each face occurs, in 80 drawers."""
    prints = {f: [reduced(rendering.printed(c, f, frame)) for c in "bd"] for f in FACES}
    faces = set()
    for seed in range(4):
        for pair in drawings("bd", seed, frame=frame, jitter=0).swapaxes(0, 1):
            fits = {f for f in FACES if np.allclose(pair, prints[f], rtol=0, atol=0.51)}
            assert fits, "no face has both"
            faces |= fits
    assert faces == set(FACES)


def distortions(monkeypatch, jitter):
    """What ``drawn`` gives to ``affine`` and ``distorted``: a list of arrays."""
    given = []

    def spy_affine(**manner):
        given.extend(manner[name] for name in sorted(manner))
        return affine(**manner)

    def spy_distorted(pictures, linear, shift, bend):
        given.extend([shift, bend])
        return distorted(pictures, linear, shift, bend)

    with monkeypatch.context() as patch:
        patch.setattr(rendering, "affine", spy_affine)
        patch.setattr(rendering, "distorted", spy_distorted)
        drawings(jitter=jitter)
    return given


@pytest.mark.parametrize("jitter", [0, 0.5, 2])
def test_all_distortions_are_proportional_to_jitter(monkeypatch, jitter):
    """With the same seed: rotation, slant, aspect, scale, shift and bend are each multiplied."""
    once, found = (distortions(monkeypatch, strength) for strength in (1, jitter))
    assert len(once) == len(found) == 6 and all(np.std(values) > 0 for values in once)
    for expected, values in zip(once, found, strict=True):
        np.testing.assert_allclose(values, jitter * expected, rtol=1e-12)


def test_a_recipe_changes_with_all_that_draws(tmp_path, monkeypatch):
    """A new version of Matplotlib may bring other fonts, one of numpy other random numbers.

    It is short, comes again, and says nothing of the file's name, only of what is in it.
    """
    file = tmp_path / "characters.py"
    file.write_text("some characters")
    recipe = rendering.recipe(file)
    assert len(recipe) == 12 and set(recipe) <= set("0123456789abcdef")
    file = file.rename(file.with_name("other.py"))
    assert rendering.recipe(str(file)) == recipe
    changed = tmp_path / "rendering.py"
    changed.write_bytes(Path(rendering.__file__).read_bytes() + b"# changed")
    for module, name, value in (
        (rendering, "__file__", str(changed)),
        (rendering.matplotlib, "__version__", "0.0.0"),
        (rendering.np, "__version__", "0.0.0"),
        (rendering.PIL, "__version__", "0.0.0"),
        (rendering.unicodedata, "unidata_version", "0.0.0"),
        (rendering.PIL.features, "version", lambda name: f"another {name}"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            assert rendering.recipe(file) != recipe, name
        assert rendering.recipe(file) == recipe
    file.write_text("other characters")
    assert rendering.recipe(file) != recipe
