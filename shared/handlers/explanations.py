"""Explanations of rows: the job `explain`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shared.explanations.explanation import Explanation
from shared.explanations.storage import store_explanations
from shared.faults import Fault
from shared.handlers.handler import Handler

if TYPE_CHECKING:
    from shared.registry.loading import LoadedModel


def explain(model: "LoadedModel", rows: Sequence[dict[str, Any]]) -> list[Explanation | Fault]:
    """Return the explanations of canonical rows (n dicts), or the fault of each row without one."""
    from shared.explanations.explain import explain_rows  # not before someone asks

    return explain_rows(model, rows)


EXPLANATIONS: Handler[Explanation] = Handler("explanations", explain, store_explanations, first_rows=4)
