"""The score of one row, as it is stored."""

from dataclasses import dataclass


@dataclass(slots=True)
class Output:
    """The score of one row, as it is stored."""

    task: str
    prediction: float
    label: str | None = None
    probability: float | None = None
    probabilities: list[float] | None = None
    threshold: float | None = None
