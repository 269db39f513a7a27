"""How a registered version scores a row, in words: its encoding, estimator, scorer and parity proof."""

from collections.abc import Iterator
from typing import Any

from shared.encoding.blocks import Unsupported
from shared.encoding.compile import compile_encoding
from shared.encoding.pipelines import split
from shared.encoding.plan import describe_block
from shared.faults import counted
from shared.registry.loading import LoadedModel
from shared.tables import ModelVersion

SCORERS = {
    "numpy": "the encoding above, then the estimator's arithmetic, or the estimator itself on the array",
    "treelite": "the encoding above, then float64 trees",
    "onnx": "the whole pipeline as one float32 graph",
    "pipeline": "a DataFrame through the pipeline itself",
}


def describe_plan(row: ModelVersion, model: LoadedModel) -> Iterator[str]:
    """Yield the lines of a version's plan, from the features of a row to its score and the figures of the proof."""
    card, report = model.card, row.scorer
    yield ""
    yield f"How {card.name}@{card.version} scores a row"
    yield ""
    yield from _inputs(model)
    yield ""
    final = split(model.estimator)[1]
    yield f"Estimator: {type(final).__name__} of {type(final).__module__.partition('.')[0]}, {card.task}."
    yield f"  It answers by {report.get('answer', 'predict')}{_decision(model)}."
    yield ""
    yield f"Scorer: {model.scorer.kind}: {SCORERS[model.scorer.kind]}. Measured when the version was registered:"
    for candidate in report.get("candidates", []):
        yield f"  {_measured(candidate, is_chosen=candidate['kind'] == report['kind'])}"
    explanation = report.get("explanation", {})
    if explanation:
        yield ""
        yield f"Explanations: {explanation.get('method') or 'none: it ' + explanation['refused']}."
    yield ""
    yield (
        f"Proof: {counted(report['rows_checked'], 'row')} ({counted(len(model.reference), 'reference row')}, and rows "
        "on the edges of what the model tells apart) were scored by "
        f"{report['kind']} and by the pipeline. Largest difference: {_figure(report['max_abs_diff'])}; decisions that "
        f"differ: {report['decisions_differ']}. The reference rows and edges were checked again now."
    )


def _inputs(model: LoadedModel) -> Iterator[str]:
    count = len(model.card.features)
    try:
        encoding, _ = compile_encoding(model.card, model.estimator)
    except Unsupported as obstacle:
        yield f"Input: {counted(count, 'feature')}. Nothing is compiled: {obstacle}. The pipeline's own code runs:"
        for step in split(model.estimator)[0]:
            yield f"  {step if isinstance(step, str) else type(step).__name__} [the pipeline's own code]"
        return
    sparse = ", which the pipeline itself keeps sparse" if encoding.sparse else ""
    yield f"Input: {counted(count, 'feature')} become {counted(encoding.block.width, 'column')} of float64{sparse}."
    if model.scorer.kind not in ("numpy", "treelite"):
        yield f"  This encoding is not used: {model.scorer.kind} was chosen, which has its own."
    yield from describe_block(encoding.block, indent="  ")


def _decision(model: LoadedModel) -> str:
    card = model.card
    if card.threshold is None:
        return ""
    return f"; the second class is decided from {card.threshold:g} on"


def _measured(candidate: dict[str, Any], *, is_chosen: bool) -> str:
    mark = "*" if is_chosen else " "
    if not candidate["exact"]:
        return f"{mark} {candidate['kind']}: not used, because {candidate['reason']}"
    speed = "not measured"
    if candidate["one_row_us"] and candidate["rows_per_s"]:
        speed = f"{candidate['one_row_us']:,.0f} us a row alone, {candidate['rows_per_s']:,.0f} rows/s"
    return (
        f"{mark} {candidate['kind']}: exact on {counted(candidate['rows_checked'], 'row')}, largest difference "
        f"{_figure(candidate['max_abs_diff'])}; {speed}"
    )


def _figure(value: float | None) -> str:
    return "0" if not value else f"{value:.1e}"
