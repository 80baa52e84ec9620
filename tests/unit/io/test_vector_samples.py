"""The same file means the same buildings in every command."""

import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from pyproj import CRS

from raster_files import write_geotiff
from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.types import GeoGrid
from rooftrace.flows.compare.inputs import read_buildings_layer
from rooftrace.flows.density.inputs import read_buildings, scene_files
from rooftrace.flows.evaluate.layers import PolygonPredictions
from rooftrace.flows.evaluate.prediction_names import find_predictions
from rooftrace.io.area import read_area
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.io.vector_read import VectorFile
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from vector_samples import (
    LAYERED,
    NORTH,
    SAMPLES,
    TOWN,
    UNPLACED,
    UTM,
    WEST,
    collection,
    differing_m2,
    other,
)

GRID = GeoGrid((640, 640), Affine(0.1, 0, WEST, 0, -0.1, NORTH), CRS.from_epsg(UTM))
SLACK_M2 = 1.5
"""Area by which a format may differ that rounds coordinates, of 756 m² of buildings: GDAL keeps
7 decimal places of nodes of OpenStreetMap."""

Found = tuple[Sequence[Any], Any, Sequence[str]]


def by_density(path: Path, layer: str | None, _: Path) -> Found:
    assert scene_files([path]) == (None, path)
    found = read_buildings(path, layer_name=layer)
    return list(found.geometry), found.crs, found.notes


def by_compare(path: Path, layer: str | None, folder: Path) -> Found:
    found = read_buildings_layer(path, folder, layer_name=layer)
    return [one for _, part in found.outlines.chunks() for one in part], found.crs, found.notes


def by_labels(path: Path, layer: str | None, folder: Path) -> Found:
    image = write_geotiff(
        folder / "image.tif", np.full(GRID.shape, 9, np.uint8), crs=GRID.crs,
        transform=GRID.transform,
    )  # fmt: skip
    source = open_source(SourceConfig(path=str(path), images=str(image), layer=layer))
    (entry,) = source.entries
    label: Any = source.open_scene(entry).label
    return [_on_ground(one) for one in label.geometry], GRID.crs, source.notes


def by_predictions(path: Path, layer: str | None, _: Path) -> Found:
    (file,) = find_predictions(path).vectors
    classes = ("background", "building")
    polygons = PolygonPredictions({"a": (file,)}, classes, 1, layer)
    found, notes = polygons.on("a", GRID, np.ones(GRID.shape, np.bool_))
    return [_on_ground(one) for one in found.outlines], GRID.crs, notes


def _on_ground(one: Any) -> Any:
    import shapely

    return shapely.transform(one, lambda xy: np.stack(GRID.to_world(xy[:, 0], xy[:, 1]), axis=1))


COMMANDS: dict[str, Callable[[Path, str | None, Path], Found]] = {
    "density": by_density,
    "compare": by_compare,
    "labels": by_labels,
    "predictions": by_predictions,
}


NAMES = [*SAMPLES, *LAYERED]
PAIRS = [(NAMES[0], command) for command in COMMANDS]
PAIRS += list(zip(NAMES[1:], cycle(COMMANDS)))
"""All commands read by `VectorFile`: the first format in each of them, the others by turns."""


@pytest.mark.parametrize(("name", "command"), PAIRS)
def test_a_format_gives_the_same_buildings_in_every_command(
    name: str, command: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    path = {**SAMPLES, **LAYERED}[name](tmp_path / "data")
    before = sorted((tmp_path / "data").rglob("*"))
    geometry, crs, notes = COMMANDS[command](path, "*" if name in LAYERED else None, tmp_path)
    assert len(geometry) == len(TOWN)
    assert differing_m2(geometry, crs) < SLACK_M2
    expected = NOTES.get(name, ())
    assert [note for note in expected if not any(note in said for said in notes)] == []
    assert "CSV with" not in name or VectorFile(path).fields == ("id",)
    # Nothing is written beside the data of a user.
    assert sorted((tmp_path / "data").rglob("*")) == before


NOTES = {
    "overpass-turbo GeoJSON": (
        "2 points and lines left out", "3 polygons of another class than building left out",
    ),
    **dict.fromkeys(
        [f"GeoJSON with {field}" for field in ("class", "type", "theme", "art")],
        ("1 polygon of another class than building left out",),
    ),
    "Shapefile without .shx": ("it is made anew",),
    "CSV with WKT": ("read as longitude and latitude",),
    "CSV with hex WKB": ("read as longitude and latitude",),
    "CSV with EWKT": ("1 feature without an outline left out",),
}  # fmt: skip


def test_the_encoding_of_a_shapefile_without_cpg_or_of_a_table_shows_in_its_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "town.shp"
    streets = ["Rue de l’Église", "Höhenstraße", "Bahnhof"] * (len(TOWN) // 3)
    for encoding in ("UTF-8", "CP1252"):  # the second file takes the place of the first
        TOWN.assign(Straße=streets).to_file(path, encoding=encoding)
        path.with_suffix(".cpg").unlink()
        file = VectorFile(path)
        layer = file.read(["Straße"])
        assert layer.values["Straße"].tolist() == streets
        note = f"town.shp states no encoding (.cpg): read as {encoding}."
        assert file.notes(layer.counts) == (note,)
        packed = tmp_path / "town.shp.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for one in tmp_path.glob("town.[sd]*"):
                if one != packed:
                    archive.write(one, one.name)
        assert VectorFile(packed).notes(layer.counts) == (f"{packed.name}: {note}",)
    monkeypatch.setenv("SHAPE_ENCODING", "CP1251")  # of GDAL
    (name,) = set(VectorFile(path).fields) - set(TOWN)
    assert name == "Straße".encode("CP1252").decode("cp1251")
    placed = TOWN.to_crs(4326).assign(Straße=streets)
    excel = path.with_suffix(".csv")
    path.with_suffix(".csvt").write_text("String,WKT,String")
    TOWN.to_wkt().assign(Straße=streets).to_csv(excel, sep=";", encoding="cp1252", index=False)
    file = VectorFile(excel)
    layer = file.read(["Straße", "height"], typed=True)
    assert layer.values["Straße"].tolist() == streets
    # Its .prj and .csvt are read, too.
    assert (layer.crs, layer.values["height"][0]) == (VectorFile(path).crs, "3.5")
    assert file.notes(layer.counts)[0] == "town.csv is not UTF-8: read as CP1252."
    path.with_suffix(".geojson").write_text(placed.to_json(ensure_ascii=False), "cp1252")
    excel.write_text(excel.read_text("cp1252"), "utf-16")
    for one in (excel, path.with_suffix(".geojson")):
        with pytest.raises(DataError) as error:
            VectorFile(one).read(["Straße"])
        assert "encoding UTF-8" in str(error.value.remedy)


@pytest.mark.parametrize("name", LAYERED)
def test_several_layers_are_listed_with_the_option(name: str, tmp_path: Path) -> None:
    path = LAYERED[name](tmp_path)
    with pytest.raises(DataError, match=r"2 layers of polygons.*north.*south") as several:
        VectorFile(path).read()
    assert "--layer north" in several.value.remedy
    assert len(VectorFile(path, "south").read()) == len(read_area(path, "south").geometry) == 6
    assert len(VectorFile(path, "of another file,south").read()) == 6
    with pytest.raises(DataError, match="several of the layers north,south"):
        VectorFile(path, "north,south").read()
    with pytest.raises(DataError, match="expected one called 'east'"):
        VectorFile(path, "east").read()


def test_srids_that_are_no_coordinate_system(tmp_path: Path) -> None:
    path = tmp_path / "town.csv"
    for srids, message in (((32633, 3857), "the SRIDs 3857, 32633"), ((999999,), "EPSG:999999")):
        rows = [f'"SRID={srid};POLYGON ((0 0, 1 0, 1 1, 0 0))"' for srid in srids]
        path.write_text("\n".join(["geom", *rows]))
        with pytest.raises(DataError, match=message):
            VectorFile(path).read()


@pytest.mark.parametrize("name", UNPLACED)
def test_a_file_without_a_coordinate_system_says_how_to_assign_one(
    name: str, tmp_path: Path
) -> None:
    path = UNPLACED[name](tmp_path)
    assert is_vector_file(path)
    with pytest.raises(GeoreferenceError, match="has no coordinate system") as unplaced:
        VectorFile(path).read()
    assert unplaced.value.remedy.endswith(f"{path}")
    assert ("Layer IN ('A', 'B')" in shlex.split(unplaced.value.remedy)) == (name == "DXF")
    if shutil.which("ogr2ogr"):
        words = shlex.split(unplaced.value.remedy.replace("EPSG:…", f"EPSG:{UTM}"))
        subprocess.run(words[words.index("ogr2ogr") :], cwd=tmp_path, check=True)
        layer = VectorFile(tmp_path / "OUT.gpkg").read()
        assert differing_m2([*layer.geometry], layer.crs) < SLACK_M2


def test_an_area_is_every_polygon(tmp_path: Path) -> None:
    """Land use limits the work as well as a building does."""
    path = tmp_path / "area.geojson"
    whole = other(TOWN.geometry[0].buffer(50), landuse="residential")
    path.write_text(collection(whole, tags={"building": "yes"}))
    assert len(read_area(path).geometry) == len(TOWN) + 1


def test_json_without_a_place_names_the_remedy(tmp_path: Path) -> None:
    (path := tmp_path / "town.json").write_text('{"elements": [{"type": "way", "id": 1}]}')
    with pytest.raises(DataError, match=r"no coordinates.*out geom"):
        VectorFile(path).read()
    path.write_text('{"type": "CityJSON", "CityObjects": {}, "vertices": []}')
    with pytest.raises(GeoreferenceError, match=r"no EPSG code.*crs_assign"):
        VectorFile(path).read()
    (path := tmp_path / "a.osc").write_text("<osmChange/>")
    with pytest.raises(DataError, match="osmium apply-changes MAP"):
        VectorFile(path).read()


@pytest.mark.parametrize(
    ("name", "text"),
    [("table.csv", "id,name\n1,a\n"),
     ("chips.csv", 'ImageId,PolygonWKT_Pix\na,"POLYGON ((0 0, 1 0, 1 1, 0 0))"\n'),
     ("coco.json", '{"images": [], "annotations": [], "categories": []}'),
     ("cvat.xml", "<?xml version='1.0'?><annotations/>"), ("rows.db", "SQLite format 3\0"),
     ("damaged.csv.gz", "not compressed"), ("damaged.zip", "not an archive")],
)  # fmt: skip
def test_other_tables_and_documents_are_not_vector_data(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert not is_vector_file(tmp_path / name)
