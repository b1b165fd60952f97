"""Open a page in the browser, and say what is wrong with it."""

from contextlib import contextmanager
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
AXE = HERE / "axe" / "axe.min.js"
CHECKS = (HERE / "checks.js").read_text(encoding="utf-8")
WIDTHS = (1280, 390)
MAX_WEIGHT = 1.2e6
# What is set once and for all is not animated, or colours would be measured on their way.
STILL = """
*, ::before, ::after { transition: none !important; animation: none !important }
mjx-assistive-mml { display: none !important }
"""
# axe-core measures no text on a gradient; the colour under it stays.
FLAT = """
.bd-article :is(pre, div.math, span.math, .pst-scrollable-table-container)
{ background-image: none !important }
"""
SETTLED = "() => window.MathJax?.startup?.promise"


class Visit:
    """A page in a browser that was never here before, and what it asked for."""

    def __init__(self, page):
        self.page, self.console, self.failed = page, [], []
        self.requests, self.responses = [], []
        page.on("console", lambda m: m.type == "error" and self.console.append(m.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", lambda request: self.requests.append(request))
        page.on("requestfailed", lambda request: self.failed.append(request.url))
        page.on("response", lambda response: self.responses.append(response))

    def failures(self):
        return self.failed + [r.url for r in self.responses if r.status >= 400]

    def other_hosts(self):
        own = urlsplit(self.page.url).netloc
        asked = (urlsplit(request.url) for request in self.requests)
        return [url.netloc for url in asked if url.scheme.startswith("http") and url.netloc != own]

    def weight(self):
        """Bytes of all that was loaded, MathJax left out."""
        loaded = [r for r in self.responses if r.url.startswith("http")]
        sizes = [r.request.sizes() for r in loaded if "/mathjax/" not in r.url]
        return sum(size["responseBodySize"] for size in sizes)


@contextmanager
def visit(browser, address, width=1280, **options):
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    try:
        page = context.new_page()
        page.add_init_script(CHECKS)
        seen = Visit(page)
        page.goto(address)
        page.add_style_tag(content=STILL)
        page.evaluate(SETTLED)
        yield seen
    finally:
        context.close()


def resize(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(200)


def set_theme(page, theme):
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)


def axe(page, **options):
    """What axe-core finds: the rule, the place, and why."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "options => axe.run(document, {resultTypes: ['violations'], preload: false, ...options})",
        options,
    )
    return [
        f"{rule['id']}: {node['target'][-1]} {' '.join(node['failureSummary'].split())[:160]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def unseen_focus(page, stops=30, inside=None):
    """Stops of the Tab key at which nobody sees where they are; of those inside a part alone."""
    if inside:
        page.evaluate("inside => startWithin(inside)", inside)
    faults = []
    for _ in range(stops):
        page.keyboard.press("Tab")
        faults.append(page.evaluate("unseenFocus()"))
    return [fault for fault in faults if fault]


SHOWN = {
    "picture": "checks.pictures()",
    "TeX": "checks.tex()",
    "scrolls sideways": "checks.sideways()",
    "cut": "checks.cut()",
}
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


def faults_of(browser, address):
    """All faults of a page, at each width, in light and in dark, each with its kind."""
    with visit(browser, address, WIDTHS[0]) as seen:
        page, kinds = seen.page, {}
        page.evaluate("openAll()")
        for width in WIDTHS:
            resize(page, width)
            for kind, check in SHOWN.items():
                kinds[f"{kind} at {width}"] = page.evaluate(check)
        weight = seen.weight()
        kinds["weight"] = [f"{weight / 1e6:.2f} MB"] if weight > MAX_WEIGHT else []
        page.evaluate("thin()")  # nothing but axe-core comes after this
        page.add_style_tag(content=FLAT)
        for width, theme in product(reversed(WIDTHS), ("light", "dark")):
            resize(page, width)
            set_theme(page, theme)
            whole = (width, theme) == (WIDTHS[0], "light")
            rules = RULES if whole else ["color-contrast"]
            kinds[f"axe, {theme} at {width}"] = axe(page, runOnly=rules)
        kinds["console error"] = seen.console
        kinds["failed request"] = seen.failures()
        kinds["other host"] = seen.other_hosts()
    return [f"{kind}: {fault}" for kind, faults in kinds.items() for fault in faults]
