"""The training loop: stages, schedule, one resume file, logs, a clean stop at any moment."""

from __future__ import annotations

import csv
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from edgetam_label.errors import CheckpointError, EdgeTAMLabelError, first_line
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.training.clip_step import clip_loss
from edgetam_label.training.clips import ClipSource
from edgetam_label.training.ema import Ema
from edgetam_label.training.fast_convolutions import use_products
from edgetam_label.training.mixed_precision import attention_kernel, autocast
from edgetam_label.training.muon import Muon, MuonAndAdamW, is_matrix
from edgetam_label.training.parallel import Ranks
from edgetam_label.training.plan import Stage, TrainingPlan
from edgetam_label.training.poor_footage import POOR_SHARE
from edgetam_label.training.samples import (
    Batch,
    ConsecutiveBatches,
    SampleSpec,
    SampleStream,
    collate,
)
from edgetam_label.training.saving import save_whole
from edgetam_label.training.still_step import StepResult, still_loss

RESUME_FILE = "resume.pt"
LOG_FILE = "log.csv"
MAX_BAD_STEPS = 50


@dataclass(frozen=True)
class TrainingData:
    """Where stills and clips come from; the same source may serve both."""

    stills: ClipSource
    clips: ClipSource


@dataclass
class Place:
    """Where a run stands: stage, steps and seconds spent in it, steps in all."""

    stage: int = 0
    step: int = 0
    seconds: float = 0.0
    total_steps: int = 0
    total_seconds: float = 0.0


Validate = Callable[[EdgeTAM, int], dict[str, float]]


class Trainer:
    """Trains `model` after `plan`; everything that it writes goes into `out`.

    out/resume.pt holds model, EMA, optimizer, place and random state: with the same plan, data and
    machine the run goes on as if it had never stopped. out/log.csv has one line per 20 steps.
    validate: (ema model, total steps) -> numbers to log; may also write pictures into `out`.
    """

    def __init__(
        self,
        model: EdgeTAM,
        plan: TrainingPlan,
        data: TrainingData,
        out: Path,
        *,
        device: str = "cpu",
        workers: int = 1,
        validate: Validate | None = None,
        ranks: Ranks | None = None,
        show_progress: bool = True,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.ranks = ranks or Ranks()
        self.plan, self.data, self.out = plan, data, out
        self.device, self.workers, self.validate = torch.device(device), workers, validate
        # torch declares no such overload of Module.to, though its documentation shows it
        self.model: EdgeTAM = model.to(  # type: ignore[call-overload]
            self.device, memory_format=torch.channels_last
        )
        if self.device.type == "cpu":
            use_products(self.model)
        self.ema = Ema(self.model, plan.ema_decay)
        self.optimizer = make_optimizer(self.model, plan.weight_decay, self.ranks)
        self.place = Place()
        self.show_progress = show_progress and self.ranks.is_first
        self._stop_wanted, self._stop = False, False
        self._bad_steps = 0
        out.mkdir(parents=True, exist_ok=True)

    # -- the resume file ---------------------------------------------------------------------------

    def save(self) -> Path:
        """Write out/resume.pt, whole or not at all. Raises EdgeTAMLabelError if it cannot be."""
        path = self.out / RESUME_FILE
        if not self.ranks.is_first:
            return path
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "place": vars(self.place),
            "torch_rng": torch.get_rng_state(),
        }
        save_whole(state, path)
        return path

    def resume(self, path: Path) -> None:
        """Go on from a file that `save` wrote. Raises CheckpointError."""
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.place = Place(**state["place"])
            torch.set_rng_state(state["torch_rng"].cpu())
        except (OSError, EOFError, UnpicklingError, KeyError, TypeError, RuntimeError,
                ValueError) as error:  # fmt: skip
            raise CheckpointError(
                f"Cannot resume from {path}: {first_line(error)}. Give the {RESUME_FILE} of a run "
                "with the same --config, or start from a checkpoint with --init."
            ) from error

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> bool:
        """Train to the end of the plan (True) or until SIGTERM or Ctrl-C (False); both save."""
        with self._signals():
            while self.place.stage < len(self.plan.stages) and not self._stop:
                self._run_stage(self.plan.stages[self.place.stage])
                if not self._stop:
                    self.place.stage += 1
                    self.place.step, self.place.seconds = 0, 0.0
                    self.save()
            self.save()
        return not self._stop

    def _run_stage(self, stage: Stage) -> None:
        self.model.train()
        size = stage.image_size(self.model.config.image_size)
        # points are given in pixels of this size, and the decoder's grid follows it
        self.model.sam_prompt_encoder.image_size = size
        batches = _StageBatches(self, stage, size)
        place, last_save = self.place, time.monotonic()
        last_validation = place.seconds
        bar = tqdm(
            desc=stage.kind, initial=place.step, total=stage.steps or None,
            disable=not self.show_progress, mininterval=5, unit="step",
        )  # fmt: skip
        history: list[dict[str, float]] = []
        while stage.progress(place.step, place.seconds) < 1.0 and not self._stop:
            started = time.monotonic()
            rate = stage.learning_rate(place.step, place.seconds)
            metrics, spent = self._step(batches.next(), stage, rate, started)
            place.step, place.total_steps = place.step + 1, place.total_steps + 1
            place.seconds, place.total_seconds = place.seconds + spent, place.total_seconds + spent
            history.append({**metrics, "rate": rate, "step_s": spent})
            bar.update()
            if place.total_steps % 20 == 0:
                bar.set_postfix(self._log(stage, history), refresh=False)
                history.clear()
            if time.monotonic() - last_save > self.plan.save_every_s:
                self.save()
                last_save = time.monotonic()
            if place.seconds - last_validation > self.plan.validate_every_s:
                self._validate(stage)
                last_validation = place.seconds
        bar.close()
        if not self._stop:
            self._validate(stage)

    def _step(
        self, batch: Batch, stage: Stage, rate: float, started: float
    ) -> tuple[dict[str, float], float]:
        """One update; its metrics and the seconds since `started`, the same in all processes."""
        rng = np.random.default_rng(
            [self.plan.seed, self.place.stage, self.place.step, self.ranks.rank]
        )
        of_clips = batch.frames.shape[1] > 1
        lead = 0
        if of_clips and stage.lead:  # the same in all processes, since they wait for each other
            common = np.random.default_rng([self.plan.seed, self.place.stage, self.place.step])
            lead = int(common.integers(0, stage.lead + 1))
            batch = batch.first(batch.frames.shape[1] - stage.lead + lead)
        batch = batch.to(self.device)
        set_batch_statistics(self.model, live=not of_clips)
        with autocast(self.device), attention_kernel(self.device):
            result: StepResult = (
                clip_loss(self.model, batch, rng, self.plan.weights, lead)
                if of_clips
                else still_loss(self.model, batch, rng, self.plan.weights)
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (stage.trunk if group["trunk"] else 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        facts = torch.tensor([float(self._stop_wanted), time.monotonic() - started])
        stop, spent = self.ranks.average_gradients(self.model, facts).tolist()
        self._stop = stop > 0
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_gradient)
        if torch.isfinite(norm):
            self._bad_steps = 0
            self.optimizer.step()
            if not of_clips:
                self.ranks.average_buffers(self.model)
            self.ema.update(self.model)
        else:
            self._bad_steps += 1
            if self._bad_steps > MAX_BAD_STEPS:
                raise EdgeTAMLabelError(
                    f"The gradient was not finite in {MAX_BAD_STEPS} steps in a row; resume with a "
                    f"smaller --rate than {rate:g}."
                )
        loss = float(result.loss.detach())
        return {"loss": loss, "gradient": float(norm), **result.metrics}, spent

    def _validate(self, stage: Stage) -> None:
        if self.validate is None or not self.ranks.is_first:
            return self.ranks.wait()
        metrics = self.validate(self.ema.model, self.place.total_steps)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        tqdm.write(
            f"step {self.place.total_steps}, {self.place.total_seconds / 60:.1f} min: {shown}"
        )
        self._write_log({"stage": stage.kind, "kind": "held out", **metrics})
        self.ranks.wait()

    def _log(self, stage: Stage, history: list[dict[str, float]]) -> dict[str, float]:
        names = dict.fromkeys(name for row in history for name in row)
        means = {n: float(np.mean([row[n] for row in history if n in row])) for n in names}
        self._write_log({"stage": stage.kind, "kind": "train", **means})
        return {
            n: round(v, 4) for n, v in means.items() if n in ("loss", "iou", "best_iou", "clip_iou")
        }

    def _write_log(self, row: dict[str, float | str]) -> None:
        """One line: known columns first, the remaining numbers as name=value pairs."""
        if not self.ranks.is_first:
            return
        path = self.out / LOG_FILE
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "seconds", "stage", "kind", "values"])
            stage, kind = row.pop("stage"), row.pop("kind")
            values = " ".join(f"{k}={v:.5g}" for k, v in row.items())
            writer.writerow(
                [self.place.total_steps, round(self.place.total_seconds, 1), stage, kind, values]
            )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the loop after the current step."""

        def stop(signum: int, frame: FrameType | None) -> None:
            self._stop_wanted = True

        before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


class _StageBatches:
    """The batches of one stage from its current step on; stills are mixed in where it says so."""

    def __init__(self, trainer: Trainer, stage: Stage, size: int) -> None:
        self.trainer, self.stage, self.size = trainer, stage, size
        self._loaders: dict[int, Iterator[Batch]] = {}

    def next(self) -> Batch:
        place, stage = self.trainer.place, self.stage
        stills_before = int(place.step * stage.still_share)
        is_still = (
            stage.kind == "stills" or int((place.step + 1) * stage.still_share) > stills_before
        )
        if is_still:
            start = place.step if stage.kind == "stills" else stills_before
            return next(self._loader(1, start))
        length = stage.clip_length(place.step, place.seconds) + stage.lead
        for old in [n for n in self._loaders if n not in (1, length)]:
            del self._loaders[old]
        return next(self._loader(length, place.step - stills_before))

    def _loader(self, frames: int, start: int) -> Iterator[Batch]:
        if frames not in self._loaders:
            stage, plan, data = self.stage, self.trainer.plan, self.trainer.data
            spec = (
                still_spec(self.size, stage.part_share)
                if frames == 1
                else clip_spec(
                    self.size, frames, stage.objects, self.trainer.model.config.close_tracks
                )
            )
            ranks = self.trainer.ranks
            source = data.stills if frames == 1 else data.clips
            seed = plan.seed * 1000 + self.trainer.place.stage * 100 + (frames > 1)
            batch = (
                stage.batch
                if stage.kind == "clips" and frames > 1
                else stage.batch * (1 if stage.kind == "stills" else 2)
            )
            loader = DataLoader(
                SampleStream(source, spec, seed),
                batch_sampler=ConsecutiveBatches(start, batch, ranks.rank, ranks.size),
                collate_fn=collate,
                num_workers=self.trainer.workers,
                prefetch_factor=4 if self.trainer.workers else None,
                worker_init_fn=_start_worker,
            )
            self._loaders[frames] = iter(loader)
        return self._loaders[frames]


def still_spec(size: int, part_share: float) -> SampleSpec:
    # close-ups: small objects are looked at through windows like these
    return SampleSpec(size, part_share=part_share, closest=0.32, poor_share=POOR_SHARE, reuse=5)


def clip_spec(size: int, frames: int, objects: int, follows: bool) -> SampleSpec:
    """follows: for a model that tracks through crops."""
    return SampleSpec(
        size, frames, objects, click_share=0.5, part_share=0.05, reuse=3, window=64,
        follow_share=0.6 if follows else 0.0, poor_share=POOR_SHARE,
    )  # fmt: skip


def make_optimizer(
    model: nn.Module, weight_decay: float, ranks: Ranks | None = None
) -> MuonAndAdamW:
    """Muon on matrices, AdamW on the rest; no decay on biases, norms and embeddings, as is usual.

    Groups of the trunk are marked, since stages give it a learning rate of its own.
    """
    kinds: dict[tuple[str, bool], list[nn.Parameter]] = defaultdict(list)
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if parameter.requires_grad:
                matrix = is_matrix(module, name.rpartition(".")[2], parameter)
                kind = "muon" if matrix else "decayed" if parameter.ndim >= 2 else "plain"
                kinds[kind, name.startswith("image_encoder.trunk")].append(parameter)
    groups = {
        key: {
            "params": parameters,
            "weight_decay": 0.0 if key[0] == "plain" else weight_decay,
            "trunk": key[1],
        }
        for key, parameters in kinds.items()
    }
    return MuonAndAdamW(
        Muon((group for (kind, _), group in groups.items() if kind == "muon"), ranks=ranks),
        torch.optim.AdamW(
            [group for (kind, _), group in groups.items() if kind != "muon"],
            lr=1e-3, betas=(0.9, 0.98), foreach=True,
        ),
    )  # fmt: skip


def set_batch_statistics(model: nn.Module, *, live: bool) -> None:
    """Whether batch norm measures its batches, as on stills, or uses its running statistics.

    A clip's frames are too alike to be measured. But a long run without any live step lets the deep
    layers fade: weights shrink, frozen statistics do not follow, and every layer passes on less.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(live)


def _start_worker(worker_id: int) -> None:
    """A loader process leaves being stopped to its parent and takes one thread.

    A terminal and a service manager tell the whole process group; its parent still wants batches
    for the step that it is in, and ends it after that.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
