"""label-studio-sdk as the oracle of brush masks and of interpolated keyframes.

label_studio_codecs.py brush FILE      {name: {"height", "width", "rle"}} -> what the SDK reads
label_studio_codecs.py keyframes FILE  [value of a videorectangle] -> all its frames
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import extract_key_frames
from label_studio_sdk.converter.brush import decode_rle, mask2rle


def brush(entries: dict) -> dict:
    """By name: the mask that the SDK decodes, as text of 0 and 1, and its own encoding of that."""
    answer = {}
    for name, entry in entries.items():
        values = np.asarray(decode_rle(entry["rle"]), dtype=np.uint8)
        alpha = values.reshape(entry["height"], entry["width"], 4)[:, :, 3]
        rows = ["".join("1" if v else "0" for v in row) for row in alpha]
        answer[name] = {"rows": rows, "rle": [int(v) for v in mask2rle(alpha)]}
    return answer


def keyframes(values: list) -> list:
    """For each value the sequence that Label Studio's interpolating export writes."""
    answer = []
    for value in values:
        filled = extract_key_frames([{"type": "videorectangle", "value": value}])
        answer.append([row for result in filled for row in result["value"]["sequence"]])
    return answer


if __name__ == "__main__":
    call = {"brush": brush, "keyframes": keyframes}[sys.argv[1]]
    print(json.dumps(call(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))))
