"""What the markup of other extensions lacks.

- A fold of the navigation has a name for those who hear the page, a folded cell the name it shows.
- The arguments of a long signature are a list that names nothing; here they are plain lines.
- The contents of all exercises have one identifier; it becomes a class.
- The numbers of a table do not break at their ± and /, nor those of a sentence at ±.
- A formula in a line keeps the bracket before it and the comma behind it, unless it is long.
- References are a list by their markup no longer: ARIA has given the entries' role up.
- A source page links each class to its entry by the name of its module's last one; here by its own.
"""

import re
from pathlib import Path

CELL = re.compile(r"<(td|th)\b.*?</\1>", re.DOTALL)
SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)
SEARCH_NAME = re.compile(r'(<button class="btn search-button-field[^>]*) aria-label="[^"]*"')
FOLD = '<summary><span class="toctree-toggle"'
NAMED_FOLD = '<summary aria-label="Show or hide its pages"><span class="toctree-toggle"'
CONTENT = re.compile(r'<section id="((?:exercise|solution)-content)">')
FORMULA = re.compile(
    r'(?<!<span class="unbroken">)(?<!<span class="unbroken">\()'
    r'\(?<span class="math[^>]*>[^<]{1,60}</span>[.,;:?!)]*'
)
BACK = re.compile(
    r'(<div class="viewcode-block" id="([\w.]+)">\s*<a class="viewcode-back" href="[^"#]*)#[^"]*"'
)


def unbroken(cell):
    """The cell with spaces that do not break beside ± and /."""
    return re.sub(r" ([±/]) ", "\u00a0\\1\u00a0", cell)


def with_punctuation(formula):
    alone = formula.startswith("<") and formula.endswith(">")
    return formula if alone else f'<span class="unbroken">{formula}</span>'


def plain_lines(signature):
    for list_tag, tag in (("<dl>", '<div class="sig-lines">'), ("</dl>", "</div>")):
        signature = signature.replace(list_tag, tag)
    return signature.replace("<dd>", "<div>").replace("</dd>", "</div>")


def mend(html):
    html = html.replace(FOLD, NAMED_FOLD)
    html = html.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    html = SEARCH_NAME.sub(r"\1", html)  # its own text is its name
    html = html.replace(' role="list" class="citation-list"', ' class="citation-list"')
    html = html.replace(' role="doc-biblioentry"', "")
    html = SIGNATURE.sub(lambda match: plain_lines(match[0]), html)
    html = CELL.sub(lambda match: unbroken(match[0]), html)
    html = FORMULA.sub(lambda match: with_punctuation(match[0]), html)
    html = re.sub(r"(?<=\d) ±(?= \d)", "\u00a0±", html)
    return CONTENT.sub(r'<section class="\1">', html)


def link_back(html, entries):
    """Point each piece of a source page at the entry whose full name ends with its own."""

    def link(match):
        names = [name for name in entries if f".{name}".endswith(f".{match[2]}")]
        names = [name for name in names if name.removesuffix(f".{match[2]}") not in entries]
        return f'{match[1]}#{names[0]}"' if names else match[0]

    return BACK.sub(link, html)


def link_source(app, page, template, context, doctree):
    if page.startswith("_modules/"):
        context["body"] = link_back(context["body"], app.env.get_domain("py").objects)


def mend_pages(app, exception):
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            html = path.read_text(encoding="utf-8")
            if (mended := mend(html)) != html:
                path.write_text(mended, encoding="utf-8")


def setup(app):
    app.connect("html-page-context", link_source)
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
