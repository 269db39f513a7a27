"""The page of a model's drift and quality: its population beside the reference, its decisions beside what came."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import Refused, ask, read
from api.console.forms import moment_of
from api.console.language import Words, language_of
from api.console.pages.models import read_model
from api.console.plots import Chart, Series, curves
from api.console.rendering import page

LEVELS = ("high", "moderate", "low", "none", "too_few_rows")
AGAINST = ("reference", "previous", "same_weekday")
OUTPUTS = ("score", "decision")  # what is drawn of a version beside its features
MOST_FEATURES = 1_000  # whose bins are asked for
_COSTS = ("cost_fp", "cost_fn")


def window_of(request: Request) -> dict[str, str]:
    """Return `from` and `to` of a page's address as the routes take them: a date is its midnight in UTC."""
    moments = {name: moment_of(request.query_params.get(name, "")) for name in ("from", "to")}
    return {name: moment for name, moment in moments.items() if moment is not None}


async def quality_page(request: Request, name: str) -> Response:
    """Return drift and quality of a model, or of a version; a threshold in the address decides the past anew."""
    model = await read_model(request, name)
    window = window_of(request)
    question = {"model": name if "@" in name else model["model"], **window}
    against = request.query_params.get("against", "").strip() or AGAINST[0]
    reply = await ask(request, "GET", "/drift", query=question | {"against": against})
    if reply.status not in (200, 409):
        raise Refused(reply)
    drift = reply.body if reply.status == 200 else None
    spread = {} if drift is None else await _distributions(request, question)
    figures = await read(request, "/metrics/model", **question)
    is_binary = model["card"]["task"] == "binary"
    decided = await read(request, "/metrics/kpis", **question, **(_costs(request) if is_binary else {}))
    threshold = request.query_params.get("threshold", "").strip()
    anew = None
    if is_binary and threshold:
        anew = await read(request, "/metrics/kpis", **question, **_costs(request), threshold=threshold)
    features = [] if drift is None else drift["features"]
    words = Words(language_of(request))
    chosen = request.query_params.get("feature", "").strip()
    return await page(
        request,
        "quality.html",
        name=name,
        model=model,
        card=model["card"],
        drift=drift,
        refusal=None if drift is not None else reply.body,
        groups=[(level, of_level) for level in LEVELS if (of_level := _of_level(features, level))],
        spread=spread,
        chosen=chosen if chosen in spread else None,
        outputs=[output for output in OUTPUTS if output in spread],
        against=against,
        choices=AGAINST,
        window={part: request.query_params.get(part, "").strip() for part in ("from", "to")},
        quality=figures["windows"],
        rocs={one["version"]: _roc(one["roc"], words) for one in figures["windows"] if one["roc"]},
        calibrations={
            one["version"]: _calibration(one["calibration"], words) for one in figures["windows"] if one["calibration"]
        },
        decided=decided,
        anew=anew,
        is_binary=is_binary,
        threshold=threshold or _number(model["card"]["threshold"]),
        costs=_costs(request),
        days=_days(decided["days"]),
        compared=[] if anew is None else _compared(decided["days"], anew["days"]),
    )


async def _distributions(request: Request, question: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the bins of each feature, of the score and of the decision, by name."""
    query: dict[str, Any] = {**question, "limit": 200}
    spread: dict[str, dict[str, Any]] = {}
    while len(spread) < MOST_FEATURES:
        answer = await read(request, "/metrics/feature-distribution", **query)
        for item in answer["items"]:
            counts = [[each[side] for each in item["bins"]] for side in ("reference", "window")]
            spread[item["feature"]] = {**item, "reference": counts[0], "now": counts[1]}
        if answer["next"] is None:
            break
        query["cursor"] = dict(parse_qsl(urlsplit(answer["next"]).query))["cursor"]
    return spread


def _of_level(features: list[dict[str, Any]], level: str) -> list[dict[str, Any]]:
    return [feature for feature in features if feature["level"] == level]


def _costs(request: Request) -> dict[str, str]:
    """Return the weights of false decisions in the address; 1 each where it has none."""
    return {name: request.query_params.get(name, "").strip() or "1" for name in _COSTS}


def _number(value: float | None) -> str:
    return "0.5" if value is None else f"{value:.4g}"


def _days(days: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the days of a window as lines, one a version: rows, mean score, share of positive decisions."""
    labels = sorted({day["day"] for day in days})
    places = {label: float(place) for place, label in enumerate(labels)}
    versions = sorted({day["version"] for day in days})

    def of(field: str) -> list[Series]:
        return [
            Series(
                f"@{version}",
                [
                    (places[day["day"]], day[field])
                    for day in days
                    if day["version"] == version and day[field] is not None
                ],
            )
            for version in versions
        ]

    return {"labels": labels, **{field: of(field) for field in ("rows", "mean_score", "positive_rate")}}


def _calibration(bins: list[dict[str, Any]], words: Words) -> Chart:
    """Return the mean probability of each tenth beside the share of positive rows, with its interval."""
    points = [(each["mean_probability"], each["share"]) for each in bins]
    bars = [(each["mean_probability"], each["share_low"], each["share_high"]) for each in bins]
    head = [words(f"quality.{name}") for name in ("predicted", "observed", "interval", "n")]
    rows = [
        [
            words.percent(each["mean_probability"]),
            words.percent(each["share"]),
            f"{words.percent(each['share_low'])} … {words.percent(each['share_high'])}",
            words.number(each["rows"]),
        ]
        for each in bins
    ]
    name = words("quality.observed")
    return curves([Series(name, points)], words.percent, head=head, rows=rows, diagonal=True, bars=bars)


def _roc(points: list[dict[str, float]], words: Words) -> Chart:
    """Return the ROC curve of a version."""
    line = [(0.0, 0.0), *((point["false_positive_rate"], point["true_positive_rate"]) for point in points)]
    names = ("false_positive_rate", "true_positive_rate", "threshold")
    rows = [
        [words.percent(point[names[0]]), words.percent(point[names[1]]), words.number(point[names[2]])]
        for point in points
    ]
    head = [words("train.alarms"), words("train.hits"), words("model.threshold")]
    return curves([Series("roc", line)], words.percent, head=head, rows=rows, diagonal=True)


def _compared(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows and positive decisions of each version, as they were decided and by another threshold."""
    sums: dict[int, dict[str, Any]] = {}
    for name, days in (("before", before), ("after", after)):
        for day in days:
            of_one = sums.setdefault(
                day["version"], {"version": day["version"], "rows": 0, "before": 0.0, "after": 0.0}
            )
            of_one["rows"] += day["rows"] if name == "before" else 0
            of_one[name] += day["rows"] * (day["positive_rate"] or 0.0)
    return [sums[version] for version in sorted(sums, reverse=True)]
