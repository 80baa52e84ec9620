"""The map in a browser: what is drawn, and what the controls do to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

import shapely
from fastapi import FastAPI

from rooftrace.app.map import tiles
from rooftrace.app.map.catalogue import FolderCatalogue
from rooftrace.app.map.router import map_router
from rooftrace.core.types import Footprints, Window
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector import write_footprints
from rooftrace.testing import generate_scene
from rooftrace.vector.density import DensityAccumulator
from rooftrace.vector.density_files import write_density
from rooftrace.vector.density_threshold import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from playwright.sync_api import Page

IDLE = "() => window.rooftrace?.scene && rooftrace.map.loaded() && rooftrace.map.areTilesLoaded()"
SHOWN = """(layer) => new Set(
    rooftrace.map.queryRenderedFeatures({layers: [layer]}).map((one) => one.id)).size"""
COLOUR = "() => JSON.stringify(rooftrace.map.getPaintProperty('fill', 'fill-color'))"
# What is in the middle of the canvas, after a frame of its own.
PIXEL = """() => new Promise((done) => {
    const map = rooftrace.map;
    map.once("render", () => {
        const gl = map.painter.context.gl, out = new Uint8Array(4);
        gl.readPixels(gl.drawingBufferWidth / 2, gl.drawingBufferHeight / 2, 1, 1, gl.RGBA,
                      gl.UNSIGNED_BYTE, out);
        done([...out]);
    });
    map.triggerRepaint();
})"""

Serve = Callable[[Any], str]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a small scene, every other building sure and every third one of them large."""
    folder = tmp_path_factory.mktemp("map") / "town"
    folder.mkdir()
    scene = generate_scene(3, (512, 512), 0.3)
    image, _ = scene.write(folder.parent, "scene")
    geometry = np.array(scene.buildings, np.object_)
    number = np.arange(len(geometry))
    buildings = Footprints(
        geometry, np.where(number % 2, 0.9, 0.3).astype(np.float32), shapely.area(geometry),
        scene.grid.crs,
    )  # fmt: skip
    write_footprints(folder / "scene_buildings.gpkg", buildings)
    with mask_sink(folder / "scene_mask.tif", scene.grid) as sink:
        sink.write(Window.whole(scene.grid.shape), scene.mask())
    density = DensityAccumulator(scene.grid, 50)
    density.feed(Window.whole(scene.grid.shape), scene.mask())
    density.add(buildings)
    write_density(folder / "scene_density", density.finish(), DEFAULT_THRESHOLD, "scene")
    record = {
        "bundle": {"name": "a model <i>of mine</i>"},
        "outputs": [{"input": str(image), "mask": "scene_mask.tif", "buildings": len(buildings)}],
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def open_map(page: Page, serve_app: Serve, *folders: Path) -> None:
    app = FastAPI()
    app.include_router(map_router(FolderCatalogue(folders)))
    page.goto(f"{serve_app(app)}/map")


def shown(page: Page, layer: str = "fill") -> int:
    page.wait_for_function(IDLE)
    return int(page.evaluate(SHOWN, layer))


def slide(page: Page, control: str, value: float) -> None:
    page.locator(control).evaluate(
        """(it, value) => {
            it.value = value;
            it.dispatchEvent(new Event("input", {bubbles: true}));
        }""",
        value,
    )


def test_buildings_are_drawn_and_filtered(page: Page, serve_app: Serve, town: Path) -> None:
    open_map(page, serve_app, town)
    count = len(generate_scene(3, (512, 512), 0.3).buildings)
    assert shown(page) == count
    page.wait_for_function(f"() => count.textContent.includes('{count} of {count}')")
    slide(page, "#score", 0.5)
    sure = count // 2
    page.wait_for_function(f"() => count.textContent.includes('{sure} of {count}')")
    assert shown(page) == sure
    slide(page, "#size", 60)
    page.wait_for_function(f"() => !count.textContent.includes('{sure} of')")
    fewer = shown(page)
    assert 0 < fewer < sure
    assert page.locator("#count").inner_text().startswith(f"{fewer} building")
    assert page.locator("#credit").inner_text().startswith("a model <i>of mine</i>")


def test_a_building_tells_of_itself(page: Page, serve_app: Serve, town: Path) -> None:
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    x, y, number = page.evaluate(
        """() => {
            const map = rooftrace.map, [one] = map.queryRenderedFeatures({layers: ["fill"]})
                .sort((a, b) => b.properties.size - a.properties.size);
            const ring = one.geometry.coordinates.flat(one.geometry.type === "Polygon" ? 1 : 2);
            const mean = (i) => ring.reduce((sum, at) => sum + at[i], 0) / ring.length;
            const {x, y} = map.project([mean(0), mean(1)]);
            return [x, y, one.id];
        }"""
    )
    page.mouse.click(x, y)
    page.wait_for_selector(".maplibregl-popup table")
    told = page.locator(".maplibregl-popup").inner_text()
    assert "Confidence" in told
    assert f"Number\t{number + 1}" in told
    assert shown(page, "chosen") == 1
    page.click(".maplibregl-popup-close-button")
    assert page.locator(".maplibregl-popup").count() == 0
    # The same with the keyboard: what is in the middle.
    page.evaluate(
        "([x, y]) => rooftrace.map.jumpTo({center: rooftrace.map.unproject([x, y])})", [x, y]
    )
    page.wait_for_function(IDLE)
    page.locator(".maplibregl-canvas").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".maplibregl-popup table")
    assert f"Number\t{number + 1}" in page.locator(".maplibregl-popup").inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".maplibregl-popup").count() == 0
    assert "canvas" in page.evaluate("document.activeElement.className")


def test_layers_colours_and_theme(page: Page, serve_app: Serve, town: Path) -> None:
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    by_score = page.evaluate(
        "() => JSON.stringify(rooftrace.map.getPaintProperty('fill', 'fill-color'))"
    )
    page.check("input[value=size]")
    by_size = page.evaluate(
        "() => JSON.stringify(rooftrace.map.getPaintProperty('fill', 'fill-color'))"
    )
    assert '"score"' in by_score
    assert '"size"' in by_size
    assert "m²" in page.locator("#ramp").inner_text()
    image = page.evaluate(PIXEL)
    for layer in ("buildings", "image"):
        page.uncheck(f"[data-layer={layer}] input[type=checkbox]")
    ground = page.evaluate(PIXEL)
    assert ground == [0xE4, 0xE7, 0xEB, 255] != image
    page.click("#theme")
    assert page.evaluate(PIXEL) == [0x14, 0x16, 0x1A, 255]
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.check("[data-layer=density] input[type=checkbox]")
    assert page.locator("#density-key").is_visible()
    page.wait_for_function(IDLE)
    page.wait_for_timeout(100)
    dense = page.evaluate(PIXEL)
    assert dense != [0x14, 0x16, 0x1A, 255]
    slide(page, "[data-layer=density] input[type=range]", 0)
    assert page.evaluate(PIXEL) == [0x14, 0x16, 0x1A, 255]


def test_dark_where_the_system_is(page: Page, serve_app: Serve, town: Path) -> None:
    page.emulate_media(color_scheme="dark")
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_a_choice_of_many_images(page: Page, serve_app: Serve, town: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(400):
        for kind in ("mask.tif", "buildings.gpkg"):
            (many / f"img_{number:03}_{kind}").hardlink_to(town / f"scene_{kind}")
    open_map(page, serve_app, town, many)
    page.wait_for_function(IDLE)
    assert page.locator("#image-row").is_hidden()
    page.select_option("#folder", "many")
    page.wait_for_function("() => rooftrace.scene.name === 'img_000'")
    assert "100 more" in page.locator("#images").inner_text()
    page.fill("#search", "_39")
    assert page.locator("#images option").count() == 10
    page.select_option("#images", "img_397")
    page.wait_for_function("() => rooftrace.scene.name === 'img_397'")
    page.click("#next")
    page.wait_for_function("() => rooftrace.scene.name === 'img_398'")
    assert page.locator("#position").inner_text() == "399 of 400"
    assert page.evaluate("location.hash") == "#many/img_398"
    page.reload()
    page.wait_for_function("() => window.rooftrace?.scene?.name === 'img_398'")
    page.wait_for_function(IDLE)
    page.wait_for_load_state("networkidle")


def test_merged_where_there_are_too_many(
    page: Page, serve_app: Serve, town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "MOST_FEATURES", 5)
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    # Colours of cells are steadier from far away than which one the mouse would hit.
    page.evaluate("() => rooftrace.map.setZoom(rooftrace.scene.buildings.first_zoom - 1.5)")
    page.wait_for_function(IDLE)
    counted = "() => rooftrace.map.querySourceFeatures('cells', {sourceLayer: 'cells'})"
    every = page.evaluate(f"{counted}.reduce((sum, one) => sum + one.properties.n, 0)")
    assert every >= len(generate_scene(3, (512, 512), 0.3).buildings)
    slide(page, "#score", 0.95)
    page.wait_for_function(f"{counted}.length === 0")


@pytest.mark.parametrize("state", ["other", "empty", "none"])
def test_nothing_to_show_is_a_sentence(
    state: str, page: Page, serve_app: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    if state == "other":
        (folder / "a.txt").touch()
    open_map(page, serve_app, *([] if state == "none" else [folder]))
    message = page.locator("#message")
    message.wait_for()
    assert {
        "other": "photos is no results folder",
        "empty": "The folder photos is empty",
        "none": "rooftrace serve --results",
    }[state] in message.inner_text()


def test_a_narrow_screen(page: Page, serve_app: Serve, town: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    assert page.locator("#controls").is_hidden()
    page.click("#fold")
    assert page.locator("#fold").get_attribute("aria-expanded") == "true"
    box = page.locator("#panel").bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_every_control_has_a_name(page: Page, serve_app: Serve, town: Path) -> None:
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button")].filter((it) =>
            !it.labels?.length && !it.getAttribute("aria-label") && !it.textContent.trim()
            && !it.title).map((it) => it.outerHTML)"""
    )
    assert nameless == []
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"theme", "fold", "score", "size"} <= reached
    assert any("maplibregl-canvas" in name for name in reached)


def test_several_classes(page: Page, serve_app: Serve, town: Path, tmp_path: Path) -> None:
    folder = tmp_path / "classes"
    folder.mkdir()
    (folder / "scene_mask.tif").hardlink_to(town / "scene_mask.tif")
    scene = generate_scene(3, (512, 512), 0.3)
    number = np.arange(len(scene.buildings))
    regions = Footprints(
        np.array(scene.buildings, np.object_), np.full(len(number), 0.7, np.float32),
        np.full(len(number), 50.0), scene.grid.crs, (number % 2 + 1).astype(np.uint8),
        ("ground", "house", "<b>shed</b>"),
    )  # fmt: skip
    write_footprints(folder / "scene_polygons.gpkg", regions)
    open_map(page, serve_app, folder)
    page.wait_for_function(IDLE)
    page.check("input[value=kind]")
    assert page.locator("#ramp").inner_text().split() == ["house", "<b>shed</b>"]
    assert "match" in page.evaluate(COLOUR)
    page.wait_for_function(f"() => count.textContent.startsWith('{len(number)} polygons in view')")
    page.wait_for_load_state("networkidle")
