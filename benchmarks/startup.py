"""Time to the first line of `--help` and to the first answer of the server, from process start.

    .venv/bin/python benchmarks/startup.py [--repeats 3] [--model edgetam_nano]

Processor time stands beside the wall clock: on a busy machine it is the one to trust.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

PROGRAM = [sys.executable, "-m", "edgetam_label"]


def help_seconds() -> tuple[float, float]:
    """(wall, processor) seconds of `edgetam-label --help`."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run([*PROGRAM, "--help"], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def processor_seconds(pid: int) -> float:
    """Of a process and its children so far."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_seconds(child) for child in children)


def serve_seconds(model: str, folder: Path) -> tuple[float, float, str, float]:
    """(wall, processor) seconds to the first answer, the model's state in it, wall until ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [*PROGRAM, "serve", "--port", str(port), "--model", model]
    command += ["--db", str(folder / "sessions.db"), "--cache-dir", str(folder / "cache")]
    begin = time.perf_counter()
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        first: tuple[float, float, str] | None = None
        while time.perf_counter() - begin < 120:
            try:
                answer = requests.get(f"http://127.0.0.1:{port}/health", timeout=5).json()
            except requests.RequestException:
                time.sleep(0.01)
                continue
            wall = time.perf_counter() - begin
            first = first or (wall, processor_seconds(child.pid), str(answer["model"]))
            if answer["model"] == "ready":
                return *first, wall
            time.sleep(0.05)
        raise SystemExit("The server did not get ready within two minutes.")
    finally:
        child.terminate()
        child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="edgetam_nano")
    options = parser.parse_args()
    shown = [help_seconds() for _ in range(options.repeats)]
    wall, used = (statistics.median(column) for column in zip(*shown, strict=True))
    print(f"--help   {wall:5.2f} s, processor {used:5.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        answers = [serve_seconds(options.model, Path(folder)) for _ in range(options.repeats)]
    for name, column in zip(("answer", "processor"), zip(*answers, strict=True), strict=False):
        print(f"/health  {statistics.median(column):5.2f} s until the first {name}")
    ready = statistics.median(answer[3] for answer in answers)
    print(f"model    {answers[0][2]} then, ready after {ready:.2f} s")


if __name__ == "__main__":
    main()
