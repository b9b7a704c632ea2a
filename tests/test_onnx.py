"""`edgetam-label onnx`: files that track as the network does, for callers with numpy alone."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from formula_weights import formula_state_dict
from PIL import Image

from edgetam_label import onnx_export
from edgetam_label.cli import cli
from edgetam_label.config import ModelConfig
from edgetam_label.errors import ExportError, UsageError
from edgetam_label.masks import small_components as reference_components
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.fused import fuse
from edgetam_label.onnx_check import OnnxCheck, check_onnx
from edgetam_label.onnx_export import export_onnx
from edgetam_label.onnx_graphs import graphs_of
from edgetam_label.onnx_track import (
    OnnxPipeline,
    linear_weights,
    resize_frame,
    resize_mask,
    rounded,
    small_components,
)
from edgetam_label.preprocess import logits_to_size, mask_to_input

GRAPHS = [
    "image_encoder", "mask_decoder", "mask_prompt",
    "memory_encoder", "frame_attention", "memory_attention",
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> EdgeTAM:
    """Weights by formula: objects are visible, masks have both signs."""
    model = EdgeTAM(ModelConfig.load("tiny")).eval().requires_grad_(False)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(formula_state_dict(shapes))
    return model


@pytest.fixture(scope="module")
def folder(model: EdgeTAM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(model, tmp_path_factory.mktemp("onnx") / "files").folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> OnnxPipeline:
    return OnnxPipeline(folder, threads=1)


def test_a_track_is_the_same(model: EdgeTAM, folder: Path) -> None:
    """Click, box, mask, six frames, a correction, and the rest again."""
    check = check_onnx(model, folder)
    assert check.masks == 3 + 6 * 3 + 1 + 3 * 3
    assert check.visible > check.masks // 2, "nothing to compare"
    # these weights' logits lie around zero; on a processor without AVX-512 1.1e-4 were measured
    assert check.passed and check.pixels_differing <= 2e-4 * check.pixels
    assert check.low_res_logits < 0.2 and check.pointer < 0.02
    check.require()


def test_the_check_fails_for_files_of_other_weights(model: EdgeTAM, folder: Path) -> None:
    other = EdgeTAM(model.config).eval()
    state = {**model.state_dict()}
    key = "memory_attention.layers.0.cross_attn_image.v_proj.weight"
    other.load_state_dict({**state, key: -state[key]})
    check = check_onnx(other, folder, width=240, height=136)
    assert not check.passed
    with pytest.raises(ExportError, match="do not track as the network does"):
        check.require()


def resized(value: np.ndarray, sizes: dict[str, int], axes: dict[int, str]) -> np.ndarray:
    """An example input with its open axes brought to other sizes, by repeating what is there."""
    for axis, axis_name in axes.items():
        value = np.take(value, np.arange(sizes[axis_name]) % value.shape[axis], axis=axis)
    return value


SIZES = [
    {"objects": 1, "points": 1, "frames": 1, "pointers": 1},
    {"objects": 1, "points": 5, "frames": 7, "pointers": 16},
    {"objects": 3, "points": 2, "frames": 3, "pointers": 0},
    {"objects": 5, "points": 3, "frames": 9, "pointers": 4},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@torch.inference_mode()
def test_every_open_axis_is_open(
    model: EdgeTAM, pipeline: OnnxPipeline, sizes: dict[str, int]
) -> None:
    torch.manual_seed(0)
    for graph in graphs_of(model):
        if not any(value.axes for value in graph.inputs):
            continue
        inputs = {v.name: resized(v.example.numpy(), sizes, dict(v.axes)) for v in graph.inputs}
        expected = graph.module(*(torch.from_numpy(x) for x in inputs.values()))
        expected = expected if isinstance(expected, tuple) else (expected,)
        answers = pipeline.run(graph.name, inputs)
        assert list(answers) == [value.name for value in graph.outputs]
        for (name, answer), reference in zip(answers.items(), expected, strict=True):
            assert answer.shape == reference.shape, (graph.name, name)
            scale = max(1.0, float(reference.abs().max()))
            assert np.abs(answer - reference.numpy()).max() < 2e-5 * scale, (graph.name, name)


@torch.inference_mode()
def test_objects_may_share_a_call(model: EdgeTAM, pipeline: OnnxPipeline) -> None:
    graph = next(g for g in graphs_of(model) if g.name == "memory_attention")
    inputs = {v.name: v.example.numpy() for v in graph.inputs}
    both = pipeline.run(graph.name, inputs)["features"]
    for i in range(2):
        alone = {k: v if k == "started" else v[i : i + 1] for k, v in inputs.items()}
        assert np.allclose(pipeline.run(graph.name, alone)["features"], both[i : i + 1], atol=1e-5)


def test_the_order_of_memories_does_not_matter(model: EdgeTAM, pipeline: OnnxPipeline) -> None:
    graph = next(g for g in graphs_of(model) if g.name == "memory_attention")
    inputs = {v.name: v.example.numpy() for v in graph.inputs}
    turned = {k: v if k == "started" else v[:, ::-1] for k, v in inputs.items()}
    a, b = (pipeline.run(graph.name, given)["features"] for given in (inputs, turned))
    assert np.allclose(a, b, atol=1e-5)


def test_the_manifest_describes_the_files(folder: Path, model: EdgeTAM) -> None:
    import hashlib

    import onnx

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert list(manifest["graphs"]) == GRAPHS and manifest["model"]["name"] == "tiny"
    assert manifest["constants"]["num_maskmem"] == 7 and manifest["preprocessing"]["size"] == 128
    for entry in manifest["graphs"].values():
        data = (folder / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        proto = onnx.load_from_string(data)
        assert [o.version for o in proto.opset_import if o.domain == ""] == [manifest["opset"]]
        assert {o.domain for o in proto.opset_import} <= {""}
        for value in (*entry["inputs"], *entry["outputs"]):
            assert value["meaning"] and all(value["shape"]), value
    decoder = {v["name"]: v for v in manifest["graphs"]["mask_decoder"]["outputs"]}
    assert decoder["pointer"]["shape"] == ["objects", model.config.d_model]


def test_the_tracker_needs_numpy_and_onnxruntime_only(folder: Path) -> None:
    source = (folder / "track.py").read_text(encoding="utf-8")
    assert source == Path(onnx_export.__file__).with_name("onnx_track.py").read_text("utf-8")
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names - sys.stdlib_module_names == {"numpy", "onnxruntime"}


# -- the tracker's own parts against the ones they stand in for


@pytest.mark.parametrize("shape", [(360, 640), (90, 160), (128, 200), (128, 128), (333, 611)])
def test_frames_are_resized_as_pillow_does(shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    reference = Image.fromarray(frame).resize((128, 128), Image.Resampling.BICUBIC)
    assert np.array_equal(resize_frame(frame, 128), np.asarray(reference))


def test_upright_frames_are_resized_nearly_as_pillow_does() -> None:
    rows, cols = np.mgrid[:640, :360]
    frame = np.stack([rows * cols % 256, rows % 256, (rows // 20 + cols // 30) % 2 * 255], axis=-1)
    pixels = Image.fromarray(frame.astype(np.uint8))
    reference = np.asarray(pixels.resize((128, 128), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(resize_frame(np.asarray(pixels), 128) - reference)
    assert difference.max() <= 16 and difference.mean() < 0.5


@pytest.mark.parametrize("shape", [(360, 640), (90, 160), (128, 128)])
def test_masks_are_resized_as_torch_does(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, dtype=bool)
    mask[20:70, 31:111] = True
    reference = mask_to_input(mask, 128, torch.device("cpu"))[0, 0].numpy()
    assert np.array_equal(resize_mask(mask, 128), reference)


def test_logits_are_resized_as_torch_does() -> None:
    logits = torch.randn(1, 1, 32, 32)
    reference = logits_to_size(logits, 90, 161)[0, 0].numpy()
    ours = linear_weights(32, 90) @ logits[0, 0].numpy() @ linear_weights(32, 161).T
    assert np.abs(ours - reference).max() < 1e-5


def test_memories_are_rounded_as_torch_does() -> None:
    values = torch.randn(1000) * 10
    assert np.array_equal(
        rounded(values.numpy(), "bfloat16"), values.to(torch.bfloat16).float().numpy()
    )
    assert np.array_equal(rounded(values.numpy(), "float16"), values.half().float().numpy())
    assert np.array_equal(rounded(values.numpy(), "float32"), values.numpy())


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9])
def test_small_holes_are_found_as_opencv_does(density: float) -> None:
    mask = np.random.default_rng(2).random((64, 96)) < density
    for area in (1, 8):
        assert np.array_equal(small_components(mask, area), reference_components(mask, area))


# -- files and errors


def test_a_filled_folder_is_only_replaced_on_request(model: EdgeTAM, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        export_onnx(model, tmp_path)
    with pytest.raises(UsageError, match=r"notes\.txt"):
        export_onnx(model, tmp_path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failed_check_leaves_what_was_there(
    model: EdgeTAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "graphs_of", lambda model: graphs_of(model)[2:3])
    out = tmp_path / "files"
    export_onnx(model, out)
    before = (out / "manifest.json").read_bytes()

    def refuse(bundle: object) -> None:
        raise ExportError("different")

    with pytest.raises(ExportError, match="different"):
        export_onnx(model, out, opset=19, overwrite=True, check=refuse)
    assert (out / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["files"]
    export_onnx(model, out, opset=19, overwrite=True)
    assert json.loads((out / "manifest.json").read_text())["opset"] == 19


def test_wrong_requests_say_what_to_do(
    model: EdgeTAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="Opset 9"):
        export_onnx(model, tmp_path / "a", opset=9)
    with pytest.raises(UsageError, match="load_model"):
        export_onnx(fuse(model), tmp_path / "a")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"onnx is needed.*edgetam-label\[onnx\]"):
        export_onnx(model, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "files"
    arguments = ["onnx", str(out), "--model", "tiny", "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(report["files"]) == {p.name for p in out.iterdir()}
    assert report["check"]["masks"] == 31 and report["check"]["passed"]
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 2 and "--overwrite" in again.output


def test_the_command_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = CliRunner().invoke(cli, ["onnx", str(tmp_path / "files"), "--model", "tiny"])
    assert result.exit_code == 1 and "onnxruntime is needed" in result.output


def test_a_check_that_finds_nan_fails() -> None:
    values = dict(masks=1, visible=1, object_score=0.0, pointer=0.0, memory=0.0)
    counts = dict(pixels=1, pixels_differing=0, worst_share=0.0)
    assert not OnnxCheck(low_res_logits=float("nan"), **values, **counts).passed
    assert OnnxCheck(low_res_logits=0.0, **values, **counts).passed
