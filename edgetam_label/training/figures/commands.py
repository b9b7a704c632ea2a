"""`edgetam-label cutouts`: pictures of 3-D figures for `train --cutouts`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from edgetam_label.training.figures.arrays import ImageArray


@click.group()
def cutouts() -> None:
    """Draw cut-outs of 3-D figures, for `train --cutouts`."""


def _drawing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                     help="Picture number i is decided by seed + i."),
        click.option("--count", type=click.IntRange(min=1), default=600, show_default=True,
                     help="How many pictures."),
        click.option("--frames", type=click.IntRange(min=1), default=1, show_default=True,
                     help="More than 1 makes animated pictures, in which the figure moves and "
                     "turns; clips of `train` show them moving."),
        click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True,
                     help="Folder for the PNG pictures."),
    ):  # fmt: skip
        command = option(command)
    return command


FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@cutouts.command()
@click.argument("makehuman", type=FOLDER)
@click.argument("assets", type=FOLDER)
@_drawing_options
def people(makehuman: Path, assets: Path, out: Path, count: int, seed: int, frames: int) -> None:
    """Clothed people in all poses, from MakeHuman's models, which are in the public domain (CC0).

    MAKEHUMAN and ASSETS are clones of the repositories makehumancommunity/makehuman and
    makehumancommunity/makehuman-assets; their textures (git-lfs) are not needed.

    \b
    Example:
      edgetam-label cutouts people makehuman makehuman-assets --out people --count 1000
      edgetam-label train --init checkpoints/edgetam_nano.pt --out runs/mine --cutouts people
    """
    from edgetam_label.training.figures.cutout import draw_cutouts
    from edgetam_label.training.figures.makehuman_people import HALF_LENGTH, Wardrobe, random_person
    from edgetam_label.training.figures.mesh_pictures import random_view

    wardrobe = Wardrobe.open(makehuman, assets)
    _draw(
        lambda rng: draw_cutouts(
            partial(random_person, wardrobe), random_view, rng, HALF_LENGTH, frames
        ),
        out,
        "person",
        range(seed, seed + count),
    )


@cutouts.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--shares",
    metavar="NUMBER,...",
    help="How many of the pictures each folder gets, in their order; equal shares by default.",
)
@_drawing_options
def models(
    folders: tuple[Path, ...], shares: str | None, out: Path, count: int, seed: int, frames: int
) -> None:
    """Animals and things from FOLDERS of glTF models (.glb), at any time of their animations.

    What bends between its bones gets a rounded body and a coat; the rest keeps its edges and is
    painted. Compressed models are refused; export them without compression.

    \b
    Example:
      edgetam-label cutouts models animals furniture --shares 3,1 --out pictures
    """
    from edgetam_label.errors import UsageError
    from edgetam_label.training.figures.cutout import draw_cutouts
    from edgetam_label.training.figures.glb_figures import (
        choose_folder,
        random_figure,
        read_folder,
        view_from_above,
    )

    try:
        parts = [float(part) for part in shares.split(",")] if shares else [1.0] * len(folders)
    except ValueError:
        parts = []
    if len(parts) != len(folders) or min(parts) < 0 or sum(parts) <= 0:
        raise UsageError(
            f"--shares {shares} does not fit: {len(folders)} numbers from 0 up are needed, one for "
            "each folder, as in 3,1."
        )
    opened = [read_folder(path, part) for path, part in zip(folders, parts, strict=True)]

    def picture(rng: np.random.Generator) -> list[ImageArray]:
        folder = choose_folder(opened, rng)
        return draw_cutouts(partial(random_figure, folder), view_from_above, rng, frames=frames)

    _draw(picture, out, "figure", range(seed, seed + count))


def _draw(
    picture: Callable[[np.random.Generator], list[ImageArray]], out: Path, name: str, seeds: range
) -> None:
    import cv2
    import numpy as np
    from tqdm import tqdm

    from edgetam_label.training.figures.cutout import write_png

    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    for seed in tqdm(seeds, unit="picture"):
        write_png(out / f"{name}_{seed:06d}.png", picture(np.random.default_rng(seed)))
    click.echo(f"{len(seeds)} pictures in {out}; give it to `edgetam-label train --cutouts`.")
