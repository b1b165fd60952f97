"""Each check finds its fault in a small bad page, and none in a good one."""

import pytest

from tests.browser import look, markup

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A page</title>
<link rel="icon" href="data:,"></head><body><main class="bd-article">{}</main></body></html>"""
GOOD = """<h1 id="top">A page</h1><p><a href="#top">Up</a>, $5, <code>\\alpha</code></p>
<pre tabindex="0" style="overflow: auto; background-image: linear-gradient(red, blue)">
{}</pre>""".format("x" * 999)
BAD = {
    "console error": "<script>missing()</script>",
    "failed request": '<script src="missing.js"></script>',
    "other host": '<script src="http://127.0.0.2:9/x.js"></script>',
    "picture": '<img alt="A picture that is not there" src="missing.png">',
    "TeX": r"<p>Where $\alpha$ is small.</p>",
    "scrolls sideways": '<div style="width: 2000px">wide</div>',
    "cut": f'<p style="overflow: hidden">{"x" * 999}</p>',
    "weight": f"<!-- {'x' * 1_300_000} -->",
    "axe, light": '<p style="color: #bbb">faint</p>',
    "axe, dark": "<style>[data-theme=dark] p {color: #bbb}</style><p>faint</p>",
}


@pytest.fixture
def faults(tmp_path, serve, browser):
    def of(html):
        (tmp_path / "page.html").write_text(PAGE.format(html), encoding="utf-8")
        return look.faults_of(browser, serve(tmp_path) + "/page.html")

    return of


def test_a_good_page_has_no_fault(faults):
    assert faults(GOOD) == []


@pytest.mark.parametrize("kind", BAD)
def test_a_fault_is_found(faults, kind):
    assert any(fault.startswith(kind) for fault in faults(GOOD + BAD[kind]))


@pytest.mark.parametrize(
    "html",
    [
        r"<p>\(x\) and \frac{1}{2}</p>",
        "<p>$$x$$</p>",
        "<mjx-merror>Undefined control sequence</mjx-merror>",
    ],
)
def test_other_raw_tex_is_found(faults, html):
    assert any(fault.startswith("TeX") for fault in faults(html))


@pytest.mark.parametrize(
    "html",
    [
        '<pre style="color: #bbb; background: linear-gradient(white, white)">faint</pre>',
        '<details><summary>Open</summary><p style="color: #bbb">faint</p></details>',
    ],
)
def test_faint_words_on_a_gradient_and_in_a_fold_are_found(faults, html):
    assert any(fault.startswith("axe, light") for fault in faults(html))


def test_a_box_that_scrolls_without_a_hint_is_found(faults):
    assert any(f.startswith("cut") for f in faults(GOOD.replace("background-image", "color")))


@pytest.mark.parametrize(
    ("style", "unseen"),
    [("", 0), ("a { outline: 0 }", 1), ("a:focus { outline: 0; box-shadow: 0 0 2px red }", 0)],
)
def test_a_focus_that_nobody_sees_is_found(style, unseen, tmp_path, serve, browser):
    html = PAGE.format(f'<style>{style}</style><a href="#">A link</a>')
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    with look.visit(browser, serve(tmp_path) + "/page.html") as seen:
        assert len(look.unseen_focus(seen.page, stops=1)) == unseen


def test_identifiers_and_links_of_a_bad_page(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.html").write_text('<p id="a"><p id="b"><p id="a"><a href="sub/two.html#c">')
    links = ["../one.html#b", "../one.html#c", "#d", "none.html", "http://other.org/#x", "a.ipynb"]
    html = "".join(f'<a href="{link}"></a>' for link in links)
    (tmp_path / "sub" / "two.html").write_text(f'<p id="c">{html}', encoding="utf-8")
    readers = markup.read(tmp_path)
    assert markup.duplicate_ids(readers["one.html"]) == ["a"]
    assert markup.duplicate_ids(readers["sub/two.html"]) == []
    assert markup.missing_anchors(readers, "one.html") == []
    missing = markup.missing_anchors(readers, "sub/two.html")
    assert missing == ["../one.html#c", "#d", "none.html"]
