"""`rooftrace compare`: what is new, gone or changed between two layers of buildings."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from rooftrace.core.errors import ConfigError, DataError, RooftraceError
from rooftrace.core.parallel import core_count
from rooftrace.core.report import Report
from rooftrace.core.system import peak_rss_mb
from rooftrace.core.text import plural, utc_now, without_folders
from rooftrace.core.types import Floats, GeoGrid, Progress, RasterSource
from rooftrace.density.cells import metric_crs
from rooftrace.flows.compare.imagery import (
    PROBABILITY_FILES,
    Dates,
    ground_on,
    keep_certain_changes,
    mark_outside,
    mark_outside_bounds,
    predict_dates,
    probabilities_of,
    shown_ground,
)
from rooftrace.flows.compare.inputs import (
    ALL_FIELDS,
    ORIGINS,
    BuildingLayer,
    on_plane,
    read_buildings_layer,
)
from rooftrace.flows.compare.options import CompareOptions, Keep
from rooftrace.flows.compare.outputs import (
    REVIEWED,
    Compared,
    ComparedSide,
    StatusRow,
    cloud_notes,
    comparison_page,
    status_table,
    write_conflated,
    write_sides,
)
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.io.area import area_in_degrees, read_area
from rooftrace.io.companions import predicted_images
from rooftrace.io.files import check_exists, prepare_folder, write_atomically, write_json
from rooftrace.io.gdal import is_raster
from rooftrace.io.georeferenced import in_crs, model_notes
from rooftrace.io.partitions import OBSERVED
from rooftrace.io.raster import open_image
from rooftrace.io.reproject import (
    bounds_meet,
    degrees_text,
    layer_position_notes,
    missing_grid,
    outline_bounds,
)
from rooftrace.io.vector_write import write_copies, write_polygons
from rooftrace.predict.model_set import ModelSet
from rooftrace.vector.compare import (
    GONE,
    NEW,
    OUTSIDE,
    STATUSES,
    CompareRules,
    LayerComparison,
    compare_layers,
)
from rooftrace.vector.layer_offset import NEAR_M, LayerOffset, estimate_offset

_STEPS = 7
_NOTED_OFFSET_M = 0.5
"""Length of an offset from which a note proposes to remove it."""


_WRITTEN = ("compare.gpkg", "review.geojson", "compare.json", "report.html")
_OBSERVED = f"compare_{OBSERVED}"
_CONFLATED = "conflated.gpkg"


@dataclass(frozen=True)
class MapAgreement:
    """Numbers of buildings on ground that was seen, in a map and in what was found.

    Of each layer, `pairs`, those in both otherwise, and those in this layer only are all.

    Args:
        pairs: One-to-one pairs with an IoU of at least 0.5.
        mapped, found: Buildings of the map, and those that were found.
        only_map, only_found: Buildings without any match.
    """

    pairs: int
    mapped: int
    found: int
    only_map: int
    only_found: int

    @classmethod
    def of(cls, compared: LayerComparison) -> Self:
        """Count the buildings of two layers whose old one is the map."""
        found, mapped = (
            side.status[side.status != OUTSIDE] for side in (compared.new, compared.old)
        )
        only = int((mapped == GONE).sum()), int((found == NEW).sum())
        return cls(compared.matched, len(mapped), len(found), *only)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, those of buildings in both otherwise, recall and precision."""
        return {
            **asdict(self),
            "otherwise_map": self.mapped - self.pairs - self.only_map,
            "otherwise_found": self.found - self.pairs - self.only_found,
            "recall": round(self.pairs / self.mapped, 4) if self.mapped else None,
            "precision": round(self.pairs / self.found, 4) if self.found else None,
        }


@dataclass(frozen=True)
class CompareReport(Report):
    """Result of `run_compare`.

    Args:
        imagery: Images that the new layer was made from.
        statuses: Buildings by status.
        matched: Number of pairs with an IoU of at least 0.5, on ground that was seen.
        offset: Estimated offset; None where there were too few pairs.
        offset_removed: True if the new layer was moved by it.
        coverage: Source of the ground that was seen: `imagery`, `area`, `mask`, `observed` or
            `bounds`.
        conflated: Number of buildings with the outline of each layer; None without.
        crs: Coordinate system of areas and distances.
        against_map: Agreement with a map of the same time; None for two dates.
        dates: Probabilities of two dates, and their limits; None for two layers.
    """

    new: str
    old: str
    imagery: tuple[Path, ...]
    statuses: dict[str, StatusRow]
    matched: int
    offset: LayerOffset | None
    offset_removed: bool
    coverage: str
    conflated: dict[str, int] | None
    crs: str
    rules: CompareRules
    against_map: MapAgreement | None
    dates: Dates | None
    notes: tuple[str, ...]
    files: tuple[Path, ...] = ()
    seconds: float = 0.0
    peak_rss_mb: float = 0.0

    def to_json(self) -> dict[str, Any]:
        plain = super().to_json()
        left_out = {name for name in ("against_map", "dates") if plain[name] is None}
        return {name: value for name, value in plain.items() if name not in left_out}


def run_compare(
    new: Path,
    old: Path,
    out: Path,
    options: CompareOptions | None = None,
    *,
    models: ModelSet | None = None,
    formats: Sequence[str] = (),
    progress: Progress | None = None,
) -> CompareReport:
    """Compare two layers of buildings and write the results to a folder.

    Args:
        new, old: Files or folders of polygons, or masks; two rasters of probabilities; or two
            images, with `models`.
        out: Folder of the results; it is created where it is missing.
        models: Model that predicts NEW and OLD, which are two images; None for layers.
        formats: Suffixes of further files of the layers of results, see `write_copies`.

    Raises:
        ConfigError: An input would be replaced, or the options do not fit together.
        DataError, GeoreferenceError, LabelError: An input cannot be used.
        BundleError, PredictError: An image cannot be predicted.
        ExportError: A result cannot be written.
    """
    options = options or CompareOptions()
    started = time.perf_counter()
    rules = CompareRules(
        same_iou=options.same_iou, move_m=options.move_m, max_move_m=options.max_move_m,
        # A part of a building of the map that was found does not replace it.
        wall_share=0.0 if options.reference else CompareRules.wall_share,
    )  # fmt: skip
    _check_paths(new, old, out, options, models, formats)
    step = _Steps(progress, _STEPS + (0 if models is None else 2))
    new_layer, old_layer, dates = _read(new, old, out, options, models, step)
    step()
    plane = _plane(new_layer, old_layer)
    old_plane, new_plane = on_plane(old_layer, plane), on_plane(new_layer, plane)
    notes = [*new_layer.notes, *old_layer.notes]
    for layer in (new_layer, old_layer):
        notes += layer_position_notes(layer.name, layer.crs, layer.bounds_xy)
    notes += missing_grid(old_layer.crs, new_layer.crs, old_layer.bounds_xy)
    step()
    workers = core_count()
    offset = estimate_offset(new_plane, old_plane, workers)
    is_shifted = options.remove_offset and offset is not None
    in_place = aligned = new_plane
    # With the offset between two dates of imagery, neighbours would be partners.
    if offset is not None and (is_shifted or dates is not None):
        aligned = new_plane.shifted(-offset.at(new_plane.centre))
    elif offset is not None:
        # Walls that the offset alone has moved are still the same; far ones are others.
        rules = replace(rules, wall_m=rules.wall_m + min(offset.length_m, NEAR_M))
    if is_shifted:
        new_plane = aligned
    notes += _offset_notes(offset, options.remove_offset, has_dates=dates is not None)
    result = compare_layers(aligned, old_plane, rules, workers)
    step()
    imagery = [_opened(path) for path in options.imagery]
    coverage = _coverage(new_layer, options, has_dates=dates is not None)
    area = None if options.area is None else area_in_degrees(read_area(options.area, options.layer))
    shown, damaged = _ground(imagery, new_layer, step.part)
    step()
    before, damaged_before = _ground((), old_layer, step.part)
    notes += [*damaged, *damaged_before]
    step()
    new_side, old_side = (new_plane, result.new), (old_plane, result.old)
    if coverage == "bounds":
        mark_outside_bounds(new_side, old_side)
    is_unseen = mark_outside(
        (aligned, result.new), old_side, plane, shown, area,
        offset if is_shifted or dates is not None else None, before,
        joined=options.keep in ("new", "both"),
    )  # fmt: skip
    notes += _coverage_notes(coverage, new, old, new_layer.ground, is_map=options.reference)
    if is_unseen and old_layer.mask != old:
        notes.append(
            f"Buildings of {new} on ground that {old_layer.ground}, beside {old}, does not show, "
            "or shows in part, count as outside."
        )
    shares: tuple[Floats | None, Floats | None] = None, None
    if dates is not None:
        shares, unsure = keep_certain_changes(
            (in_place, result.new), old_side, dates, plane, offset
        )
        notes += unsure
    compared = Compared(
        ComparedSide("new", new_layer, *new_side, is_shifted, shares[0]),
        ComparedSide("old", old_layer, *old_side, change_share=shares[1]),
        plane, options.reference,
    )  # fmt: skip
    if not options.reference:
        notes += _order_notes(new_layer, old_layer)
        notes += model_notes((new_layer.model, old_layer.model))
    step()
    files, conflated = _write(compared, out, options.keep, formats, notes)
    (out / _OBSERVED).unlink(missing_ok=True)
    if shown is not None or area is not None:
        ground = ground_on(plane, [one for one in (shown, before, area) if one is not None])
        origin = {"source": new_layer.source, "imagery_date": new_layer.date}
        columns = {name: np.full(len(ground), one, np.object_) for name, one in origin.items()}
        write_polygons(out / _OBSERVED, ground, columns, plane)
    if models is not None:
        imagery = [open_image(new)]
    elif not imagery and new_layer.mask is not None:
        of_mask = predicted_images(new_layer.mask.parent, mosaics=True)
        image = of_mask.get(new_layer.mask.name)
        imagery = []
        # The image is for the picture alone. Its place may be one that --crs gave.
        with suppress(RooftraceError):
            imagery = [_opened(image, new_layer.crs)] if image is not None else []
    notes += cloud_notes(compared, imagery)
    report = CompareReport(
        str(new), str(old), options.imagery, status_table(compared), result.matched, offset,
        is_shifted, coverage, conflated, plane.to_string(), rules,
        MapAgreement.of(result) if options.reference else None, dates, tuple(notes),
    )  # fmt: skip
    inputs = (new, old, *options.imagery)
    notes = [without_folders(note, inputs) for note in notes]
    figures = report.to_json() | {"notes": notes, "created": utc_now()}
    # What depends on the run alone.
    for name in ("files", "seconds", "peak_rss_mb"):
        del figures[name]
    write_json(out / "compare.json", figures)
    page = comparison_page(figures, compared, imagery)
    write_atomically(out / "report.html", page.encode())
    step()
    names = _WRITTEN if models is None else (*_WRITTEN, *PROBABILITY_FILES)
    return replace(
        report,
        files=(*(out / name for name in names), *files),
        seconds=time.perf_counter() - started,
        peak_rss_mb=peak_rss_mb(),
    )


def _read(
    new: Path, old: Path, out: Path, options: CompareOptions, models: ModelSet | None,
    step: Callable[[], None],
) -> tuple[BuildingLayer, BuildingLayer, Dates | None]:  # fmt: skip
    """Return both layers, and the probabilities of two dates where these are known."""
    limit = options.threshold
    if models is not None:
        return predict_dates(new, old, models, limit, out, step)
    old_layer = read_buildings_layer(
        old, out, attributes=["height"] if options.keep is None else ALL_FIELDS,
        layer_name=options.layer,
        id_field=options.id, needs_id=options.id is not None,
        threshold=limit if old.is_file() and is_raster(old) else None,
    )  # fmt: skip
    new_layer = read_buildings_layer(
        new, out,
        attributes=["cut", "height", "review", *(() if options.keep is None else ORIGINS.values())],
        layer_name=options.layer, id_field=options.id,
        threshold=limit if new.is_file() and is_raster(new) else None,
    )  # fmt: skip
    return new_layer, old_layer, probabilities_of(new, old, limit)


def _coverage_notes(coverage: str, new: Path, old: Path, ground: str, *, is_map: bool) -> list[str]:
    """Return a note on what says which ground was seen, where the user did not give it."""
    if coverage == "mask" and ground != str(new):
        return [f"The valid pixels of {ground}, beside {new}, say which ground was seen."]
    if coverage == "observed":
        return [f"{ground}, beside {new}, says which ground was seen."]
    if coverage != "bounds":
        return []
    gone = "only in the map" if is_map else "gone"
    note = (
        f"{new} does not say which ground was seen: buildings of {old} outside of the bounding "
        f"box of its buildings count as outside, those inside without a match as {gone}. Give "
        "--imagery or --area."
    )
    return [note]


def _order_notes(new: BuildingLayer, old: BuildingLayer) -> list[str]:
    """Return a note if NEW is older than OLD, by what their data or their names say."""
    after, before = new.date, old.date
    if after is None or before is None or after[: len(before)] >= before[: len(after)]:
        return []
    note = (
        f"NEW, {Path(new.name).name}, is of {after}, and OLD, {Path(old.name).name}, of {before}: "
        "the order looks swapped. Give the later one first."
    )
    return [note]


class _Steps:
    """Progress of a comparison: steps, the longest ones in parts."""

    def __init__(self, progress: Progress | None, count: int) -> None:
        self._progress, self._count, self._done = progress, count, 0

    def __call__(self) -> None:
        """Tell that a step is done."""
        self._done += 1
        self.part(0, 1)

    def part(self, done: int, total: int) -> None:
        """Tell how much of the current step is done."""
        if self._progress is not None:
            self._progress(self._done * 100 + 100 * done // total, self._count * 100)


def _check_paths(
    new: Path, old: Path, out: Path, options: CompareOptions, models: ModelSet | None,
    formats: Sequence[str],
) -> None:  # fmt: skip
    for path in (*options.imagery, *([] if options.area is None else [options.area])):
        check_exists(path)
    if new.exists() and old.exists() and new.samefile(old):
        raise ConfigError(
            f"NEW and OLD are both {new}; expected two layers.", remedy="Give two different files."
        )
    probabilities = () if models is None else PROBABILITY_FILES
    read = (new, old, *options.imagery, options.area)
    written = {out / name for name in (*_WRITTEN, _OBSERVED, _CONFLATED, *probabilities)}
    written |= {out / f"{name}{end}" for name in ("compare", "conflated") for end in formats}
    is_given = models is None and options.threshold is not None
    if is_given and not (is_raster(new) or is_raster(old)):
        raise ConfigError(
            f"--threshold received {options.threshold:g}, but neither NEW nor OLD is a raster.",
            remedy="Remove it, or give two rasters of probabilities, or two images with -m.",
        )
    prepare_folder(out, written, read)


def _coverage(new: BuildingLayer, options: CompareOptions, *, has_dates: bool) -> str:
    """Return what says which ground was seen, see `CompareReport`."""
    if options.imagery or (has_dates and new.seen is not None):
        return "imagery"
    if new.seen is not None:
        return "mask"
    if new.observed is not None:
        return "observed"
    return "bounds" if options.area is None else "area"


def _ground(
    imagery: Sequence[RasterSource], layer: BuildingLayer, progress: Progress
) -> tuple[shapely.Geometry | None, list[str]]:
    """Return the ground that imagery shows, or what lies beside a layer, in degrees; and notes."""
    images = imagery or ([] if layer.seen is None else [layer.seen])
    if images:
        return shown_ground(images, progress)
    return None if layer.observed is None else area_in_degrees(layer.observed), []


def _opened(path: Path, crs: CRS | None = None) -> RasterSource:
    """Open an image, or a folder of adjacent ones as one scene; in `crs` if they state none."""
    if path.is_dir():
        return find_inputs([path], mosaic=True, crs=crs).scenes[0].source
    return open_image(path) if crs is None else in_crs(open_image(path), crs)


def _plane(new: BuildingLayer, old: BuildingLayer) -> CRS:
    """Return a plane in metres for both layers; raise DataError if there is none."""
    layers = [layer for layer in (new, old) if len(layer)]
    if not layers:
        raise DataError(
            f"Neither {new.name} nor {old.name} holds a building.",
            remedy="Check that both are layers of buildings.",
        )
    bounds = layers[0].bounds_xy
    if len(layers) == 2:
        left, bottom, right, top = layers[1].bounds_xy
        box = GeoGrid((1, 1), Affine(right - left, 0, left, 0, bottom - top, top), layers[1].crs)
        other = outline_bounds(box, layers[0].crs)
        if other is None or not bounds_meet(bounds, other, layers[0].crs):
            raise DataError(
                f"{new.name} ({degrees_text(new.bounds_xy, new.crs)}) and {old.name} "
                f"({degrees_text(old.bounds_xy, old.crs)}) show different places.",
                remedy="Give layers of one place, or check both coordinate systems.",
            )
        # The plane is true where the new layer is; the old one may be that of a country.
    return metric_crs(layers[0].crs, bounds)


def _offset_notes(offset: LayerOffset | None, is_wanted: bool, *, has_dates: bool) -> list[str]:
    if offset is None:
        unknown = "The offset is not known: too few pairs of buildings of one shape"
        if has_dates:
            return [f"{unknown}; if the images lie apart, buildings may seem to move or change."]
        return [f"{unknown}; none was removed." if is_wanted else f"{unknown}."]
    if is_wanted or offset.length_m < _NOTED_OFFSET_M:
        return []
    east, north = offset.xy.tolist()
    remedy = "Statuses leave it out; --remove-offset moves the buildings of NEW, too."
    note = (
        f"NEW lies {abs(east):.1f} m to the {'east' if east >= 0 else 'west'} and {abs(north):.1f} "
        f"m to the {'north' if north >= 0 else 'south'} of OLD (median of "
        f"{plural(offset.pairs, 'pair')}). "
        f"{remedy if has_dates else 'Statuses count it as change; --remove-offset leaves it out.'}"
    )
    return [note]


def _write(
    compared: Compared, out: Path, keep: Keep | None, formats: Sequence[str], notes: list[str]
) -> tuple[list[Path], dict[str, int] | None]:
    """Write the layers; return the files that were asked for, and what the last one holds."""

    def copied(layer: Path, formats: Sequence[str]) -> list[Path]:
        notes.extend(write_copies(layer, formats, multi=compared.is_multi))
        return [target for one in formats if (target := layer.with_suffix(one)) != layer]

    write_sides(out / "compare.gpkg", compared, range(len(STATUSES)))
    write_sides(out / "review.geojson", compared, REVIEWED)
    copies = copied(out / "compare.gpkg", formats)
    path = out / _CONFLATED
    if keep is None:
        if path.exists():
            notes.append(f"{path} is left over from an earlier run; it was not updated.")
        return copies, None
    conflated, said = write_conflated(path, compared, keep)
    notes.extend(said)
    # compare.osm has what is new; the other buildings are in the map already.
    others = [one for one in formats if one != ".osm"]
    return [*copies, path, *copied(path, others)], conflated
