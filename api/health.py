"""Whether the model that is meant when none is named can be used now, and why others cannot."""

from dataclasses import dataclass

from api.services import Services
from shared.config.addresses import is_address


@dataclass(frozen=True, slots=True)
class ModelState:
    """What the processes that score say of their models."""

    is_loaded: bool  # the default model, in a process that scores
    blocking: list[str]  # why it cannot be used, one sentence each
    reasons: list[str]  # what is wrong with other models, and with the store that they come from


def model_state(services: Services, *, in_full: bool) -> ModelState:
    """Return how the models are, as the workers, or this process, last told; why, with paths and addresses, `in_full`.

    A default model that was refused blocks, and in the sync runtime one of which no version is loaded yet, since its
    rows could not be scored. One that was promoted a moment ago is being loaded, and a queue without workers stores
    jobs all the same.
    """
    served = services.catalog.find(None, None)
    refused: dict[str, str]
    others: list[str] = []
    if services.queue is not None:
        workers = services.catalog.live_workers()
        loaded = {label for worker in workers for label in worker.models}
        refused = {label: why for worker in workers for label, why in worker.refused.items()}
        is_due, waits = bool(workers), ", so its jobs wait"
    else:
        assert services.sync is not None
        loaded = set(services.sync.models.names())
        refused = services.sync.models.refused.copy()
        is_due, waits = True, ""
        others = services.sync.troubles()
    told = {}
    for label, why in sorted(refused.items()):
        if "@" in label and not is_address(label):
            told[label] = f"{label} cannot be loaded{waits}{f': {why}' if in_full else '.'}"
        else:  # a store, or a thread
            told[label] = why if in_full else "A worker, or the store of models, is not as it should be."
    refusal = None
    if served is not None and served.label not in loaded:
        refusal = told.pop(served.label, None)
    others = [*dict.fromkeys(told.values()), *others]
    if served is None or served.label in loaded:
        return ModelState(served is not None, [], others)
    if refusal is not None:
        return ModelState(False, [refusal], others)
    later = [f"The default model {served.label} is not loaded yet."] if is_due else []
    if services.sync is not None and not any(label.startswith(f"{served.card.name}@") for label in loaded):
        return ModelState(False, later, others)
    return ModelState(False, [], [*others, *later])
