"""Every page of the book, in light and dark, on a desk and on a phone."""

import pytest

from tests.browser import look, markup
from tests.browser.conftest import BOOK

READERS = markup.read(BOOK)
PAGES = [page for page in READERS if page != "index.html"]  # that one only forwards to the first


def test_there_is_a_book():
    assert len(PAGES) > 40, f"Too few pages in {BOOK}: make book"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_fault(page, site, browser):
    faults = look.faults_of(browser, f"{site}/{page}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", READERS)
def test_identifiers_are_there_once_and_links_end_somewhere(page):
    reader = READERS[page]
    assert not markup.duplicate_ids(reader)
    assert not markup.missing_anchors(READERS, page)


SOME = [
    "book/index.html",
    "book/notation.html",
    "book/api/maml.html",
    "chapters/maml/from-the-equations.html",
    "search.html",
]
TEXTS = [*SOME[:-1], "book/draw.html", "chapters/optimizer_based/the-lstm-optimizer.html"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", SOME)
def test_the_focus_is_seen(page, theme, site, browser):
    with look.visit(browser, f"{site}/{page}", color_scheme=theme) as seen:
        assert not look.unseen_focus(seen.page)


@pytest.mark.parametrize("page", TEXTS)
def test_the_focus_is_seen_in_the_text(page, site, browser):
    with look.visit(browser, f"{site}/{page}") as seen:
        assert not look.unseen_focus(seen.page, stops=10, inside=".bd-article")
