"""Weights and training states on disk: whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgetam_label.errors import EdgeTAMLabelError, first_line
from edgetam_label.mask_files import replace_whole


def save_whole(state: dict[str, Any], path: Path) -> None:
    """Write `state` as torch does; until it is complete, `path` stays as it was.

    Raises EdgeTAMLabelError where it cannot be written, and leaves nothing half-written.
    """
    try:
        replace_whole(path, lambda part: torch.save(state, part))
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        kept = "; what it held before is still there" if path.exists() else ""
        raise EdgeTAMLabelError(
            f"Cannot write {path}: {first_line(error)}{kept}. Make room, or make sure that "
            f"{path.parent} is there and can be written to, and start again."
        ) from error
