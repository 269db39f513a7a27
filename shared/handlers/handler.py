"""The interface of a handler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shared.faults import Fault
from shared.jobs.results import Store

if TYPE_CHECKING:
    from shared.registry.loading import LoadedModel

FIRST_ROWS = 32

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Handler(Generic[Result]):
    """How the rows of jobs are turned into results, and where these are kept.

    `compute` takes canonical rows (n dicts, of one job or of several) and returns n results, or the fault of a row that
    has none; MemoryError goes up. It reads no database, and may run in any process that holds the model.

    `store` writes results in the transaction that ends their jobs; None: they are scores (`Output`), which are stored
    with the end itself.
    """

    name: str
    compute: "Callable[[LoadedModel, Sequence[dict[str, Any]]], list[Result | Fault]]"
    store: Store[Result] | None = None
    first_rows: int = FIRST_ROWS  # of the first claim, while it is not known how long a row takes
