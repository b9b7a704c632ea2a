"""The account of an export: what became of every frame and every mask, in counts that add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edgetam_label.errors import ExportError


class Outcome(StrEnum):
    """What became of one stored mask.

    WRITTEN: its exact pixels are in the dataset. CONVERTED: written with a loss that the reason
    states. ABSENT: the object is not on this frame, and the dataset says so. LEFT_OUT: the user's
    own choice of frames or categories excludes it. REFUSED: the format cannot hold it.
    """

    WRITTEN = "written"
    CONVERTED = "converted"
    ABSENT = "absent"
    LEFT_OUT = "left_out"
    REFUSED = "refused"


class FrameRanges:
    """Frame indices added in ascending order, kept and printed as ranges: "0-4,7,9-11"."""

    def __init__(self) -> None:
        self.count = 0
        self._ranges: list[list[int]] = []

    def add(self, frame_idx: int) -> None:
        if self._ranges and self._ranges[-1][1] == frame_idx - 1:
            self._ranges[-1][1] = frame_idx
        else:
            self._ranges.append([frame_idx, frame_idx])
        self.count += 1

    def __str__(self) -> str:
        return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in self._ranges)

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "frames": str(self)}


@dataclass
class ObjectAccount:
    """One object's masks by outcome and reason."""

    taken: int = 0
    entries: dict[tuple[Outcome, str], FrameRanges] = field(default_factory=dict)
    dataset_id: int | None = None

    def add(self, outcome: Outcome, reason: str, frame_idx: int) -> None:
        self.entries.setdefault((outcome, reason), FrameRanges()).add(frame_idx)

    def counts(self) -> Counter[Outcome]:
        total: Counter[Outcome] = Counter()
        for (outcome, _), ranges in self.entries.items():
            total[outcome] += ranges.count
        return total

    def to_json(self) -> dict[str, Any]:
        """{"in": n, "written": {...}, "converted": {reason: {...}}, ...}, all keys always there."""
        report: dict[str, Any] = {"in": self.taken}
        for outcome in Outcome:
            by_reason = {
                reason: ranges.to_json()
                for (kind, reason), ranges in sorted(self.entries.items())
                if kind is outcome
            }
            if outcome in (Outcome.WRITTEN, Outcome.ABSENT):
                report[outcome] = by_reason.get("", FrameRanges().to_json())
            else:
                report[outcome] = by_reason
        return report


class Ledger:
    """Collects outcomes while an exporter runs; `check` proves that nothing went missing."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, int], ObjectAccount] = {}
        self._notes: dict[str, list[str]] = {}

    def account(self, session_id: str, obj_id: int) -> ObjectAccount:
        return self._objects.setdefault((session_id, obj_id), ObjectAccount())

    def obj_ids(self, session_id: str) -> list[int]:
        """Objects of a session that the ledger has heard of, ascending."""
        return sorted(obj_id for sid, obj_id in self._objects if sid == session_id)

    def note(self, session_id: str, text: str) -> None:
        """Record a remark about a whole session, shown in the manifest and to the user."""
        notes = self._notes.setdefault(session_id, [])
        if text not in notes:
            notes.append(text)

    def notes(self, session_id: str) -> list[str]:
        return list(self._notes.get(session_id, ()))

    def check(self, session_id: str, stored: int) -> None:
        """Raise ExportError unless every one of `stored` masks was taken and accounted for once."""
        taken = 0
        for obj_id in self.obj_ids(session_id):
            account = self.account(session_id, obj_id)
            told = sum(account.counts().values())
            if told != account.taken:
                raise ExportError(
                    f"Session {session_id}, object {obj_id}: {account.taken} masks went in but "
                    f"{told} are accounted for; this is a bug, please report it."
                )
            taken += account.taken
        if taken != stored:
            raise ExportError(
                f"Session {session_id} held {stored} masks when the export began and {taken} were "
                "read; it changed meanwhile. Wait until tracking is done and export again."
            )

    def totals(self) -> dict[str, Any]:
        """Sums over all objects: {"in": n, "written": n, ...}."""
        total: Counter[Outcome] = Counter()
        for account in self._objects.values():
            total += account.counts()
        return {
            "in": sum(account.taken for account in self._objects.values()),
            **{outcome.value: total[outcome] for outcome in Outcome},
        }

    def losses(self) -> list[tuple[str, str, int]]:
        """(outcome, reason, masks) of all that was converted or refused, largest first."""
        sums: Counter[tuple[str, str]] = Counter()
        for account in self._objects.values():
            for (outcome, reason), ranges in account.entries.items():
                if outcome in (Outcome.CONVERTED, Outcome.REFUSED):
                    sums[outcome.value, reason] += ranges.count
        ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
        return [(outcome, reason, count) for (outcome, reason), count in ordered]
