"""A map of 200,000 buildings: vector tiles made on demand, compared with one large GeoJSON."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import ChildFailed, argument_parser, measure_part, rounded, say, start
from vectors import buildings

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAME = "city"
SPACING_M = 30
"""Distance in metres between neighbouring buildings."""

MOST_TILES = 200
"""Maximum number of tiles of a zoom."""

PAN_S = 4.0


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--buildings", type=int, default=200_000)
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    reported: dict[str, Any] = {"buildings": options.buildings}
    folder = Path(tempfile.mkdtemp(dir=options.work))
    try:
        given = {"folder": folder}
        measure_part(__file__, "prepare", count=options.buildings, **given)
        for part in ("tiles", "geojson"):
            reported[part] = _part(part, given)
        if not options.no_browser:
            for part in ("browser_tiles", "browser_geojson"):
                reported[part] = _part(part, given)
    finally:
        shutil.rmtree(folder)
    reported["ratios"] = _ratios(reported)
    return reported


def _part(name: str, given: dict[str, Any]) -> dict[str, Any]:
    try:
        run = measure_part(__file__, name, **given)
    except ChildFailed as error:
        say(f"{name}: {error}")
        return {"failed": str(error)}
    say(f"{name}: {run.row}")
    return run.row


def _ratios(reported: dict[str, Any]) -> dict[str, float]:
    """Return the ratio of the GeoJSON to the tiles for each figure."""
    pairs = {
        "bytes": ("first_view_gzip_bytes", "tiles", "gzip_bytes", "geojson"),
        "start_up": ("start_up_s", "tiles", "start_up_s", "geojson"),
        "browser_idle": ("idle_s", "browser_tiles", "idle_s", "browser_geojson"),
        "browser_bytes": ("received_bytes", "browser_tiles", "received_bytes", "browser_geojson"),
        "browser_heap": ("heap_mb", "browser_tiles", "heap_mb", "browser_geojson"),
    }
    return {
        name: rounded(reported[theirs][their] / reported[ours][our])
        for name, (our, ours, their, theirs) in pairs.items()
        if our in reported.get(ours, {}) and their in reported.get(theirs, {})
    }


def prepare(folder: str, count: int) -> dict[str, Any]:
    """A results folder of buildings, with a mask that has none of them."""
    import json

    import numpy as np
    from affine import Affine
    from pyproj import CRS

    from rooftrace.core.types import GeoGrid, Window
    from rooftrace.io.masks import mask_sink
    from rooftrace.io.vector_write import write_footprints

    out = Path(folder)
    write_footprints(out / f"{NAME}_buildings.gpkg", buildings(count))
    side = int(SPACING_M * (np.sqrt(count) + 1))
    grid = GeoGrid((side, side), Affine(1, 0, 500_000, 0, -1, 5_000_030), CRS(32633))
    with mask_sink(out / f"{NAME}_mask.tif", grid) as sink:
        for strip in Window.whole(grid.shape).strips(1024):
            sink.write(strip, np.zeros(strip.shape_yx, np.uint8))
    record = {"outputs": [{"mask": f"{NAME}_mask.tif", "input": f"{NAME}.tif"}]}
    (out / "run.json").write_text(json.dumps(record))
    return {}


def tiles(folder: str) -> dict[str, Any]:
    import gzip

    import numpy as np

    from rooftrace.app.map.results import read_results
    from rooftrace.app.map.scene import MapScene
    from rooftrace.io.web_mercator import TileName

    started = time.perf_counter()
    results = read_results(Path(folder))
    scene = MapScene(results.images[NAME], None)
    made = scene.vectors
    assert made is not None
    first = made.first_zoom
    start_up_s = time.perf_counter() - started
    bounds = made.outlines.bounds
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    rng = np.random.default_rng(0)
    zooms: dict[int, dict[str, Any]] = {}
    for zoom in range(first, 17):
        begin, end = (np.floor(corner * 2**zoom).astype(int) for corner in (low, high))
        every = [(c, r) for c in range(begin[0], end[0] + 1) for r in range(begin[1], end[1] + 1)]
        chosen = rng.permutation(len(every))[:MOST_TILES]
        seconds, sizes, packed = [], [], []
        for col, row in (every[int(at)] for at in chosen):
            tile = TileName(zoom, row, col)
            began = time.perf_counter()
            data = made.buildings(tile)
            zipped = gzip.compress(data, 3)
            seconds.append(time.perf_counter() - began)
            sizes.append(len(data))
            packed.append(len(zipped))
        zooms[zoom] = {
            "tiles": len(every),
            "tiles_per_s": rounded(len(seconds) / sum(seconds)),
            "p50_ms": rounded(1e3 * float(np.percentile(seconds, 50))),
            "p99_ms": rounded(1e3 * float(np.percentile(seconds, 99))),
            "largest_bytes": max(sizes),
            "mean_gzip_bytes": rounded(float(np.mean(packed))),
        }
    # Four tiles fill a view; from the first zoom on that shows single buildings.
    seen = 4 * zooms[first]["mean_gzip_bytes"]
    return {
        "start_up_s": rounded(start_up_s), "first_zoom": first, "zooms": zooms,
        "first_view_gzip_bytes": rounded(seen),
    }  # fmt: skip


def geojson(folder: str) -> dict[str, Any]:
    """Write the buildings as one GeoJSON, and measure its size."""
    import gzip

    started = time.perf_counter()
    data = _as_geojson(Path(folder))
    zipped = gzip.compress(data, 3)
    seconds = time.perf_counter() - started
    return {
        "start_up_s": rounded(seconds), "bytes": len(data), "gzip_bytes": len(zipped),
    }  # fmt: skip


def _as_geojson(folder: Path) -> bytes:
    from rooftrace.io.vector_read import VectorFile
    from rooftrace.io.vector_write import write_polygons

    path = folder / f"{NAME}.geojson"
    if not path.exists():
        geometry, crs, columns, _ = VectorFile(folder / f"{NAME}_buildings.gpkg").columns(
            ["score", "area_m2"]
        )
        values = {name: column.astype(float) for name, column in columns.items()}
        write_polygons(path, geometry, values, crs)
    return path.read_bytes()


def browser_tiles(folder: str) -> dict[str, Any]:
    """The page itself: until nothing is loaded any more, and while it is panned."""
    return _browse(folder, "/map")


def browser_geojson(folder: str) -> dict[str, Any]:
    """A plain page with the same map library and one GeoJSON source."""
    return _browse(folder, "/plain")


_PLAIN = """<!doctype html><link rel="stylesheet" href="/map/static/vendor/maplibre-gl.css">
<script src="/map/static/vendor/maplibre-gl.js"></script>
<div id="map" style="position:absolute;inset:0"></div><script>
const map = new maplibregl.Map({
  container: "map", center: CENTRE, zoom: ZOOM, style: {version: 8, sources: {
  b: {type: "geojson", data: "/buildings.geojson"}}, layers: [
  {id: "fill", type: "fill", source: "b", paint: {"fill-color": "#21918c", "fill-opacity": 0.6}},
  {id: "outline", type: "line", source: "b", paint: {"line-color": "#21918c"}}]}});
window.rooftrace = {map, scene: {}};
</script>"""


def _browse(folder: str, address: str) -> dict[str, Any]:
    import shutil as programs

    chromium = programs.which("chromium") or programs.which("chromium-browser")
    if chromium is None:
        return {"unavailable": "no chromium is installed"}
    from playwright.sync_api import sync_playwright

    from rooftrace.app.map.results import read_results
    from rooftrace.app.map.scene import MapScene

    results = read_results(Path(folder))
    made = MapScene(results.images[NAME], None)
    vectors = made.vectors
    assert vectors is not None
    west, south, east, north = made.place.bounds_degrees
    centre = [(west + east) / 2, (south + north) / 2]
    near = vectors.first_zoom + 0.5
    flags = [
        "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--enable-precise-memory-info",
    ]  # fmt: skip
    plain = _PLAIN.replace("CENTRE", str(centre)).replace("ZOOM", str(near))
    with _serving(Path(folder), plain) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        received = [0]
        page.on("requestfinished", lambda it: received.append(it.sizes()["responseBodySize"]))
        page.set_default_timeout(120_000)
        page.on("requestfailed", lambda it: say(f"{it.url} was not loaded"))
        page.on("pageerror", lambda error: say(f"{address}: {error}"))
        started = time.perf_counter()
        page.goto(base + address)
        _until_idle(page)
        whole_s = time.perf_counter() - started
        page.evaluate(
            "([centre, zoom]) => rooftrace.map.jumpTo({center: centre, zoom})", [centre, near]
        )
        _until_idle(page)
        idle_s = time.perf_counter() - started
        frames = page.evaluate(_PAN, [PAN_S, centre])
        page.evaluate(_HIDE)
        empty = page.evaluate(_PAN, [PAN_S, centre])
        heap = page.evaluate("() => performance.memory.usedJSHeapSize / 1e6")
        browser.close()
    return {
        "first_idle_s": rounded(whole_s), "idle_s": rounded(idle_s),
        "received_bytes": sum(received), "heap_mb": rounded(heap), **frames,
        "empty_frames_per_s": empty["frames_per_s"],
    }  # fmt: skip


def _until_idle(page: Page) -> None:
    page.wait_for_function(
        "() => window.rooftrace?.scene && rooftrace.map.loaded() && rooftrace.map.areTilesLoaded()"
    )


# Nothing is left but the ground, which is one colour.
_HIDE = """() => {
  for (const {id, type} of rooftrace.map.getStyle().layers) {
    if (type !== "background") rooftrace.map.setLayoutProperty(id, "visibility", "none");
  }
}"""

# Panned at a steady rate across what is in view; times between drawn frames.
_PAN = """([seconds, centre]) => new Promise((done) => {
  const map = rooftrace.map, gaps = [];
  let last = performance.now();
  const drawn = () => { const now = performance.now(); gaps.push(now - last); last = now; };
  map.on("render", drawn);
  map.easeTo({center: [centre[0] + 0.03, centre[1] + 0.01], duration: seconds * 1000, easing: (t) => t});
  map.once("moveend", () => {
    map.off("render", drawn);
    gaps.sort((a, b) => a - b);
    done({frames_per_s: gaps.length / seconds, frame_p50_ms: gaps[gaps.length >> 1],
          frame_p99_ms: gaps[Math.floor(gaps.length * 0.99)]});
  });
})"""  # noqa: E501


@contextmanager
def _serving(folder: Path, plain: str) -> Iterator[str]:
    import socket
    import threading

    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import FileResponse, HTMLResponse

    from rooftrace.app.map.results import ResultsCatalogue
    from rooftrace.app.map.router import map_router
    from rooftrace.rest.pages import face_router
    from rooftrace.rest.problems import install_problems

    _as_geojson(folder)
    app = FastAPI()
    install_problems(app)
    app.include_router(face_router())
    app.include_router(map_router(ResultsCatalogue([folder])))
    app.get("/plain")(lambda: HTMLResponse(plain))
    app.get("/buildings.geojson")(lambda: FileResponse(folder / f"{NAME}.geojson"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    start(main, prepare, tiles, geojson, browser_tiles, browser_geojson)
