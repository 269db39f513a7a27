"""The form of an error: a problem document, or that of the path's protocol or of the model's card."""

import json
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from api.errors.formats import error_response, status_of
from api.http.about import Paths
from api.routes import mlflow, open_inference
from shared.cards.response import Refusal
from shared.errors import MAX_FAULTS, NotFound, RowFaults, RowRefused, Unauthorized, Unavailable
from shared.faults import Fault

FAULTS = [Fault("/rows/0/age", "too_small", "must be at least 16"), Fault("", "rule", "début < age")]
PATHS = Paths([mlflow.router, open_inference.router])


def request(path: str = "/predict", refusal: Refusal | None = None) -> Request:
    app = SimpleNamespace(state=SimpleNamespace(paths=PATHS))
    scope = {"type": "http", "path": path, "root_path": "", "headers": [], "request_id": "r1", "app": app}
    return Request(scope | {"refusal": refusal})


def body_of(incoming: Request, error: Exception) -> dict:
    return json.loads(error_response(incoming, error).body)


def faulty() -> RowFaults:
    return RowFaults("The row does not fit the card.", faults=FAULTS)


def test_error_is_a_problem_document_with_every_fault():
    response = error_response(request(), faulty())
    assert (response.status_code, response.media_type) == (422, "application/problem+json")
    assert json.loads(response.body) == {
        "type": "urn:guichet:error:invalid_row",
        "title": "The request does not fit the model",
        "status": 422,
        "detail": "The row does not fit the card.",
        "instance": "/predict",
        "request_id": "r1",
        "errors": [
            {"pointer": "/rows/0/age", "code": "too_small", "message": "must be at least 16"},
            {"pointer": "", "code": "rule", "message": "début < age"},
        ],
    }


def test_job_is_named_where_there_is_one():
    assert "job_id" not in body_of(request(), NotFound("No such job."))
    assert body_of(request(), NotFound("Expired.", job_id="j1"))["job_id"] == "j1"


def test_headers_say_when_to_come_back_and_with_what():
    assert error_response(request(), Unavailable("Full.", retry_after=7)).headers["retry-after"] == "7"
    assert error_response(request(), Unauthorized("No key.")).headers["www-authenticate"] == "Bearer"
    headers = error_response(request(), NotFound("No such job.")).headers
    assert "retry-after" not in headers
    assert "www-authenticate" not in headers


def test_no_more_faults_than_the_limit_are_listed_and_the_sentence_counts_them_all():
    error = RowFaults("Wrong.", faults=FAULTS * MAX_FAULTS, fault_count=5_000)
    body = body_of(request(), error)
    assert len(body["errors"]) == MAX_FAULTS == 1_000
    assert body["detail"] == "Wrong. The first 1000 of its 5000 faults are listed."
    listed = body_of(request(refusal=Refusal(body="fastapi")), error)["detail"]
    assert len(listed) == MAX_FAULTS + 1
    assert listed[-1] == {"type": "more_faults", "loc": ["body"], "msg": "there are 5000 faults in all"}


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("detail", {"detail": "The row does not fit the card."}),
        ("message", {"detail": "age must be at least 16"}),
        (
            "fastapi",
            {
                "detail": [
                    {"type": "too_small", "loc": ["body", "rows", 0, "age"], "msg": "must be at least 16"},
                    {"type": "rule", "loc": ["body"], "msg": "début < age"},
                ]
            },
        ),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_row_that_does_not_fit_is_refused_in_the_form_of_its_card(form, body, status):
    response = error_response(request(refusal=Refusal(status=status, body=form)), faulty())
    assert (response.status_code, response.media_type) == (status, "application/json")
    assert json.loads(response.body) == body


def test_card_may_choose_the_status_alone():
    response = error_response(request(refusal=Refusal(status=400)), faulty())
    assert (response.status_code, response.media_type) == (400, "application/problem+json")
    assert json.loads(response.body)["status"] == 400


def test_card_says_nothing_of_other_errors():
    incoming = request(refusal=Refusal(status=400, body="detail"))
    for error in (RowRefused("The model refuses it."), NotFound("No such model."), Unavailable("Full.")):
        assert status_of(incoming, error) == error.status
        assert body_of(incoming, error)["type"] == f"urn:guichet:error:{error.code}"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/m/infer", {"error": "The row does not fit the card."}),
        ("/v2/nothing/there", {"error": "The row does not fit the card."}),
        ("/invocations", {"error_code": "BAD_REQUEST", "message": "The row does not fit the card."}),
    ],
)
def test_protocol_of_the_path_has_its_own_form_whatever_the_card_says_and_no_422(path, body):
    response = error_response(request(path, Refusal(status=422, body="fastapi")), faulty())
    assert (response.status_code, response.media_type) == (400, "application/json")
    assert json.loads(response.body) == body
    assert status_of(request(path), Unavailable("Full.")) == 503
