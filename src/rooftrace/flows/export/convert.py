"""Convert the graph of a bundle to an exported model, and draw tiles for calibration and checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.cache import LruCache
from rooftrace.core.errors import (
    BandMismatch,
    ConfigError,
    DataError,
    ExportError,
    RooftraceError,
    is_out_of_memory,
)
from rooftrace.core.text import first_line, in_terms, plural
from rooftrace.core.types import Scene, Window
from rooftrace.engines.select import check_first_use
from rooftrace.io.files import demo_scene_path
from rooftrace.io.raster import RasterFile
from rooftrace.io.resample import Resampler
from rooftrace.labels.source import SceneEntry, SceneSet
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.exported import Target, part_names
from rooftrace.models.quantize import (
    convert_to_fp16,
    openvino_files,
    quantize_onnx,
    quantize_openvino,
    simplify_graph,
)
from rooftrace.models.spec import BundleSpec, Precision
from rooftrace.predict.plan import SceneOptions, plan_scene

RUNS_IN: dict[Target, dict[Precision, Precision]] = {
    "onnx": {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
    # Weights in fp16 halve the file; a processor computes with them in fp32.
    "openvino": {"fp32": "fp32", "bf16": "bf16", "fp16": "fp32", "int8": "int8"},
}
"""Precisions in which each format can be exported, and the precision of its arithmetic."""

MADE_BY = ("rooftrace", "openvino", "onnx", "onnxruntime", "nncf")


def variant_files(bundle: ModelBundle, to: str, precision: str) -> tuple[str, ...] | None:
    """Return the parts of the requested model if a bundle holds it as a variant."""
    for variant in bundle.spec.variants:
        if (variant.engine, variant.precision, len(variant.files)) == (to, precision, 2):
            return variant.files
    return None


def convert_bundle(
    bundle: ModelBundle, to: Target, precision: Precision, samples: Sequence[NDArray[Any]]
) -> dict[str, bytes]:
    """Return the parts of an exported model by the names of `part_names`.

    Args:
        samples: Images (band, y, x) in pixel values for the calibration of int8; none if the
            bundle's own variant is exported unchanged.
    """
    check_first_use(bundle, "openvino", [GRAPH_NAME])
    try:
        return _converted(bundle, to, precision, samples)
    except RooftraceError:
        raise
    except Exception as error:  # OpenVINO, ONNX and their tools raise many types
        if is_out_of_memory(error):
            raise
        raise ExportError(
            f"The network of {bundle.source} cannot be converted: {first_line(error)}.",
            remedy="Get the bundle again from where it was trained.",
        ) from error


def _converted(
    bundle: ModelBundle, to: Target, precision: Precision, samples: Sequence[NDArray[Any]]
) -> dict[str, bytes]:
    graph, names = bundle.part(GRAPH_NAME), part_names(to, precision)
    images = [sample.astype(np.float32) for sample in samples]
    if to == "openvino":
        ready = variant_files(bundle, to, precision)
        if precision != "int8":
            import openvino

            model = openvino.Core().read_model(graph)
            return dict(zip(names, openvino_files(model, half=precision == "fp16")))
        if ready is not None and not images:
            return dict(zip(names, (bundle.part(name) for name in ready)))
        return dict(zip(names, quantize_openvino(graph, images)))
    if precision == "fp16":
        graph = convert_to_fp16(simplify_graph(graph))
    elif precision == "int8":
        graph = quantize_onnx(simplify_graph(graph), images)
    return {names[0]: graph}


_SIDE_PX = 256
_MAX_SCENES = 512
_MIN_VALID = 0.5
"""Minimum share of valid pixels of a tile."""

_OPEN = 16
_DEMO_GSD_M = 0.3


@dataclass(frozen=True)
class TileSet:
    """Tiles at a model's resolution.

    Args:
        images: Tiles (band, y, x) in pixel values, all of one size.
    """

    name: str
    images: tuple[NDArray[Any], ...]
    notes: tuple[str, ...] = ()

    def split(self, first: int) -> tuple[TileSet, TileSet]:
        """Split into `first` tiles, or half of them if there are too few, and the others.

        A single tile is in both sets.
        """
        cut = min(first, len(self.images) // 2)
        if not cut:
            return self, self
        head, tail = self.images[:cut], self.images[cut:]
        return TileSet(self.name, head, self.notes), TileSet(self.name, tail)

    def to_json(self) -> dict[str, Any]:
        return {"data": self.name, "tiles": len(self.images), "tile_px": self.images[0].shape[-1]}


def _tile_side(spec: BundleSpec) -> int:
    """Return the side in pixels of the tiles on which a model is checked."""
    return spec.side_near(_SIDE_PX)


def draw_tiles(source: SceneSet, spec: BundleSpec, count: int) -> TileSet:
    """Draw tiles from all over a data set, the same ones each time; labels are not read.

    Args:
        source: Data set; of more than 512 scenes an even selection is used.
        spec: Contract of the model; scenes are resampled to its metres per pixel.
        count: Maximum number of tiles; fewer are returned if the data has no more valid tiles.

    Raises:
        DataError: there is no image, or no tile with enough valid pixels.
        BandMismatch: the bands of an image differ from those of the model.
        GsdMismatch: the metres per pixel of an image differ too much from those of the model.
    """
    entries = source.with_unlabelled().entries
    chosen = np.linspace(0, len(entries) - 1, min(len(entries), _MAX_SCENES)).round().astype(int)
    opened = _Scenes(source, [entries[number] for number in chosen], spec)
    side = _tile_side(spec)
    laid = [
        (number, Window(row, col, side, side))
        for number in range(len(chosen))
        for row, col in _corners(opened.shape_yx(number), side)
    ]
    order = np.random.default_rng(0).permutation(len(laid))
    tiles: list[NDArray[Any]] = []
    for place in order:
        tile, valid = opened.read(*laid[place])
        if valid >= _MIN_VALID:
            tiles.append(tile)
        if len(tiles) == count:
            break
    if not tiles:
        raise DataError(
            f"{source.name} has no tile of {side} px with at least half of its pixels valid; "
            f"number of images: {len(entries)}.",
            remedy="Use other data.",
        )
    return TileSet(source.name, tuple(tiles), opened.notes)


def demo_tiles(spec: BundleSpec, count: int) -> TileSet:
    """Return tiles of the bundled demo scene."""
    if len(spec.bands) != 3 or spec.dtype != "uint8":
        raise ConfigError(
            f"The model takes {plural(len(spec.bands), 'band')} of {spec.dtype}; the demo scene "
            "has three bands of uint8.",
            remedy="Give images for the check with --check.",
        )
    side = _tile_side(spec)
    image = np.moveaxis(RasterFile(demo_scene_path()).read().data, 0, -1)
    scale = _DEMO_GSD_M / min(max(spec.gsd_m or _DEMO_GSD_M, 0.05), 2.0)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    # Beyond its edges the scene is mirrored.
    across = math.ceil(math.sqrt(count))
    missing = [(0, max(0, side * across - length)) for length in image.shape[:2]]
    image = np.moveaxis(np.pad(image, [*missing, (0, 0)], mode="symmetric"), -1, 0)
    tiles = [
        np.ascontiguousarray(image[:, row : row + side, col : col + side])
        for row in range(0, side * across, side)
        for col in range(0, side * across, side)
    ]
    note = "checked on the demo scene only: use --check for a check on your images"
    return TileSet("demo scene", tuple(tiles[:count]), (note,))


_PREDICT_TERMS = {
    name: (f"rooftrace predict --{name}", f"rooftrace predict --{name} {{}}")
    for name in ("bands", "stretch")
}
"""Options by which images are read otherwise, which an export does not have. Those of
`rooftrace import` name the bands of the model."""


class _Scenes:
    """Scenes at the model's resolution; the ones used last stay open."""

    def __init__(self, source: SceneSet, entries: list[SceneEntry], spec: BundleSpec) -> None:
        self._source, self._entries, self._spec = source, entries, spec
        self._open: LruCache[int, Resampler] = LruCache(_OPEN)
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """The note of the first scene that has one; those of others are alike."""
        return tuple(self._notes)[:1]

    def shape_yx(self, number: int) -> tuple[int, int]:
        return self._at(number).shape_yx

    def read(self, number: int, window: Window) -> tuple[NDArray[Any], float]:
        """Return a tile, mirrored beyond its scene, and the share of its pixels that is valid."""
        scene = self._at(number)
        inside = window.intersection(Window.whole(scene.shape_yx))
        assert inside is not None, "laid over the scene"
        data, valid = scene.read(inside)
        beyond = (0, window.height - inside.height), (0, window.width - inside.width)
        return np.pad(data, ((0, 0), *beyond), mode="symmetric"), float(valid.mean())

    def _at(self, number: int) -> Resampler:
        return self._open.get_or_make(number, lambda: self._opened(number))

    def _opened(self, number: int) -> Resampler:
        scene: Scene = self._source.open_scene(self._entries[number])
        try:
            plan = plan_scene(scene.image, self._spec, SceneOptions(gsd_m=scene.stated_gsd_m))
        except BandMismatch as error:
            error.remedy = in_terms(error.remedy, _PREDICT_TERMS)
            raise
        self._notes |= {in_terms(note, _PREDICT_TERMS): None for note in plan.notes}
        return Resampler(plan.source, plan.scaling)


def _corners(shape_yx: tuple[int, int], side: int) -> Iterator[tuple[int, int]]:
    """Yield the corners of adjacent tiles; the rest is left out, except in small scenes."""
    rows, cols = (max(1, length // side) for length in shape_yx)
    return ((row * side, col * side) for row in range(rows) for col in range(cols))
