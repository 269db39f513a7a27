"""The gate of promotions: a version becomes champion only after a fresh replay of past decisions with it.

It runs in the transaction of the promotion. Its refusals are sentences for the person who promotes, and a reason can
overrule them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sqlalchemy import Connection, func, select

from shared.cards.card import Card
from shared.config.settings import Settings
from shared.tables import Job, JobKind, JobState, ModelVersion, ScorePairs


@dataclass(frozen=True, slots=True)
class Gate:
    """What a replay must be like for its version to be promoted; None: no limit."""

    hours: float  # since it ended, at most
    min_pairs: int  # with decisions of the present champion
    max_flips: float | None  # share of the pairs
    max_shift: float | None  # mean absolute difference of the scores
    max_refused: float | None  # share of the rows
    max_auc_loss: float | None  # of ROC AUC, where outcomes are known

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return the gate of these settings; None without a gate."""
        if settings.promotion_gate == "off":
            return None
        return cls(
            settings.promotion_replay_hours,
            settings.promotion_min_pairs,
            settings.promotion_max_flips,
            settings.promotion_max_shift,
            settings.promotion_max_refused,
            settings.promotion_max_auc_loss,
        )

    def refusal(self, connection: Connection, champion: ModelVersion, version: ModelVersion) -> str | None:
        """Return why a version may not take the champion's place, and what to do; None where it may."""
        label, current = f"{version.name}@{version.version}", f"{champion.name}@{champion.version}"
        job_id = self._find_replay(connection, champion.id, version.id)
        if job_id is None:
            return (
                f"{label} is not promoted: PROMOTION_GATE=replay asks for a replay of it that succeeded within the "
                f"last {self.hours:g} h with at least {self.min_pairs} decisions of {current}, and there is none. "
                f'Make one with POST /replays {{"model": "{label}"}} or `guichet replay {label}`'
            )
        from shared.comparison.storage import collect_replay  # numpy comes with it

        card = Card.model_validate(version.card | {"sha256": version.sha256})
        faults = self.faults(collect_replay(connection, job_id).report(card))
        if not faults:
            return None
        return (
            f"{label} is not promoted: the replay {job_id} is over the limits of PROMOTION_GATE: "
            f"{'; '.join(faults)}. Look at GET /jobs/{job_id}/result, and raise a limit only where that may be so"
        )

    def faults(self, report: dict[str, Any]) -> list[str]:
        """Return which limits a report is over, each with its figure and its setting."""
        pairs, refused = report["pairs"], report["refused"]
        shares: list[tuple[str, float, float | None, str]] = [
            ("of the rows are refused", refused / max(pairs + refused, 1), self.max_refused, "PROMOTION_MAX_REFUSED")
        ]
        if report["flips"] is not None and pairs:
            shares.append(
                ("of the decisions flip", report["flips"]["count"] / pairs, self.max_flips, "PROMOTION_MAX_FLIPS")
            )
        faults = [
            f"{value:.2%} {what}, and {name} is {limit:.2%}"
            for what, value, limit, name in shares
            if limit is not None and value > limit
        ]
        shift = report["score_shift"]
        if shift is not None and self.max_shift is not None and shift["mean_absolute"] > self.max_shift:
            faults.append(
                f"scores move by {shift['mean_absolute']:.4g} in the mean, and PROMOTION_MAX_SHIFT is "
                f"{self.max_shift:g}"
            )
        auc = (report["outcomes"] or {}).get("roc_auc")
        if self.max_auc_loss is not None and auc is not None and auc["before"] is not None:
            loss = auc["before"] - auc["after"]
            if loss > self.max_auc_loss:
                faults.append(f"ROC AUC falls by {loss:.4f}, and PROMOTION_MAX_AUC_LOSS is {self.max_auc_loss:g}")
        return faults

    def _find_replay(self, connection: Connection, champion_id: int, version_id: int) -> str | None:
        """Return the newest replay that counts; None without one."""
        query = (
            select(Job.id)
            .join(ScorePairs, ScorePairs.job_id == Job.id)
            .where(
                Job.kind == JobKind.REPLAY,
                Job.state == JobState.SUCCEEDED,
                Job.model_version_id == version_id,
                Job.finished_at >= datetime.now(UTC) - timedelta(hours=self.hours),
                ScorePairs.decided_by_id == champion_id,
            )
            .group_by(Job.id)
            .having(func.sum(ScorePairs.row_count) >= self.min_pairs)
            .order_by(Job.id.desc())
            .limit(1)
        )
        job_id = connection.scalar(query)
        return None if job_id is None else str(job_id)
