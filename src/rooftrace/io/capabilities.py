"""Map services described by the capabilities of a WMTS 1.0.0 or a WMS 1.1.1 or 1.3.0.

https://www.ogc.org/standards/wmts and https://www.ogc.org/standards/wms; OWSLib reads the document.
It requests nothing here, and resolves no entities.
"""

import re
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import log2
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

import numpy as np

from rooftrace.core.errors import ConfigError, DataError, RooftraceError
from rooftrace.core.text import list_and_count, plural, reason_of
from rooftrace.core.types import Bounds
from rooftrace.io.map_service import (
    MapService,
    TileLevel,
    is_secret,
    result_name,
    slippy_level,
    without_secrets,
)
from rooftrace.io.remote import web_host
from rooftrace.io.web_mercator import MAX_ZOOM, WORLD_M, to_metres

_WMS_TILE_PX = 512
"""Side in pixels of the images that a WMS is asked for."""

_PIXEL_OF_SCALE_M = 0.00028
"""Side of a pixel in metres for which WMTS states scales."""

_WEB_MERCATOR = re.compile(r"(^|:|/)(3857|900913|3785|102100|102113|900914)$")
_MAX_LISTED = 12
_MAX_LAT = 85.06


def capabilities_url(url: str) -> str:
    """Return the URL of the capabilities, with the parameters that it needs.

    Raises:
        DataError: It is not the URL of a web server.
    """
    web_host(url)
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in given}
    if "service" in names and "request" not in names:
        given.append(("REQUEST", "GetCapabilities"))
    return urlunsplit(parts._replace(query=urlencode(given, safe="/:,;")))


def read_capabilities(url: str, document: bytes, layer: str | None) -> MapService:
    """Return the service of a layer of a WMTS or WMS.

    Args:
        layer: Name of the layer; may be omitted if there is only one.

    Raises:
        ConfigError: There are several layers and none was chosen, or the chosen one does not exist.
        DataError: The document is not that of a WMTS or WMS, or the layer has no tiles in EPSG:3857
            or no images.
    """
    shown = without_secrets(url)
    kind = document[:4000].decode("utf-8", "replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if re.search(r"<(\w+:)?Capabilities[\s>]", kind):
                return _with_keys(_read_wmts(url, document, layer), url)
            if match := re.search(r"<(WMS_Capabilities|WMT_MS_Capabilities)[^>]*", kind):
                version = "1.3.0" if match[1] == "WMS_Capabilities" else "1.1.1"
                if version == "1.3.0" and "xmlns" not in match[0]:
                    # TiTiler leaves out the namespace, without which OWSLib finds nothing.
                    root = b'<WMS_Capabilities xmlns="http://www.opengis.net/wms"'
                    document = document.replace(b"<WMS_Capabilities", root, 1)
                return _with_keys(_read_wms(url, document, layer, version), url)
    except RooftraceError:
        raise
    except Exception as error:
        reason = reason_of(error)
        if isinstance(error, AttributeError | LookupError | TypeError | ValueError):
            # Python's words for a part of the document that OWSLib did not find.
            reason = "an element that it needs is missing or has another value"
        raise DataError(
            f"The capabilities at {shown} cannot be read: {reason}.",
            remedy="Open the URL in a browser: it must show the XML of a WMTS or WMS.",
        ) from error
    text = " ".join(re.sub(r"<[^>]*>|\s", " ", kind).split())[:120]
    raise DataError(
        f'{shown} is not the capabilities of a WMTS or WMS; it begins with "{text}".',
        remedy="It often ends with WMTSCapabilities.xml or ?SERVICE=WMS&REQUEST=GetCapabilities.",
    )


def _with_keys(service: MapService, url: str) -> MapService:
    """Return the service with the keys of the given URL, if its tiles are on the same host."""
    if service.host != urlsplit(url).netloc:
        return service
    own = {name.lower() for name, _ in parse_qsl(urlsplit(service.template).query)}
    keys = [
        (name, value)
        for name, value in parse_qsl(urlsplit(url).query)
        if is_secret(name) and name.lower() not in own
    ]
    if not keys:
        return service
    mark = "&" if "?" in service.template else "?"
    return replace(service, template=service.template + mark + urlencode(keys))


def _read_wmts(url: str, document: bytes, layer: str | None) -> MapService:
    from owslib.wmts import WebMapTileService

    found = WebMapTileService(url, xml=document)
    # A server may list a layer once for each coordinate system.
    fitting_layers = {
        name: one
        for name, one in found.contents.items()
        if any(_is_web_mercator(found.tilematrixsets.get(link)) for link in one.tilematrixsetlinks)
    }
    chosen = _chosen(url, found.contents, layer, fitting_layers or found.contents)
    content = found.contents[chosen]
    sets = {name: found.tilematrixsets[name] for name in content.tilematrixsetlinks}
    fitting = [name for name, one in sets.items() if _is_web_mercator(one)]
    if not fitting:
        source = shlex.quote(f"WMTS:{without_secrets(url)},layer={chosen}")
        download = f"gdal_translate -projwin LEFT TOP RIGHT BOTTOM -tr 0.2 0.2 {source} area.tif"
        raise _not_web_mercator(url, chosen, [one.crs for one in sets.values()], download)
    set_name = max(fitting, key=lambda name: len(sets[name].tilematrix))
    limits = content.tilematrixsetlinks[set_name].tilematrixlimits
    formats = [str(one) for one in content.formats]
    dimensions = {name: one["default"] for name, one in content.dimensions.items()}
    asked = [value for key, value in parse_qsl(urlsplit(url).query) if key.lower() == "style"]
    styles = [name for name in asked if name in content.styles]
    styles += [name for name, one in content.styles.items() if one["isDefault"]]
    style = (styles or list(content.styles) or [""])[0] or ""
    template = _wmts_template(url, found, content, set_name, style, formats, dimensions)
    area = _bounds_xy(getattr(content, "boundingBoxWGS84", None))
    levels = {}
    for number, matrix in enumerate(
        sorted(sets[set_name].tilematrix.values(), key=lambda one: -one.scaledenominator)
    ):
        digits = re.search(r"\d+$", matrix.identifier)
        zoom = int(digits[0]) if digits else number
        levels[zoom] = _matrix_level(zoom, matrix, limits.get(matrix.identifier), area)
    notes = _choice(url, chosen, len(found.contents))
    provider = getattr(getattr(found, "provider", None), "name", None)
    return MapService(
        template, without_secrets(url), result_name(url, chosen), levels, _plain(provider),
        _date(dimensions), notes,
    )  # fmt: skip


def _is_web_mercator(matrix_set: Any) -> bool:
    return matrix_set is not None and bool(_WEB_MERCATOR.search(matrix_set.crs))


def _matrix_level(zoom: int, matrix: Any, limits: Any, area: Bounds | None) -> TileLevel:
    pixel_m = matrix.scaledenominator * _PIXEL_OF_SCALE_M
    left, top = matrix.topleftcorner
    # Scales are rounded in documents: a ten-thousandth of a pixel adds up over a million of them.
    exact = WORLD_M / 256 / 2 ** round(log2(WORLD_M / 256 / pixel_m))
    if abs(pixel_m / exact - 1) < 1e-6:
        pixel_m = exact
    half = WORLD_M / 2
    left = -half if abs(left + half) < 1e-2 else left
    top = half if abs(top - half) < 1e-2 else top
    level = TileLevel(
        zoom, left, top, pixel_m, (matrix.tileheight, matrix.tilewidth),
        (0, matrix.matrixheight), (0, matrix.matrixwidth), matrix.identifier,
    )  # fmt: skip
    if limits is not None:
        return replace(
            level,
            rows=(int(limits.mintilerow), int(limits.maxtilerow) + 1),
            cols=(int(limits.mintilecol), int(limits.maxtilecol) + 1),
        )
    return level if area is None else level.limited(area)


def _wmts_template(
    url: str, found: Any, content: Any, set_name: str, style: str, formats: Sequence[str],
    dimensions: Mapping[str, str],
) -> str:  # fmt: skip
    """Return the URL of a tile with our placeholders."""
    tiles = [one for one in content.resourceURLs if one["resourceType"] == "tile"]
    if tiles:
        best = _best_format([one["format"] for one in tiles])
        template = str(next(one["template"] for one in tiles if one["format"] == best))
        values = {"style": style, "tilematrixset": set_name, "layer": content.id, **{
            name.lower(): value for name, value in dimensions.items()
        }, "tilematrix": "{z}", "tilerow": "{y}", "tilecol": "{x}"}  # fmt: skip

        def value(match: re.Match[str]) -> str:
            given = values[match[1].lower()]
            return given if given.startswith("{") else quote(given, safe="/:,")

        return urljoin(url, re.sub(r"\{([^{}]+)\}", value, template))
    base = _operation_url(found.operations, "GetTile", url)
    return _with_parameters(
        base,
        {
            "SERVICE": "WMTS", "REQUEST": "GetTile", "VERSION": "1.0.0", "LAYER": content.id,
            "STYLE": style, "FORMAT": _best_format(formats), "TILEMATRIXSET": set_name,
            "TILEMATRIX": "{z}", "TILEROW": "{y}", "TILECOL": "{x}", **dimensions,
        },
    )  # fmt: skip


def _read_wms(url: str, document: bytes, layer: str | None, version: str) -> MapService:
    from owslib.wms import WebMapService

    found = WebMapService(url, version=version, xml=document)
    # A layer with others below it shows all of them, which are rarely imagery alone.
    named = {name: one for name, one in found.contents.items() if name}
    single = {name: one for name, one in named.items() if not one.children}
    chosen = _chosen(url, named, layer, single or named)
    content = named[chosen]
    systems = sorted(set(content.crsOptions))
    fitting = [one for one in systems if _WEB_MERCATOR.search(one)]
    if not fitting:
        raise _not_web_mercator(url, chosen, systems)
    system = "EPSG:3857" if "EPSG:3857" in fitting else fitting[0]
    operation = found.getOperationByName("GetMap")
    image_format = _best_format([str(one or "") for one in operation.formatOptions])
    time = str(content.defaulttimeposition or "")
    base = _operation_url([operation], "GetMap", url)
    template = _with_parameters(
        base,
        {
            "SERVICE": "WMS", "REQUEST": "GetMap", "VERSION": version, "LAYERS": chosen,
            "STYLES": "", "CRS" if version == "1.3.0" else "SRS": system, "BBOX": "{bbox}",
            "WIDTH": str(_WMS_TILE_PX), "HEIGHT": str(_WMS_TILE_PX), "FORMAT": image_format,
            **({"TRANSPARENT": "TRUE"} if image_format != "image/jpeg" else {}),
            **({"TIME": time} if time else {}),
        },
    )  # fmt: skip
    area = _bounds_xy(content.boundingBoxWGS84)
    levels = {}
    for zoom in range(1, MAX_ZOOM + 1):
        # A level has the pixels of XYZ tiles of 256 px, in larger images.
        level = replace(slippy_level(zoom - 1, _WMS_TILE_PX), zoom=zoom)
        levels[zoom] = level if area is None else level.limited(area)
    attribution = _plain((getattr(content, "attribution", None) or {}).get("title"))
    notes = _choice(url, chosen, len(named))
    return MapService(
        template, without_secrets(url), result_name(url, chosen), levels, attribution,
        _date({"time": time}), notes,
    )  # fmt: skip


def _chosen(
    url: str, layers: Mapping[str, Any], layer: str | None, offered: Mapping[str, Any]
) -> str:
    """Return the name of the layer to read: the given one, or the only one that is offered."""
    if layer is not None and layer in layers:
        return layer
    if layer is None and len(offered) == 1:
        return next(iter(offered))
    given = "" if layer is None else f"--layer {layer} was given, but "
    listed = list_and_count(list(offered), _MAX_LISTED) or "none with a name"
    raise ConfigError(
        f"{given}{without_secrets(url)} has {plural(len(offered), 'layer')}: {listed}.",
        remedy="Choose the one with the imagery: --layer NAME",
    )


def _choice(url: str, chosen: str, layers: int) -> tuple[str, ...]:
    if layers == 1:
        return ()
    return (f"{without_secrets(url)}: the layer {chosen} is read, of {layers} layers.",)


def _not_web_mercator(
    url: str, layer: str, systems: Sequence[str], download: str = "gdal_translate"
) -> DataError:
    names = [re.sub(r"^urn:ogc:def:crs:(\w+):.*:", r"\1:", one) for one in systems]
    listed = ", ".join(dict.fromkeys(names[:_MAX_LISTED])) or "no coordinate system"
    return DataError(
        f"The layer {layer} of {without_secrets(url)} has tiles in {listed}, not in EPSG:3857.",
        remedy=f"Ask for a layer in EPSG:3857, or download the area and predict it: {download}",
    )


def _best_format(formats: Sequence[str]) -> str:
    """Return the format to request: PNG keeps all values and shows where there is no imagery."""
    formats = [one for one in formats if one]
    plain = [one.partition(";")[0].strip().lower() for one in formats]
    for wanted in ("image/png", "image/png8", "image/webp", "image/jpeg", "image/jpg"):
        if wanted in plain:
            return formats[plain.index(wanted)]
    images = [one for one in formats if one.startswith("image/")]
    if not images:
        raise DataError(
            f"The layer has no images, but {', '.join(formats) or 'no format'}.",
            remedy="Choose a layer with imagery: --layer NAME",
        )
    return images[0]


def _operation_url(operations: Iterable[Any], name: str, url: str) -> str:
    """Return the URL to which an operation is sent by GET; default: that of the document."""
    for operation in operations:
        if operation.name == name:
            for method in operation.methods:
                if str(method.get("type", "")).lower() == "get" and method.get("url"):
                    return urljoin(url, str(method["url"]))
    return url


def _with_parameters(base: str, parameters: Mapping[str, str]) -> str:
    """Return a URL with parameters in place of those of the same name."""
    parts = urlsplit(base)
    names = {name.lower() for name in parameters}
    dropped = names | {"request", "service", "version"}
    kept = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name.lower() not in dropped
    ]
    query = urlencode([*kept, *parameters.items()], safe="/:,{}")
    return urlunsplit(parts._replace(query=query))


def _bounds_xy(lonlat: Sequence[float] | None) -> Bounds | None:
    """Return bounds in EPSG:3857 of (west, south, east, north) in degrees; None if not stated."""
    if lonlat is None or len(lonlat) != 4:
        return None
    west, south, east, north = (float(edge) for edge in lonlat)
    if not (-180.5 <= west < east <= 180.5 and south < north):
        return None
    corners = np.array([(west, max(south, -_MAX_LAT)), (east, min(north, _MAX_LAT))])
    (left, bottom), (right, top) = to_metres(corners).tolist()
    return left, bottom, right, top


def _date(dimensions: Mapping[str, str]) -> str:
    """Return the date of the imagery if the service states one as its time."""
    for name, value in dimensions.items():
        if name.lower() == "time" and re.fullmatch(r"\d{4}(-\d\d(-\d\d(T[\d:.]+Z?)?)?)?", value):
            return value
    return ""


def _plain(value: Any) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", str(value or "")).split())
