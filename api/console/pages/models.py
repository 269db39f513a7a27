"""Pages of models: the front page with a card for each, the form of a row, the page of a model, and its files."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import Refused, Reply, ask, pass_body_on, read
from api.console.forms import PREFIX, Faults, fault_places, read_form, row_of
from api.console.language import example_of
from api.console.rendering import lead_on, page, see_other
from api.console.session import host_of, is_encrypted, viewer_of
from api.console.snippets import curl, curl_file, python
from api.http.prefix import link
from api.services import services_of

WAIT = "wait=10"  # seconds that a page waits for its score
SHOWN_FAULTS = 20  # of a checked file
VARY = "Accept, Accept-Language, Cookie"
MAX_DIGITS = 10  # of the number of a version: what is longer is none
OPTIONS = (
    "delimiter",
    "decimal",
    "thousands",
    "encoding",
    "sheet",
    "id_column",
)  # of a file, in the address of its page


async def home_page(request: Request) -> Response:
    """Return the front page: what this service is, how it is, and its models for those who may read them."""
    models: list[dict[str, Any]] = []
    refusal: dict[str, Any] | None = None
    if viewer_of(request).may_read:
        try:
            models = await list_models(request)
        except Refused as refused:
            refusal = refused.reply.body
    health = await read_health(request)
    return await page(request, "home.html", 200, {"Vary": VARY}, health=health, models=models, refusal=refusal)


async def read_health(request: Request) -> dict[str, Any]:
    """Return the health of the service, also when it is down."""
    health: dict[str, Any] = (await ask(request, "GET", "/health")).body
    return health


async def list_models(request: Request) -> list[dict[str, Any]]:
    """Return every model with its serving version: the entry of `/models`, and the body of `/models/{name}`."""
    items = (await read(request, "/models"))["items"]
    return [{**item, "serving": await read(request, f"/models/{item['model']}")} for item in items]


# ── one row ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def predict_page(request: Request, name: str) -> Response:
    """Return the form of a row: empty, or with the example of the card."""
    model, features = await read(request, f"/models/{name}"), await read(request, f"/models/{name}/features")
    values = {}
    if request.query_params.get("example"):
        values = {feature: example_of(value) for feature, value in model["example"].items()}
    return await _form(request, name, model, features, values)


async def predict(request: Request, name: str) -> Response:
    """Score the row of a form, and return the form with the score, or with the faults beside their fields."""
    # The routes refuse a stranger before the form is read.
    model, features = await read(request, f"/models/{name}"), await read(request, f"/models/{name}/features")
    fields = await read_form(request)
    row = row_of(features["features"], fields)
    body = _body(features, row)
    reply = await ask(
        request,
        "POST",
        f"/models/{name}/predict",
        query={"include": "quality"},
        json=body,
        headers={"Prefer": WAIT},
    )
    values = {text.removeprefix(PREFIX): value for text, value in fields.items() if text.startswith(PREFIX)}
    if reply.status == 202:  # it goes on, and its page shows it
        return lead_on(request, f"/console/jobs/{reply.body['id']}")
    if reply.status == 422 and reply.body.get("errors"):
        by_feature, others = fault_places(reply.body["errors"], wrapper=features["wrapper"])
        return await _form(request, name, model, features, values, faults=by_feature, others=others, status=422)
    if reply.status != 200:
        raise Refused(reply)
    return await _form(request, name, model, features, values, result=reply.body, sent=body)


async def _form(
    request: Request,
    name: str,
    model: dict[str, Any],
    features: dict[str, Any],
    values: dict[str, str],
    *,
    result: dict[str, Any] | None = None,
    sent: Any = None,  # noqa: ANN401 - any JSON value
    faults: Faults | None = None,
    others: list[dict[str, str]] | None = None,
    status: int = 200,
) -> Response:
    body = _body(features, model["example"]) if sent is None else sent
    url = f"{base_of(request)}/models/{name}/predict"
    needs_key = viewer_of(request).needs_key
    return await page(
        request,
        "predict.html",
        status,
        name=name,
        model=model,
        card=model["card"],
        features=features["features"],
        values=values,
        result=result,
        faults=faults or {},
        others=others or [],
        is_refused=status != 200,
        curl=curl(url, body, needs_key=needs_key),
        python=python(url, body, needs_key=needs_key),
        prefix=PREFIX,
    )


def _body(features: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return row if features["wrapper"] is None else {features["wrapper"]: row}


def base_of(request: Request) -> str:
    """Return the address of this service as the reader's browser has it, without a slash at its end."""
    scheme = "https" if is_encrypted(request) else "http"
    return f"{scheme}://{host_of(request)}{link('')}"


# ── a file ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def upload_page(request: Request, name: str) -> Response:
    """Return the page where a file is chosen."""
    return await _upload(request, name, None)


async def check_file(request: Request, name: str) -> Response:
    """Check a file, or its beginning, against the model, and return the page with the report; nothing is stored."""
    reply = await pass_body_on(
        request, f"/models/{name}/predict_csv", query={**_options(request), "validate_only": True}
    )
    return await _upload(request, name, reply)


async def upload(request: Request, name: str) -> Response:
    """Submit a file as a job, and lead the browser to the page of the job; a refusal is shown beside the form."""
    reply = await pass_body_on(request, f"/models/{name}/predict_csv", query=_options(request))
    if reply.status == 202:
        return see_other(f"/console/jobs/{reply.body['id']}")
    return await _upload(request, name, reply)


async def _upload(request: Request, name: str, reply: Reply | None) -> Response:
    status = 200 if reply is None else reply.status
    if reply is not None and status not in (200, 400, 408, 413, 415, 422):
        raise Refused(reply)
    model = await read(request, f"/models/{name}")
    headers = {}
    if reply is not None and "connection" in reply.headers:  # a refusal while the file still came
        headers["Connection"] = reply.headers["connection"]
    return await page(
        request,
        "upload.html",
        status,
        headers,
        name=name,
        model=model,
        card=model["card"],
        report=None if reply is None or status != 200 else reply.body,
        refusal=None if reply is None or status == 200 else reply.body,
        is_sample="sample" in request.query_params,
        options=_options(request),
        shown=SHOWN_FAULTS,
        most=services_of(request).settings.max_csv_bytes,
        curl=curl_file(f"{base_of(request)}/models/{name}/predict_csv", needs_key=viewer_of(request).needs_key),
    )


def _options(request: Request) -> dict[str, str]:
    return {name: value for name in OPTIONS if (value := request.query_params.get(name, "").strip())}


# ── a model ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def models_page(request: Request) -> Response:
    """Return the list of models."""
    return await page(request, "models.html", models=await list_models(request))


async def read_model(request: Request, name: str) -> dict[str, Any]:
    """Return the body of a model, or of `name@3`, also where that is archived; raise Refused where there is none."""
    reference, _, version = name.partition("@")
    is_number = version.isascii() and version.isdigit()
    body: dict[str, Any] = await read(
        request, f"/models/{reference}/versions/{version}" if is_number else f"/models/{name}"
    )
    return body


async def model_page(
    request: Request,
    name: str,
    *,
    faults: Faults | None = None,
    fields: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    """Return the page of a model or a version: its card, and for administrators its history and what moves it."""
    model = await read_model(request, name)
    entry = next((item for item in (await read(request, "/models"))["items"] if item["model"] == model["model"]), None)
    viewer = viewer_of(request)
    history: dict[str, Any] = {"items": [], "next": None}
    alias: Reply | None = None
    if viewer.is_admin:
        cursor = request.query_params.get("cursor")
        history = await read(request, f"/models/{model['model']}/history", limit=20, cursor=cursor)
        alias = await ask(request, "GET", f"/models/{model['model']}/aliases/champion")
    champion = {"version": None, "previous": None} if alias is None or alias.status != 200 else alias.body
    older = None if history["next"] is None else dict(parse_qsl(urlsplit(history["next"]).query))["cursor"]
    return await page(
        request,
        "model.html",
        status,
        name=model["model"],
        model=model,
        card=model["card"],
        entry=entry or {"versions": [], "archived": [model["model_version"]], "aliases": {}, "is_default": False},
        history=history["items"],
        older=older,
        etag="" if alias is None or alias.status != 200 else alias.headers.get("etag", ""),
        champion=champion["version"],
        previous=champion["previous"],
        faults=faults or {},
        fields=fields or {},
    )


async def move_alias(request: Request, name: str, *, back: bool) -> Response:
    """Promote a version of a model, or roll its champion back, for the reason in the form."""
    await read(request, f"/models/{name}")
    fields = await read_form(request)
    reason = fields.get("reason", "").strip()
    headers = {"If-Match": fields["etag"]} if fields.get("etag") else {}
    path = f"/models/{name}/aliases/champion"
    if back:
        reply = await ask(request, "POST", f"{path}/rollback", json={"reason": reason}, headers=headers)
    else:
        number = fields.get("version", "")
        is_number = number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS
        body = {"version": int(number) if is_number else number, "reason": reason}
        reply = await ask(request, "PUT", path, json=body, headers=headers)
    if reply.status == 422 and reply.body.get("errors"):
        by_field, _ = fault_places(reply.body["errors"], wrapper=None)
        kind = "rollback" if back else "promote"
        faults = {f"{kind}.{field}": listed for field, listed in by_field.items()}
        return await model_page(request, name, faults=faults, fields=fields, status=422)
    if reply.status >= 400:
        raise Refused(reply)
    return see_other(f"/console/models/{name}")
