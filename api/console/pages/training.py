"""Pages of trainings: starting one with a file or with what the service has itself, and following it to its report."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import Refused, Reply, ask, check_signed_in, pass_body_on, read
from api.console.forms import moment_of, number_of, read_form
from api.console.pages.comparing import ENDED, read_job
from api.console.plots import Series, thinned
from api.console.rendering import page, see_other
from api.console.session import viewer_of
from shared.errors import Forbidden

OPTIONS = (
    *("name", "target", "task", "positive", "leave_out", "estimators", "draws", "seed"),
    *("cost_fp", "cost_fn", "target_recall", "delimiter", "encoding", "decimal", "thousands"),
)
STAGES = ("reading", "checking", "searching", "calibrating", "importance", "fitting", "proving")
METRICS = (
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision"),
    *("log_loss", "brier"),
)  # in the order of the page; PostgreSQL keeps none
REFUSED = (400, 404, 408, 409, 413, 415, 422)  # answers that are shown beside the form


async def train_page(request: Request, *, reply: Reply | None = None, again: dict[str, str] | None = None) -> Response:
    """Return the forms that start a training: its options stand in the address, the file is sent after them."""
    await check_signed_in(request)
    if not viewer_of(request).is_admin:
        raise Forbidden("A training makes a version of a model: that needs a key with the scope `admin`.")
    headers = {}
    if reply is not None and "connection" in reply.headers:  # a refusal while the file still came
        headers["Connection"] = reply.headers["connection"]
    options = _options(request)
    return await page(
        request,
        "train.html",
        200 if reply is None else reply.status,
        headers,
        options=options,
        is_ready={"name", "target"} <= options.keys(),
        models=[item["model"] for item in (await read(request, "/models"))["items"]],
        refusal=None if reply is None else reply.body,
        again=again,
    )


async def train_with_file(request: Request) -> Response:
    """Send the file of the form on as a training, and lead the browser to its page."""
    return await _answer(request, await pass_body_on(request, "/train", query=_options(request)), None)


async def train_again(request: Request) -> Response:
    """Train on the reference rows and the outcomes of a model that the form names."""
    await read(request, "/models")
    fields = await read_form(request)
    body: dict[str, Any] = {
        "model": fields.get("model", "").strip(),
        **{part: moment_of(fields.get(part, "")) for part in ("from", "to")},
        **{part: number_of(fields.get(part, "")) for part in ("draws", "cost_fp", "cost_fn")},
    }
    sent = {part: value for part, value in body.items() if value is not None}
    return await _answer(request, await ask(request, "POST", "/train", json=sent), fields)


async def _answer(request: Request, reply: Reply, again: dict[str, str] | None) -> Response:
    if reply.status == 202:
        return see_other(f"/console/trainings/{reply.body['id']}")
    if reply.status in REFUSED:
        return await train_page(request, reply=reply, again=again)
    raise Refused(reply)


async def training_page(request: Request, job_id: str) -> Response:
    """Return the page of a training: how far it has come, then its report; raise NotFound for another kind of job."""
    job, result = await read_job(request, job_id, kind="train")
    return await page(
        request,
        "training.html",
        job=job,
        has_ended=job["status"] in ENDED,
        stages=STAGES,
        result=result,
        metrics=[] if result is None else _in_order(result["metrics"]),
        curve=None if result is None or not result["curve"] else _curve(result["curve"], result["decision"]),
    )


def _in_order(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return metrics with their names as the page has them, and those that it does not know after the others."""
    return sorted(metrics.items(), key=lambda each: METRICS.index(each[0]) if each[0] in METRICS else len(METRICS))


def _options(request: Request) -> dict[str, str]:
    return {name: value for name in OPTIONS if (value := request.query_params.get(name, "").strip())}


def _curve(curve: dict[str, list[float]], decision: dict[str, Any]) -> dict[str, list[Series]]:
    """Return the report's curve as lines: share of hits over that of false alarms, mean cost over thresholds."""
    positives = decision["true_positives"] + decision["false_negatives"]
    negatives = decision["false_positives"] + decision["true_negatives"]
    hits = [count / positives for count in curve["true_positives"]]
    alarms = [count / negatives for count in curve["false_positives"]]
    roc = thinned(list(zip(alarms, hits, strict=True)))
    cost = thinned(sorted(zip(curve["threshold"], curve["mean_cost"], strict=True)))
    return {"roc": [Series("roc", [(0.0, 0.0), *roc])], "cost": [Series("cost", cost)]}
