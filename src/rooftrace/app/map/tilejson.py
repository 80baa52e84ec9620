"""TileJSON 3.0.0 of the layers of a scene, so that other map programs open its tiles.

https://github.com/mapbox/tilejson-spec/tree/master/3.0.0
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from math import floor, log2
from typing import Any, Literal

from rooftrace.core.errors import GeoreferenceError

__all__ = ["TILE_LAYERS", "TileLayer", "tilejson"]

TileLayer = Literal["image", "old", "mask", "density", "buildings", "cells"]

TILE_LAYERS: tuple[TileLayer, ...] = ("image", "mask", "density", "buildings", "cells")
"""Layers that have a TileJSON; the older image of a comparison has none."""

_FIELDS: Mapping[str, Mapping[str, str]] = {
    "buildings": {
        "score": "Number. Confidence of the model in thousandths, if the file has scores",
        "size": "Number. Area in tenths of a square metre",
        "kind": "Number. Index of the class, if there are several",
        "old": "Number. 1 for a building of the older layer of a comparison",
    },
    "cells": {
        "n": "Number. Buildings whose middle lies in the cell",
        "share": "Number. Built-up share of the cell in thousandths",
        "score": "Number. Mean confidence in thousandths, if the file has scores",
        "size": "Number. Mean area in tenths of a square metre",
    },
}


def tilejson(
    scene: Mapping[str, Any], layer: TileLayer, address: str, attribution: str
) -> dict[str, Any] | None:
    """Return the TileJSON of a layer; None if the scene has no such layer.

    Args:
        scene: Description of the scene, see `MapScene.describe`.
        layer: Layer of tiles.
        address: Absolute address of the tiles with `{z}`, `{x}` and `{y}`.
        attribution: Attribution of the model, as plain text; "" for none.

    Raises:
        GeoreferenceError: The scene has no position on the ground, so its tiles have none either.
    """
    found = scene.get("buildings" if layer == "cells" else layer)
    if found is None:
        return None
    if scene["flat"]:
        raise GeoreferenceError(
            f"{scene['name']} has no place on the Web Mercator map, so its tiles cannot be used in "
            "other programs.",
            remedy="Predict an image with a georeference.",
        )
    lowest, deepest = _zooms(found, layer)
    west, south, east, north = found.get("bounds") or scene["bounds"]
    fitting = floor(log2(360 / max(east - west, 1e-9)))
    document: dict[str, Any] = {
        "tilejson": "3.0.0",
        "name": f"{scene['name']}, {layer}",
        "scheme": "xyz",
        "tiles": [address],
        "minzoom": lowest,
        "maxzoom": deepest,
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, min(max(fitting, lowest), deepest)],
    }
    if layer in _FIELDS:
        document["vector_layers"] = [
            {"id": layer, "fields": dict(_FIELDS[layer]), "minzoom": lowest, "maxzoom": deepest}
        ]
    # The image is the user's own; only what the model made has the attribution of its data.
    if attribution and layer != "image":
        document["attribution"] = escape(attribution)
    return document


def _zooms(found: Mapping[str, Any], layer: TileLayer) -> tuple[int, int]:
    """Return the lowest and the deepest zoom with tiles of their own."""
    if layer == "buildings":
        return found["first_zoom"], found["deepest_zoom"]
    if layer == "cells":
        return 0, max(found["first_zoom"] - 1, 0)
    return 0, found["maxzoom"]
