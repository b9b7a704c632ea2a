"""The official EdgeTAM package (PyPI `edgetam-dimos`), made to run beside ours on a CPU.

Only benchmarks and the golden recording use it. It needs an environment of its own, made by
`make bench-env`, because it brings timm, torchvision and hydra.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from edgetam_label.config import ModelConfig


def prepare() -> None:
    """Make the package importable without CUDA and its models buildable without a download."""
    # torchvision's CUDA build refuses to load next to a CPU torch unless these operators exist
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    prepare.library = library  # type: ignore[attr-defined]  # a collected library is undefined
    backbone = importlib.import_module("sam2.modeling.backbones.timm")
    create = backbone.create_model

    def create_without_download(*args: Any, **kwargs: Any) -> Any:
        return create(*args, **(kwargs | {"pretrained": False}))

    backbone.create_model = create_without_download
    _cure_perceiver()


def _cure_perceiver() -> None:
    """Two objects crash in `.expand(...).view(...)`; `.reshape` is the whole cure."""
    module = importlib.import_module("sam2.modeling.perceiver")
    source = textwrap.dedent(inspect.getsource(module.PerceiverResampler.forward_2d))
    cured = source.replace(".expand(B, -1, -1).view(", ".expand(B, -1, -1).reshape(")
    assert cured != source, "the official perceiver changed; look at it again"
    scope = dict(vars(module))
    exec(cured, scope)  # noqa: S102
    module.PerceiverResampler.forward_2d = scope["forward_2d"]


@contextlib.contextmanager
def float32_memories() -> Iterator[None]:
    """Memories without the rounding to bfloat16 that upstream applies on every device.

    A difference of one float32 rounding now and then flips a bfloat16 one, which is 65,536 times as
    large and then remembered; without it only arithmetic is compared.
    """
    module = importlib.import_module("sam2.sam2_video_predictor")
    predictor = module.SAM2VideoPredictor
    originals = {}
    for name in ("_run_single_frame_inference", "_run_memory_encoder"):
        originals[name] = getattr(predictor, name)
        source = textwrap.dedent(inspect.getsource(originals[name]))
        exact = source.replace("maskmem_features.to(torch.bfloat16)", "maskmem_features.float()")
        assert exact != source, "the official predictor changed; look at it again"
        scope = dict(vars(module))
        exec(exact, scope)  # noqa: S102
        setattr(predictor, name, scope[name])
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(predictor, name, original)


def build(
    state: dict[str, torch.Tensor], config: ModelConfig | None = None, *, fill_hole_area: int = 0
) -> Any:
    """The official video predictor with these weights, strictly loaded, in evaluation mode.

    config: of these sizes instead of the released ones; what else it asks for is not upstream's.
    fill_hole_area: upstream fills holes of 8 pixels, with a compiled extension that is absent here.
    """
    sam2 = importlib.import_module("sam2.build_sam")
    sizes = _sizes(config) if config else []
    # it prints; our output may be JSON
    with contextlib.redirect_stdout(sys.stderr), _fixed_sizes(config):
        model = sam2.build_sam2_video_predictor(
            "configs/edgetam.yaml", None, device="cpu", hydra_overrides_extra=sizes
        )
    model.fill_hole_area = fill_hole_area
    model.load_state_dict(state, strict=True)
    return model


def _sizes(config: ModelConfig) -> list[str]:
    """What upstream's configuration file would say of these sizes."""
    width, memory = config.d_model, config.memory_dim
    grid, latents = [config.feature_size] * 2, [config.latent_grid] * 2
    attention = {
        "d_model": width,
        "dim_feedforward": config.memory_attention_mlp_dim,
        "self_attention.embedding_dim": width,
        "cross_attention.embedding_dim": width,
        "cross_attention.kv_in_dim": memory,
        "cross_attention.q_sizes": grid,
        "cross_attention.k_sizes": latents,
    }
    perceiver = {
        "depth": config.perceiver_depth,
        "dim": memory,
        "ff_mult": config.perceiver_mlp_ratio,
        "num_latents": config.num_latents,
        "num_latents_2d": config.num_latents_2d,
        "position_encoding.num_pos_feats": memory,
    }
    values = {
        "image_size": config.image_size,
        "num_maskmem": config.num_maskmem,
        "max_obj_ptrs_in_encoder": config.max_object_pointers,
        "image_encoder.neck.d_model": width,
        "image_encoder.neck.position_encoding.num_pos_feats": width,
        "image_encoder.neck.backbone_channel_list": list(reversed(config.trunk_dims)),
        "memory_attention.d_model": width,
        "memory_attention.num_layers": config.memory_attention_layers,
        "memory_encoder.in_dim": width,
        "memory_encoder.out_dim": memory,
        "memory_encoder.position_encoding.num_pos_feats": memory,
        "memory_encoder.mask_downsampler.embed_dim": width,
        "memory_encoder.fuser.layer.dim": width,
        "memory_encoder.fuser.num_layers": config.fuser_layers,
    }
    values |= {f"memory_attention.layer.{key}": value for key, value in attention.items()}
    values |= {f"spatial_perceiver.{key}": value for key, value in perceiver.items()}
    return [f"++model.{key}={value}".replace(" ", "") for key, value in values.items()]


@contextlib.contextmanager
def _fixed_sizes(config: ModelConfig | None) -> Iterator[None]:
    """The sizes that upstream's code fixes itself: those of the trunk and of the mask decoder."""
    if config is None:
        yield
        return
    heads = importlib.import_module("sam2.modeling.sam2_base")
    trunk = importlib.import_module("sam2.modeling.backbones.timm")
    transformer, decoder, create = heads.TwoWayTransformer, heads.MaskDecoder, trunk.create_model

    def sized_transformer(**kwargs: Any) -> Any:
        return transformer(
            **kwargs
            | {
                "depth": config.decoder_depth,
                "mlp_dim": config.decoder_mlp_dim,
                "num_heads": config.decoder_heads,
            }
        )

    def sized_decoder(**kwargs: Any) -> Any:
        return decoder(**kwargs | {"iou_head_hidden_dim": config.d_model})

    heads.TwoWayTransformer, heads.MaskDecoder = sized_transformer, sized_decoder
    trunk.create_model = functools.partial(
        create, embed_dim=config.trunk_dims, depth=config.trunk_depths
    )
    try:
        yield
    finally:
        heads.TwoWayTransformer, heads.MaskDecoder = transformer, decoder
        trunk.create_model = create


def build_sam21_base_plus() -> Any:
    """SAM 2.1 base+ with seeded random weights: for times, whose values do not depend on them."""
    sam2 = importlib.import_module("sam2.build_sam")
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):
        return sam2.build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_b+.yaml", None, "cpu")


def image_predictor(model: Any) -> Any:
    return importlib.import_module("sam2.sam2_image_predictor").SAM2ImagePredictor(model)


def start_video(model: Any, frames: np.ndarray, *, nudged: bool = False) -> dict[str, Any]:
    """An inference state on frames (T, H, W, 3) uint8 without writing JPEG files.

    Frames go through Pillow as upstream's loader does, so pixels are the same. nudged: every value
    that the network sees is the next float32 up or down, at random.
    """
    from PIL import Image

    size = model.image_size
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    images = torch.stack(
        [
            torch.from_numpy(np.array(Image.fromarray(f).resize((size, size))) / 255.0)
            .permute(2, 0, 1)
            .float()
            for f in frames
        ]
    )
    images = (images - mean) / std
    if nudged:
        up = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) < 0.5
        images = torch.nextafter(images, torch.where(up, torch.inf, -torch.inf))
    loader = importlib.import_module("sam2.sam2_video_predictor")
    original = loader.load_video_frames
    loader.load_video_frames = lambda *a, **k: (images, frames.shape[1], frames.shape[2])
    try:
        state: dict[str, Any] = model.init_state("frames in memory")
    finally:
        loader.load_video_frames = original
    return state
