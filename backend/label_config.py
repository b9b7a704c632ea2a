"""A Label Studio labelling config, parsed once per version: object tags, control tags, problems.

Tags are found by tag name and `toName`, media by `value="$key"`; no tag name is hard-coded.
This module is pure: it knows neither HTTP nor the model.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from .faults import ConfigProblem, RequestError

MAX_CONFIG_CHARS = 1_000_000
DEFAULT_FRAME_RATE = 24.0  # Label Studio's own default for <Video frameRate>

# Tags that can carry a prompt, and the tags a mask can come back in, the best fit first.
PROMPT_TAGS = ("KeyPointLabels", "KeyPoint", "RectangleLabels", "Rectangle")
SMART_TAGS = ("KeyPointLabels", "RectangleLabels")
OUTPUT_TAGS = (
    "BrushLabels",
    "Brush",
    "BitmaskLabels",
    "Bitmask",
    "PolygonLabels",
    "Polygon",
    "RectangleLabels",
    "Rectangle",
    "EllipseLabels",
    "Ellipse",
)
VIDEO_TAGS = ("VideoRectangle",)
_ALL_CONTROLS = frozenset(PROMPT_TAGS + OUTPUT_TAGS + VIDEO_TAGS + ("Labels",))
_BY_LOWER = {tag.lower(): tag for tag in _ALL_CONTROLS}


@dataclass(frozen=True)
class ObjectTag:
    """<Image> or <Video>.

    value: the attribute as written, `$key` or a literal URL. is_list: it came from `valueList`.
    frame_rate: the attribute as written (a number or `$key`); None if absent.
    """

    name: str
    kind: str  # "image" | "video"
    value: str
    is_list: bool = False
    frame_rate: str | None = None

    def media(self, data: Mapping[str, Any], item_index: int = 0) -> str:
        """The media URL of a task. Raises RequestError if the task data does not hold it."""
        if not self.value.startswith("$"):
            return self.value
        key = self.value[1:]
        found = data.get(key)
        if isinstance(found, list) and (self.is_list or len(found) == 1):
            if not 0 <= item_index < len(found):
                raise RequestError(
                    f"The task lists {len(found)} images under {key!r}; "
                    f"there is no number {item_index}."
                )
            found = found[item_index]
        if not isinstance(found, str) or not found:
            known = ", ".join(sorted(str(k) for k in data)) or "nothing"
            raise RequestError(
                f"The task has no {key!r}, which <{self.kind.title()} "
                f'name="{self.name}" value="{self.value}"> asks for; the task data holds: {known}.'
            )
        return found

    def frames_per_second(self, data: Mapping[str, Any]) -> float:
        """The frame rate that the editor counts frames with; 24 where it is absent or unusable."""
        raw: Any = self.frame_rate
        if isinstance(raw, str) and raw.startswith("$"):
            raw = data.get(raw[1:])
        try:
            rate = float(raw)
        except (TypeError, ValueError):
            return DEFAULT_FRAME_RATE
        return rate if math.isfinite(rate) and 0 < rate <= 1000 else DEFAULT_FRAME_RATE


@dataclass(frozen=True)
class ControlTag:
    """A tag that regions belong to. labels: empty where they are dynamic or come from <Labels>."""

    name: str
    tag: str
    to_name: str
    labels: tuple[str, ...] = ()
    colors: tuple[str | None, ...] = ()
    smart: bool = False
    allow_empty: bool = False

    def accepts(self, label: str | None) -> bool:
        return label is None or not self.labels or label in self.labels


@dataclass(frozen=True)
class Problem:
    """fatal: nothing can work until it is cured; otherwise a hint."""

    sentence: str
    fatal: bool = True


@dataclass(frozen=True)
class LabelConfig:
    objects: tuple[ObjectTag, ...]
    controls: tuple[ControlTag, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def parse(cls, xml: str) -> LabelConfig:
        """Raises RequestError if `xml` is not well-formed XML without entities."""
        root = _root(xml)
        objects = tuple(_objects(root))
        names = {tag.name for tag in objects}
        controls = tuple(c for c in _controls(root) if c.to_name in names)
        bare = cls(objects, controls)
        return cls(objects, controls, tuple(_problems(bare)))

    @property
    def fatal(self) -> str | None:
        """The sentence of the first problem that stops everything, None if there is none."""
        return next((p.sentence for p in self.problems if p.fatal), None)

    def object(self, name: str) -> ObjectTag | None:
        return next((tag for tag in self.objects if tag.name == name), None)

    def control(self, name: str) -> ControlTag | None:
        return next((tag for tag in self.controls if tag.name == name), None)

    def first(self, kind: str) -> ObjectTag | None:
        return next((tag for tag in self.objects if tag.kind == kind), None)

    def controls_of(self, object_name: str, tags: tuple[str, ...]) -> list[ControlTag]:
        """Controls of these tags on this object, in the order of `tags`, then of the document."""
        return [
            c for tag in tags for c in self.controls if c.tag == tag and c.to_name == object_name
        ]

    def labels_of(self, object_name: str) -> tuple[str, ...]:
        """Labels of the <Labels> tags of an object, for controls that carry none themselves."""
        return tuple(v for c in self.controls_of(object_name, ("Labels",)) for v in c.labels)

    def color(self, label: str) -> str | None:
        """The `background` of a label, as written in the config."""
        for control in self.controls:
            for value, color in zip(control.labels, control.colors, strict=True):
                if value == label and color:
                    return color
        return None

    def output_for(
        self, object_name: str, label: str | None, wanted: str | None = None
    ) -> ControlTag:
        """The control that a mask with this label comes back in.

        wanted: a tag such as "PolygonLabels" to prefer where the config has several.
        Raises ConfigProblem, naming the tag or label to add.
        """
        outputs = self.controls_of(object_name, OUTPUT_TAGS)
        # a smart rectangle is there to prompt with: it takes the answer only if nothing else does
        outputs.sort(key=lambda c: c.smart and c.tag in PROMPT_TAGS)
        if not outputs:
            raise ConfigProblem(_no_output(object_name))
        fitting = [c for c in outputs if c.accepts(label)]
        if not fitting:
            first = outputs[0]
            raise ConfigProblem(
                f"No output tag has the label {label!r}; add "
                f'<Label value="{label}"/> to <{first.tag} name="{first.name}">.'
            )
        return next((c for c in fitting if c.tag == wanted), fitting[0])


class LabelConfigCache:
    """The most recent label configs by their text; thread-safe."""

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._parsed: OrderedDict[str, LabelConfig] = OrderedDict()

    def get(self, xml: str) -> LabelConfig:
        with self._lock:
            if xml in self._parsed:
                self._parsed.move_to_end(xml)
                return self._parsed[xml]
        parsed = LabelConfig.parse(xml)
        with self._lock:
            self._parsed[xml] = parsed
            while len(self._parsed) > self._size:
                self._parsed.popitem(last=False)
        return parsed


def _root(xml: str) -> Element:
    if len(xml) > MAX_CONFIG_CHARS:
        raise RequestError(
            f"The label config has {len(xml)} characters; at most {MAX_CONFIG_CHARS} are read."
        )
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except ParseError as error:
        raise RequestError(f"The label config is not well-formed XML: {error}.") from None
    except (DefusedXmlException, ValueError) as error:
        raise RequestError(
            f"The label config is refused ({type(error).__name__}): it may hold no DTD or entities."
        ) from None
    return root


def _objects(root: Element) -> Iterator[ObjectTag]:
    for element in root.iter():
        kind = {"image": "image", "video": "video"}.get(str(element.tag).lower())
        name = element.get("name")
        value = element.get("value") or element.get("valueList")
        if kind and name and value:
            rate = element.get("frameRate") or element.get("framerate") or element.get("fps")
            yield ObjectTag(name, kind, value, not element.get("value"), rate)


def _controls(root: Element) -> Iterator[ControlTag]:
    for element in root.iter():
        tag = _BY_LOWER.get(str(element.tag).lower())
        name, to_name = element.get("name"), element.get("toName")
        if tag is None or not name or not to_name:
            continue
        children = [c for c in element.iter() if str(c.tag).lower() == "label" and c.get("value")]
        # `alias` is what Label Studio stores in results when it is given
        labels = tuple(str(c.get("alias") or c.get("value")) for c in children)
        dynamic = any(label.startswith("$") for label in labels) or bool(element.get("value"))
        for target in to_name.split(","):
            yield ControlTag(
                name=name,
                tag=tag,
                to_name=target.strip(),
                labels=() if dynamic else labels,
                colors=() if dynamic else tuple(c.get("background") for c in children),
                smart=_true(element.get("smart")) or _true(element.get("smartonly")),
                allow_empty=_true(element.get("allowEmpty")),
            )


def _true(value: str | None) -> bool:
    return value is not None and value.strip().lower() in ("true", "1", "yes")


def _no_output(name: str) -> str:
    return (
        f'The labelling config has no tag that a mask on "{name}" could come back in; add '
        f'<BrushLabels name="brush" toName="{name}"><Label value="…"/></BrushLabels> '
        "(or BitmaskLabels, PolygonLabels, RectangleLabels, EllipseLabels)."
    )


def _problems(config: LabelConfig) -> Iterator[Problem]:
    if not config.objects:
        yield Problem(
            "The labelling config has no <Image> or <Video> tag with a name and a value; add "
            '<Image name="image" value="$image"/> or <Video name="video" value="$video"/>.'
        )
    for tag in config.objects:
        yield from (
            _image_problems(config, tag) if tag.kind == "image" else _video_problems(config, tag)
        )


def _image_problems(config: LabelConfig, image: ObjectTag) -> Iterator[Problem]:
    outputs = config.controls_of(image.name, OUTPUT_TAGS)
    prompts = config.controls_of(image.name, PROMPT_TAGS)
    if not outputs:
        yield Problem(_no_output(image.name))
    if not prompts:
        yield Problem(
            f'The labelling config has no smart tool on "{image.name}"; add <KeyPointLabels '
            f'name="click" toName="{image.name}" smart="true"><Label value="…"/></KeyPointLabels>.'
        )
    elif not any(c.smart for c in prompts if c.tag in SMART_TAGS):
        first = prompts[0]
        yield Problem(
            f'No tool on "{image.name}" is smart, so the editor never calls the backend; add '
            f'smart="true" to <{first.tag} name="{first.name}"> '
            "(only KeyPointLabels and RectangleLabels call it).",
            fatal=False,
        )
    for prompt in prompts:
        known = {label for c in outputs for label in c.labels}
        dynamic = any(not c.labels for c in outputs)
        missing = [label for label in prompt.labels if label not in known]
        if outputs and missing and not dynamic:
            target = f'<{outputs[0].tag} name="{outputs[0].name}">'
            yield Problem(
                f'<{prompt.tag} name="{prompt.name}"> offers {", ".join(map(repr, missing))}, '
                f"which no output tag has; add the label to {target}.",
                fatal=False,
            )


def _video_problems(config: LabelConfig, video: ObjectTag) -> Iterator[Problem]:
    boxes = config.controls_of(video.name, VIDEO_TAGS)
    labels = config.controls_of(video.name, ("Labels",))
    if not boxes:
        yield Problem(
            f'The labelling config has no VideoRectangle on "{video.name}"; add '
            f'<VideoRectangle name="box" toName="{video.name}"/>. '
            "Label Studio cannot show masks on video, only boxes."
        )
    if not labels and not any(c.labels for c in boxes):
        yield Problem(
            f'The labelling config has no labels for "{video.name}"; add <Labels name="labels" '
            f'toName="{video.name}" allowEmpty="true"><Label value="…"/></Labels>. '
            "Clicking a label on a selected box is what starts the tracking.",
            fatal=False,
        )
    elif labels and not any(c.allow_empty for c in labels):
        yield Problem(
            f'Add allowEmpty="true" to <Labels name="{labels[0].name}">: without it a corrected '
            "box is only tracked again after another label was clicked.",
            fatal=False,
        )
    if video.frame_rate is None:
        yield Problem(
            f'<Video name="{video.name}"> has no frameRate, so the editor counts '
            f"{DEFAULT_FRAME_RATE:g} frames per second; add the rate of your files, "
            'for example frameRate="$fps".',
            fatal=False,
        )
