"""Registration as the tests do it often: it proves as ever, and asks and measures less often."""

import pytest

from shared.scoring.parity import FEW


def prove_briefly(patch: pytest.MonkeyPatch) -> None:
    """Ask a model for fewer rows alone and in company, and spend little on which exact way to score is the fastest."""
    patch.setattr("shared.scoring.parity.LEAST", {1: 4, FEW: 1})
    patch.setattr("shared.scoring.selection.SECONDS", 0.005)
