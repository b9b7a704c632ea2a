"""What a person does in Label Studio's editor, done in headless Chromium by way of Playwright.

Text goes in and clicks go out through the page itself; labels and tools, whose buttons differ from
release to release, through the editor's own objects (`Htx`).
"""

from __future__ import annotations

import contextlib
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
from real_studio import PASSWORD, USER, LabelStudio

from edgetam_label.prompts import Box

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


@contextlib.contextmanager
def browsing() -> Iterator[Any]:
    """A browser; each of its contexts is a person with cookies of their own. Skips without one."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium here; install it or set CHROMIUM")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def new_tab(browser: Any) -> Any:
    tab = browser.new_context(viewport=VIEWPORT).new_page()
    tab.set_default_timeout(120_000)
    return tab


def log_in(tab: Any, studio: LabelStudio) -> None:
    tab.goto(studio.url + "/user/login/", wait_until="domcontentloaded")
    tab.fill("input[name=email]", USER)
    tab.fill("input[name=password]", PASSWORD)
    tab.click("button[type=submit]")
    tab.wait_for_url(lambda url: "/user/login" not in url)


def sign_up(tab: Any, studio: LabelStudio, email: str) -> None:
    """A new annotator, by the invitation link that the administrator passes on."""
    invitation = studio.api("GET", "/api/invite").json()["invite_url"]
    tab.goto(studio.url + invitation, wait_until="domcontentloaded")
    tab.fill("input[name=email]", email)
    tab.fill("input[name=password]", PASSWORD)
    tab.click("button[type=submit]")
    tab.wait_for_url(lambda url: "/user/" not in url)


def config(name: str) -> str:
    """One of the labelling configs that ship."""
    folder = files("edgetam_label.configs") / "label_studio"
    return (folder / f"{name}.xml").read_text(encoding="utf-8")


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


def clicks_so_far(page: Any) -> int:
    return len([r for r in regions(page)["regions"] if r["type"] == "keypointregion"])


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


def accept(page: Any) -> None:
    """Keep what is suggested."""
    page.click("[data-testid=bottombar-accept-suggestions-button]")


def drag(page: Any, around: Box) -> None:
    """Draw a box closely around a body."""
    x0, y0, x1, y1 = around.x0 - 2, around.y0 - 2, around.x1 + 2, around.y1 + 2
    page.mouse.move(x0, y0)
    page.mouse.down()
    for i in range(1, 9):
        page.mouse.move(x0 + (x1 - x0) * i / 8, y0 + (y1 - y0) * i / 8)
    page.mouse.up()
    page.wait_for_timeout(300)


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


def sequence(page: Any) -> list[dict[str, Any]]:
    """The keyframes that the editor holds of the first region."""
    return list(
        page.evaluate(
            """() => Htx.annotationStore.selected.regions[0].sequence.map(
                   k => ({frame: k.frame, enabled: k.enabled, x: k.x, y: k.y}))"""
        )
    )
