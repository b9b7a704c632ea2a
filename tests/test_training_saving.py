"""What a training run writes is whole, or what was there before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgetam_label.errors import EdgeTAMLabelError
from edgetam_label.training import saving
from edgetam_label.training.saving import save_whole


def test_a_state_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    for value in (1, 2):
        save_whole({"value": torch.tensor(value)}, path)
    assert int(torch.load(path, weights_only=True)["value"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["resume.pt"]


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(EdgeTAMLabelError, match=r"Cannot write .*resume\.pt.*is there"):
        save_whole({}, tmp_path / "gone" / "resume.pt")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("failed writing file data/0")]
)
def test_a_full_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "resume.pt"
    save_whole({"value": 1}, path)
    before = path.read_bytes()

    def half(state: object, to: Path) -> None:
        to.write_bytes(before[:100])
        raise error

    monkeypatch.setattr(saving.torch, "save", half)
    with pytest.raises(EdgeTAMLabelError, match="what it held before is still there"):
        save_whole({"value": 2}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["resume.pt"]
