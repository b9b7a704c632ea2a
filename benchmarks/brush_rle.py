"""Brush RLE: our codec beside label-studio-sdk's, on the same masks in one run.

    pip install label-studio-sdk==2.1.2 && python benchmarks/brush_rle.py

Prints one line per mask with the median encode and decode time of both, and exits with 1 if the
bytes differ or an encoder speed-up falls under --at-least.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgetam_label.backend.brush import decode_brush, encode_brush

MASKS = ("blob_1080p", "ragged_1080p", "noise_1080p")


def load_masks() -> Any:
    path = Path(__file__).parent.parent / "tests" / "make_brush_corpus.py"
    spec = importlib.util.spec_from_file_location("make_brush_corpus", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        **module.MASKS,
        "noise_1080p": lambda: module.noise(1080, 1920, 2),
    }


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(name: str, mask: np.ndarray, repeats: int, sdk: Any) -> dict[str, Any]:
    pixels = mask.astype(np.uint8) * 255
    rle = encode_brush(mask)
    slow = 1 if "noise" in name else repeats
    ours = median_seconds(lambda: encode_brush(mask), repeats)
    theirs = median_seconds(lambda: sdk.mask2rle(pixels), slow)
    ours_decode = median_seconds(lambda: decode_brush(rle, *mask.shape), repeats)
    theirs_decode = median_seconds(lambda: sdk.decode_rle(rle), 1)
    return {
        "mask": name,
        "size": [int(mask.shape[1]), int(mask.shape[0])],
        "rle_bytes": len(rle),
        "identical": rle == sdk.mask2rle(pixels),
        "encode_ms": [round(ours * 1e3, 2), round(theirs * 1e3, 2)],
        "encode_speedup": round(theirs / ours, 1),
        "decode_ms": [round(ours_decode * 1e3, 2), round(theirs_decode * 1e3, 2)],
        "decode_speedup": round(theirs_decode / ours_decode, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--at-least", type=float, default=5.0, help="speed-up of encoding to reach")
    parser.add_argument("--json", type=Path, help="also write the results here")
    arguments = parser.parse_args()
    try:
        from label_studio_sdk.converter import brush as sdk
    except ImportError as error:
        print(f"{error}: pip install label-studio-sdk==2.1.2, then run this again", file=sys.stderr)
        return 2
    masks = load_masks()
    results = [measure(name, masks[name](), arguments.repeats, sdk) for name in MASKS]
    for r in results:
        print(
            f"{r['mask']:13} {r['rle_bytes']:>8} bytes  identical {r['identical']!s:5}  "
            f"encode {r['encode_ms'][0]:>8.2f} / {r['encode_ms'][1]:>9.2f} ms = "
            f"{r['encode_speedup']:>5.1f}x  decode {r['decode_ms'][0]:>8.2f} / "
            f"{r['decode_ms'][1]:>9.2f} ms = {r['decode_speedup']:>5.1f}x"
        )
    print(f"ours / label-studio-sdk, {platform.machine()}, Python {platform.python_version()}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    slow = [r for r in results if r["encode_speedup"] < arguments.at_least]
    return 1 if slow or not all(r["identical"] for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
