"""Releases: a tag, a version and a section of the changelog that agree."""

import tomllib

import pytest
import yaml

from scripts.checkout import ROOT, Failure
from scripts.release.notes import main, notes
from shared.version import VERSION

CHANGELOG = """# Changelog

## 1.3.0 (unreleased)

### Added
- More.

## 1.2.0 (2026-05-04)

### Fixed
- A thing.

## 1.1.0 (2026-01-02)
- Old.
"""


def test_notes_of_a_tag_are_its_section_alone():
    assert notes("v1.2.0", CHANGELOG, version="1.2.0") == "### Fixed\n- A thing."
    assert notes("v1.1.0", CHANGELOG, version="1.1.0") == "- Old."


@pytest.mark.parametrize(
    ("tag", "version", "words"),
    [
        ("1.2.0", "1.2.0", "is no version"),
        ("v1.2", "1.2.0", "is no version"),
        ("v1.2.1", "1.2.0", "the tag says 1.2.1"),
        ("v1.4.0", "1.4.0", "has no section"),
        ("v1.3.0", "1.3.0", "the day of the release"),
    ],
)
def test_tag_that_must_not_be_released_is_refused_with_a_sentence(tag: str, version: str, words: str):
    with pytest.raises(Failure, match=words):
        notes(tag, CHANGELOG, version=version)


def test_wrong_tag_ends_the_command_with_an_error(capsys: pytest.CaptureFixture[str]):
    assert main(["v0.0.0"]) == 1
    assert "guichet: the tag says 0.0.0" in capsys.readouterr().err
    assert main([]) == 2


def test_version_of_the_citation_and_of_the_project_is_that_of_the_service():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
