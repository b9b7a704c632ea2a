"""Track objects with the exported graphs; needs numpy and onnxruntime, and nothing else.

`edgetam-label onnx` puts this file beside the graphs as `track.py`: to be used as it is, or read
before writing the same in another language. It is one file for that reason.

    tracker = OnnxTracker("onnx-files")
    mask = tracker.prompt(0, frame0, obj_id=1, clicks=[(320, 180, True)])
    for t in range(1, len(frames)):
        for obj_id, tracked in tracker.track(t, frames[t]).items():
            print(t, obj_id, tracked.mask.sum(), tracked.score)

Frames are (H, W, 3) uint8 RGB, points are pixels of the frame, masks (H, W) bool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]
ClickList = Sequence[tuple[float, float, bool]]
Box = tuple[float, float, float, float]

# Pillow keeps the weights of an 8-bit resize as whole numbers of 2^-22
FIXED_POINT = 2.0**22
NO_POINT = -1


@dataclass(frozen=True)
class Tracked:
    """One object on one frame. score: the object is visible where it is > 0."""

    mask: NDArray[np.bool_]
    score: float
    low_res_logits: NDArray[np.float32]  # (1, 1, S/4, S/4)


@dataclass(frozen=True)
class Memory:
    """What is remembered of an object on a frame; logits are what a correction starts from."""

    tokens: Array  # (1, L, D)
    pointer: Array  # (1, C)
    logits: Array  # (1, 1, S/4, S/4) float16


@dataclass
class ObjectState:
    """conditioning: memories of prompted frames, for ever; passing: the last tracked frames."""

    conditioning: dict[int, Memory] = field(default_factory=dict)
    passing: dict[int, Memory] = field(default_factory=dict)
    clicks: dict[int, ClickList] = field(default_factory=dict)
    base: dict[int, Array | None] = field(default_factory=dict)  # logits before the first prompt
    answers: dict[int, Tracked] = field(default_factory=dict)  # on prompted frames


class OnnxPipeline:
    """The graphs of one export, run by name with named inputs.

    providers and threads are ONNX Runtime's; threads 0 takes all cores.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
    ) -> None:
        self.manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._sessions = {
            name: onnxruntime.InferenceSession(
                str(Path(folder) / entry["file"]), options, providers=list(providers)
            )
            for name, entry in self.manifest["graphs"].items()
        }

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One graph's outputs by name; values it has no input for are left out."""
        entry = self.manifest["graphs"][graph]
        feed = {
            value["name"]: np.ascontiguousarray(inputs[value["name"]], dtype=value["type"])
            for value in entry["inputs"]
        }
        names = [value["name"] for value in entry["outputs"]]
        return dict(zip(names, self._sessions[graph].run(names, feed), strict=True))


class OnnxTracker:
    """Any number of objects through one video, in either direction; the caller reads the frames.

    corrections_condition: a correction becomes a frame that all later ones attend to.
    """

    def __init__(
        self, pipeline: OnnxPipeline | str | Path, *, corrections_condition: bool = True
    ) -> None:
        self.pipeline = pipeline if isinstance(pipeline, OnnxPipeline) else OnnxPipeline(pipeline)
        self.corrections_condition = corrections_condition
        self.objects: dict[int, ObjectState] = {}
        manifest = self.pipeline.manifest
        self._constants, self._post = manifest["constants"], manifest["postprocessing"]
        self._size: int = manifest["preprocessing"]["size"]
        self._encoded: tuple[int, dict[str, Array]] = (-1, {})

    def prompt(
        self,
        frame_idx: int,
        frame: NDArray[np.uint8],
        obj_id: int,
        *,
        clicks: ClickList = (),
        box: Box | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Tracked:
        """The object's mask on a frame. clicks: all on this frame, (x, y, positive).

        On a frame that was tracked it corrects. `mask` is taken as it is and stands alone.
        """
        obj = self.objects.setdefault(obj_id, ObjectState())
        features = self._encode(frame_idx, frame)
        if frame_idx not in obj.base:
            known = obj.passing.get(frame_idx)
            obj.base[frame_idx] = None if known is None else known.logits.astype(np.float32)
        base = obj.base[frame_idx]
        if mask is not None:
            decoded = self._mask_as_output(features, mask)
        else:
            if base is None:
                top = features["features_no_memory"]
            else:
                top = self._attend(obj, frame_idx, features, self._start(features), reverse=False)
            previous = self._previous(obj, frame_idx, clicks, base)
            points, labels = self._points(clicks, box, frame.shape)
            decoded = self._decode(features, top, points, labels, previous)
        self._fill_holes(decoded)
        tokens = self._encode_memory(features, decoded, prompted=True)
        obj.passing.pop(frame_idx, None)
        obj.conditioning.pop(frame_idx, None)
        conditioning = base is None or self.corrections_condition
        kept = obj.conditioning if conditioning else obj.passing
        kept[frame_idx] = self._remember(tokens, decoded)
        obj.clicks[frame_idx] = tuple(clicks)
        obj.answers[frame_idx] = self._to_frame(decoded, frame.shape)
        return obj.answers[frame_idx]

    def track(
        self, frame_idx: int, frame: NDArray[np.uint8], *, reverse: bool = False
    ) -> dict[int, Tracked]:
        """Every object on the next frame, by id; call it for frame after frame.

        reverse: frames are visited from the last to the first.
        """
        answers = {}
        started: Array | None = None
        for obj_id, obj in self.objects.items():
            if frame_idx in obj.answers:  # a prompted frame's mask is the person's answer
                answers[obj_id] = obj.answers[frame_idx]
                continue
            features = self._encode(frame_idx, frame)
            started = self._start(features) if started is None else started
            top = self._attend(obj, frame_idx, features, started, reverse=reverse)
            nothing = np.zeros((1, 1, 2)), np.full((1, 1), NO_POINT)
            decoded = self._decode(features, top, *nothing, None)
            tokens = self._encode_memory(features, decoded, prompted=False)
            self._fill_holes(decoded)  # after: the memory holds the mask as it was decoded
            obj.passing.pop(frame_idx, None)
            obj.passing[frame_idx] = self._remember(tokens, decoded)
            window = max(self._constants["num_maskmem"], self._constants["max_object_pointers"])
            while len(obj.passing) > window:
                del obj.passing[next(iter(obj.passing))]
            answers[obj_id] = self._to_frame(decoded, frame.shape)
        return answers

    def _encode(self, frame_idx: int, frame: NDArray[np.uint8]) -> dict[str, Array]:
        if self._encoded[0] != frame_idx:
            pixels = resize_frame(frame, self._size)[None]
            self._encoded = frame_idx, self.pipeline.run("image_encoder", {"pixels": pixels})
        return self._encoded[1]

    def _start(self, features: dict[str, Array]) -> Array:
        return self.pipeline.run("frame_attention", features)["started"]

    def _attend(
        self,
        obj: ObjectState,
        frame_idx: int,
        features: dict[str, Array],
        started: Array,
        *,
        reverse: bool,
    ) -> Array:
        """The frame's features, knowing what is remembered of the object."""
        last = self._constants["num_maskmem"] - 1
        step = 1 if reverse else -1
        conditioning = {t: m for t, m in obj.conditioning.items() if t != frame_idx}
        near = {
            distance: obj.passing[frame_idx + step * distance]
            for distance in range(1, self._constants["max_object_pointers"])
            if frame_idx + step * distance in obj.passing
        }
        tokens = [m.tokens for m in conditioning.values()]
        index = [last] * len(tokens)
        tokens += [m.tokens for distance, m in near.items() if distance <= last]
        index += [distance - 1 for distance in near if distance <= last]
        # pointers of prompted frames that are still to come are left out
        pointers = [m.pointer for t, m in conditioning.items() if (frame_idx - t) * step < 0]
        pointers += [m.pointer for m in near.values()]
        width = features["features"].shape[1]
        memory = {
            "started": started,
            "tokens": np.stack(tokens, axis=1),
            "temporal_index": np.array([index]),
            "pointers": np.stack(pointers, 1) if pointers else np.zeros((1, 0, width)),
        }
        return self.pipeline.run("memory_attention", memory)["features"]

    def _decode(
        self,
        features: dict[str, Array],
        top: Array,
        points: Array,
        labels: Array,
        previous: Array | None,
        *,
        multimask: bool | None = None,
    ) -> dict[str, Array]:
        side = self._size // 4
        given = {
            **features,
            "features": top,
            "points": points,
            "labels": labels,
            "mask_logits": np.zeros((1, 1, side, side)) if previous is None else previous,
            "has_mask": np.array([previous is not None]),
            "multimask": np.array([labels.shape[1] <= 1 if multimask is None else multimask]),
        }
        return self.pipeline.run("mask_decoder", given)

    def _mask_as_output(self, features: dict[str, Array], mask: Array) -> dict[str, Array]:
        drawn = resize_mask(mask, self._size)[None, None]
        answer = self.pipeline.run("mask_prompt", {"mask": drawn})
        nothing = np.zeros((1, 1, 2)), np.full((1, 1), NO_POINT)
        decoded = self._decode(
            features, features["features"], *nothing, answer["decoder_mask"], multimask=False
        )
        empty = answer["object_score"][0, 0] <= 0
        return {**answer, "pointer": answer["absent_pointer"] if empty else decoded["pointer"]}

    def _points(
        self, clicks: ClickList, box: Box | None, shape: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """Points in pixels of the network's input, (1, N, 2), and labels (1, N); the box first."""
        if not clicks and box is None:
            raise ValueError("A prompt needs at least one click, a box or a mask.")
        corners = [] if box is None else [box[:2], box[2:]]
        xy = np.array([*corners, *((x, y) for x, y, _ in clicks)], dtype=np.float32)
        labels = [2, 3][: len(corners)] + [int(positive) for _, _, positive in clicks]
        scale = np.array([shape[1], shape[0]], dtype=np.float32)
        return (xy / scale * self._size)[None], np.array([labels])

    def _previous(
        self, obj: ObjectState, frame_idx: int, clicks: ClickList, base: Array | None
    ) -> Array | None:
        """Logits to refine: the last answer's if clicks were added to it, else the tracked ones."""
        before = obj.clicks.get(frame_idx)
        if before is None or len(clicks) <= len(before) or tuple(clicks[: len(before)]) != before:
            return base
        limit = self._constants["feedback_limit"]
        return np.clip(obj.answers[frame_idx].low_res_logits, -limit, limit)

    def _encode_memory(
        self, features: dict[str, Array], decoded: dict[str, Array], *, prompted: bool
    ) -> Array:
        given = {
            "features": features["features"],
            "low_res_logits": decoded["low_res_logits"],
            "prompted": np.array([prompted]),
        }
        return self.pipeline.run("memory_encoder", given)["tokens"]

    def _remember(self, tokens: Array, decoded: dict[str, Array]) -> Memory:
        limit = self._constants["feedback_limit"]
        logits = np.clip(decoded["low_res_logits"], -limit, limit).astype(np.float16)
        return Memory(rounded(tokens, self._constants["memory_dtype"]), decoded["pointer"], logits)

    def _fill_holes(self, decoded: dict[str, Array]) -> None:
        if decoded["object_score"][0, 0] > 0 and self._post["fill_hole_area"] > 0:
            logits = decoded["low_res_logits"].copy()
            holes = small_components(logits[0, 0] <= 0, self._post["fill_hole_area"])
            logits[0, 0][holes] = self._post["filled_hole_logit"]
            decoded["low_res_logits"] = logits

    def _to_frame(self, decoded: dict[str, Array], shape: tuple[int, ...]) -> Tracked:
        score, logits = float(decoded["object_score"][0, 0]), decoded["low_res_logits"]
        if score <= 0:
            return Tracked(np.zeros(shape[:2], dtype=bool), score, logits)
        rows, cols = (linear_weights(logits.shape[-1], n) for n in shape[:2])
        return Tracked(rows @ logits[0, 0] @ cols.T > self._post["threshold"], score, logits)


# -- resizing, each as one matrix per axis, (out, in) ----------------------------------------------


def resize_frame(frame: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """(H, W, 3) uint8 → (size, size, 3), bicubic with antialiasing, rows first as Pillow does.

    Pillow 13 takes columns first for some upright frames; its rounding in between then differs.
    """
    pixels = frame.astype(np.float64)
    for axis, length in ((1, frame.shape[1]), (0, frame.shape[0])):
        if length != size:
            weights = antialiased_weights(length, size, _cubic, 2.0)
            whole = np.trunc(weights * FIXED_POINT + np.copysign(0.5, weights))
            sums = np.moveaxis(np.tensordot(whole, pixels, (1, axis)), 0, axis)
            pixels = np.clip(np.floor(sums / FIXED_POINT + 0.5), 0, 255)
    return pixels.astype(np.float32)


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.float32]:
    """(H, W) bool → (size, size) of 0 and 1: bilinear with antialiasing, then ≥ 0.5."""
    rows, cols = (antialiased_weights(n, size, _triangle, 1.0) for n in mask.shape)
    # rounded, so that an edge through the middle of a pixel is not left to the last bit
    share = np.round(rows @ mask.astype(np.float64) @ cols.T, 6)
    return (share >= 0.5).astype(np.float32)


def antialiased_weights(length: int, size: int, kernel: Any, support: float) -> Array:
    scale = length / size
    stretch = max(scale, 1.0)
    weights = np.zeros((size, length))
    for i in range(size):
        centre = (i + 0.5) * scale
        start = max(int(centre - support * stretch + 0.5), 0)
        stop = min(int(centre + support * stretch + 0.5), length)
        # reciprocals as in Pillow: the last bit decides how a weight is rounded
        row = kernel((np.arange(start, stop) - centre + 0.5) * (1 / stretch))
        weights[i, start:stop] = row * (1 / row.sum())
    return weights


def linear_weights(length: int, size: int) -> NDArray[np.float32]:
    """Bilinear with half-pixel centres, not antialiased."""
    at = np.maximum((np.arange(size) + 0.5) * (length / size) - 0.5, 0)
    low = np.minimum(at.astype(int), length - 1)
    weights = np.zeros((size, length), dtype=np.float32)
    rows, share = np.arange(size), at - low
    weights[rows, low] = 1 - share
    weights[rows, np.minimum(low + 1, length - 1)] += share
    return weights


def _cubic(x: Array) -> Array:
    x, a = np.abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: Array) -> Array:
    triangle: Array = np.maximum(1 - np.abs(x), 0)
    return triangle


# -- small parts -----------------------------------------------------------------------------------


def rounded(tokens: Array, dtype: str) -> Array:
    """float32 rounded to what memories are stored in; numpy has no bfloat16."""
    if dtype != "bfloat16":
        return tokens.astype(dtype).astype(np.float32)
    bits = np.ascontiguousarray(tokens, dtype=np.float32).view(np.uint32)
    even = (bits >> 16) & 1
    return ((bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)).view(np.float32)


def small_components(mask: NDArray[np.bool_], max_area: int) -> NDArray[np.bool_]:
    """Pixels of `mask` in 8-connected components of at most `max_area` pixels."""
    height, width = mask.shape
    label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    shifts = [(dy, dx) for dy in range(3) for dx in range(3)]

    def around(values: Array) -> list[Array]:
        padded = np.pad(values, 1)
        return [padded[dy : dy + height, dx : dx + width] for dy, dx in shifts]

    for _ in range(max_area):  # enough for a small component to agree on its highest label
        label = np.where(mask, np.max(around(label), axis=0), 0)
    joined = np.unique(label[np.any([(n > 0) & (n != label) for n in around(label)], axis=0)])
    area = np.bincount(label.ravel(), minlength=mask.size + 1)
    small = area <= max_area
    small[joined] = False  # still touches another label: part of something larger
    return mask & small[label]
