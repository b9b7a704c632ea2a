"""Labels to categories: numbered by name, or as a category map file says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import UsageError

if TYPE_CHECKING:
    from edgetam_label.session_types import LabelObject


@dataclass(frozen=True)
class Category:
    """id: 1-based, as COCO readers need it. name: as it stands in the dataset."""

    id: int
    name: str


@dataclass(frozen=True)
class CategoryMap:
    """What each label becomes; None leaves objects with that label out.

    `explicit` is False for the numbering made from the labels themselves.
    """

    by_label: Mapping[str, Category | None]
    explicit: bool = False

    @classmethod
    def of_objects(cls, objects: Iterable[LabelObject]) -> CategoryMap:
        """Ids 1, 2, … in alphabetical order of the labels.

        Labels that were imported keep their `category_id`, if all their objects agree on it and no
        other label has it; the rest get the numbers that are still free.
        """
        claims: dict[str, set[object]] = {}
        for entry in objects:
            claims.setdefault(entry.label, set()).add(entry.attributes.get("category_id"))
        claimants = Counter(claim for ids in claims.values() for claim in ids)
        kept: dict[str, int] = {}
        for label, ids in claims.items():
            claim = next(iter(ids))
            if len(ids) == 1 and claimants[claim] == 1 and isinstance(claim, int) and claim > 0:
                kept[label] = claim
        free = (number for number in count(1) if number not in kept.values())
        rest = {label: next(free) for label in sorted(set(claims) - set(kept))}
        return cls({label: Category(i, label) for label, i in sorted({**kept, **rest}.items())})

    @classmethod
    def load(cls, path: Path) -> CategoryMap:
        """Read a category map file.

        JSON: {"label": id | {"id": id, "name": "other name"} | null}; several labels may share an
        id if they share the name too. Any other text: one label a line, numbered from 1.
        Raises UsageError naming the file and the entry.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"Category map {path} cannot be read: {error}.") from error
        if not text.lstrip().startswith(("{", "[")):
            names = [line.strip() for line in text.splitlines() if line.strip()]
            if len(set(names)) != len(names):
                raise UsageError(f"Category map {path} names a label twice.")
            return cls({n: Category(i, n) for i, n in enumerate(names, start=1)}, explicit=True)
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"Category map {path}, line {error.lineno}: {error.msg}.") from error
        if not isinstance(raw, dict):
            raise UsageError(f'Category map {path} must be an object like {{"person": 1}}.')
        mapped = {label: _category(path, label, value) for label, value in raw.items()}
        names_of: dict[int, str] = {}
        for category in filter(None, mapped.values()):
            if names_of.setdefault(category.id, category.name) != category.name:
                raise UsageError(
                    f"Category map {path} gives id {category.id} to both "
                    f"{names_of[category.id]!r} and {category.name!r}; "
                    "give them one name or two ids."
                )
        return cls(mapped, explicit=True)

    @property
    def categories(self) -> tuple[Category, ...]:
        """All categories, by id, each once."""
        return tuple(sorted({c for c in self.by_label.values() if c}, key=lambda c: c.id))

    def check_covers(self, labels: Iterable[str]) -> None:
        """Raise UsageError naming the labels that the map does not mention."""
        missing = sorted(set(labels) - set(self.by_label))
        if missing:
            listed = ", ".join(repr(label) for label in missing)
            raise UsageError(
                f"The category map does not mention {listed}; add each with an id, "
                "or with null to leave its objects out."
            )


def _category(path: Path, label: str, value: Any) -> Category | None:
    if value is None:
        return None
    name = label
    if isinstance(value, dict):
        name, value = value.get("name", label), value.get("id")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"Category map {path} gives {label!r} the id {value!r}; ids are whole numbers from 1."
        )
    if not isinstance(name, str) or not name:
        raise UsageError(f"Category map {path} gives {label!r} the name {name!r}; give a text.")
    return Category(value, name)
