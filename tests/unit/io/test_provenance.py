"""The origin of an image: dates in files, the name of the file, and what the user states."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from shapely import box

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError
from rooftrace.core.types import ResultProvenance
from rooftrace.io.area import Area, AreaSource
from rooftrace.io.bands import find_bands
from rooftrace.io.georeferenced import (
    ArraySource,
    parse_imagery_date,
    provenance_of,
    recorded_provenance,
)
from rooftrace.io.image_header import imagery_date, named_dates
from rooftrace.io.raster import open_raster


@pytest.mark.parametrize(
    ("tag", "text", "date"),
    [
        ("TIFFTAG_DATETIME", "2024:05:17 10:31:00", "2024-05-17T10:31:00"),
        ("EXIF_DateTimeOriginal", "2023:01:02 03:04:05", "2023-01-02T03:04:05"),
        ("ACQUISITIONDATETIME", "2013-06-14T10:31:00.25Z", "2013-06-14T10:31:00Z"),
        ("ACQUISITIONDATETIME", "2013-06-14", "2013-06-14"),
        ("TIFFTAG_DATETIME", "0000:00:00 00:00:00", None),
        ("TIFFTAG_DATETIME", "last summer", None),
    ],
)
def test_imagery_date_of_tags(tag: str, text: str, date: str | None) -> None:
    tags = {"TIFFTAG_DATETIME": "2024", tag: text}
    assert imagery_date(tags) == date
    # The file of a scan is younger than its picture.
    is_of_file = not {"ACQUISITIONDATETIME", "EXIF_DateTimeOriginal"} & {*tags}
    for name in ("scans/sheet 12_1944-07.tif", "scans_1944/sheet 12.tif"):
        assert imagery_date(tags, name) == (None if is_of_file else date)
    assert imagery_date(tags, "12345_19441.tif") == date
    # Of a scan without a year in its name, points per inch of a TIFF, or per cm of a JPEG, tell it.
    for points, unit, is_scan in (("600", "2 (pixels/inch)", True), ("96.0", "2", False)):
        tiff = tags | {"TIFFTAG_XRESOLUTION": points, "TIFFTAG_RESOLUTIONUNIT": unit}
        assert imagery_date(tiff, "sheet 12.tif") == (None if is_of_file and is_scan else date)
    jpeg = tags | {"EXIF_XResolution": "(300)", "EXIF_ResolutionUnit": "3"}
    assert imagery_date(jpeg, "sheet 12.jpg") == (None if is_of_file else date)


@pytest.mark.parametrize(
    "row",
    [
        "ortho_2019=2019", "20190612_101112_0e20=2019-06-12", "DOP20_32_380_5820_2019=2019",
        "dop_32_2000=2000", "07-2020-0830-6400-LA93=2020", "1944_083=1944", "a_2019-06-31=2019",
        "swissimage-dop10_2019_2600-1199_0.1_2056=2019", "m_3811949_sw_11_060_20200615=2020-06-15",
        "town_2018-2023_02a=2018=2023-02", "tile_2000_1000", "2000_0", "scene_1920x1080",
        "frame 1080x1920", "1920_1200", "1920-1080", "2016_0", "dop_32_400_5800_2000",
        "dop_32_400_5792_2016=2016", "town_2008_2016=2008=2016", "2016_2656-1200=2016",
    ],
)  # fmt: skip
def test_dates_in_names(row: str) -> None:
    name, *dates = row.split("=")
    assert named_dates(name) == dates
    # The date of the file counts unless an earlier year is known.
    found = imagery_date({"TIFFTAG_DATETIME": "2024:05:17 10:31:00"}, f"{name}.tif")
    assert (found is None) == bool(dates)


def test_stated_dates() -> None:
    for text in ("2015", "2015-06", "2024-05-17", "2024-05-17T10:31:00Z", "2024-05-01/2024-06"):
        assert parse_imagery_date(text) == text
    for text in ("17.5.2024", "2024-13", "24", "2024-05-01/2024-05-02/2024-05-03", "", "/"):
        with pytest.raises(ConfigError, match="imagery date"):
            parse_imagery_date(text)


def test_file_states_its_name_and_date(tmp_path: Path) -> None:
    path = tmp_path / "town.tif"
    write_geotiff(path, np.ones((3, 8, 8), np.uint8))
    with rasterio.open(path, "r+") as out:
        out.update_tags(TIFFTAG_DATETIME="2024:05:17 10:31:00")
    found = provenance_of(open_raster(path))
    assert found == ResultProvenance("2024-05-17T10:31:00", image="town.tif")
    assert found.credit() == "2024-05-17T10:31:00", "the name of an image is no attribution"
    assert replace(found, source="© A").credit() == "© A, 2024-05-17T10:31:00"
    assert replace(found, source="© A").columns()["source"] == "© A"
    assert found.columns()["source"] == "town.tif"
    record = {"image": "a.tif", "licence": "CC BY", "source": "© A"}
    read = recorded_provenance({"provenance": record})
    assert (read.source, read.image) == ("© A", "a.tif")
    area = Area("area", np.array([box(0, 0, 8, 8)], object), None)
    assert provenance_of(AreaSource(open_raster(path), area)) == found
    assert provenance_of(ArraySource(np.ones((3, 8, 8), np.uint8))) == ResultProvenance()


def test_metadata_file_beside_a_satellite_image(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    write_geotiff(path, np.ones((4, 8, 8), np.uint16))
    bands = "".join(f"BEGIN_GROUP = BAND_{c}\n\tULX = 1;\nEND_GROUP = BAND_{c}\n" for c in "BGRN")
    # The metadata file of a Maxar product, which GDAL reads.
    (tmp_path / "scene.IMD").write_text(
        f'version = "R";\n{bands}BEGIN_GROUP = IMAGE_1\n\tsatId = "WV02";\n'
        "\tfirstLineTime = 2013-06-14T10:31:00.250000Z;\nEND_GROUP = IMAGE_1\nEND;\n"
    )
    image = open_raster(path)
    assert provenance_of(image).imagery_date == "2013-06-14T10:31:00"
    assert find_bands(image.band_info, ("red", "green", "blue"), None, "scene").numbers == (3, 2, 1)
