"""pycocotools and COCOeval on a COCO export. Arguments: the JSON file, the truth folder."""

import contextlib
import copy
import io
import json
import sys

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from truth import Truth

path, folder = sys.argv[1:3]
truth = Truth(folder)
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(path)
    names = {video["id"]: video["name"] for video in coco.dataset["videos"]}
    labels = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    by_place = {(names[i["video_id"]], i["frame_id"]): i["id"] for i in coco.dataset["images"]}
    wrong = matched = 0
    for annotation in coco.loadAnns(coco.getAnnIds()):
        image = coco.imgs[annotation["image_id"]]
        video = names[image["video_id"]]
        expected = truth.masks[video][annotation["track_id"]].get(image["frame_id"])
        found = coco.annToMask(annotation).astype(bool)
        ys, xs = np.nonzero(found)
        box = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
        label = next(v["labels"] for v in truth.videos if v["name"] == video)
        good = (
            expected is not None
            and found.shape == expected.shape
            and bool((found == expected).all())
            and annotation["area"] == expected.sum()
            and annotation["bbox"] == box
            and labels[annotation["category_id"]] == label[str(annotation["track_id"])]
        )
        matched += good
        wrong += not good
    detections = []
    for video in truth.videos:
        for obj_id, frames in truth.masks[video["name"]].items():
            for frame, mask in frames.items():
                rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
                label = video["labels"][str(obj_id)]
                detections.append(
                    {
                        "image_id": by_place[video["name"], frame],
                        "category_id": next(k for k, v in labels.items() if v == label),
                        "segmentation": {**rle, "counts": rle["counts"].decode()},
                        "score": 0.9,
                    }
                )
    scores = {}
    for kind in ("segm", "bbox"):
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(detections)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        scores[kind] = {"AP": float(evaluation.stats[0]), "AR": float(evaluation.stats[8])}
print(json.dumps({"matched": matched, "wrong": wrong, "expected": len(detections), **scores}))
