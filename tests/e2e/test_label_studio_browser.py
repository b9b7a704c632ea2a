"""The real editor in headless Chromium: what an annotator does, and sees.

Screenshots go to $EDGETAM_SCREENSHOTS (docs/images for the documentation), else to a temp folder.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_studio import PASSWORD, USER, LabelStudio, Server
from rendered_scenes import BLOCK_COLOR, DISC_COLOR, write_image, write_movie

from edgetam_label.prompts import Box

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

FRAMES = 30
VIEWPORT = {"width": 1400, "height": 900}
WORKPLACE = (240, 88, 1082, 900)  # the editor between the list of tasks and the panels
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--proxy-server=direct://",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]  # fmt: skip


def chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("google-chrome")


def config(name: str) -> str:
    folder = files("edgetam_label.configs") / "label_studio"
    return (folder / f"{name}.xml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("EDGETAM_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page(studio: LabelStudio) -> Iterator[Any]:
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium here; install it or set CHROMIUM")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        tab = browser.new_context(viewport=VIEWPORT).new_page()
        tab.set_default_timeout(120_000)
        tab.goto(studio.url + "/user/login/", wait_until="domcontentloaded")
        tab.fill("input[name=email]", USER)
        tab.fill("input[name=password]", PASSWORD)
        tab.click("button[type=submit]")
        tab.wait_for_url(lambda url: "/user/login" not in url)
        yield tab
        browser.close()


def open_task(page: Any, studio: LabelStudio, project: int, task: int) -> None:
    page.goto(f"{studio.url}/projects/{project}/data?task={task}", wait_until="domcontentloaded")
    page.wait_for_selector(".konvajs-content canvas, canvas")
    page.wait_for_function(
        "() => window.Htx && Htx.annotationStore && Htx.annotationStore.selected"
    )
    page.wait_for_timeout(3000)
    toggle = page.locator("[data-testid=bottombar-auto-annotation-toggle]")
    toggle.wait_for(state="attached")
    inner = toggle if toggle.evaluate("e => e.tagName") == "INPUT" else toggle.locator("input")
    if not inner.is_checked():
        inner.evaluate("e => e.click()")
    page.wait_for_timeout(500)


def choose(
    page: Any, control: str, label: str, tool: str | None = None, *, again: bool = False
) -> None:
    """Press a label, then the smart copy of a tool, through the editor's own objects.

    again: press it though it is chosen already, which takes it off.
    """
    page.evaluate(
        """([control, label, tool, again]) => {
            const annotation = Htx.annotationStore.selected;
            const press = () => {
                const tag = annotation.names.get(control);
                if (again || !tag.selectedValues().includes(label))
                    tag.children.find(c => c.value === label || c._value === label).onClick();
            };
            press();
            if (tool) {
                const manager = annotation.objects[0].getToolsManager();
                manager.selectTool(
                    manager.allTools().find(t => t.dynamic && t.toolName === tool), true);
                press();
            }
        }""",
        [control, label, tool, again],
    )


def regions(page: Any) -> dict[str, list[dict[str, Any]]]:
    return dict(
        page.evaluate(
            """() => {
                const a = Htx.annotationStore.selected;
                const one = r => ({id: r.cleanId, type: r.type, labels: r.labels,
                                   frames: r.sequence ? r.sequence.length : 0});
                const suggestions = [...a.suggestions.values()].map(one);
                return {regions: a.regions.map(one), suggestions};
            }"""
        )
    )


def canvas_of(page: Any) -> dict[str, float]:
    boxes = [e.bounding_box() for e in page.locator(".konvajs-content").all()]
    return dict(max((b for b in boxes if b), key=lambda b: b["width"] * b["height"]))


def shot(page: Any, path: Path) -> np.ndarray:
    """The whole page as pixels; on disk the part that a person works in, small enough for docs."""
    whole = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    whole.crop(WORKPLACE).quantize(256).save(path, optimize=True)
    return np.asarray(whole, dtype=np.int16)


def find(picture: np.ndarray, color: tuple[int, int, int], area: dict[str, float]) -> Box:
    """Where a body of this colour is on the page: the editor scales and centres as it likes."""
    x, y, w, h = (round(area[k]) for k in ("x", "y", "width", "height"))
    near = np.abs(picture[y : y + h, x : x + w] - np.array(color)).max(axis=2) < 40
    rows, cols = np.flatnonzero(near.sum(1) > 8), np.flatnonzero(near.sum(0) > 8)
    assert len(rows) and len(cols), "the body is not on the page"
    return Box(x + int(cols[0]), y + int(rows[0]), x + int(cols[-1]) + 1, y + int(rows[-1]) + 1)


def differing(before: np.ndarray, after: np.ndarray, area: dict[str, float]) -> float:
    """Share of the canvas whose pixels changed visibly."""
    x, y, w, h = (round(area[k]) for k in ("x", "y", "width", "height"))
    a, b = before[y : y + h, x : x + w], after[y : y + h, x : x + w]
    return float((np.abs(a - b).max(axis=2) > 24).mean())


def until(page: Any, true: Any, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, regions(page)
        page.wait_for_timeout(200)
    return found


@pytest.mark.parametrize(
    ("kind", "region"),
    [("brush", "brushregion"), ("bitmask", "bitmaskregion"), ("polygon", "polygonregion"),
     ("rectangle", "rectangleregion"), ("ellipse", "ellipseregion")],
)  # fmt: skip
def test_a_click_shows_a_mask(
    page: Any,
    studio: LabelStudio,
    server: Server,
    shots: Path,
    tmp_path: Path,
    kind: str,
    region: str,
) -> None:
    project = studio.project(f"editor {kind}", config(f"image_{kind}"))
    task = studio.upload(project, write_image(tmp_path / "scene.png"))
    studio.connect(project, server.url)
    open_task(page, studio, project, task)
    choose(page, "click", "Object", "KeyPointTool")
    before = shot(page, tmp_path / "before.png")
    area = canvas_of(page)
    disc = find(before, DISC_COLOR, area)
    page.mouse.click((disc.x0 + disc.x1) / 2, (disc.y0 + disc.y1) / 2)
    found = until(page, lambda: regions(page)["suggestions"])
    assert {r["type"] for r in found} == {region}
    assert found[0]["labels"] == ["Object"]
    page.wait_for_timeout(1000)
    after = shot(page, shots / f"image-{kind}-click.png")
    assert differing(before, after, area) > 0.003  # an outline alone changes few pixels
    page.click("[data-testid=bottombar-accept-suggestions-button]")
    kept = until(page, lambda: [r for r in regions(page)["regions"] if r["type"] == region])
    assert kept[0]["labels"] == ["Object"]
    shot(page, tmp_path / "accepted.png")


@pytest.mark.parametrize(
    ("kind", "region"),
    [("brush", "brushregion"), ("bitmask", "bitmaskregion"), ("polygon", "polygonregion"),
     ("rectangle", "rectangleregion"), ("ellipse", "ellipseregion")],
)  # fmt: skip
def test_a_box_prompt_shows_a_mask(
    page: Any,
    studio: LabelStudio,
    server: Server,
    shots: Path,
    tmp_path: Path,
    kind: str,
    region: str,
) -> None:
    project = studio.project(f"editor box {kind}", config(f"image_{kind}"))
    task = studio.upload(project, write_image(tmp_path / "scene.png"))
    studio.connect(project, server.url)
    open_task(page, studio, project, task)
    choose(page, "box", "Other", "RectangleTool")
    drag(page, find(shot(page, tmp_path / "before.png"), BLOCK_COLOR, canvas_of(page)))
    found = until(page, lambda: regions(page)["suggestions"])
    assert {r["type"] for r in found} == {region} and found[0]["labels"] == ["Other"]
    page.wait_for_timeout(1000)
    shot(page, shots / f"image-{kind}-box.png")


def test_more_clicks_refine_the_same_mask(
    page: Any, studio: LabelStudio, server: Server, shots: Path, tmp_path: Path
) -> None:
    project = studio.project("editor refine", config("image_brush"))
    task = studio.upload(project, write_image(tmp_path / "scene.png"))
    studio.connect(project, server.url)
    open_task(page, studio, project, task)
    choose(page, "click", "Object", "KeyPointTool")
    disc = find(shot(page, tmp_path / "before.png"), DISC_COLOR, canvas_of(page))
    x, y = (disc.x0 + disc.x1) / 2, (disc.y0 + disc.y1) / 2
    page.mouse.click(x, y)
    (first,) = until(page, lambda: regions(page)["suggestions"])
    asked = clicks_so_far(page)
    choose(page, "click", "Object", "KeyPointTool")  # where labels do not stay selected
    page.keyboard.down("Alt")
    page.mouse.click(disc.x1 + 20, y)
    page.keyboard.up("Alt")
    until(page, lambda: clicks_so_far(page) > asked)
    page.wait_for_timeout(3000)
    # the answer has the same id: it takes the place of the first one
    (second,) = until(page, lambda: regions(page)["suggestions"])
    assert second["type"] == first["type"] and second["labels"] == ["Object"]
    shot(page, shots / "image-brush-refined.png")


def clicks_so_far(page: Any) -> int:
    return len([r for r in regions(page)["regions"] if r["type"] == "keypointregion"])


def drag(page: Any, around: Box) -> None:
    """Draw a box closely around a body."""
    x0, y0, x1, y1 = around.x0 - 2, around.y0 - 2, around.x1 + 2, around.y1 + 2
    page.mouse.move(x0, y0)
    page.mouse.down()
    for i in range(1, 9):
        page.mouse.move(x0 + (x1 - x0) * i / 8, y0 + (y1 - y0) * i / 8)
    page.mouse.up()
    page.wait_for_timeout(300)


def test_a_labelled_box_becomes_a_track(
    page: Any, studio: LabelStudio, server: Server, shots: Path, tmp_path: Path
) -> None:
    project = studio.project("editor video", config("video_track"))
    task = studio.upload(project, write_movie(tmp_path / "clip.mp4", FRAMES))
    studio.connect(project, server.url)
    open_task(page, studio, project, task)
    page.wait_for_timeout(3000)
    choose(page, "labels", "Object")
    drag(page, find(shot(page, tmp_path / "before.png"), DISC_COLOR, canvas_of(page)))
    until(page, lambda: regions(page)["regions"])
    before = shot(page, shots / "video-box.png")
    page.evaluate(
        """() => { const a = Htx.annotationStore.selected; a.unselectAll();
                   a.selectArea(a.regions[0]); }"""
    )
    choose(page, "labels", "Other")
    (tracked,) = until(
        page, lambda: [r for r in regions(page)["regions"] if r["frames"] > 1] or None, 180
    )
    assert tracked["labels"] == ["Other"]
    page.wait_for_timeout(1000)
    after = shot(page, tmp_path / "tracked.png")
    assert np.abs(before - after).max() > 24
    page.evaluate("() => Htx.annotationStore.selected.names.get('video').setFrame(16)")
    page.wait_for_timeout(1500)
    there = shot(page, shots / "video-tracked.png")

    # The box is moved on this frame, and its label clicked off and on: the box stays, the rest
    # follows. Off alone tracks as well, but the editor then drops the label, whatever is answered.
    held = sequence(page)
    drag_from(page, find(there, DISC_COLOR, canvas_of(page)), 0, 12)
    (moved,) = until(page, lambda: [k for k in sequence(page) if k["frame"] == 16])
    assert moved not in held
    page.evaluate("() => { const a = Htx.annotationStore.selected; a.selectArea(a.regions[0]); }")
    choose(page, "labels", "Other", again=True)
    page.wait_for_timeout(300)
    choose(page, "labels", "Other", again=True)
    until(page, lambda: sequence(page) not in (held, sorted([*held, moved], key=by_frame)), 180)
    (kept,) = [k for k in sequence(page) if k["frame"] == 16]
    assert [kept[k] for k in ("x", "y")] == pytest.approx([moved[k] for k in ("x", "y")])
    until(page, lambda: regions(page)["regions"][0]["labels"] == ["Other"], 60)
    shot(page, shots / "video-corrected.png")


def by_frame(keyframe: dict[str, Any]) -> Any:
    return keyframe["frame"]


def sequence(page: Any) -> list[dict[str, Any]]:
    """The keyframes that the editor holds of the first region."""
    return list(
        page.evaluate(
            """() => Htx.annotationStore.selected.regions[0].sequence.map(
                   k => ({frame: k.frame, enabled: k.enabled, x: k.x, y: k.y}))"""
        )
    )


def drag_from(page: Any, around: Box, dx: float, dy: float) -> None:
    """Move what lies there by some pixels of the page."""
    x, y = (around.x0 + around.x1) / 2, (around.y0 + around.y1) / 2
    page.mouse.click(x, y)  # selects it
    page.wait_for_timeout(300)
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(1, 9):
        page.mouse.move(x + dx * i / 8, y + dy * i / 8)
    page.mouse.up()
    page.wait_for_timeout(500)
