"""What a reader does: search, and open a solution or a folded cell without a mouse."""

import pytest

from tests.browser import look


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("Reptile", "chapters/maml/first-order.html"),
        ("MANN", "chapters/few_shot/memory.html"),
        ("Hessian", "chapters/maml/first-order.html"),
        ("元学习", "book/glossary.html"),
    ],
)
def test_search_finds(words, page, site, browser):
    with look.visit(browser, f"{site}/book/index.html") as seen:
        seen.page.keyboard.press("Control+k")
        seen.page.keyboard.type(words)
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_url("**/search.html?*")
        found = seen.page.locator(f"#search-results a[href*='{page}']")
        found.first.wait_for(timeout=10_000)
        assert not seen.console


EXERCISES = "chapters/maml/from-the-equations.html"


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_solution_opens_and_closes_by_keyboard(key, site, browser):
    with look.visit(browser, f"{site}/{EXERCISES}") as seen:
        solution = seen.page.locator("div.solution").first
        button, text = solution.locator(".toggle-button"), solution.locator("section p").first
        assert not text.is_visible()
        button.focus()
        seen.page.keyboard.press(key)
        assert text.is_visible() and button.get_attribute("aria-expanded") == "true"
        seen.page.keyboard.press(key)
        text.wait_for(state="hidden")


def test_a_folded_cell_opens_by_keyboard(site, browser):
    with look.visit(browser, f"{site}/{EXERCISES}") as seen:
        cell = seen.page.locator("details.hide").first
        code = cell.locator("pre").first
        assert not code.is_visible()
        cell.locator("summary").focus()
        seen.page.keyboard.press("Enter")
        assert code.is_visible()


def test_the_button_changes_the_colours(site, browser):
    """From the system's to light to dark, and the next page remembers."""
    with look.visit(browser, f"{site}/book/index.html", color_scheme="dark") as seen:
        colours = []
        for _ in range(3):
            colours.append(seen.page.evaluate("document.documentElement.dataset.theme"))
            seen.page.locator(".bd-header-article .theme-switch-button").click()
        seen.page.locator(".bd-header-article .theme-switch-button").click()
        seen.page.goto(f"{site}/book/notation.html")
        last = seen.page.evaluate("document.documentElement.dataset.theme")
        assert colours == ["dark", "light", "dark"] and last == "light"


def test_on_paper_there_is_no_frame_and_no_line_is_cut(site, browser):
    around = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, button, footer"
    with look.visit(browser, f"{site}/{EXERCISES}", 700) as seen:
        seen.page.emulate_media(media="print")
        shown = seen.page.locator(around).filter(visible=True)
        assert shown.count() == 0, shown.all()
        code = "pre => pre.checkVisibility() && pre.scrollWidth > pre.clientWidth"
        cut = seen.page.evaluate(f"[...document.querySelectorAll('pre')].filter({code}).length")
        assert cut == 0
