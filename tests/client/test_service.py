"""The client and a running service, on both runtimes."""

import asyncio
from itertools import islice

import httpx2
import pytest
from guichet import AsyncClient, Client, Refused, TimedOut

from tests.conftest import example_rows
from tests.contracts.helpers import paused
from tests.support.stack import Stack


def test_row_is_scored_as_the_service_scores_it(guichet, client, attrition_row):
    result = guichet.predict(attrition_row)
    stored = client.get(f"/jobs/{result.job_id}").json()["result"]
    assert result.body == stored
    assert (result.model, result.prediction, result.label) == ("attrition", stored["prediction"], stored["label"])
    assert 0 <= result.probability <= 1


def test_named_model_and_version_are_used(guichet, credit_row):
    result = guichet.predict(credit_row, model="credit", version=1, timeout=5)
    assert (result.model, result.model_version) == ("credit", 1)
    with pytest.raises(Refused) as caught:
        guichet.predict(credit_row, model="credit", version=99)
    assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_ticket_is_taken_waited_for_and_read(guichet, attrition_row):
    job = guichet.submit(attrition_row)
    assert job.wait(timeout=20).status == "succeeded"
    assert job.result().body == guichet.predict(attrition_row).body | {
        name: job.result().body[name] for name in ("job_id", "request_id", "latency_ms")
    }
    again = guichet.job(job.id)
    assert again.info == job.info


def test_same_key_gives_the_same_job(guichet, attrition_row):
    first, again = (guichet.submit(attrition_row, idempotency_key="client-once") for _ in range(2))
    assert first.id == again.id


def test_bad_row_lists_its_faults(guichet, attrition_row):
    with pytest.raises(Refused) as caught:
        guichet.predict(attrition_row | {"age": 21, "vile": "Lyon"})
    assert (caught.value.status, caught.value.code) == (422, "invalid_row")
    assert ("/features/vile", "unknown_feature") in {(fault.pointer, fault.code) for fault in caught.value.faults}


def test_batch_keeps_its_order_and_its_faults(guichet):
    rows = [*example_rows("attrition")[:2], {"age": "old"}]
    result = guichet.predict_batch(rows)
    assert [(item.index, item.status) for item in result.items] == [
        (0, "succeeded"),
        (1, "succeeded"),
        (2, "failed"),
    ]
    assert result.has_failures
    assert result.items[2].errors
    job = guichet.submit_batch(rows[:2])
    assert [item.prediction for item in job.result(timeout=20).items] == [item.prediction for item in result.items[:2]]
    with pytest.raises(Refused):
        guichet.predict_batch(rows, on_error="abort")


def test_jobs_are_listed_newest_first_over_pages(guichet, attrition_row):
    made = [guichet.submit(attrition_row).wait().id for _ in range(5)]
    listed = [job.id for job in islice(guichet.jobs(status="succeeded", model="attrition", page_size=2), 5)]
    assert listed == made[::-1]
    with pytest.raises(Refused) as caught:
        next(iter(guichet.jobs(model="no-such-model")))
    assert caught.value.status == 404


def test_models_are_listed(guichet):
    models = {model.model: model for model in guichet.models()}
    assert models.keys() >= {"attrition", "credit", "energy"}
    assert models["attrition"].is_default
    assert models["attrition"].aliases["champion"] == 1


def test_unknown_job_is_refused(guichet):
    with pytest.raises(Refused) as caught:
        guichet.job("00000000-0000-7000-8000-000000000000")
    assert caught.value.status == 404


def test_queued_job_is_canceled_once_and_for_all(queue: Stack, attrition_row):
    with paused(queue), Client(queue.url) as guichet:
        job = guichet.submit(attrition_row)
        with pytest.raises(TimedOut, match="still queued"):
            job.wait(timeout=0.3)
        assert job.cancel().status == "canceled"
        assert job.cancel().status == "canceled"
    with Client(queue.url) as guichet:
        done = guichet.submit(attrition_row).wait()
        with pytest.raises(Refused, match="already ended") as caught:
            done.cancel()
        assert caught.value.status == 409


def test_ended_job_is_erased_for_its_owner(guichet, command, attrition_row):
    row = attrition_row | {"revenu_mensuel": attrition_row["revenu_mensuel"] + 31}  # equal ones share explanations
    job = guichet.submit(row).wait()
    erasure = guichet.erase(job.id, reason="a test")
    assert (erasure.id, erasure.erased, erasure.rows) == (job.id, (job.id,), 1)
    with pytest.raises(Refused, match="This job was erased at") as caught:
        guichet.erase(job.id, reason="a test")
    assert (caught.value.status, caught.value.code) == (410, "gone")
    done = command("wait", job.id)
    assert (done.returncode, "This job was erased at" in done.stderr) == (2, True)
    other = guichet.submit(row).wait()
    done = command("erase", other.id, "--reason", "a test")
    assert (done.returncode, done.stdout) == (0, f"The job {other.id} is erased (1 row).\n")


def test_prediction_that_takes_longer_than_the_caller_waits_is_given_up(queue: Stack, attrition_row):
    with paused(queue), Client(queue.url) as guichet, pytest.raises(TimedOut) as caught:
        guichet.predict(attrition_row, wait=0.5)
    with Client(queue.url) as guichet:
        assert guichet.job(caught.value.job_id).wait(timeout=20).status == "succeeded"


def test_waiting_begins_before_and_ends_after_the_worker_is_back(queue: Stack, attrition_row):
    with Client(queue.url) as guichet:
        with paused(queue):
            job = guichet.submit(attrition_row)
        assert job.wait(timeout=20).status == "succeeded"


def test_asynchronous_client_does_the_same(stack: Stack, attrition_row):
    async def talk() -> None:
        async with AsyncClient(stack.url) as guichet:
            results = await asyncio.gather(*(guichet.predict(attrition_row) for _ in range(5)))
            assert len({result.job_id for result in results}) == 5
            assert len({result.probability for result in results}) == 1
            job = await guichet.submit(attrition_row)
            assert (await (await job.wait(timeout=20)).result()).prediction == results[0].prediction
            assert (await (await guichet.job(job.id)).refresh()).status == "succeeded"
            batch = await guichet.submit_batch([attrition_row])
            assert len((await batch.result()).items) == 1
            assert not (await guichet.predict_batch([attrition_row])).has_failures
            newest = [job.id async for job in guichet.jobs(page_size=200)]
            assert newest[1] == batch.id
            assert {model.model for model in await guichet.models()} >= {"attrition"}
            with pytest.raises(Refused):
                await job.cancel()

    asyncio.run(talk())


def test_http_clients_do_not_leak_connections(stack: Stack, attrition_row):
    guichet = Client(stack.url)
    guichet.predict(attrition_row)
    guichet.close()
    with pytest.raises(RuntimeError):
        guichet.predict(attrition_row)
    assert isinstance(guichet._http, httpx2.Client)
