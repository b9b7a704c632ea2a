"""Settings of the server, on top of those that every command shares; same prefix, same rules."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from edgetam_label.settings import Settings


class ServerSettings(Settings):
    """Field `x` is read from the flag `--x` or `EDGETAM_LABEL_X`. Secrets never print."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(9090, ge=1, le=65535, description="port to listen on")
    threads: int = Field(16, ge=2, le=256, description="requests answered at the same time")

    label_studio_url: str | None = Field(
        None, description="where Label Studio is, as seen from here, such as http://localhost:8080"
    )
    label_studio_api_key: SecretStr | None = Field(
        None, description="personal access token (or legacy token) of Label Studio"
    )

    basic_auth_user: str | None = Field(None, description="user name asked for by every route")
    basic_auth_password: SecretStr | None = Field(None, description="password that goes with it")
    bearer_token: SecretStr | None = Field(None, description="bearer token accepted by every route")
    insecure_public: bool = Field(
        False, description="allow listening on a public address without any credentials"
    )

    predict_deadline: float = Field(
        20.0, gt=0, le=95, description="seconds after which /predict answers with what it has"
    )
    max_track_frames: int = Field(
        100_000, ge=1, description="frames that one job tracks at most in each direction"
    )
    every: int = Field(
        1,
        ge=1,
        le=32,
        description="faster, less exact tracks: the model sees every so many frames, optical flow "
        "moves masks in between",
    )
    keyframe_iou: float = Field(
        0.9, gt=0, lt=1, description="IoU that interpolated boxes keep with the tracked ones"
    )
    polygon_tolerance: float = Field(
        1.0, ge=0, le=100, description="pixels that a polygon may leave the edge of the mask"
    )
    embedding_cache_bytes: int = Field(
        1 << 30, ge=0, description="memory for embeddings of recent images"
    )

    max_jobs: int = Field(8, ge=1, description="tracking jobs that run at the same time")
    max_jobs_per_client: int = Field(
        4, ge=1, description="unfinished jobs that one client may have"
    )
    request_bytes: int = Field(
        64 << 20, ge=1024, description="largest request body that is accepted"
    )

    media_cache_bytes: int = Field(
        20 << 30, ge=0, description="disk space for downloaded media; the oldest goes first"
    )
    max_download_bytes: int = Field(4 << 30, ge=1, description="largest media file downloaded")
    max_pixels: int = Field(
        100_000_000, ge=1, description="largest image or video frame that is decoded"
    )
    download_timeout: float = Field(
        30.0, gt=0, description="seconds without a byte after which a download fails"
    )
    download_retries: int = Field(4, ge=0, le=10, description="retries on 429 and 5xx answers")
    allow_private_networks: bool = Field(
        False, description="also fetch media from private and loopback addresses"
    )
    train_on_start_training: bool = Field(
        False, description="let Label Studio's Start Training begin a fine-tune"
    )
    training_steps: int = Field(
        300, ge=1, description="steps that such a fine-tune takes at most; more on more data"
    )

    @field_validator("label_studio_url")
    @classmethod
    def _http_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give the address with its scheme, such as http://localhost:8080")
        return value.strip().rstrip("/")

    @property
    def media_dir(self) -> Path:
        """Folder of downloaded media."""
        return self.cache_dir / "media"

    @property
    def has_door(self) -> bool:
        """Credentials are asked for."""
        basic = self.basic_auth_user is not None and self.basic_auth_password is not None
        return basic or self.bearer_token is not None
