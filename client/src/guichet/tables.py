"""Results as pandas DataFrames, where pandas is installed: the rest of the client does not need it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from guichet.errors import Unusable


class Score(Protocol):
    """What the results of a row have in common."""

    @property
    def prediction(self) -> Any: ...  # noqa: ANN401, D102
    @property
    def label(self) -> str | None: ...  # noqa: D102
    @property
    def probability(self) -> float | None: ...  # noqa: D102
    @property
    def threshold(self) -> float | None: ...  # noqa: D102
    @property
    def probabilities(self) -> dict[str, float] | None: ...  # noqa: D102


def score_columns(score: Score) -> dict[str, Any]:
    """Return a score by column; each class of several has a column of its own, `probability_CLASS`."""
    return {
        "prediction": score.prediction,
        "label": score.label,
        "probability": score.probability,
        "threshold": score.threshold,
        **{f"probability_{name}": value for name, value in (score.probabilities or {}).items()},
    }


def frame_of(rows: Sequence[Mapping[str, Any]], index: Any = None) -> Any:  # noqa: ANN401 - a pandas DataFrame
    """Return rows as a DataFrame."""
    return _pandas().DataFrame(list(rows), index=index)


def read_parquet(path: Path) -> Any:  # noqa: ANN401 - a pandas DataFrame
    """Return a Parquet file as a DataFrame."""
    try:
        return _pandas().read_parquet(path)
    except ImportError:
        raise Unusable("To read a file of scores as a DataFrame, install pyarrow: pip install pyarrow.") from None


def _pandas() -> ModuleType:
    try:
        import pandas
    except ImportError:
        raise Unusable("A DataFrame needs pandas: pip install pandas.") from None
    return pandas
