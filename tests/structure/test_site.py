"""The documentation's site, without MkDocs: its nav, and where links lead in it. `make docs` builds it strictly."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import yaml

from scripts.generate import site

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.M | re.S)
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +#+)?$", re.M)
ANCHORED = re.compile(r"\]\((?!https?:)([^)#\s]*\.md)?#([^)\s]+)\)")
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def test_every_page_of_the_docs_stands_once_in_the_nav_and_every_entry_of_the_nav_is_a_page():
    entries = Counter(site.pages_of(site.expand_folders(CONFIG["nav"])))
    assert [page for page, count in entries.items() if count > 1] == []
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    pages |= {path.relative_to(docs).with_suffix(".md").as_posix() for path in docs.rglob("*.ipynb")}
    assert len(pages) > 40
    assert sorted(pages - entries.keys()) == [], "write these pages into the nav of mkdocs.yml"
    assert sorted(page for page in entries if not site.file_of(page).is_file()) == []


@pytest.mark.parametrize(
    ("page", "link", "turned"),
    [
        ("index.md", "models.md", "models.md"),
        ("readers/student.md", "../tutorials/churn.ipynb", "../tutorials/churn.md"),
        ("repository/README.fr.md", "docs/fr/churn.ipynb", "../fr/churn.md"),
        ("index.md", "../README.md", "repository/README.md"),
        ("index.md", "../client/README.md", "repository/client/README.md"),
        ("decisions/0019-rooms.md", "../architecture.md", "../architecture.md"),
        ("space.md", "../Dockerfile.api", "repository/Dockerfile.api.txt"),
        ("repository/README.md", "docs/models.md", "../models.md"),
        ("repository/README.md", "docs/decisions", "../decisions/README.md"),
        ("repository/README.md", ".env.example", "env.example.txt"),
        ("repository/README.md", "client/README.md", "client/README.md"),
        ("repository/client/README.md", "../docs/models.md", "../../models.md"),
    ],
)
def test_link_leads_where_the_site_has_the_file(page: str, link: str, turned: str):
    text = f"See [it]({link}), [there]({link}#part) and [elsewhere](https://example.org/{link})."
    other = f"See [it]({turned}), [there]({turned}#part) and [elsewhere](https://example.org/{link})."
    assert site.turn_links(page, text) == other


def test_files_outside_the_docs_that_the_site_needs_are_those_of_the_nav_and_what_pages_link_to():
    files = site.files_outside(site.pages_of(site.expand_folders(CONFIG["nav"])))
    assert files["repository/README.md"] == ROOT / "README.md"
    assert files["repository/Dockerfile.api.txt"] == ROOT / "Dockerfile.api"
    assert all(page.startswith("repository/") and path.is_file() for page, path in files.items())


def test_a_page_that_loads_something_from_another_host_is_noticed():
    loads = ('<script src="https://cdn.example/x.js">', "<link rel=icon href=//cdn.example/x.png>")
    assert all(site._LOADED.search(tag) for tag in loads)
    assert not site._LOADED.search('<link rel="canonical" href="http://127.0.0.1:8008/index.html">')
    assert not site._LOADED.search('<a href="https://example.org">there</a><script src="assets/x.js">')


@pytest.mark.parametrize(
    ("page", "language"),
    [("index.md", "en"), ("fr/index.md", "fr"), ("repository/README.fr.md", "fr"), ("presentation/slides.fr.md", "fr")],
)
def test_page_names_its_language(page: str, language: str):
    assert site.language_of(page) == language


def headings_of(text: str) -> list[str]:
    """Return the headings of a page as they are read: without code fences, marks and the targets of links."""
    text = FENCE.sub("", text)
    return [re.sub(r"!?\[([^\]]*)\]\([^)]*\)|[`*]|<[^>]+>", r"\1", line).strip() for line in HEADING.findall(text)]


def anchor_on_github(heading: str) -> str:
    """Return the anchor that GitHub gives a heading: accents stay."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchor_on_the_site(heading: str) -> str:
    """Return the anchor that MkDocs gives a heading: accents go, hyphens are one."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def test_anchor_of_a_link_leads_to_its_heading_on_the_site_and_on_github():
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "client" / "README.md"]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    missing, count = [], 0
    for page, text in texts.items():
        for link, anchor in ANCHORED.findall(FENCE.sub("", text)):
            target = texts[(page.parent / link).resolve() if link else page]
            own = set(re.findall(r'<a id="([^"]+)"></a>', target))
            for slug in (anchor_on_github, anchor_on_the_site):
                count += 1
                if anchor not in own and anchor not in map(slug, headings_of(target)):
                    missing.append(f"{page.relative_to(ROOT)}: {link}#{anchor} ({slug.__name__})")
    assert count > 200
    assert missing == [], 'where the two differ, write <a id="..."></a> above the heading'


@pytest.mark.parametrize(
    ("heading", "on_github", "on_the_site"),
    [
        ("Où sont passés vos fichiers", "où-sont-passés-vos-fichiers", "ou-sont-passes-vos-fichiers"),
        ("6. Pourquoi ce score\u202f?", "6-pourquoi-ce-score", "6-pourquoi-ce-score"),
        ("Keys & scopes", "keys--scopes", "keys-scopes"),
    ],
)
def test_anchors_are_computed_as_both_do(heading: str, on_github: str, on_the_site: str):
    assert (anchor_on_github(heading), anchor_on_the_site(heading)) == (on_github, on_the_site)
