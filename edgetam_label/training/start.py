"""A training run from its options: model, data, plan, validation, resume."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch

from edgetam_label.config import ModelConfig, available_configs
from edgetam_label.errors import CheckpointError, UsageError, first_line
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.training.clips import ClipSource, MixedClips
from edgetam_label.training.initialisation import new_model
from edgetam_label.training.parallel import Ranks, run_ranks
from edgetam_label.training.plan import TrainingPlan
from edgetam_label.training.saving import save_whole
from edgetam_label.training.synthetic import SyntheticClips
from edgetam_label.training.synthetic_pictures import Pictures
from edgetam_label.training.synthetic_places import Places
from edgetam_label.training.trainer import RESUME_FILE, Trainer, TrainingData
from edgetam_label.training.validation import Validator

# Synthetic clips are made a little longer than they are trained on, so that strides vary.
SYNTHETIC_FRAMES, LONGER = 10, 2


@dataclass(frozen=True)
class TrainingRun:
    """All options of `edgetam-label train`; picklable, as each process starts from it.

    cutouts: folders of pictures with a transparent background, made into things of the scenes.
    backgrounds: folders of photographs and panoramas in which half of the scenes play.
    data: folders in COCO, DAVIS or YouTube-VOS layout, mixed half and half with synthetic clips.
    init: checkpoint to start from. resume: file of an earlier run to go on with.
    held_out: scenes measured now and then (clips: a sixth as many); 0: nothing is measured.
    """

    config: str
    plan: TrainingPlan
    out: Path
    data: tuple[Path, ...] = ()
    cutouts: tuple[Path, ...] = ()
    backgrounds: tuple[Path, ...] = ()
    init: Path | None = None
    resume: Path | None = None
    device: str = "cpu"
    workers: int = 1
    processes: int = 1
    held_out: int = 48

    def start(self) -> None:
        """Train until the plan is done or the run is stopped. Writes `out`/model.pt too."""
        if self.resume is None and (self.out / RESUME_FILE).exists():
            raise UsageError(
                f"{self.out} already holds a run; go on with --resume {self.out / RESUME_FILE}, or "
                "give another --out."
            )
        config = ModelConfig.load(self.config)  # an error comes before any folder is made
        self._data(config)
        run_ranks(self.processes, self)

    def __call__(self, ranks: Ranks) -> None:
        """One process's part."""
        torch.manual_seed(self.plan.seed)
        config = ModelConfig.load(self.config)
        model = new_model(config)
        if self.init is not None:
            load_weights(model, self.init)
        trainer = Trainer(
            model, self.plan, self._data(config), self.out,
            device=self.device, workers=self.workers, validate=self._validator(config), ranks=ranks,
        )  # fmt: skip
        if self.resume is not None:
            trainer.resume(self.resume)
        trainer.run()
        if ranks.is_first:
            place = trainer.place
            write_checkpoint(
                trainer.ema.model, self.out / "model.pt",
                steps=place.total_steps, seconds=round(place.total_seconds, 1),
            )  # fmt: skip

    def _data(self, config: ModelConfig) -> TrainingData:
        seed, size = self.plan.seed, config.image_size
        wide = (size, size * 3 // 2)
        pictures = Pictures(self.cutouts) if self.cutouts else None
        places = Places(self.backgrounds) if self.backgrounds else None
        stills: ClipSource = SyntheticClips(seed, wide, pictures=pictures, places=places)
        longest = max(stage.frames[1] + stage.lead for stage in self.plan.stages)
        frames = max(SYNTHETIC_FRAMES, longest + LONGER)
        clips: ClipSource = SyntheticClips(seed + 1, wide, frames, pictures=pictures, places=places)
        if self.data:
            from edgetam_label.training.folders import open_folder

            sources = [open_folder(path, size) for path in self.data]
            shares = [1.0, *[1.0 / len(sources)] * len(sources)]
            stills = MixedClips((stills, *[s.stills for s in sources]), tuple(shares), seed)
            clips = MixedClips((clips, *[s.clips for s in sources]), tuple(shares), seed)
        return TrainingData(stills, clips)

    def _validator(self, config: ModelConfig) -> Validator | None:
        if self.held_out == 0:
            return None
        wide = (config.image_size, config.image_size * 3 // 2)
        return Validator(
            SyntheticClips(900_001, wide, texture_family="heldout"),
            SyntheticClips(900_002, wide, 8, texture_family="heldout"),
            config.image_size,
            self.out,
            num_stills=-(-self.held_out // 8) * 8,
            num_clips=max(1, self.held_out // 6),
        )


def load_weights(model: EdgeTAM, path: Path) -> None:
    """Weights of a checkpoint, or of a resume file's average. Raises CheckpointError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = dict(state.get("ema") or state["model"])
        weights.pop("updates", None)
        model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True)
    except (
        OSError, EOFError, UnpicklingError, KeyError, RuntimeError, AttributeError
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"Cannot start from {path}: {first_line(error)}. Give a checkpoint of the config "
            f"{model.config.name}."
        ) from error


def write_checkpoint(model: EdgeTAM, path: Path, *, half: bool = True, **meta: str | float) -> None:
    """Write {"model", "config", "meta"} as `load_model` reads it, whole or not at all.

    config: its name, where that is all there is to say.
    """
    weights = {
        k: v.detach().cpu().half() if half and v.is_floating_point() else v.detach().cpu()
        for k, v in model.state_dict().items()
    }
    config = model.config
    shipped = config.name in available_configs() and ModelConfig.load(config.name) == config
    kept = config.name if shipped else asdict(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_whole({"model": weights, "config": kept, "meta": dict(meta)}, path)
