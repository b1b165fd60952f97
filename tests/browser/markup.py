"""Faults that a page's HTML shows without a browser: identifiers twice, links to none."""

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urlsplit


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])


def read(folder):
    """What the pages of a built book have, by their address within it."""
    paths = sorted(Path(folder).rglob("*.html"))
    pages = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        page: Reader(path.read_text(encoding="utf-8"))
        for page, path in pages.items()
        if not page.startswith("_static/")
    }


def duplicate_ids(reader):
    return sorted(name for name, times in Counter(reader.ids).items() if times > 1)


def missing_anchors(readers, page):
    """Links of a page into the book whose page or whose anchor is not there."""
    missing = []
    for link in readers[page].links:
        url = urlsplit(link)
        if url.scheme or url.netloc or not (url.path.endswith(".html") or not url.path):
            continue
        target = normpath(join(dirname(page), unquote(url.path))) if url.path else page
        anchor = unquote(url.fragment)
        if target not in readers or (anchor and anchor not in readers[target].ids):
            missing.append(link)
    return missing
