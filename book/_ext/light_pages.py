"""Pages load what they show: no rules and icons of the theme that no page has, no source maps.

The theme loads its 2000 icons twice, as fonts and by a script of 1.5 MB that replaces them by
drawings.  The script is dropped, the fonts are cut to the icons of this book, and the style sheets
to the classes that some page or script names.  The search's index is loaded where one searches, on
its own page.  Pictures become WebP without loss, which is smaller than PNG.  What is edited is the
built book, and twice does no harm.
"""

import re
from pathlib import Path

from fontTools import subset
from PIL import Image

# A comment, or a rule that begins behind the last one, statement or comment.
RULE = re.compile(r"/\*.*?\*/|(?P<selectors>(?:(?!/\*)[^{};])+)\{[^{}]*\}", re.DOTALL)
CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
ICON_SCRIPT = re.compile(r'\s*<script defer src="[^"]*/fontawesome\.js[^"]*"></script>')
SEARCH_SCRIPT = re.compile(
    r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>'
)
SOURCE_MAP = re.compile(r"\n?(?:/\*|//)# sourceMappingURL=\S+?\.map(?:\*/)?")


def without_scripts(html, page):
    html = ICON_SCRIPT.sub("", html)
    return html if page == "search.html" else SEARCH_SCRIPT.sub("", html)


def without_map(text):
    return SOURCE_MAP.sub("", text)


def without_unused(css, words):
    """The style sheet without the rules of classes that are not among the words."""

    def used(selector):
        # Bootstrap puts names together that begin with "bs-".
        return all(name in words or name.startswith("bs-") for name in CLASS.findall(selector))

    def keep(rule):
        selectors = re.sub(r":not\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\]", "", rule["selectors"] or "")
        return rule[0] if any(map(used, selectors.split(","))) else ""

    return RULE.sub(keep, css)


def icon_characters(css):
    """Private characters that a style sheet shows, written as such or as an escape."""
    escapes = re.findall(r"\\([ef][0-9a-f]{3})\b", css)
    return {chr(int(code, 16)) for code in escapes} | set(re.findall("[\ue000-\uf8ff]", css))


def cut_font(path, characters):
    options = subset.Options(flavor="woff2", notdef_outline=True)
    font = subset.load_font(path, options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text="".join(sorted(characters)))
    subsetter.subset(font)
    subset.save_font(font, path, options)


def to_webp(folder):
    """Replace the folder's PNGs by WebP of the same pixels; return their names."""
    paths = list(folder.glob("*.png"))
    for path in paths:
        with Image.open(path) as picture:
            picture.save(path.with_suffix(".webp"), lossless=True, exact=True, method=2)
        path.unlink()
    return [path.name for path in paths]


def with_webp(html, names):
    for name in names:
        html = html.replace(f"_images/{name}", f"_images/{name.removesuffix('.png')}.webp")
    return html


def edit(path, function):
    old = path.read_text(encoding="utf-8")
    new = function(old)
    if new != old:
        path.write_text(new, encoding="utf-8")
    return new


def lighten(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    static = out / "_static"
    for path in [*static.rglob("*.map"), *static.rglob("fontawesome.js")]:
        path.unlink()
    names = to_webp(out / "_images")
    words = set()
    for path in [*out.rglob("*.html"), *static.rglob("*.js")]:
        page = path.relative_to(out).as_posix()
        if not page.startswith("_static/mathjax/"):
            edit(path, lambda text, page=page: without_map(without_scripts(text, page)))
            text = edit(path, lambda text: with_webp(text, names))
            words.update(re.findall(r"[\w-]+", text))
    characters = set()
    for path in static.rglob("*.css"):
        css = edit(path, lambda css: without_unused(without_map(css), words))
        characters |= icon_characters(css)
    for path in (static / "vendor" / "fontawesome" / "webfonts").glob("*.woff2"):
        cut_font(path, characters)


def setup(app):
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
