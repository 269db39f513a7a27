"""docs/presentation: both languages say the same figures, and those are the documentation's."""

import re

import pytest

from shared.tables import Table
from tests.support.stack import ROOT

FOLDER = ROOT / "docs" / "presentation"
LANGUAGES = ("en", "fr")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e-\d+)?")


def slides(language: str) -> list[str]:
    """Return the slides, without what stands before the first."""
    text = (FOLDER / f"slides.{language}.md").read_text(encoding="utf-8")
    return text.split("\n---\n")[1:]


def figures(text: str, language: str) -> list[str]:
    """Return the numbers that a slide shows, as English writes them; notes are for the speaker."""
    shown = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    if language == "fr":
        shown = re.sub(r"(?<=\d)[ \u00a0\u202f](?=\d{3}\b)", "", shown)
        shown = re.sub(r"(?<=\d),(?=\d)", ".", shown)
    else:
        shown = re.sub(r"(?<=\d),(?=\d{3}\b)", "", shown)
    return sorted(NUMBER.findall(shown))


def test_languages_show_the_same_figures_on_the_same_slides():
    english, french = (slides(language) for language in LANGUAGES)
    assert len(english) == len(french) >= 12
    for number, (one, other) in enumerate(zip(english, french, strict=True), 1):
        assert figures(one, "en") == figures(other, "fr"), f"slide {number}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_slide_has_a_title_and_notes_for_its_speaker(language: str):
    for slide in slides(language):
        assert re.search(r"^# \S", slide, re.M), slide
        notes = [note for note in re.findall(r"<!--(.*?)-->", slide, re.S) if not note.strip().startswith("_")]
        assert notes, slide
        assert len(notes[0].split()) > 12, slide


def slide_of(title: str) -> str:
    [slide] = [slide for slide in slides("en") if f"\n# {title}\n" in slide]
    return slide


def test_measured_figures_are_those_of_the_page_on_performance():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    of_page = set(figures(page, "en"))
    measured = figures(slide_of("Measured"), "en")
    assert len(measured) > 12
    assert [figure for figure in measured if figure not in of_page] == []


def test_counts_are_those_of_the_repository():
    decisions = len(list((ROOT / "docs" / "decisions").glob("[0-9]*.md")))
    assert f"{decisions} decisions" in slide_of("Repository and pipeline")
    tables = len(Table.metadata.sorted_tables)
    assert f"{tables} tables" in slide_of("The database is the product")


def test_figures_of_the_models_are_those_of_their_cards():
    rows = re.findall(r"^\| (attrition|credit|energy|turnover) \|(.*)$", slide_of("Four models, as examples"), re.M)
    assert len(rows) == 4
    for name, row in rows:
        card = (ROOT / "docs" / "model-cards" / f"{name}.md").read_text(encoding="utf-8")
        quoted = re.findall(r"\d\.\d{3}", row)
        assert len(quoted) >= 3
        assert [figure for figure in quoted if figure not in card] == []
