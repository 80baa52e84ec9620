"""Results described as a STAC collection, whose items lead back to those of the imagery.

OUT/collection.json             licence, providers and extent, and the files of the whole run
NAME_item.json                  beside the results of a scene, with a link `derived_from`

STAC 1.1: https://github.com/radiantearth/stac-spec
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import CRS

from rooftrace.core.errors import MissingExtraError
from rooftrace.core.text import list_and_count, plural
from rooftrace.core.types import ResultProvenance
from rooftrace.io.companions import ITEM_ENDING
from rooftrace.io.files import is_url, relative_name, write_json
from rooftrace.io.georeferenced import recorded_provenance
from rooftrace.io.image_header import YEAR_OR_MONTH
from rooftrace.io.reproject import BEND_PX, CRS84, crs_units, reprojected, split_at_180, unwrapped
from rooftrace.io.stac_item import Json, Provenance, moment_of

COLLECTION = "collection.json"
_COLLECTION_ID = "rooftrace-buildings"
_JSON = "application/json"
_GEOJSON = "application/geo+json"
_GEOTIFF = "image/tiff; application=geotiff"
_PARQUET = "application/vnd.apache.parquet"
_TYPES = {
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": _GEOJSON,
    ".json": _JSON,
    ".parquet": _PARQUET,
    ".png": "image/png",
    ".tif": _GEOTIFF,
}
_KINDS = ("mask", "polygons", "density", "preview")
_LICENSE = re.compile(r"[\w.+-]+")
"""Pattern of STAC for the identifier of a licence."""


@dataclass(frozen=True)
class PredictedScene:
    """Results of a scene.

    Args:
        id: First part of the names of its results.
        outline: Outline of the valid data, in degrees; its longitudes may jump at 180.
        gsd_m: Ground sample distance in metres per pixel.
        files: Path of each result by its kind: mask, polygons, density, preview.
        origin: Origin of the image, which counts where no STAC item states it.
        item: Origin of the image, if a STAC item states one.
    """

    id: str
    outline: shapely.Geometry
    gsd_m: float
    buildings: int
    files: Mapping[str, Path]
    origin: ResultProvenance
    item: Provenance | None = None

    @property
    def providers(self) -> list[Json]:
        """STAC providers of the image. Their roles are optional, and an attribution has none."""
        if self.item is not None and self.item.providers:
            return [dict(one) for one in self.item.providers]
        return [{"name": self.origin.source}] if self.origin.source else []


def check_stac() -> None:
    """Check that the results can be described."""
    with MissingExtraError.on_import("stac", "Writing STAC items", "pystac"):
        import pystac  # noqa: F401


def predicted_scene(name: str, record: Mapping[str, Any], crs: CRS) -> PredictedScene:
    """Return the results of a georeferenced image.

    Args:
        record: Its record in run.json, with the outline of its valid data.
    """
    output, figures = record["output"], record["figures"]
    gsd_m = float(figures["gsd_m"])
    # The edges bend with those of the image.
    bend_deg = crs_units(BEND_PX * gsd_m, CRS84)
    outlines = np.array([shapely.from_wkb(record["outline"])], np.object_)
    return PredictedScene(
        name,
        reprojected(outlines, crs, CRS84, bend_deg)[0],
        gsd_m,
        sum(int(one["polygons"]) for one in figures["classes"]),
        {kind: Path(output[kind]) for kind in _KINDS if output[kind] is not None},
        recorded_provenance(figures),
    )


def write_stac(
    out: Path, name: str, scenes: Sequence[PredictedScene], model: Mapping[str, Any],
    record: str, dating: str, partitions: Sequence[Mapping[str, Any]] = (),
) -> list[str]:  # fmt: skip
    """Write a STAC collection of the results, and an item for each scene with a known date.

    Args:
        name: Name of the imagery, for the description.
        model: Name and sha256 of the model.
        record: Name of the file in the folder that records the run.
        dating: Sentence that explains to the user where to give the date of images.
        partitions: Files of the layer, as its manifest lists them.

    Returns:
        Notes for the user.
    """
    written = []
    undated = []
    for scene in scenes:
        item = _item(scene, model, out)
        if item is None:
            undated.append(scene.id)
            continue
        # Beside the results of its scene.
        folder = next(iter(scene.files.values())).parent
        path = (folder / f"{scene.id}{ITEM_ENDING}").relative_to(out).as_posix()
        write_json(out / path, item)
        written.append((scene, path))
    if written:
        write_json(out / COLLECTION, _collection(name, written, record, partitions))
    else:
        (out / COLLECTION).unlink(missing_ok=True)
    if not undated:
        return []
    note = (
        f"No STAC item was written for {plural(len(undated), 'scene')} whose imagery has no date: "
        f"{list_and_count(undated)}. {dating}"
    )
    return [note]


def _item(scene: PredictedScene, model: Mapping[str, Any], out: Path) -> Json | None:
    """Return the item of a scene; None if its imagery has no date."""
    import pystac

    origin = scene.item or Provenance(scene.id)
    moment, start, end = _times(scene)
    if moment is None and (start is None or end is None):
        return None
    # The convex hull has few corners where the outline follows the pixels of a rotated image.
    hull = shapely.convex_hull(unwrapped(np.array([scene.outline], np.object_)))
    hull = shapely.orient_polygons(split_at_180(hull)[0])
    hull = shapely.transform(hull, lambda xy: xy.round(7))
    item = pystac.Item(
        id=scene.id,
        geometry=json.loads(shapely.to_geojson(hull)),
        bbox=_bbox([hull]),
        datetime=moment,
        start_datetime=start,
        end_datetime=end,
        properties={
            "title": f"Buildings in {origin.item}",
            "gsd": round(scene.gsd_m, 6),
            "rooftrace:buildings": scene.buildings,
            "rooftrace:model": model["name"],
            "rooftrace:model_sha256": model["sha256"],
        },
    )
    if origin.license:
        item.properties["license"] = _license(origin.license)
    if scene.providers:
        item.properties["providers"] = scene.providers
    for kind in _KINDS:
        for key, path in _files(kind, scene.files.get(kind)):
            roles = ["overview"] if path.suffix == ".png" and kind != "mask" else ["data"]
            is_cog = kind == "mask" and path.suffix == ".tif"
            kept_as = f"{_GEOTIFF}; profile=cloud-optimized" if is_cog else _TYPES[path.suffix]
            asset = pystac.Asset(f"./{path.name}", media_type=kept_as, roles=roles)
            item.add_asset(key, asset)
    here = next(iter(scene.files.values())).parent
    up = "." if here == out else ".."
    for rel in ("root", "parent", "collection"):
        item.add_link(pystac.Link(rel, f"{up}/{COLLECTION}", _JSON))
    item.collection_id = _COLLECTION_ID
    if origin.href:
        source = origin.href if is_url(origin.href) else relative_name(Path(origin.href), here)
        item.add_link(pystac.Link("derived_from", source, _GEOJSON, origin.item))
    document: Json = item.to_dict(include_self_link=False, transform_hrefs=False)
    return document


def _bbox(outlines: Sequence[shapely.Geometry]) -> list[float]:
    """Return west, south, east and north in degrees; west is more than east across 180."""
    boxes = shapely.geometrycollections(outlines)
    west, south, east, north = shapely.bounds(unwrapped(np.array([boxes], np.object_)))[0].tolist()
    return [round(edge, 7) for edge in (west, south, east - 360 if east > 180 else east, north)]


def _times(scene: PredictedScene) -> tuple[datetime | None, datetime | None, datetime | None]:
    """Return the moment of an image, and the first and last moment of a period."""
    origin = scene.item
    if origin is not None and (origin.datetime or origin.start):
        texts = origin.datetime, origin.start, origin.end
    else:
        first, _, last = (scene.origin.imagery_date or "").partition("/")
        if last or YEAR_OR_MONTH.fullmatch(first):
            return None, _ends_of(first)[0], _ends_of(last or first)[1]
        texts = (first, None, None)
    moment, start, end = (moment_of(text) for text in texts)
    return moment, start, end


def _ends_of(text: str) -> tuple[datetime | None, datetime | None]:
    """Return the first and last second of a year or month; twice the moment of another date."""
    if not YEAR_OR_MONTH.fullmatch(text):
        return moment_of(text), moment_of(text)
    period = np.datetime64(text)
    first, following = (one.astype("M8[s]").item() for one in (period, period + 1))
    return first.replace(tzinfo=UTC), following.replace(tzinfo=UTC) - timedelta(seconds=1)


def _files(kind: str, path: Path | None) -> list[tuple[str, Path]]:
    """Return the files of a result with their keys: several formats have one stem."""
    if path is None:
        return []
    others = [path.with_suffix(suffix) for suffix in _TYPES if suffix != path.suffix]
    return [(kind, path), *((f"{kind}_{one.suffix[1:]}", one) for one in others if one.exists())]


def _license(text: str) -> str:
    """Return the identifier of a licence as STAC writes it."""
    plain = "-".join(text.split())
    return plain if _LICENSE.fullmatch(plain) else "other"


def _collection(
    name: str, written: Sequence[tuple[PredictedScene, str]], record: str,
    partitions: Sequence[Mapping[str, Any]],
) -> Json:  # fmt: skip
    import pystac

    origins = [one.item or Provenance(one.id) for one, _ in written]
    licenses = {_license(origin.license) if origin.license else "other" for origin in origins}
    providers = {str(one["name"]): one for scene, _ in written for one in scene.providers}
    known = [moment for one, _ in written for moment in _times(one) if moment is not None]
    moments: list[datetime | None] = [*sorted(known)]
    collection = pystac.Collection(
        id=_COLLECTION_ID,
        description=f"Buildings that rooftrace predicted in images of {name}.",
        title="Buildings",
        extent=pystac.Extent(
            pystac.SpatialExtent([_bbox([one.outline for one, _ in written])]),
            pystac.TemporalExtent([[moments[0], moments[-1]]]),
        ),
        license=licenses.pop() if len(licenses) == 1 else "other",
        providers=[pystac.Provider.from_dict(one) for one in providers.values()] or None,
    )
    collection.add_asset(
        Path(record).stem, pystac.Asset(f"./{record}", media_type=_JSON, roles=["metadata"])
    )
    for part in partitions:
        collection.add_asset(
            f"buildings-{part['quadkey']}",
            pystac.Asset(f"./{part['path']}", media_type=_PARQUET, roles=["data"]),
        )
    for scene, path in written:
        collection.add_link(pystac.Link("item", f"./{path}", _GEOJSON, scene.id))
    document: Json = collection.to_dict(include_self_link=False, transform_hrefs=False)
    links = [link for link in document["links"] if link["rel"] != "root"]
    document["links"] = [{"rel": "root", "href": f"./{COLLECTION}", "type": _JSON}, *links]
    return document
