"""Ways of tracking that are faster and give other masks; a session keeps to one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from edgetam_label.session_types import ModelIdentity

_MARKS = re.compile(
    r"(?:\+image-size=(?P<image_size>\d+))?(?:\+precision=(?P<precision>[a-z]+\d+))?"
    r"(?:\+every=(?P<every>\d+))?$"
)


@dataclass(frozen=True)
class TrackMode:
    """every: the network sees one frame in so many, optical flow moves masks in between.

    image_size: side of the network's input; None: the one that the model was trained at.
    precision: of the large products (`config.PRECISIONS`); None: the config's.
    """

    every: int = 1
    image_size: int | None = None
    precision: str | None = None

    def mark(self, identity: ModelIdentity) -> ModelIdentity:
        """The identity of what makes masks in this mode: sessions and manifests tell it apart."""
        name = identity.name
        if self.image_size is not None:
            name += f"+image-size={self.image_size}"
        if self.precision is not None:
            name += f"+precision={self.precision}"
        if self.every > 1:
            name += f"+every={self.every}"
        return replace(identity, name=name)

    @classmethod
    def of(cls, identity: ModelIdentity) -> tuple[str, TrackMode]:
        """The name of the model's config, and the mode, of a marked identity."""
        found = _MARKS.search(identity.name)
        assert found is not None  # it may be empty
        size, every = found["image_size"], found["every"]
        mode = cls(int(every or 1), int(size) if size else None, found["precision"])
        return identity.name[: found.start()], mode

    def __str__(self) -> str:
        size = "" if self.image_size is None else f" --image-size {self.image_size}"
        precision = "" if self.precision is None else f" --precision {self.precision}"
        return f"--every {self.every}{size}{precision}"
