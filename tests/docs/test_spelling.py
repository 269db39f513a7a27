"""The words of the pages: those of a dictionary, English or French, and those of words.txt."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from spellchecker import SpellChecker

from tests.support.stack import ROOT

OWN = Path(__file__).with_name("words.txt")
FRENCH = [*(ROOT / "docs" / "fr").glob("*.md"), ROOT / "README.fr.md", ROOT / "docs" / "presentation" / "slides.fr.md"]
# No prose: code, addresses, the targets of links, tags.
NO_WORDS = (r"^```.*?^```$", r"^    .*$", r"`[^`]*`", r"\]\([^)]*\)", r"https?://\S+", r"<[^>]*>", r"^---\n.*?^---$")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
ELISION = re.compile(r"^(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quelqu)['’]", re.I)
POSSESSIVE = re.compile(r"['’](?:s|t|re|ve|ll|d)?$")


def words_of(page: Path) -> Iterator[str]:
    """Yield the words of a page's prose, in small letters; abbreviations and names of classes are left out."""
    text = page.read_text(encoding="utf-8")
    for pattern in NO_WORDS:
        text = re.sub(pattern, " ", text, flags=re.M | re.S if "```" in pattern or "---" in pattern else re.M)
    for word in WORD.findall(text):
        bare = ELISION.sub("", word) if page in FRENCH else POSSESSIVE.sub("", word)
        if len(bare) > 2 and bare[1:].islower():  # neither an abbreviation nor a name like BatchResult
            yield bare.lower().replace("’", "'")


def pages(language: str) -> list[Path]:
    if language == "fr":
        return FRENCH
    everything = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "client" / "README.md"]
    return [page for page in everything if page not in FRENCH]


@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_word_is_in_the_dictionary_or_in_our_own_list(language: str):
    dictionary = SpellChecker(language=language)
    own = set(OWN.read_text(encoding="utf-8").split())
    unknown: Counter[str] = Counter()
    for page in pages(language):
        for word in words_of(page):
            if word not in own and word not in dictionary:
                unknown[f"{page.relative_to(ROOT)}: {word}"] += 1
    assert sorted(unknown) == [], "mend these words, or add them to tests/docs/words.txt"


def test_misspelt_word_is_found():
    assert "recieve" not in SpellChecker(language="en")
    assert "développpement" not in SpellChecker(language="fr")


def test_own_words_are_sorted():
    own = OWN.read_text(encoding="utf-8").split()
    assert own == sorted(set(own))
