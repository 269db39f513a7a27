"""README.md and README.fr.md: the same commands, and one screen before the first heading."""

import re

import pytest

from tests.support.stack import ROOT

TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.fr.md")}
BLOCK = re.compile(r"^```\n(.*?)^```$", re.M | re.S)


def test_french_one_has_the_blocks_and_the_sections_of_the_english_one():
    english, french = TEXTS.values()
    assert BLOCK.findall(french) == BLOCK.findall(english)
    assert len(re.findall(r"^## ", french, re.M)) == len(re.findall(r"^## ", english, re.M))


@pytest.mark.parametrize("name", TEXTS)
def test_first_screen_is_a_sentence_a_picture_two_commands_a_conversation_and_links(name: str):
    screen = TEXTS[name].partition("\n## ")[0]
    assert len(screen.splitlines()) <= 32
    assert len(re.findall(r"^!\[.+\]\(docs/front(?:\.fr)?\.png\)$", screen, re.M)) == 1
    commands, conversation = BLOCK.findall(screen)
    assert [line.split("#")[0].strip() for line in commands.splitlines()] == ["make run", "make test"]
    assert conversation.startswith("$ ")
    assert len(re.findall(r"\]\(docs/", screen)) >= 8
