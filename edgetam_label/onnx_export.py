"""The whole pipeline as ONNX files with a manifest that says how to call them.

OUT holds one file per graph of `onnx_graphs`, `manifest.json`, and `track.py`, a tracker in numpy
and ONNX Runtime. The readable model is exported: what `fused` does on a CPU is the runtime's job.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgetam_label.errors import ExportError, UsageError
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.edgetam import NO_OBJECT_LOGIT
from edgetam_label.onnx_graphs import Graph, Value, graphs_of
from edgetam_label.predictor import LOGIT_LIMIT
from edgetam_label.tracker import FILLED_HOLE_LOGIT

if TYPE_CHECKING:
    from onnx import ModelProto

FORMAT = "edgetam-label onnx 1"
MANIFEST, TRACKER = "manifest.json", "track.py"
MIN_OPSET, DEFAULT_OPSET, MAX_OPSET = 17, 18, 20
PACKAGES = ("onnx", "onnxruntime")

logger = logging.getLogger(__name__)
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class OnnxBundle:
    """What was written. files: name → bytes."""

    folder: Path
    files: dict[str, int]

    @property
    def manifest(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        return value


def require_packages(*names: str) -> None:
    """Raise ExportError saying what to install unless the packages can be imported."""
    missing = [name for name in names if not _importable(name)]
    if missing:
        raise ExportError(
            f"The Python package{'s' if len(missing) > 1 else ''} {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} needed for this and not installed; run: "
            "pip install 'edgetam-label[onnx]' (in a clone: pip install -e '.[onnx]')."
        )


def _importable(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def export_onnx(
    model: EdgeTAM,
    out: str | Path,
    *,
    opset: int = DEFAULT_OPSET,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    check: Callable[[OnnxBundle], None] = lambda bundle: None,
) -> OnnxBundle:
    """Write the ONNX files of `model` into the folder `out`; it appears complete or not at all.

    opset: 17 to 20. progress: called with (graphs done, graphs to do). check: called with the
    files before they are moved to `out`; whatever it raises leaves `out` as it was.

    Raises UsageError if `out` is not empty and `overwrite` is off or it holds other things,
    UsageError for another opset, ExportError if the package `onnx` is missing.
    """
    require_packages("onnx")
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UsageError(f"Opset {opset} is not offered; choose {MIN_OPSET} to {MAX_OPSET}.")
    out = Path(out)
    _check_target(out, overwrite)
    with _folder(out) as part:
        bundle = _write(model, part, opset, progress)
        check(bundle)
    return OnnxBundle(out, bundle.files)


def _write(model: EdgeTAM, folder: Path, opset: int, progress: Progress) -> OnnxBundle:
    import onnx

    graphs = graphs_of(_on_cpu(model))
    entries = {}
    for done, graph in enumerate(graphs):
        progress(done, len(graphs))
        proto = _trace(graph, folder / f"{graph.name}.onnx", opset)
        entries[graph.name] = _entry(graph, proto, folder / f"{graph.name}.onnx")
        onnx.checker.check_model(proto, full_check=True)
    progress(len(graphs), len(graphs))
    text = json.dumps(_manifest(model, opset, entries), indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    source = resources.files("edgetam_label") / "onnx_track.py"
    (folder / TRACKER).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return OnnxBundle(folder, {p.name: p.stat().st_size for p in sorted(folder.iterdir())})


def _on_cpu(model: EdgeTAM) -> EdgeTAM:
    if model.fused:
        raise UsageError("A fused model cannot be exported; give the one that load_model returns.")
    if model.device.type == "cpu" and not model.training:
        return model
    copy = EdgeTAM(model.config).eval()
    copy.load_state_dict({key: value.cpu() for key, value in model.state_dict().items()})
    return copy


@torch.no_grad()
def _trace(graph: Graph, path: Path, opset: int) -> ModelProto:
    """Trace one graph into `path` and state its true shapes there."""
    import onnx

    examples = tuple(value.example for value in graph.inputs)
    module = graph.module.eval()
    with warnings.catch_warnings():
        # The tracer warns of every shape that it takes as a constant. Those that may vary are kept
        # open below and run with other sizes in tests/test_onnx.py. That it is the older of torch's
        # two exporters is warned of too; docs/decisions.md says why it is used.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            examples,
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=[value.name for value in graph.inputs],
            output_names=[value.name for value in graph.outputs],
            dynamic_axes={
                value.name: dict(value.axes)
                for value in (*graph.inputs, *graph.outputs)
                if value.axes
            },
        )
        results = module(*examples)
    results = results if isinstance(results, tuple) else (results,)
    proto = onnx.load(str(path))
    proto.producer_name, proto.doc_string = "edgetam-label", graph.purpose
    for value, result, slot in zip(graph.outputs, results, proto.graph.output, strict=True):
        _state_shape(slot, value, result.shape)
    del proto.graph.value_info[:]  # shapes in between are those of the example
    onnx.save(proto, str(path))
    return proto


def _state_shape(slot: Any, value: Value, shape: torch.Size) -> None:
    dims = slot.type.tensor_type.shape.dim
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if axis in value.axes:
            dim.dim_param = value.axes[axis]
        else:
            dim.dim_value = size


def _entry(graph: Graph, proto: ModelProto, path: Path) -> dict[str, Any]:
    """A graph's part of the manifest; names, types and shapes are read from the file."""

    def values(slots: Any, known: tuple[Value, ...]) -> list[dict[str, Any]]:
        return [_value_entry(slot, value.meaning) for slot, value in zip(slots, known, strict=True)]

    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "call": graph.purpose,
        "inputs": values(proto.graph.input, graph.inputs),
        "outputs": values(proto.graph.output, graph.outputs),
    }


def _value_entry(slot: Any, meaning: str) -> dict[str, Any]:
    import onnx

    tensor = slot.type.tensor_type
    return {
        "name": slot.name,
        "type": str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        "shape": [dim.dim_param or dim.dim_value for dim in tensor.shape.dim],
        "meaning": meaning,
    }


def _manifest(model: EdgeTAM, opset: int, graphs: dict[str, Any]) -> dict[str, Any]:
    c, identity = model.config, model.identity
    return {
        "format": FORMAT,
        "model": {
            "name": c.name,
            "checkpoint_sha256": identity.checkpoint_sha256 if identity else None,
            "config_sha256": c.sha256,
        },
        "opset": opset,
        "preprocessing": {
            "size": c.image_size,
            "fit": "stretch",
            "resize": "bicubic (a = -0.5), antialiased, rounded to 8 bits: PIL's BICUBIC",
            "channels": "RGB",
            "range": [0, 255],
            "normalisation": "in image_encoder",
        },
        "postprocessing": {
            "resize": "bilinear, half-pixel centres, not antialiased",
            "threshold": 0.0,
            "fill_hole_area": c.fill_hole_area,
            "filled_hole_logit": FILLED_HOLE_LOGIT,
        },
        "constants": {
            "num_maskmem": c.num_maskmem,
            "max_object_pointers": c.max_object_pointers,
            "memory_dtype": c.memory_dtype,
            "feedback_limit": LOGIT_LIMIT,
            "absent_logit": NO_OBJECT_LOGIT,
        },
        "graphs": graphs,
    }


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the ONNX files.")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise UsageError(f"{out} is not empty; choose another folder or pass --overwrite.")
    known = (MANIFEST, TRACKER)
    others = [p.name for p in out.iterdir() if p.name not in known and p.suffix != ".onnx"]
    if others or not (out / MANIFEST).is_file():
        raise UsageError(
            f"{out} holds other things than an ONNX export ({', '.join(sorted(others)[:3])}); it "
            "would be replaced as a whole. Choose another folder."
        )


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all went well, and vanishes otherwise."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        if not out.exists():
            part.rename(out)
            return
        old = part.with_name(f"{part.name}.old")
        out.rename(old)
        try:
            part.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old)
    finally:
        shutil.rmtree(part, ignore_errors=True)
