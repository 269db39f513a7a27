"""`python -m worker.drift`: the report as other programs read it, and a page that needs nothing beside it."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.shared.monitoring.test_counting import CARD, CHAMPION, counting, rows, store
from tests.support.databases import settings_of, sqlite_engine
from worker.drift import main


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A SQLite database with a champion, its reference rows, and 900 scored rows of another population."""
    card = CARD | {"features": [*CARD["features"], {"name": "<b>odd</b>", "type": "boolean", "nullable": True}]}  # type: ignore[misc]
    with sqlite_engine(tmp_path) as engine:
        folder = tmp_path / "models" / "m" / "1"
        folder.mkdir(parents=True)
        reference = [row | {"<b>odd</b>": None} for row in rows(400)]
        (folder / "reference.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reference))
        with engine.begin() as connection:
            connection.execute(text("UPDATE model_versions SET card = :card WHERE id = 1"), {"card": json.dumps(card)})
            connection.execute(text(CHAMPION))
        store(engine, rows(700))
        store(engine, [row | {"kind": None} for row in rows(200, shift=2.0)])
        yield engine


def report(folder: Path, *arguments: str) -> dict[str, Any]:
    with settings_of(
        RUNTIME="sync", DATABASE_URL=f"sqlite:///{folder / 'guichet.db'}", MODELS_DIR=str(folder / "models")
    ):
        assert main(["--out", str(folder / "out"), *arguments]) == 0
    content: dict[str, Any] = json.loads((folder / "out" / "drift_report.json").read_text())
    return content


@pytest.mark.parametrize("is_counted", [False, True])
def test_report_has_what_its_readers_look_for(engine: Engine, tmp_path: Path, is_counted: bool) -> None:
    if is_counted:
        counting(engine, tmp_path / "models").run(seconds=30)
    content = report(tmp_path, "--model", "m", "--limit", "200")
    assert (content["model"], content["version"], content["n_ref_rows"], content["n_prod_rows"]) == ("m", 1, 400, 200)
    assert content["thresholds"] == {"low": 0.1, "moderate": 0.2, "high": 0.3}
    assert content["features_total"] == len(content["all_features"]) == 3
    assert content["level"] == "high"
    assert content["top_psi"][0]["psi"] == max(each["psi"] for each in content["all_features"])
    assert content["top_missing_delta"][0] == {"feature": "kind", "missing_delta": 1.0}
    assert (content["score"] is not None) is is_counted  # only the service scores the reference
    assert report(tmp_path, "--model", "m@champion")["n_prod_rows"] == 900
    assert report(tmp_path, "--model", "m@1", "--limit", "5")["level"] == "too_few_rows"


def test_page_holds_a_plot_for_each_feature_and_loads_nothing(engine: Engine, tmp_path: Path) -> None:
    report(tmp_path, "--model", "m")
    page = (tmp_path / "out" / "drift_report.html").read_text()
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            assert all(name != "src" and not str(value).startswith("http") for name, value in attrs)

    Reader().feed(page)
    assert tags.count("svg") == 3
    assert "script" not in tags
    assert "link" not in tags
    assert "<b>" not in page


@pytest.mark.parametrize("model", ["ghost", "m@9", "m@challenger", "m@" + "9" * 30, ""])
def test_model_that_cannot_be_reported_on_is_told(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    with settings_of(
        RUNTIME="sync", DATABASE_URL=f"sqlite:///{tmp_path / 'guichet.db'}", MODELS_DIR=str(tmp_path / "models")
    ):
        assert main(["--model", model, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("drift: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1" * 20])
def test_limit_that_is_no_number_of_rows_is_refused(limit: str) -> None:
    with pytest.raises(SystemExit):
        main(["--model", "m", "--limit", limit])
