"""The quizzes: one for each chapter, ten questions, every answer explained."""

import re

import pytest
import yaml

from tools.notebooks import CHAPTERS, ROOT

QUESTION = re.compile(
    r"^`{5}\{admonition\} (\d+)\. ([^\n]+)\n:class: quiz\n\n(.*?)^`{5}\n", re.M | re.S
)
OPTION = re.compile(r"^::::\{dropdown\} ([A-D])\. ([^\n]+)\n(.*?)^::::\n", re.M | re.S)
PAGES = sorted(p.parent.name for p in CHAPTERS.glob("*/intro.md"))


def questions(text):
    """Of each: its title, the question, and its options as (letter, option, explanation)."""
    return [
        (title, body.partition("::::{dropdown}")[0], OPTION.findall(body))
        for _, title, body in QUESTION.findall(text)
    ]


def faults(text, number=10):
    """What is wrong with a quiz, in words."""
    said, letters = [], []
    found = questions(text)
    if [int(n) for n, *_ in QUESTION.findall(text)] != list(range(1, number + 1)):
        said.append(f"not {number} questions in order, but {len(found)}")
    for title, question, options in found:
        if len(question.split()) < 8:
            said.append(f"{title}: no question")
        if "".join(letter for letter, *_ in options) not in ("ABC", "ABCD"):
            said.append(f"{title}: not three or four options in order")
        right = [letter for letter, _, why in options if why.startswith("**Right.**")]
        if len(right) != 1:
            said.append(f"{title}: {len(right)} options are right")
        letters += right
        for letter, option, why in options:
            if len(why.replace("**Right.**", "").split()) < 8:
                said.append(f"{title}, {letter}: no explanation")
            if len(option) > 140:
                said.append(f"{title}, {letter}: too long for a line to click")
            if letter in right and "{ref}`" not in why:
                said.append(f"{title}: names no page")
    for letter in "ABC":
        if letters.count(letter) < number // 5:
            said.append(f"{letter} is right {letters.count(letter)} times")
    return said


@pytest.mark.parametrize("chapter", PAGES)
def test_each_chapter_has_ten_questions_with_every_answer_explained(chapter):
    assert faults((CHAPTERS / chapter / "quiz.md").read_text("utf-8")) == []


def test_the_last_one_has_twenty():
    assert faults((ROOT / "book/final-quiz.md").read_text("utf-8"), 20) == []


@pytest.mark.parametrize("chapter", PAGES)
def test_questions_go_through_all_pages_of_the_chapter(chapter):
    text = (CHAPTERS / chapter / "quiz.md").read_text("utf-8")
    for notebook in (CHAPTERS / chapter).glob("*.ipynb"):
        label = re.search(r'"\(([a-z-]+)\)=\\n"', notebook.read_text("utf-8")).group(1)
        assert f"{{ref}}`{label}`" in text, f"no question on {notebook.stem}"


def test_quizzes_are_the_last_pages_of_their_chapters():
    parts = yaml.safe_load((ROOT / "book/_toc.yml").read_text("utf-8"))["parts"]
    chapters = next(p for p in parts if p["caption"] == "The course")["chapters"]
    for chapter in chapters:
        if "sections" in chapter:
            assert chapter["sections"][-1]["file"].endswith("/quiz"), chapter["file"]


# ---------------------------------------------------------------- the checks, checked


def quiz(letters="ABCABCABCA"):
    """A quiz in order, with these letters right."""
    why = "since eight words at least are needed to explain it"
    text = "# Quiz\n\n"
    for number, letter in enumerate(letters, 1):
        text += f"`````{{admonition}} {number}. A title\n:class: quiz\n\n"
        text += "What happens to theta if alpha is twice as large?\n\n"
        for option in "ABC":
            mark = "**Right.** " if option == letter else ""
            end = "\n({ref}`maml-equations`)" if option == letter else ""
            text += f"::::{{dropdown}} {option}. An option\n{mark}{why}{end}\n::::\n\n"
        text += "`````\n\n"
    return text


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.replace("{admonition} 3.", "{admonition} 4."), "not 10 questions in order"),
        (lambda t: t.replace("**Right.** ", "", 1), "0 options are right"),
        (lambda t: t.replace("B. An option\n", "B. An option\n**Right.** "), "2 options are right"),
        (lambda t: t.replace("since eight words at least", "since", 1), "A: no explanation"),
        (lambda t: t.replace("({ref}`maml-equations`)", "", 1), "names no page"),
        (lambda t: t.replace("{dropdown} C.", "{dropdown} D.", 1), "options in order"),
        (lambda t: t.replace("What happens to theta if", "If", 1), "no question"),
        (lambda t: t.replace("A. An option", "A. " + "long " * 30, 1), "too long"),
        (lambda t: quiz("AAAAAAAABC"), "B is right 1 times"),
    ],
)
def test_each_fault_of_a_quiz_is_found(change, words):
    assert faults(quiz()) == []
    assert words in "\n".join(faults(change(quiz())))
