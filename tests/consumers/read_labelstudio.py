"""label-studio-sdk on our tasks. Arguments: image|video, the export, the truth folder."""

import json
import sys
from pathlib import Path

import numpy as np
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
from truth import Truth


def box_of(mask):
    """(x, y, width, height) in pixels."""
    ys, xs = np.nonzero(mask)
    return tuple(int(v) for v in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1))


def interpolated(value, video):
    """Boxes by 0-based frame, as the editor shows them: linear between enabled keyframes, a last
    enabled one to the end."""
    boxes = {}
    sequence = value["sequence"]
    for here, there in zip(sequence, [*sequence[1:], None], strict=True):
        if not here["enabled"]:
            end, there = here["frame"], here
        else:
            end = there["frame"] - 1 if there else value["framesCount"]
            there = there or here
        for frame in range(here["frame"], end + 1):
            span = there["frame"] - here["frame"]
            part = (frame - here["frame"]) / span if span else 0
            percent = [here[k] + (there[k] - here[k]) * part for k in ("x", "y", "width", "height")]
            scale = (video["width"], video["height"]) * 2
            boxes[frame - 1] = tuple(
                round(p / 100 * s) for p, s in zip(percent, scale, strict=True)
            )
    return boxes


kind, export, folder = sys.argv[1:4]
root, truth = Path(export) / kind, Truth(folder)
interface = LabelInterface((root / "label_config.xml").read_text(encoding="utf-8"))
interface.validate()
tasks = json.loads((root / "tasks.json").read_text())
results = {"tasks": len(tasks), "regions": 0, "exact": 0, "valid": 0, "labels": 0}
for task in tasks:
    annotation = task["annotations"][0]
    results["valid"] += bool(interface.validate_annotation(annotation))
    name = task["data"]["session"]
    video = next(v for v in truth.videos if v["name"] == name)
    for region in annotation["result"]:
        results["regions"] += 1
        obj_id = int(region["id"].removeprefix("object-"))
        value = region["value"]
        labels = value.get("brushlabels") or value["labels"]
        results["labels"] += labels == [video["labels"][str(obj_id)]]
        frames = truth.masks[name][obj_id]
        if kind == "image":
            alpha = decode_rle(value["rle"]).reshape(video["height"], video["width"], 4)[..., 3]
            expected = frames[int(task["data"]["frame"])]
            results["exact"] += bool(np.array_equal(alpha > 127, expected))
        else:
            results["exact"] += interpolated(value, video) == {
                frame: box_of(mask) for frame, mask in frames.items()
            }
print(json.dumps(results))
