"""Photograph every page of a real server, and the HTML reports, in light and dark, wide and narrow.

The pictures are for people: a change of a page is looked at before it is merged. The script makes
a small town, predicts it, compares two dates, trains two tiny models, starts `rooftrace serve`
with all of that, and writes `DIR/PAGE_SCHEME_WIDTH.png`, such as `map_dark_390.png`.

    python tools/screenshots.py DIR
    python tools/screenshots.py DIR --only "map*" --only "review*"

It needs a Chromium (`apt-get install chromium`), and PyTorch for the reports on trainings. What it
makes lies in `DIR/work`, and a second run uses it again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import numpy as np

from rooftrace.core.types import Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.raster import open_raster, write_raster

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from town import demo_scene_path, demo_truth_path, write_pairs

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
HEIGHTS_PX = {1440: 900, 820: 1180, 390: 844}
"""Height of the window for each width: a laptop, a tablet and a phone."""

PATIENCE_MS = 120_000
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""The map needs WebGL, which is drawn by the processor where there is no graphics card."""

MAP_READY = (
    "() => window.rooftrace?.scene && rooftrace.map.loaded() && rooftrace.map.areTilesLoaded()"
)

MAP_IDLE = """name => new Promise(done => {
    const map = name === "swipe" ? rooftrace.swipe.map : rooftrace.map;
    map.once("idle", () => done());
    map.triggerRepaint();
})"""


@dataclass(frozen=True)
class Shot:
    """A picture of a page.

    Args:
        name: First part of the file's name.
        address: Address from the root of the server, or a path of a file.
        prepare: Function that waits for the page and brings it into the state to photograph.
        whole: Whether the picture shows all of the page, not only what fits the window.
    """

    name: str
    address: str
    prepare: Callable[[Page], None]
    whole: bool = True


def rooftrace(*arguments: object) -> None:
    """Run a command of rooftrace; a failed one ends the script."""
    command = [sys.executable, "-m", "rooftrace", *map(str, arguments)]
    print("rooftrace", *arguments, flush=True)
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(answer.stderr)


def made(path: Path, make: Callable[[], None]) -> Path:
    """Return `path`, which `make` writes where it is missing."""
    if not path.exists():
        make()
        assert path.exists(), path
    return path


def write_crop(folder: Path, name: str, window: Window, *, placed: bool = True) -> Path:
    """Write a part of the demo scene, as a GeoTIFF, or as a PNG without its coordinates."""
    raster = open_raster(demo_scene_path()).read(window)
    return write_raster(
        folder, name, ArraySource(raster.data, raster.grid if placed else None, name=name)
    )


def write_town(work: Path) -> None:
    """Write the scene that the map shows."""
    write_crop(work, "town", Window(700, 600, 900, 900))


def write_clip(path: Path) -> None:
    """Write a video in which the camera moves over the demo scene."""
    import av

    image = open_raster(demo_scene_path()).read(Window(900, 300, 360, 1200)).data
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for at in range(0, 400, 8):
            view = np.ascontiguousarray(image[:3, :, at : at + 640].transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode())


def make_results(work: Path) -> list[Path]:
    """Return the results folders for the map: a prediction, and a comparison of two dates."""
    scene = made(work / "town.tif", lambda: write_town(work))
    town = made(work / "town", lambda: rooftrace("predict", scene, "-o", work / "town"))
    dates = made(
        work / "dates",
        lambda: rooftrace(
            "compare", town / "town_buildings.gpkg", demo_truth_path(), "-o", work / "dates",
            "--imagery", scene,
        ),
    )  # fmt: skip
    return [town, dates]


def make_reports(work: Path) -> dict[str, Path]:
    """Return the HTML reports by name, each made by its command."""
    data = made(work / "data", lambda: write_data(work / "data"))
    made(work / "split.json", lambda: rooftrace("split", data, "-o", work / "split.json"))
    audit = work / "audit.html"
    scored = work / "evaluation/report.html"
    made(audit, lambda: rooftrace("inspect", data, "-o", audit))
    made(scored, lambda: rooftrace("evaluate", "default", data, "-o", scored.parent))
    return {
        "report_audit": audit, "report_evaluation": scored,
        "report_compare": work / "dates/report.html",
    }  # fmt: skip


def write_data(folder: Path) -> None:
    """Write six labelled scenes."""
    write_pairs(folder, range(6), shape_yx=(256, 256))


@contextmanager
def running_server(work: Path, results: Sequence[Path]) -> Iterator[str]:
    """Run `rooftrace serve` on a free port with jobs in several states, and yield its address."""
    clip = made(work / "flight.mp4", lambda: write_clip(work / "flight.mp4"))
    command = [
        sys.executable, "-m", "rooftrace", "serve", "--port", "0", "--json", "--max-upload", "2",
        "--jobs", str(work / "jobs"), "--camera", f"Drone={clip}",
    ]  # fmt: skip
    for folder in results:
        command += ["--results", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = str(json.loads(process.stdout.readline())["url"])
        wait_for(f"{url}/readyz", bool)
        if not (work / "jobs/ready").exists():
            add_jobs(url, work)
            (work / "jobs/ready").touch()
        yield url
    finally:
        process.terminate()
        process.wait()


def add_jobs(url: str, work: Path) -> None:
    """Start jobs that succeed and one that fails, and wait for their ends."""
    crops = {
        write_crop(work, "street", Window(300, 300, 500, 700)): "",
        write_crop(work, "no-scale", Window(300, 300, 200, 300), placed=False): "",
        cut_off(write_crop(work, "damaged", Window(300, 300, 900, 900))): "",
    }
    for path, options in crops.items():
        query, data = f"filename={quote(path.name)}{options}", path.read_bytes()
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{url}/v1/jobs?{query}", data, headers)
        try:
            urllib.request.urlopen(request).close()  # nosec B310
        except urllib.error.HTTPError as refused:
            print(path.name, "is refused:", refused.read().decode())
    wait_for(
        f"{url}/v1/jobs",
        lambda answer: all(job["state"] in ("done", "failed") for job in answer["jobs"]),
    )


def cut_off(path: Path) -> Path:
    """Remove the last tenth of a file, as a download that was interrupted does."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])
    return path


def wait_for(address: str, holds: Callable[[Any], bool]) -> None:
    """Ask an address until it answers with JSON for which `holds` is true."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address) as answer:  # nosec B310
                if holds(json.load(answer)):
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{address} is not as expected after {PATIENCE_MS / 1000:.0f} s.")


def shots(work: Path, reports: dict[str, Path]) -> list[Shot]:
    """Return all pictures to take."""

    def shown(place: str) -> Callable[[Page], None]:
        def prepare(page: Page) -> None:
            page.wait_for_selector(place)

        return prepare

    def faded(page: Page) -> None:
        # The preview and the spinner, once the map is idle.
        page.wait_for_selector("#loading.done", state="attached")
        page.wait_for_timeout(600)

    def drawn(page: Page) -> None:
        page.wait_for_function(MAP_READY)
        # A map is idle once its layers are faded in over the first, coarse image.
        page.evaluate(MAP_IDLE, "map")
        faded(page)

    def building(page: Page) -> None:
        drawn(page)
        # The building that is nearest to the middle, and not under a control.
        at = page.evaluate(MIDDLE_BUILDING)
        page.mouse.click(at["x"], at["y"])
        page.wait_for_selector(".maplibregl-popup")

    def swiped(page: Page) -> None:
        page.wait_for_function(f"{MAP_READY} && rooftrace.swipe.map?.loaded()")
        page.evaluate(MAP_IDLE, "swipe")
        faded(page)

    def reviewed(page: Page) -> None:
        drawn(page)
        page.wait_for_function("() => rooftrace.review.current")
        drawn(page)

    def pressed(*keys: str) -> Callable[[Page], None]:
        def prepare(page: Page) -> None:
            reviewed(page)
            for key in keys:
                page.keyboard.press(key)
                page.evaluate("() => rooftrace.review.settled()")

        return prepare

    def empty(prepare: Callable[[Page], None]) -> Callable[[Page], None]:
        def without(page: Page) -> None:
            page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": [], "next": None}))
            page.route("**/map/folders", lambda route: route.fulfill(json=[]))
            page.route("**/live/cameras", lambda route: route.fulfill(json={"cameras": []}))
            page.reload()
            prepare(page)

        return without

    def pictured(page: Page) -> None:
        page.wait_for_selector("#cards li[data-state=done] img.there")
        page.wait_for_function(PICTURES)
        page.wait_for_timeout(600)

    def looked(page: Page) -> None:
        pictured(page)
        page.click("[data-example=settlement]")
        page.wait_for_selector(".rt-stage[data-state=ready]")
        page.wait_for_timeout(1500)

    def camera(page: Page) -> None:
        page.wait_for_function("() => document.getElementById('picture').naturalWidth")
        page.wait_for_timeout(1500)

    return [
        Shot("home", "", pictured),
        Shot("home_empty", "", empty(shown("#examples img"))),
        Shot("home_result", "", looked, whole=False),
        Shot("map_empty", "map", empty(shown("#empty:not([hidden])")), whole=False),
        Shot("map", "map#town/town", drawn, whole=False),
        Shot("map_building", "map#town/town", building, whole=False),
        Shot("compare", "map#dates", swiped, whole=False),
        Shot("review", "map#town/town/review", reviewed, whole=False),
        Shot("review_edit", "map#town/town/review", pressed("e", "n"), whole=False),
        Shot("review_keys", "map#town/town/review", pressed("?"), whole=False),
        Shot("live", "live", camera),
        Shot("live_empty", "live", empty(shown("#none:not([hidden])"))),
        Shot("api", "v1/docs", shown("article"), whole=False),
        Shot("nothere", "nothere", shown("body")),
        *(Shot(name, path.as_uri(), shown("main")) for name, path in reports.items()),
    ]


PICTURES = """() => [...document.querySelectorAll("#cards img")]
    .every((image) => image.classList.contains("there"))"""

MIDDLE_BUILDING = """() => {
  const { map } = rooftrace, box = map.getContainer().getBoundingClientRect();
  const x = box.width * (box.width > 640 ? 0.6 : 0.5), y = box.height / 2;
  for (let by = 4; ; by += 8) {
    for (let at = 0; at < 24; at += 1) {
      const point = [x + by * Math.cos(at), y + by * Math.sin(at)];
      if (map.queryRenderedFeatures(point, { layers: ["fill"] }).length) {
        return { x: box.x + point[0], y: box.y + point[1] };
      }
    }
  }
}"""


def photograph(out: Path, url: str, wanted: Sequence[Shot], widths: Sequence[int]) -> None:
    """Write the pictures, each in both schemes and these widths."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("There is no chromium on the PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for width in widths:
            for shot in wanted:
                for scheme in SCHEMES:
                    page = browser.new_context(
                        viewport={"width": width, "height": HEIGHTS_PX[width]}, color_scheme=scheme,
                        has_touch=width < 640,
                    ).new_page()  # fmt: skip
                    page.set_default_timeout(PATIENCE_MS)
                    address = shot.address if ":" in shot.address else f"{url}/{shot.address}"
                    page.goto(address)
                    shot.prepare(page)
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    name = f"{shot.name}_{scheme}_{width}.png"
                    page.screenshot(path=out / name, full_page=shot.whole)
                    print(name, "" if wide <= width else f"is {wide} px wide", flush=True)
                    page.context.close()
        browser.close()


def main() -> None:
    """Read the arguments and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--only", action="append", help='names of pages, such as "map*"')
    parser.add_argument("--width", type=int, action="append", choices=HEIGHTS_PX, help="in pixels")
    parser.add_argument("--no-reports", action="store_true", help="leave the HTML reports out")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])
    work = given.out.resolve() / "work"
    work.mkdir(parents=True, exist_ok=True)
    results = make_results(work)
    reports = {} if given.no_reports else make_reports(work)
    with running_server(work, results) as url:
        wanted = [
            shot
            for shot in shots(work, reports)
            if not given.only or any(fnmatch(shot.name, one) for one in given.only)
        ]
        photograph(given.out, url, wanted, given.width or tuple(HEIGHTS_PX))


if __name__ == "__main__":
    main()
