"""The page and the map show names and attributes from other people's files as text."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyogrio
import pytest
from affine import Affine
from pyproj import CRS

from rooftrace.core.types import GeoGrid
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.georeferenced import ArraySource
from rooftrace.predict.predictor import Predictor
from rooftrace.service.service import Service

pytest.importorskip("playwright")

pytestmark = pytest.mark.campaign

SCRIPT = "<img src=x onerror=window.pwned=1><svg onload=window.pwned=1>"
QUOTED = f"\"'>`${{window.pwned=1}}{SCRIPT}"
GRID = GeoGrid((64, 96), Affine(0.3, 0, 500_000, 0, -0.3, 9_300_000), CRS.from_epsg(32737))


def pixels() -> np.ndarray[Any, Any]:
    made = np.full((3, 64, 96), 30, np.uint8)
    made[:, 8:40, 8:60] = 230
    return made


def predictor() -> Predictor:
    bundle = tiny_bundle()
    spec = bundle.spec.model_copy(
        update={"name": SCRIPT, "licence": QUOTED, "attribution": SCRIPT, "created": SCRIPT}
    )
    return Predictor(replace(bundle, spec=spec), PointwiseEngine())


def is_clean(page: Any) -> None:
    page.wait_for_timeout(500)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src='x'], svg[onload]").count() == 0


def test_the_first_page(browser: Any, serve_app: Callable[[Any], str], tmp_path: Path) -> None:
    from rooftrace.app.server import create_server

    service = Service(predictor())
    # The page is a separate one, because the expected 422 answer is an error in the console.
    page = browser.new_context().new_page()
    page.goto(serve_app(create_server(service)))
    page.wait_for_selector("main:not([data-state=loading])")
    data = cv2.imencode(".png", pixels().transpose(1, 2, 0))[1].tobytes()
    for name, content, shown in (
        (SCRIPT, data, ".rt-stage[data-state=ready]"),
        (QUOTED, b"no image", ".rt-status >> text=onerror"),
    ):
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        page.set_input_files("#file", path)
        page.wait_for_selector(shown)
        is_clean(page)
    page.context.close()


def test_the_map(page: Any, serve_app: Callable[[Any], str], tmp_path: Path) -> None:
    from rooftrace.app.server import create_server

    folder = tmp_path / "results"
    name = SCRIPT
    predictor().predict(ArraySource(pixels(), GRID)).save(folder, name="plain")
    for path in [*folder.glob("plain_*")]:
        path.rename(path.with_name(path.name.replace("plain", name)))
    [polygons] = folder.glob("*.gpkg")
    frame = pyogrio.read_dataframe(polygons)
    frame["class"], frame["class_id"], frame["note"] = SCRIPT, 1, QUOTED
    polygons.unlink()
    pyogrio.write_dataframe(frame, polygons, layer="plain")
    run = {
        "bundle": {"name": SCRIPT, "sha256": "0", "file": "/etc/passwd"}, "created": SCRIPT,
        "outputs": [{"input": f"/etc/{QUOTED}.tif", "name": name, "buildings": SCRIPT,
                     "classes": [{"name": "background"}, {"name": SCRIPT}]}],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    url = serve_app(create_server(Service(predictor()), results=[folder]))
    page.goto(f"{url}/map")
    page.wait_for_function("() => window.rooftrace?.scene && rooftrace.map.loaded()")
    assert page.evaluate("rooftrace.scene.name") == name
    is_clean(page)
    box = page.locator("#map canvas").bounding_box()
    point = page.evaluate("rooftrace.map.project(rooftrace.map.getCenter())")
    page.mouse.click(box["x"] + point["x"] - 30, box["y"] + point["y"] - 30)
    page.wait_for_selector(".maplibregl-popup table")
    assert "onerror" in page.locator(".maplibregl-popup").inner_text()
    is_clean(page)
