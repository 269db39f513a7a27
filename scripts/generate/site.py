"""What `make docs` asks of MkDocs beyond mkdocs.yml: folders in the nav, notebooks, and links that leave docs/.

Pages link to files of the repository as they lie there, so that the links work on a forge and in an editor. The site
holds a copy of each of these files below `repository/`: Markdown becomes a page, everything else a text file.
A notebook of docs/ becomes a page of the same name, with the outputs that are stored in it and a link to the file.
Only the functions that MkDocs calls need it; the test of the nav does without.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # MkDocs loads this file by its path: it can import nothing of ours
DOCS = ROOT / "docs"
OUTSIDE = "repository/"
_LOADED = re.compile(
    r"<(?:script|img|iframe|link(?![^>]*\brel=[\"']?(?:canonical|prev|next)\b))\b"  # these links are not followed
    r"[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*"
)
_NOTEBOOK = ".ipynb"
_TO_THE_FILE = {  # no Markdown link: these lead to the page
    "en": 'This page is a notebook: <a href="{}" download>download it</a> to run it yourself.',
    "fr": 'Cette page est un notebook : <a href="{}" download>téléchargez-le</a> pour l’exécuter vous-même.',
}
_LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def pages_of(nav: Iterable[Any]) -> Iterator[str]:
    """Yield the page of every entry of a nav, below its headings too."""
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(value, list):
            yield from pages_of(value)
        else:
            yield value


def expand_folders(nav: Iterable[Any]) -> list[Any]:
    """Return a nav in which folders (they end with a slash) and notebooks have become pages, README.md first."""
    entries: list[Any] = []
    for entry in nav:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(value, str) and value.endswith("/"):
            pages = sorted((DOCS / value).glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
            value = [f"{value}{page.name}" for page in pages]
        elif isinstance(value, list):
            value = expand_folders(value)
        else:
            value = page_of(value)
        entries.append(value if title is None else {title: value})
    return entries


def page_of(file: str) -> str:
    """Return the page of a file of docs/: Markdown and everything else is its own, a notebook has one beside it."""
    return file.removesuffix(_NOTEBOOK) + ".md" if file.endswith(_NOTEBOOK) else file


def file_of(page: str) -> Path:
    """Return the file of the repository from which a page of the site is made."""
    if page.startswith(OUTSIDE):
        return ROOT / page.removeprefix(OUTSIDE)
    notebook = (DOCS / page).with_suffix(_NOTEBOOK)
    return notebook if page.endswith(".md") and notebook.is_file() else DOCS / page


def linked_files(page: str, text: str) -> dict[str, Path]:
    """Return the files of the repository to which a page links, by the link's address as it is written."""
    files = {link: (file_of(page).parent / link).resolve() for link in _LINK.findall(text)}
    return {link: path / "README.md" if path.is_dir() else path for link, path in files.items()}


def address_of(file: Path) -> str:
    """Return where the site has a file of the repository, from the site's root."""
    if file.is_relative_to(DOCS):
        return page_of(file.relative_to(DOCS).as_posix())
    address = OUTSIDE + file.relative_to(ROOT).as_posix()
    return address if file.suffix == ".md" else address.replace("/.", "/") + ".txt"  # MkDocs drops hidden files


def turn_links(page: str, text: str) -> str:
    """Return a page's text with links that lead where the site has the files."""
    folder = posixpath.dirname(page) or "."
    files = linked_files(page, text)
    return _LINK.sub(lambda link: posixpath.relpath(address_of(files[link[1]]), folder), text)


def files_outside(pages: Iterable[str]) -> dict[str, Path]:
    """Return all files outside docs/ that these pages are, or link to over any number of pages, by their addresses."""
    waiting, files = [(page, file_of(page)) for page in pages], dict[str, Path]()
    while waiting:
        page, file = waiting.pop()
        if page in files or not file.is_file():  # MkDocs tells of a page or a link that leads nowhere
            continue
        files[page] = file
        if file.suffix in (".md", _NOTEBOOK):
            linked = linked_files(page, file.read_text(encoding="utf-8")).values()
            waiting += [(address_of(path), path) for path in linked if path.is_relative_to(ROOT)]
    return {page: file for page, file in files.items() if page.startswith(OUTSIDE)}


def on_config(config: Any) -> Any:  # noqa: ANN401 - MkDocs is installed in an environment of its own
    """Expand the folders of the nav, and name the pages of notebooks."""
    config["nav"] = expand_folders(config["nav"])
    return config


def notebook_page(file: Path, language: str) -> str:
    """Return a notebook as Markdown: its texts, its code, the outputs that are stored in it, and where the file is."""
    from nbconvert import MarkdownExporter  # installed beside MkDocs

    title, _, rest = MarkdownExporter().from_filename(str(file))[0].strip().partition("\n")
    return f"{title}\n\n{_TO_THE_FILE[language].format(file.name)}\n{rest}\n"


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401
    """Add the pages of notebooks, and the files that lie outside docs/."""
    from mkdocs.structure.files import File, InclusionLevel

    for address in [file.src_uri for file in files if file.src_uri.endswith(_NOTEBOOK)]:
        page = page_of(address)
        files.append(File.generated(config, page, content=notebook_page(DOCS / address, language_of(page))))
    pages = [*pages_of(config["nav"]), *(file.src_uri for file in files.documentation_pages())]
    for page, file in sorted(files_outside(pages).items()):
        content = file.read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:  # noqa: ANN401
    """Turn the links of a page."""
    return turn_links(page.file.src_uri, markdown)


def language_of(page: str) -> str:
    """Return the language of a page, for screen readers and hyphenation."""
    return "fr" if page.startswith("fr/") or page.endswith(".fr.md") else "en"


def on_page_context(context: Any, page: Any, config: Any, **_: Any) -> Any:  # noqa: ANN401
    """Let the theme speak the page's language; it writes the page right after this."""
    config["theme"]["language"] = language_of(page.file.src_uri)
    return context


def on_post_page(output: str, page: Any, **_: Any) -> str:  # noqa: ANN401
    """Refuse a page that would load something from another host."""
    if loaded := _LOADED.search(output):
        from mkdocs.exceptions import PluginError

        raise PluginError(f"{page.file.src_uri} would load from another host: {loaded[0]}")
    return output
