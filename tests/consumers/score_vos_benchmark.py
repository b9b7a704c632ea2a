"""vos-benchmark of YouTube-VOS masks. Arguments: the Annotations folder, truth, work folder."""

import json
import sys
from pathlib import Path

from PIL import Image
from truth import Truth
from vos_benchmark.benchmark import benchmark

annotations, folder, work = sys.argv[1:4]
truth, out = Truth(folder), Path(work)


def main() -> None:
    for video in truth.videos:
        target = out / video["name"]
        target.mkdir(parents=True)
        for frame in range(video["length"]):
            Image.fromarray(truth.flat(video, frame)).save(target / f"{frame:05d}.png")
    j_and_f, j, f, per_object = benchmark(
        [annotations],
        [str(out)],
        num_processes=1,
        verbose=False,
        skip_first_and_last=False,
    )[:4]
    print(json.dumps({"J&F": [float(v) for v in j_and_f], "J": [float(v) for v in j]}))


if __name__ == "__main__":
    main()
