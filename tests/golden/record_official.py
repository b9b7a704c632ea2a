"""Record the golden values: run the official package on formula weights and frames.

    make bench-env && .venv-bench/bin/python tests/golden/record_official.py

Writes edgetam_golden.npz beside this file. Each array is kept as every n-th element along its
spatial axes; masks as packed bits. tests/test_golden.py compares ours with it.

A correction is recorded with the corrected object alone: the official predictor batches its
objects, and when one is corrected it encodes the others' masks of that frame again, binarised as if
a person had drawn them. Ours never touches an object that was not corrected. Memories are kept in
float32 there: with bfloat16 two candidate masks of frame 5 come so close that rounding decides.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import golden_scenarios as ours  # noqa: E402
import official_edgetam  # noqa: E402
from formula_weights import formula_frames, formula_state_dict  # noqa: E402

from edgetam_label.config import ModelConfig  # noqa: E402
from edgetam_label.modeling import EdgeTAM  # noqa: E402

Arrays = dict[str, np.ndarray]


def thin(array: np.ndarray, step: int) -> np.ndarray:
    """Every step-th element of the last two axes."""
    return np.ascontiguousarray(array[..., ::step, ::step]).astype(np.float32)


def store_logits(arrays: Arrays, name: str, logits: torch.Tensor) -> None:
    values = logits.float().numpy()
    arrays[name] = thin(values, 8)
    arrays[f"{name}/bits"] = np.packbits(values > 0)


def record_image(arrays: Arrays, model: Any) -> None:
    predictor = official_edgetam.image_predictor(model)
    predictor.set_image(formula_frames()[0])
    features = predictor._features
    arrays["img/embed_plus_no_mem"] = thin(features["image_embed"].numpy(), 8)
    for i, high in enumerate(features["high_res_feats"]):
        arrays[f"img/high{i}"] = thin(high.numpy(), 16)

    def points(clicks: Any) -> dict[str, np.ndarray]:
        xy = np.array([[c.x, c.y] for c in clicks], dtype=np.float32)
        return {"point_coords": xy, "point_labels": np.array([int(c.positive) for c in clicks])}

    def box(*boxes: Any) -> dict[str, np.ndarray]:
        xyxy = np.array([[b.x0, b.y0, b.x1, b.y1] for b in boxes], dtype=np.float32)
        return {"box": xyxy if len(boxes) > 1 else xyxy[0]}

    one, two = points(ours.ONE_CLICK), points(ours.TWO_CLICKS)

    def run(name: str, multimask: bool, **prompt: np.ndarray) -> np.ndarray:
        masks, iou, low_res = predictor.predict(multimask_output=multimask, **prompt)
        arrays[f"img/{name}/mask/bits"] = np.packbits(masks.astype(bool))
        arrays[f"img/{name}/iou"] = iou
        store_logits(arrays, f"img/{name}/low_res", torch.from_numpy(low_res))
        return low_res

    multi = run("click_multi", True, **one)
    run("click_single", False, **one)
    run("posneg_single", False, **two)
    run("box_single", False, **box(ours.BOX))
    run("box_click_single", False, **box(ours.BOX), **two)
    run("two_boxes_multi", True, **box(ours.BOX, ours.SECOND_BOX))
    run("mask_input_single", False, mask_input=multi[1:2], **two)
    state = model.state_dict()
    kept = {k: v.clone() for k, v in state.items() if k.startswith(ours.HYPERNETWORK)}
    model.load_state_dict(state | {k: v * 0.02 for k, v in kept.items()})
    run("fallback_single", False, **one)
    model.load_state_dict(state | kept)


def add_prompts(model: Any, state: Any, prompts: list[Any]) -> None:
    for prompt in prompts:
        clicks, box = prompt.clicks, prompt.box
        model.add_new_points_or_box(
            state,
            prompt.frame_idx,
            prompt.obj_id,
            points=[[c.x, c.y] for c in clicks] or None,
            labels=[int(c.positive) for c in clicks] or None,
            box=None if box is None else [box.x0, box.y0, box.x1, box.y1],
        )


def record_pass(arrays: Arrays, scenario: str, model: Any, state: Any, **options: Any) -> None:
    for frame_idx, _, video_logits in model.propagate_in_video(state, **options):
        name = f"{scenario}/f{frame_idx}"
        arrays[f"{name}/mask/bits"] = np.packbits(video_logits.numpy() > 0)
        outputs = state["output_dict"]
        output = outputs["cond_frame_outputs"].get(frame_idx)
        output = output or outputs["non_cond_frame_outputs"][frame_idx]
        store_logits(arrays, f"{name}/low_res", output["pred_masks"])
        arrays[f"{name}/obj_ptr"] = output["obj_ptr"].float().numpy()
        arrays[f"{name}/obj_score"] = output["object_score_logits"].float().numpy()
        arrays[f"{name}/maskmem"] = thin(output["maskmem_features"].float().numpy(), 8)


def keep_memory_float(model: Any) -> None:
    """Scenario E: upstream rounds memories to bfloat16; without that both sides are exact."""
    original = torch.Tensor.to

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args and args[0] is torch.bfloat16:
            return self
        return original(self, *args, **kwargs)

    torch.Tensor.to = to  # type: ignore[method-assign]


@torch.inference_mode()
def main() -> None:
    official_edgetam.prepare()
    config = ModelConfig.load("edgetam")
    shapes = {k: tuple(v.shape) for k, v in EdgeTAM(config).state_dict().items()}
    weights = formula_state_dict(shapes)
    frames = formula_frames()
    arrays: Arrays = {}
    model = official_edgetam.build(weights)
    record_image(arrays, model)

    def start(prompts: list[Any]) -> Any:
        state = official_edgetam.start_video(model, frames)
        add_prompts(model, state, prompts)
        return state

    record_pass(arrays, "A", model, start(ours.first_prompts()))
    state = official_edgetam.start_video(model, frames)
    model.add_new_mask(state, 3, 5, torch.from_numpy(ours.drawn_mask()))
    record_pass(arrays, "Brev", model, state, reverse=True)
    record_pass(arrays, "Bfwd", model, state)

    absent = official_edgetam.build(weights | {ours.SCORE_BIAS: torch.full((1,), -8.0)})
    state = official_edgetam.start_video(absent, frames)
    add_prompts(absent, state, ours.first_prompts()[:1])
    record_pass(arrays, "C", absent, state, max_frame_num_to_track=1)

    keep_memory_float(model)
    record_pass(arrays, "E", model, start(ours.first_prompts()))
    for scenario, conditioning in (("E2", False), ("E3", True)):
        model.add_all_frames_to_correct_as_cond = conditioning
        state = start(ours.first_prompts()[:1])
        for _ in model.propagate_in_video(state):
            pass
        add_prompts(model, state, [ours.correction()])
        record_pass(arrays, scenario, model, state, start_frame_idx=3)
    np.savez_compressed(Path(__file__).with_name("edgetam_golden.npz"), **arrays)
    print(f"{len(arrays)} arrays recorded")


if __name__ == "__main__":
    main()
