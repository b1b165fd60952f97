"""Find what a built page would load from another host."""

import re
from html.parser import HTMLParser
from pathlib import Path

# Where a tag's address is loaded with the page; links that a reader follows are none of these.
LOADED = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "track": ["src"],
    "iframe": ["src"],
    "embed": ["src"],
    "object": ["data"],
    "input": ["src"],
    "link": ["href"],
    "base": ["href"],
    "image": ["href", "xlink:href"],
    "use": ["href", "xlink:href"],
}
# A link tag of these kinds only names another page.
NAMES_ONLY = {
    "canonical",
    "next",
    "prev",
    "author",
    "license",
    "index",
    "search",
    "help",
    "alternate",
}
ELSEWHERE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(
    r"""(?:url\(\s*|@import\s+)["']?\s*((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE
)
# What a script loads: module imports, and addresses handed to a loader.
IN_SCRIPT = re.compile(
    r"""(?:\bimport\b[^"'`;]*|\bfetch\(\s*|importScripts\(\s*|\.src\s*=\s*|\.href\s*=\s*)"""
    r"""["'`]((?:https?:)?//[^"'`]+)""",
    re.IGNORECASE,
)


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []
        self.inside = None

    def handle_starttag(self, tag, attributes):
        attributes = {name: value or "" for name, value in attributes}
        self.inside = tag if tag in ("style", "script") else None
        kinds = set(attributes.get("rel", "").lower().split())
        if not (tag == "link" and kinds and kinds <= NAMES_ONLY):
            for name in LOADED.get(tag, []):
                value = attributes.get(name, "")
                for address in value.split(",") if name == "srcset" else [value]:
                    if ELSEWHERE.match(address):
                        self.found.append(address.split()[0])
        self.found += IN_STYLE.findall(attributes.get("style", ""))

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "style":
            self.found += IN_STYLE.findall(data)
        elif self.inside == "script":
            self.found += IN_SCRIPT.findall(data)


def in_page(html):
    """The addresses on other hosts that a page's HTML loads."""
    page = Page()
    page.feed(html)
    return page.found


def external_resources(folder):
    """Lines ``file: address`` for everything the built pages and styles load from elsewhere.

    Raises:
        FileNotFoundError: if ``folder`` holds no built page.
    """
    folder = Path(folder)
    pages = sorted(folder.rglob("*.html"))
    if not pages:
        raise FileNotFoundError(f"{folder} holds no built page.")
    lines = []
    for path in pages:
        found = in_page(path.read_text(encoding="utf-8"))
        lines += [f"{path.relative_to(folder)}: {address}" for address in found]
    for path in sorted(folder.rglob("*.css")):
        found = IN_STYLE.findall(path.read_text(encoding="utf-8"))
        lines += [f"{path.relative_to(folder)}: {address}" for address in found]
    return lines
