"""The French pages: set as a printer would, and there for everyone whom an English page is for."""

import json
import re

import pytest

from api.console.language import catalogue
from scripts.generate import french
from tests.support.stack import ROOT

DOCS = ROOT / "docs"
# Home, user guides, and the notebook; test_tutorials.py has the other tutorials.
IN_BOTH = {
    "index.md": "index.md",
    "console.md": "console.md",
    "readers/analyst.md": "analyste.md",
    "readers/client-program.md": "programme-client.md",
    "readers/data-scientist.md": "data-scientist.md",
    "readers/operator.md": "exploitant.md",
    "readers/student.md": "etudiant.md",
    "tutorials/churn.ipynb": "churn.ipynb",
}
# The vocabulary of docs/fr/index.md has another word for these: job, worker, fiche, résultat réel, déclencheur.
OTHER_WORDS = (
    r"tâches?(?! Celery)",
    "processus de calcul",
    "cartes?",
    r"l[’']issue",
    "issues (?!des)",
    "triggers?",
    "runtimes?",
    "librairies?",
    "digital",
)


@pytest.mark.parametrize("page", french.pages(), ids=lambda page: page.name)
def test_page_is_set(page):
    assert page.read_text(encoding="utf-8") == french.set_page(page), "run `make french`"


@pytest.mark.parametrize(
    ("text", "is_set"),
    [
        ("Pourquoi ? L'écart : 5 %, 1 234 lignes", "Pourquoi\u202f? L’écart\u00a0: 5\u00a0%, 1\u202f234 lignes"),
        ("« oui » ; `a ? b : c's`", "«\u00a0oui\u00a0»\u202f; `a ? b : c's`"),
        ("| a | 5 ms |\n|:--- | ---:|\n", "| a | 5\u00a0ms |\n|:--- | ---:|\n"),
        ("```\na : 'b'\n```\n", "```\na : 'b'\n```\n"),
        ("[l'un](a'b.md#c) : <span title='x : y'>", "[l’un](a'b.md#c)\u00a0: <span title='x : y'>"),
    ],
)
def test_prose_is_set_and_code_is_left(text: str, is_set: str):
    assert french.set_prose(text) == is_set
    assert french.set_prose(is_set) == is_set


def test_second_text_of_the_console_is_set_and_its_first_is_left():
    entry = 'ask = ["Is it {share} %? It\'s \\"n\\": x", "Est-ce {share} % ? C\'est « n » : x"]\n'
    is_set = (
        'ask = ["Is it {share} %? It\'s \\"n\\": x", "Est-ce {share}\u00a0%\u202f? C’est «\u00a0n\u00a0»\u00a0: x"]\n'
    )
    assert french.set_catalogue(f"[quality]\n{entry}") == f"[quality]\n{is_set}"
    assert french.set_catalogue(is_set) == is_set


def test_french_has_one_word_for_one_thing():
    for page in french.pages():
        text = "\n".join(second for _, second in catalogue().values()) if page == french.CATALOGUE else page.read_text()
        prose = re.sub(
            r"^```.*?^```$|`[^`\n]*`|\(\*\w[\w ]*\*\)", "", text, flags=re.M | re.S
        )  # code, and English terms
        assert [word for word in OTHER_WORDS if re.search(rf"\b(?:{word})\b", prose, re.I)] == [], page.name


def test_every_guide_is_there_in_french():
    readers = {f"readers/{path.name}" for path in (DOCS / "readers").glob("*.md")}
    assert readers < IN_BOTH.keys()
    assert [name for name in IN_BOTH if not (DOCS / name).exists()] == []
    assert [name for name in IN_BOTH.values() if not (french.FOLDER / name).exists()] == []


def test_notebook_in_french_has_the_cells_and_outputs_of_the_english_one():
    english, translated = (
        json.loads((DOCS / path).read_text(encoding="utf-8"))["cells"]
        for path in ("tutorials/churn.ipynb", "fr/churn.ipynb")
    )
    kinds = [(cell["id"], cell["cell_type"]) for cell in english]
    assert [(cell["id"], cell["cell_type"]) for cell in translated] == kinds
    for one, other in zip(english, translated, strict=True):
        assert (one == other) is (one["cell_type"] == "code"), one["id"]
