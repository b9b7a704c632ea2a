"""The network cut into the graphs that a tracker in any language calls, one module for each.

Everything a caller would have to know about the weights is inside a graph: normalisation, the
no-memory embedding, presence gating, pointers, temporal positions. What stays outside is state,
resizing, and thresholds that `manifest.json` states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.edgetam import MEMORY_BIAS, MEMORY_SCALE
from edgetam_label.modeling.layers import sine_position
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.modeling.memory_attention import Memory
from edgetam_label.preprocess import MEAN, STD


@dataclass(frozen=True)
class Value:
    """An input or output of a graph.

    example: a tensor to trace with; None for outputs. axes: names of the axes that may vary.
    """

    name: str
    meaning: str
    axes: Mapping[int, str]
    example: Tensor | None = None


@dataclass(frozen=True)
class Graph:
    """One file of the export. purpose: when a tracker calls it."""

    name: str
    purpose: str
    module: nn.Module
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


class ImageEncoderGraph(nn.Module):
    """pixels (1, S, S, 3) in 0..255 → features with and without the no-memory embedding."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: EdgeTAM) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = (pixels.permute(0, 3, 1, 2) / 255 - self.mean) / self.std
        features = self.model.encode_image(images)
        return features.top, self.model.without_memory(features.top), *features.high_res


class MaskDecoderGraph(nn.Module):
    """Prompts → one gated mask, its pointer, and all candidates."""

    position: Tensor

    def __init__(self, model: EdgeTAM) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("position", model.sam_prompt_encoder.image_position())

    def forward(
        self,
        features: Tensor,
        high_res_4: Tensor,
        high_res_8: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor,
        has_mask: Tensor,
        multimask: Tensor,
    ) -> tuple[Tensor, ...]:
        prompts, decoder = self.model.sam_prompt_encoder, self.model.sam_mask_decoder
        dense = torch.where(
            has_mask[:, None, None, None],
            prompts.embed_dense(points, labels, mask_logits),
            prompts.embed_dense(points, labels, None),
        )
        every = decoder.all_masks(
            features,
            self.position,
            prompts.embed_points(points, labels),
            dense,
            (high_res_4, high_res_8),
        )
        three, single = decoder.select(every, True), decoder.select(every, False)
        best = three.best()
        chosen = DecoderOutput(
            torch.where(multimask[:, None, None, None], best.low_res_logits, single.low_res_logits),
            torch.where(multimask[:, None], best.iou, single.iou),
            torch.where(multimask[:, None, None], best.tokens, single.tokens),
            every.object_score,
        )
        mask = self.model.gate_by_presence(chosen)
        return (
            mask.low_res_logits,
            mask.iou,
            mask.object_score,
            mask.pointer,
            torch.cat((single.low_res_logits, three.low_res_logits), dim=1),
            torch.cat((single.iou, three.iou), dim=1),
        )


class MaskPromptGraph(nn.Module):
    """A drawn mask (B, 1, S, S) of 0 and 1 → what `EdgeTAM.mask_as_output` makes of it."""

    shrink: Tensor

    def __init__(self, model: EdgeTAM) -> None:
        super().__init__()
        self.model = model
        config = model.config
        # many runtimes lack ONNX's antialiased resize; all have matrix products
        identity = torch.eye(config.image_size)[None, None]
        shrink = F.interpolate(
            identity, (config.low_res_size, config.image_size), mode="bilinear", antialias=True
        )
        self.register_buffer("shrink", shrink[0, 0])

    def forward(self, mask: Tensor) -> tuple[Tensor, ...]:
        logits = mask * MEMORY_SCALE + MEMORY_BIAS
        low_res = self.shrink @ logits @ self.shrink.t()
        present = mask.flatten(1).amax(dim=1, keepdim=True) > 0
        score = torch.where(present, MEMORY_SCALE + MEMORY_BIAS, MEMORY_BIAS)
        absent = self.model.no_obj_ptr.expand(mask.shape[0], -1)
        return low_res, score, self.model.mask_downsample(mask), absent


class MemoryEncoderGraph(nn.Module):
    """A frame's features and an object's mask → memory tokens."""

    def __init__(self, model: EdgeTAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, low_res_logits: Tensor, prompted: Tensor) -> Tensor:
        size = self.model.config.image_size
        logits = F.interpolate(low_res_logits, (size, size), mode="bilinear", align_corners=False)
        mask = torch.where(
            prompted[:, None, None, None], (logits > 0).to(logits.dtype), logits.sigmoid()
        )
        memory = self.model.memory_encoder(features, mask * MEMORY_SCALE + MEMORY_BIAS)
        return self.model.spatial_perceiver(memory)  # type: ignore[no-any-return]


class FrameAttentionGraph(nn.Module):
    """The part of memory attention that all objects of a frame share."""

    position: Tensor

    def __init__(self, model: EdgeTAM) -> None:
        super().__init__()
        self.model = model
        side = model.config.feature_size
        self.register_buffer(
            "position", sine_position(model.config.d_model, side, side, model.device)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.model.memory_attention.start(features, self.position)


class MemoryAttentionGraph(nn.Module):
    """A frame attends to F memories and P pointers of each of B objects."""

    place: Tensor

    def __init__(self, model: EdgeTAM) -> None:
        super().__init__()
        self.model = model
        c = model.config
        grid = sine_position(c.memory_dim, c.latent_grid, c.latent_grid, model.device)
        place = torch.cat((grid.new_zeros(c.num_latents, c.memory_dim), grid.flatten(1).t()))
        self.register_buffer("place", place)  # (L, D): global tokens have no place

    def forward(
        self, started: Tensor, tokens: Tensor, temporal_index: Tensor, pointers: Tensor
    ) -> Tensor:
        c = self.model.config
        batch, frames = tokens.shape[0], tokens.shape[1]
        time = self.model.maskmem_tpos_enc[:, 0][temporal_index.long()]  # (B, F, 1, D)
        positions = (self.place + time).flatten(1, 2)
        pointer_tokens = pointers.reshape(batch, -1, c.memory_dim)
        memory = Memory(
            torch.cat((tokens.flatten(1, 2), pointer_tokens), dim=1),
            torch.cat((positions, torch.zeros_like(pointer_tokens)), dim=1),
            frames,
            len(self.place),
            c.latent_grid,
        )
        return self.model.memory_attention.finish(started, memory)


def graphs_of(model: EdgeTAM) -> tuple[Graph, ...]:
    """All graphs of `model`, in the order in which a tracker meets them."""
    c = model.config
    side, low, size = c.feature_size, c.low_res_size, c.image_size
    objects, two = {0: "objects"}, 2  # traced with two of everything that may vary
    features = torch.randn(1, c.d_model, side, side)
    fine = torch.randn(1, c.d_model // 8, low, low)
    middle = torch.randn(1, c.d_model // 4, 2 * side, 2 * side)
    logits = torch.randn(two, 1, low, low)
    tokens = torch.randn(two, two, c.num_latents + c.num_latents_2d, c.memory_dim)
    yes = torch.tensor([True, False])
    return (
        Graph(
            "image_encoder",
            "once per frame",
            ImageEncoderGraph(model),
            (Value("pixels", f"RGB, 0..255, the frame stretched to {size} x {size}", {},
                   torch.rand(1, size, size, 3) * 255),),
            (
                Value("features", "stride 16; for frame_attention, memory_encoder and mask_prompt",
                      {}),
                Value("features_no_memory", "features of a frame prompted for the first time", {}),
                Value("high_res_4", "stride 4, for mask_decoder", {}),
                Value("high_res_8", "stride 8, for mask_decoder", {}),
            ),
        ),
        Graph(
            "mask_decoder",
            "once per object and frame, after memory_attention; once per click, without it",
            MaskDecoderGraph(model),
            (
                Value("features", "with memory, or features_no_memory", objects,
                      features.repeat(two, 1, 1, 1)),
                Value("high_res_4", "from image_encoder", {}, fine),
                Value("high_res_8", "from image_encoder", {}, middle),
                Value("points", f"(x, y) in pixels of the {size} x {size} input; "
                      "x_frame / width * size", {**objects, 1: "points"},
                      torch.rand(two, 3, 2) * size),
                Value("labels", "1 object, 0 background, 2 and 3 a box's top-left and bottom-right "
                      "corner, -1 no point; give one point of label -1 where there is no prompt",
                      {**objects, 1: "points"},
                      torch.tensor([[1, 0, -1], [2, 3, 1]], dtype=torch.int32)),
                Value("mask_logits", "an earlier answer's low_res_logits, clamped to "
                      "feedback_limit; read where has_mask", objects, logits),
                Value("has_mask", "whether mask_logits counts", objects, yes),
                Value("multimask", "take the best of three candidates: true while tracking and for "
                      "a single click, false for a box, several points or a mask", objects, yes),
            ),
            (
                Value("low_res_logits", "the mask where > 0; absent_logit where object_score <= 0",
                      objects),
                Value("iou", "predicted quality, 0..1", objects),
                Value("object_score", "the object is visible where > 0", objects),
                Value("pointer", "for memory_attention; already that of an absent object where "
                      "object_score <= 0", objects),
                Value("candidate_logits", "not gated: 0 the single mask, 1..3 the candidates",
                      objects),
                Value("candidate_iou", "their predicted quality", objects),
            ),
        ),
        Graph(
            "mask_prompt",
            "once per drawn mask, which is then the answer on its frame",
            MaskPromptGraph(model),
            (Value("mask", f"0 and 1, stretched to {size} x {size}", objects,
                   (torch.rand(two, 1, size, size) > 0.5).float()),),
            (
                Value("low_res_logits", "the answer", objects),
                Value("object_score", "the answer's: positive unless the mask is empty", objects),
                Value("decoder_mask", "mask_logits for mask_decoder, called with has_mask, without "
                      "multimask and on `features`, only for its pointer", objects),
                Value("absent_pointer", "the pointer instead if the mask is empty", objects),
            ),
        ),
        Graph(
            "memory_encoder",
            "once per object and frame, after its mask is known",
            MemoryEncoderGraph(model),
            (
                Value("features", "from image_encoder", {}, features),
                Value("low_res_logits", "the mask", objects, logits),
                Value("prompted", "a person prompted this frame", objects, yes),
            ),
            (Value("tokens", "round to memory_dtype to store, then for memory_attention",
                   objects),),
        ),
        Graph(
            "frame_attention",
            "once per frame without a first prompt, before memory_attention",
            FrameAttentionGraph(model),
            (Value("features", "from image_encoder", {}, features),),
            (Value("started", "for memory_attention, for every object of the frame", {}),),
        ),
        Graph(
            "memory_attention",
            "once per object and frame (objects with equally many memories may share a call)",
            MemoryAttentionGraph(model),
            (
                Value("started", "from frame_attention", {},
                      torch.randn(1, side * side, c.d_model)),
                Value("tokens", "of remembered frames, in any order",
                      {**objects, 1: "frames"}, tokens),
                Value("temporal_index", "of each: its distance to this frame - 1, or num_maskmem - "
                      "1 for a conditioning frame", {**objects, 1: "frames"},
                      torch.tensor([[0, 1], [1, 0]], dtype=torch.int32)),
                Value("pointers", "of remembered frames, in any order; there may be none",
                      {**objects, 1: "pointers"}, torch.randn(two, 3, c.d_model)),
            ),
            (Value("features", "for mask_decoder", objects),),
        ),
    )  # fmt: skip
