"""Readiness in the Open Inference Protocol: what is said of a model that nobody can load."""

import asyncio
from pathlib import Path

import httpx
import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

from api.main import create_app, serve
from shared.config import Settings
from shared.db import make_engine, session_scope
from shared.registry import add
from tests.databases import migrate


def test_version_that_cannot_be_loaded_is_listed_as_unavailable_and_not_ready(tmp_path: Path) -> None:
    url, models = f"sqlite:///{tmp_path / 'guichet.db'}", tmp_path / "models"
    migrate(url)
    joblib.dump(LogisticRegression().fit(np.arange(20.0)[:, None], np.arange(20) > 9), tmp_path / "model.joblib")
    (tmp_path / "rows.csv").write_text("x\n" + "\n".join(map(str, np.arange(20.0))) + "\n")
    engine = make_engine(url)
    with session_scope(engine) as session:
        for name in ("sound", "torn"):
            add(session, tmp_path / "model.joblib", reference=tmp_path / "rows.csv", name=name, models_dir=models)
    engine.dispose()
    (models / "torn" / "1" / "model.joblib").write_bytes(b"torn")
    app = create_app(Settings(runtime="sync", auth="open", data_dir=tmp_path, database_url=url))

    async def ask() -> tuple[dict[str, httpx.Response], httpx.Response, httpx.Response]:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(serve(app)), base_url="http://x") as http,
        ):
            ready = {name: await http.get(f"/v2/models/{name}/ready") for name in ("sound", "torn")}
            everything = await http.post("/v2/repository/index")
            return ready, everything, await http.post("/v2/repository/index", json={"ready": True})

    ready, everything, only_ready = asyncio.run(ask())
    assert (ready["sound"].status_code, ready["sound"].json()) == (200, {"name": "sound", "ready": True})
    assert (ready["torn"].status_code, ready["torn"].json()) == (503, {"name": "torn", "ready": False})
    sound, torn = everything.json()
    assert (sound["state"], sound["reason"]) == ("READY", "")
    assert torn["state"] == "UNAVAILABLE"
    assert "model.joblib" in torn["reason"]
    assert only_ready.json() == [sound]
