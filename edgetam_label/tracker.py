"""VideoTracker: prompts on any frame become masks on every frame, each object on its own.

Objects share a frame's image features and nothing else: adding, correcting or removing one never
changes another's masks. Only those tracked in one pass yield pixels to each other, and to masks
that others have already, where the model asks for it (`non_overlap`). The network is stateless;
this module owns the state.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.byte_cache import ByteCache
from edgetam_label.close_ups import CloserLook, SeenCloser
from edgetam_label.crops import Bounds, Crop, Drawn, Located
from edgetam_label.edges import refine_edges
from edgetam_label.errors import PromptError, UsageError
from edgetam_label.finding import Finder, Fusion, Sought
from edgetam_label.flow import Flow, FlowBetween, FlowCarrier, Grey, grey_picture
from edgetam_label.frame_features import EncodedFrame, FrameFeatures, Picture
from edgetam_label.frames import Frames
from edgetam_label.framing import TRACKED, enough_pixels, plenty_of_pixels
from edgetam_label.fusion import drawn_mask
from edgetam_label.masks import RLE, Mask, mask_to_box, small_components
from edgetam_label.memory import DTYPES, FrameMemory, MemoryBank
from edgetam_label.modeling import EdgeTAM, ImageFeatures, ObjectMask
from edgetam_label.modeling.fused import fuse
from edgetam_label.non_overlap import kept_beside, settle
from edgetam_label.predictor import LOGIT_LIMIT
from edgetam_label.prefetch import Prefetch
from edgetam_label.preprocess import (
    frame_to_picture,
    logits_to_mask,
    mask_to_input,
    picture_to_input,
)
from edgetam_label.prompt_decoding import (
    ClickRules,
    Look,
    View,
    decode_prompt,
    drawn_look,
    honoured,
)
from edgetam_label.prompts import Prompt
from edgetam_label.target_model import Appearance, observe, renewed

Beside = Callable[[int], Mapping[int, RLE]]  # frame_idx → masks by object

T = TypeVar("T")

DIRECTIONS = ("forward", "backward")
FILLED_HOLE_LOGIT = 0.1  # what a filled hole's logits become, as upstream has it
CROP_CACHE_BYTES = 8 * 2**20  # encoded crops of prompted frames


@dataclass(frozen=True)
class TrackerSettings:
    """Choices that are not the model's.

    corrections_condition: a correction becomes a conditioning frame, which every later frame
        attends to. Upstream's default is off, and its users find corrections too weak so.
    fill_hole_area: pixels of the low-resolution mask; None takes the model config's.
    every: the network sees the frames whose index is a multiple of it, and those with a prompt;
        in between, masks follow the optical flow. 1: all frames, as upstream.
    flow_prompt: tracked frames are decoded with the mask of the frame before, moved along the
        optical flow, as a mask prompt; None takes the model config's. For models trained so.
    refine_edges: masks follow the edges of the picture; None takes the model config's.
    clicked_parts: an answer to clicks keeps only the parts that were clicked; None takes the model
        config's.
    honour_clicks: and has every clicked pixel on its side; None takes the model config's.
    close_ups: an answer to a prompt comes from a crop around it; None takes the model config's.
    flip_test: and is the mean of that and its mirror image; None takes the model config's.
    close_tracks: an object is tracked through a crop that follows it, which costs an encoding for
        each object, and is looked for once more where it is taken for absent; None takes the model
        config's.
    fuse_flow: a tracked mask is the network's answer and the mask before, moved along the flow,
        each as far as it is sure; None takes the model config's.
    learned_fusion: and as far as a network says so that was taught when to believe which, where the
        model has one; None takes the model config's.
    target_model: what an object looks like is learned while it is tracked, and added to the mask
        that `flow_prompt` shows and to the answer; None takes the model config's.
    non_overlap: objects of one pass do not share pixels, and leave to others what those have; None
        takes the model config's.
    feature_cache_bytes: budget for encoded frames. spill_bytes: budget of the temporary file for
        memories outside the attention window, per object.
    """

    corrections_condition: bool = True
    fill_hole_area: int | None = None
    feature_cache_bytes: int = 24 * 2**20
    spill_bytes: int = 2 * 2**30
    every: int = 1
    flow_prompt: bool | None = None
    refine_edges: bool | None = None
    clicked_parts: bool | None = None
    honour_clicks: bool | None = None
    close_ups: bool | None = None
    flip_test: bool | None = None
    close_tracks: bool | None = None
    fuse_flow: bool | None = None
    learned_fusion: bool | None = None
    target_model: bool | None = None
    non_overlap: bool | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"every = {self.every} is not usable; 1 tracks every frame.")


@dataclass(frozen=True)
class TrackedFrame:
    """One object on one frame.

    mask: (H, W) bool at the video's size, empty where `absent`. score: the object score, a logit;
    the object is absent where it is ≤ 0. low_res_logits: (1, 1, S/4, S/4) float32, on `crop`, where
    the object was looked at. prompted: a person prompted this frame. drawn: the mask of the crop as
    finely as it is kept, where it is (`fuse_flow`).
    """

    frame_idx: int
    obj_id: int
    mask: Mask
    score: float
    absent: bool
    prompted: bool
    low_res_logits: Tensor
    crop: Crop
    drawn: Drawn | None = None

    def logits(self) -> NDArray[np.float32]:
        """(H, W) float32 at the video's size: of the mask as it is kept."""
        if self.drawn is not None:
            return self.crop.logits(_drawn_logits(self.drawn))
        return self.crop.logits(self.low_res_logits)


@dataclass(frozen=True)
class _Seen:
    """A frame of a pass.

    frame: as it was read, where `picture` may still have to be made. picture: the whole of it as
    the network sees it, (S, S, 3). image: that, normalised, if the network is to see it. grey,
    flow: the optical flow to the frame before, and what it is computed from. pixels: (h, w, 3),
    for crops. Each is None where nothing was expected to ask for it.
    """

    frame_idx: int
    frame: Picture | None
    picture: Picture | None
    image: Tensor | None
    grey: Grey | None
    flow: Flow | None
    pixels: Picture | None


@dataclass(frozen=True)
class _Answer:
    """A mask on a prompted frame. located: what is remembered. shown: the mask at full size."""

    located: Located
    shown: RLE


@dataclass
class _Decoded:
    """A mask on a prompted frame, not yet encoded into memory."""

    located: Located
    conditioning: bool


@dataclass
class _TrackedObject:
    obj_id: int
    bank: MemoryBank
    prompts: dict[int, Prompt] = field(default_factory=dict)
    # what a frame had before its first prompt: a replaced prompt starts from it again
    base: dict[int, Located | None] = field(default_factory=dict)
    prompted: dict[int, _Answer] = field(default_factory=dict)
    unencoded: dict[int, _Decoded] = field(default_factory=dict)
    pending: dict[int, list[Prompt]] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)  # directions not tracked since the last prompt

    @property
    def anchor(self) -> int:
        """The first frame that was prompted and not merely corrected."""
        initial = [t for t in self.prompts if self.base[t] is None]
        return min(initial or self.prompts)


@dataclass(frozen=True)
class _Find:
    """An object on a frame of a pass, before it is remembered.

    picture: of its crop, if its mask is to be drawn to the edges. encoded: what the network saw;
    None where the mask is a person's, or only moved along the flow. learned: its looks so far.
    moved: the mask of the frame before, where it is by the flow.
    """

    obj: _TrackedObject
    located: Located
    picture: Picture | None = None
    encoded: EncodedFrame | None = None
    learned: Appearance | None = None
    moved: Located | None = None


class VideoTracker:
    """Tracks any number of objects through `frames`.

    Example:
        tracker = VideoTracker(load_model(), Frames.open("dog.mp4"))
        tracker.add_prompt(Prompt(1, 0, clicks=(Click(210, 350),)))
        for tracked in tracker.propagate():
            print(tracked.frame_idx, tracked.obj_id, tracked.mask.sum())

    Not thread-safe: one thread at a time drives a tracker.
    """

    def __init__(
        self,
        model: EdgeTAM,
        frames: Frames,
        settings: TrackerSettings | None = None,
        on_fusion: Callable[[Fusion], None] | None = None,
    ) -> None:
        """on_fusion: told what `learned_fusion` sees, for those who teach it."""
        self.model = model = fuse(model)
        self.frames = frames
        self.settings = settings or TrackerSettings()
        chosen, config = self.settings, model.config
        self._fill_hole_area = _either(chosen.fill_hole_area, config.fill_hole_area)
        self._flow_prompt = _either(chosen.flow_prompt, config.flow_prompt)
        self._refines = _either(chosen.refine_edges, config.refine_edges)
        self._rules = ClickRules(
            _either(chosen.clicked_parts, config.clicked_parts),
            _either(chosen.honour_clicks, config.honour_clicks),
        )
        self._closer = _either(chosen.close_ups, config.close_ups)
        self._flips = _either(chosen.flip_test, config.flip_test)
        self._follows = _either(chosen.close_tracks, config.close_tracks)
        self._fuses = _either(chosen.fuse_flow, config.fuse_flow)
        self._learns = _either(chosen.target_model, config.target_model) and self._flow_prompt
        self._exclusive = _either(chosen.non_overlap, config.non_overlap)
        self._finder = Finder(
            model,
            len(frames),
            chosen.every,
            flow_prompt=self._flow_prompt,
            fuse_flow=self._fuses,
            learned_fusion=_either(chosen.learned_fusion, config.learned_fusion),
            recognises=self._follows,
            fill_hole_area=self._fill_hole_area,
            on_fusion=on_fusion,
        )
        self._whole = Crop.whole(frames.width, frames.height)
        self._pixels: tuple[int, Picture] | None = None  # of the frame prompted last
        self._seen_closer: tuple[int, SeenCloser] | None = None  # the same
        self._crops: ByteCache[tuple[int, Crop], EncodedFrame] = ByteCache(CROP_CACHE_BYTES)
        self._objects: dict[int, _TrackedObject] = {}
        self._looks_at_whole = True  # on the last frame of a pass, so probably on the next ones
        self._features = FrameFeatures(
            model,
            frames,
            self.settings.feature_cache_bytes,
            pictures=self._refines,
            colours=self._learns,
        )

    @property
    def objects(self) -> tuple[int, ...]:
        """Ids of all objects, in the order in which they were first prompted."""
        return tuple(self._objects)

    def prompts(self, obj_id: int) -> dict[int, Prompt]:
        """An object's prompts by frame."""
        return dict(self._object(obj_id).prompts)

    def memory(self, obj_id: int, frame_idx: int) -> FrameMemory | None:
        """What is remembered of an object on a frame, for inspection."""
        obj = self._object(obj_id)
        self._encode_pending(obj)
        return obj.bank.get(frame_idx)

    def add_prompt(self, prompt: Prompt) -> TrackedFrame | None:
        """Set an object's prompt on a frame and answer with the mask there.

        On a frame that was tracked, the prompt corrects: memory and the mask found there are used.
        A prompt that extends the one before it by clicks refines its mask. A prompt marked as a
        correction for a frame not tracked yet waits until a pass arrives, and answers None.

        Raises PromptError for a frame that does not exist or a prompt outside the frame.
        """
        self._check(prompt)
        obj = self._objects.get(prompt.obj_id)
        if obj is None:
            bank = MemoryBank(self.model.config, spill_bytes=self.settings.spill_bytes)
            obj = self._objects[prompt.obj_id] = _TrackedObject(prompt.obj_id, bank)
        known = prompt.frame_idx in obj.bank or prompt.frame_idx in obj.prompts
        if prompt.correction and not known and obj.prompts:
            obj.pending.setdefault(prompt.frame_idx, []).append(prompt)
            obj.stale.update(DIRECTIONS)
            return None
        return self._apply(obj, prompt, reverse=False)

    def remove_prompt(self, obj_id: int, frame_idx: int) -> None:
        """Take back an object's prompt on a frame; the object goes when it was the last one."""
        obj = self._object(obj_id)
        if frame_idx not in obj.prompts and frame_idx not in obj.pending:
            raise PromptError(f"Object {obj_id} has no prompt on frame {frame_idx}.")
        for by_frame in (obj.prompts, obj.base, obj.prompted, obj.unencoded, obj.pending):
            by_frame.pop(frame_idx, None)  # type: ignore[attr-defined]
        obj.bank.forget(frame_idx)
        obj.stale.update(DIRECTIONS)
        if not obj.prompts:
            self.remove_object(obj_id)

    def remove_object(self, obj_id: int) -> None:
        """Forget an object. Raises PromptError if there is none of this id."""
        self._object(obj_id).bank.close()
        del self._objects[obj_id]

    def close(self) -> None:
        """Release temporary files; the tracker must not be used after."""
        for obj_id in self.objects:
            self.remove_object(obj_id)

    def propagate(
        self,
        start: int | None = None,
        *,
        direction: str = "forward",
        max_frames: int | None = None,
        objects: Sequence[int] | Mapping[int, int] | None = None,
        beside: Beside | None = None,
        cancel: Callable[[], bool] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Generator[TrackedFrame, None, None]:
        """Track, yielding every object's mask frame by frame.

        start: first frame; None takes each object's first prompted frame. An object joins at its
            first prompted frame if the pass meets it after `start`.
        direction: "forward" or "backward". max_frames: how many frames to visit, `start` included.
        objects: which ones, or a mapping from each to the frame where it joins instead; None takes
            those that changed since their last pass in this direction, or all if none did.
        beside: asked on frames that are tracked, where the model's config says `non_overlap`, for
            the masks that objects outside the pass have there; they keep them.
        cancel: asked before every frame; True ends the pass. What was yielded stays valid.
        progress: called with (frames done, frames to do).

        Raises PromptError if nothing was prompted, PromptError for an unknown object or direction.
        """
        if direction not in DIRECTIONS:
            raise PromptError(f"Direction {direction!r} is unknown; use forward or backward.")
        chosen = self._choose(objects, direction)
        anchors = {obj_id: self._objects[obj_id].anchor for obj_id in chosen}
        if isinstance(objects, Mapping):
            anchors = dict(objects)
        reverse = direction == "backward"
        if start is None:
            start = max(anchors.values()) if reverse else min(anchors.values())
        self._check_frame(start)
        stop = -1 if reverse else len(self.frames)
        if max_frames is not None:
            limit = start - max_frames if reverse else start + max_frames
            stop = max(stop, limit) if reverse else min(stop, limit)
        return self._pass(chosen, anchors, start, stop, reverse, beside, cancel, progress)

    def _pass(
        self,
        chosen: Sequence[int],
        anchors: dict[int, int],
        start: int,
        stop: int,
        reverse: bool,
        beside: Beside | None,
        cancel: Callable[[], bool] | None,
        progress: Callable[[int, int], None] | None,
    ) -> Generator[TrackedFrame, None, None]:
        step = -1 if reverse else 1
        total = abs(stop - start)
        carrier = self._carrier(chosen, start - step)
        with Prefetch(self._inputs(start, stop, step)) as ahead:
            for done, seen in enumerate(ahead):
                if cancel is not None and cancel():
                    return
                joined = [o for o in chosen if (seen.frame_idx - anchors[o]) * step >= 0]
                yield from self._visit(joined, seen, reverse, carrier, beside)
                if progress is not None:
                    progress(done + 1, total)
        for obj_id in chosen:
            if obj_id in self._objects and stop == (-1 if reverse else len(self.frames)):
                self._objects[obj_id].stale.discard("backward" if reverse else "forward")

    @property
    def _carries(self) -> bool:
        """Whether a pass knows on each frame where objects were on the one before."""
        return self.settings.every > 1 or self._flow_prompt or self._follows or self._fuses

    def _carrier(self, chosen: Sequence[int], before: int) -> FlowCarrier | None:
        """What moves masks along the flow, if anything does; it knows those of frame `before`."""
        if not self._carries:
            return None
        carrier = FlowCarrier()
        known = {o: at for o in chosen if (at := self._known(o, before)) is not None}
        if known:
            carrier.arrive(grey_picture(self.frames[before]))
            for obj_id, located in known.items():
                carrier.show(obj_id, located)
        return carrier

    def _known(self, obj_id: int, frame_idx: int) -> Located | None:
        """Where an object is on a frame that was prompted or tracked."""
        answer = self._object(obj_id).prompted.get(frame_idx)
        if answer is not None:
            return self._as_shown(answer)
        memory = self.memory(obj_id, frame_idx)
        return None if memory is None else memory.located()

    def _inputs(self, start: int, stop: int, step: int) -> Iterator[_Seen]:
        """Frames as they are looked at: made ahead, so decoding costs the pass no time."""
        size, every = self.model.config.image_size, self.settings.every
        flow_between, before = FlowBetween(), None
        for frame_idx, pixels in self.frames.iter(start, stop, step):
            picture = image = flow = None
            seen = frame_idx % every == 0
            if (seen or self._refines) and (self._looks_at_whole or not self._follows):
                picture = frame_to_picture(pixels, size)
                image = picture_to_input(picture, self.model.device) if seen else None
            grey = grey_picture(pixels) if self._carries else None
            if grey is not None and before is not None:
                flow = flow_between(grey, before)
            before = grey
            frame = kept = None
            if self._follows:
                frame, kept = pixels, plenty_of_pixels(pixels, size)
            yield _Seen(frame_idx, frame, picture, image, grey, flow, kept)

    def _visit(
        self,
        joined: Sequence[int],
        seen: _Seen,
        reverse: bool,
        carrier: FlowCarrier | None,
        beside: Beside | None,
    ) -> Iterator[TrackedFrame]:
        """One frame of a pass: all objects are looked for, then each is remembered and shown."""
        frame_idx = seen.frame_idx
        if carrier is not None and seen.grey is not None:
            carrier.arrive(seen.grey, seen.flow)
        finds = self._look_for(joined, seen, reverse, carrier)
        if self._exclusive:
            finds = self._settled(finds, frame_idx, beside)
        for obj_id, find in finds.items():
            obj = find.obj
            if self._objects.get(obj_id) is not obj:
                continue  # removed while the caller held the pass
            located, answer = find.located, obj.prompted.get(frame_idx)
            if answer is not None:  # also one that came while the caller held the pass
                located = self._as_shown(answer)
            elif find.encoded is not None:
                located = self._remember_tracked(find, frame_idx)
                for prompt in obj.pending.pop(frame_idx, ()):
                    self._apply(obj, prompt, reverse=reverse)
                    located = self._as_shown(obj.prompted[frame_idx])
            if carrier is not None:
                carrier.show(obj_id, located)
            yield self._to_video(obj, obj_id, frame_idx, located, find.picture)

    def _look_for(
        self, joined: Sequence[int], seen: _Seen, reverse: bool, carrier: FlowCarrier | None
    ) -> dict[int, _Find]:
        """Where the objects of a pass are on a frame."""
        frame_idx = seen.frame_idx
        started: Tensor | None = None
        finds: dict[int, _Find] = {}
        for obj_id in joined:
            obj = self._objects.get(obj_id)
            if obj is None:
                continue
            # a prompted frame's mask is the person's answer; tracking does not touch it
            answer = obj.prompted.get(frame_idx)
            if answer is not None:
                finds[obj_id] = _Find(obj, self._as_shown(answer))
                continue
            crop = self._followed(carrier, obj_id, seen)
            moved = None
            skipped = frame_idx % self.settings.every != 0 and frame_idx not in obj.pending
            if carrier is not None and (skipped or self._flow_prompt or self._fuses):
                moved = carrier.carried(obj_id, crop)
            if skipped and moved is not None:
                picture = self._picture(crop, seen) if moved.drawn is None else None
                finds[obj_id] = _Find(obj, moved, picture)
                continue
            encoded = self._encoded(frame_idx, crop, seen)
            beginning = started if crop.is_whole else None
            if beginning is None:
                beginning = self._start(encoded.features)
            if crop.is_whole:  # once for all objects
                started = beginning
            trust = None
            if carrier is not None and self._fuses:
                trust = carrier.trust(crop, self.model.config.image_size)
            self._encode_pending(obj)
            found = self._finder.find(
                Sought(
                    obj_id=obj_id,
                    bank=obj.bank,
                    frame_idx=frame_idx,
                    reverse=reverse,
                    crop=crop,
                    encoded=encoded,
                    started=beginning,
                    moved=moved,
                    trust=trust,
                    lost=self._is_lost(carrier, obj_id),
                )
            )
            finds[obj_id] = _Find(
                obj, found.located, encoded.picture, encoded, found.learned, found.moved
            )
        self._looks_at_whole = any(find.located.crop.is_whole for find in finds.values())
        return finds

    def _settled(
        self, finds: dict[int, _Find], frame_idx: int, beside_pass: Beside | None
    ) -> dict[int, _Find]:
        """Without what another object of the pass, or one beside it, has the better claim to."""
        given = {obj_id for obj_id, find in finds.items() if frame_idx in find.obj.prompted}
        if len(given) == len(finds):
            return finds  # nobody yields anything, so the others need not be read
        side = self.model.config.image_size
        others = {} if beside_pass is None else beside_pass(frame_idx)
        masks = [mask.decode() for obj_id, mask in others.items() if obj_id not in finds]
        beside = [kept for mask in masks if (kept := kept_beside(mask, side)) is not None]
        if len(finds) + len(beside) < 2:
            return finds
        found = {obj_id: find.located for obj_id, find in finds.items()}
        before = {o: find.moved for o, find in finds.items() if find.moved is not None}
        settled = settle(found, before, given, side, beside)
        return {o: replace(find, located=settled[o]) for o, find in finds.items()}

    def _followed(self, carrier: FlowCarrier | None, obj_id: int, seen: _Seen) -> Crop:
        """Where to look for an object, from where it was on the frame before."""
        before = None if carrier is None else carrier.before(obj_id)
        if not self._follows or carrier is None or before is None:
            return self._whole
        assert seen.pixels is not None
        moved = carrier.carried(obj_id, before.crop)
        bounds = None if moved is None else moved.bounds()
        return TRACKED.follow(before.crop, bounds, seen.pixels)

    def _is_lost(self, carrier: FlowCarrier | None, obj_id: int) -> bool:
        """Whether an object that is followed was absent from the frame before."""
        before = None if carrier is None else carrier.before(obj_id)
        return self._follows and before is not None and before.absent

    def _around(self, frame_idx: int, bounds: Bounds | None) -> Crop:
        """Where an object is remembered that is at `bounds` of a prompted frame."""
        if not self._follows or bounds is None:
            return self._whole
        return TRACKED.around(bounds, self._whole, self._pixels_of(frame_idx))

    def _pixels_of(self, frame_idx: int) -> Picture:
        if self._pixels is None or self._pixels[0] != frame_idx:
            pixels = enough_pixels(self.frames[frame_idx], self.model.config.image_size)
            self._pixels = frame_idx, pixels
        return self._pixels[1]

    def _encoded(self, frame_idx: int, crop: Crop, seen: _Seen | None = None) -> EncodedFrame:
        """A crop as the network sees it. seen: the frame, if a pass has it at hand."""
        if crop.is_whole:
            if seen is None:
                return self._features.of(frame_idx)
            return self._features.of(frame_idx, lambda: self._whole_picture(seen), seen.image)
        if seen is not None and seen.pixels is not None:
            return self._features.of_pixels(crop.cut(seen.pixels))
        return self._crops.get_or_make(
            (frame_idx, crop),
            lambda: self._features.of_pixels(crop.cut(self._pixels_of(frame_idx))),
        )[0]

    @torch.inference_mode()
    def _start(self, features: ImageFeatures) -> Tensor:
        return self.model.start_attention(features.top)

    @torch.inference_mode()
    def _remember_tracked(self, find: _Find, frame_idx: int) -> Located:
        """Take what was found into memory; what is kept and shown of it."""
        encoded, raw, learned = find.encoded, find.located.mask, find.learned
        assert encoded is not None
        # upstream encodes the mask as decoded and fills holes only in what it shows and keeps
        tokens = self.model.encode_memory(encoded.features.top, raw.low_res_logits, binarize=False)
        located = replace(find.located, mask=self._fill_holes(raw))
        if learned is not None and encoded.colours is not None:
            learned = renewed(learned, encoded.features, encoded.colours, raw)
        memory = self._remember(frame_idx, tokens, located, learned)
        find.obj.bank.add(memory, conditioning=False)
        return located

    def _as_shown(self, answer: _Answer) -> Located:
        """A prompted mask, and where masks are kept finely, as the person saw it."""
        located = answer.located
        if not self._fuses or located.absent:
            return located
        side = self.model.config.image_size
        return replace(located, drawn=drawn_mask(answer.shown.decode(), located.crop, side))

    @torch.inference_mode()
    def _apply(self, obj: _TrackedObject, prompt: Prompt, *, reverse: bool) -> TrackedFrame:
        """Decode a prompt now; its memory is encoded when a pass needs it."""
        frame_idx = prompt.frame_idx
        earlier = obj.prompts.get(frame_idx)
        if earlier is None:
            memory = obj.bank.get(frame_idx)
            obj.base[frame_idx] = None if memory is None else memory.located()
        base = obj.base[frame_idx]
        previous = base
        if earlier is not None and _extends(prompt, earlier):
            previous = obj.prompted[frame_idx].located
        if prompt.mask is not None:
            answer = self._given(prompt.mask, frame_idx)
        else:
            self._encode_pending(obj, besides=frame_idx)
            view = self._prompted_view(obj, prompt, base, reverse)
            logits = None
            if previous is not None:
                logits = previous.logits_on(view.crop).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            answer = self._answer(prompt, view, logits, correcting=base is not None)
        conditioning = base is None or self.settings.corrections_condition
        obj.prompts[frame_idx] = prompt
        obj.prompted[frame_idx] = answer
        obj.unencoded[frame_idx] = _Decoded(answer.located, conditioning)
        obj.stale.update(DIRECTIONS)
        return self._to_video(obj, prompt.obj_id, frame_idx, answer.located, None)

    def _prompted_view(
        self, obj: _TrackedObject, prompt: Prompt, base: Located | None, reverse: bool
    ) -> View:
        """What a prompt is decoded on: with memory, where it corrects, and as it was tracked."""
        crop = self._whole
        if base is not None and all(base.crop.holds(click) for click in prompt.clicks):
            crop = base.crop if prompt.box is None else self._whole
        encoded = self._encoded(prompt.frame_idx, crop)
        features = encoded.features
        if base is not None:
            top = self._attend_around(obj, prompt.frame_idx, features, reverse)
        else:
            top = self.model.without_memory(features.top)
        return View(crop, ImageFeatures(top, features.high_res), encoded.picture)

    def _attend_around(
        self, obj: _TrackedObject, frame_idx: int, features: ImageFeatures, reverse: bool
    ) -> Tensor:
        """Memory for a correction: all but what is remembered of the corrected frame itself."""
        own = obj.bank.get(frame_idx)
        was_conditioning = frame_idx in obj.bank.conditioning_frames
        if own is not None and was_conditioning:
            obj.bank.forget(frame_idx)
        top = self._finder.attend(obj.bank, frame_idx, self._start(features), reverse)
        if own is not None and was_conditioning:
            obj.bank.add(own, conditioning=True)
        return top

    def _given(self, mask: RLE, frame_idx: int) -> _Answer:
        """A drawn mask is the answer."""
        size, height, width = self.model.config.image_size, self.frames.height, self.frames.width
        drawn = mask.decode()
        crop = self._around(frame_idx, mask_to_box(drawn))
        pixels = mask_to_input(crop.cut(drawn), size, self.model.device)
        features = self._encoded(frame_idx, crop).features
        result = self._fill_holes(self.model.mask_as_output(features, pixels))
        located = Located(result, crop)
        if located.absent:
            return _Answer(located, RLE.empty(height, width))
        if self._refines:  # masks are drawn more finely than the grid; this one has been drawn
            return _Answer(located, mask)
        if crop.is_whole:
            shown = logits_to_mask(result.low_res_logits, height, width, exactly=True)
        else:
            shown = crop.mask(result.low_res_logits)
        return _Answer(located, RLE.encode(shown))

    def _answer(
        self, prompt: Prompt, view: View, previous: Tensor | None, correcting: bool
    ) -> _Answer:
        """What clicks and a box are answered with. view: with memory, if there is any."""
        closer = self._closer_look(prompt.frame_idx, view) if self._closer else None
        if closer is not None and not correcting:
            look = closer.answer(prompt)
        else:
            points = len(prompt.clicks) + 2 * (prompt.box is not None)
            look = self._decode(view, prompt, previous, points <= 1)
            if closer is not None:
                look = closer.again(prompt, look)
        seen = view if closer is None or look.crop == view.crop else closer.view(look.crop)
        look = self._without_holes(look.best(), seen)
        if self._rules.honour:  # a hole may have been clicked
            look = honoured(look, prompt.clicks, seen.picture)
        crop = self._around(prompt.frame_idx, look.bounds())
        there = replace(look.output, low_res_logits=look.logits_on(crop))
        result = self.model.gate_by_presence(there)
        located = Located(result, crop)
        if located.absent:
            return _Answer(located, RLE.empty(self.frames.height, self.frames.width))
        return _Answer(located, RLE.encode(look.masks()[0]))

    def _decode(
        self, view: View, prompt: Prompt, mask_logits: Tensor | None, multimask: bool
    ) -> Look:
        return decode_prompt(
            self.model, view, prompt, mask_logits,
            multimask=multimask, rules=self._rules,
        )  # fmt: skip

    def _closer_look(self, frame_idx: int, view: View) -> CloserLook:
        if self._seen_closer is None or self._seen_closer[0] != frame_idx:
            self._seen_closer = frame_idx, SeenCloser(self._pixels_of(frame_idx))
        seen = self._seen_closer[1]
        return CloserLook(
            view, seen, self._see, self._decode, flips=self._flips, rater=self.model.mask_rater
        )

    def _see(self, pixels: Picture, crop: Crop) -> View:
        """The view of a crop, without memory, given the pixels within it."""
        encoded = self._features.of_pixels(pixels, flipped=self._flips)
        features = encoded.features
        features = ImageFeatures(self.model.without_memory(features.top), features.high_res)
        return View(crop, features, encoded.picture)

    def _without_holes(self, look: Look, view: View) -> Look:
        if float(look.output.object_score) <= 0:
            return look
        logits = look.output.low_res_logits
        filled = self._filled(logits)
        if filled is logits:
            return look
        return drawn_look(look.crop, replace(look.output, low_res_logits=filled), view.picture)

    @torch.inference_mode()
    def _encode_pending(self, obj: _TrackedObject, besides: int | None = None) -> None:
        """Encode prompted masks into memory; lazily, since clicks come faster than they matter."""
        for frame_idx in [t for t in obj.unencoded if t != besides]:
            decoded = obj.unencoded.pop(frame_idx)
            located = decoded.located
            encoded = self._encoded(frame_idx, located.crop)
            logits = located.mask.low_res_logits
            tokens = self.model.encode_memory(encoded.features.top, logits, binarize=True)
            seen = None
            if encoded.colours is not None and not located.absent:
                seen = observe(encoded.features, encoded.colours, logits, binarize=True)
            memory = self._remember(frame_idx, tokens, located, seen)
            obj.bank.add(memory, conditioning=decoded.conditioning)

    def _remember(
        self, frame_idx: int, tokens: Tensor, located: Located, appearance: Appearance | None
    ) -> FrameMemory:
        result, crop = located.mask, torch.tensor([astuple(located.crop)], dtype=torch.float64)
        return FrameMemory(
            frame_idx,
            tokens.to(DTYPES[self.model.config.memory_dtype]),
            result.pointer.float(),
            result.low_res_logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).half(),
            result.iou.float(),
            result.object_score.float(),
            crop,
            located.drawn,
            appearance,
        )

    def _fill_holes(self, result: ObjectMask) -> ObjectMask:
        if float(result.object_score) <= 0:
            return result
        return replace(result, low_res_logits=self._filled(result.low_res_logits))

    def _filled(self, logits: Tensor) -> Tensor:
        """Logits (1, 1, h, w) without small holes; the same tensor where there are none."""
        if self._fill_hole_area <= 0:
            return logits
        background = (logits[0, 0] <= 0).cpu().numpy()
        holes = small_components(background, self._fill_hole_area)
        if not holes.any():
            return logits
        here = torch.from_numpy(holes).to(logits.device)[None, None]
        return logits.masked_fill(here, FILLED_HOLE_LOGIT)

    @torch.inference_mode()
    def _to_video(
        self,
        obj: _TrackedObject,
        obj_id: int,
        frame_idx: int,
        located: Located,
        picture: Picture | None,
    ) -> TrackedFrame:
        """picture: of the crop where the object is located, for a mask to be drawn to its edges."""
        score = float(located.mask.object_score)
        height, width = self.frames.height, self.frames.width
        answer = obj.prompted.get(frame_idx)
        if answer is not None:
            mask = answer.shown.decode()
        elif score <= 0:
            mask = np.zeros((height, width), dtype=bool)
        elif located.drawn is not None:
            mask = located.crop.mask(_drawn_logits(located.drawn))
        else:
            logits = located.mask.low_res_logits
            mask = located.crop.mask(logits if picture is None else refine_edges(logits, picture))
        return TrackedFrame(
            frame_idx, obj_id, mask, score, score <= 0, frame_idx in obj.prompts,
            located.mask.low_res_logits, located.crop, None if answer else located.drawn,
        )  # fmt: skip

    def _picture(self, crop: Crop, seen: _Seen) -> Picture | None:
        """A crop as the network would have seen it, where masks are refined by it."""
        if not self._refines:
            return None
        if crop.is_whole or seen.pixels is None:
            return self._whole_picture(seen)
        return frame_to_picture(crop.cut(seen.pixels), self.model.config.image_size)

    def _whole_picture(self, seen: _Seen) -> Picture | None:
        """As the network sees the frame, None if it must be read for that."""
        if seen.picture is not None or seen.frame is None:
            return seen.picture
        return frame_to_picture(seen.frame, self.model.config.image_size)

    def _choose(
        self, objects: Sequence[int] | Mapping[int, int] | None, direction: str
    ) -> tuple[int, ...]:
        if objects is not None:
            for obj_id in objects:
                self._object(obj_id)
            chosen = tuple(objects)
        else:
            changed = tuple(i for i, obj in self._objects.items() if direction in obj.stale)
            chosen = changed or self.objects
        if not chosen:
            raise PromptError(
                "There is nothing to track yet; add a click, a box or a mask for an object first."
            )
        return chosen

    def _object(self, obj_id: int) -> _TrackedObject:
        obj = self._objects.get(obj_id)
        if obj is None:
            known = ", ".join(map(str, self._objects)) or "none"
            raise PromptError(f"There is no object {obj_id}; objects so far: {known}.")
        return obj

    def _check(self, prompt: Prompt) -> None:
        self._check_frame(prompt.frame_idx)
        prompt.check_inside(self.frames.width, self.frames.height)

    def _check_frame(self, frame_idx: int) -> None:
        if not 0 <= frame_idx < len(self.frames):
            raise PromptError(
                f"Frame {frame_idx} does not exist; {self.frames.identity.source} has frames 0 to "
                f"{len(self.frames) - 1}."
            )


def _either(chosen: T | None, config: T) -> T:
    """What the settings choose, or else the model's config."""
    return config if chosen is None else chosen


def _drawn_logits(drawn: Drawn) -> Tensor:
    """(1, 1, S, S) float32, positive where most of a pixel is the object's."""
    return torch.from_numpy((drawn.astype(np.float32) - 127.5) / 12.75)[None, None]


def _extends(prompt: Prompt, earlier: Prompt) -> bool:
    """Whether `prompt` says all that `earlier` said, and then more clicks."""
    return (
        prompt.mask is None
        and earlier.box == prompt.box
        and len(prompt.clicks) > len(earlier.clicks)
        and prompt.clicks[: len(earlier.clicks)] == earlier.clicks
    )
