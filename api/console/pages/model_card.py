"""The page of a model card, which prints well: what a version is for, its data, its figures, its limits."""

import re
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import ask
from api.console.pages.models import read_model
from api.console.rendering import page


@dataclass(slots=True)
class Block:
    """A heading, a paragraph, a list or a table of a page in Markdown."""

    kind: str  # heading, text, list or table
    level: int = 0
    text: str = ""
    rows: list[list[str]] = field(default_factory=list)  # of a table, the first its head; of a list, one cell each


async def card_page(request: Request, name: str) -> Response:
    """Return the card of a version: for one that was trained here, with the page that its training wrote."""
    model = await read_model(request, name)
    path = f"/models/{model['model']}/versions/{model['model_version']}/card"
    reply = await ask(request, "GET", path, headers={"Accept": "text/markdown"})
    blocks = read_markdown(reply.content.decode()) if reply.status == 200 else []
    return await page(
        request, "card.html", name=name, model=model, card=model["card"], blocks=blocks, facts=_facts(model)
    )


def _facts(model: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a version's scorer that are plain values."""
    return {name: value for name, value in model["scorer"].items() if isinstance(value, str | int | float)}


def read_markdown(text: str) -> list[Block]:
    """Return the blocks of a page as the service writes it: headings, paragraphs, lists and tables, no more."""
    blocks: list[Block] = []
    for line in text.splitlines():
        last = blocks[-1] if blocks else None
        if heading := re.match(r"(#{1,6}) (.*)", line):
            blocks.append(Block("heading", len(heading[1]), _plain(heading[2])))
        elif line.startswith("- "):
            _rows_of(blocks, last, "list").append([_plain(line[2:])])
        elif line.startswith("|"):
            cells = [_plain(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if any(cell != "---" for cell in cells):
                _rows_of(blocks, last, "table").append(cells)
        elif line.strip():
            blocks.append(Block("text", text=_plain(line)))
        elif last is not None and last.kind in ("list", "table"):
            blocks.append(Block("end"))
    return [block for block in blocks if block.kind != "end"]


def _rows_of(blocks: list[Block], last: Block | None, kind: str) -> list[list[str]]:
    if last is None or last.kind != kind:
        last = Block(kind)
        blocks.append(last)
    return last.rows


def _plain(text: str) -> str:
    """Return a text without its marks."""
    return re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)`", "", text))
