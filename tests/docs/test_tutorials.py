"""docs/tutorials: each command and each Python block runs before a service, and prints what the page shows."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of, fits, reader
from tests.support.stack import ROOT, Stack

FOLDER = ROOT / "docs" / "tutorials"
# The first page lists the models of a new service, and others add some.
PAGES = sorted(FOLDER.glob("*.md"), key=lambda page: (page.stem != "first-prediction", page.stem))
IN_FRENCH = {
    "course-project": "projet-de-cours",
    "csv": "csv",
    "first-prediction": "premiere-prediction",
    "space": "espace",
}
# What a test cannot type, and what stands for it.
NOT_RUN = {
    "make run\n": "the service of the fixture",
    "docker build -t guichet . && docker run --rm -p 7860:7860 guichet\n": "make space-image tries the same stages",
    "export SPACE_ID=owner/name HF_TOKEN ADMIN_KEY\nmake deploy\nmake smoke URL=https://owner-name.hf.space\n": (
        "tests/scripts/space/test_deploy_space.py, before a hub of its own"
    ),
}


@pytest.mark.flow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_does_what_it_says(page: Path, taught: Stack, desk: Path, reader_env: dict[str, str]):
    shown = 0
    with reader(desk, reader_env, taught.url) as person:
        for block in blocks_of(page):
            if block.language == "console":
                assert block.text in NOT_RUN, f"{page.name}:{block.line}: nobody has tried this"
                continue
            printed = person.run(block)
            if block.output is not None:
                assert fits(block.output, printed), f"{page.name}:{block.line} prints\n{printed}"
                shown += 1
    assert shown >= 2


@pytest.mark.parametrize(("page", "french"), sorted(IN_FRENCH.items()))
def test_page_in_french_has_the_blocks_of_the_english_one(page: str, french: str):
    english, translated = blocks_of(FOLDER / f"{page}.md"), blocks_of(ROOT / "docs" / "fr" / f"{french}.md")
    assert [replace(block, line=0) for block in translated] == [replace(block, line=0) for block in english]


def test_every_tutorial_is_there_in_french():
    assert sorted(IN_FRENCH) == sorted(page.stem for page in PAGES)


def test_everything_that_is_not_run_is_on_a_page():
    texts = {block.text for page in PAGES for block in blocks_of(page) if block.language == "console"}
    assert texts == NOT_RUN.keys()


@pytest.mark.parametrize(
    ("shown", "printed", "is_same"),
    [
        ("a … c", "a b c", True),
        ("a … c\n", "a b\nb c", True),
        ("a\n…", "a\nb\nc\n", True),
        ("a … c", "a b d", False),
        ("a.c", "abc", False),
        ("a", "a b", False),
    ],
)
def test_shown_output_may_leave_out_what_changes_and_nothing_else(shown: str, printed: str, is_same: bool):
    assert fits(shown, printed) is is_same
