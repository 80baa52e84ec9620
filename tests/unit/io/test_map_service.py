"""URLs of tiles, zoom levels, and the tiles under an area."""

import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import shapely
from pyproj import CRS

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.io.area import Area
from rooftrace.io.capabilities import read_capabilities
from rooftrace.io.map_service import (
    is_capabilities,
    is_template,
    plain_url,
    result_name,
    slippy_level,
    tiles_in_area,
    without_secrets,
    xyz_service,
)
from rooftrace.io.web_mercator import WORLD_M, TileName, web_mercator

HOST = "https://tiles.example.org"


def area_of(*polygons: shapely.Polygon, crs: CRS | None = None) -> Area:
    found = np.empty(len(polygons), np.object_)
    found[:] = polygons
    return Area(found, crs or web_mercator(), "town.geojson")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("/{z}/{x}/{y}.png", "/5/9/22.png"), ("/{z}/{x}/{-y}.png", "/5/9/9.png"),
        ("/tiles?q={q}&key=abc", "/tiles?q=21221&key=abc"), ("/%7Bz%7D/%7Bx%7D/%7By%7D", "/5/9/22"),
        ("/a b/{z}/{x}/{y}", "/a%20b/5/9/22"),
    ],
)  # fmt: skip
def test_placeholders(template: str, expected: str) -> None:
    service = xyz_service(HOST + template)
    assert service.url(service.level(5), 22, 9) == HOST + expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("/{z}/{x}.png", "does not name a tile"), ("/{s}/{z}/{x}/{y}.png", r"has \{s\}"),
        ("/{z}/{x}/{y}{r}.png", r"has \{r\}"), ("/{z}/{x}/{y}/{time}", r"has \{time\}"),
        ("/ows?map=a&LAYERS=b&SRS={proj}&BBOX={bbox}", r"ows\?map=a&SERVICE=.*Cap.* --layer b"),
    ],
)  # fmt: skip
def test_a_wrong_template_says_what_was_expected(template: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        xyz_service(HOST + template)
    assert re.search(message, f"{caught.value} {caught.value.remedy}")


@pytest.mark.parametrize("end", ["", "/", "/export?bbox={bbox}&f=image", "?f=pjson"])
def test_a_service_of_arcgis_has_tiles_and_a_wms(end: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_inputs([f"{HOST}/arcgis/rest/services/Town/Ortho/MapServer{end}"])
    for part in ("rest/services/Town/Ortho/MapServer/tile/{z}/{y}/{x}'", "/arcgis/services/Town/"):
        assert part in caught.value.remedy


def test_a_user_name_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(DataError) as failed:
        xyz_service("https://me:secret@example.org/{z}/{x}/{y}.png")
    assert "secret" not in str(failed.value)


def test_what_is_an_address_of_a_service() -> None:
    assert is_template(HOST + "/{z}/{x}/{y}.png")
    assert is_template(HOST + "/{q}.png")
    assert not is_template(HOST + "/scene.tif")
    assert not is_template("folder/{z}.tif")
    assert is_capabilities(HOST + "/wmts/1.0.0/WMTSCapabilities.xml")
    assert is_capabilities(HOST + "/ows?service=WMS&request=GetCapabilities")
    assert is_capabilities(HOST + "/ows?Service=wmts")
    assert not is_capabilities(HOST + "/scene.tif?key=1")
    assert not is_capabilities("s3://bucket/capabilities.xml")
    josm = plain_url(f"tms[1,22]:{HOST}/{{zoom}}/{{x}}/{{!y}}.png")
    assert josm == HOST + "/{z}/{x}/{-y}.png#zmax=22"
    coded = f"http-header:referer=&type=xyz&url={quote(HOST, safe='')}/t?v%3D1%26k%3D{{q}}&zmax=20"
    assert plain_url(coded) == HOST + "/t?v=1&k={q}#zmax=20"
    ows = f"crs=EPSG:3857&layers=photo&styles&url={HOST}/ows?map%3Dtown"
    assert plain_url(ows) == HOST + "/ows?map=town&SERVICE=WMS&REQUEST=GetCapabilities"
    wmts = f"layers=photo&tileMatrixSet=GoogleMapsCompatible&url={HOST}/1.0.0/WMTSCapabilities.xml"
    assert plain_url(wmts) == HOST + "/1.0.0/WMTSCapabilities.xml"
    assert plain_url(f"{HOST}/t?a=1&url=https://b.org") == f"{HOST}/t?a=1&url=https://b.org"
    assert plain_url(f"/vsicurl/{HOST}/a.tif") == f"{HOST}/a.tif"
    assert plain_url("/vsis3/bucket/a.tif") == "s3://bucket/a.tif"


def test_keys_are_left_out_and_other_parameters_are_not() -> None:
    shown = without_secrets(HOST + "/t?access_token=abc&url=a.tif&API_KEY=d&layers=x&sig=e")
    assert shown == HOST + "/t?access_token=…&url=a.tif&API_KEY=…&layers=x&sig=…"


@pytest.mark.parametrize(
    ("url", "layer", "name"),
    [
        ("https://h.org/{z}/{x}/{y}.png?token=t", "", "h.org"),
        ("https://h.org/2024/ortho/{z}/{x}/{y}.png", "", "h.org_2024_ortho"),
        ("https://h.org/wmts?LAYER=photo&TILEMATRIX={z}", "", "h.org_wmts_photo"),
        ("https://h.org/1.0.0/WMTSCapabilities.xml", "town:photo", "h.org_1.0.0_town-photo"),
        ("https://h.org/ows?SERVICE=WMS", "http://h.org/layers/photo/", "h.org_ows_photo"),
    ],
)
def test_results_of_the_services_of_one_server_have_different_names(
    url: str, layer: str, name: str
) -> None:
    assert result_name(url, layer) == name


def test_the_zoom_is_the_coarsest_that_is_fine_enough() -> None:
    service = xyz_service(HOST + "/{z}/{x}/{y}")
    assert service.level_for(0.3, latitude=0).zoom == 19
    assert service.level_for(0.3, latitude=47).zoom == 19
    assert service.level_for(0.3, latitude=60.2).zoom == 18
    assert service.level_for(0.3, latitude=0, tile_px=512).zoom == 18
    assert service.level_for(1e-9, latitude=0).zoom == 30
    limited = xyz_service(HOST + "/{z}/{x}/{y}#zmax=18")
    assert limited.level_for(0.3, latitude=0).zoom == 18
    assert limited.level(21).zoom == 21  # --zoom decides
    assert limited.template == service.template


@pytest.mark.parametrize("zoom", [3, 12, 19])
def test_tiles_of_an_area_are_those_that_it_touches(zoom: int) -> None:
    rng = np.random.default_rng(zoom)
    level = slippy_level(zoom)
    side = level.tile_m[0]
    centre = rng.uniform(-1, 1, 2) * 1e6
    polygons = [
        shapely.Point(*(centre + rng.uniform(-6, 6, 2) * side)).buffer(rng.uniform(0.1, 4) * side)
        for _ in range(5)
    ]
    found = [tuple(tile) for tile in tiles_in_area(level, area_of(*polygons), 10_000).tolist()]
    left, bottom, right, top = shapely.total_bounds(polygons).tolist()
    half = WORLD_M / 2
    whole = shapely.union_all(polygons)
    expected = [
        (tile.row, tile.col)
        for row in range(int((half - top) / side), int((half - bottom) / side) + 1)
        for col in range(int((half + left) / side), int((half + right) / side) + 1)
        if 0 <= row < 1 << zoom and 0 <= col < 1 << zoom
        for tile in [TileName(zoom, row, col)]
        if whole.intersects(shapely.box(*tile.bounds_xy))
    ]
    assert found == expected


def test_too_many_tiles_are_counted_and_the_option_is_named() -> None:
    country = area_of(shapely.box(6, 46, 10, 48), crs=CRS.from_epsg(4326))
    with pytest.raises(ConfigError, match=r"about \d+,\d{3},\d{3} tiles of zoom 19") as failed:
        tiles_in_area(slippy_level(19), country, 20_000)
    assert "--max-tiles" in failed.value.remedy
    exactly = area_of(shapely.box(1, -767, 230, -1))
    with pytest.raises(ConfigError, match="needs 44 tiles"):
        tiles_in_area(slippy_level(19), exactly, 30)


def test_an_area_outside_of_the_service_is_named() -> None:
    level = slippy_level(10).limited((0, 0, 1e6, 1e6))
    with pytest.raises(DataError, match=r"no tile of zoom 10 in the area town\.geojson"):
        tiles_in_area(level, area_of(shapely.box(-2e6, -2e6, -1.9e6, -1.9e6)), 100)


WMTS = """<?xml version="1.0"?>
<Capabilities xmlns="http://www.opengis.net/wmts/1.0" xmlns:ows="http://www.opengis.net/ows/1.1"
 xmlns:xlink="http://www.w3.org/1999/xlink" version="1.0.0">
<ows:ServiceProvider><ows:ProviderName>City of Test</ows:ProviderName></ows:ServiceProvider>
<ows:OperationsMetadata><ows:Operation name="GetTile"><ows:DCP><ows:HTTP>
<ows:Get xlink:href="https://tiles.example.org/wmts?map=1&amp;"/></ows:HTTP></ows:DCP>
</ows:Operation></ows:OperationsMetadata>
<Contents><Layer><ows:Title>Photo</ows:Title><ows:Identifier>photo</ows:Identifier>
<Style isDefault="true"><ows:Identifier>default</ows:Identifier></Style>
<Format>image/jpeg</Format><Format>image/png</Format>
<Dimension><ows:Identifier>Time</ows:Identifier><Default>2023</Default><Value>2023</Value>
</Dimension>
<TileMatrixSetLink><TileMatrixSet>m</TileMatrixSet>LIMITS</TileMatrixSetLink>RESOURCE</Layer>
<TileMatrixSet><ows:Identifier>m</ows:Identifier>
<ows:SupportedCRS>urn:ogc:def:crs:EPSG::3857</ows:SupportedCRS>
<TileMatrix><ows:Identifier>L17</ows:Identifier>
<ScaleDenominator>4265.459166936</ScaleDenominator>
<TopLeftCorner>-20037508.34 20037508.34</TopLeftCorner><TileWidth>256</TileWidth>
<TileHeight>256</TileHeight><MatrixWidth>131072</MatrixWidth><MatrixHeight>131072</MatrixHeight>
</TileMatrix></TileMatrixSet></Contents></Capabilities>"""

RESOURCE = (
    '<ResourceURL format="image/png" resourceType="tile" template="https://tiles.example.org/'
    '{Style}/{Time}/{TileMatrixSet}/{TileMatrix}/{TileCol}/{TileRow}.png"/>'
)


def test_a_wmts_by_parameters_and_by_paths() -> None:
    url = HOST + "/wmts?REQUEST=GetCapabilities&SERVICE=WMTS&apikey=abc"
    for resource, expected in (
        ("", HOST + "/wmts?map=1&SERVICE=WMTS&REQUEST=GetTile&VERSION=1.0.0&LAYER=photo"
             "&STYLE=default&FORMAT=image/png&TILEMATRIXSET=m&TILEMATRIX=L17&TILEROW=7&TILECOL=5"
             "&Time=2023&apikey=abc"),
        (RESOURCE, HOST + "/default/2023/m/L17/5/7.png?apikey=abc"),
    ):  # fmt: skip
        pytest.importorskip("owslib")
        document = WMTS.replace("LIMITS", "").replace("RESOURCE", resource).encode()
        service = read_capabilities(url, document, None)
        assert service.url(service.level(17), 7, 5) == expected
        assert "abc" not in service.name
        assert (service.attribution, service.imagery_date) == ("City of Test", "2023")
        # The scale is rounded in the document; the grid is exact.
        assert service.level(17).pixel_m == slippy_level(17).pixel_m
        with pytest.raises(ConfigError, match="zoom levels 17"):
            service.level(19)
        more = b"</Style><Style><ows:Identifier>i</ows:Identifier></Style>"
        styled = document.replace(b"</Style>", more)
        other = read_capabilities(f"{url}&style=i", styled, None)
        assert other.url(other.level(17), 7, 5) == expected.replace("default", "i")


LIMITS = (
    "<TileMatrixSetLimits><TileMatrixLimits><TileMatrix>L17</TileMatrix>"
    "<MinTileRow>10</MinTileRow><MaxTileRow>12</MaxTileRow><MinTileCol>20</MinTileCol>"
    "<MaxTileCol>20</MaxTileCol></TileMatrixLimits></TileMatrixSetLimits>"
)


def test_limits_of_a_wmts_are_kept() -> None:
    pytest.importorskip("owslib")
    document = WMTS.replace("LIMITS", LIMITS).replace("RESOURCE", "").encode()
    level = read_capabilities(HOST + "/wmts", document, None).level(17)
    assert (level.rows, level.cols) == ((10, 13), (20, 21))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"<html><title>Sign in</title></html>", 'begins with "Sign in"'),
        (b"<Capabilities xmlns='http://www.opengis.net/wmts/1.0'></Capabilities>", "cannot be re"),
        (WMTS.replace("EPSG::3857", "EPSG::2056").encode(), "EPSG:2056"),
        (WMTS.replace("ScaleDenominator", "Scale").encode(), "cannot be read"),
        (WMTS.replace(">4265.459166936<", ">abc<").encode(), "missing or has another value"),
    ],
)
def test_documents_that_cannot_be_used(document: bytes, message: str) -> None:
    pytest.importorskip("owslib")
    document = document.replace(b"LIMITS", b"").replace(b"RESOURCE", b"")
    with pytest.raises(DataError, match=message):
        read_capabilities(HOST + "/wmts?service=WMTS", document, None)


def test_a_document_does_not_read_files(tmp_path: Path) -> None:
    pytest.importorskip("owslib")
    secret = tmp_path / "secret.txt"
    secret.write_text("SECRET")
    attack = WMTS.replace("LIMITS", "").replace("RESOURCE", "")
    attack = attack.replace(
        '<?xml version="1.0"?>',
        f'<?xml version="1.0"?><!DOCTYPE c [<!ENTITY x SYSTEM "{secret.as_uri()}">]>',
    ).replace("City of Test", "City &x;")
    try:
        service = read_capabilities(HOST + "/wmts", attack.encode(), None)
    except DataError as error:
        assert not re.search("SECRET", str(error))  # noqa: PT017
    else:
        assert "SECRET" not in service.attribution
