"""TrackEval with the truth as the tracker. Arguments: davis|ytvis|mots, export, truth, work folder,
and for ytvis perhaps a results file to score instead of the truth.

The tracker files are written here from the truth, without any code of the exporter.
"""

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from truth import Truth

warnings.simplefilter("ignore")
import trackeval  # noqa: E402

kind, export, folder, work = sys.argv[1:5]
root, truth, out = Path(export), Truth(folder), Path(work)


def encoded(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


quiet = {"PRINT_CONFIG": False, "TRACKERS_TO_EVAL": ["truth"], "TRACKERS_FOLDER": str(out)}
if kind == "davis":
    for video in truth.videos:
        # DAVIS holds the objects of the first frame only, numbered from 1.
        first = [v for v in np.unique(truth.flat(video, 0)) if v]
        target = out / "truth" / "data" / video["name"]
        target.mkdir(parents=True)
        for frame in range(video["length"]):
            late = {o: m for o, m in truth.masks[video["name"]].items() if o in first}
            ids = np.zeros((video["height"], video["width"]), np.uint8)
            for number, obj_id in enumerate(first, start=1):
                if frame in late[obj_id]:
                    ids[late[obj_id][frame]] = number
            Image.fromarray(ids).save(target / f"{frame:05d}.png")
    dataset = trackeval.datasets.DAVIS({**quiet, "GT_FOLDER": str(root / "Annotations" / "480p")})
    metrics = [trackeval.metrics.JAndF({"PRINT_CONFIG": False})]
elif kind == "ytvis":
    ground = json.loads((root / "train" / "instances.json").read_text())
    category = {c["name"]: c["id"] for c in ground["categories"]}
    number = {v["file_names"][0].split("/")[0]: v["id"] for v in ground["videos"]}
    results = []
    for video in truth.videos:
        for obj_id, frames in truth.masks[video["name"]].items():
            segments = [encoded(frames[t]) if t in frames else None for t in range(video["length"])]
            label = video["labels"][str(obj_id)]
            results.append(
                {
                    "video_id": number[video["name"]],
                    "category_id": category[label],
                    "segmentations": segments,
                    "score": 0.9,
                }
            )
    target = out / "youtube_vis_train" / "truth" / "data"
    target.mkdir(parents=True)
    if len(sys.argv) > 5:  # our own results file against the ground truth
        results = json.loads(Path(sys.argv[5]).read_text())
    (target / "results.json").write_text(json.dumps(results))
    # TrackEval looks for <GT_FOLDER>youtube_vis_<split>, YouTube-VIS itself has <split>.
    (out / "gt_youtube_vis_train").symlink_to(root / "train")
    dataset = trackeval.datasets.YouTubeVIS(
        {
            **quiet,
            "GT_FOLDER": f"{out}/gt_",
            "TRACKERS_FOLDER": f"{out}/",
            "SPLIT_TO_EVAL": "train",
        }
    )
    metrics = [
        trackeval.metrics.TrackMAP(
            {
                "PRINT_CONFIG": False,
                "USE_TIME_RANGES": False,
                "AREA_RANGES": [[0, 128**2], [128**2, 256**2], [256**2, 1e10]],
            }
        ),
        trackeval.metrics.HOTA(),
    ]
else:
    target = out / "MOTS-train" / "truth" / "data"
    target.mkdir(parents=True)
    for video in truth.videos:
        rows = []
        for frame in range(video["length"]):
            ids = truth.flat(video, frame)
            for obj_id in np.unique(ids[ids > 0]):
                rle = encoded(ids == obj_id)
                height, width = rle["size"]
                rows.append(
                    f"{frame + 1} {2000 + int(obj_id)} 2 {height} {width} {rle['counts']}\n"
                )
        (target / f"{video['name']}.txt").write_text("".join(rows))
    dataset = trackeval.datasets.MOTSChallenge({**quiet, "GT_FOLDER": str(root)})
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR({"PRINT_CONFIG": False})]

log = io.StringIO()
with contextlib.redirect_stdout(log):
    evaluator = trackeval.Evaluator(
        {
            "USE_PARALLEL": False,
            "PRINT_CONFIG": False,
            "PRINT_RESULTS": False,
            "OUTPUT_SUMMARY": False,
            "OUTPUT_DETAILED": False,
            "PLOT_CURVES": False,
            "BREAK_ON_ERROR": True,
            "RETURN_ON_ERROR": False,
            "LOG_ON_ERROR": None,
        }
    )
    found, _ = evaluator.evaluate([dataset], metrics)
classes = found[dataset.get_name()]["truth"]["COMBINED_SEQ"]
answer = {}
for class_name, scores in classes.items():
    for metric, fields in scores.items():
        for field, value in fields.items():
            wanted = {"J&F", "J-Mean", "F-Mean", "AP_all", "HOTA", "MOTSA", "MOTA", "CLR_TP"}
            if field in wanted or field == "HOTA(0)":
                answer[f"{class_name}/{metric}/{field}"] = float(np.mean(value))
print(json.dumps({"sequences": len(dataset.seq_list), "scores": answer}))
