"""Images as people have them: world files and `.prj`, infrared as alpha, formats to convert."""

import os
from contextlib import nullcontext
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import CRS
from rasterio.enums import ColorInterp
from rasterio.shutil import copy

from command_line import command
from raster_files import write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.io.companions import FolderNames, companions, with_sidecars
from rooftrace.io.gdal import open_quietly
from rooftrace.io.image_header import read_header
from rooftrace.io.raster import open_raster
from rooftrace.io.vector_read import VectorFile
from tiny_models import write_tiny_bundle

UTM = CRS(32645)
WORLD = "0.149\n0\n0\n-0.149\n335000.0745\n3054999.9255\n"
"""The centre of the first pixel; its corner is 335000, 3055000."""

FEET = CRS("+proj=utm +zone=45 +datum=WGS84 +units=us-ft")


def write_image(folder: Path, suffix: str = "jpg", world: str = "jgw", prj: str = "") -> Path:
    path = folder / f"scene.{suffix}"
    pixels = np.random.default_rng(3).integers(0, 255, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    if world:
        (folder / f"scene.{world}").write_text(WORLD)
    if prj:
        (folder / "scene.prj").write_text(prj)
    return path


@pytest.mark.parametrize(
    ("suffix", "world", "form"),
    [("jpg", "jgw", "esri"), ("jpg", "JGW", "wkt2"), ("jpg", "jpgw", "code"),
     ("jpg", "wld", "proj"), ("png", "pgw", "esri"), ("tif", "tfw", "wkt2"),
     ("bmp", "bpw", "code"), ("webp", "webpw", "esri"), ("png", "pgwx", "esri"),
     ("jpg", "jgwx", "wkt2"), ("tif", "tfwx", "wkt2"), ("png", "wld", "proj")],
)  # fmt: skip
def test_a_world_file_and_a_prj_place_an_image(
    tmp_path: Path, suffix: str, world: str, form: str
) -> None:
    texts = {
        "esri": UTM.to_wkt("WKT1_ESRI"), "wkt2": UTM.to_wkt(pretty=True), "code": "EPSG:32645\n",
        "proj": "+proj=utm +zone=45 +datum=WGS84 +units=m",
    }  # fmt: skip
    path = write_image(tmp_path, suffix, world, texts[form])
    grid = open_raster(path).grid
    assert grid.crs is not None
    assert grid.crs.equals(UTM, ignore_axis_order=True) or form == "proj"
    assert np.allclose(
        grid.bounds_xy, (335000, 3055000 - 96 * 0.149, 335000 + 128 * 0.149, 3055000)
    )
    assert grid.gsd_m == pytest.approx(0.149, rel=2e-3)
    assert {tmp_path / f"scene.{world}", tmp_path / "scene.prj"} <= {*companions(path)}


TAB = """!table
!version 300
Definition Table
  File "scene.png"
  Type "RASTER"
  (335000,3055000) (0,0) Label "Pt 1",
  (335019.072,3055000) (128,0) Label "Pt 2",
  (335000,3054985.696) (0,96) Label "Pt 3"
  CoordSys Earth Projection 8, 104, "m", 87, 0, 0.9996, 500000, 0
  Units "m"
"""


def test_a_table_of_mapinfo_places_an_image(tmp_path: Path) -> None:
    path = write_image(tmp_path, "jpg", "")
    (tmp_path / "scene.tab").write_text(TAB)
    grid = open_raster(path).grid
    assert grid.crs is not None
    assert grid.crs.equals(UTM, ignore_axis_order=True)
    assert grid.transform.to_gdal() == pytest.approx((335000, 0.149, 0, 3055000, 0, -0.149))
    assert tmp_path / "scene.tab" in companions(path)
    assert not find_inputs([tmp_path]).skipped


def test_a_listed_folder_is_not_asked_for_files_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = write_image(tmp_path, "png", "pgw"), list[str]()
    with open_quietly(path) as dataset:
        header = read_header(dataset, str(path), "colours")
    monkeypatch.setattr(os, "stat", lambda file: asked.append(file) or os.lstat(file))
    with_sidecars(path, header, FolderNames(tmp_path))
    assert asked == [str(path.with_suffix(".pgw"))]


def test_feet_without_a_code_stay_feet(tmp_path: Path) -> None:
    grid = open_raster(write_image(tmp_path, prj=FEET.to_wkt("WKT1_ESRI"))).grid
    assert grid.gsd_m == pytest.approx(0.149 * 0.3048006, rel=2e-3)


def test_a_prj_without_a_position_is_not_used(tmp_path: Path) -> None:
    assert open_raster(write_image(tmp_path, world="", prj="EPSG:32645")).grid.crs is None


def test_a_damaged_prj_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scene\.prj .*is not a coordinate system.*'nonsense'"):
        _ = open_raster(write_image(tmp_path, prj="nonsense")).grid


def test_degrees_beyond_the_earth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lies at longitude 335000"):
        _ = open_raster(write_image(tmp_path, prj="EPSG:4326")).grid


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace")


@pytest.mark.parametrize(
    ("crs", "mosaic"), [("EPSG:32645", False), ("32645", True), (UTM.to_wkt(), False)]
)
def test_the_option_crs_places_an_image_that_states_none(
    tmp_path: Path, tiny: Path, crs: str, mosaic: bool
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    path = write_image(images)
    given = [images, "--mosaic"] if mosaic else [path]
    result = command("predict", *given, "-m", tiny, "-o", tmp_path / "out", "--crs", crs)
    assert result.code == 0, result.err
    grid = open_raster(next((tmp_path / "out").glob("*_mask.tif"))).grid
    assert grid.crs is not None
    assert grid.crs.equals(UTM)
    assert grid.transform.c == pytest.approx(335000)
    assert "0.4 m" not in result.err


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [("EPSG:32645", {"world": ""}, "has no position"),
     ("EPSG:32644", {"prj": "EPSG:32645"}, "is in EPSG:32645 (WGS 84 / UTM zone 45N)"),
     ("UTM 45", {}, "--crs received 'UTM 45'")],
)  # fmt: skip
def test_the_option_crs_is_refused(
    tmp_path: Path, tiny: Path, given: str, kind: dict[str, str], message: str
) -> None:
    path = write_image(tmp_path, **kind)
    result = command("predict", path, "-m", tiny, "-o", tmp_path / "out", "--crs", given)
    assert result.code == 2
    assert message in " ".join(result.err.split())


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("is_smooth", [False, True])
def test_alpha_stays_alpha(tmp_path: Path, suffix: str, is_smooth: bool) -> None:
    alpha = np.full((96, 128), 255, np.uint8)
    alpha[:, :20] = 0
    if is_smooth:
        alpha[:, 20:40] = np.linspace(1, 254, 20).astype(np.uint8)
    rng = np.random.default_rng(1)
    bands = np.concatenate([rng.integers(1, 255, (3, 96, 128), np.uint8), alpha[None]])
    driver = {"tif": "GTiff", "png": "PNG"}[suffix]
    path = write_geotiff(tmp_path / f"scene.{suffix}", bands, driver=driver)
    if suffix == "tif":
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [*file.colorinterp[:3], ColorInterp.alpha]
    source = open_raster(path)
    assert (source.bands, source.notes) == (3, ())
    assert (source.read().valid == (alpha > 0)).all()


@pytest.mark.parametrize(
    ("name", "command_text"),
    [("map.pdf", "gdal_translate map.pdf map.tif"), ("map.ecw", "gdal_translate map.ecw map.tif"),
     ("map.SID", "gdal_translate map.SID map.tif"), ("map.zip", "unzip map.zip -d map"),
     ("map.pmtiles", "pmtiles-convert map.pmtiles map.mbtiles"), ("map.avif", "magick map.avif"),
     ("map.zarr", "'ZARR:\"map.zarr\":/ARRAY' map.tif"), ("map.heic", "heif-convert map.heic"),
     ("a map.tar.gz", "tar -xf 'a map.tar.gz'"), ("map.tif.gz", "gunzip -k map.tif.gz"),
     ("a.osm.bz2", "bunzip2 -k a.osm.bz2"),
     ("map.7z", "7z x map.7z"), ("map.rar", "unrar x map.rar"), ("map.jxl", "magick map.jxl"),
     ("map.dng", "raw photograph"), ("map.mp4", "rooftrace video map.mp4"),
     ("map.laz", "point cloud"), ("map.qlr", "is a project"), ("S2A.SAFE", "pixels of 10 m"),
     ("map.csv", "is a table"), ("wms.xml", "describes a map service")],
)  # fmt: skip
def test_formats_that_are_not_read_name_the_command_that_converts_them(
    tmp_path: Path, tiny: Path, name: str, command_text: str
) -> None:
    path = tmp_path / name
    if name.endswith(("zarr", "SAFE")):
        path.mkdir()
    else:
        path.write_bytes(b"<GDAL_WMS/>" if name == "wms.xml" else b"%PDF-1.7 or another content")
    result = command("predict", path, "-m", tiny, "-o", tmp_path / "out")
    assert result.code == 3
    message = " ".join(result.err.split())
    assert "is of a format that is not read" in message
    # Paths are those that were given.
    assert command_text in message.replace(f"{tmp_path}/", "")
    assert message.count(str(path)) == 1 + (name in command_text)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", ["a.nc", "a.h5"])
def test_layers_of_netcdf_and_hdf5_are_to_be_exported(tmp_path: Path, name: str) -> None:
    image = write_geotiff(tmp_path / "bands.tif", np.full((3, 20, 30), 9, np.uint8))
    copy(image, tmp_path / "made.nc", driver="netCDF", FORMAT="NC4")
    (tmp_path / "made.nc").rename(tmp_path / name)
    with pytest.raises(DataError, match="no colour band: 3 subdatasets") as caught:
        open_raster(tmp_path / name).read()
    assert "Export the layer" in caught.value.remedy


@pytest.mark.parametrize("name", ["DIM_PHR.XML", "scene.TIL", "scene.kml"])
def test_files_that_describe_the_images_beside_them_are_no_further_images(
    tmp_path: Path, name: str
) -> None:
    suffix, text = ("png", OVERLAY) if name.endswith("kml") else ("tif", DIMAP)
    image = write_image(tmp_path, suffix, "")
    (tmp_path / name).write_text(text.format(image.name))
    found = find_inputs([tmp_path])
    assert [scene.path for scene in found.scenes] == [image]
    if name.endswith("XML"):  # by itself it is read
        assert find_inputs([tmp_path / name]).scenes[0].source.grid.shape == (96, 128)
    if name.endswith("kml"):
        assert found.notes[0].startswith("skipped 1 file (places a picture: rooftrace predict ")
        other = "<NetworkLink><Link><href>http://x/y.kml</href></Link></NetworkLink>"
        (tmp_path / "doc.kml").write_text(f"<kml><Document>{other}</Document></kml>")
        for read in (lambda path: open_raster(path).grid, lambda path: VectorFile(path).read()):
            with pytest.raises(DataError, match="but 1 link"):
                read(tmp_path / "doc.kml")
        # The root of a pyramid with two tiles at its coarsest zoom.
        link = f"<NetworkLink><Region><LatLonAltBox>{BOX}</LatLonAltBox></Region><Link><href>"
        links = 2 * f"{link}{name}</href></Link></NetworkLink>"
        (tmp_path / "doc.kml").write_text(f"<kml><Document>{links}</Document></kml>")
        with pytest.raises(DataError, match="links to 2 tiles") as caught:
            open_raster(tmp_path / "doc.kml").read()
        assert f"predict {tmp_path} --mosaic" in caught.value.remedy
        for turn in ("", "<rotation>30</rotation>"):
            with ZipFile(tmp_path / "scene.kmz", "w") as archive:
                archive.write(image, image.name)
                placed = OVERLAY.replace("</LatLonBox>", f"{turn}</LatLonBox>")
                archive.writestr("doc.kml", placed.format(image.name))
            with pytest.raises(DataError, match="rotated by 30°") if turn else nullcontext():
                grid = open_raster(tmp_path / "scene.kmz").grid
        assert tuple(grid.to_world(grid.width, grid.height)) == pytest.approx((1, 0))


BOX = "<north>1</north><south>0</south><east>1</east><west>0</west>"
OVERLAY = (
    f"<kml><Document><Region><LatLonAltBox>{BOX}</LatLonAltBox></Region><GroundOverlay><Icon><href>"
    f"{{}}</href></Icon><LatLonBox>{BOX}</LatLonBox></GroundOverlay></Document></kml>"
)
"""What gdal2tiles writes beside each tile for Google Earth."""

DIMAP = """<?xml version="1.0"?><Dimap_Document><Metadata_Identification>
<METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification><Dataset_Content/>
<Raster_Data><Data_Access><DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT><Data_Files>
<Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="{}"/></Data_File></Data_Files></Data_Access>
<Raster_Dimensions><NROWS>96</NROWS><NCOLS>128</NCOLS><NBANDS>3</NBANDS></Raster_Dimensions>
<Raster_Encoding><DATA_TYPE>INTEGER</DATA_TYPE><NBITS>8</NBITS></Raster_Encoding></Raster_Data>
</Dimap_Document>"""
