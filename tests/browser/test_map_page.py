"""The map in a browser: its layers and its controls."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

from fastapi import FastAPI

from rest_service import app_with
from rooftrace.app.map import outlines as module
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.router import map_router
from rooftrace.rest.pages import face_router
from town import generate_scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.campaign

IDLE = "() => window.rooftrace?.scene && rooftrace.map.loaded() && rooftrace.map.areTilesLoaded()"
BOTH_IDLE = """() => window.rooftrace?.swipe?.map && rooftrace.map.loaded()
    && rooftrace.map.areTilesLoaded() && rooftrace.swipe.map.loaded()
    && rooftrace.swipe.map.areTilesLoaded()"""
# Return the place on the page and the number of the largest building of a map that a click
# reaches: nothing lies over it, and its middle lies in it.
BUILDING = """(map) => {
    const input = rooftrace.map.getCanvasContainer();
    const {left, top} = map.getCanvas().getBoundingClientRect();
    const found = map.queryRenderedFeatures({layers: ["fill"]})
        .sort((a, b) => b.properties.size - a.properties.size);
    for (const one of found) {
        const ring = one.geometry.coordinates.flat(one.geometry.type === "Polygon" ? 1 : 2);
        const mean = (i) => ring.reduce((sum, at) => sum + at[i], 0) / ring.length;
        const {x, y} = map.project([mean(0), mean(1)]);
        const [top_one] = map.queryRenderedFeatures([x, y], {layers: ["fill"]});
        if (top_one?.id === one.id
            && rooftrace.swipe.at({x, y}).map === map
            && input.contains(document.elementFromPoint(left + x, top + y)))
            return [left + x, top + y, one.id];
    }
}"""
SHOWN = """(layer) => new Set(
    rooftrace.map.queryRenderedFeatures({layers: [layer]}).map((one) => one.id)).size"""

Serve = Callable[[Any], str]


def app_of(catalogue: ResultsCatalogue) -> FastAPI:
    return app_with(face_router(), map_router(catalogue))


def open_map(page: Page, serve_app: Serve, *folders: Path) -> None:
    page.goto(f"{serve_app(app_of(ResultsCatalogue(folders)))}/map")


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
    assert page.locator("#credit p").text_content().startswith("Model a model <i>of mine</i>")
    assert page.inner_text("#caveats") == "The scale is a guess.\n\nMore"
    page.click("#caveats summary")
    assert "0.3 in the field “Metres per pixel” of the page Home. It" in page.inner_text("#caveats")


def test_what_did_not_come_is_asked_for_again(
    browser: Browser, serve_app: Serve, town: Path
) -> None:
    # A context of its own: requests that fail are errors in the console.
    context = browser.new_context()
    page = context.new_page()
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    context.route("**/image/**", lambda route: route.abort())
    page.evaluate("() => { rooftrace.map.setZoom(rooftrace.map.getZoom() - 2); }")
    page.locator("#message").get_by_text("A part of the map could not be loaded").wait_for()
    context.unroute("**/image/**")
    page.wait_for_selector("#message", state="hidden")
    context.set_offline(True)
    slide(page, "#score", 0.5)
    page.locator("#message").get_by_text("tell the person who runs the server").wait_for()
    context.set_offline(False)
    page.wait_for_selector("#message", state="hidden")
    context.close()


def test_the_thumbnail_goes_when_the_map_moves(page: Page, serve_app: Serve, town: Path) -> None:
    open_map(page, serve_app, town)
    page.wait_for_function(
        "() => window.rooftrace?.scene && !document.querySelector('#loading img').hidden"
    )
    page.mouse.move(700, 400)
    page.mouse.down()
    page.mouse.move(760, 440, steps=4)
    page.mouse.up()
    # A picture without an address is drawn as a broken one.
    page.wait_for_function("() => document.querySelector('#loading img').hidden")


def test_a_click_shows_the_figures_of_a_building(page: Page, serve_app: Serve, town: Path) -> None:
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    x, y, number = page.wait_for_function(f"() => ({BUILDING})(rooftrace.map)").json_value()
    page.mouse.click(x, y)
    page.wait_for_selector(".maplibregl-popup table")
    text = page.locator(".maplibregl-popup").inner_text()
    assert "Confidence" in text
    assert f"Number\t{number + 1}" in text
    assert shown(page, "chosen") == 1
    page.click(".maplibregl-popup-close-button")
    assert page.locator(".maplibregl-popup").count() == 0
    # The keyboard selects the building in the middle.
    page.evaluate(
        """([x, y]) => {
            const map = rooftrace.map, {left, top} = map.getCanvas().getBoundingClientRect();
            map.jumpTo({center: map.unproject([x - left, y - top])});
        }""",
        [x, y],
    )
    page.wait_for_function(IDLE)
    page.locator(".maplibregl-canvas").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".maplibregl-popup table")
    assert f"Number\t{number + 1}" in page.locator(".maplibregl-popup").inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".maplibregl-popup").count() == 0
    assert "canvas" in page.evaluate("document.activeElement.className")


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
    # Another folder has other names.
    page.select_option("#folder", "town")
    page.wait_for_function("() => rooftrace.scene.name === 'scene'")
    assert page.locator("#search").input_value() == ""
    page.select_option("#folder", "many")
    page.wait_for_function("() => rooftrace.scene.name === 'img_000'")
    page.fill("#search", "_39")
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


def test_from_afar_the_mask_stands_for_many_buildings(
    page: Page, serve_app: Serve, town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_FEATURES", 5)
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    page.evaluate("() => rooftrace.map.setZoom(rooftrace.scene.buildings.first_zoom - 1.5)")
    page.wait_for_selector("#merged:not([hidden])")
    assert shown(page) == 0
    with_mask = page.screenshot(clip={"x": 500, "y": 200, "width": 600, "height": 500})
    page.uncheck(".layer[data-layer=buildings] input[type=checkbox]")
    page.wait_for_function(IDLE)
    without = page.screenshot(clip={"x": 500, "y": 200, "width": 600, "height": 500})
    assert with_mask != without


def test_a_narrow_screen(page: Page, serve_app: Serve, town: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    assert page.locator("#controls").is_hidden()
    page.click("#fold")
    clear = "() => rooftrace.map.project(rooftrace.scene.bounds.slice(0, 2)).y < panel.offsetTop"
    page.wait_for_function(clear)
    page.set_viewport_size({"width": 360, "height": 480})
    page.wait_for_function(clear)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_comparison_has_a_divider_and_filters(
    page: Page, serve_app: Serve, town: Path, two_dates: Path
) -> None:
    open_map(page, serve_app, two_dates, town)
    page.wait_for_function(BOTH_IDLE)
    drawn = """() => [rooftrace.map, rooftrace.swipe.map].map((map) => [...new Set(
        map.queryRenderedFeatures({layers: ["fill"]}).map((one) => one.properties.old))])"""
    assert page.evaluate(drawn) == [[1], [0]]
    # The divider is moved with the keyboard and with the mouse.
    divider = page.locator("#divider")
    before = int(divider.get_attribute("aria-valuenow") or 0)
    divider.focus()
    for key in ("Shift+ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert divider.get_attribute("aria-valuenow") == str(before + 8)
    page.keyboard.press("End")
    assert divider.get_attribute("aria-valuenow") == "98"
    box = divider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 14, 300)
    page.mouse.down()
    page.mouse.move(900, 300)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "70"
    # Both maps show one place.
    page.evaluate("() => rooftrace.map.zoomTo(20, {animate: false})")
    page.wait_for_function("() => rooftrace.swipe.map.getZoom() === 20")
    # Statuses are chosen on both sides.
    page.click("#home")
    labels = page.locator("#kinds label").all_inner_texts()
    assert [label.split()[0] for label in labels][-2:] == ["new", "gone"]
    for status in range(len(labels) - 1):
        page.uncheck(f"#kinds input >> nth={status}")
    page.wait_for_function(BOTH_IDLE)
    assert page.evaluate(
        "() => !rooftrace.swipe.map.queryRenderedFeatures({layers: ['fill']}).length"
    )
    assert shown(page) == int(labels[-1].split()[1])
    assert page.locator("#review").is_hidden()
    page.select_option("#beside", "")
    assert divider.is_hidden()
    # Other results and single layers lie beside a scene, too.
    page.select_option("#folder", "town")
    page.wait_for_function("() => rooftrace.scene.name === 'scene'")
    for value, title in (("layer:mask", "Mask"), ("folder:dates", "dates: ")):
        page.select_option("#beside", value)
        page.wait_for_function(f"() => rooftrace.swipe.names[1].startsWith('{title}')")
        page.wait_for_function(BOTH_IDLE)
    building = page.wait_for_function(f"() => ({BUILDING})(rooftrace.swipe.map)")
    x, y, _ = building.json_value()
    page.mouse.click(x, y)
    page.wait_for_selector(".maplibregl-popup table")
    assert "Status" in page.locator(".maplibregl-popup").inner_text()
    page.wait_for_load_state("networkidle")


def test_from_a_comparison_to_heights(
    page: Page, serve_app: Serve, town: Path, two_dates: Path, tmp_path: Path
) -> None:
    layer = geopandas.read_file(town / "scene_buildings.gpkg", layer="scene_buildings")
    # The largest building has no height.
    heights = (5.0 + layer.index % 9).where(layer.area_m2 < layer.area_m2.max())
    layer.assign(height=heights).to_file(tmp_path / "scene_heights.gpkg")
    open_map(page, serve_app, two_dates, tmp_path)
    page.wait_for_function(BOTH_IDLE)
    page.select_option("#folder", tmp_path.name)
    page.wait_for_selector("#divider", state="hidden")
    assert shown(page) == len(layer)
    x, y, _ = page.wait_for_function(f"() => ({BUILDING})(rooftrace.map)").json_value()
    pixel = Image.open(BytesIO(page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})))
    red, green, blue = pixel.convert("RGB").getpixel((0, 0))
    assert max(red, green, blue) - min(red, green, blue) < 16  # grey, in no colour of the ramp


def test_a_link_leads_to_the_place(page: Page, serve_app: Serve, town: Path) -> None:
    open_map(page, serve_app, town)
    page.wait_for_function(IDLE)
    assert page.evaluate("location.hash") == "#town/scene"
    page.evaluate("() => rooftrace.map.zoomTo(20.5, {animate: false})")
    linked = page.evaluate("location.hash")
    assert linked.startswith("#town/scene@20.50,")
    centre = page.evaluate("rooftrace.map.getCenter().toArray()")
    page.reload()
    page.wait_for_function(IDLE)
    assert page.evaluate("rooftrace.map.getZoom()") == 20.5
    assert page.evaluate("rooftrace.map.getCenter().toArray()") == pytest.approx(centre, abs=1e-6)
    # The whole scene again, and all that pass the filters.
    page.click("#home")
    assert page.evaluate("location.hash") == "#town/scene"
    slide(page, "#size", 70)
    page.click("#fit")
    page.wait_for_function("() => location.hash.includes('@')")
    page.mouse.click(700, 400, button="right")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_text("Copy the coordinates").click()
    words = page.locator(".place-menu p").inner_text()
    page.wait_for_function(f"() => notice.textContent === 'Copied: {words}'")
    assert page.evaluate("navigator.clipboard.readText()") == words
    page.keyboard.press("Escape")
    page.locator("#coordinates").focus()
    page.keyboard.press("Enter")
    words = page.locator("#coordinates").inner_text()
    page.wait_for_function(f"() => notice.textContent === 'Copied: {words}'")
    page.wait_for_load_state("networkidle")
