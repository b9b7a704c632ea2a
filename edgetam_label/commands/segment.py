"""`edgetam-label segment`: one object in one image."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetam_label.errors import UsageError
from edgetam_label.options import json_option, model_options, print_json
from edgetam_label.settings import Settings

if TYPE_CHECKING:
    from edgetam_label.masks import RLE
    from edgetam_label.modeling import EdgeTAM
    from edgetam_label.predictor import MaskPrediction
    from edgetam_label.prompts import Prompt


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--click", "clicks", multiple=True, metavar="X,Y[,-]", help="A point; - is outside.")
@click.option("--box", "boxes", multiple=True, metavar="X0,Y0,X1,Y1", help="A box around it.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for NAME.mask.png, NAME.overlay.png and NAME.json.",
)
@click.option("--frame", type=click.IntRange(0), help="Which frame, if IMAGE is a video.")
@click.option("--max-hole-area", type=click.IntRange(0), default=0, help="Fill holes up to this.")
@click.option("--max-speck-area", type=click.IntRange(0), default=0, help="Drop specks up to this.")
@model_options
@json_option
def segment(
    image: Path,
    clicks: tuple[str, ...],
    boxes: tuple[str, ...],
    out: Path,
    frame: int | None,
    max_hole_area: int,
    max_speck_area: int,
    model: str | None,
    checkpoint: str | None,
    device: str | None,
    precision: str | None,
    as_json: bool,
) -> None:
    """Cut one object out of IMAGE: a mask, an overlay and the run lengths.

    Areas are in pixels of the image. With several clicks all belong to the one object.

    \b
    Example:
      edgetam-label segment photo.jpg --click 320,180 --click 40,40,- --out out/
    """
    from edgetam_label.prompt_flags import image_prompt

    prompt = image_prompt(clicks, boxes)
    settings = Settings.load(model=model, checkpoint=checkpoint, device=device, precision=precision)
    pixels, name, frame_idx = _read(image, frame)
    prompt.check_inside(pixels.shape[1], pixels.shape[0])

    from edgetam_label.checkpoints import load_model
    from edgetam_label.masks import RLE
    from edgetam_label.predictor import ImagePredictor

    network = load_model(**settings.model_arguments())
    predictor = ImagePredictor(network)
    prediction = predictor.predict(
        predictor.embed(pixels),
        prompt,
        max_hole_area=max_hole_area,
        max_speck_area=max_speck_area,
    )
    rle = RLE.encode(prediction.best)
    if rle.area == 0:
        click.echo("Note: the model found nothing there; the mask is empty.", err=True)
    files = {kind: out / f"{name}.{kind}.png" for kind in ("mask", "overlay")}
    files["json"] = out / f"{name}.json"
    document = _document(image, frame_idx, prompt, prediction, rle, network)
    document["files"] = {kind: str(path) for kind, path in files.items()}
    _write(files, pixels, prompt, prediction, document)
    if as_json:
        print_json(document)
        return
    for path in files.values():
        click.echo(str(path))


def _read(image: Path, frame: int | None) -> tuple[Any, str, int]:
    """(H, W, 3) RGB, the stem of the output files, the frame's index."""
    from edgetam_label.frames import Frames

    if not image.exists():
        raise UsageError(f"{image} does not exist; give an image or a video file.")
    with Frames.open(image) as frames:
        if frame is None and len(frames) > 1:
            raise UsageError(
                f"{image} has {len(frames)} frames; choose one with --frame 0 to {len(frames) - 1}."
            )
        name = image.stem if frame is None else f"{image.stem}.{frame:05d}"
        return frames[frame or 0], name, frame or 0


def _document(
    image: Path,
    frame_idx: int,
    prompt: Prompt,
    prediction: MaskPrediction,
    rle: RLE,
    network: EdgeTAM,
) -> dict[str, Any]:
    box = prompt.box
    identity = network.identity
    return {
        "image": str(image),
        "frame": frame_idx,
        "height": rle.size[0],
        "width": rle.size[1],
        "clicks": [{"x": c.x, "y": c.y, "positive": c.positive} for c in prompt.clicks],
        "prompt_box": None if box is None else [box.x0, box.y0, box.x1, box.y1],
        "segmentation": rle.to_coco(),
        "area": rle.area,
        "box": None if rle.box is None else list(rle.box),
        "predicted_iou": float(prediction.iou[prediction.best_index]),
        "object_score": prediction.object_score,
        "model": None if identity is None else asdict(identity),
    }


def _write(
    files: dict[str, Path],
    pixels: Any,
    prompt: Prompt,
    prediction: MaskPrediction,
    document: dict[str, Any],
) -> None:
    from edgetam_label.mask_files import write_image, write_mask, write_text
    from edgetam_label.overlay import MaskLayer, OverlayPainter
    from edgetam_label.palette import default_color

    layer = MaskLayer(prediction.best, default_color(1))
    write_mask(files["mask"], prediction.best)
    overlay = OverlayPainter(height=pixels.shape[0]).draw(pixels, [layer], [prompt])
    write_image(files["overlay"], overlay)
    write_text(files["json"], json.dumps(document, indent=2, ensure_ascii=False) + "\n")
