"""The sync runtime with rows that loop, crash, exit or panic, and a model that loads slowly: the others go on."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
from sqlalchemy import text

from shared.database.engine import make_engine
from tests.faults.models import CRASHES, EXITS, GOOD, KEEPS_GIL, LOOPS, PANICS, RAISES, Heavy, Trap
from tests.support.stack import Stack, environment, free_port

pytestmark = pytest.mark.long

FEATURES = pd.DataFrame({"mark": [0.0, 1.0, 2.0, 3.0] * 5, "chance": [0.05 * step for step in range(20)]})


def add(stack: Stack, name: str, model: Trap) -> None:
    joblib.dump(model.fit(FEATURES, [0, 1] * 10), stack.folder / f"{name}.joblib")
    FEATURES.to_csv(stack.folder / "rows.csv", index=False)
    stack.run(
        "shared.registry", "add", str(stack.folder / f"{name}.joblib"),
        "--reference", str(stack.folder / "rows.csv"), "--name", name, "--labels", "0=no,1=yes",
    )  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A sync service with two models of the same kind."""
    folder, port = tmp_path_factory.mktemp("sync-rows"), free_port()
    env = environment(
        folder, runtime="sync", port=port, database_url=f"sqlite:///{folder / 'guichet.db'}", models=folder / "models"
    )
    stack = Stack("sync", env | {"DEFAULT_MODEL": "trap"}, folder, port)
    stack.run("alembic", "upgrade", "head")
    add(stack, "trap", Trap())
    add(stack, "other", Trap())
    try:
        stack.start_api()
        wait_for_models(stack, "trap@1", "other@1")
        yield stack
    finally:
        stack.stop_all()


def wait_for_models(stack: Stack, *labels: str) -> None:
    deadline = time.monotonic() + 60
    with stack.client() as client:
        while not all(client.get(f"/v2/models/{label.split('@')[0]}/ready").status_code == 200 for label in labels):
            assert time.monotonic() < deadline, stack.logs()
            time.sleep(0.1)


def ask(stack: Stack, model: str, mark: float, **options: Any) -> httpx2.Response:
    with stack.client() as client:
        features = {"mark": mark, "chance": 0.25}
        return client.post(f"/models/{model}/predict", json={"features": features, **options}, timeout=90)


def check_good(answer: httpx2.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.json()["probability"] == 0.25


def job_of(stack: Stack, answer: httpx2.Response) -> dict[str, Any]:
    with stack.client() as client:
        job: dict[str, Any] = client.get(f"/jobs/{answer.json()['job_id']}").json()
    return job


def seconds_of_others(stack: Stack, pending: "Future[httpx2.Response]") -> list[float]:
    """Ask the other model again and again while a request is pending; return how long each answer took."""
    took = []
    while not pending.done():
        began = time.monotonic()
        check_good(ask(stack, "other", GOOD))
        took.append(time.monotonic() - began)
    return took


@pytest.mark.parametrize("mark", [LOOPS, KEEPS_GIL])
def test_row_that_never_ends_fails_by_its_timeout_and_stops_no_other_model(stack: Stack, mark: float) -> None:
    """In Python, and in native code that keeps the interpreter's lock."""
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        pending = pool.submit(ask, stack, "trap", mark, timeout=3)
        took = seconds_of_others(stack, pending)
        answer = pending.result()
    assert 3 <= time.monotonic() - began < 12
    assert len(took) >= 3
    assert max(took) < 3
    assert answer.status_code == 504, answer.text
    job = job_of(stack, answer)
    assert (job["status"], job["error"]["code"]) == ("failed", "timeout")
    assert "timeout of 3 s" in job["error"]["message"]
    check_good(ask(stack, "trap", GOOD))


@pytest.mark.parametrize("mark", [EXITS, CRASHES])
def test_row_that_takes_its_process_down_fails_alone_after_three_attempts(stack: Stack, mark: float) -> None:
    with ThreadPoolExecutor(8) as pool:
        pending = [pool.submit(ask, stack, "trap", GOOD) for _ in range(3)]
        bad = pool.submit(ask, stack, "trap", mark)
        pending += [pool.submit(ask, stack, model, GOOD) for model in ("trap", "other", "trap")]
        for one in pending:
            check_good(one.result())
        answer = bad.result()
    assert answer.status_code == 500, answer.text
    job = job_of(stack, answer)
    assert (job["status"], job["attempts"], job["error"]["code"]) == ("failed", 3, "worker_lost")
    check_good(ask(stack, "trap", GOOD))
    with stack.client() as client:
        health = client.get("/health").json()
    assert health["status"] == "degraded"
    assert any("trap@1 took its process down" in reason for reason in health["reasons"])


@pytest.mark.parametrize("mark", [PANICS, RAISES])
def test_row_on_which_the_model_raises_or_panics_fails_and_the_rest_of_its_batch_does_not(
    stack: Stack, mark: float
) -> None:
    rows = [{"mark": GOOD, "chance": 0.25}, {"mark": mark, "chance": 0.25}, {"mark": GOOD, "chance": 0.5}]
    with stack.client() as client:
        answer = client.post("/models/trap/predict_batch", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    assert [item.get("probability") for item in items] == [0.25, None, 0.5]
    assert [error["code"] for error in items[1]["errors"]] == ["model_failed"]


def csv_of(marks: list[float]) -> bytes:
    return ("mark,chance\n" + "".join(f"{mark},{index % 100 / 100}\n" for index, mark in enumerate(marks))).encode()


def upload(stack: Stack, model: str, marks: list[float]) -> str:
    with stack.client() as client:
        answer = client.post(
            f"/models/{model}/predict_csv", content=csv_of(marks), headers={"Content-Type": "text/csv"}
        )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def wait_for_file(stack: Stack, job_id: str, *, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    with stack.client() as client:
        while True:
            job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
            if job["finished_at"] is not None:
                return job
            assert time.monotonic() < deadline, (job, stack.logs())
            time.sleep(0.2)


def check_file(stack: Stack, job_id: str, marks: list[float], code: str) -> None:
    """Every row has its own score, but the guilty ones, which have this error."""
    bad = [index for index, mark in enumerate(marks) if mark != GOOD]
    with stack.client() as client:
        errors = client.get(f"/jobs/{job_id}/errors.csv").text.splitlines()[1:]
        assert [int(line.split(",")[0]) for line in errors] == [index + 1 for index in bad]
        assert all(code in line for line in errors)
    engine = make_engine(stack.database_url)
    with engine.connect() as connection:
        query = (
            "SELECT row_index, probability FROM model_inputs JOIN model_outputs ON input_id = model_inputs.id "
            "WHERE job_id = :id ORDER BY row_index"
        )
        counts = {row[0]: row[1] for row in connection.execute(text(query), {"id": job_id})}
    engine.dispose()
    assert counts == {index: pytest.approx(index % 100 / 100) for index in range(len(marks)) if index not in bad}


@pytest.mark.parametrize(("mark", "code"), [(EXITS, "worker_lost"), (PANICS, "model_failed")])
def test_row_that_ends_its_process_fails_alone_in_a_file_and_other_files_go_on(
    stack: Stack, mark: float, code: str
) -> None:
    """Also after the service was killed in the middle of it, and started again."""
    marks = [GOOD] * 60 + [mark] + [GOOD] * 40
    job_id = upload(stack, "trap", marks)
    other = wait_for_file(stack, upload(stack, "other", [GOOD] * 50), seconds=20)
    assert other["counts"]["succeeded"] == 50
    stack.stop("api", sig=signal.SIGKILL)
    stack.start_api()
    again = wait_for_file(stack, upload(stack, "trap", [GOOD] * 50), seconds=60)
    assert again["counts"]["succeeded"] == 50
    job = wait_for_file(stack, job_id, seconds=60)
    assert (job["status"], job["counts"]["succeeded"], job["counts"]["failed"]) == ("succeeded", 100, 1)
    check_file(stack, job_id, marks, code)


def test_file_of_a_model_that_never_answers_holds_up_no_other_file(stack: Stack) -> None:
    with stack.client() as client:
        answer = client.post(
            "/models/trap/predict_csv", content=csv_of([GOOD, LOOPS]), headers={"Content-Type": "text/csv"}
        )
        assert answer.status_code == 202, answer.text
        slow = answer.json()["id"]
        assert wait_for_file(stack, upload(stack, "other", [GOOD] * 50), seconds=15)["status"] == "succeeded"
        assert client.get(f"/jobs/{slow}").json()["finished_at"] is None
        client.post(f"/jobs/{slow}/cancel")


def test_model_that_loads_slowly_holds_up_neither_the_start_nor_other_models(stack: Stack) -> None:
    file = stack.folder / "loading"
    add(stack, "heavy", Heavy(str(file)))
    file.touch()
    stack.stop("api")
    began = time.monotonic()
    stack.start_api()
    assert time.monotonic() - began < 40
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(ask, stack, "heavy", GOOD)
        took = seconds_of_others(stack, pending)
        assert max(took) < 3
        answer = pending.result()
    assert answer.status_code == 503, answer.text
    assert "being loaded" in answer.json()["detail"]
    with stack.client() as client:
        assert any("heavy@1 is being loaded" in reason for reason in client.get("/health").json()["reasons"])
    file.unlink()
    wait_for_models(stack, "heavy@1")
    check_good(ask(stack, "heavy", GOOD))


def test_killed_service_leaves_no_process_behind(stack: Stack) -> None:
    """Also while a row never ends."""
    parent = psutil.Process(stack.processes["api"].pid)
    threading.Thread(target=lambda: ask_in_vain(stack), daemon=True).start()
    time.sleep(1)
    children = parent.children(recursive=True)
    assert children
    parent.kill()
    stack.processes.pop("api").wait(10)
    _, left = psutil.wait_procs(children, timeout=25)
    assert left == []
    stack.start_api()


def ask_in_vain(stack: Stack) -> None:
    with suppress(httpx2.TransportError):  # the service is killed meanwhile
        ask(stack, "trap", KEEPS_GIL, timeout=5)


def test_scores_over_the_process_are_those_of_the_model(stack: Stack) -> None:
    chances = np.round(np.linspace(0, 1, 50), 4)
    rows = [{"mark": GOOD, "chance": float(chance)} for chance in chances]
    with stack.client() as client:
        items = client.post("/models/other/predict_batch", json={"rows": rows}).json()["items"]
    assert [item["probability"] for item in items] == chances.tolist()
