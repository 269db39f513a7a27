"""MLflow's scoring server: what the event loop does itself, and what it leaves to threads."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.main import serve
from shared.cards.validator import RowValidator, Tally
from tests.support.small_service import small_service


def test_many_rows_are_checked_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = small_service(tmp_path, "m")
    validate_many = RowValidator.validate_many
    on_loop: dict[int, bool] = {}

    def watch(self: RowValidator, rows: Any, tally: Tally | None = None) -> Any:
        on_loop[len(rows)] = threading.current_thread() is threading.main_thread()
        return validate_many(self, rows, tally)

    async def ask() -> None:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(serve(app)), base_url="http://localhost") as http,
        ):
            monkeypatch.setattr(RowValidator, "validate_many", watch)
            for count in (20, 21):
                answer = await http.post("/models/m/invocations", json={"dataframe_records": [{"x": 1.5}] * count})
                assert len(answer.json()["predictions"]) == count

    asyncio.run(ask())
    assert on_loop == {20: True, 21: False}
