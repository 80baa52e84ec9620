"""The buildings of many predicted scenes as one layer, each once; see `vector.sightings`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError
from rooftrace.io.mend import mended
from rooftrace.io.partitions import PartitionedLayer
from rooftrace.io.quadkey import morton
from rooftrace.io.reproject import moved
from rooftrace.vector.gather import Gatherer
from rooftrace.vector.sightings import Sightings

__all__ = ["Merged", "SceneLayer", "merge_layers"]

_CRS84 = CRS.from_user_input("OGC:CRS84")
_ORDER_LEVEL = 16
_FIGURES = ("score", "area_m2", "perimeter_m", "orientation_deg", "rectangularity")


@dataclass(frozen=True)
class SceneLayer:
    """What was made of one scene.

    Args:
        scene: its id.
        outline: (multi)polygon of its valid data, in the CRS of the polygons.
        gsd_m: metres per pixel.
        polygons: the file that `rooftrace predict` wrote.
        found: how many polygons are in it.
    """

    scene: str
    outline: shapely.Geometry
    gsd_m: float
    polygons: Path
    found: int


@dataclass(frozen=True)
class Merged:
    """A layer that was written.

    Args:
        manifest: what its manifest says.
        most_held: polygons that waited for other scenes, at most.
    """

    manifest: Mapping[str, Any]
    most_held: int


def merge_layers(
    layers: Sequence[SceneLayer],
    out: Path,
    *,
    level: int,
    classes: Sequence[str] = (),
    scenes: Callable[[Mapping[str, int]], list[dict[str, Any]]],
    made_with: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> Merged:
    """Write one layer, partitioned by quadkeys of a level; see `PartitionedLayer`.

    Args:
        layers: of scenes, in the order of the catalogue.
        out: the folder.
        level: of the quadkeys.
        classes: names by class index; empty where all are buildings.
        scenes: what the manifest says of each scene, from how many of its buildings are in the
            layer.
        made_with: what the layer depends on, for the manifest; plain data.
        progress: called with the scenes that are in, and how many there are.

    Raises:
        DataError: a scene's polygons cannot be read.
        MissingExtraError: pyarrow is missing.
        ExportError: the folder cannot be written to.
    """
    outlines = [_in_degrees(layer) for layer in layers]
    gatherer = Gatherer(outlines, [layer.gsd_m for layer in layers])
    kept: Counter[str] = Counter()
    names = np.array([layer.scene for layer in layers], dtype=object)
    with PartitionedLayer(out, level) as target:

        def write(parts: Sequence[Sightings]) -> None:
            for part in parts:
                shown = names[part.scene]
                kept.update(shown.tolist())
                target.add(part.geometry, _columns(part, shown, classes))

        # Neighbours one after the other, so that little is held.
        for count, index in enumerate(_along_a_curve(outlines), 1):
            write(gatherer.add(index, _read(layers[index], index)))
            if progress is not None:
                progress(count, len(layers))
        write(gatherer.finish())
        manifest = target.finish({"made_with": dict(made_with), "scenes": scenes(kept)})
    return Merged(manifest, gatherer.most_held)


def _in_degrees(layer: SceneLayer) -> Any:
    import pyogrio

    with _explained(layer):
        crs = pyogrio.read_info(layer.polygons)["crs"]
    return shapely.transform(layer.outline, _turn(crs))


@contextmanager
def _explained(layer: SceneLayer) -> Iterator[None]:
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        yield
    except (DataSourceError, DataLayerError) as error:
        raise DataError(
            f"{layer.polygons}, the buildings of {layer.scene}, cannot be read: {error}.",
            remedy="Remove it, and give the same command again: the scene is done anew.",
        ) from error


def _turn(crs: Any) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    source = CRS.from_user_input(crs)
    return lambda xy: moved(xy, source, _CRS84)


def _along_a_curve(outlines: Sequence[Any]) -> list[int]:
    centres = shapely.get_coordinates(shapely.centroid(np.array(outlines, np.object_)))
    if not len(centres):
        return []
    if len(centres) < len(outlines):
        # Some are empty, and nowhere.
        empty = shapely.is_empty(np.array(outlines, np.object_))
        placed = np.zeros((len(outlines), 2))
        placed[~empty] = centres
        centres = placed
    numbers = morton(centres[:, 0], centres[:, 1], _ORDER_LEVEL)
    order: list[int] = np.argsort(numbers, kind="stable").tolist()
    return order


def _read(layer: SceneLayer, index: int) -> Sightings:
    import pyogrio

    with _explained(layer):
        meta, _, geometry, fields = pyogrio.raw.read(layer.polygons)
    columns = dict(zip(meta["fields"].tolist(), fields))
    polygons = mended(
        np.asarray(shapely.transform(shapely.from_wkb(geometry), _turn(meta["crs"])), np.object_)
    )
    count = len(polygons)
    kind = columns.get("class_id", np.ones(count))

    def figures(name: str) -> NDArray[np.float64]:
        return np.asarray(columns[name], np.float64)

    return Sightings(
        geometry=polygons,
        scene=np.full(count, index),
        number=np.arange(count),
        score=np.asarray(columns["score"], np.float32),
        class_id=np.asarray(kind, np.uint8),
        area_m2=figures("area_m2"),
        perimeter_m=figures("perimeter_m"),
        orientation_deg=figures("orientation_deg"),
        rectangularity=figures("rectangularity"),
        cut=np.zeros(count, np.bool_),
        edge_m=np.full(count, np.nan),
        gsd_m=np.full(count, layer.gsd_m),
        seen=np.ones(count, np.int64),
    )


def _columns(
    part: Sightings, scene: NDArray[np.object_], classes: Sequence[str]
) -> dict[str, NDArray[Any]]:
    named = {"class": np.array(classes, np.object_)[part.class_id]} if classes else {}
    figures = {name: getattr(part, name) for name in _FIGURES}
    return {**named, **figures, "scene": scene, "scenes": part.seen.astype(np.int32)}
