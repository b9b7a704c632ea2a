"""The golden scenarios, run on our own predictors: names → arrays, as the recording has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from formula_weights import formula_frames, formula_state_dict

from edgetam_label.config import ModelConfig
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE
from edgetam_label.modeling import EdgeTAM
from edgetam_label.predictor import ImagePredictor
from edgetam_label.preprocess import frame_to_input, image_to_input, logits_to_size, prompt_points
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackedFrame, TrackerSettings, VideoTracker

ONE_CLICK = (Click(150, 120),)
TWO_CLICKS = (Click(150, 120), Click(340, 200, positive=False))
BOX = Box(90, 70, 210, 170)
SECOND_BOX = Box(240, 130, 380, 240)
HYPERNETWORK = "sam_mask_decoder.output_hypernetworks_mlps.0.layers.2."
SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"

Arrays = dict[str, np.ndarray]


def golden_model(memory_dtype: str = "bfloat16") -> EdgeTAM:
    model = EdgeTAM(replace(ModelConfig.load("edgetam"), memory_dtype=memory_dtype)).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(formula_state_dict(shapes), strict=True)
    return model


@torch.inference_mode()
def encoder_arrays(model: EdgeTAM) -> Arrays:
    image = formula_frames()[0]
    pixels = image_to_input(image, 1024, torch.device("cpu"))
    stages = model.image_encoder.trunk(pixels)
    fine, middle, top = model.image_encoder.neck(stages)
    features = model.encode_image(pixels)
    arrays = {"img/input": pixels, "vid/input": frame_to_input(image, 1024, torch.device("cpu"))}
    arrays |= {f"img/stage{i}": stage for i, stage in enumerate(stages)}
    arrays |= {"img/fpn0": fine, "img/fpn1": middle, "img/fpn2": top}
    arrays["img/embed_plus_no_mem"] = model.without_memory(features.top)
    arrays |= {f"img/high{i}": m for i, m in enumerate(features.high_res)}
    arrays["img/dense_pe"] = model.sam_prompt_encoder.image_position()
    return {key: value.numpy() for key, value in arrays.items()}


@torch.inference_mode()
def image_arrays(model: EdgeTAM) -> Arrays:
    """Click, ± clicks, box, box + clicks, several boxes, refinement, unstable single mask."""
    predictor = ImagePredictor(model)
    embedding = predictor.embed(formula_frames()[0])
    arrays: Arrays = {}

    def run(name: str, prompts: list[Prompt], multimask: bool, logits: list | None = None) -> list:
        answers = predictor.predict_batch(
            embedding, prompts, multimask=multimask, low_res_logits=logits
        )
        given = [prompt_points(p.clicks, p.box, 480, 270, 1024, model.device) for p in prompts]
        sparse = [model.sam_prompt_encoder.embed_points(*g).numpy() for g in given if g]
        arrays[f"{name}/sparse"] = np.concatenate(sparse)
        for key, field in (("low_res", "low_res_logits"), ("mask", "masks"), ("iou", "iou")):
            rows = [getattr(a, field) for a in answers]
            arrays[f"{name}/{key}"] = np.stack(rows) if len(rows) > 1 else rows[0]
        arrays[f"{name}/obj_score"] = np.array([[a.object_score] for a in answers])
        return answers

    one, two = Prompt(1, clicks=ONE_CLICK), Prompt(1, clicks=TWO_CLICKS)
    box, both = Prompt(1, box=BOX), Prompt(1, box=BOX, clicks=TWO_CLICKS)
    multi = run("img/click_multi", [one], True)[0]
    run("img/click_single", [one], False)
    run("img/posneg_single", [two], False)
    run("img/box_single", [box], False)
    run("img/box_click_single", [both], False)
    run("img/two_boxes_multi", [box, Prompt(2, box=SECOND_BOX)], True)
    run("img/mask_input_single", [two], False, [multi.low_res_logits[1]])
    state = model.state_dict()
    shrunk = {k: v * 0.02 for k, v in state.items() if k.startswith(HYPERNETWORK)}
    model.load_state_dict(state | shrunk)
    predictor = ImagePredictor(model)  # it has copies of the weights
    run("img/fallback_single", [one], False)
    model.load_state_dict(state | {k: v / 0.02 for k, v in shrunk.items()})
    return arrays


def open_frames() -> Frames:
    return Frames.open(list(formula_frames()))


def first_prompts() -> list[Prompt]:
    return [
        Prompt(1, 0, clicks=(Click(140, 123),)),
        Prompt(7, 0, box=Box(294, 141, 390, 205)),
    ]


def correction() -> Prompt:
    return Prompt(1, 3, clicks=(Click(230, 150, positive=False),))


def drawn_mask() -> np.ndarray:
    """A rectangle with a hole, (270, 480) bool."""
    mask = np.zeros((270, 480), dtype=bool)
    mask[80:175, 160:270] = True
    mask[100:120, 200:220] = False
    return mask


def collect(scenario: str, tracker: VideoTracker, passed: Iterable[TrackedFrame]) -> Arrays:
    """Arrays of one pass, objects stacked in the order of their ids."""
    by_frame: dict[int, list[TrackedFrame]] = {}
    for tracked in passed:
        by_frame.setdefault(tracked.frame_idx, []).append(tracked)
    arrays: Arrays = {}
    for frame_idx, rows in by_frame.items():
        name = f"{scenario}/f{frame_idx}"
        memories = [tracker.memory(t.obj_id, frame_idx) for t in rows]
        low_res = torch.cat([t.low_res_logits for t in rows])
        arrays[f"{name}/low_res"] = low_res.numpy()
        arrays[f"{name}/video_logits"] = logits_to_size(low_res, 270, 480).numpy()
        arrays[f"{name}/mask"] = np.stack([t.mask for t in rows])[:, None]
        arrays[f"{name}/obj_score"] = np.array([[t.score] for t in rows])
        arrays[f"{name}/obj_ptr"] = torch.cat([m.pointer for m in memories if m]).numpy()
        tokens = [m.tokens.float() for m in memories if m]
        arrays[f"{name}/maskmem"] = torch.cat(tokens).numpy()
    return arrays


def video_arrays(scenario: str, model: EdgeTAM | None = None) -> Arrays:
    """A, B, C, D, E, E2 or E3, as tests/golden/README.md describes them."""
    model = model or golden_model("float32" if scenario.startswith("E") else "bfloat16")
    settings = TrackerSettings(
        fill_hole_area=8 if scenario == "D" else 0, corrections_condition=scenario == "E3"
    )
    tracker = VideoTracker(model, open_frames(), settings)
    if scenario == "B":
        tracker.add_prompt(Prompt(5, 3, mask=RLE.encode(drawn_mask())))
        back = collect("Brev", tracker, tracker.propagate(direction="backward"))
        return back | collect("Bfwd", tracker, tracker.propagate())
    for prompt in first_prompts()[: 1 if scenario in ("E2", "E3", "C", "D") else 2]:
        tracker.add_prompt(prompt)
    last = 2 if scenario in "CD" else None
    arrays = collect(scenario, tracker, tracker.propagate(max_frames=last))
    if scenario in ("E2", "E3"):
        tracker.add_prompt(correction())
        arrays = collect(scenario, tracker, tracker.propagate(3))
    return arrays
