"""A model at work on many synthetic scenes, in several processes: what its helpers learn from."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.random import Generator

from edgetam_label.checkpoints import load_model
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.fused import fuse
from edgetam_label.training.clips import Clip
from edgetam_label.training.synthetic import SyntheticClips

R = TypeVar("R")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SceneWork(Generic[R]):
    """`work`, picklable, on all scenes of `sources` by the model `base`, `chunk` scenes at a time.

    Each scene's random numbers come from its source's seed, the source's number and its own, so the
    results are the same whatever the number of processes.
    """

    base: str
    sources: Sequence[SyntheticClips]
    work: Callable[[EdgeTAM, Clip, Generator], R]
    chunk: int = 8

    def results(self, processes: int, progress: Progress | None) -> list[list[R]]:
        """Of every source, what came of its scenes, in their order.

        progress: called with scenes done and their number.
        """
        tasks = [
            (number, range(start, min(start + self.chunk, len(source))))
            for number, source in enumerate(self.sources)
            for start in range(0, len(source), self.chunk)
        ]
        found: list[list[R]] = [[] for _ in self.sources]
        total, done = sum(len(source) for source in self.sources), 0
        for (number, scenes), parts in zip(tasks, self._made(tasks, processes), strict=True):
            found[number].extend(parts)
            done += len(scenes)
            if progress is not None:
                progress(done, total)
        return found

    def _made(self, tasks: list[tuple[int, range]], processes: int) -> Iterator[list[R]]:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _begin, (self,)) as pool:
            try:
                yield from pool.map(_do, tasks)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


_ours: tuple[SceneWork[Any], EdgeTAM] | None = None


def _begin(ours: SceneWork[Any]) -> None:
    global _ours
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who waits for them
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    _ours = ours, fuse(load_model(ours.base, device="cpu"))


def _do(task: tuple[int, range]) -> list[Any]:
    assert _ours is not None
    (ours, model), (number, scenes) = _ours, task
    source = ours.sources[number]
    return [
        ours.work(model, source[index], np.random.default_rng([source.seed, number, index]))
        for index in scenes
    ]
