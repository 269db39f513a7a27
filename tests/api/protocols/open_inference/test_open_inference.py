"""Readiness in the Open Inference Protocol: what is said of a model that nobody can load."""

import asyncio
from pathlib import Path

import httpx2

from api.main import serve
from tests.support.small_service import small_service


def test_version_that_cannot_be_loaded_is_listed_as_unavailable_and_not_ready(tmp_path: Path) -> None:
    app = small_service(tmp_path, "sound", "torn")
    (tmp_path / "models" / "torn" / "1" / "model.joblib").write_bytes(b"torn")

    async def ask() -> tuple[dict[str, httpx2.Response], httpx2.Response, httpx2.Response]:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(serve(app)), base_url="http://localhost") as http,
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
