"""Reading weights: layouts, strictness, damaged and hostile files."""

from __future__ import annotations

import ast
import gzip
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgetam_label.config import ModelConfig
from edgetam_label.errors import CheckpointError, ConfigError
from edgetam_label.hf_layout import is_hugging_face, to_official
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.state_dicts import config_from_values, load_weights, read_weights

DATA = Path(__file__).parent / "data"
Shapes = dict[str, tuple[int, ...]]


def shapes(name: str) -> Shapes:
    """Keys and shapes as recorded from the official checkpoint and from transformers' model."""
    with gzip.open(DATA / f"edgetam_keys_{name}.tsv.gz", "rt", encoding="ascii") as file:
        rows = [line.rstrip("\n").split("\t")[:2] for line in file]
    return {key: ast.literal_eval(shape) for key, shape in rows}


@pytest.fixture(scope="module")
def hugging_face() -> dict[str, Tensor]:
    """Tensors in the Hugging Face layout; each holds its own number, so that a mix-up shows."""
    state = {
        key: torch.full(shape, float(index))
        for index, (key, shape) in enumerate(shapes("hugging_face").items())
    }
    copies = [key for key in state if key.endswith("shared_embedding.positional_embedding")]
    copies += [key for key in state if key == "shared_image_embedding.positional_embedding"]
    for key in copies:
        state[key] = state[copies[0]].clone()
    return state


def test_every_hugging_face_key_finds_its_official_place(hugging_face: dict[str, Tensor]) -> None:
    official = to_official(hugging_face)
    assert {key: tuple(value.shape) for key, value in official.items()} == shapes("official")


# (official, Hugging Face) where equal shapes would hide a mix-up
PAIRS = [
    ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ("no_mem_embed", "no_memory_embedding"),
    ("no_mem_pos_enc", "no_memory_positional_encoding"),
    ("sam_mask_decoder.transformer.layers.1.norm2.bias",
     "mask_decoder.transformer.layers.1.layer_norm2.bias"),
    ("sam_mask_decoder.transformer.norm_final_attn.weight",
     "mask_decoder.transformer.layer_norm_final_attn.weight"),
    ("sam_mask_decoder.output_hypernetworks_mlps.2.layers.0.weight",
     "mask_decoder.output_hypernetworks_mlps.2.proj_in.weight"),
    ("sam_mask_decoder.output_hypernetworks_mlps.2.layers.1.weight",
     "mask_decoder.output_hypernetworks_mlps.2.layers.0.weight"),
    ("obj_ptr_proj.layers.0.weight", "object_pointer_proj.proj_in.weight"),
    ("obj_ptr_proj.layers.1.weight", "object_pointer_proj.layers.0.weight"),
    ("obj_ptr_proj.layers.2.bias", "object_pointer_proj.proj_out.bias"),
    ("memory_attention.layers.0.norm3.weight", "memory_attention.layers.0.layer_norm3.weight"),
    ("memory_attention.norm.weight", "memory_attention.layer_norm.weight"),
    ("memory_attention.layers.1.cross_attn_image.out_proj.weight",
     "memory_attention.layers.1.cross_attn_image.o_proj.weight"),
    ("memory_encoder.mask_downsampler.encoder.9.bias",
     "memory_encoder.mask_downsampler.layers.3.conv.bias"),
    ("memory_encoder.mask_downsampler.encoder.10.bias",
     "memory_encoder.mask_downsampler.layers.3.layer_norm.bias"),
    ("memory_encoder.fuser.layers.0.norm.bias",
     "memory_encoder.memory_fuser.layers.0.layer_norm.bias"),
    ("spatial_perceiver.latents", "spatial_perceiver.latents_1d"),
    ("spatial_perceiver.latents_2d", "spatial_perceiver.latents_2d"),
    ("spatial_perceiver.layers.0.attn.to_q.weight",
     "spatial_perceiver.layers.0.cross_attention.q_proj.weight"),
    ("spatial_perceiver.layers.1.self_ff.1.weight",
     "spatial_perceiver.layers.1.self_mlp.up_proj.weight"),
    ("spatial_perceiver.layers.1.ff.0.bias",
     "spatial_perceiver.layers.1.mlp.layer_norm.bias"),
    ("spatial_perceiver.layers.0.self_attn.norm.weight",
     "spatial_perceiver.layers.0.layer_norm_self.weight"),
    ("image_encoder.neck.convs.3.conv.bias", "vision_encoder.neck.convs.3.bias"),
]  # fmt: skip


def test_equal_shapes_are_not_mixed_up(hugging_face: dict[str, Tensor]) -> None:
    official = to_official(hugging_face)
    for ours, theirs in PAIRS:
        assert torch.equal(official[ours], hugging_face[theirs]), (ours, theirs)
    kv = official["spatial_perceiver.layers.0.self_attn.to_kv.weight"]
    prefix = "spatial_perceiver.layers.0.self_attention."
    assert torch.equal(kv[:64], hugging_face[prefix + "k_proj.weight"])
    assert torch.equal(kv[64:], hugging_face[prefix + "v_proj.weight"])


def test_no_two_keys_land_in_one_place(hugging_face: dict[str, Tensor]) -> None:
    values = [float(v.flatten()[0]) for k, v in to_official(hugging_face).items()]
    stacked = float(hugging_face["prompt_encoder.point_embed.weight"].flatten()[0])
    once = [v for v in values if v != stacked]
    assert len(once) == len(set(once)) and values.count(stacked) == 4


def test_two_different_fourier_matrices_are_refused(hugging_face: dict[str, Tensor]) -> None:
    state = dict(hugging_face)
    state["shared_image_embedding.positional_embedding"] = torch.ones(2, 128)
    with pytest.raises(CheckpointError, match="differ; EdgeTAM has one matrix"):
        to_official(state)


def test_half_a_projection_is_refused(hugging_face: dict[str, Tensor]) -> None:
    state = dict(hugging_face)
    del state["spatial_perceiver.layers.1.cross_attention.v_proj.weight"]
    with pytest.raises(CheckpointError, match=r"layers\.1\.attn\.to_kv\.weight: only the k "):
        to_official(state)


@pytest.mark.slow
def test_a_hugging_face_file_loads_into_the_model(
    hugging_face: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(hugging_face, path)
    weights = read_weights(path)
    assert not is_hugging_face(weights.state)
    model = EdgeTAM(ModelConfig.load("edgetam"))
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == shapes("official")
    load_weights(model, weights)
    loaded = model.state_dict()["obj_ptr_proj.layers.1.weight"]
    assert torch.equal(loaded, hugging_face["object_pointer_proj.layers.0.weight"])


@pytest.fixture
def tiny() -> EdgeTAM:
    return EdgeTAM(ModelConfig.load("tiny"))


@pytest.mark.parametrize("wrapped", [True, False])
def test_both_forms_of_a_torch_file(tiny: EdgeTAM, tmp_path: Path, wrapped: bool) -> None:
    state = tiny.state_dict()
    torch.save({"model": state} if wrapped else state, tmp_path / "w.pt")
    other = EdgeTAM(ModelConfig.load("tiny"))
    load_weights(other, read_weights(tmp_path / "w.pt"))
    assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items())


def test_safetensors_in_the_official_layout_whatever_its_name(
    tiny: EdgeTAM, tmp_path: Path
) -> None:
    save_file(dict(tiny.state_dict()), tmp_path / "weights.bin")
    weights = read_weights(tmp_path / "weights.bin")
    assert set(weights.state) == set(tiny.state_dict())


def test_mismatches_are_named_and_counted(tiny: EdgeTAM, tmp_path: Path) -> None:
    state = dict(tiny.state_dict())
    keys = [key for key in state if key.startswith("mask_downsample.")]
    assert keys == ["mask_downsample.weight", "mask_downsample.bias"]
    del state["mask_downsample.bias"]
    state["mask_downsample.weight"] = torch.zeros(2, 2)
    for index in range(5):
        state[f"extra.{index}"] = torch.zeros(1)
    torch.save({"model": state}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError) as error:
        load_weights(tiny, read_weights(tmp_path / "w.pt"))
    text = str(error.value)
    assert "1 missing (mask_downsample.bias)" in text
    assert "5 unexpected (extra.0, extra.1, extra.2, and 2 more)" in text
    assert "1 misshapen (mask_downsample.weight (2, 2) in place of (1, 1, 4, 4))" in text


def test_a_refused_file_leaves_the_model_alone(tiny: EdgeTAM, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    state = {key: torch.zeros_like(value) for key, value in before.items()}
    del state["no_obj_ptr"]
    torch.save({"model": state}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="no_obj_ptr"):
        load_weights(tiny, read_weights(tmp_path / "w.pt"))
    assert all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never run",))


def test_code_in_a_checkpoint_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="could run code and are refused"):
        read_weights(tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "raw.pt")
    assert capsys.readouterr().out == ""


def test_files_that_are_no_checkpoints(tiny: EdgeTAM, tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"model": tiny.state_dict()}, whole)
    cases = {
        "text.pt": b"this is no checkpoint, it is a text file\n",
        "empty.pt": b"",
        "pickle.pt": b"\x80\x02}q\x00X\x05",
        "html.pt": b"<!DOCTYPE html><html>not found</html>",
        "cut.pt": whole.read_bytes()[: whole.stat().st_size // 2],
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {"a": 1}}, [1, 2], 5])
def test_a_file_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_weights(tmp_path / "w.pt")


def test_absent_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.pt does not exist"):
        read_weights(tmp_path / "no.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_weights(tmp_path)


def test_a_kept_config_is_checked() -> None:
    with pytest.raises(ConfigError, match="lacks the key 'd_model'"):
        config_from_values({"name": "x"})


def test_a_config_kept_before_a_key_was_added_still_loads() -> None:
    config = ModelConfig.load("edgetam_nano")
    kept = {k: v for k, v in asdict(config).items() if k not in ("clicked_parts", "precision")}
    assert config_from_values(kept) == replace(config, clicked_parts=False, precision="float32")
