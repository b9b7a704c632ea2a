"""datumaro on a COCO or YOLO export. Arguments: format, the export, the truth folder."""

import json
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import datumaro as dm  # noqa: E402
from truth import Truth  # noqa: E402

kind, export, folder = sys.argv[1:4]
truth = Truth(folder)
dataset = dm.Dataset.import_from(export, kind)
names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
results = {"items": 0, "masks": 0, "exact": 0, "labels_right": 0}
for item in dataset:
    results["items"] += 1
    video_name, _, stem = item.id.rpartition("/")
    video = next(v for v in truth.videos if v["name"] == video_name)
    for annotation in item.annotations:
        if annotation.type != dm.AnnotationType.mask:
            continue
        results["masks"] += 1
        obj_id = int(annotation.attributes["track_id"])
        expected = truth.masks[video_name][obj_id].get(int(stem))
        results["exact"] += expected is not None and bool(
            np.array_equal(np.asarray(annotation.image, bool), expected)
        )
        results["labels_right"] += names[annotation.label] == video["labels"][str(obj_id)]
print(json.dumps(results))
