"""Generated scenes with the STAC items, collection and catalog that describe them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine

from raster_files import write_geotiff
from rooftrace.io.raster import RasterFile
from rooftrace.io.reproject import CRS84, transform_points

Json = dict[str, Any]

PROVIDERS = [{"name": "Survey of Lindi", "roles": ["producer", "licensor"], "url": "https://x.org"}]
COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def write_scenes(folder: Path) -> list[Json]:
    """Write three GeoTIFFs and return their items, whose hrefs are names of files.

    `west` (2023) and `east` (2024) lie side by side, with one house on the line between them and
    another one in the west. `far` (2024) is a kilometre away from them.
    """
    data = np.full((3, 200, 600), 30, np.uint8)
    data[:, 90:110, 180:220] = 220
    data[:, 20:40, 20:60] = 220
    data[:, 20:40, 420:460] = 220
    offsets = {"west": 0, "east": 200, "far": 1400}
    items = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, offset) in enumerate(offsets.items()):
        transform = Affine(1, 0, 5e5 + offset, 0, -1, 9e6)
        write_geotiff(
            folder / f"{name}.tif", data[:, :, 200 * number :][:, :, :200], crs="EPSG:32737",
            transform=transform, tiled=True, blockxsize=128, blockysize=128, compress="deflate",
        )  # fmt: skip
        day = "2023-05-01" if name == "west" else "2024-06-01"
        items.append(stac_item(folder / f"{name}.tif", day))
    return items


def stac_item(path: Path, day: str) -> Json:
    """Return the item of an image, whose href is the name of the file."""
    name = path.stem
    grid = RasterFile(path).grid
    assert grid.crs is not None
    crs = grid.crs
    left, bottom, right, top = grid.bounds_xy
    shape = shapely.transform(
        shapely.box(left, bottom, right, top), lambda xy: transform_points(xy, crs, CRS84)
    )
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": name,
        "collection": "town",
        "geometry": json.loads(shapely.to_geojson(shape)),
        "bbox": [*shapely.bounds(shape).tolist()],
        "properties": {"datetime": f"{day}T10:00:00Z"},
        "links": [],
        "assets": {
            "thumbnail": {"href": f"{name}.png", "type": "image/png", "roles": ["thumbnail"]},
            "visual": {"href": f"{name}.tif", "type": COG, "roles": ["visual"]},
        },
    }  # fmt: skip


def collection(items: list[Json], name: str = "town") -> Json:
    """Return the collection of items, which has their licence and providers."""
    bounds = np.array([item["bbox"] for item in items])
    west, south, east, north = [*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)]
    return {
        "type": "Collection", "stac_version": "1.1.0", "stac_extensions": [], "id": name,
        "description": "Scenes of a town.", "license": "CC-BY-4.0", "providers": PROVIDERS,
        "extent": {
            "spatial": {"bbox": [[float(west), float(south), float(east), float(north)]]},
            "temporal": {"interval": [["2023-01-01T00:00:00Z", "2024-12-31T00:00:00Z"]]},
        },
        "links": [],
    }  # fmt: skip


def write_catalog(folder: Path, items: list[Json]) -> None:
    """Write a static catalog: catalog.json, town/collection.json and an item in a folder each."""
    documents: dict[str, Json] = {
        "catalog.json": {
            "type": "Catalog", "stac_version": "1.1.0", "id": "all", "description": "All.",
            "links": [{"rel": "child", "href": "./town/collection.json"},
                      {"rel": "root", "href": "./catalog.json"}],
        },
        "town/collection.json": collection(items) | {
            "links": [{"rel": "item", "href": f"./{one['id']}/item.json"} for one in items]
            + [{"rel": "root", "href": "../catalog.json"}]
        },
    }  # fmt: skip
    for item in items:
        assets = {
            key: one | {"href": f"../../{one['href']}"} for key, one in item["assets"].items()
        }
        documents[f"town/{item['id']}/item.json"] = item | {
            "assets": assets, "links": [{"rel": "collection", "href": "../collection.json"}],
        }  # fmt: skip
    for path, document in documents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(document))


def write_area(path: Path, items: list[Json]) -> None:
    """Write an area that is the middle of the given items' extent."""
    bounds = np.array([item["bbox"] for item in items])
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    inset = (high - low) / 20
    shape = shapely.box(*(low + inset), *(high - inset))
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": json.loads(shapely.to_geojson(shape)),
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def with_hrefs(items: list[Json], base: str, sig: str = "") -> list[Json]:
    """Return the items with the addresses of their assets on a server."""
    return [
        item | {"assets": {
            key: one | {"href": f"{base}/{one['href']}{'?sig=' + sig if sig else ''}"}
            for key, one in item["assets"].items()
        }}
        for item in items
    ]  # fmt: skip
