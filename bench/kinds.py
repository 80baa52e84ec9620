"""Kinds of images: the IoU of real places in 8 bits, 16 bits, decimal numbers, grey and dark.

Each image is converted in memory to the other kinds, and predicted with the stretch that
`rooftrace predict` chooses by itself. Dark images are also predicted without a stretch. The rows
`very_dark` are those tiles of the places that are as dark as taken: the rule must not hurt them.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, say, start

if TYPE_CHECKING:
    from rooftrace.core.types import Raster
    from rooftrace.predict.predictor import Predictor

_SCENES = ("catanduanes", "kampala")
_FOLDERS: dict[str, tuple[float, slice, tuple[float, ...] | None]] = {
    "massachusetts": (1.0, slice(15, None), (255, 255, 255)),
    "rotterdam": (0.5, slice(150, None), None),
}
"""Metres per pixel, images and nodata colour of places with masks; these images validate the
default model."""

_TILES = {"rotterdam": 0.5, "jonkoping": 0.15, "accra": 0.1, "geneva": 0.25, "chicago": 0.3}
"""Places with many tiles, and their metres per pixel."""

_DARK = (0.35, 0.2)
"""Factors by which the values of an image are made dark."""


def main() -> dict[str, Any]:
    from rooftrace.predict.predictor import load

    options = _options()
    model = load(options.model, precision=options.precision)
    places: dict[str, dict[str, list[int]]] = {}
    for place, image, truth, gsd_m in _labelled(options):
        sums = places.setdefault(place, defaultdict(lambda: [0, 0]))
        for kind, (data, stretch) in _kinds(image).items():
            if options.kinds is None or kind in options.kinds:
                _count(sums[kind], model, (data, stretch), image, truth, gsd_m)
    rows = {
        place: {kind: round(both / max(either, 1), 4) for kind, (both, either) in sums.items()}
        for place, sums in places.items()
    }
    for place, row in rows.items():
        say(f"{place}: {row}")
    return {"model": model.bundle.spec.name, "iou": rows, "very_dark": _very_dark(options, model)}


def _kinds(image: Raster) -> dict[str, tuple[Any, str]]:
    """Return the pixels of each kind, and the stretch with which they are predicted."""
    import numpy as np

    data = image.data[:3]
    infrared = data[1:2] // 2 + 60
    grey = np.rint(np.tensordot((0.299, 0.587, 0.114), data, 1)).astype(np.uint8)[None]
    kinds: dict[str, tuple[Any, str]] = {
        "8 bits": (data, "auto"),
        "16 bits": (np.concatenate([data, infrared]).astype(np.uint16) * 12 + 137, "auto"),
        "float": ((data / 255 * 0.7).astype(np.float32), "auto"),
        "grey": (grey, "auto"),
    }
    for factor in _DARK:
        dark = np.rint(data * factor).astype(np.uint8)
        kinds[f"dark {factor:g}, none"] = dark, "none"
        kinds[f"dark {factor:g}, auto"] = dark, "auto"
    return kinds


def _count(
    sums: list[int], model: Predictor, kind: tuple[Any, str], image: Raster, truth: Any,
    gsd_m: float | None,
) -> None:  # fmt: skip
    """Add the pixels that are building in both masks, and in either, to the sums."""
    import numpy as np

    from rooftrace.io.georeferenced import ArraySource
    from rooftrace.predict.plan import SceneOptions

    data, stretch = kind
    options = SceneOptions(gsd_m=gsd_m, stretch=stretch, outputs=("mask",))
    source = ArraySource(data, image.grid, image.valid)
    found = (model.predict(source, options=options).mask.data == 1) & image.valid
    truth = truth & image.valid
    sums[0] += int(np.count_nonzero(found & truth))
    sums[1] += int(np.count_nonzero(found | truth))


def _labelled(
    options: argparse.Namespace,
) -> Iterator[tuple[str, Raster, Any, float | None]]:
    """Yield the name of a place, an image, its label, and its metres per pixel if not stated."""
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    from rooftrace.io.raster import open_raster

    data, chosen = options.data, options.places or (*_SCENES, *_FOLDERS, *_TILES)
    for place in (one for one in _SCENES if one in chosen):
        image = open_raster(data / "scenes" / f"{place}_z20.tif").read()
        labels = json.loads((data / "oam" / place / "labels.geojson").read_text())
        grid = image.grid
        shapes = [
            transform_geom("OGC:CRS84", grid.crs, one["geometry"]) for one in labels["features"]
        ]
        truth = rasterize(shapes, grid.shape, transform=grid.transform, dtype="uint8")
        yield place, image, truth == 1, None
    for place, (gsd_m, part, colour) in _FOLDERS.items():
        if place not in chosen:
            continue
        for path in sorted((data / place / "images").iterdir())[part]:
            image, truth = _pair(path, colour)
            yield place, image, truth, gsd_m


def _pair(path: Path, colour: tuple[float, ...] | None = None) -> tuple[Raster, Any]:
    """Return a tile and its label."""
    from rooftrace.io.nodata import NodataRule
    from rooftrace.io.raster import open_raster

    image = open_raster(path, nodata=NodataRule(colour=colour)).read()
    (mask,) = (path.parent.parent / "masks").glob(f"{path.stem}.*")
    return image, open_raster(mask).read().data[0] > 0


def _very_dark(options: argparse.Namespace, model: Predictor) -> dict[str, Any]:
    """Return what the stretch changes on the tiles that it takes for very dark."""
    from rooftrace.io.georeferenced import ArraySource
    from rooftrace.io.pixels import prepare

    spec = model.bundle.spec
    usual = list(zip(spec.mean, spec.std))
    sums = {"none": [0, 0], "auto": [0, 0]}
    tiles = dark = 0
    for place, gsd_m in _TILES.items():
        if options.places and place not in options.places:
            continue
        for path in sorted((options.data / place / "images").iterdir()):
            image, truth = _pair(path)
            tiles += 1
            source = ArraySource(image.data, None, image.valid)
            prepared: Any = prepare(source, spec.bands, spec.numpy_dtype, usual)
            if prepared.stretch is None:
                continue
            dark += 1
            for stretch, counted in sums.items():
                _count(counted, model, (image.data, stretch), image, truth, gsd_m)
    return {"tiles": tiles, "dark": dark, "both_and_either_px": sums}


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("data", type=Path, help="folder of the real imagery")
    parser.add_argument("--places", nargs="+", help="default: all")
    parser.add_argument("--kinds", nargs="+", help="such as grey; default: all")
    parser.add_argument("--precision", default="bf16")
    return parser.parse_args()


if __name__ == "__main__":
    start(main)
