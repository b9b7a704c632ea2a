"""Request bodies as Label Studio 1.23.2 sends them, built by hand from what was measured."""

from __future__ import annotations

from typing import Any

LABELS = '<Label value="Cat" background="#FF0000"/><Label value="Dog" background="#0000FF"/>'

IMAGE_CONFIG = f"""<View>
  <Image name="picture" value="$photo" zoom="true"/>
  <BrushLabels name="brush" toName="picture">{LABELS}</BrushLabels>
  <KeyPointLabels name="click" toName="picture" smart="true">{LABELS}</KeyPointLabels>
  <RectangleLabels name="box" toName="picture" smart="true">{LABELS}</RectangleLabels>
</View>"""

VIDEO_CONFIG = f"""<View>
  <Labels name="labels" toName="clip" allowEmpty="true">{LABELS}</Labels>
  <Video name="clip" value="$movie" frameRate="25"/>
  <VideoRectangle name="track" toName="clip" smart="true"/>
</View>"""


def image_config(output: str, prompts: str = "KeyPointLabels RectangleLabels") -> str:
    """A config whose only output is one tag, in any order of the tags."""
    tags = [
        f'<{t} name="p{i}" toName="i" smart="true">{LABELS}</{t}>'
        for i, t in enumerate(prompts.split())
    ]
    out = (
        "" if output in prompts.split() else f'<{output} name="out" toName="i">{LABELS}</{output}>'
    )
    return f"<View>{''.join(tags)}{out}<Image name='i' value='$photo'/></View>"


def click(
    x: float,
    y: float,
    label: str = "Cat",
    positive: bool = True,
    *,
    id: str = "k1",
    from_name: str = "click",
    to_name: str = "picture",
    **extra: Any,
) -> dict[str, Any]:
    return {
        "original_width": 320, "original_height": 240, "image_rotation": 0,
        "value": {"x": x, "y": y, "width": 0.26, "labels": [label], "keypointlabels": [label]},
        "is_positive": positive, "id": id, "from_name": from_name, "to_name": to_name,
        "type": "keypointlabels", "origin": "manual", **extra,
    }  # fmt: skip


def rectangle(
    x: float,
    y: float,
    w: float,
    h: float,
    label: str = "Cat",
    *,
    id: str = "r1",
    rotation: float = 0,
    from_name: str = "box",
    to_name: str = "picture",
    **extra: Any,
) -> dict[str, Any]:
    return {
        "original_width": 320, "original_height": 240, "image_rotation": 0,
        "value": {"x": x, "y": y, "width": w, "height": h, "rotation": rotation,
                  "rectanglelabels": [label]},
        "id": id, "from_name": from_name, "to_name": to_name, "type": "rectanglelabels",
        "origin": "manual", **extra,
    }  # fmt: skip


def keyframe(
    frame: int, x: float, y: float, w: float, h: float, *, fps: float = 25, enabled: bool = True
) -> dict[str, Any]:
    return {"frame": frame, "enabled": enabled, "rotation": 0, "x": x, "y": y, "width": w,
            "height": h, "time": frame / fps}  # fmt: skip


def track(
    sequence: list[dict[str, Any]],
    label: str | None = "Cat",
    *,
    id: str = "t1",
    frames: int = 20,
    fps: float = 25,
    from_name: str = "track",
    to_name: str = "clip",
) -> dict[str, Any]:
    value: dict[str, Any] = {"framesCount": frames, "duration": frames / fps, "sequence": sequence}
    if label is not None:
        value["labels"] = [label]
    return {"value": value, "id": id, "from_name": from_name, "to_name": to_name,
            "type": "videorectangle", "origin": "manual"}  # fmt: skip


def predict_body(
    config: str,
    data: dict[str, Any],
    regions: list[dict[str, Any]] | None,
    *,
    task: int = 1,
    project: int = 1,
    user: str = "ann@example.com",
    **context: Any,
) -> dict[str, Any]:
    """regions: None for a batch call or an opened task."""
    return {
        "tasks": [{
            "id": task, "annotations": [], "file_upload": "x",
            "drafts": [{"id": 1, "user": user, "result": regions or []}],
            "predictions": [], "data": data, "meta": {}, "project": project,
        }],
        "project": f"{project}.1795339990",
        "label_config": config,
        "params": {"login": None, "password": None,
                   "context": None if regions is None else {"result": regions, **context}},
    }  # fmt: skip
