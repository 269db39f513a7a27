"""The result type of every explainer, and its field names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.encoding.blocks import Matrix
from shared.scoring.outputs import Output
from shared.scoring.selection import Scorer

Row = Mapping[str, Any]
# How the values were computed; docs/explanations.md says what each means.
Method = Literal["tree_interventional", "tree_path_dependent", "linear", "enumeration", "permutation_sampling"]
# What contributions are measured in: log-odds and probability are of the explained class, target is the unit of what is
# predicted and log_target its logarithm, margin is a class's own score before the classes are compared.
Scale = Literal["log_odds", "probability", "target", "log_target", "margin"]


class NotExplainable(Exception):
    """This model version cannot be explained; the message, after its name, has the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The values of n rows and F features."""

    base: Matrix  # (n,): the value without knowing the row
    value: Matrix  # (n,): the value as the explainer computes it
    served: Matrix  # (n,): the value as the model itself gives it
    contributions: Matrix  # (n, F)
    errors: Matrix | None = None  # (n, F): standard errors; None where the contributions are exact


class Explainer(Protocol):
    """One way to explain a model version."""

    @property
    def method(self) -> Method:
        """How the contributions are computed."""
        ...

    @property
    def scale(self) -> Scale:
        """What they are measured in."""
        ...

    @property
    def tolerance(self) -> float:
        """The largest difference between base plus contributions and the served value, relative to values above 1."""
        ...

    def attribute(self, rows: Sequence[Row], outputs: Sequence[Output]) -> Attribution:
        """Return the contributions of n canonical rows to their scores."""
        ...


class ExplainedModel(Protocol):
    """What explaining needs of a loaded model."""

    @property
    def card(self) -> Card:
        """The model's card."""
        ...

    @property
    def estimator(self) -> Any:  # noqa: ANN401 - scikit-learn has no types for estimators
        """The fitted estimator or pipeline."""
        ...

    @property
    def scorer(self) -> Scorer:
        """How it is served."""
        ...

    @property
    def reference(self) -> list[dict[str, Any]]:
        """Canonical rows like those that it was trained on."""
        ...


def explained_column(task: str, outputs: Sequence[Output], width: int) -> NDArray[np.intp]:
    """Return the explained one of a model's K outputs for each row: the predicted class's, or the positive one's."""
    if width == 1 or task != "multiclass":
        return np.full(len(outputs), width - 1, dtype=np.intp)
    return np.array([int(output.prediction) for output in outputs], dtype=np.intp)
