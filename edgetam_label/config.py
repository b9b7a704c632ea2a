"""Model configurations: a flat TOML file in `configs/` becomes a frozen `ModelConfig`."""

from __future__ import annotations

import hashlib
import math
import tomllib
from dataclasses import MISSING, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgetam_label.errors import ConfigError

MEMORY_DTYPES = ("bfloat16", "float16", "float32")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class ModelConfig:
    """All that the network and the tracker need to know about one model.

    `configs/edgetam.toml` says what each key means. Strides are fixed by the architecture: image
    features at 4, 8 and 16, low-resolution logits at 4.
    """

    name: str
    image_size: int
    trunk_dims: tuple[int, ...]
    trunk_depths: tuple[int, ...]
    d_model: int
    memory_dim: int
    decoder_heads: int
    decoder_mlp_dim: int
    decoder_depth: int
    memory_attention_layers: int
    memory_attention_mlp_dim: int
    fuser_layers: int
    num_maskmem: int
    max_object_pointers: int
    perceiver_depth: int
    perceiver_mlp_ratio: int
    num_latents: int
    num_latents_2d: int
    memory_dtype: str
    fill_hole_area: int
    flow_prompt: bool = False
    refine_edges: bool = False
    clicked_parts: bool = False
    honour_clicks: bool = False
    drawn_prompts: bool = False
    close_ups: bool = False
    flip_test: bool = False
    mask_rating: bool = False
    close_tracks: bool = False
    fuse_flow: bool = False
    learned_fusion: bool = False
    target_model: bool = False
    non_overlap: bool = False
    precision: str = "float32"

    @classmethod
    def load(cls, name_or_path: str | Path) -> ModelConfig:
        """Read a shipped config by name, or any TOML file by path.

        Raises ConfigError naming the file and the key that is missing, unknown or ill-typed.
        """
        path = Path(name_or_path)
        if path.suffix == ".toml":
            name = path.stem
            try:
                text = path.read_text(encoding="utf-8")
            except OSError as error:
                raise ConfigError(
                    f"Model config {path} cannot be read: {error.strerror}."
                ) from None
        else:
            name = str(name_or_path)
            if name not in available_configs():
                raise ConfigError(
                    f"There is no model config {name!r}; known are "
                    f"{', '.join(available_configs())}, or give the path of a .toml file."
                )
            text = (files("edgetam_label.configs") / f"{name}.toml").read_text(encoding="utf-8")
        return cls.parse(text, name=name)

    @classmethod
    def required_keys(cls) -> set[str]:
        """Keys without a default, `name` among them."""
        return {f.name for f in fields(cls) if f.default is MISSING}

    @classmethod
    def parse(cls, text: str, *, name: str) -> ModelConfig:
        """Read TOML text; `name` is how the model is called in sessions and messages."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"Model config {name} is not valid TOML: {error}.") from None
        types = {f.name: str(f.type) for f in fields(cls) if f.name != "name"}
        unknown = sorted(values.keys() - types.keys())
        if unknown:
            raise ConfigError(
                f"Model config {name} has an unknown key {unknown[0]!r}; "
                f"keys are {', '.join(types)}."
            )
        missing = sorted(cls.required_keys() - values.keys() - {"name"})
        if missing:
            raise ConfigError(f"Model config {name} lacks the key {missing[0]!r}; add it.")
        return cls(name=name, **{key: _typed(name, key, values[key], types[key]) for key in values})

    def __post_init__(self) -> None:
        self._require(self.image_size % 32 == 0, "image_size", "a multiple of 32")
        self._require(len(self.trunk_dims) == 4, "trunk_dims", "four numbers")
        self._require(len(self.trunk_depths) == 4, "trunk_depths", "four numbers")
        self._require(self.d_model % 8 == 0, "d_model", "a multiple of 8")
        self._require(self.d_model % self.memory_dim == 0, "memory_dim", "a divisor of d_model")
        self._require(
            self.d_model // 2 % self.decoder_heads == 0, "decoder_heads", "a divisor of d_model / 2"
        )
        side = self.latent_grid
        self._require(
            side * side == self.num_latents_2d and self.feature_size % side == 0,
            "num_latents_2d",
            f"a square whose side divides the feature size {self.feature_size}",
        )
        self._require(
            self.memory_dtype in MEMORY_DTYPES, "memory_dtype", f"one of {', '.join(MEMORY_DTYPES)}"
        )
        self._require(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}")
        shows = self.flow_prompt or not self.target_model
        self._require(shows, "target_model", "false where flow_prompt is, which shows it")
        fuses = self.fuse_flow and self.refine_edges or not self.learned_fusion
        self._require(fuses, "learned_fusion", "false without fuse_flow and refine_edges")
        self._require(self.num_maskmem >= 2, "num_maskmem", "at least 2")

    def _require(self, fits: bool, key: str, wanted: str) -> None:
        if not fits:
            raise ConfigError(
                f"Model config {self.name}: {key} = {getattr(self, key)!r} must be {wanted}."
            )

    def at_size(self, image_size: int) -> ModelConfig:
        """The same network for another input size, which no weight depends on.

        Raises ConfigError with the sizes that can be used.
        """
        step = 16 * math.lcm(2, self.latent_grid)
        if image_size < step or image_size % step:
            near = max(step, round(image_size / step) * step)
            raise ConfigError(
                f"Image size {image_size} does not suit the model {self.name}, which can take "
                f"multiples of {step}; the nearest is {near}."
            )
        return replace(self, image_size=image_size)

    @property
    def feature_size(self) -> int:
        """Side of the stride-16 feature map."""
        return self.image_size // 16

    @property
    def low_res_size(self) -> int:
        """Side of the low-resolution logits, stride 4."""
        return self.image_size // 4

    @property
    def latent_grid(self) -> int:
        """Side of the square grid of 2D latents."""
        return math.isqrt(self.num_latents_2d)

    @property
    def pointer_tokens(self) -> int:
        """Memory tokens that one object pointer is cut into."""
        return self.d_model // self.memory_dim

    @property
    def sha256(self) -> str:
        """Hash of the values, part of a session's model identity.

        A key left at its default does not count: sessions made before it existed stay valid.
        """
        values = [(f, getattr(self, f.name)) for f in fields(self) if f.name != "name"]
        text = repr([(f.name, value) for f, value in values if value != f.default])
        return hashlib.sha256(text.encode()).hexdigest()


def available_configs() -> list[str]:
    """Names of the shipped model configs."""
    names = (entry.name for entry in files("edgetam_label.configs").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def _typed(name: str, key: str, value: Any, kind: str) -> Any:
    if (
        kind == "int"
        and type(value) is int
        and (value > 0 or key == "fill_hole_area" and value == 0)
    ):
        return value
    if kind == "str" and isinstance(value, str) or kind == "bool" and isinstance(value, bool):
        return value
    if kind.startswith("tuple") and isinstance(value, list):
        if value and all(type(v) is int and v > 0 for v in value):
            return tuple(value)
    wanted = {
        "int": "a positive whole number", "str": "a string", "bool": "true or false",
    }.get(kind, "a list of numbers > 0")  # fmt: skip
    raise ConfigError(f"Model config {name}: {key} = {value!r} must be {wanted}.")
