"""The OpenAPI document: it is sound, its examples work, and its pages need no other server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import joblib
import jsonschema_rs
import openapi_spec_validator
import pytest
from sklearn.svm import SVC
from sqlalchemy import Engine

from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import asks_for_key, check_accepted, new_id, operations, wait_until

NATIVE = {"Accept": "application/vnd.guichet+json"}  # cards of other tests have words of their own
SUBMITTING = ("/jobs", "/predict", "/predict_batch", "/models/{name}/predict")
EXPLAINING = ("/explain", "/models/{name}/explain")
ROWS_OF_CARDS = (*SUBMITTING, *EXPLAINING, "/jobs/{id}", "/models/{name}/predict_batch")  # refused as the card says
WITHOUT_ROWS = {  # what takes a body, and no rows in it
    ("/v2/repository/index", "post"),
    ("/outcomes", "post"),
    ("/replays", "post"),
    ("/models", "post"),
    ("/train", "post"),
    ("/keys", "post"),
    ("/jobs/{id}/outcome", "post"),
    ("/jobs/cancel", "post"),
    ("/jobs/retry", "post"),
    ("/alerts/{id}/acknowledge", "post"),
    ("/models/{name}/aliases/{alias}", "put"),
    ("/models/{name}/aliases/{alias}", "delete"),
    ("/models/{name}/aliases/{alias}/rollback", "post"),
    ("/models/{name}/versions/{version}", "delete"),
    ("/models/{name}/versions/{version}/archive", "post"),
    ("/models/{name}/versions/{version}/restore", "post"),
}
ERRORS = re.compile(r"[45]\d\d")


@pytest.fixture
def document(client: httpx2.Client) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    content: dict[str, Any] = answer.json()
    return content


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for member in node.values():
            yield from references(member)
    elif isinstance(node, list):
        for member in node:
            yield from references(member)


def resolve(document: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/"), reference
    node: Any = document
    for step in reference[2:].split("/"):
        node = node[step.replace("~1", "/").replace("~0", "~")]
    return node


def test_document_is_openapi_of_this_service(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.")
    assert document["info"]["title"] == "Guichet"
    assert document["info"]["version"]


def test_document_is_what_the_specification_asks_for(document: dict[str, Any]) -> None:
    openapi_spec_validator.validate(document)


def test_document_where_nobody_needs_a_key_asks_for_none(client: httpx2.Client, document: dict[str, Any]) -> None:
    assert "securitySchemes" not in document["components"]
    assert "security" not in document
    for path, method, operation in operations(document):
        assert operation["security"] == []
        assert asks_for_key(client, path, method) is False, f"{method} {path}"


def test_schemas_and_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    """Generated clients name their classes by titles, and their methods by operation ids."""
    titles = [schema["title"] for schema in document["components"]["schemas"].values() if "title" in schema]
    assert len(titles) == len(set(titles))
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert [name for name in ids if re.fullmatch(r"[a-z]+(_[a-z]+)*", name) is None] == []
    tags = {tag["name"] for tag in document["tags"]}
    assert {tag for _, _, operation in operations(document) for tag in operation["tags"]} == tags


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    targets = set(references(document))
    assert targets
    for reference in targets:
        assert resolve(document, reference)


def test_every_operation_is_described_by_a_sentence(document: dict[str, Any]) -> None:
    undescribed = [
        f"{method} {path}"
        for path, method, operation in operations(document)
        if not operation.get("description", "").strip().endswith(".") or not operation.get("summary")
    ]
    assert undescribed == []


def test_operation_ids_are_unique_and_answers_described(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations(document):
        assert operation["responses"], f"{method} {path}"
        for status, response in operation["responses"].items():
            assert response["description"], f"{method} {path} {status}"


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        declared = {entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path)), f"{method} {path}"
        for entry in operation.get("parameters", []):
            assert entry["schema"], f"{method} {path} {entry['name']}"
            assert entry["description"], f"{method} {path} {entry['name']}"
            assert entry["in"] != "path" or entry["required"] is True


def test_errors_are_declared_as_problem_documents(document: dict[str, Any]) -> None:
    wrong = [
        f"{method} {path} {status}"
        for path, method, operation in operations(document)
        for status, response in operation["responses"].items()
        if ERRORS.fullmatch(status) and path not in ("/health", "/readyz", "/ping")
        if not path.startswith("/v2") and not path.endswith("/invocations")
        if (
            "application/json" in response.get("content", {})
            and not (status in ("400", "422") and path in ROWS_OF_CARDS)
        )
        or not response.get("content", {}).get("application/problem+json", {}).get("schema")
    ]
    assert wrong == []


@pytest.mark.parametrize("path", SUBMITTING)
def test_examples_of_every_model_are_accepted_as_they_stand(
    client: httpx2.Client, document: dict[str, Any], path: str
) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    names = [item["model"] for item in client.get("/models").json()["items"]]
    assert sorted(content["examples"]) == sorted(names)
    assert next(iter(content["examples"])) == "attrition"
    for name, example in content["examples"].items():
        assert example["summary"].startswith(f"{name}@")
        answer = client.post(path.format(name=name), json=example["value"], headers=NATIVE)
        if path == "/jobs":
            assert check_accepted(answer)["model"] == name
        else:
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == name
            assert answer.json().get("has_failures", False) is False


@pytest.mark.parametrize("path", EXPLAINING)
def test_only_models_that_can_be_explained_are_examples_of_that(
    client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path, path: str
) -> None:
    if client.get("/models/hard_classes").status_code == 404:
        three = SVC(decision_function_shape="ovo").fit([[0.0], [1.0], [4.0], [9.0]], list("abca"))  # classes only
        joblib.dump(three, tmp_path / "model.joblib")
        (tmp_path / "rows.csv").write_text("a\n0\n1\n4\n9\n")
        with session_scope(engine) as session:
            rows = tmp_path / "rows.csv"
            options = AddOptions(reference=rows, name="hard_classes")
            add(session, tmp_path / "model.joblib", options, models_dir=models_dir)
        wait_until(lambda: client.get("/models/hard_classes").status_code == 200 or None)
    paths = client.get("/openapi.json").json()["paths"]
    shown = paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    versions = [client.get(f"/models/{item['model']}").json() for item in client.get("/models").json()["items"]]
    explained = [version["model"] for version in versions if "method" in (version["explanation"] or {})]
    assert {"attrition"} <= set(explained) <= {version["model"] for version in versions} - {"hard_classes"}
    assert sorted(shown) == sorted(explained)


def examples(document: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any], dict[str, dict[str, Any]]]]:
    """Yield path, method, media type, schema and examples of every body that has some."""
    for path, method, operation in operations(document):
        for body in (operation.get("requestBody", {}), *operation["responses"].values()):
            for kind, media in body.get("content", {}).items():
                if "examples" in media:
                    yield path, method, kind, media["schema"], media["examples"]


def test_every_example_is_what_its_schema_says(document: dict[str, Any]) -> None:
    components, checked = {"components": document["components"]}, 0
    for path, method, kind, schema, sample in examples(document):
        validator = jsonschema_rs.validator_for({**schema, **components})
        for name, example in sample.items():
            assert validator.is_valid(example["value"]), f"{method} {path} {kind} {name}"
            checked += 1
    for name, schema in document["components"]["schemas"].items():
        for value in schema.get("examples", []):
            jsonschema_rs.validate({**schema, **components}, value)
            checked += 1
        for feature, part in schema.get("properties", {}).items():
            for value in part.get("examples", []):
                assert jsonschema_rs.is_valid({**part, **components}, value), f"{name} {feature}"
                checked += 1
    assert checked > 60


def test_example_of_every_operation_is_accepted(client: httpx2.Client, document: dict[str, Any]) -> None:
    with_example = {(path, method) for path, method, *_ in examples(document)}
    assert (
        with_example
        == {(path, method) for path, method, operation in operations(document) if "requestBody" in operation}
        - WITHOUT_ROWS
    )
    for path, method, kind, _, bodies in examples(document):
        for name, example in bodies.items():
            version = example["summary"].split()[0].partition("@")[2]
            place = path.format(name=name, version=version, id=new_id())
            sent = example["value"]
            if kind == "application/json":
                answer = client.request(method, place, json=sent)
            else:
                params = {"validate_only": "true", **({"model": name} if path == "/predict_csv" else {})}
                answer = client.request(method, place, content=sent, params=params, headers={"Content-Type": kind})
            assert answer.status_code in (200, 202), f"{method} {path} {kind} {name}: {answer.text}"
            assert "valid" not in answer.json() or answer.json()["valid"] == 1, answer.text


def test_words_that_a_card_chooses_are_in_the_document(client: httpx2.Client, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    example = document["paths"]["/models/{name}/predict"]["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ]
    row = example["turnover"]["value"]
    assert {"$ref": "#/components/schemas/turnover_1_body"} in schemas["SubmitBody"]["anyOf"]
    assert row.keys() <= schemas["turnover_1_body"]["properties"].keys()
    for name in ("Result", "BatchItem"):
        assert {"$ref": "#/components/schemas/turnover_1_answer"} in schemas[name]["anyOf"]
    answer = client.post("/models/turnover/predict", json=row)
    assert list(answer.json()) == schemas["turnover_1_answer"]["required"]
    refused = client.post("/models/turnover/predict", json={})
    content = document["paths"]["/models/{name}/predict"]["post"]["responses"]["422"]["content"]
    assert refused.headers["content-type"] in content
    assert "loc" in content["application/json"]["schema"]["properties"]["detail"]["items"]["properties"]
    assert refused.json()["detail"][0].keys() == {"type", "loc", "msg"}


def test_row_of_every_model_has_a_schema(client: httpx2.Client, document: dict[str, Any]) -> None:
    for item in client.get("/models").json()["items"]:
        card = client.get(item["links"]["self"]).json()["card"]
        schema = document["components"]["schemas"][f"{item['model']}_row"]
        fields = [feature for feature in [*card["features"], *card["inputs"]] if feature["derived"] is None]
        assert list(schema["properties"]) == [feature["name"] for feature in fields]


def test_model_added_while_the_service_runs_has_its_example(client: httpx2.Client, moody: str) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert moody in content["examples"]
    assert f"{moody}_row" in document["components"]["schemas"]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_of_the_document_need_no_other_server(client: httpx2.Client, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", page.text) == []
    assert re.findall(r"url\(\s*['\"]?(?:https?:)?//", page.text) == []
    files = re.findall(r"""(?:src|href)\s*=\s*["'](/[^"']+)""", page.text)
    assert any(name.endswith(".js") for name in files)
    for name in files:
        answer = client.get(name)
        assert answer.status_code == 200, name
        assert len(answer.content) > 100, name


def test_errors_of_the_open_inference_protocol_are_declared_as_its_own(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        if path.startswith("/v2") and "/health/" not in path:
            for status in filter(ERRORS.fullmatch, operation["responses"]):
                content = operation["responses"][status]["content"]
                is_ready = path.endswith("/ready") and status == "503"
                name = "ModelReady" if is_ready else "InferenceError"
                assert content == {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}, path
            assert "422" not in operation["responses"], f"{method} {path}"


def test_errors_of_invocations_are_declared_as_mlflow_writes_them(document: dict[str, Any]) -> None:
    for path in ("/invocations", "/models/{name}/invocations"):
        responses = document["paths"][path]["post"]["responses"]
        assert "422" not in responses
        for status in filter(ERRORS.fullmatch, responses):
            schema = responses[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/InvocationError"}, status


def test_example_dataframes_of_every_model_are_scored_as_they_stand(
    client: httpx2.Client, document: dict[str, Any]
) -> None:
    scored = {}
    for path in ("/invocations", "/models/{name}/invocations"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        scored[path] = list(content["examples"])
        for name, example in content["examples"].items():
            answer = client.post(path.format(name=name), json=example["value"])
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["predictions"]) == 1
    assert scored["/invocations"] == ["attrition"]
    assert len(scored["/models/{name}/invocations"]) > 2


def test_example_tensors_of_every_model_are_scored_as_they_stand(
    client: httpx2.Client, document: dict[str, Any]
) -> None:
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for name, example in content["examples"].items():
            answer = client.post(path.format(name=name, version=1), json=example["value"])
            assert answer.status_code == 200, answer.text
            assert answer.json()["model_name"] == name
