"""The moving pictures: their numbers are the package's, and mouse, keyboard and print work."""

import functools

import numpy as np
import pytest

import mlutils
from mlutils import LearnedOptimizer
from tests.browser.conftest import BOOK
from tools import moving

NAMES = ("maml-adapts", "learned-optimizer")


@functools.cache
def page_with(name):
    """The address within the book of the page that has a moving picture."""
    mark = f'<figure class="moving {name}'
    found = [path for path in BOOK.rglob("*.html") if mark in path.read_text(encoding="utf-8")]
    assert len(found) == 1, f"One page should have {name}, found {found}."
    return found[0].relative_to(BOOK).as_posix()


@pytest.fixture
def opened(site, browser):
    """A function that opens the page with a picture; what it did wrong fails the test."""
    errors, contexts = [], []

    def open_page(name, base=site, **options):
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.clock.install()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: errors.append(request.url))
        page.goto(f"{base}/{page_with(name)}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def figure(opened):
    """A function that opens the page with a picture, and returns the picture's place in it."""
    return lambda name, **options: opened(name, **options).locator(f"figure.{name}")


def curve(figure):
    return figure.locator("path.curve").first.get_attribute("d")


def step(figure):
    return int(figure.locator("input[type=range]").input_value())


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("start", ["maml", "joint"])
def test_inner_steps_are_those_of_the_package(figure, start):
    data = moving.stored("maml-adapts")
    learner = moving.learner_of(moving.network_of(data, start), data["innerLr"][start])
    x = np.linspace(-5, 5, 41, dtype=np.float32)[:, None]
    (support_x, support_y, _), _ = next(iter(mlutils.data.sinusoids(5, 1, meta_batch=5, seed=9)))
    page = figure("maml-adapts").page
    for points in np.concatenate([support_x, support_y], axis=-1):
        path = page.evaluate(
            """([start, points, x]) => {
                const { adapt, predict } = mlutilsMoving.maml;
                return adapt(start, points).map(weights => x.map(v => predict(weights, v)));
            }""",
            [start, points.tolist(), x[:, 0].tolist()],
        )
        assert len(path) == 11
        for steps in (0, 1, 5, 10):
            expected = learner.adapt(points[:, :1], points[:, 1:], steps=steps)(x)[:, 0]
            np.testing.assert_allclose(path[steps], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["learned", "adam"])
@pytest.mark.parametrize("kind", moving.KINDS)
def test_paths_are_those_of_the_package(figure, name, kind):
    data = moving.stored("learned-optimizer")
    optimizer = {
        "learned": lambda: LearnedOptimizer(moving.rule_of(data)),
        "adam": lambda: moving.adam(**data["adam"]),
    }[name]()
    start, valley = moving.new_valleys(kind, seed=9, functions=8)
    expected = moving.run(optimizer, start, valley)
    page = figure("learned-optimizer").page
    for i, theta in enumerate(start.numpy().tolist()):
        one = dict(zip(moving.PARTS, (part[i].numpy().tolist() for part in valley), strict=True))
        values = page.evaluate(
            "([name, valley, start]) => mlutilsMoving.optimizer.run(name, valley, start).values",
            [name, one, theta],
        )
        np.testing.assert_allclose(values, expected[:, i], rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- the reader


@pytest.mark.parametrize("name", NAMES)
def test_a_point_that_is_dragged_moves_the_curve(figure, name):
    picture = figure(name)
    point = picture.locator(".drag").first
    point.scroll_into_view_if_needed()
    before, box = curve(picture), point.locator(".dot").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = picture.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 20, y + 30)
    mouse.up()
    moved = point.locator(".dot").bounding_box()
    assert moved["x"] - box["x"] == pytest.approx(20, abs=1)
    assert moved["y"] - box["y"] == pytest.approx(30, abs=1)
    assert curve(picture) != before
    after = curve(picture)
    mouse.move(x, y)  # let go
    assert curve(picture) == after


@pytest.mark.parametrize("name", NAMES)
def test_arrow_keys_move_a_point(figure, name):
    picture = figure(name)
    point = picture.locator(".drag").first
    before, value = curve(picture), float(point.get_attribute("aria-valuenow"))
    point.focus()
    scrolled = picture.page.evaluate("scrollY")
    picture.page.keyboard.press("ArrowUp")
    assert float(point.get_attribute("aria-valuenow")) == pytest.approx(value + 0.2, abs=0.051)
    assert curve(picture) != before
    assert picture.page.evaluate("scrollY") == scrolled


@pytest.mark.parametrize("name", NAMES)
def test_it_plays_when_asked_and_only_then(figure, name):
    picture = figure(name)
    last = int(picture.locator("input[type=range]").get_attribute("max"))
    first = step(picture)
    picture.page.clock.run_for(20_000)
    assert step(picture) == first
    picture.locator("input[type=range]").fill(str(last))
    play = picture.get_by_role("button", name="Play")
    play.focus()
    picture.page.keyboard.press("Enter")
    assert step(picture) == 0
    picture.page.clock.run_for(1000)
    assert 0 < step(picture) < last
    picture.page.clock.run_for(20_000)
    assert step(picture) == last
    assert play.is_visible()  # it says Play again, not Pause


@pytest.mark.parametrize("name", NAMES)
def test_every_control_has_a_name(figure, name):
    controls = figure(name).locator("button, input, [tabindex='0']")
    assert controls.count() > 6
    for control in controls.all():
        named = control.evaluate(
            "c => c.getAttribute('aria-label') || c.textContent || c.closest('label')?.textContent"
        )
        assert named.strip()


def test_the_other_start_has_another_curve(figure):
    picture = figure("maml-adapts")
    before = curve(picture)
    picture.get_by_label("of joint training").check()
    assert curve(picture) != before
    assert picture.locator("path.wave").get_attribute("d") == ""
    picture.get_by_role("button", name="New task").click()
    assert picture.locator("path.wave").get_attribute("d").startswith("M")


def test_other_valleys(figure):
    picture = figure("learned-optimizer")
    lines = picture.locator("path.heights")
    seen = {lines.get_attribute("d")}
    for choice in ("bent", "10 times as steep"):
        picture.get_by_label(choice).check()
        seen.add(lines.get_attribute("d"))
    picture.get_by_role("button", name="New valley").click()
    seen.add(lines.get_attribute("d"))
    assert len(seen) == 4
    assert all(len(line) > 1000 for line in seen)


# ---------------------------------------------------------------- the still


@pytest.mark.parametrize("name", NAMES)
def test_print_has_the_still(figure, name):
    picture = figure(name)
    still, live = picture.locator("img.drawn"), picture.locator(".moving-live")
    assert live.is_visible() and not still.is_visible()
    picture.page.emulate_media(media="print")
    assert still.is_visible() and not live.is_visible()
    assert still.evaluate("image => image.naturalWidth") > 300


@pytest.mark.parametrize("name", NAMES)
def test_without_scripts_there_is_the_still(site, browser, name):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/{page_with(name)}")
    assert page.locator(f"figure.{name} img.drawn").is_visible()
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_moves_in_a_page_that_is_opened_as_a_file(opened, name):
    page = opened(name, base=BOOK.resolve().as_uri())
    assert curve(page.locator(f"figure.{name}")).startswith("M")
