"""docs/tutorials/churn.ipynb: every cell runs before a service, and prints what is stored in the notebook."""

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.support.stack import ROOT, Stack

FILE = ROOT / "docs" / "tutorials" / "churn.ipynb"
SECONDS = 300  # a cell that registers a model, on a slow machine


def printed(cell: Any) -> str:
    """Return what a cell printed and showed, as text; a stream may come in several pieces."""
    texts = [output["text"] if "text" in output else output["data"]["text/plain"] for output in cell.outputs]
    return "".join(texts).strip()


@pytest.mark.flow
def test_notebook_runs_from_top_to_bottom_and_shows_what_it_printed(
    taught: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {
        "GUICHET_URL": taught.url,
        "IPYTHONDIR": str(tmp_path),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }.items():
        monkeypatch.setenv(name, value)
    stored, run = (nbformat.read(FILE, as_version=4) for _ in range(2))
    place = {"metadata": {"path": str(FILE.parent)}}
    nbclient.NotebookClient(run, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    pairs = [(one, other) for one, other in zip(stored.cells, run.cells, strict=True) if one.cell_type == "code"]
    assert len(pairs) > 12
    for one, other in pairs:
        assert printed(one) == printed(other), one.source


def test_notebook_holds_nothing_of_the_machine_on_which_it_ran():
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    text = FILE.read_text(encoding="utf-8")
    assert not any(word in text for word in ("/tmp/", "/home/", "/root/", "Traceback"))
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(outputs) > 12
    assert {output.output_type for output in outputs} <= {"stream", "execute_result"}
