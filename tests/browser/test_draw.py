"""The page on which one draws: the numbers are Keras's, and it works by mouse, finger and keys."""

import itertools

import keras
import numpy as np
import pytest

from benchmarks import strokes
from mlutils.data import glyphs
from tests.browser.conftest import BOOK
from tools import draw

# A cross, a circle, a zigzag, a square and two lines, on a pad of 1 x 1.
TURN = np.linspace(0, 2 * np.pi, 20)
SIGNS = [
    [[(0.2, 0.2), (0.8, 0.8)], [(0.8, 0.2), (0.2, 0.8)]],
    [np.stack([0.5 + 0.3 * np.cos(TURN), 0.5 + 0.3 * np.sin(TURN)], axis=1)],
    [[(0.1, 0.8), (0.3, 0.2), (0.5, 0.8), (0.7, 0.2), (0.9, 0.8)]],
    [[(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8), (0.2, 0.2)]],
    [[(0.2, 0.4), (0.8, 0.4)], [(0.2, 0.6), (0.8, 0.6)]],
]


@pytest.fixture
def opened(site, browser):
    """A function that opens the page; errors and requests to other hosts fail the test."""
    faults, contexts = [], []

    def open_page(address=f"{site}/book/draw.html", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(request.url))
        page.on(
            "request", lambda r: r.url.startswith((site, "file:", "data:")) or faults.append(r.url)
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def drawings():
    """A hundred: letters by other hands, and what is hardest to draw alike."""
    random = np.random.default_rng(0)
    odd = [
        [[(3.0, 4.0)]],  # a dot
        [[(3.0, 4.0)], [(3.5, 4.0), (3.5, 4.0)]],  # two, near each other
        [[(0.0, 50.0), (100.0, 50.0)]],
        [[(0.1, 0.2), (0.15, 0.2), (0.15, 0.3)]],  # tiny
        [random.uniform(0, 100, (200, 2))],  # a scribble
    ]
    names = random.choice(glyphs("test").names, 95)
    prints = [strokes.of_print(name, "DejaVuSans") or odd[-1] for name in names]
    drawn = [draw.placed(strokes.redrawn(one, random)) for one in prints]
    return drawn + [[np.asarray(stroke).tolist() for stroke in drawing] for drawing in odd]


@pytest.fixture(scope="module")
def pictures(drawings):
    return np.stack([strokes.picture(drawing, draw.PAD) for drawing in drawings])


@pytest.fixture(scope="module")
def learner():
    return keras.saving.load_model(draw.LEARNER)


# ---------------------------------------------------------------- the numbers


def test_pictures_are_those_of_python(opened, drawings, pictures):
    code = "(drawings) => drawings.map((one) => Array.from(pictureOf(one, PAD)))"
    found = np.array(opened().evaluate(code, drawings))
    assert len(found) == 100 and 0.05 < found.mean() < 0.3
    np.testing.assert_allclose(found, pictures.reshape(100, -1), atol=1e-6)


def test_embeddings_are_keras_s(opened, pictures, learner):
    code = "(pictures) => pictures.map((one) => embeddingOf(Float32Array.from(one)))"
    found = opened().evaluate(code, pictures.reshape(100, -1).tolist())
    expected = learner.encoder(pictures).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_answers_are_the_learner_s(opened, pictures, learner):
    support, query = pictures[:6], pictures[6:16]
    logits = learner.adapt(support, np.arange(6))(query).numpy()
    z, of_query = (learner.encoder(x).numpy().tolist() for x in (support, query))
    code = "([some, others]) => some.map((one) => compared(one, others))"
    found = opened().evaluate(code, [of_query, z])
    np.testing.assert_allclose([one["squares"] for one in found], -logits, rtol=1e-3, atol=1e-3)
    shares = keras.ops.softmax(logits).numpy()
    np.testing.assert_allclose([one["shares"] for one in found], shares, atol=1e-4)


# ---------------------------------------------------------------- drawing


def by_mouse(page, pad, drawing):
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    for stroke in drawing:
        points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=2)
        page.mouse.up()


def by_finger(page, pad, drawing):
    pad.scroll_into_view_if_needed()
    box, session = pad.bounding_box(), page.context.new_cdp_session(page)

    def touch(kind, *points):
        places = [
            {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y} for x, y in points
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    for stroke in drawing:
        touch("touchStart", stroke[0])
        for start, end in itertools.pairwise(stroke):
            for share in (0.25, 0.5, 0.75, 1.0):
                touch("touchMove", np.add(start, np.multiply(share, np.subtract(end, start))))
        touch("touchEnd")


def shaken(drawing, random):
    """Somewhere else, smaller, and not quite the same."""
    return [0.7 * np.array(s) + 0.1 + random.normal(0, 0.012, np.shape(s)) for s in drawing]


def widths(root):
    return [
        float(bar.evaluate("bar => bar.style.width").rstrip("%"))
        for bar in root.locator(".draw-bar span").all()
    ]


def test_a_sign_that_is_drawn_again_is_named(opened):
    page = opened()
    root, random = page.locator("#draw-own"), np.random.default_rng(0)
    for pad, drawing in zip(root.locator(".draw-box svg").all(), SIGNS, strict=False):
        by_mouse(page, pad, drawing)
    said = root.get_by_role("status")
    assert "large field" in said.inner_text() and root.locator(".draw-nearest").count() == 0
    for again, drawing in enumerate(SIGNS):
        by_mouse(page, root.locator(".draw-new svg"), shaken(drawing, random))
        bars = widths(root)
        assert np.argmax(bars) == again and max(bars) > 50 and bars[5] == 0
        assert said.inner_text().startswith(f"The network says sign {again + 1} ")
        assert root.locator(".draw-nearest").count() == 1
        root.get_by_role("button", name="Clear the new drawing").click()


def test_a_finger_draws_and_the_page_stays_where_it_is(opened):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    root = page.locator("#draw-script")
    letter = page.evaluate("SCRIPT[4].drawings[0].map(s => s.map(([x, y]) => [x / PAD, y / PAD]))")
    pad = root.locator(".draw-new svg")
    pad.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    by_finger(page, pad, letter)
    assert page.evaluate("scrollY") == before
    name = page.evaluate("SCRIPT[4].name")
    assert root.get_by_role("status").inner_text().startswith(f"The network says {name} ")
    assert np.argmax(widths(root)) == 4
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_second_finger_adds_nothing(opened):
    page = opened()
    pad = page.locator("#draw-own .draw-new svg")
    events = [
        ("pointerdown", 1, 0.2),
        ("pointermove", 1, 0.4),
        ("pointermove", 2, 0.9),
        ("pointerup", 2, 0.9),
    ]
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    pad.evaluate("svg => svg.setPointerCapture = () => {}")
    for kind, pointer, place in [*events, ("pointerup", 1, 0.4)]:
        x, y = box["x"] + place * box["width"], box["y"] + place * box["height"]
        pad.dispatch_event(kind, {"pointerId": pointer, "clientX": x, "clientY": y, "button": 0})
    strokes_ = page.evaluate("PLAYGROUNDS[0].query.strokes")
    assert len(strokes_) == 1
    np.testing.assert_allclose(strokes_[0], [[20, 20], [40, 40]], atol=1)


# ---------------------------------------------------------------- buttons, keys, print


def test_undo_and_clear(opened):
    page = opened()
    root = page.locator("#draw-own")
    count = lambda: page.evaluate("PLAYGROUNDS[0].pads.map((pad) => pad.strokes.length)")  # noqa: E731
    by_mouse(page, root.locator(".draw-box svg").nth(1), SIGNS[0])
    drawn = count()
    assert drawn == [0, 2, 0, 0, 0, 0, 0]
    root.get_by_role("button", name="Show an example").click()
    example = count()
    assert min(example) > 0
    root.get_by_role("button", name="Clear the new drawing").click()
    assert count() == [*example[:-1], 0]
    root.get_by_role("button", name="Clear all").click()
    assert count() == [0] * 7
    undo = root.get_by_role("button", name="Undo")
    for expected in ([*example[:-1], 0], example, drawn, [0, 1, *[0] * 5], [0] * 7, [0] * 7):
        undo.click()
        assert count() == expected
    assert root.locator("polyline").count() == 0


def test_everything_but_drawing_works_by_keys(opened):
    page = opened()
    for root, count in ((page.locator("#draw-own"), 4), (page.locator("#draw-script"), 3)):
        buttons = root.get_by_role("button")
        assert buttons.count() == count
        buttons.first.focus()
        for button in buttons.all():
            assert button.evaluate("button => button === document.activeElement")
            style = button.evaluate("button => getComputedStyle(button).outlineStyle")
            assert style == "solid"
            page.keyboard.press("Tab")
        buttons.first.focus()
        for key in ("Enter", "Space"):
            page.keyboard.press(key)
            assert root.get_by_role("status").inner_text().startswith("The network says ")


def test_the_examples_are_named_rightly(opened):
    """All of them: three drawings of each sign and each letter, in turn."""
    page = opened()
    shares = []
    for i, count in enumerate((6, 20)):
        code = """([i, count]) => Array.from({ length: 3 * count }, (_, n) => {
            PLAYGROUNDS[i].example();
            return PLAYGROUNDS[i].boxes[n % count].root.matches(".draw-nearest");
        })"""
        shares.append(np.mean(page.evaluate(code, [i, count])))
    assert shares[0] > 0.9 and shares[1] > 0.85


def test_paper_shows_an_example_and_no_buttons(opened):
    page = opened()
    assert page.locator("#draw-own polyline").count() == 0
    page.pdf()
    assert page.locator("#draw-own .draw-nearest").count() == 1
    page.emulate_media(media="print")
    assert not page.locator(".draw-buttons").first.is_visible()


def test_it_works_from_a_file(opened):
    page = opened((BOOK / "book" / "draw.html").as_uri())
    page.locator("#draw-script").get_by_role("button", name="Show an example").click()
    said = page.locator("#draw-script").get_by_role("status").inner_text()
    assert said.startswith("The network says an ")
