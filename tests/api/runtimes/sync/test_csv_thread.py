"""The process that scores files in the sync runtime: it stays for the next file, and ends when none comes."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.main import serve
from api.runtimes.sync.model_process import ModelProcess
from tests.support.small_service import small_service


async def score_file(http: httpx2.AsyncClient) -> None:
    sent = await http.post("/models/m/predict_csv", content=b"x\n1.5\n", headers={"Content-Type": "text/csv"})
    assert sent.status_code == 202, sent.text
    job = await http.get(f"/jobs/{sent.json()['id']}", headers={"Prefer": "wait=60"})
    assert job.json()["status"] == "succeeded"


@pytest.mark.parametrize(("seconds", "count"), [(60.0, 1), (0.0, 2)], ids=["stays", "has ended"])
def test_process_of_files_stays_for_the_next_file_of_its_model_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, count: int
) -> None:
    app = small_service(tmp_path, "m")
    monkeypatch.setattr("api.runtimes.sync.csv_thread.LINGER_SECONDS", seconds)
    twins: list[Any] = []
    make_twin = ModelProcess.twin

    def twin(self: ModelProcess) -> ModelProcess:
        twins.append(make_twin(self))
        return twins[-1]

    monkeypatch.setattr(ModelProcess, "twin", twin)

    async def ask() -> None:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(serve(app)), base_url="http://localhost") as http,
        ):
            await score_file(http)
            while seconds == 0.0 and not twins[0]._is_closed:
                await asyncio.sleep(0.01)
            await score_file(http)

    asyncio.run(ask())
    assert len(twins) == count
    assert all(process._is_closed for process in twins)  # also that of the service that has stopped
