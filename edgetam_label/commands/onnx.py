"""`edgetam-label onnx`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetam_label.options import json_option, print_json, progress_bar, weights_options
from edgetam_label.settings import Settings

if TYPE_CHECKING:
    from edgetam_label.onnx_check import OnnxCheck
    from edgetam_label.onnx_export import OnnxBundle


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@weights_options
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Track a rendered clip with the files too, and compare its masks with the network's.",
)
@click.option(
    "--opset", type=int, default=18, show_default=True, metavar="N", help="ONNX opset, 17 to 20."
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds an earlier export.")
@json_option
def onnx(
    out: Path,
    model: str | None,
    checkpoint: str | None,
    check: bool,
    opset: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the whole tracking pipeline into the folder OUT as ONNX files.

    With a manifest that says how to call them, and a tracker that needs numpy and onnxruntime only.
    Needs the packages of `pip install 'edgetam-label[onnx]'`.

    \b
    Example:
      edgetam-label onnx edgetam-onnx/
    """
    settings = Settings.load(model=model, checkpoint=checkpoint)
    from edgetam_label.checkpoints import load_model
    from edgetam_label.onnx_export import PACKAGES, export_onnx, require_packages

    require_packages(*(PACKAGES if check else PACKAGES[:1]))
    network = load_model(
        settings.model, settings.checkpoint, "cpu", checkpoint_dir=settings.checkpoint_dir
    )
    checks: list[OnnxCheck] = []

    def compare(bundle: OnnxBundle) -> None:
        from edgetam_label.onnx_check import check_onnx

        if check:
            click.echo("Tracking a clip with the network and with the files ...", err=True)
            checks.append(check_onnx(network, bundle.folder))
            checks[-1].require()

    with progress_bar("Exporting", "graph") as progress:
        bundle = export_onnx(
            network, out, opset=opset, overwrite=overwrite, progress=progress, check=compare
        )
    if as_json:
        print_json(_to_json(bundle, checks[0] if checks else None))
    else:
        _print(bundle, checks[0] if checks else None)


def _to_json(bundle: OnnxBundle, check: OnnxCheck | None) -> dict[str, Any]:
    compared = None if check is None else {**asdict(check), "passed": check.passed}
    return {"out": str(bundle.folder), "files": bundle.files, "check": compared}


def _print(bundle: OnnxBundle, check: OnnxCheck | None) -> None:
    for name, size in bundle.files.items():
        click.echo(f"{size / 1e6:8.2f} MB  {bundle.folder / name}")
    if check is None:
        return
    click.echo(
        f"\nChecked on {check.masks} masks of a rendered clip: {check.pixels_differing} of "
        f"{check.pixels} pixels differ.\nLargest differences: logits {check.low_res_logits:.2g}, "
        f"object score {check.object_score:.2g}, pointer {check.pointer:.2g}, memory "
        f"{check.memory:.2g}."
    )
    if check.visible == 0:
        click.echo(
            "No object was visible to these weights, so the masks were compared only as empty; "
            "weights that are trained make this check a real one."
        )
