"""Which frames go out, and which videos go into which split."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgetam_label.errors import UsageError


@dataclass(frozen=True)
class FrameSelection:
    """Frames start, start + stride, … below stop; with `keyframes`, only touched ones of these.

    start, stop: 0-based, stop exclusive (None: to the end). stride: >= 1, counted from start.
    keyframes: keep only frames that a person touched (a prompt, or an approved mask).
    """

    start: int = 0
    stop: int | None = None
    stride: int = 1
    keyframes: bool = False

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UsageError(f"--stride {self.stride} takes no frame; give 1 or more.")
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise UsageError(
                f"--range {self.start}:{'' if self.stop is None else self.stop} holds no frame; "
                "give START:STOP, 0-based, with START < STOP (STOP itself is not included)."
            )

    @classmethod
    def parse_range(cls, text: str, *, stride: int = 1, keyframes: bool = False) -> FrameSelection:
        """From "START:STOP"; either side may be left empty."""
        first, colon, last = text.partition(":")
        try:
            if not colon:
                raise ValueError(text)
            start, stop = int(first) if first else 0, int(last) if last else None
        except ValueError:
            raise UsageError(
                f"--range {text!r} is not understood; give START:STOP, such as 0:100 or 50:."
            ) from None
        return cls(start, stop, stride, keyframes)

    def reason_against(self, frame_idx: int, keyframes: Collection[int]) -> str | None:
        """Why `frame_idx` stays out, or None if it goes out."""
        if frame_idx < self.start or (self.stop is not None and frame_idx >= self.stop):
            return "outside --range"
        if (frame_idx - self.start) % self.stride:
            return "not on the --stride"
        if self.keyframes and frame_idx not in keyframes:
            return "not a keyframe"
        return None


Fractions = tuple[tuple[str, float], ...]


def parse_split(text: str) -> Fractions:
    """(("train", 0.8), ("val", 0.2)) from "train=0.8,val=0.2"; UsageError unless they sum to 1."""
    fractions: list[tuple[str, float]] = []
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        try:
            fraction = float(value) if equals else -1.0
        except ValueError:
            fraction = -1.0
        if not name.isidentifier() or not 0 <= fraction <= 1:
            raise UsageError(
                f"--split {text!r} is not understood at {part.strip()!r}; "
                "write NAME=FRACTION,NAME=FRACTION such as train=0.8,val=0.2."
            )
        fractions.append((name, fraction))
    if len({name for name, _ in fractions}) != len(fractions):
        raise UsageError(f"--split {text!r} names a split twice.")
    total = sum(fraction for _, fraction in fractions)
    if abs(total - 1) > 1e-6:
        raise UsageError(f"The fractions of --split {text!r} sum to {total:g}; make them sum to 1.")
    return tuple(fractions)


def assign_splits(
    videos: Mapping[str, Collection[str]], fractions: Fractions, seed: int
) -> dict[str, str]:
    """A split for each video key, whole videos, so that each category is spread by `fractions`.

    Iterative stratification (Sechidis et al. 2011, section 3) over videos: the category with the
    fewest unassigned videos goes first, each of its videos to the split that lacks most of it.
    Ties are broken by a generator seeded with `seed` and by key, so the result depends on nothing
    else. A split with fraction 0 stays empty.
    """
    order = sorted(videos)
    random.Random(seed).shuffle(order)
    wanted = {name: fraction * len(order) for name, fraction in fractions}
    totals = Counter(label for key in order for label in set(videos[key]))
    lacking = {
        name: {label: fraction * n for label, n in totals.items()} for name, fraction in fractions
    }
    usable = [name for name, fraction in fractions if fraction > 0]
    chosen: dict[str, str] = {}
    while len(chosen) < len(order):
        left = [key for key in order if key not in chosen]
        counts = Counter(label for key in left for label in set(videos[key]))
        label = min(sorted(counts), key=lambda name: counts[name]) if counts else None
        key = next(k for k in left if label is None or label in videos[k])
        split = max(usable, key=lambda name: _need(lacking[name], wanted[name], label))
        chosen[key] = split
        wanted[split] -= 1
        for name in set(videos[key]):
            lacking[split][name] -= 1
    return chosen


def _need(lacking: Mapping[str, float], wanted: float, label: str | None) -> tuple[float, float]:
    # Rounded: 0.2 * 10 - 1 - 1 must tie with 0.0, not lose to it by 1e-17.
    return (round(lacking[label], 9) if label is not None else 0.0, round(wanted, 9))


def dataset_names(names: Sequence[str], *, folders: bool = False) -> list[str]:
    """File-system names for videos, in order: unique even without regard to case.

    Letters of every script stay; separators and characters that Windows refuses become "_".
    folders: "/" separates folders and stays.
    """
    taken: set[str] = set()
    result = []
    for name in names:
        parts = name.split("/") if folders else [name]
        base = "/".join(safe_name(part) for part in parts)
        candidate, number = base, 2
        while candidate.casefold() in taken:
            candidate, number = f"{base}-{number}", number + 1
        taken.add(candidate.casefold())
        result.append(candidate)
    return result


def safe_name(name: str) -> str:
    """`name` as one file-system name, at most 100 characters, never empty."""
    cleaned = "".join("_" if c in '/\\:*?"<>|,' or ord(c) < 32 else c for c in name)
    return cleaned.strip(" .")[:100].rstrip(" .") or "video"
