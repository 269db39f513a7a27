"""The page of a trained version: data, metrics, limits, intended use, libraries; Markdown from a stored report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shared.faults import counted

FEATURES_LISTED = 50
DRAWS_LISTED = 20
INTENDED_USE = (
    "To score rows that come from where the training rows came from, with the same columns. It is a candidate: it "
    "serves nobody until someone promotes it, after a replay of past decisions, for example."
)

_STAGES = {"binary": "two classes", "multiclass": "several classes", "regression": "a number"}


def model_card(report: Mapping[str, Any], *, label: str, sha256: str, trained_at: object) -> str:
    """Return the page of a version (`name@3`, whose artefact has this SHA-256) in Markdown."""
    return "\n".join([*_lines(report, label, sha256, trained_at), ""])


def _lines(report: Mapping[str, Any], label: str, sha256: str, trained_at: object) -> Iterator[str]:
    options, best = report["options"], report["search"]["best"]
    yield f"# Model card of {_text(label)}"
    yield ""
    yield (
        f"Predicts {_text(report['target'])} ({_STAGES[report['task']]}). A {best['estimator']} model that Guichet "
        f"trained at {trained_at}; its artefact has the SHA-256 `{sha256}`."
    )
    yield from _section("Data")
    yield f"- {counted(report['rows'], 'row')}, {counted(len(report['features']), 'feature')}"
    yield f"- SHA-256 of the file: `{report['data_sha256']}`"
    for name, count in zip(report["labels"], report["class_rows"], strict=True):
        yield f"- {counted(count, 'row')} with the answer {_text(name)}"
    yield from (f"- {_text(note)}" for note in report["notes"])
    yield ""
    features = report["features"][:FEATURES_LISTED]
    yield from _table(
        ("feature", "type", "missing"), [(_text(each["name"]), each["type"], each["missing"]) for each in features]
    )
    if len(report["features"]) > FEATURES_LISTED:
        yield f"\nand {len(report['features']) - FEATURES_LISTED} more."
    yield from _section("Metrics")
    yield (
        f"Of {report['search']['folds']}-fold cross-validation: each row was scored by a model that was fitted without "
        "it. Intervals are 95 %."
    )
    yield ""
    yield from _table(
        ("metric", "value", "low", "high"),
        [
            (name, *(_number(each[part]) for part in ("value", "low", "high")))
            for name, each in report["metrics"].items()
        ],
    )
    if report["task"] == "binary":
        yield from _binary(report)
    yield from _section("What it goes by")
    yield f"The fall of {report['search']['metric']} when a column is shuffled, on rows that were not fitted on."
    yield ""
    important = report["importance"][:FEATURES_LISTED]
    yield from _table(
        ("feature", "mean", "deviation"),
        [(_text(each["feature"]), _number(each["mean"]), _number(each["deviation"])) for each in important],
    )
    yield from _section("How it was chosen")
    yield (
        f"{counted(len(report['search']['tried']), 'draw')} of estimators and parameters, with the seed "
        f"{options['seed']}, compared by {report['search']['metric']} (higher is better)."
    )
    yield ""
    yield from _table(
        ("estimator", "parameters", "mean", "standard error"),
        [
            (
                each["estimator"],
                ", ".join(f"{name} {_number(value)}" for name, value in each["parameters"].items()) or "defaults",
                _number(each["mean"]),
                _number(each["standard_error"]),
            )
            for each in report["search"]["tried"][:DRAWS_LISTED]
        ],
    )
    yield from _section("Intended use")
    yield INTENDED_USE
    yield from _section("Limits")
    yield from (f"- {limit}" for limit in limits(report))
    yield from _section("Libraries")
    yield from (f"- {name} {version}" for name, version in report["libraries"].items())


def _binary(report: Mapping[str, Any]) -> Iterator[str]:
    threshold, calibration = report["threshold"], report["calibration"]
    yield from _section("Threshold")
    why = (
        f"the highest with a recall of {_number(threshold['target_recall'])} or more"
        if threshold["rule"] == "target_recall"
        else f"that of least cost: {_number(threshold['cost_fp'])} for a false positive, "
        f"{_number(threshold['cost_fn'])} for a false negative"
    )
    yield (
        f"{_number(threshold['threshold'])}, {why}. On the out-of-fold scores: {threshold['true_positives']} true and "
        f"{threshold['false_positives']} false positives, {threshold['false_negatives']} missed, a mean cost of "
        f"{_number(threshold['mean_cost'])}."
    )
    yield from _section("Calibration")
    for each in calibration["tried"]:
        yield (
            f"- {each['method']}: the Brier score improves by {_number(each['brier_improvement'])} "
            f"(standard error {_number(each['standard_error'])}), "
            f"{'applied' if each['method'] == calibration['applied'] else 'not applied'}"
        )


def limits(report: Mapping[str, Any]) -> list[str]:
    """Return what a trained version was not made for, or its figures do not say, each in a sentence."""
    sentences = [
        "The best draw was chosen on the same folds by which it is reported: on new rows it is, on average, a little "
        "worse than said here.",
        "Rows were shuffled into folds: where they depend on each other (people twice, time), figures are too good.",
        "Nothing here says that the answers are fair to groups of people, or caused by the features.",
    ]
    missing = [each["name"] for each in report["features"] if each["missing"]]
    if missing:
        sentences.append(
            f"Only {counted(len(missing), 'feature')} had missing values in training; elsewhere they are refused."
        )
    return sentences


def card_body(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page of a version says, as JSON has it."""
    names = ("task", "target", "labels", "data_sha256", "rows", "class_rows", "notes", "features", "metrics", "search")
    parts = ("threshold", "calibration", "importance")
    return {
        **{name: report[name] for name in names},
        **{name: report.get(name) for name in parts},
        "options": report["options"],
        "intended_use": INTENDED_USE,
        "limits": limits(report),
        "libraries": report["libraries"],
    }


def _section(title: str) -> Iterator[str]:
    yield from ("", f"## {title}", "")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)


def _number(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    """Return a name of the caller as text: it marks nothing up."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#+!|~" else letter for letter in text)
