"""STAC items as a catalogue: https://github.com/radiantearth/stac-spec (1.0 and 1.1)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rooftrace.core.errors import DataError
from rooftrace.data.catalogue.entry import (
    Bounds,
    Catalogue,
    CatalogueFile,
    CatalogueScene,
    joined,
    named,
)

__all__ = ["read_stac"]

_KEYS = ("visual", "image", "data")
_ROLES = ("visual", "data")
_NO_IMAGES = ("thumbnail", "overview", "metadata")
_MOST_LISTED = 8


def read_stac(file: CatalogueFile, asset: str | None) -> Catalogue:
    """The items of an item collection, or a single one.

    Of each the image is the asset of that key; without one the GeoTIFF that is called `visual`,
    `image` or `data`, or has the role `visual` or `data`, or is the only one.

    Args:
        file: the JSON.
        asset: the key.

    Raises:
        DataError: it is no JSON, or holds no STAC items, or it is not clear which asset is meant.
    """
    try:
        told = json.loads(file.path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file.name} cannot be read as JSON: {error}.", remedy="Save the answer of the search."
        ) from error
    items = _items(told, file.name)
    scenes = [_scene(item, number, file, asset) for number, item in enumerate(items, 1)]
    return Catalogue(file.name, "STAC items", named(scenes, file.name))


def _items(told: Any, name: str) -> Sequence[Any]:
    kind = told.get("type") if isinstance(told, dict) else None
    if kind == "Feature":
        return [told]
    features = told.get("features") if isinstance(told, dict) else None
    if kind != "FeatureCollection" or not isinstance(features, list):
        said = f"of type {kind!r}" if isinstance(kind, str) else "of no type"
        raise DataError(
            f"{name} is a JSON {said}; expected STAC items: a FeatureCollection or a Feature.",
            remedy="A STAC catalog or collection is searched first; save what the search gives.",
        )
    return features


def _scene(item: Any, number: int, file: CatalogueFile, asset: str | None) -> CatalogueScene:
    where = f"{file.name}, item {number}"
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        raise DataError(
            f"{where} has no assets; expected a STAC item.",
            remedy="A GeoJSON of footprints alone names no images: make it a GeoParquet with a "
            "column of paths.",
        )
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} has no id.", remedy="Give it one.")
    where = f"{where} ({name[:80]})"
    known = {key: one for key, one in item["assets"].items() if isinstance(one, dict)}
    chosen = _chosen(known, asset, where)
    href = chosen.get("href")
    if not isinstance(href, str) or not href or "\0" in href:
        raise DataError(f"{where}: its asset has no href.", remedy="Correct the item.")
    return CatalogueScene(name, _located(href, item, file), _bounds(item.get("bbox")))


def _chosen(assets: Mapping[str, Mapping[str, Any]], asset: str | None, where: str) -> Any:
    listed = ", ".join(list(assets)[:_MOST_LISTED]) or "none"
    if asset is not None:
        if asset not in assets:
            raise DataError(
                f"{where} has no asset {asset!r}; it has {listed}.",
                remedy="Name one of them with --asset.",
            )
        return assets[asset]
    images = {key: one for key, one in assets.items() if _is_image(one)}
    for key in _KEYS:
        if key in images:
            return images[key]
    for role in _ROLES:
        having = [one for one in images.values() if role in _roles(one)]
        if len(having) == 1:
            return having[0]
    if len(images) == 1:
        return next(iter(images.values()))
    raise DataError(
        f"{where}: it is not clear which of its assets is the image: {listed}.",
        remedy="Name it with --asset.",
    )


def _is_image(asset: Mapping[str, Any]) -> bool:
    if {*_NO_IMAGES} & {*_roles(asset)}:
        return False
    kind = asset.get("type")
    if isinstance(kind, str):
        return kind.partition(";")[0].strip().lower() in ("image/tiff", "image/vnd.stac.geotiff")
    href = asset.get("href")
    return isinstance(href, str) and href.partition("?")[0].lower().endswith((".tif", ".tiff"))


def _roles(asset: Mapping[str, Any]) -> list[str]:
    roles = asset.get("roles")
    return [one for one in roles if isinstance(one, str)] if isinstance(roles, list) else []


def _located(href: str, item: Mapping[str, Any], file: CatalogueFile) -> str:
    """Where an asset is; of an item that says where it lies itself, from there."""
    if "://" in href or href.startswith("/"):
        return file.located(href)
    links = item.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "self":
            own = link.get("href")
            if isinstance(own, str) and own.startswith(("http://", "https://", "s3://")):
                return joined(own, href)
    return file.located(href)


def _bounds(told: Any) -> Bounds | None:
    if not isinstance(told, list) or len(told) not in (4, 6):
        return None
    flat = told if len(told) == 4 else [told[0], told[1], told[3], told[4]]
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in flat):
        return None
    west, south, east, north = map(float, flat)
    return west, south, east, north
