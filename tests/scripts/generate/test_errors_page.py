"""docs/errors.md: current, complete, and true about the codes that are no errors of the tree."""

import re
from pathlib import Path

from scripts.generate import errors as errors_page

ROOT = Path(__file__).resolve().parents[3]
SOURCES = "\n".join(
    path.read_text() for folder in ("api", "shared", "worker") for path in (ROOT / folder).rglob("*.py")
)


def test_page_of_errors_is_what_the_tree_says():
    assert errors_page.FILE.read_text() == errors_page.render(), "run `make errors`"


def test_every_code_has_one_cure_and_every_cure_a_code():
    codes = [kind.code for kind in errors_page.kinds_of()]
    assert sorted(codes) == sorted(errors_page.CURES)


def test_codes_of_jobs_and_faults_on_the_page_are_in_the_code():
    listed = errors_page.render().split("## Codes of a job")[1]
    codes = re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE)
    assert len(codes) > 10
    assert [code for code in codes if f'"{code}"' not in SOURCES] == []
