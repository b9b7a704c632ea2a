"""supervision on COCO and YOLO exports. Arguments: coco|yolo, the export, the truth folder."""

import json
import sys
from pathlib import Path

import numpy as np
import supervision as sv
from truth import Truth

kind, export, folder = sys.argv[1:4]
root, truth = Path(export), Truth(folder)
results = {"images": 0, "masks": 0, "exact": 0, "labels_right": 0, "worst_iou": 1.0}
datasets = []
if kind == "coco":
    annotations = root / "annotations" / "instances_train.json"
    dataset = sv.DetectionDataset.from_coco(
        str(root / "images" / "train"), str(annotations), force_masks=True
    )
    datasets.append((None, dataset))
else:
    for video in truth.videos:  # supervision looks only directly inside the folders
        datasets.append(
            (
                video["name"],
                sv.DetectionDataset.from_yolo(
                    str(root / "images" / "train" / video["name"]),
                    str(root / "labels" / "train" / video["name"]),
                    str(root / "data.yaml"),
                    force_masks=True,
                ),
            )
        )
for only, dataset in datasets:
    for path, _, detections in dataset:
        results["images"] += 1
        name, frame = only or Path(path).parent.name, int(Path(path).stem)
        video = next(v for v in truth.videos if v["name"] == name)
        pool = {o: m[frame] for o, m in truth.masks[name].items() if frame in m}
        assert len(detections) == len(pool), (path, len(detections), len(pool))
        for mask, class_id in zip(detections.mask, detections.class_id, strict=True):
            overlaps = {o: (mask & m).sum() / (mask | m).sum() for o, m in pool.items()}
            best = max(overlaps, key=overlaps.get)
            value = float(overlaps[best])
            results["masks"] += 1
            results["exact"] += bool(np.array_equal(mask, pool[best]))
            results["worst_iou"] = min(results["worst_iou"], value)
            results["labels_right"] += dataset.classes[class_id] == video["labels"][str(best)]
print(json.dumps(results))
