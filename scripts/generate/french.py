"""`make french`: set the typography of the French pages and of the console's words as a printer would; a test compares.

No-break spaces before `:`, `;`, `!`, `?` and `%`, inside guillemets and inside numbers, so that no line begins with a
mark; typographic apostrophes. Code, targets of links, tags and what stands between blanks only stay as they are.
"""

import json
import re
from pathlib import Path

from scripts.checkout import ROOT

FOLDER = ROOT / "docs" / "fr"
CATALOGUE = ROOT / "api" / "console" / "words.toml"
_NOTEBOOK = ".ipynb"
_TEXTS = re.compile(r'^(\w+ = \[".*", ")(.*)("\])$', re.M)  # of the catalogue: the second one is French
# Fences, inline code, the front matter of slides, targets of links, addresses, tags (a comment is prose: a note).
_KEPT = re.compile(
    r"^```.*?^```$|\A---\n.*?^---$|`[^`\n]*`|(?<=\])\([^)\s]*\)|<?https?://[^\s)>]+>?|<(?!!--)/?\w[^>]*>", re.M | re.S
)
_WIDE, _THIN = "\u00a0", "\u202f"
_BLANK = rf"[ {_WIDE}{_THIN}]"
_RULES = (
    (re.compile(rf"(?<=[^\s|]){_BLANK}(?=:(?:\s|$))", re.M), _WIDE),
    (re.compile(rf"(?<=[^\s|]){_BLANK}(?=[;!?](?:[\s*»|)]|$))", re.M), _THIN),
    (re.compile(rf"(?<=«){_BLANK}|{_BLANK}(?=»)"), _WIDE),
    (re.compile(rf"(?<=\d){_BLANK}(?=\d{{3}}(?!\d))"), _THIN),
    (re.compile(rf"(?<=[\d}}]){_BLANK}(?=(?:%|kWh|Ko|Mo|Go|ms|s)(?!\w))"), _WIDE),
    (re.compile(r"(?<=[^\W\d_])'(?=[\w«*\[\x00])"), "’"),
)


def pages() -> list[Path]:
    """Return the French pages and notebooks of the repository, and the catalogue of the console."""
    others = [ROOT / "README.fr.md", ROOT / "docs" / "presentation" / "slides.fr.md", CATALOGUE]
    return [*sorted(FOLDER.glob("*.md")), *sorted(FOLDER.glob(f"*{_NOTEBOOK}")), *others]


def set_prose(text: str) -> str:
    """Return a text in Markdown with its prose set. A text that is set stays as it is."""
    kept: list[str] = []

    def keep(part: re.Match[str]) -> str:
        kept.append(part[0])
        return "\x00"

    prose = _KEPT.sub(keep, text)
    for pattern, character in _RULES:
        prose = pattern.sub(character, prose)
    parts = iter(kept)
    return re.sub("\x00", lambda _: next(parts), prose)


def set_page(page: Path) -> str:
    """Return what a page's file is to hold."""
    text = page.read_text(encoding="utf-8")
    if page == CATALOGUE:
        return set_catalogue(text)
    return _set_notebook(text) if page.suffix == _NOTEBOOK else set_prose(text)


def set_catalogue(text: str) -> str:
    """Return a catalogue of texts, a line each with its English and its French one, with the French ones set."""
    return _TEXTS.sub(lambda entry: entry[1] + set_prose(entry[2]) + entry[3], text)


def _set_notebook(text: str) -> str:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = set_prose("".join(cell["source"])).splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    """Write every page whose typography is another one, and print its name."""
    for page in pages():
        content = set_page(page)
        if page.read_text(encoding="utf-8") != content:
            page.write_text(content, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
