"""The report of a comparison as one HTML page, which needs no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS

from rooftrace.core.types import Floats, GeoGrid, RasterSource
from rooftrace.flows.compare.outputs import COLOURS, Compared
from rooftrace.io.gdal import rasterize
from rooftrace.io.html import render_page
from rooftrace.io.picture import as_rgb
from rooftrace.io.remote_raster import open_image
from rooftrace.io.resample import warped
from rooftrace.vector.compare import (
    CHANGED,
    GONE,
    MERGED,
    MOVED,
    NEW,
    OUTSIDE,
    SAME,
    SPLIT,
    STATUSES,
)

MEANINGS = {
    "same": "in both layers, with nearly the same outline",
    "changed": "in both layers, with another outline",
    "moved": "in both layers, with one shape at another place",
    "split": "one old building, several new ones",
    "merged": "several old buildings, one new one",
    "new": "in the new layer only",
    "gone": "in the old layer only, on ground that was seen",
    "outside": "on ground that was not seen, or that was seen in part",
}

MAP_MEANINGS = {
    "same": "in both, with nearly the same outline",
    "changed": "in both, with another outline",
    "moved": "in both, with one shape at another place",
    "split": "one building of the map, several found",
    "merged": "several buildings of the map, one found",
    "new": "found, and not in the map",
    "gone": "in the map, and not found on ground that was seen",
}

_LONGEST_PX = 1600
_DRAWN = 30_000
"""Maximum number of buildings that are drawn as outlines; more are drawn as dots."""

_EXAMPLES = 6
"""Maximum number of buildings of each status that are drawn."""

_EXAMPLE_PX = 150
_MIN_EXAMPLE_M = 25.0
"""Minimum side of the ground that an example shows, in metres."""

_MAX_NEIGHBOURS = 60
_MARGIN = 0.02


def comparison_page(
    figures: Mapping[str, Any], compared: Compared, images: Sequence[Path] = ()
) -> str:
    """Return the whole page as a string for UTF-8.

    Args:
        figures: Figures of the report.
        compared: Both layers.
        images: Images to show under the examples.
    """
    return render_page(
        "compare.html",
        {},
        figures=figures,
        titles=[Path(figures[side]).name for side in ("new", "old")],
        colours=COLOURS,
        meanings=MEANINGS | (MAP_MEANINGS if compared.is_map else {}),
        word=compared.word,
        sides=["found", "map"] if compared.is_map else ["new layer", "old layer"],
        map=_map(_picture(compared)),
        is_dotted=_is_dotted(compared),
        examples=_examples(compared, [open_image(path) for path in images]),
        version=metadata.version("rooftrace"),
    )


def _examples(compared: Compared, images: Sequence[RasterSource]) -> list[tuple[str, list[Markup]]]:
    """Return drawings of the largest buildings of each status that needs a look."""
    new, old = (
        (compared.new_plane, compared.new_status.status),
        (compared.old_plane, compared.old_status.status),
    )
    shown = []
    for code, (packed, status) in (
        (NEW, new), (GONE, old), (CHANGED, new), (MOVED, new), (SPLIT, old), (MERGED, new),
    ):  # fmt: skip
        chosen = np.flatnonzero(status == code)
        chosen = chosen[np.argsort(-packed.area[chosen], kind="stable")][:_EXAMPLES]
        if len(chosen):
            bounds = packed.bounds[chosen]
            drawn = [_example(compared, one, images) for one in bounds]
            shown.append((compared.word(STATUSES[code]), drawn))
    return shown


def _example(compared: Compared, bounds: Floats, images: Sequence[RasterSource]) -> Markup:
    """Draw the buildings of both layers around the bounds of one of them, over the image."""
    middle = (bounds[:2] + bounds[2:]) / 2
    side = max(float((bounds[2:] - bounds[:2]).max()) * 1.5, _MIN_EXAMPLE_M)
    low, high = middle - side / 2, middle + side / 2
    parts = [_backdrop(images, compared.plane, low, side)]
    for packed, status, kind in (
        (compared.new_plane, compared.new_status.status, "now"),
        (compared.old_plane, compared.old_status.status, "before"),
    ):
        near = (packed.bounds[:, :2] < high).all(axis=1) & (packed.bounds[:, 2:] > low).all(axis=1)
        index = np.flatnonzero(near)[:_MAX_NEIGHBOURS]
        for outline, code in zip(packed.unpack(index), status[index].tolist()):
            path = ""
            for ring in shapely.get_rings(shapely.get_parts(outline)):
                share = (shapely.get_coordinates(ring) - low) / side * _EXAMPLE_PX
                path += f"M{' '.join(f'{x:.1f},{_EXAMPLE_PX - y:.1f}' for x, y in share)}Z"
            colour = COLOURS[STATUSES[code]]
            style = f"fill:{colour}" if kind == "now" else f"stroke:{colour}"
            parts.append(f'<path class="{kind}" style="{style}" d="{path}"/>')
    # Made from numbers and this module's own colours.
    return Markup(  # noqa: S704  # nosec B704
        f'<svg class="example" viewBox="0 0 {_EXAMPLE_PX} {_EXAMPLE_PX}" role="img" '
        f'aria-label="{side:.0f} m around {middle[0]:.0f}, {middle[1]:.0f}">'
        f"<title>{side:.0f} m around {middle[0]:.0f}, {middle[1]:.0f}</title>"
        f"{''.join(parts)}</svg>"
    )


def _backdrop(images: Sequence[RasterSource], plane: CRS, low: Floats, side_m: float) -> str:
    """Return what the first image that shows a square of ground shows there; "" if none does."""
    pixel_m = side_m / (2 * _EXAMPLE_PX)
    transform = Affine(pixel_m, 0, low[0], 0, -pixel_m, low[1] + side_m)
    grid = GeoGrid((2 * _EXAMPLE_PX, 2 * _EXAMPLE_PX), transform, plane)
    for image in images:
        if image.grid.crs is None:
            continue
        raster = warped(image, grid)
        if raster.valid.any():
            picture = Image.fromarray(as_rgb(raster.data, raster.valid))
            size = f'width="{_EXAMPLE_PX}" height="{_EXAMPLE_PX}"'
            return f'<image {size} href="{_data_url(picture, "jpeg", quality=75)}"/>'
    return ""


def _data_url(picture: Image.Image, kind: str, **options: int) -> str:
    encoded = BytesIO()
    picture.save(encoded, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _is_dotted(compared: Compared) -> bool:
    return len(compared.new) + len(compared.old) > _DRAWN


def _extent(compared: Compared) -> tuple[float, float, float, float]:
    """Return the rectangle of the map: all buildings that were compared."""
    shown = compared.old_status.status != OUTSIDE
    boxes = np.concatenate([compared.new_plane.bounds, compared.old_plane.bounds[shown]])
    if not len(boxes):
        boxes = compared.old_plane.bounds
    left, bottom = boxes[:, :2].min(axis=0).tolist()
    right, top = boxes[:, 2:].max(axis=0).tolist()
    margin = _MARGIN * max(right - left, top - bottom)
    return left - margin, bottom - margin, right + margin, top + margin


def _picture(compared: Compared) -> NDArray[np.uint8]:
    """Return the map as (y, x) codes of statuses from 1."""
    left, bottom, right, top = _extent(compared)
    metres = max(right - left, top - bottom) / _LONGEST_PX
    shape = max(1, round((top - bottom) / metres)), max(1, round((right - left) / metres))
    codes = np.zeros(shape, np.uint8)
    # What needs a look lies on top.
    layers = [
        (compared.old_plane, compared.old_status.status, (OUTSIDE, GONE)),
        (compared.new_plane, compared.new_status.status, (OUTSIDE, SAME)),
        (compared.new_plane, compared.new_status.status, (SPLIT, MERGED, CHANGED, MOVED, NEW)),
    ]
    for packed, status, wanted in layers:
        chosen = np.flatnonzero(np.isin(status, wanted))
        chosen = chosen[np.argsort(-packed.area[chosen], kind="stable")]
        if not len(chosen):
            continue
        if _is_dotted(compared):
            _draw_dots(codes, packed.centre[chosen], status[chosen] + 1, (left, top), metres)
        else:
            rasterize(
                zip(packed.unpack(chosen), (status[chosen] + 1).tolist()), out=codes,
                transform=Affine(metres, 0, left, 0, -metres, top), all_touched=True,
            )  # fmt: skip
    return codes


def _draw_dots(
    codes: NDArray[np.uint8],
    centre: Floats,
    code: NDArray[np.uint8],
    corner: tuple[float, float],
    metres: float,
) -> None:
    cols = ((centre[:, 0] - corner[0]) / metres).astype(np.int64)
    rows = ((corner[1] - centre[:, 1]) / metres).astype(np.int64)
    height, width = codes.shape
    for down in (0, 1):
        for right in (0, 1):
            row, col = rows + down, cols + right
            inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
            codes[row[inside], col[inside]] = code[inside]


def _map(codes: NDArray[np.uint8]) -> Markup:
    """Return the picture as SVG."""
    picture = Image.fromarray(codes)
    picture.putpalette(bytes(3) + bytes.fromhex("".join(COLOURS.values()).replace("#", "")))
    height, width = codes.shape
    # Made from numbers alone.
    return Markup(  # noqa: S704  # nosec B704
        f'<svg class="map" viewBox="0 0 {width} {height}" role="img" aria-label="Map of the '
        f'statuses"><image width="{width}" height="{height}" '
        f'href="{_data_url(picture, "png", transparency=0)}"/></svg>'
    )
