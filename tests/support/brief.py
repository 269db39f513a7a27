"""Registration as the tests do it often: it proves as ever, and asks and measures less often."""

import pytest

from shared.scoring.parity import SMALL_BATCH


def prove_briefly(patch: pytest.MonkeyPatch) -> None:
    """Ask a model for fewer rows alone and in company, and spend little on which exact way to score is the fastest."""
    patch.setattr("shared.scoring.parity.LEAST", {1: 4, SMALL_BATCH: 1})
    patch.setattr("shared.scoring.selection.MEASURE_SECONDS", 0.005)
