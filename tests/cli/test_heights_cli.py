"""`rooftrace heights` through the real command: layer, city model, sources and errors."""

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS
from rasterio.features import geometry_mask

from command_line import call, command
from raster_files import PLACE, write_geotiff
from rooftrace.flows.heights import COLUMNS
from rooftrace.heights.city_model import epsg_code
from town.roofs import RoofTown, levels_town, make_roof_town

EAST, NORTH = 500_000.0, 5_000_000.0
UTM = "EPSG:32631"


@pytest.fixture(scope="module")
def town() -> RoofTown:
    return make_roof_town(16, pixel_m=0.5, seed=4, trees=6)


@pytest.fixture(scope="module")
def folder(town: RoofTown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_town(tmp_path_factory.mktemp("town"), town)


def write_town(folder: Path, town: RoofTown) -> Path:
    layer = gpd.GeoDataFrame(
        {"name": [f"house {n}" for n in range(len(town.outlines))], "height": 3.0,
         "fid": range(101, 101 + len(town.outlines))},
        geometry=[*town.outlines],
        crs=UTM,
    )  # fmt: skip
    layer.geometry = layer.translate(EAST, NORTH)
    layer.to_file(folder / "houses.gpkg")
    layer.to_crs(4326).to_file(folder / "houses.geojson")
    for name in ("surface", "terrain"):
        write_raster(folder / f"{name}.tif", town, getattr(town, name))
    return folder


def write_raster(path: Path, town: RoofTown, heights: np.ndarray, **options: Any) -> Path:
    rows, cols = heights.shape
    top = NORTH + rows * town.pixel_m
    profile = {
        "driver": "GTiff", "height": rows, "width": cols, "count": 1, "dtype": "float32",
        "crs": UTM, "transform": Affine(town.pixel_m, 0, EAST, 0, -town.pixel_m, top),
    }  # fmt: skip
    write_geotiff(path, heights.astype(np.float32), **profile | options)
    return path


@pytest.mark.parametrize("layer", ["houses.gpkg", "houses.geojson"])
@pytest.mark.parametrize("terrain", [True, False])
def test_a_layer_gets_heights_in_any_crs(
    town: RoofTown, folder: Path, tmp_path: Path, layer: str, terrain: bool
) -> None:
    extra = ("--terrain", folder / "terrain.tif") if terrain else ()
    given = ("--surface", folder / "surface.tif", *extra, "--planes", "-o", tmp_path)
    code, answer = call("heights", folder / layer, *given)
    assert code == 0
    planes = gpd.read_file(tmp_path / "houses_roof_planes.gpkg", layer="houses_roof_planes")
    found = gpd.read_file(tmp_path / "houses_heights.gpkg")
    assert {*COLUMNS} <= {*found.columns}
    assert found.crs == gpd.read_file(folder / layer).crs
    assert (found.map_height == 3.0).all()
    assert found.map_fid.tolist() == [*range(101, 101 + len(found))]
    assert found.name.tolist() == [f"house {n}" for n in range(len(found))]
    measured = found.height.notna()
    assert answer["measured"] == measured.sum() >= 0.9 * len(found)
    error = (found.height - (town.top - town.ground))[measured]
    assert np.median(np.abs(error)) < 0.15
    names = {"building", "slope_deg", "azimuth_deg", "facing", "area_m2", "ground_area_m2"}
    assert names <= {*planes.columns}
    within = shapely.intersection(planes.geometry, found.geometry[planes.building - 1].values)
    np.testing.assert_allclose(shapely.area(within), shapely.area(planes.geometry), rtol=1e-3)
    assert planes.ground_area_m2.sum() > 0.8 * shapely.area(town.outlines[measured]).sum()
    assert (found.num_floors_estimated[measured] >= 1).all()
    assert (found.height_reason[~measured].str.len() > 5).all()
    assert (tmp_path / "houses_heights.png").stat().st_size > 1000
    predicted = tmp_path / "predicted" / "dop_0.2m_buildings.gpkg"
    predicted.parent.mkdir()
    # The first building was divided after the prediction: it has the figures of the whole. With
    # --gsd, all areas were half as large as on the ground.
    found = found.assign(score=0.9, rectangularity=0.8)
    found["area_m2"] = shapely.area(town.outlines) * [1, *[0.5] * (len(found) - 1)]
    found.to_file(predicted)
    predicted.with_name("run.json").touch()
    again, _ = call("heights", predicted.parent, *given[:-1], tmp_path / "again")
    assert again == 0
    repeated = gpd.read_file(tmp_path / "again" / "dop_0.2m_heights.gpkg")
    assert repeated.height.equals(found.height)
    assert {*found.columns} <= {*repeated.columns}
    np.testing.assert_allclose(repeated.area_m2, shapely.area(town.outlines) / 2, rtol=1e-3)
    assert repeated.rectangularity.isna().tolist() == [True, *[False] * (len(found) - 1)]


@pytest.fixture(scope="module")
def tiles(town: RoofTown, folder: Path) -> Path:
    """Write the surface as four tiles, one of them in feet and one of ERDAS Imagine."""
    tiles = folder / "tiles"
    tiles.mkdir()
    half = town.surface.shape[0] // 2
    top = NORTH + town.surface.shape[0] * town.pixel_m
    for row, col in np.ndindex(2, 2):
        part = town.surface[row * half : (row + 1) * half, col * half : (col + 1) * half]
        left, upper = EAST + col * half * town.pixel_m, top - row * half * town.pixel_m
        place = Affine(town.pixel_m, 0, left, 0, -town.pixel_m, upper)
        path = tiles / f"{row}_{col}{'.img' if row > col else '.tif'}"
        in_feet = part / 0.3048 if col > row else part
        write_raster(path, town, in_feet, transform=place, driver="HFA" if row > col else "GTiff")
        if col > row:
            with rasterio.open(path, "r+") as file:
                file.units = ("ft",)
    (tiles / "readme.txt").write_text("Surface model of a town.")
    return tiles


def test_a_folder_of_tiles_gives_what_the_whole_gives(
    folder: Path, tiles: Path, tmp_path: Path
) -> None:
    houses = folder / "houses.gpkg"
    call("heights", houses, "--surface", folder / "surface.tif", "-o", tmp_path / "whole")
    whole = gpd.read_file(tmp_path / "whole" / "houses_heights.gpkg")
    several = sorted(tiles.glob("?_?.*"))
    for given in (("--surface", tiles), ("--surface", f"{tiles}/?_?.*"), ("--surface", *several)):
        code, answer = call("heights", houses, *given, "-o", tmp_path / "out")
        assert code == 0, answer
        found = gpd.read_file(tmp_path / "out" / "houses_heights.gpkg")
        np.testing.assert_array_equal(found.height_reason.isna(), whole.height_reason.isna())
        np.testing.assert_allclose(found.height, whole.height, atol=0.011)
    terrain = (*given, "--terrain", folder / "terrain.tif")
    assert "in quotes" in command("heights", houses, *terrain, "-o", tmp_path).err


def test_tiles_that_do_not_belong_together_are_refused(
    town: RoofTown, folder: Path, scans: Path, tmp_path: Path
) -> None:
    other, side = tmp_path / "other.tif", EAST + town.surface.shape[0] * town.pixel_m
    for options, expected in (
        ({"transform": Affine(1, 0, side, 0, -1, NORTH)}, "other.tif has another pixel size"),
        (
            {"transform": Affine(0.5, 0, side, 0, -0.5, NORTH), "crs": "EPSG:32632"},
            "is in EPSG:32632 (WGS 84 / UTM zone 32N)",
        ),
    ):
        write_raster(other, town, town.surface, **options)
        given = ("--surface", folder / "surface.tif", "--surface", other)
        error = command("heights", folder / "houses.gpkg", *given, "-o", tmp_path / "out").err
        assert expected in error
        assert "Join the tiles: gdalwarp" in error
    both = ("--surface", f"{folder}/[st]*.tif", "-o", tmp_path / "out")
    error = command("heights", folder / "houses.gpkg", *both).err
    assert "surface.tif and " in error
    assert "show the same ground" in error
    for given in (scans, scans / "tile_0.laz"):
        surface = ("--surface", given, "-o", tmp_path / "out")
        error = command("heights", folder / "houses.gpkg", *surface).err
        assert "holds laser scans" in error
        assert f"--points {given}" in error.replace("\n", " ")
    (tmp_path / "empty").mkdir()
    surface = ("--surface", tmp_path / "empty", "-o", tmp_path / "out")
    assert "has no raster" in command("heights", folder / "houses.gpkg", *surface).err


@pytest.mark.parametrize("levels", [False, True])
def test_the_city_model_has_closed_solids(folder: Path, tmp_path: Path, levels: bool) -> None:
    folder = write_town(tmp_path, levels_town(slope=0.2)) if levels else folder
    terrain = ("--terrain", folder / "terrain.tif") if levels else ()
    given = ("--surface", folder / "surface.tif", *terrain, "-o", tmp_path)
    _, answer = call("heights", folder / "houses.gpkg", *given)
    model = json.loads((tmp_path / "houses_heights.city.json").read_text())
    assert model["version"] == "2.0"
    assert model["metadata"]["referenceSystem"].endswith("/32631")
    vertices = np.array(model["vertices"]) * model["transform"]["scale"]
    left, bottom, low, right, top, high = model["metadata"]["geographicalExtent"]
    placed = vertices + model["transform"]["translate"]
    np.testing.assert_allclose(placed.min(axis=0), [left, bottom, low], atol=0.01)
    np.testing.assert_allclose(placed.max(axis=0), [right, top, high], atol=0.01)
    lods = {one["lod"] for thing in model["CityObjects"].values() for one in thing["geometry"]}
    assert lods == ({"1.2", "1.3"} if levels else {"1.2"})
    assert len(model["CityObjects"]) > 10 or levels
    for id_, thing in model["CityObjects"].items():
        geometry = thing["geometry"][0]
        assert geometry["lod"] == "1.2"
        shell = geometry["boundaries"][0]
        assert len(geometry["semantics"]["values"][0]) == len(shell)
        rings = [ring for surface in shell for ring in surface]
        edges = Counter(edge for ring in rings for edge in zip(ring, [*ring[1:], ring[0]]))
        # A closed solid: each edge is used once in each direction.
        assert all(edges[other, one] == count == 1 for (one, other), count in edges.items())
        volume = sum(_volume(vertices, surface) for surface in shell)
        attributes = thing["attributes"]
        assert volume > attributes["height_median"] * 20
        # Blocks stand in the slope, from the lowest ground along the outline.
        below = attributes["ground_m"] - attributes["ground_min_m"]
        assert not levels or below == pytest.approx(2, abs=0.05)
        assert not levels or volume == pytest.approx(answer["volume_m3"] + 200 * below, abs=2)
        assert attributes["name"] == f"house {int(id_.removeprefix('houses-')) - 1}"


@pytest.mark.parametrize(
    ("plane", "vertical", "code"),
    [(28992, None, 28992), (28992, 5709, 7415), (28992, 6360, 28992), ("+proj=laea", 5709, None)],
)
def test_the_city_model_names_the_datum_of_its_heights(
    plane: int | str, vertical: int | None, code: int | None
) -> None:
    assert epsg_code(CRS(plane), None if vertical is None else CRS(vertical)) == code


def _volume(vertices: np.ndarray, surface: list[list[int]]) -> float:
    """Return the signed volume below a surface, by the divergence theorem."""
    total = 0.0
    for ring in surface:
        points = vertices[ring]
        for one, other in pairwise(points[1:]):
            total += float(np.dot(points[0], np.cross(one, other))) / 6
    return total


@pytest.fixture(scope="module")
def scans(town: RoofTown, folder: Path) -> Path:
    """Write the surface as two tiles of points without a CRS."""
    laspy = pytest.importorskip("laspy")
    size = town.surface.shape[0]
    (folder / "scans").mkdir()
    for half in range(2):
        rows, cols = np.indices((size, size))
        chosen = (cols < size * 5 // 8) == (half == 0)
        rows, cols = rows[chosen], cols[chosen]
        header = laspy.LasHeader(point_format=6, version="1.4")
        header.scales = [0.001] * 3
        header.offsets = [EAST, NORTH, 0]
        las = laspy.LasData(header)
        las.x = EAST + (cols + 0.5) * town.pixel_m
        las.y = NORTH + (size - rows - 0.5) * town.pixel_m
        las.z = town.surface[rows, cols]
        las.classification = np.ones(len(rows), np.uint8)
        las.return_number = np.ones(len(rows), np.uint8)
        las.number_of_returns = np.full(len(rows), half, np.uint8)
        las.write(folder / "scans" / f"tile_{half}.laz")
    return folder / "scans"


def test_points_are_measured_without_a_grid(
    town: RoofTown, folder: Path, scans: Path, tmp_path: Path
) -> None:
    laspy = pytest.importorskip("laspy")
    code, answer = call("heights", folder / "houses.gpkg", "--points", scans, "-o", tmp_path)
    assert code == 0
    assert any("2 files of points state no coordinate system" in note for note in answer["notes"])
    found = gpd.read_file(tmp_path / "houses_heights.gpkg")
    error = (found.height - (town.top - town.ground)).dropna()
    assert len(error) >= 0.9 * len(found)
    assert np.median(np.abs(error)) < 0.2
    laspy.LasData(laspy.LasHeader(point_format=6)).write(tmp_path / "empty.laz")
    # What a shell makes of tiles/*.laz.
    tiles = sorted(scans.glob("*.laz"))
    more = (*tiles, tmp_path / "empty.laz")
    _, same = call("heights", folder / "houses.gpkg", "--points", *more, "-o", tmp_path)
    assert same["height_m"] == answer["height_m"]
    assert "1 file holds no points." in same["notes"]
    feet = {"crs": "+proj=utm +zone=31 +units=us-ft", "allow_override": True}
    gpd.read_file(folder / "houses.gpkg").set_crs(**feet).to_file(tmp_path / "feet.gpkg")
    _, noted = call("heights", tmp_path / "feet.gpkg", "--points", scans, "-o", tmp_path)
    assert any("heights without a unit: they are read as metres" in one for one in noted["notes"])


def test_a_scan_states_its_unit_by_keys_and_may_end_within_a_house(
    town: RoofTown, folder: Path, scans: Path, tmp_path: Path
) -> None:
    laspy = pytest.importorskip("laspy")
    las, known = laspy.read(scans / "tile_0.laz"), laspy.vlrs.known
    crown = shapely.contains_xy(town.outlines[0], las.x - EAST, las.y - NORTH)
    las.z[crown] = 100 + np.random.default_rng(0).uniform(2, 9, crown.sum())
    las.z = las.z * (3937 / 1200)
    keys = known.GeoKeyDirectoryVlr()
    for number, code in ((3072, 32631), (4096, 5703), (4099, 9003)):
        keys.geo_keys.append(known.GeoKeyEntryStruct(number, 0, 1, code))
    las.header.vlrs.append(keys)
    las.write(tmp_path / "keys.las")
    given = ("--points", tmp_path / "keys.las", "--crs", UTM, "-o", tmp_path)
    _, answer = call("heights", folder / "houses.gpkg", *given)
    assert answer["unit_m"] == pytest.approx(1200 / 3937)
    assert answer["datum"] == "North American Vertical Datum 1988"
    cut = {"mostly trees": 1, "not covered by the surface": 5, "covered by the surface in part": 5}
    assert answer["reasons"] == cut


def test_a_crs_is_given_to_points_and_models_without_one(
    town: RoofTown, folder: Path, scans: Path, tmp_path: Path
) -> None:
    surface = write_raster(tmp_path / "surface.asc", town, town.surface, crs=None, driver="AAIGrid")
    houses = folder / "houses.geojson"
    for source, error in (
        (("--points", scans), "houses.geojson is in degrees"),
        (("--surface", surface), "surface.asc has no coordinate system"),
    ):
        assert error in command("heights", houses, *source, "-o", tmp_path).err
        _, answer = call("heights", houses, *source, "--crs", UTM, "-o", tmp_path)
        assert answer["measured"] >= 0.9 * answer["buildings"]
    # Without the grid, NAD27 lies a few metres beside WGS 84.
    old = write_raster(tmp_path / "old.tif", town, town.surface, crs="EPSG:26711")
    placed = gpd.read_file(folder / "houses.gpkg").set_crs(26711, allow_override=True)
    placed.to_crs(4326).to_file(tmp_path / "placed.gpkg")
    for layer, said in (("placed.gpkg", 1), ("old.gpkg", 0)):
        placed.to_file(tmp_path / "old.gpkg")
        given = ("--surface", old, "--format", "json", "-o", tmp_path)
        _, answer = call("heights", tmp_path / layer, *given)
        assert sum("pyproj sync --file" in note for note in answer["notes"]) == said
    assert gpd.read_file(tmp_path / "old_heights.geojson").height.notna().any()
    assert json.loads((tmp_path / "old_heights.json").read_text())["measured"] > 0
    stated = ("--surface", folder / "surface.tif", "--crs", "EPSG:32632")
    assert "surface.tif is in" in command("heights", houses, *stated, "-o", tmp_path).err


@pytest.mark.campaign
@pytest.mark.parametrize("source", ["surface", "points"])
def test_outlines_are_moved_onto_their_roofs(
    town: RoofTown, folder: Path, scans: Path, tmp_path: Path, source: str
) -> None:
    houses = gpd.read_file(folder / "houses.gpkg")
    beside = houses.set_geometry(houses.translate(2.5, -1.5)).to_crs(4326)
    beside = beside if source == "surface" else beside.to_crs(UTM)
    beside.to_file(tmp_path / "beside.gpkg")
    surface = folder / "surface.tif" if source == "surface" else scans
    given = ("heights", tmp_path / "beside.gpkg", f"--{source}", surface, "-o", tmp_path)
    _, answer = call(*given)
    assert any("heights --move moves these" in note for note in answer["notes"])
    _, answer = call(*given, "--move")
    offset = answer["offset"]
    np.testing.assert_allclose([offset["east_m"], offset["north_m"]], [-2.5, 1.5], atol=0.3)
    found = gpd.read_file(tmp_path / "beside_heights.gpkg").to_crs(UTM)
    assert found.centroid.distance(houses.centroid).max() < 0.4
    error = (found.height - (town.top - town.ground)).dropna()
    assert len(error) >= 0.9 * len(found)
    assert np.median(np.abs(error)) < 0.2


@pytest.mark.campaign
def test_feet_are_read_by_the_band_or_the_option(
    town: RoofTown, folder: Path, tmp_path: Path
) -> None:
    feet = write_raster(tmp_path / "feet.tif", town, town.surface / 0.3048)
    stated = write_raster(tmp_path / "stated.tif", town, town.surface / 0.3048)
    with rasterio.open(stated, "r+") as file:
        file.units = ("US survey feet",)
    medians = []
    cm = write_raster(tmp_path / "cm.tif", town, town.surface * 100)
    units = (feet, "--unit", "foot"), (cm, "--unit", "centimetre"), (stated,)
    for given in ((folder / "surface.tif",), *units):
        _, answer = call("heights", folder / "houses.gpkg", "--surface", *given, "-o", tmp_path)
        medians.append(answer["height_m"])
    np.testing.assert_allclose(medians, medians[0], atol=0.05)
    with rasterio.open(feet, "r+") as file:
        file.units = ("inches",)
    _, answer = call("heights", folder / "houses.gpkg", "--surface", feet, "-o", tmp_path / "out")
    assert any("in 'inches', an unknown unit" in note for note in answer["notes"])
    assert answer["height_m"] > 25
    assert any("are the heights in feet or centimetres?" in note for note in answer["notes"])
    assert not any("fill that" in note for note in answer["notes"])
    given = ("--surface", feet, "--terrain", folder / "terrain.tif", "-o", tmp_path / "out")
    _, answer = call("heights", folder / "houses.gpkg", *given, "--unit", "foot")
    assert any("of another unit, leave --unit out" in note for note in answer["notes"])
    assert not any("median" in note for note in answer["notes"])


def test_scaled_heights_and_fill_that_is_not_declared(
    town: RoofTown, folder: Path, tmp_path: Path
) -> None:
    half = town.surface.copy()
    half[:, half.shape[1] // 2 :] = np.nan
    plain = write_raster(tmp_path / "plain.tif", town, half, nodata=np.nan)
    fill = write_raster(tmp_path / "fill.tif", town, np.nan_to_num(half, nan=-9999))
    zero = write_raster(tmp_path / "zero.tif", town, np.nan_to_num(half + 900, nan=0))
    packed = tmp_path / "centimetres.tif"
    stored = np.nan_to_num((half - 50) * 100, nan=-32768).round()
    write_raster(packed, town, stored, dtype="int16", nodata=-32768)
    with rasterio.open(packed, "r+") as file:
        file.scales, file.offsets = (0.01,), (50.0,)
    answers = []
    for path in (plain, fill, packed, zero):
        given = ("--surface", path, "-o", tmp_path / "out")
        _, answer = call("heights", folder / "houses.gpkg", *given)
        answers.append(answer)
    assert "not covered by the surface" in answers[0]["reasons"]
    assert all(answer["reasons"] == answers[0]["reasons"] for answer in answers)
    medians = [answer["height_m"] for answer in answers]
    np.testing.assert_allclose(medians, medians[0], atol=0.02)


@pytest.mark.campaign
def test_models_of_one_datum_may_have_two_units(
    town: RoofTown, folder: Path, tmp_path: Path
) -> None:
    metres, feet = (f"EPSG:32631+{code}" for code in (5703, 6360))  # NAVD88
    surface = write_raster(
        tmp_path / "feet.tif", town, town.surface * 3937 / 1200, crs=feet, dtype="float64"
    )
    terrain = write_raster(tmp_path / "metres.tif", town, town.terrain, crs=metres)
    given = ("--surface", surface, "--terrain", terrain, "-o", tmp_path / "out")
    _, answer = call("heights", folder / "houses.gpkg", *given)
    given = ("--surface", folder / "surface.tif", "--terrain", folder / "terrain.tif")
    _, expected = call("heights", folder / "houses.gpkg", *given, "-o", tmp_path / "out")
    assert answer["datum"] == "North American Vertical Datum 1988"
    assert answer["height_m"] == pytest.approx(expected["height_m"], abs=0.01)
    assert not any("The ground of the surface" in note for note in answer["notes"])
    above = write_raster(tmp_path / "above.tif", town, town.surface - town.terrain)
    low = write_raster(tmp_path / "low.tif", town, town.terrain - np.median(town.terrain) - 1.4)
    given = ("--surface", above, "--terrain", low, "-o", tmp_path / "out")
    _, answer = call("heights", folder / "houses.gpkg", *given)
    assert any("The ground of the surface lies +1.4 m" in note for note in answer["notes"])


def test_a_terrain_model_may_be_coarse_or_have_holes_below_buildings(
    town: RoofTown, folder: Path, tmp_path: Path
) -> None:
    size = 64
    top = NORTH + len(town.terrain) * town.pixel_m
    fine = Affine(town.pixel_m, 0, EAST, 0, -town.pixel_m, top)
    houses = gpd.read_file(folder / "houses.gpkg").buffer(1)
    seen = geometry_mask(houses, town.terrain.shape, fine)
    holes = np.where(seen, town.terrain, np.nan)
    bare = write_raster(tmp_path / "bare.tif", town, holes, nodata=np.nan)
    place = fine @ Affine.scale(size)
    middle = town.terrain[size // 2 :: size, size // 2 :: size]
    coarse = write_raster(tmp_path / "coarse.tif", town, middle, transform=place)
    measured = []
    for terrain in (folder / "terrain.tif", coarse, bare):
        given = ("--surface", folder / "surface.tif", "--terrain", terrain)
        _, answer = call("heights", folder / "houses.gpkg", *given, "-o", tmp_path / "out")
        measured.append((answer["measured"], answer["height_m"]))
    assert all(one == pytest.approx(measured[0], abs=0.3) for one in measured[1:])


def test_wrong_sources_are_named(town: RoofTown, folder: Path, tmp_path: Path) -> None:
    houses, out = folder / "houses.gpkg", tmp_path / "out"
    terrain = folder / "terrain.tif"

    def error(*arguments: object) -> str:
        result = command("heights", houses, *arguments, "-o", out)
        assert result.code in (2, 3), result.err
        return result.err

    assert "expected one of them" in error()
    _, answer = call("heights", houses, "--surface", terrain, "--planes", "-o", out)
    assert any("do not stand out" in note for note in answer["notes"])
    assert gpd.read_file(out / "houses_roof_planes.gpkg", layer=0).empty
    above = write_raster(tmp_path / "ndsm.tif", town, town.surface - town.terrain)
    _, answer = call("heights", houses, "--surface", above, "-o", out)
    assert any("lies at 0 m. Heights above ground (nDSM)" in note for note in answer["notes"])
    assert "as the surface model and" in error("--surface", terrain, "--terrain", terrain)
    assert "swapped" in error("--surface", terrain, "--terrain", write_raster(
        tmp_path / "high.tif", town, town.surface + 20
    ))  # fmt: skip
    tiles = [
        write_raster(tmp_path / f"{code}.tif", town, town.surface, crs=f"EPSG:32631+{code}")
        for code in (5773, 5703)
    ]
    assert "houses.gpkg is no raster; expected a raster of heights" in error("--surface", houses)
    assert f"--surface {terrain}" in error("--points", terrain).replace("\n", " ")
    swapped = command("heights", terrain, "--surface", folder / "surface.tif", "-o", out).err
    assert "Heights belong to --surface" in swapped
    both = error("--surface", tiles[0], "--surface", tiles[1])
    assert "EGM96 geoid and in North American Vertical Datum 1988; expected one datum" in both
    far = write_raster(
        tmp_path / "far.tif", town, town.surface, transform=Affine(0.5, 0, 7e5, 0, -0.5, NORTH)
    )
    assert "No building of" in error("--surface", far)
    elsewhere = error("--surface", folder / "surface.tif", "--terrain", far)
    assert f"lies on {far}" in elsewhere
    image = tmp_path / "image.tif"
    write_geotiff(image, np.zeros((3, 8, 8), np.uint8), crs=None, transform=None)
    assert "has 3 bands; expected one band of heights" in error("--surface", image)
    (tmp_path / "broken.laz").write_bytes(b"LASF" + bytes(100))
    assert "cannot be read as LAS or LAZ" in error("--points", tmp_path / "broken.laz")


def test_predict_measures_what_it_finds(bundle: Path, tmp_path: Path) -> None:
    heights = np.full((200, 240), 20, np.float32)
    heights[20:60, 20:80] = heights[100:150, 120:200] = 27
    image = write_geotiff(tmp_path / "town.tif", np.stack([heights > 20] * 3) * np.uint8(220))
    surface = write_geotiff(tmp_path / "surface.tif", heights)
    given = ("predict", image, "-m", bundle, "-o", tmp_path / "out")
    code, answer = call(*given, "--surface", surface, "--format", "shp", "--format", "gpkg")
    assert code == 0, answer
    assert len({*answer["heights"][0]["files"]}) == len(answer["heights"][0]["files"])
    assert gpd.read_file(tmp_path / "out" / "town_heights.shp").height.notna().all()
    assert answer["heights"][0]["height_m"] == pytest.approx(7, abs=0.01)
    layer = gpd.read_file(tmp_path / "out" / "town_heights.gpkg")
    assert layer.height.tolist() == pytest.approx([7, 7], abs=0.1)
    assert command(*given, "--terrain", surface).code == 2
    # Tiles as a shell names them, in a folder with two images, one of which lies elsewhere.
    folder, place = tmp_path / "up" / "orthophoto", PLACE["transform"]
    folder.mkdir(parents=True)
    right = {"transform": place @ Affine.translation(120, 0)}
    tiles = [
        write_geotiff(folder / "dsm_0.tif", heights[:, :120]),
        write_geotiff(folder / "dsm_1.tif", heights[:, 120:], **right),
    ]
    image.rename(folder / "town.tif")
    with rasterio.open(folder / "town.tif") as scene:
        far = {"transform": Affine.translation(90_000, 0) @ place}
        write_geotiff(folder / "elsewhere.tif", scene.read(), **far)
    given = ("predict", folder, "-m", bundle, "-o", tmp_path / "both", "--surface", *tiles)
    _, both = call(*given)
    assert [one["height_m"] for one in both["heights"]] == [answer["heights"][0]["height_m"]]
    assert [Path(one["input"]).name for one in both["outputs"]] == ["elsewhere.tif", "town.tif"]
    shown = command(*given).err.replace("\n", " ")
    assert "elsewhere_buildings.gpkg lies on" in shown
    assert "skipped" not in shown
    shutil.copy(tiles[0], folder / "dtm.tif")
    assert "skipped 1 file (heights that were not named): dtm.tif" in command(*given).err
    (folder / "dtm.tif").unlink()
    (folder / "elsewhere.tif").unlink()
    _, one = call("predict", tmp_path / "up", "-m", bundle, "-o", tmp_path / "below")
    assert [Path(done["input"]).name for done in one["outputs"]] == ["town.tif"]
