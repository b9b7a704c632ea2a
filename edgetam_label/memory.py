"""What the tracker remembers of one object: memories in a bounded window, older ones on disk."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgetam_label.config import ModelConfig
from edgetam_label.crops import Crop, Drawn, Located
from edgetam_label.modeling import ObjectMask
from edgetam_label.target_model import Appearance, known_so_far

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class FrameMemory:
    """One object on one frame.

    tokens: (1, L, D) in the config's memory dtype. pointer: (1, C) float32.
    low_res_logits: (1, 1, S/4, S/4) float16, within ±32: a correction starts from them.
    iou, object_score: (1, 1) float32, as predicted; iou is what is expected of a fused mask.
    crop: (1, 6) float64, the fields of the `Crop` that tokens and logits lie on.
    drawn, appearance: the mask as it was shown, and what was known of the object's looks from this
    frame and those before it (a prompted frame: from it alone), for a pass that goes on from here;
    both lost with age.
    """

    frame_idx: int
    tokens: Tensor
    pointer: Tensor
    low_res_logits: Tensor
    iou: Tensor
    object_score: Tensor
    crop: Tensor
    drawn: Drawn | None = None
    appearance: Appearance | None = None

    def located(self) -> Located:
        """The answer that was remembered, with its logits rounded."""
        x0, y0, x1, y1, width, height = self.crop[0].tolist()
        mask = ObjectMask(self.low_res_logits.float(), self.iou, self.object_score, self.pointer)
        return Located(mask, Crop(x0, y0, x1, y1, int(width), int(height)), self.drawn)


class MemoryBank:
    """Memories of one object.

    Conditioning frames (those that a person prompted) stay in memory. Of the others, only the
    window that the next step can attend to does; older ones move to a temporary file, so that a
    correction on any frame finds its neighbours while the process does not grow with the video.
    """

    def __init__(self, config: ModelConfig, *, spill_bytes: int) -> None:
        self._config = config
        self._window = max(config.num_maskmem, config.max_object_pointers)
        self._conditioning: dict[int, FrameMemory] = {}
        self._recent: dict[int, FrameMemory] = {}
        self._file = MemoryFile(spill_bytes)

    def add(self, memory: FrameMemory, *, conditioning: bool) -> None:
        """Keep a frame's memory, replacing what was known of that frame."""
        self._forget_passing(memory.frame_idx)
        if conditioning:
            self._conditioning[memory.frame_idx] = memory
            return
        self._conditioning.pop(memory.frame_idx, None)
        self._recent[memory.frame_idx] = memory
        while len(self._recent) > self._window:
            # insertion order is the order of tracking, so the first is farthest behind
            oldest = next(iter(self._recent))
            self._file.put(self._recent.pop(oldest))

    def forget(self, frame_idx: int) -> None:
        """Drop a frame's memory, if there is one."""
        self._conditioning.pop(frame_idx, None)
        self._forget_passing(frame_idx)

    def _forget_passing(self, frame_idx: int) -> None:
        self._recent.pop(frame_idx, None)
        self._file.forget(frame_idx)

    def get(self, frame_idx: int) -> FrameMemory | None:
        """The memory of a frame, from wherever it is."""
        return self._conditioning.get(frame_idx) or self._passing(frame_idx)

    def __contains__(self, frame_idx: int) -> bool:
        return (
            frame_idx in self._conditioning or frame_idx in self._recent or frame_idx in self._file
        )

    @property
    def conditioning_frames(self) -> tuple[int, ...]:
        return tuple(self._conditioning)

    def select(
        self, frame_idx: int, num_frames: int, *, reverse: bool, every: int = 1
    ) -> tuple[list[tuple[Tensor, int]], list[Tensor]]:
        """What frame `frame_idx` attends to, in order (SAM 2, section 4).

        Maps with temporal index: every conditioning frame, then the frames before it (after it, in
        reverse) from the farthest to the nearest. Pointers: conditioning frames in the past
        (future, in reverse), then the frames before it from the nearest on.

        every: only multiples of it count as frames, for a tracker that skips the others.
        """
        step, nearest = _steps(frame_idx, reverse, every)
        maps, pointers = self.select_prompted(frame_idx, reverse=reverse)
        for distance in range(self._config.num_maskmem - 1, 0, -1):
            memory = self._passing(nearest + step * (distance - 1))
            if memory is not None:
                maps.append((memory.tokens, distance - 1))
        for distance in range(1, min(num_frames, self._config.max_object_pointers)):
            neighbour = nearest + step * (distance - 1)
            if not 0 <= neighbour < num_frames:
                break
            memory = self._passing(neighbour)
            if memory is not None:
                pointers.append(memory.pointer)
        return maps, pointers

    def select_prompted(
        self, frame_idx: int, *, reverse: bool
    ) -> tuple[list[tuple[Tensor, int]], list[Tensor]]:
        """Of what frame `frame_idx` attends to, what conditioning frames give."""
        last = self._config.num_maskmem - 1
        maps = [(m.tokens, last) for m in self._conditioning.values()]
        pointers = [
            m.pointer
            for t, m in self._conditioning.items()
            if (t >= frame_idx if reverse else t <= frame_idx)
        ]
        return maps, pointers

    def appearance(
        self, frame_idx: int, *, reverse: bool, every: int = 1
    ) -> tuple[Appearance | None, Appearance | None]:
        """What is known of the object's looks on a frame that is reached by tracking.

        All of it; and what tracking has taught so far, which begins as what prompts did.
        """
        prompted = self._prompted_looks()
        if not prompted:
            return None, None
        before = self._passing(_steps(frame_idx, reverse, every)[1])
        return known_so_far(prompted, None if before is None else before.appearance)

    def prompted_appearance(self) -> Appearance | None:
        """What conditioning frames alone say of the object's looks."""
        prompted = self._prompted_looks()
        return known_so_far(prompted, None)[0] if prompted else None

    def _prompted_looks(self) -> list[Appearance]:
        return [m.appearance for m in self._conditioning.values() if m.appearance is not None]

    def _passing(self, frame_idx: int) -> FrameMemory | None:
        """A frame that is no conditioning frame."""
        if frame_idx in self._conditioning:
            return None
        memory = self._recent.get(frame_idx)
        return memory if memory is not None else self._file.get(frame_idx)

    def close(self) -> None:
        self._file.close()


def _steps(frame_idx: int, reverse: bool, every: int) -> tuple[int, int]:
    """From one frame that was seen to the next farther one, and the nearest before this one."""
    nearest = (frame_idx // every + 1 if reverse else (frame_idx - 1) // every) * every
    return (every if reverse else -every), nearest


class MemoryFile:
    """Frame memories in an unnamed temporary file of equal records.

    max_bytes bounds the file; past it, or when the disk is full, older memories are simply lost: a
    correction there then relies on the conditioning frames alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._file: tempfile._TemporaryFileWrapper[bytes] | None = None
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._parts: tuple[Tensor, ...] = ()  # shapes and dtypes of a record
        self._device = torch.device("cpu")
        self._full = False

    def put(self, memory: FrameMemory) -> None:
        parts = (
            memory.tokens, memory.pointer, memory.low_res_logits, memory.iou, memory.object_score,
            memory.crop,
        )  # fmt: skip
        record = b"".join(_to_bytes(part) for part in parts)
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="edgetam-label-")  # type: ignore[assignment]
            self._parts = tuple(part.new_empty(0).reshape(0).cpu() for part in parts)
            self._shapes = [part.shape for part in parts]
            self._device = memory.tokens.device
        slot = self._free.pop() if self._free else len(self._slots)
        if (slot + 1) * len(record) > self._max_bytes:
            self._stop(f"it would exceed {self._max_bytes} bytes")
            return
        try:
            assert self._file is not None
            self._file.seek(slot * len(record))
            self._file.write(record)
            self._file.flush()
        except OSError as error:
            self._stop(f"the temporary file cannot be written ({error.strerror})")
            return
        self._slots[memory.frame_idx] = slot

    def get(self, frame_idx: int) -> FrameMemory | None:
        slot = self._slots.get(frame_idx)
        if slot is None or self._file is None:
            return None
        sizes = [
            shape.numel() * part.element_size()
            for shape, part in zip(self._shapes, self._parts, strict=True)
        ]
        self._file.seek(slot * sum(sizes))
        tensors = [
            _from_bytes(self._file.read(size), part.dtype, shape).to(self._device)
            for size, part, shape in zip(sizes, self._parts, self._shapes, strict=True)
        ]
        tokens, pointer, logits, iou, score, crop = tensors
        return FrameMemory(frame_idx, tokens, pointer, logits, iou, score, crop)

    def forget(self, frame_idx: int) -> None:
        slot = self._slots.pop(frame_idx, None)
        if slot is not None:
            self._free.append(slot)

    def __contains__(self, frame_idx: int) -> bool:
        return frame_idx in self._slots

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._slots.clear()

    def _stop(self, why: str) -> None:
        if not self._full:
            logger.warning(
                "Memories of far-away frames are no longer kept: %s. Tracking goes on; corrections "
                "on such frames see less context.",
                why,
            )
        self._full = True


def _to_bytes(tensor: Tensor) -> bytes:
    # numpy has no bfloat16, so the bits travel as integers
    return bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def _from_bytes(data: bytes, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    raw = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
    return raw.view(dtype).reshape(shape)
