"""When a request is sent again, how late, and with which key."""

import httpx2
import pytest
from guichet import ConnectionFailed, JobFailed, Refused, TimedOut
from guichet.transport import exchange

from tests.client.scripted import JOB_ID, Script, answer, broken, job, problem, result, run

ROW = {"age": 41}


@pytest.mark.parametrize(
    "trouble",
    [
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("silence"),
        httpx2.ReadTimeout("silence"),
        broken(),
        httpx2.RemoteProtocolError("server disconnected"),
        problem(429, "too_many_requests"),
        httpx2.Response(502, text="<html>bad gateway"),
        problem(503, "unavailable"),
        httpx2.Response(504, text="<html>gateway timeout"),
        problem(409, "conflict", "The first request is still being stored.", retry_after=1),
    ],
    ids=repr,
)
def test_passing_trouble_is_sent_again_with_the_same_key(pauses, trouble):
    script = Script(trouble, answer(202, job()))
    with script.client() as client:
        assert client.submit(ROW).id == JOB_ID
    first, second = script.headers("idempotency-key")
    assert first == second is not None
    assert script.bodies[0] == script.bodies[1]
    assert len(pauses) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "malformed_body"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (409, "conflict"),
        (413, "too_large"),
        (422, "invalid_row"),
        (500, "internal_error"),
    ],
)
def test_refusal_is_not_sent_again(pauses, status, code):
    script = Script(problem(status, code, "No", errors=[{"pointer": "/features/age", "code": "x", "message": "m"}]))
    with script.client() as client, pytest.raises(Refused, match="No") as caught:
        client.submit(ROW)
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, code, "r")
    assert [str(fault) for fault in caught.value.faults] == ["/features/age: m"]
    assert caught.value.__notes__ == ["/features/age: m"]
    assert pauses == []


def test_place_that_was_not_counted_to_its_end_says_so():
    place = {"position": 10_001, "eta_seconds": 9.5, "is_lower_bound": True}
    with Script(answer(202, job(queue=place)), answer(202, job())).client() as client:
        queues = [client.submit(ROW).info.queue for _ in range(2)]
    assert [(queue.position, queue.is_lower_bound) for queue in queues] == [(10_001, True), (1, False)]


def test_every_call_has_a_key_of_its_own(pauses):
    script = Script(*(answer(202, job()) for _ in range(3)))
    with script.client() as client:
        client.submit(ROW)
        client.submit(ROW)
        client.submit(ROW, idempotency_key="order-42")
    keys = script.headers("idempotency-key")
    assert len(set(keys)) == 3
    assert keys[2] == "order-42"


def test_pauses_grow_and_stop_at_the_number_of_retries(pauses):
    script = Script(*(httpx2.ConnectError("refused") for _ in range(4)))
    with (
        script.client(retries=3) as client,
        pytest.raises(ConnectionFailed, match=r"Nobody answers at .*guichet\.test"),
    ):
        client.submit(ROW)
    assert pauses == [0.5, 1, 2]


def test_last_answer_is_raised_when_the_service_stays_full(pauses):
    script = Script(*(problem(503, "unavailable", "The queue is full.", retry_after=7) for _ in range(3)))
    with script.client(retries=2) as client, pytest.raises(Refused, match="full") as caught:
        client.submit(ROW)
    assert caught.value.status == 503
    assert pauses == [7.5, 8]  # what it asked for, and the jitter on top


def test_pause_of_an_hour_is_not_waited_for(pauses):
    script = Script(problem(429, "too_many_requests", retry_after=3600))
    with script.client() as client, pytest.raises(Refused):
        client.submit(ROW)
    assert pauses == []


def test_jitter_takes_any_part_of_the_range():
    drawn = [exchange.backoff(3) for _ in range(300)]
    assert 0 <= min(drawn) < 1
    assert 3 < max(drawn) <= 4
    assert exchange.backoff(1000) <= 20


def test_timeout_of_every_attempt_is_told(pauses):
    script = Script(httpx2.ReadTimeout("silence"), httpx2.ReadTimeout("silence"))
    with script.client(retries=1) as client, pytest.raises(TimedOut, match="did not answer in time"):
        client.models()


def test_job_that_ran_out_of_its_own_time_is_not_run_again(pauses):
    failed = job("failed", error={"code": "timeout", "message": "it ran for more than 1 s"})
    script = Script(problem(504, "job_timeout", job_id=JOB_ID), answer(200, failed))
    with script.client() as client, pytest.raises(JobFailed, match="it ran for more than 1 s") as caught:
        client.predict(ROW)
    assert (caught.value.job_id, caught.value.status, caught.value.code) == (JOB_ID, "failed", "timeout")
    assert pauses == []


@pytest.mark.parametrize("status", ["canceled", "expired"])
def test_predicted_job_that_ended_otherwise_is_told(pauses, status):
    script = Script(problem(409, "conflict", job_id=JOB_ID), answer(200, job(status)))
    with script.client() as client, pytest.raises(JobFailed, match=status) as caught:
        client.predict(ROW)
    assert caught.value.status == status


def test_predict_asks_the_service_to_hold_its_answer_back_and_goes_on_with_a_ticket(pauses):
    script = Script(
        answer(202, job()), answer(200, job("running")), answer(200, job("succeeded", result=result(prediction=0)))
    )
    with script.client() as client:
        assert client.predict(ROW).prediction == 0
    assert script.headers("prefer") == ["wait=25", "wait=25", "wait=25"]
    assert [request.url.path for request in script.requests][1:] == [f"/prefix/jobs/{JOB_ID}"] * 2
    # It did not hold the second one back: a short pause, then it is asked again.
    assert pauses == [0.05]


def test_wait_gives_up_in_time_and_leaves_the_job(pauses):
    script = Script(*(answer(200, job("running")) for _ in range(5000)))
    with script.client() as client:
        running = client.job(JOB_ID)
        with pytest.raises(TimedOut, match=r"still running after 0\.05 seconds; it goes on") as caught:
            running.wait(timeout=0.05)
    assert caught.value.job_id == JOB_ID


def test_wait_does_not_wait_for_a_service_that_comes_back_too_late(pauses):
    script = Script(answer(200, job("running")), problem(503, "unavailable", retry_after=60))
    with script.client() as client:
        running = client.job(JOB_ID)
        with pytest.raises(Refused):
            running.wait(timeout=5)
    assert pauses == []


def test_cancel_whose_first_answer_was_lost_is_done(pauses):
    script = Script(answer(200, job("running")), broken(), problem(409, "conflict"), answer(200, job("canceled")))
    with script.client() as client:
        assert client.job(JOB_ID).cancel().status == "canceled"
    script = Script(answer(200, job("running")), problem(409, "conflict"), answer(200, job("succeeded")))
    with script.client() as client, pytest.raises(Refused):
        client.job(JOB_ID).cancel()


def test_retry_whose_first_answer_was_lost_is_done(pauses):
    failed = job("failed", "csv")
    script = Script(answer(200, failed), broken(), problem(409, "conflict"), answer(200, job("running", "csv")))
    with script.client() as client:
        assert client.job(JOB_ID).retry().status == "running"
    assert str(script.requests[1].url) == f"http://guichet.test/prefix/jobs/{JOB_ID}/retry?only=failed"


def being_canceled() -> dict[str, object]:
    return job("running", "csv", cancel_requested_at="2026-01-02T03:04:05.9Z")


def retryable(status: str = "canceled") -> dict[str, object]:
    return job(status, "csv", links={"retry": f"/jobs/{JOB_ID}/retry"})


def sent(script: Script) -> list[str]:
    return [
        f"{request.method} {request.url.path.rpartition('/')[2]}".replace(JOB_ID, "job") for request in script.requests
    ]


def pending_script() -> Script:
    return Script(
        answer(202, being_canceled()),
        problem(409, "conflict", "It runs."),
        answer(200, being_canceled()),
        answer(200, being_canceled()),
        answer(200, retryable()),
        answer(202, job("queued", "csv")),
    )


PENDING = ["POST cancel", "POST retry", "GET job", "GET job", "GET job", "POST retry"]


def test_retry_waits_for_a_cancellation_that_is_pending(pauses):
    script = pending_script()
    script.steps.insert(0, answer(200, job("running", "csv")))
    with script.client() as client:
        pending = client.job(JOB_ID).cancel()
        assert pending.info.is_being_canceled
        assert pending.retry().status == "queued"
        assert not pending.info.is_being_canceled
    assert sent(script)[1:] == PENDING


def test_asynchronous_client_waits_for_a_pending_cancellation_alike(pauses):
    async def talk(script: Script) -> str:
        async with script.async_client() as client:
            pending = await client.job(JOB_ID)
            await pending.cancel()
            return (await pending.retry()).status

    script = pending_script()
    script.steps.insert(0, answer(200, job("running", "csv")))
    assert run(talk(script)) == "queued"
    assert sent(script)[1:] == PENDING


def test_retry_is_sent_again_when_the_cancellation_ends_between_two_questions(pauses):
    refused = problem(409, "conflict", "It runs.")
    script = Script(answer(200, being_canceled()), refused, answer(200, retryable()), answer(202, job("queued", "csv")))
    with script.client() as client:
        assert client.job(JOB_ID).retry().status == "queued"
    # Not for ever, and not when nothing is left.
    script = Script(answer(200, being_canceled()), *[refused, answer(200, retryable())] * 2)
    with script.client() as client, pytest.raises(Refused, match="It runs"):
        client.job(JOB_ID).retry()
    assert script.steps == []
    script = Script(answer(200, being_canceled()), refused, answer(200, job("succeeded", "csv")))
    with script.client() as client, pytest.raises(Refused, match="It runs"):
        client.job(JOB_ID).retry()


def test_retry_of_somebody_else_ends_the_waiting(pauses):
    refused = problem(409, "conflict", "It runs.")
    running = answer(200, job("running", "csv"))
    script = Script(answer(200, being_canceled()), refused, answer(200, being_canceled()), running, refused, running)
    with script.client() as client:
        assert client.job(JOB_ID).retry().status == "running"


def test_asynchronous_client_sends_again_alike(pauses):
    async def predict(script: Script) -> float:
        async with script.async_client() as client:
            return (await client.predict(ROW, model="attrition", version=1)).probability

    script = Script(httpx2.ConnectError("refused"), problem(503, "unavailable", retry_after=2), answer(200, result()))
    assert run(predict(script)) == 0.75
    assert len(set(script.headers("idempotency-key"))) == 1
    assert pauses == [0.5, 3.0]
    with pytest.raises(Refused):
        run(predict(Script(problem(404, "not_found"))))


def test_asynchronous_client_cancels_and_retries_alike(pauses):
    async def talk(script: Script) -> list[str]:
        async with script.async_client() as client:
            pending = await client.job(JOB_ID)
            return [(await pending.cancel()).status, (await pending.retry()).status, (await pending.wait()).status]

    csv = [job(status, "csv") for status in ("running", "canceled", "queued", "succeeded")]
    assert run(talk(Script(*(answer(200, body) for body in csv)))) == ["canceled", "queued", "succeeded"]
