"""What book/_ext adds to the book: signatures, labels of references, search; and its pages."""

import importlib.util
import inspect
import re

import pytest
import yaml
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


def test_equations_of_docstrings_stand_in_one_pair_of_parentheses():
    lines = ["A step (:eq:`one`).", "Two (:eq:`one`, :eq:`two`)", "(see :eq:`one`)"]
    extension("api_pages").drop_parentheses(None, "class", "", None, None, lines)
    assert lines == ["A step :eq:`one`.", "Two :eq:`one`, :eq:`two`", "(see :eq:`one`)"]
