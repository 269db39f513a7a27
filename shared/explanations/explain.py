"""Rows in, explanations out, for both runtimes: each model version gets its explainer once.

An explanation is exact or refused. On every answer, base and contributions are added up and compared with what the
model itself gives for the row, and that with what is served; beyond the tolerance there is an error, and no numbers.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.encoding.blocks import Unsupported
from shared.explanations.additive import additive
from shared.explanations.attribution import ExplainedModel, Explainer, Method, NotExplainable, Row
from shared.explanations.explanation import Explanation
from shared.explanations.sampling import sampling
from shared.explanations.wording import Reference, describe_factors, summarise_reference
from shared.faults import Fault
from shared.scoring.batch import score_rows
from shared.scoring.outputs import Output

log = logging.getLogger(__name__)

REFERENCE_ROWS = 200
SEED = 20_250_101  # any number, but always the same one: an explanation can be computed again
CACHED = 8  # model versions
TOP = 5  # factors in words


@dataclass(frozen=True, slots=True)
class _Prepared:
    explainer: Explainer
    reference: Reference


_cache: OrderedDict[tuple[str, int, str], _Prepared | NotExplainable] = OrderedDict()
_lock = threading.Lock()


def explain_rows(model: ExplainedModel, rows: Sequence[dict[str, Any]]) -> list[Explanation | Fault]:
    """Return the explanations of canonical rows (n dicts), or the fault of each row without a score or explanation.

    MemoryError goes up, as from `score_rows`.
    """
    results: list[Any] = list(score_rows(model, rows))
    good = [place for place, result in enumerate(results) if isinstance(result, Output)]
    if not good:
        return results
    try:
        prepared = _prepared(model)
    except NotExplainable as reason:
        for place in good:
            results[place] = Fault("", "not_explainable", refusal(model.card, str(reason)))
        return results
    explained = _explain(model, prepared, [rows[place] for place in good], [results[place] for place in good])
    for place, result in zip(good, explained, strict=True):
        results[place] = result
    return results


def method_of(model: ExplainedModel) -> Method:
    """Return the explanation method of a model version; raise NotExplainable without one."""
    return _prepare(model).explainer.method


def refusal(card: Card, reason: str) -> str:
    """Return the sentence that refuses a row of a version without explanations, after `The row`."""
    return f"cannot be explained: {card.name}@{card.version} {reason}"


def _explain(
    model: ExplainedModel, prepared: _Prepared, rows: Sequence[Row], outputs: Sequence[Output]
) -> list[Explanation | Fault]:
    card, explainer = model.card, prepared.explainer
    try:
        attribution = explainer.attribute(rows, outputs)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - anyone's code, asked for mixtures of rows that nobody sent
        if len(rows) > 1:  # the rows may be of several jobs, and one of them spoils no other
            parts = zip(rows, outputs, strict=True)
            return [one for row, output in parts for one in _explain(model, prepared, [row], [output])]
        log.warning("%s@%s refused a mixture of rows (%s)", card.name, card.version, type(error).__name__)
        advice = "the model refuses a mixture of this row with a reference row, so its features cannot be separated"
        return [Fault("", "not_explainable", f"cannot be explained: {advice}") for _ in rows]
    sums = attribution.base + attribution.contributions.sum(axis=1)
    gaps = np.maximum(np.abs(sums - attribution.served), np.abs(attribution.value - attribution.served))
    bad = ~(gaps <= explainer.tolerance * np.maximum(1.0, np.abs(attribution.served))) | ~_matches(
        explainer, attribution.served, outputs
    )
    explanations: list[Explanation | Fault] = []
    for place, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        if bad[place]:
            log.warning("%s@%s: an explanation by %s does not add up", card.name, card.version, explainer.method)
            explanations.append(
                Fault(
                    "",
                    "explanation_inexact",
                    f"cannot be explained exactly: what {explainer.method} adds up to is not what the model serves for "
                    "this row. Nothing is shown that does not add up; report it with the model's version",
                )
            )
            continue
        label = None if card.task == "regression" else _explained_label(model, output)
        factors = describe_factors(
            card,
            row,
            prepared.reference,
            contributions=attribution.contributions[place].tolist(),
            errors=None if attribution.errors is None else attribution.errors[place].tolist(),
            scale=explainer.scale,
            label=label,
        )
        explanations.append(
            Explanation(
                output,
                label,
                explainer.method,
                explainer.scale,
                float(attribution.base[place]),
                float(sums[place]),
                prepared.reference.about(),
                factors,
                [factor["text"] for factor in factors[:TOP] if factor["contribution"] != 0.0],
            )
        )
    return explanations


def _matches(explainer: Explainer, values: NDArray[np.float64], outputs: Sequence[Output]) -> NDArray[np.bool_]:
    """Return for each row whether its value, (n,), is that of the stored score, within the precision of the scale."""
    if explainer.scale == "margin":
        return np.ones(len(outputs), dtype=bool)
    if explainer.scale in ("target", "log_target"):
        served = np.array([output.prediction for output in outputs])
        linked = np.exp(values) if explainer.scale == "log_target" else values
    else:
        from scipy.special import expit

        served = np.array([np.nan if output.probability is None else output.probability for output in outputs])
        linked = expit(values) if explainer.scale == "log_odds" else values
    return np.asarray(np.abs(linked - served) <= explainer.tolerance * np.maximum(1.0, np.abs(served)))


def _explained_label(model: ExplainedModel, output: Output) -> str | None:
    """Return the class of the explained score: the positive one of two, otherwise the predicted one."""
    return list(model.card.labels.values())[1] if model.card.task == "binary" else output.label


def _prepared(model: ExplainedModel) -> _Prepared:
    """Return the prepared explainer of a model version, made once; raise NotExplainable."""
    key = (model.card.name, model.card.version, model.card.sha256)
    with _lock:
        if key not in _cache:
            try:
                _cache[key] = _prepare(model)
            except NotExplainable as reason:
                _cache[key] = reason
            while len(_cache) > CACHED:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        prepared = _cache[key]
    if isinstance(prepared, NotExplainable):
        raise prepared
    return prepared


def _prepare(model: ExplainedModel) -> _Prepared:
    card = model.card
    if not card.features:
        raise NotExplainable("has no features")
    sample = reference_sample(model.reference)
    scored = score_rows(model, sample)
    rows = [row for row, result in zip(sample, scored, strict=True) if isinstance(result, Output)]
    has_reference = len(rows) > 1  # one row is the example of the card, and no population
    reference = summarise_reference(card, rows if has_reference else [], seed=SEED)
    try:
        explainer: Explainer = additive(model, rows if has_reference else None)
    except Unsupported as obstacle:
        if not has_reference:
            raise NotExplainable(
                f"came without reference rows, which tell what is usual ({obstacle}); register it again with "
                "--reference rows.csv"
            ) from None
        log.info("%s@%s is explained from its scores: %s", card.name, card.version, obstacle)
        explainer = sampling(model, rows, seed=SEED)
    log.info("%s@%s is explained by %s", card.name, card.version, explainer.method)
    return _Prepared(explainer, reference)


def reference_sample(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most REFERENCE_ROWS of the reference rows, in their order, always the same ones."""
    if len(rows) <= REFERENCE_ROWS:
        return list(rows)
    chosen = np.random.default_rng(SEED).choice(len(rows), REFERENCE_ROWS, replace=False)
    return [rows[place] for place in sorted(chosen.tolist())]
