"""MLflow's scoring server: what the event loop does itself, and what it leaves to threads."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from api.main import create_app, serve
from shared.config import Settings
from shared.db import make_engine, session_scope
from shared.registry import add
from shared.rows import RowValidator
from tests.databases import migrate


def test_many_rows_are_checked_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, models = f"sqlite:///{tmp_path / 'guichet.db'}", tmp_path / "models"
    migrate(url)
    joblib.dump(LogisticRegression().fit(np.arange(20.0)[:, None], np.arange(20) > 9), tmp_path / "model.joblib")
    (tmp_path / "rows.csv").write_text("x\n" + "\n".join(map(str, np.arange(20.0))) + "\n")
    engine = make_engine(url)
    with session_scope(engine) as session:
        add(session, tmp_path / "model.joblib", reference=tmp_path / "rows.csv", name="m", models_dir=models)
    engine.dispose()
    app = create_app(Settings(runtime="sync", auth="open", data_dir=tmp_path, database_url=url))
    validate_many = RowValidator.validate_many
    on_loop: dict[int, bool] = {}

    def watch(self: RowValidator, rows: Any) -> Any:
        on_loop[len(rows)] = threading.current_thread() is threading.main_thread()
        return validate_many(self, rows)

    async def ask() -> None:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(serve(app)), base_url="http://x") as http,
        ):
            monkeypatch.setattr(RowValidator, "validate_many", watch)
            for count in (20, 21):
                answer = await http.post("/models/m/invocations", json={"dataframe_records": [{"x": 1.5}] * count})
                assert len(answer.json()["predictions"]) == count

    asyncio.run(ask())
    assert on_loop == {20: True, 21: False}
