"""`make architecture`: write the table of rooms in docs/architecture.md from their charters; a test compares them."""

import ast
import re
import sys
from pathlib import Path

from scripts.checkout import ROOT

FILE = ROOT / "docs" / "architecture.md"
_BEGIN, _END = "<!-- rooms: written by `make architecture` -->\n", "<!-- end of rooms -->\n"

# From the bottom up: a room imports only rooms of earlier lines. `__main__.py` is an entry, and exempt.
LAYERS: dict[str, tuple[frozenset[str], ...]] = {
    "shared": (
        frozenset({"reasons"}),
        frozenset({"background", "child", "faults", "files", "stdout", "validation_errors", "version"}),
        frozenset({"config", "errors"}),
        frozenset({"broker", "cards", "database"}),
        frozenset({"encoding", "tables"}),
        frozenset({"observability", "scoring", "startup"}),
        frozenset({"csv"}),
        frozenset({"packages"}),
        frozenset({"explanations", "monitoring"}),
        frozenset({"comparison", "training"}),
        frozenset({"registry"}),
        frozenset({"jobs", "reference", "views"}),
        frozenset({"rescoring"}),
        frozenset({"commands", "handlers"}),
    ),
    "api": (
        frozenset({"http", "logs", "schemas"}),
        frozenset({"models"}),
        frozenset({"auth"}),
        frozenset({"check", "runtimes"}),
        frozenset({"keys", "probe", "services"}),
        frozenset({"deps", "errors", "health", "jobs", "monitoring"}),
        frozenset({"parameters"}),
        frozenset({"console", "fast_path", "files", "known_names", "protocols"}),
        frozenset({"openapi", "routes"}),
        frozenset({"main"}),
    ),
    "worker": (
        frozenset({"drift", "heartbeat", "parent", "probe"}),
        frozenset({"runtime"}),
        frozenset({"maintenance"}),
        frozenset({"schedule"}),
        frozenset({"timer"}),
        frozenset({"process"}),
        frozenset({"chunk_pipeline", "registrations"}),
        frozenset({"drain"}),
        frozenset({"main"}),
        frozenset({"tasks"}),
    ),
}


def rooms() -> list[Path]:
    """Return the folders of the product's packages that are rooms, from the bottom up; inner rooms follow theirs."""
    folders = []
    for package, layers in LAYERS.items():
        for layer in layers:
            tops = [path for name in sorted(layer) if (path := ROOT / package / name).is_dir()]
            folders += [room for top in tops for room in (top, *sorted(inner_rooms(top)))]
    return folders


def inner_rooms(room: Path) -> list[Path]:
    """Return the rooms inside a room, at every depth."""
    return [path.parent for path in room.rglob("__init__.py") if path.parent != room]


def charter(room: Path) -> str:
    """Return the charter of a room, as one paragraph."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split())


def render() -> str:
    """Return the page with the table of rooms as the charters have it now."""
    rows = [f"| `{room.relative_to(ROOT)}` | {charter(room)} |" for room in rooms()]
    table = "| room | charter |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    page = FILE.read_text(encoding="utf-8")
    return re.sub(re.escape(_BEGIN) + ".*" + re.escape(_END), lambda _: _BEGIN + table + _END, page, flags=re.S)


def main() -> int:
    """Write the page."""
    FILE.write_text(render(), encoding="utf-8")
    print(f"written: {FILE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
