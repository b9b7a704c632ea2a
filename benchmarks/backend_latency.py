"""How long an annotator waits for a click: first, second, and 200 more, over real HTTP.

    python benchmarks/backend_latency.py [--model NAME] [--checkpoint FILE] [--clicks 200]

Starts `edgetam-label serve` beside a small file server that plays Label Studio's uploads, clicks on
a 1080p picture, and takes the model's share from the server's own metrics: the rest is HTTP, JSON,
parsing, and encoding of the mask. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import requests

WIDTH, HEIGHT = 1920, 1080
LABEL = '<Label value="A"/>'


def config(output: str) -> str:
    return (
        f'<View><Image name="i" value="$image"/><{output} name="o" toName="i">{LABEL}</{output}>'
        f'<KeyPointLabels name="k" toName="i" smart="true">{LABEL}</KeyPointLabels></View>'
    )


def scene(path: Path) -> None:
    """Soft ground with a body in the middle, so that masks have the size of an object."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 120, (27, 48, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    cv2.ellipse(image, (960, 540), (330, 210), 20, 0, 360, (40, 90, 230), -1)
    cv2.imwrite(str(path), image)


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def body(name: str, output: str, clicks: list[tuple[float, float]]) -> dict[str, Any]:
    regions = [
        {"id": f"k{i}", "type": "keypointlabels", "from_name": "k", "to_name": "i",
         "is_positive": True, "original_width": WIDTH, "original_height": HEIGHT,
         "value": {"x": x, "y": y, "width": 0.3, "keypointlabels": ["A"]}}
        for i, (x, y) in enumerate(clicks)
    ]  # fmt: skip
    return {
        "tasks": [{"id": 1, "data": {"image": f"/{name}"}, "project": 1}],
        "project": "1.1", "label_config": config(output),
        "params": {"context": {"result": regions}},
    }  # fmt: skip


def steps(url: str) -> dict[str, float]:
    """Seconds spent in each step so far."""
    text = requests.get(url + "/metrics", timeout=10).text
    return {
        name: float(value)
        for name, value in re.findall(r'edgetam_step_seconds_sum\{step="(\w+)"\} (\S+)', text)
    }


def timed(session: requests.Session, url: str, sent: dict[str, Any]) -> float:
    began = time.perf_counter()
    answer = session.post(url + "/predict", json=sent, timeout=300)
    seconds = time.perf_counter() - began
    answer.raise_for_status()
    return seconds


def measure(url: str, clicks: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    session = requests.Session()
    session.trust_env = False
    first = timed(session, url, body("a.png", "BrushLabels", [(50, 50)]))
    first_steps = steps(url)
    second = timed(session, url, body("a.png", "BrushLabels", [(50, 50), (52, 51)]))
    found: dict[str, Any] = {
        "first_click_ms": 1000 * first,
        "first_click_steps_ms": {k: round(1000 * v, 1) for k, v in first_steps.items()},
        "second_click_ms": 1000 * second,
    }
    for output in ("BrushLabels", "BitmaskLabels", "PolygonLabels", "RectangleLabels"):
        before, waits = steps(url), []
        for _ in range(clicks):
            x, y = rng.uniform(40, 60, 2)
            waits.append(timed(session, url, body("a.png", output, [(float(x), float(y))])))
        after = steps(url)
        model = (after["predict"] - before["predict"]) / clicks
        found[output] = {
            "clicks": clicks,
            "mean_ms": 1000 * float(np.mean(waits)),
            "p50_ms": 1000 * float(np.median(waits)),
            "p95_ms": 1000 * float(np.quantile(waits, 0.95)),
            "model_mean_ms": 1000 * model,
            "overhead_mean_ms": 1000 * (float(np.mean(waits)) - model),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="auto")
    parser.add_argument("--checkpoint")
    parser.add_argument("--clicks", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene(folder / "a.png")
        handler = functools.partial(QuietFiles, directory=name)
        files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=files.serve_forever, daemon=True).start()
        port = free_port()
        command = [sys.executable, "-m", "edgetam_label", "serve", "--port", str(port),
                   "--model", args.model, "--db", str(folder / "s.db"),
                   "--cache-dir", os.environ.get("EDGETAM_LABEL_CACHE_DIR", name),
                   "--label-studio-url", f"http://127.0.0.1:{files.server_address[1]}"]  # fmt: skip
        if args.checkpoint:
            command += ["--checkpoint", args.checkpoint]
        began = time.perf_counter()
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            healthy = wait(lambda: requests.get(url + "/health", timeout=1).ok)
            ready = wait(
                lambda: requests.get(url + "/health", timeout=1).json()["model"] == "ready"
            )
            version = requests.get(url + "/versions", timeout=5).json()["versions"][0]
            report = {
                "model": version,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "load_average": round(os.getloadavg()[0], 2),
                "image": f"{WIDTH}x{HEIGHT}",
                "health_answers_s": round(healthy - began, 2),
                "model_ready_s": round(ready - began, 2),
                **measure(url, args.clicks),
            }
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
            files.shutdown()
    print(json.dumps(rounded(report), indent=2))


def wait(true: Any, seconds: float = 300) -> float:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        try:
            if true():
                return time.perf_counter()
        except requests.RequestException:
            pass
        time.sleep(0.05)
    raise SystemExit("the server did not become ready; run edgetam-label serve to see why")


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
