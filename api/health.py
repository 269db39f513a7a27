"""The health of the service: whether it accepts requests, whether the default model is usable, and the reasons."""

from dataclasses import dataclass
from typing import Any

from api.runtimes.acceptance import SILENT
from api.services import Services
from shared.background import ended
from shared.config.addresses import is_address
from shared.reasons import Reason

NEEDED = ("catalog", "acceptance")  # threads without which nobody knows whether a request can be taken


@dataclass(frozen=True, slots=True)
class ModelState:
    """The state of the models in the scoring processes."""

    is_loaded: bool  # the default model, in a process that scores
    blocking: list[str]  # why it cannot be used, one sentence each
    reasons: list[str]  # what is wrong with other models, and with the store that they come from


def model_state(services: Services, *, in_full: bool) -> ModelState:
    """Return the last state of the models in the workers, or here; reasons include paths and addresses `in_full`.

    A default model that was refused blocks, and in the sync runtime one of which no version is loaded yet, since its
    rows could not be scored. One that was promoted a moment ago is being loaded, and a queue without workers stores
    jobs all the same.
    """
    served = services.catalog.find(None, None)
    models = services.runtime.model_states()
    loaded = models.loaded
    refusals = "model_refused_jobs_wait" if models.jobs_wait else "model_refused"
    reasons: dict[str, str] = {}
    for label, why in sorted(models.refused.items()):
        if "@" in label and not is_address(label):
            reasons[label] = Reason(refusals, model=label, detail=why if in_full else None)
        else:  # a store, or a thread
            reasons[label] = why if in_full else Reason("models_or_worker")
    refusal = None
    if served is not None and served.label not in loaded:
        refusal = reasons.pop(served.label, None)
    others = [*dict.fromkeys(reasons.values()), *models.troubles]
    if served is None or served.label in loaded:
        return ModelState(served is not None, [], others)
    if refusal is not None:
        return ModelState(False, [refusal], others)
    later: list[str] = [Reason("default_model_loading", model=served.label)] if models.has_worker else []
    if not models.jobs_wait and not any(label.startswith(f"{served.card.name}@") for label in loaded):
        return ModelState(False, later, others)
    return ModelState(False, [], [*others, *later])


def blocking(services: Services, *, in_full: bool = False) -> list[str]:
    """Return the reasons against taking requests now, one sentence each."""
    state = model_state(services, in_full=in_full)
    reasons: list[str] = []
    if not services.catalog.is_connected:
        reasons.append(SILENT)
    reasons += [
        reason
        for reason in (services.acceptance.fault(), services.runtime.trouble())
        if reason and reason not in reasons
    ]
    reasons += [reason for name, reason in ended().items() if name in NEEDED]
    if not services.catalog.snapshot.by_name:
        reasons.append(Reason("no_model"))
        reasons += state.reasons
    return reasons + state.blocking


def describe(services: Services, *, in_full: bool) -> dict[str, Any]:
    """Return the body of /health; `in_full` adds details about the service's machines, for trusted callers."""
    state = model_state(services, in_full=in_full)
    reasons = blocking(services, in_full=in_full)
    down = bool(reasons)
    served = services.catalog.find(None, None)
    if served is None and services.catalog.snapshot.by_name:
        reasons.append(Reason("default_model_unknown", model=services.settings.default_model))
    condition = services.runtime.examine(is_down=down)
    reasons += condition.reasons
    snapshot = services.catalog.snapshot
    reasons += [why.sentence(snapshot.by_id[version].label) for version, why in snapshot.suspended.items()]
    shadows = [
        shadow.sentence(snapshot.by_id[version].label, in_full=in_full) for version, shadow in snapshot.shadows.items()
    ]
    reasons += [why for why in shadows if why is not None]
    reasons += [reason for reason in (*ended().values(), *state.reasons) if reason not in reasons]
    return {
        "status": "down" if down else "starting" if condition.is_starting else "degraded" if reasons else "ok",
        "model_loaded": state.is_loaded,
        "model": None if served is None else served.card.name,
        "model_version": None if served is None else served.card.version,
        "runtime": services.settings.runtime,
        "database": "ok" if services.catalog.is_connected else "down",
        "broker": condition.broker,
        "recovery": condition.recovery,
        "workers": [
            {
                "id": worker.id if in_full else str(number),
                "lanes": worker.lanes,
                "models": worker.models,
                "seen_at": worker.seen_at,
            }
            for number, worker in enumerate(condition.workers, 1)
        ],
        "worker_count": len(condition.workers),
        "oldest_queued_seconds": condition.oldest_queued_seconds,
        "reasons": reasons,
        "causes": [_cause(reason) for reason in reasons],
    }


def _cause(reason: str) -> dict[str, Any] | None:
    """Return the code and the values of a reason; None for a sentence that comes from elsewhere."""
    return {"code": reason.code, "values": reason.values} if isinstance(reason, Reason) else None


def served_models(services: Services) -> list[dict[str, Any]]:
    """Return each model's champion: version, SHA-256, and the times of training and registration."""
    snapshot = services.catalog.snapshot
    served = [services.catalog.find(name, None) for name in sorted(snapshot.by_name)]
    return [
        {
            "model": version.card.name,
            "model_version": version.card.version,
            "model_sha256": version.sha256,
            "trained_at": version.card.trained_at,
            "created_at": version.created_at,
        }
        for version in served
        if version is not None
    ]
