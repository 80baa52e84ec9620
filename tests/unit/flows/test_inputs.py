"""Inputs of `predict` become scenes: files, addresses, folders of one scene, areas of them."""

import pickle
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio.shutil
import shapely
from affine import Affine
from PIL import Image
from pyproj import CRS
from rasterio.vrt import WarpedVRT

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.types import Window
from rooftrace.flows.catalogue.scenes import read_catalogue
from rooftrace.flows.predict import folder_images
from rooftrace.flows.predict.inputs import adjacent_note, find_inputs
from rooftrace.io.area import read_area
from rooftrace.io.remote_raster import RemoteRaster

ORIGIN = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
URL = "https://example.org/maps/North%20end.tif?token=secret"


def write(path: Path, row: int, col: int, shape: tuple[int, int], value: int) -> None:
    write_geotiff(
        path, np.full((3, *shape), value, np.uint8), crs="EPSG:32633",
        transform=ORIGIN @ Affine.translation(col, row),
    )  # fmt: skip


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Two images side by side, with a gap below the second, and a text."""
    folder = tmp_path / "town"
    folder.mkdir()
    write(folder / "a.tif", 0, 0, (40, 30), 1)
    write(folder / "b.tif", 0, 30, (25, 50), 2)
    (folder / "notes.txt").write_text("flown in May")
    return folder


def area_over(path: Path, left: int, top: int, right: int, bottom: int) -> Path:
    """A vector file with one rectangle of pixels."""
    (x, y), (x_stop, y_stop) = ORIGIN @ (left, top), ORIGIN @ (right, bottom)
    wkb = shapely.to_wkb([shapely.box(x, y_stop, x_stop, y)])
    pyogrio.raw.write(path, wkb, [], [], geometry_type="Polygon", crs="EPSG:32633")
    return path


def test_images_side_by_side_are_one_scene(town: Path) -> None:
    (town / "b.tif.aux.xml").write_bytes("<PAMDataset><!--Ö--></PAMDataset>".encode("latin-1"))
    shutil.copy(town / "a.tif", town / "a_udm2.tif")
    found = find_inputs([town], mosaic=True)
    (job,), skipped = found.scenes, found.skipped
    assert (job.name, job.path, job.shown) == ("town", town, str(town))
    reasons = {path.name: reason for path, reason in skipped.items()}
    assert reasons == {"notes.txt": "not an image", "a_udm2.tif": "masks of other images"}
    assert any("2 images are one scene" in note for note in job.notes)
    raster = job.source.read()
    assert raster.data.shape == (3, 40, 80)
    assert raster.data[0, 10, [5, 29, 30, 79]].tolist() == [1, 1, 2, 2]
    assert not raster.valid[25:, 30:].any()
    assert raster.valid.sum() == 40 * 30 + 25 * 50
    assert pickle.loads(pickle.dumps(job)).source.read().valid.sum() == raster.valid.sum()
    job.source.close()


def test_a_vrt_of_the_images_of_a_folder_shows_no_building_twice(town: Path) -> None:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
            "</SimpleSource>"
            for name in "ab"
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    text = '<VRTDataset rasterXSize="80" rasterYSize="40">{}</VRTDataset>'
    (town / "all.vrt").write_text(text.format(bands))
    scene = find_inputs([town], mosaic=True)
    assert scene.skipped[town / "all.vrt"] == "mosaics or warped copies of these images"
    assert "2 images are one scene" in scene.scenes[0].notes[0]
    with rasterio.open(town / "a.tif") as part, WarpedVRT(part, crs="EPSG:3857") as warped:
        rasterio.shutil.copy(warped, town / "warped.vrt", driver="VRT")
    assert {town / "all.vrt", town / "warped.vrt"} < {*find_inputs([town], mosaic=True).skipped}
    (town / "warped.vrt").unlink()
    # Those that change an image, or stack bands, are images of their own.
    (town / "grey.vrt").write_text(
        text.format(bands.partition("</VRTRasterBand>")[0] + "</VRTRasterBand>")
    )
    rasterio.shutil.copy(town / "a.tif", town / "bgr.vrt", driver="VRT")
    found = find_inputs([town])
    assert [scene.name for scene in found.scenes] == ["a", "b", "bgr", "grey"]
    assert (
        f"mosaics or warped copies of these images: rooftrace predict {town / 'all.vrt'}"
        in found.notes[-1]
    )


def test_images_that_adjoin_have_a_note(town: Path, tmp_path: Path) -> None:
    [note] = adjacent_note(find_inputs([town]).scenes)
    assert note.endswith(f"rooftrace predict {town} --mosaic -o OUT")
    for number in range(2):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.pgw").write_text(f"0.5\n0\n0\n-0.5\n{20 * number}\n0\n")
    [note] = adjacent_note(find_inputs([tmp_path], crs=CRS.from_epsg(32633)).scenes)
    assert note.endswith(f"rooftrace predict {tmp_path} --mosaic --crs EPSG:32633 -o OUT")
    for col in (5, 6):
        (tmp_path / f"tiles/18/{col}").mkdir(parents=True)
        Image.new("RGB", (256, 256)).save(tmp_path / f"tiles/18/{col}/7.png")
    [note] = adjacent_note(find_inputs([tmp_path / "tiles"]).scenes)
    assert note.endswith(f"rooftrace predict {tmp_path / 'tiles'} --mosaic -o OUT")
    (town / "b.tif").unlink()
    # A coarser sheet, and the next photograph of a flight.
    for place in (Affine.translation(0, 40) @ Affine.scale(2), Affine(0.9, 0.1, 12, -0.1, 0.9, 2)):
        write_geotiff(
            town / "c.tif", np.ones((3, 40, 30)), crs="EPSG:32633", transform=ORIGIN @ place
        )
        [note] = adjacent_note(find_inputs([town]).scenes)
        assert note.endswith(f"rooftrace catalogue {town} -o OUT")
    (town / "c.tif").unlink()
    write(town / "b.tif", 0, 31, (25, 50), 2)
    assert not adjacent_note(find_inputs([town]).scenes)
    write(town / "c.tif", 3, 5, (40, 20), 2)
    assert not adjacent_note(find_inputs([town]).scenes)


def test_what_is_no_scene_is_reported(town: Path) -> None:
    with pytest.raises(ConfigError, match=r"zoom=18 .* has no tiles"):
        find_inputs([town], mosaic=True, zoom=18)
    with pytest.raises(DataError, match=r"a\.tif is not a folder"):
        find_inputs([town / "a.tif"], mosaic=True)
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(town / "photo.png")
    with pytest.raises(DataError, match=r"photo\.png has no georeference"):
        find_inputs([town], mosaic=True)


def test_photos_in_subfolders_are_images_and_no_catalogue(town: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a catalogue of scenes"):
        find_inputs([town.parent])
    for name in ("south/1", "north/2"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        Image.new("RGB", (5, 5)).save(tmp_path / "photos" / f"{name}.png")
    assert [scene.name for scene in find_inputs([tmp_path / "photos"]).scenes] == ["2", "1"]


@pytest.mark.parametrize(
    ("orthophoto", "other", "model"),
    [("odm_orthophoto/odm_orthophoto.tif", "odm_orthophoto/odm_orthophoto.png", "images/dsm.tif"),
     ("odm_orthophoto/odm_orthophoto.tif",
      "submodels/1/odm_orthophoto/odm_orthophoto.tif", "dem_0.tif"),
     ("3_dsm_ortho/2_mosaic/a_mosaic.tif", "3_dsm_ortho/2_mosaic/tiles/a_mosaic_1.tif",
      "Site_Elevation_export.tif"),
     ("map/result.tif", "map/18/133892/95730.png", "map/gsddsm.tif")],
)  # fmt: skip
def test_of_a_project_of_photogrammetry_the_orthophoto_is_predicted(
    tmp_path: Path, orthophoto: str, other: str, model: str
) -> None:
    for name in (orthophoto, other, "images/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    heights = np.linspace(310, 320, 1200, dtype=np.float32).reshape(1, 40, 30)
    for tile in {model, model.replace("_0", "_1")}:
        write_geotiff(tmp_path / tile, heights, crs="EPSG:32633", transform=ORIGIN)
    (tmp_path / orthophoto).with_suffix(".j2w").touch()
    (tmp_path / orthophoto).with_suffix(".xml").write_text("<metadata/>")
    found = find_inputs([tmp_path])
    scenes = (*found.scenes, *find_inputs([(tmp_path / orthophoto).parent]).scenes)
    assert [scene.path for scene in scenes] == [tmp_path / orthophoto] * 2
    assert "2 files (other images of the project" in found.notes[0]
    pattern = shlex.quote(str(tmp_path / model.replace("_0", "_*")))
    assert f"--surface {pattern})" in found.notes[1]
    assert not any("not an image" in note for note in find_inputs([tmp_path]).notes)
    (scene,) = read_catalogue(str(tmp_path)).scenes
    assert scene.location == str(tmp_path / orthophoto)


def test_an_address_is_a_scene_and_keeps_its_secrets() -> None:
    found = find_inputs([URL])
    (job,), skipped = found.scenes, found.skipped
    assert isinstance(job.source, RemoteRaster)
    assert (job.name, skipped) == ("North end", {})
    assert job.shown == "https://example.org/maps/North%20end.tif"
    assert "secret" not in repr(job)
    for other in ("gopher://example.org/a.tif", "https://me:secret@example.org/a.tif"):
        with pytest.raises(DataError, match="begins with https") as caught:
            find_inputs([other])
        assert "secret" not in str(caught.value)


def test_a_scene_changes_with_the_files_beside_it_and_those_of_a_vrt(tmp_path: Path) -> None:
    write(tmp_path / "part.tif", 0, 0, (20, 30), 5)
    (tmp_path / "inner.vrt").write_text(
        '<VRTDataset rasterXSize="30" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">part.tif</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    text = (tmp_path / "inner.vrt").read_text()
    (tmp_path / "outer.vrt").write_text(text.replace("part.tif", "inner.vrt"))
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.png")
    (tmp_path / "photo.pgw").write_text("1\n0\n0\n-1\n0\n0\n")

    def stamp(name: str) -> str:
        (scene,) = find_inputs([tmp_path / name]).scenes
        return scene.read_stamp()

    before = stamp("outer.vrt"), stamp("photo.png")
    assert before == (stamp("outer.vrt"), stamp("photo.png"))
    write(tmp_path / "part.tif", 0, 0, (21, 30), 6)
    (tmp_path / "photo.pgw").write_text("1\n0\n0\n-1\n1000\n0\n")
    after = stamp("outer.vrt"), stamp("photo.png")
    assert not set(before) & set(after)
    (tmp_path / "photo.png.aux.xml").write_text("<PAMDataset/>")
    assert stamp("photo.png") != after[1]


def test_a_mosaic_changes_with_its_images_not_with_results_in_its_folder(town: Path) -> None:
    (scene,) = find_inputs([town], mosaic=True).scenes
    (town / "out").mkdir()
    write(town / "out" / "town_mask.tif", 0, 0, (40, 80), 1)
    (town / "run.json").write_text("{}")
    scene.check_unchanged()
    (town / "b.tfw").write_text("0.5\n0\n0\n-0.5\n500015\n5000000\n")
    with pytest.raises(DataError, match="was changed while"):
        scene.check_unchanged()
    (town / "b.tfw").unlink()
    scene.check_unchanged()
    write(town / "b.tif", 0, 30, (25, 50), 3)
    with pytest.raises(DataError, match="was changed while"):
        scene.check_unchanged()


def test_an_empty_or_unreadable_image_is_one_that_fails(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file was left out as no image: a part of a town was missing at exit status 0."""
    (town / "c.tif").touch()
    secret = town / "d.tif"
    write(secret, 0, 0, (9, 9), 1)
    real = Path.open

    def refuse(path: Path, *given: Any, **options: Any) -> Any:
        if path == secret:
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **options)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(folder_images, "is_raster", lambda path: path.name in ("a.tif", "b.tif"))
    found = find_inputs([town])
    assert [scene.path.name for scene in found.scenes] == ["a.tif", "b.tif", "c.tif", "d.tif"]
    assert [path.name for path in found.skipped] == ["notes.txt"]


def test_an_area_leaves_out_what_it_misses_and_says_so(town: Path, tmp_path: Path) -> None:
    area = read_area(area_over(tmp_path / "west.gpkg", 5, 5, 20, 15))
    (job,) = find_inputs([town], area=area).scenes
    assert job.name == "a"
    assert any("left out: " in note and "b.tif" in note for note in job.notes)
    valid = job.source.read().valid
    assert valid[5:15, 5:20].all()
    assert valid.sum() == 10 * 15
    (scene,) = find_inputs([town], mosaic=True, area=area).scenes
    assert scene.source.grid.shape == (40, 80)
    assert scene.source.read().valid.sum() == 10 * 15
    assert scene.source.read(Window(0, 30, 40, 50)).valid.sum() == 0


def test_an_area_that_misses_everything_is_an_error(town: Path, tmp_path: Path) -> None:
    area = read_area(area_over(tmp_path / "far.gpkg", 5000, 5000, 6000, 6000))
    for mosaic in (False, True):
        with pytest.raises(DataError, match=r"far\.gpkg lies outside"):
            find_inputs([town], mosaic=mosaic, area=area)
