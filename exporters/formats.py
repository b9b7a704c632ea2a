"""The registry: every dataset format by name, its module loaded only when it is used.

Adding a format is one module with `export(dataset, writer)` (and, to come back, `read(directory,
options)`) and one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgetam_label.errors import UsageError

if TYPE_CHECKING:
    from .dataset import Dataset, Video
    from .dataset_writer import DatasetWriter
    from .importing import ImportedVideo, ImportOptions

Export = Callable[["Dataset", "DatasetWriter"], None]
Read = Callable[[Path, "ImportOptions"], "Iterator[ImportedVideo]"]


@dataclass(frozen=True)
class Format:
    """One dataset format.

    name: what `--format` takes. title: one line for people. module: sibling module that holds it.
    default_split: the split that everything belongs to without `--split`.
    max_obj_id: highest object id the files can hold, None without a limit.
    id_map: one pixel holds one object, so overlaps must be resolved.
    renumbers: the format numbers objects itself, so high ids do no harm.
    extras: options of `export` that only some formats know.
    reads: whether `import` can read it.
    """

    name: str
    title: str
    module: str
    default_split: str = "train"
    max_obj_id: int | None = None
    id_map: bool = False
    renumbers: bool = False
    extras: frozenset[str] = frozenset()
    reads: bool = False

    def exporter(self) -> Export:
        """The function that writes this format: `export(dataset, writer)`."""
        export: Export = import_module(f".{self.module}", __package__).export
        return export

    def image_path(self) -> Callable[[Video, int], str]:
        """The function that tells where `--images` puts a frame of a video."""
        path_of: Callable[[Video, int], str] = import_module(
            f".{self.module}", __package__
        ).image_path
        return path_of

    def importer(self) -> Read:
        """The generator that reads this format; UsageError for a write-only format."""
        if not self.reads:
            raise UsageError(
                f"Format {self.name!r} can be written but not read back; "
                f"import one of {', '.join(IMPORTERS)}."
            )
        read: Read = import_module(f".{self.module}", __package__).read
        return read


FORMATS = (
    Format(
        "coco",
        "COCO instances and COCO-VID, RLE or polygons",
        "coco",
        extras=frozenset({"polygons"}),
        reads=True,
    ),
    Format("ytvos", "YouTube-VOS", "ytvos", max_obj_id=255, id_map=True, reads=True),
    Format(
        "ytvis",
        "YouTube-VIS 2019/2021, ground truth or results",
        "ytvis",
        extras=frozenset({"results"}),
        reads=True,
    ),
    Format(
        "davis",
        "DAVIS 2017",
        "davis",
        "val",
        max_obj_id=254,
        id_map=True,
        renumbers=True,
        reads=True,
    ),
    Format("mots", "MOTS, txt and 16-bit PNG", "mots", max_obj_id=999, id_map=True, reads=True),
    Format("yoloseg", "YOLO segmentation labels", "yoloseg"),
    Format("masks", "one black-and-white PNG per object and frame", "masks"),
    Format(
        "labelstudio",
        "Label Studio JSON tasks",
        "labelstudio",
        extras=frozenset({"annotations", "media_url"}),
        reads=True,
    ),
    Format("native", "our own JSON lines, lossless", "native", reads=True),
)

EXPORTERS: Mapping[str, Format] = MappingProxyType({entry.name: entry for entry in FORMATS})
IMPORTERS: Mapping[str, Format] = MappingProxyType(
    {entry.name: entry for entry in FORMATS if entry.reads}
)


def find_format(name: str) -> Format:
    """The format called `name`; UsageError that lists the known ones."""
    try:
        return EXPORTERS[name]
    except KeyError:
        raise UsageError(
            f"Unknown format {name!r}; choose one of {', '.join(EXPORTERS)}."
        ) from None
