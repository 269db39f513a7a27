"""Making past decisions again, for keys with the scope `admin`. Flows, as in calls.py."""

from dataclasses import dataclass, field
from typing import Self

from guichet.records import Body


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Whether a past decision comes out again, bit for bit; `body` has the whole report."""

    reproduces: str  # the job whose rows were scored again
    model: str
    version: int
    is_equal: bool
    rows: int
    equal: int
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        counts = body["counts"]
        return cls(
            reproduces=str(body["reproduces"]),
            model=str(body["model"]),
            version=int(body["model_version"]),
            is_equal=bool(body["is_equal"]),
            rows=int(counts["rows"]),
            equal=int(counts["equal"]),
            body=body,
        )
