"""J and F of predictions by vos-benchmark and TrackEval, which know nothing of our code.

Arguments: folder of true masks, folder of predictions, both <video>/<frame>.png of object ids.
The first and the last frame are left out, as DAVIS-2017 does.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

warnings.simplefilter("ignore")
import trackeval  # noqa: E402
from vos_benchmark.evaluator import Evaluator  # noqa: E402

truth, ours = Path(sys.argv[1]), Path(sys.argv[2])


def ids(path):
    return np.array(Image.open(path))


def by_vos_benchmark(frames, found):
    evaluator = Evaluator()
    for true, predicted in zip(frames, found, strict=True):
        evaluator.feed_frame(predicted, true)
    j, f = evaluator.conclude()
    return {str(k): [float(j[k]) / 100, float(f[k]) / 100] for k in j}


def by_trackeval(frames, found):
    """Means over objects that are there throughout; TrackEval matches them by itself."""
    objects = sorted(set(np.unique(frames[0])) - {0})

    def encoded(image):
        return [coco_mask.encode(np.asfortranarray(image == k, np.uint8)) for k in objects]

    numbers = [np.arange(len(objects))] * len(frames)
    scores = trackeval.metrics.JAndF({"PRINT_CONFIG": False}).eval_sequence(
        {
            "num_timesteps": len(frames),
            "num_tracker_ids": len(objects),
            "num_gt_ids": len(objects),
            "gt_dets": [encoded(image) for image in frames],
            "tracker_dets": [encoded(image) for image in found],
            "gt_ids": numbers,
            "tracker_ids": numbers,
        }
    )
    return {name: float(np.mean(scores[name])) for name in ("J-Mean", "F-Mean", "J&F")}


answer = {}
for folder in sorted(p for p in truth.iterdir() if p.is_dir()):
    names = sorted(p.name for p in folder.glob("*.png"))[1:-1]
    true = [ids(folder / name) for name in names]
    predicted = [ids(ours / folder.name / name) for name in names]
    answer[folder.name] = {"vos-benchmark": by_vos_benchmark(true, predicted)}
    if len({tuple(np.unique(image)) for image in true}) == 1:
        answer[folder.name]["trackeval"] = by_trackeval(true, predicted)
print(json.dumps(answer))
