"""A map service is predicted like the same pixels on disk; what goes wrong loses nothing."""

import io
import json
import pickle
import re
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from map_servers import Answer, serving
from rooftrace.core.errors import ConfigError, DataError, ServiceError
from rooftrace.flows.predict.cluster import share_limits
from rooftrace.flows.predict.inputs import PredictInputs, find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.io.area import Area
from rooftrace.io.service_options import ServiceOptions
from rooftrace.io.web_mercator import TileName, web_mercator
from rooftrace.predict import plan as scene_module
from rooftrace.predict.model_set import ModelSet, read_models
from rooftrace.predict.plan import SceneOptions
from tiny_models import write_tiny_bundle

pytest.importorskip("httpx")
pytest.importorskip("owslib")

FIRST = TileName(18, 131_000, 154_803)
COUNT = (4, 5)
SIDE = 128
MISSING = (3, 4)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelSet:
    folder = tmp_path_factory.mktemp("model")
    return read_models(
        write_tiny_bundle(folder / "tiny.rooftrace", input_multiple_px=32, context_px=8)
    )


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_module, "TILE_PX", 128)
    monkeypatch.setattr(scene_module, "BLOCK_PX", 150)


@pytest.fixture(scope="module")
def tiles() -> dict[str, bytes]:
    """Four rows and five columns of tiles with houses; one is missing, and a corner is white."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (3, 32, 32), dtype=np.uint8)
    coarse[:, :9, 22:] = 255
    drawn = np.kron(coarse, np.ones((1, 20, 20), np.uint8)).transpose(1, 2, 0)
    made = {}
    for row in range(COUNT[0]):
        for col in range(COUNT[1]):
            if (row, col) == MISSING:
                continue
            part = drawn[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
            # A tile of one grey is stored as grey by some servers.
            image = Image.fromarray(part if (row, col) != (0, 0) else part[..., 0])
            out = io.BytesIO()
            image.save(out, "PNG")
            tile = TileName(FIRST.zoom, FIRST.row + row, FIRST.col + col)
            made[f"/{tile}.png"] = out.getvalue()
    return made


def area(shrunk: float = 1.0) -> Area:
    """All tiles, without their outermost metre."""
    left, _, _, top = FIRST.bounds_xy
    last = TileName(FIRST.zoom, FIRST.row + COUNT[0] - 1, FIRST.col + COUNT[1] - 1)
    _, bottom, right, _ = last.bounds_xy
    box = np.empty(1, np.object_)
    box[0] = shapely.box(left, bottom, right, top).buffer(-shrunk)
    return Area(box, web_mercator(), "town.geojson")


def options(folder: Path, **more: object) -> ServiceOptions:
    given = {"attempts": 2, "delay_s": 0.01, "per_second": 1000.0, "tile_cache": folder / "cache"}
    return ServiceOptions(gsd_m=0.3, **given | more)


def found(
    url: str, folder: Path, *, where: Area | None = None, zoom: int | None = 18, **more: object
) -> PredictInputs:
    return find_inputs([url], zoom=zoom, area=where or area(), services=options(folder, **more))


def results(out: Path) -> dict[str, bytes]:
    """Return every file except the record, which holds times, by its kind."""
    files = sorted(path for path in out.iterdir() if path.name != "run.json")
    return {path.name.rpartition("_")[2]: path.read_bytes() for path in files if path.is_file()}


def from_tiles(tiles: dict[str, bytes], path: str) -> Answer:
    body = tiles.get(path.partition("?")[0])
    return (404, {}, b"") if body is None else (200, {"Content-Type": "image/png"}, body)


def write_folder(folder: Path, tiles: dict[str, bytes]) -> Path:
    for path, data in tiles.items():
        file = folder / path.strip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


def test_a_service_equals_its_tiles_on_disk_to_the_byte(
    models: ModelSet, tiles: dict[str, bytes], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "127.0.0.1", tiles)
    inputs = find_inputs([folder], mosaic=True, area=area())
    run_predict(inputs, models, tmp_path / "disk")
    with serving(lambda path: from_tiles(tiles, path)) as server:
        url = server.url + "/{z}/{x}/{y}.png?key=secret"
        inputs = found(url, tmp_path)
        told = "20 tiles of 128 × 128 pixels, 20 of them in the cache (20 fetched just now): 0"
        assert told in inputs.services[0].preview
        report = run_predict(inputs, models, tmp_path / "served")
        assert len(server.paths) == 20
    served, disk = (results(tmp_path / name) for name in ("served", "disk"))
    assert served.keys() == disk.keys() >= {"mask.tif", "preview.png", "density.tif"}
    # A column of polygons and a tag of the mask name the source, which has no attribution.
    differ = {name for name in disk if served[name] != disk[name]}
    assert differ == {"buildings.gpkg", "mask.tif"}
    masks = []
    for name in ("served", "disk"):
        with rasterio.open(tmp_path / name / "127.0.0.1_mask.tif") as mask:
            masks.append(mask.read())
    assert np.array_equal(*masks)
    shapes = [
        geopandas.read_file(tmp_path / name / "127.0.0.1_buildings.gpkg").geometry
        for name in ("served", "disk")
    ]
    assert len(shapes[0]) > 50
    assert shapes[0].equals(shapes[1])
    assert any("1 tile of 20 (5%) do not exist" in note for note in report.notes)
    assert "secret" not in (tmp_path / "served" / "run.json").read_text()
    with rasterio.open(report.outputs[0].mask or "") as mask:
        assert mask.crs.to_epsg() == 3857


@pytest.mark.campaign
@pytest.mark.parametrize("stretch", ["none", "auto"])
def test_403_in_the_midst_resumes_to_the_same_bytes(
    stretch: str,
    models: ModelSet,
    tiles: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rooftrace.io.service_raster._SAMPLES", 5)
    # The stretch of a large scene is found in a few windows, which lie in 8 tiles here.
    monkeypatch.setattr("rooftrace.io.scene_sample._HELD_PX", 0)
    monkeypatch.setattr("rooftrace.io.scene_sample._LATTICES", (2,))
    if stretch == "auto":
        tiles = {path: darkened(data) for path, data in tiles.items()}
    allowed: list[float] = [15]

    def answer(path: str) -> Answer:
        if len(server.paths) > allowed[0]:
            return (403, {}, b"quota used up")
        return from_tiles(tiles, path)

    with serving(answer) as server:
        url = server.url + "/{z}/{x}/{y}.png"
        whole = SceneOptions(cell_m=50, forgiving=True, stretch=stretch)
        out = tmp_path / "out"
        with pytest.raises(ServiceError, match=r"403: access is refused: .quota used up") as failed:
            run_predict(found(url + "?token=old", tmp_path), models, out, whole)
        assert "same command" in failed.value.remedy
        assert not list(out.glob("*_mask.tif"))
        assert any(out.rglob("*.part"))
        allowed[0] = float("inf")
        before = len(server.paths)
        # A renewed token is the same service.
        report = run_predict(found(url + "?token=new", tmp_path), models, out, whole)
        assert report.resumed_blocks > 0
        assert len(server.paths) - before <= 10
        other = options(tmp_path, tile_cache=tmp_path / "c2")
        inputs = find_inputs([url + "?token=x"], zoom=18, area=area(), services=other)
        run_predict(inputs, models, tmp_path / "whole", whole)
    assert results(out) == results(tmp_path / "whole")
    records = [json.loads((one / "run.json").read_text()) for one in (out, tmp_path / "whole")]
    values, again = (record["figures"][0]["values"] for record in records)
    assert values == again
    how = values["stretch"] and values["stretch"]["how"]
    assert how == ("dark" if stretch == "auto" else None)


def darkened(tile: bytes) -> bytes:
    """Return a tile with values up to 63."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(tile)) as image:
        image.point(lambda value: value // 4).save(out, "PNG")
    return out.getvalue()


def test_grey_tiles_are_reported(tiles: dict[str, bytes], tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("L", (SIDE, SIDE), 80).save(out, "PNG")
    # A tile of one colour says nothing about the imagery.
    plain = {path: out.getvalue() for path in list(tiles)[1:4]}
    with serving(lambda path: from_tiles(tiles | plain, path)) as server:
        (raster,) = found(server.url + "/{z}/{x}/{y}.png", tmp_path).services
        raster.read()
    (note,) = (note for note in raster.notes if "grey" in note)
    assert "1 grey tile among 20: one band is used as red, green and blue" in note


def test_no_tile_in_the_area(tmp_path: Path) -> None:
    with (
        serving(lambda path: (404, {}, b"")) as server,
        pytest.raises(DataError, match=r"of 20 tiles all over the area, none exists") as failed,
    ):
        found(server.url + "/{z}/{x}/{y}.png", tmp_path)
    assert "{-y}" in failed.value.remedy


def test_the_workers_of_a_cluster_share_the_limits(tiles: dict[str, bytes], tmp_path: Path) -> None:
    with serving(lambda path: from_tiles(tiles, path)) as server:
        inputs = found(server.url + "/{z}/{x}/{y}.png", tmp_path)
    (note,) = share_limits(inputs.scenes, 2)
    (service,) = inputs.services
    given = pickle.loads(pickle.dumps(service)).requests.options
    assert (given.connections, given.per_second) == (2, 500.0)
    assert "divided by the 2 workers" in note
    assert "at most 2 requests at the same time and 500 per second" in note


def test_the_zoom_follows_from_the_model_and_the_size_of_tiles(
    tiles: dict[str, bytes], tmp_path: Path
) -> None:
    # Tiles of 128 px at zoom 18 have 1.19 m per pixel, those of zoom 20 0.30 m.
    out = io.BytesIO()
    Image.new("RGB", (128, 128)).save(out, "PNG")
    with serving(lambda path: (200, {}, out.getvalue())) as server:
        (raster,) = found(server.url + "/{z}/{x}/{y}", tmp_path, zoom=None).services
    assert raster.level.zoom == 20
    assert raster.grid.gsd_m == pytest.approx(0.297, abs=0.003)


def test_an_area_is_needed_and_the_api_takes_no_service(tmp_path: Path) -> None:
    url = "https://tiles.example.org/{z}/{x}/{y}.png"
    with pytest.raises(ConfigError, match="no area was given") as failed:
        find_inputs([url], services=options(tmp_path))
    assert "--area" in failed.value.remedy
    with pytest.raises(ConfigError, match="only rooftrace predict reads"):
        find_inputs([url], area=area())


def test_a_tile_of_another_size_and_a_damaged_tile_are_named(
    tiles: dict[str, bytes], tmp_path: Path
) -> None:
    changed = dict(tiles)
    first, second = list(tiles)[1], list(tiles)[2]
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    changed[first] = out.getvalue()
    with serving(lambda path: from_tiles(changed, path)) as server:
        with pytest.raises(DataError, match=r"has 64 × 64 pixels .*; expected 128 × 128"):
            found(server.url + "/{z}/{x}/{y}.png", tmp_path / "a")
        changed[first] = tiles[first]
        changed[second] = tiles[second][:200]
        with pytest.raises(DataError, match=re.escape(second)):
            found(server.url + "/{z}/{x}/{y}.png", tmp_path / "b")
