"""What book/_ext makes of the book: signatures, labels, search, markup, weight; and its pages."""

import importlib.util
import inspect
import re

import numpy as np
import pytest
import yaml
from PIL import Image
from pybtex.database import parse_file

import mlutils
from tools.notebooks import ROOT


def extension(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- the package's pages

PAGES = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "book" / "api").glob("*.md"))
)
DOCUMENTED = set(re.findall(r"\.\. auto(?:class|function):: mlutils\.([\w.]+)", PAGES))
PUBLIC = {
    *(name for name in mlutils.__all__ if not inspect.ismodule(getattr(mlutils, name))),
    *(f"data.{name}" for name in mlutils.data.__all__),
}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_has_an_entry(name):
    rooms = ("", "one_shot.", "optimizer_based.")  # where pages import it from the room
    assert DOCUMENTED & {room + name for room in rooms}, f"{name} is on no page of book/api"


def test_all_pages_of_the_package_are_in_the_table_of_contents():
    toc = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    names = sorted(path.stem for path in (ROOT / "book" / "api").glob("*.md"))
    assert names and sorted(re.findall(r"file: book/api/(\w+)", toc)) == names


CLASSES = sorted(
    (v for n in mlutils.__all__ if inspect.isclass(v := getattr(mlutils, n))),
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_signature_of_a_class_shows_its_arguments(cls):
    extensions = extension("api_pages")
    signature = extensions.signature_of(cls)
    assert signature != extensions.HIDDEN and "self" not in signature


def test_the_signature_shows_defaults():
    extensions = extension("api_pages")
    assert extensions.signature_of(mlutils.MatchingNetwork) == "(encoder, scale=1.0, **kwargs)"
    shown = extensions.show_signature(
        None, "class", "", mlutils.MatchingNetwork, None, extensions.HIDDEN, None
    )
    assert shown == ("(encoder, scale=1.0, **kwargs)", None)
    assert extensions.show_signature(None, "method", "", None, None, "(x)", None) is None


# ---------------------------------------------------------------- references

ENTRIES = parse_file(str(ROOT / "book" / "references.bib")).entries


def test_labels_of_references_are_names_and_year_and_differ():
    label = extension("author_year").label
    labels = {key: label(entry) for key, entry in ENTRIES.items()}
    assert labels["finn2017"] == "Finn et al., 2017"
    assert labels["thrun1998"] == "Thrun and Pratt, 1998"
    assert labels["baxter2000"] == "Baxter, 2000"
    assert labels["wang2019"] == "Wang et al., 2019"
    assert len(set(labels.values())) == len(labels)


WITHOUT_LINK = {"bengio1990", "naik1992", "baldi1993"}  # none was found


@pytest.mark.parametrize("key", sorted(ENTRIES))
def test_a_reference_has_a_link(key):
    fields = ENTRIES[key].fields
    linked = {"doi", "eprint", "url"} & set(fields)
    assert bool(linked) != (key in WITHOUT_LINK)
    if "eprint" in fields:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", fields["eprint"])
        assert fields["archiveprefix"] == "arXiv"
    assert "://" not in fields.get("doi", "")


# ---------------------------------------------------------------- markup and weight

FOLD = '<summary><span class="toctree-toggle"></span></summary>'


def test_folds_have_names_and_contents_no_identifier():
    mend = extension("mend_markup").mend
    assert mend(FOLD).startswith('<summary aria-label="')
    assert mend('<summary aria-label="Toggle hidden content">') == "<summary>"
    assert mend('<section id="exercise-content">') == '<section class="exercise-content">'
    button = '<button class="btn search-button-field" title="Search"{}>'
    assert mend(button.format(' aria-label="Search"')) == button.format("")


def test_numbers_do_not_break_at_their_signs():
    mend = extension("mend_markup").mend
    cell = '<td class="x"><p>1 ± 2 / 3</p></td><p>4 ± 5, 6 / 7</p>'
    assert mend(cell) == cell.replace("1 ± 2 / 3", "1\u00a0±\u00a02\u00a0/\u00a03").replace(
        "4 ± 5", "4\u00a0± 5"
    )


@pytest.mark.parametrize(("before", "behind"), [("", ","), ("(", ""), ("(", ").")])
def test_a_formula_keeps_its_punctuation(before, behind):
    mend = extension("mend_markup").mend
    formula = '<span class="math notranslate">\\(x_S\\)</span>'
    kept = f'a <span class="unbroken">{before}{formula}{behind}</span> b {formula} c'
    assert mend(f"a {before}{formula}{behind} b {formula} c") == kept
    assert mend(kept) == kept


def test_the_lines_of_a_signature_are_no_list_and_lists_stay():
    signature = '<dt class="sig sig-object py">f(<dl><dd>a</dd></dl>)</dt>'
    lines = '<dt class="sig sig-object py">f(<div class="sig-lines"><div>a</div></div>)</dt>'
    rest = "<dl><dt>b</dt><dd>c</dd></dl>"
    assert extension("mend_markup").mend(signature + rest) == lines + rest


@pytest.mark.parametrize(
    ("name", "entry"), [("f", "pkg.f"), ("C.call", "pkg.room.C.call"), ("none", "pkg.room.none")]
)
def test_a_source_page_links_to_the_entry_that_is_there(name, entry):
    html = '<div class="viewcode-block" id="{}">\n<a class="viewcode-back" href="api.html#{}">'
    entries = {"pkg.D": 0, "pkg.D.f": 0, "pkg.f": 0, "pkg.room.C": 0, "pkg.room.C.call": 0}
    linked = extension("mend_markup").link_back(html.format(name, f"pkg.room.{name}"), entries)
    assert linked == html.format(name, entry)


CSS = """@import "a.css"; /* no.class {} */
.here, .gone { color: red }
.gone:before { content: "\\f001" }
.fa-here:before { content: "\\f002" }
.here:not(:is(.gone, .lost)), .here a[href$=".pdf"] { color: blue }
@media print { .gone { color: red } p:not(.gone) { color: blue } .bs-made { top: 0 } }
/*# sourceMappingURL=a.css.map*/"""


def test_rules_of_absent_classes_are_dropped():
    light = extension("light_pages")
    css = light.without_unused(light.without_map(CSS), {"here", "fa-here"})
    kept = (
        '@import "a.css"; /* no.class {} */',
        ".here, .gone",
        "f002",
        "p:not(.gone)",
        ".bs-made",
        ':is(.gone, .lost)), .here a[href$=".pdf"]',
    )
    assert all(text in css for text in kept)
    assert ".gone {" not in css.replace(".here, .gone {", "") and "f001" not in css
    assert "sourceMapping" not in css and css.count("{") == css.count("}")
    assert light.icon_characters(css + "\uf101") == {"\uf002", "\uf101"}


@pytest.mark.parametrize("name", ["scripts/fontawesome.js?digest=1", "searchtools.js"])
def test_scripts_that_a_page_does_not_need_are_dropped(name):
    without = extension("light_pages").without_scripts
    defer = "defer " if "fontawesome" in name else ""
    html = (
        f'<p></p>\n<script {defer}src="../_static/{name}"></script><script src="own.js"></script>'
    )
    assert without(html, "page.html") == '<p></p><script src="own.js"></script>'
    assert (without(html, "search.html") == html) == ("search" in name)


def test_pictures_become_webp_of_the_same_pixels(tmp_path):
    light = extension("light_pages")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    names = light.to_webp(tmp_path)
    assert names == ["a.png"] and not (tmp_path / "a.png").exists()
    with Image.open(tmp_path / "a.webp") as picture:
        np.testing.assert_array_equal(picture.convert("RGBA"), pixels)
    html = '<img src="../_images/a.png"><img src="own/a.png">'
    assert light.with_webp(html, names) == html.replace("_images/a.png", "_images/a.webp")


# ---------------------------------------------------------------- words

GLOSSARY = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")


def test_chinese_words_are_indexed_by_their_parts():
    language = extension("chinese_search").EnglishWithChinese({})
    words = language.split("Meta-learning, 元学习, and 学会学习")
    assert {"Meta", "learning", "and", "元学习", "学习", "元", "会学"} <= set(words)
    assert len(words) == len(set(words))


def test_terms_of_the_glossary_are_sorted_and_each_has_one_entry():
    body = GLOSSARY.split("```{glossary}\n")[1].split("```")[0]
    entries = [entry.splitlines() for entry in body.strip().split("\n\n")]
    terms = [line for entry in entries for line in entry if not line.startswith(" ")]
    assert len(terms) == len(set(terms)) and len(entries) > 80
    first = [re.sub("[^a-z ]", "", re.sub("[-–]", " ", entry[0].lower())) for entry in entries]
    assert first == sorted(first)


def test_the_configuration_names_each_extension():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    names = {path.stem for path in (ROOT / "book" / "_ext").glob("*.py")}
    assert set(config["sphinx"]["local_extensions"]) == names


def test_other_pages_cite_cells():
    cell = extension("cells").cell
    table = "| | x | 5-way 1-shot | 20-way 1-shot |\n|---|---|---|---|\n"
    table += "| **a, b** | no | 91.3 ± 0.3, 1 seed | not run |\n| published | | 99 | 98 |\n"
    text = f"% begin omniglot\n\n{table}\n% end omniglot\n"
    assert cell(text, "a, b, 5-way 1-shot") == "91.3 ± 0.3 % (1 seed)"
    for wrong in ("a, b, 20-way 1-shot", "a, 5-way 1-shot", "a, b, 7-way 1-shot", "published", ""):
        assert cell(text, wrong) is None


def test_equations_of_docstrings_stand_in_one_pair_of_parentheses():
    lines = ["A step (:eq:`one`).", "Two (:eq:`one`, :eq:`two`)", "(see :eq:`one`)"]
    extension("api_pages").drop_parentheses(None, "class", "", None, None, lines)
    assert lines == ["A step :eq:`one`.", "Two :eq:`one`, :eq:`two`", "(see :eq:`one`)"]
