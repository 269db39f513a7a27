"""The explanation of one row, as it is stored."""

from dataclasses import dataclass
from typing import Any

from shared.scoring.outputs import Output


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one row has its score; `contributions` and `top` as docs/explanations.md describes them."""

    output: Output  # the score that is explained
    label: str | None  # the class whose score it is; None for regression
    method: str
    scale: str
    base_value: float
    value: float
    reference: dict[str, Any]  # rows, source, seed
    contributions: list[dict[str, Any]]  # the largest first: feature, value, contribution, reference, text, ...
    top: list[str]
