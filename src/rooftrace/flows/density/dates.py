"""`rooftrace density --by-date`: one table of zones at several dates.

Every date has its own figures, and those of the ground that all dates show: without these, a change
of the part of a zone that an image shows looks like growth.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import shapely

from rooftrace.core.errors import ConfigError
from rooftrace.core.parallel import core_count
from rooftrace.core.report import Report
from rooftrace.core.text import list_first, plural, without_folders
from rooftrace.core.types import Polygons, Progress
from rooftrace.density.accumulate import centres_of, density_of_zones
from rooftrace.density.cells import DensityFigures
from rooftrace.density.files import DEFAULT_THRESHOLD, DensityThreshold, density_columns
from rooftrace.flows.density.ground import SeenGround, seen_ground
from rooftrace.flows.density.inputs import SceneFiles, files_of, scenes_of, stem_of
from rooftrace.flows.density.zones import Zones
from rooftrace.io.files import check_outputs, write_json
from rooftrace.io.georeferenced import date_span, model_notes
from rooftrace.io.make_valid import areal
from rooftrace.io.reproject import crs_text
from rooftrace.io.vector_write import free_names
from rooftrace.vector.layer_offset import LayerOffset, estimate_offset
from rooftrace.vector.match import PackedPolygons, shifted
from rooftrace.vector.prepare import MaskRecord

_LEAST_MOVE_M = 0.5
"""Length of an offset from which a date is moved onto the first."""


@dataclass(frozen=True)
class DateRow:
    """Figures of one date in all zones together, and the offset that was removed from it.

    Args:
        is_seen_assumed: Whether its input does not say which ground was seen.
    """

    date: str
    buildings: int
    observed_share: float
    common_buildings: int
    common_built_m2: float
    offset: LayerOffset | None
    is_seen_assumed: bool = False


@dataclass(frozen=True)
class DatesReport(Report):
    """Result of `run_date_density`.

    Args:
        crs: Description of the coordinate system of the measurements.
        common_share: Share of the zones that all dates show.
    """

    files: tuple[Path, ...]
    zones: int
    crs: str
    common_share: float
    dates: tuple[DateRow, ...]
    notes: tuple[str, ...]


def run_date_density(
    inputs: Sequence[Path],
    zones: Path,
    out: Path,
    *,
    building: str | None = None,
    min_area_m2: float = 0.0,
    threshold: DensityThreshold = DEFAULT_THRESHOLD,
    layer: str | None = None,
    progress: Progress | None = None,
) -> DatesReport:
    """Measure zones at several dates; write OUT.gpkg and OUT.csv with a row for each pair.

    OUT.json has the inputs, options, offsets and notes.

    Dates that lie apart from the first are moved onto it, where buildings of one shape tell the
    offset, see `estimate_offset`.

    Args:
        inputs: One input for each date: a folder of predictions, a mask, or polygons.
        zones: File of polygons; their attributes are kept.
        out, building, min_area_m2, threshold, layer: See `run_zone_density`.

    Raises:
        ConfigError: There are fewer than two dates, or two inputs are of one image.
    """
    scenes = [scenes_of([path]) for path in inputs]
    every = [path for one in scenes for path in files_of(one)]
    if len(inputs) < 2 or len({*every}) < len(every):
        raise ConfigError(
            f"--by-date received {list_first(inputs)}; expected two or more dates, and each image "
            "once.",
            remedy="Give one input for each date: the folder of its prediction.",
        )
    stem = stem_of(out, "dates")
    files = tuple(Path(f"{stem}{suffix}") for suffix in (".gpkg", ".csv", ".json"))
    check_outputs(files, [*inputs, *every, zones])
    places = Zones.read(zones, layer)
    names, said = _names(inputs, scenes)
    notes = [*places.notes, *said]
    grounds: list[SeenGround] = []
    offsets: list[LayerOffset | None] = []
    for name, of_date in zip(names, scenes):
        ground, offset = seen_ground(
            files_of(of_date), of_date, building=building, min_area_m2=min_area_m2, layer=layer
        ), None  # fmt: skip
        said = [*ground.notes]
        if grounds:
            ground, offset, note = _onto(grounds[0], ground)
            said.append(note.format(names[0]))
        notes += [f"{name}: {note}" for note in said if note]
        grounds.append(ground)
        offsets.append(offset)
        if progress is not None:
            progress(len(grounds), len(inputs))
    outlines, said = places.on(grounds)
    notes += said
    common = outlines
    for one in grounds:
        if one.observed is not None:
            common = areal(shapely.intersection(common, shapely.union_all(one.observed)))
    # Outlines of several layers have no key of their own.
    key = {"zone": np.tile(np.arange(1, len(outlines) + 1), len(names))}
    key["date"] = np.repeat(np.array(names, np.object_), len(outlines))
    renamed = free_names([*places.layer.values], key, "zone_")
    for column, values in places.layer.values.items():
        key[renamed[column]] = np.tile(values, len(names))

    def measured(ground: SeenGround, zones: Polygons, seen: Polygons | None) -> DensityFigures:
        return density_of_zones(zones, ground.buildings, seen, ground.built, ground.counted)[0]

    own = [measured(ground, outlines, ground.observed) for ground in grounds]
    both = [measured(ground, common, None) for ground in grounds]
    every_own, every_both = _stacked(own), _stacked(both)
    tiled = np.tile(outlines, len(names))
    columns = density_columns(every_own, threshold, key) | {
        "zone_m2": places.true_areas(every_own, tiled, grounds[0].plane),
        "common_m2": every_both.area_m2.round(1),
        "common_buildings": every_both.known(every_both.buildings),
        "common_built_m2": every_both.known(every_both.built_m2.round(1)),
        "common_built_up_share": every_both.built_up_share,
    }
    places.write(files, columns, grounds)
    rows = [
        DateRow(
            name, int(all_m.buildings.sum()), float(all_m.total().observed_share),
            int(common_m.buildings.sum()), float(common_m.built_m2.sum()), offset,
            ground.observed is None,
        )
        for name, ground, all_m, common_m, offset in zip(names, grounds, own, both, offsets)
    ]  # fmt: skip
    share = float(shapely.area(common).sum() / shapely.area(outlines).sum())
    if not share:
        notes.append("No ground of the zones is shown by all dates: columns common_ are empty.")
    most = np.max([figures.buildings for figures in own], axis=0)
    for name, ground, figures in zip(names, grounds, own):
        empty = np.flatnonzero((figures.buildings == 0) & (most > 0))
        if ground.observed is None and len(empty):
            notes.append(
                f"{name}: no building in {plural(len(empty), 'zone')} where another date has some, "
                f"such as {places.names[empty[0]]}: this is growth or loss only if its layer "
                "covers this ground."
            )
    plane = crs_text(grounds[0].plane)
    report = DatesReport(files, len(outlines), plane, share, tuple(rows), tuple(notes))
    record = report.to_json() | {
        "files": [file.name for file in files],
        "notes": [without_folders(note, [*inputs, zones]) for note in notes],
        "inputs": [*map(str, inputs)], "zones_file": str(zones), "building": building,
        "min_area_m2": min_area_m2, "threshold": threshold.threshold,
    }  # fmt: skip
    write_json(files[2], record)
    return report


def _stacked(figures: Sequence[DensityFigures]) -> DensityFigures:
    """Return figures of zones one after the other."""
    names = [field.name for field in fields(DensityFigures)]
    return DensityFigures(*(np.concatenate([getattr(one, n) for one in figures]) for n in names))


def _names(
    inputs: Sequence[Path], scenes: Sequence[Sequence[SceneFiles]]
) -> tuple[list[str], list[str]]:
    """Return the date of each input, else its name; and notes on what differs between them."""
    records = [
        [record for mask, _ in of_date if mask and (record := MaskRecord.read(mask)) is not None]
        for of_date in scenes
    ]
    dates = [date_span([record.origin.imagery_date for record in of_date]) for of_date in records]
    plain = [
        path.resolve().name if path.is_dir() else re.sub("_(mask|buildings)$", "", path.stem)
        for path in inputs
    ]
    names = [date or name for date, name in zip(dates, plain)]
    if len({*names}) < len(names):
        names = plain if len({*plain}) == len(plain) else list(map(str, inputs))
    return names, model_notes(record.origin.model for of_date in records for record in of_date)


def _onto(first: SeenGround, ground: SeenGround) -> tuple[SeenGround, LayerOffset | None, str]:
    """Return the ground on the plane of the first date without the offset from it, and a note."""
    ground = ground.on(first.plane)
    packed = [PackedPolygons.of(one.buildings) for one in (ground, first)]
    offset = estimate_offset(packed[0], packed[1], core_count())
    if offset is None:
        return ground, None, "too few buildings of one shape tell its offset from {}; not moved."
    if offset.length_m < _LEAST_MOVE_M:
        return ground, None, ""

    def moved(polygons: Polygons | None) -> Polygons | None:
        return None if polygons is None else shifted(polygons, -offset.at(centres_of(polygons)))

    east, north = (np.round(-offset.xy, 1) + 0.0).tolist()
    ground = replace(
        ground, buildings=shifted(ground.buildings, -offset.at(packed[0].centre)),
        built=moved(ground.built), observed=moved(ground.observed),
    )  # fmt: skip
    return ground, offset, f"moved by {east:+.1f} m east and {north:+.1f} m north, onto {{}}."
