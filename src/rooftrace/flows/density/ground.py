"""Buildings and observed ground of the images that `rooftrace density` measures, on one plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.arrays import components
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError
from rooftrace.core.text import ASSIGN_CRS, plural
from rooftrace.core.types import BoolArray, Bounds, Floats, Ints, Polygons, Progress
from rooftrace.density.accumulate import centres_of, without_overlaps
from rooftrace.density.cells import GroundPlane, metric_crs
from rooftrace.flows.density.inputs import (
    MaskFile,
    SceneFiles,
    mask_notes,
    read_buildings,
    trace_regions,
)
from rooftrace.io.area import observed_file
from rooftrace.io.legend import NODATA
from rooftrace.io.reproject import BEND_M, crs_text, reprojected

_LEAST_TWICE_M2 = 50.0
"""Minimum area that several images show for a note, which has hectares to two digits."""

_SEAM_M = 0.25
"""Maximum distance in metres from the edge of an image for a building that the edge cuts."""

_CONTACT_M = 0.5
"""Minimum length in metres along which two parts of one building meet at such an edge."""

_SAME_BUILDING = 0.5
"""Minimum share of two parts of one building that is common, on the ground that both images show.
"""

_LEAST_BOTH = 0.1
"""Maximum share of two parts that meet at an edge on the ground that both images show."""


@dataclass(frozen=True)
class SeenGround:
    """Buildings and observed ground of one or more images, on a plane in metres.

    Args:
        place: Bounds of the images, and the CRS of these.
        counted: (n,) False for those on ground that was not observed; None: all count.
        built: (k,) built-up ground of the masks, without overlaps; None without a mask.
        observed: (m,) observed ground, without overlaps; None where it is not known.
        numbers: (n,) values of attributes of the buildings.
        systems: CRS of several images, each once.
    """

    plane: CRS
    place: tuple[Bounds, CRS]
    buildings: Polygons
    counted: BoolArray | None = None
    built: Polygons | None = None
    observed: Polygons | None = None
    numbers: Mapping[str, Floats] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    systems: tuple[CRS, ...] = ()

    @property
    def outside(self) -> int:
        """Number of buildings that are not counted."""
        return 0 if self.counted is None else int(np.count_nonzero(~self.counted))

    def extent(self, plane: CRS) -> Polygons:
        """Return the (1,) rectangle around the images, on a plane."""
        bounds, crs = self.place
        return reprojected(np.array([shapely.box(*bounds)], np.object_), crs, plane, BEND_M)

    @property
    def around(self) -> shapely.Geometry:
        """Rectangle around all buildings."""
        return shapely.box(*shapely.total_bounds(self.buildings))

    def on(self, plane: CRS) -> Self:
        """Return the same ground on another plane."""

        def moved(polygons: Polygons | None) -> Polygons | None:
            return None if polygons is None else reprojected(polygons, self.plane, plane, BEND_M)

        return replace(
            self, plane=plane, buildings=reprojected(self.buildings, self.plane, plane, BEND_M),
            built=moved(self.built), observed=moved(self.observed),
        )  # fmt: skip

    def only(self, chosen: BoolArray) -> Self:
        """Return the same ground with the buildings that are chosen, (n,) bool, alone."""
        numbers = {name: values[chosen] for name, values in self.numbers.items()}
        counted = None if self.counted is None else self.counted[chosen]
        return replace(self, buildings=self.buildings[chosen], counted=counted, numbers=numbers)

    def without(self, earlier: shapely.Geometry) -> Self:
        """Return the ground that no earlier image shows, with the same buildings."""

        def cut(polygons: Polygons | None) -> Polygons:
            rest = np.array([] if polygons is None else polygons, np.object_)
            meets = shapely.intersects(rest, earlier)
            rest[meets] = shapely.difference(rest[meets], earlier)
            return rest[~shapely.is_empty(rest)]

        return replace(self, built=cut(self.built), observed=cut(self.observed))


def seen_ground(
    inputs: Sequence[Path],
    scenes: Sequence[SceneFiles],
    *,
    building: str | None = None,
    min_area_m2: float = 0.0,
    layer: str | None = None,
    value: str | None = None,
    progress: Progress | None = None,
) -> SeenGround:
    """Return the buildings and the observed ground of images.

    Ground that several images show is that of the first of them.

    Args:
        inputs: Files and folders that the user gave.
        building, min_area_m2, layer, value, progress: See `run_zone_density`.

    Raises:
        GeoreferenceError: A mask has no coordinate system.
        DataError: One of several images has no mask; or a file cannot be used.
    """
    masks = [None if mask is None else MaskFile.of(mask, building) for mask, _ in scenes]
    pixels = [0 if mask is None else mask.grid.height * mask.grid.width for mask in masks]
    grounds: list[SeenGround] = []
    for (_, polygons), mask in zip(scenes, masks):
        if mask is None and len(scenes) > 1:
            raise DataError(
                f"{polygons} has no mask beside it, so the ground that this image shows is not "
                "known; expected a mask of each of several images.",
                remedy="Predict images with their masks. Of other layers, make one: rooftrace "
                "compare NEW OLD --keep old -o OUT; then measure OUT/conflated.gpkg.",
            )
        before = sum(pixels[: len(grounds)])

        def told(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, sum(pixels))

        grounds.append(_of_image(mask, polygons, building, layer, value, told))
    # The parts of a building that edges of images cut may be small.
    ground = _joined(grounds) if len(grounds) > 1 else grounds[0]
    ground = ground.only(shapely.area(ground.buildings) >= min_area_m2)
    if len(grounds) > 1:
        return ground
    said = mask_notes(inputs, *scenes[0], min_area_m2)
    return replace(ground, notes=(*said, *ground.notes, *outside_notes(ground.outside)))


def _of_image(
    mask: MaskFile | None,
    polygons: Path | None,
    building: str | None,
    layer: str | None,
    value: str | None,
    progress: Progress,
) -> SeenGround:
    """Return the ground of one image, on the plane that suits it."""
    if mask is not None:
        if mask.grid.crs is None:
            raise GeoreferenceError(
                f"{mask.path} has no coordinate system, so zones cannot be placed on it.",
                remedy=f"Measure it alone by cells, without --zones, or assign one: {ASSIGN_CRS}",
            )
        plane = GroundPlane.of(mask.grid, name=str(mask.path))
        assert plane.crs is not None
        crs, place = plane.crs, (mask.grid.bounds_xy, mask.grid.crs)
    if polygons is None:
        assert mask is not None
        if value is not None:
            raise ConfigError(
                f"Received the value {value!r} without polygons; a mask has no attributes.",
                remedy="Give the layer of buildings, too.",
            )
        built, observed = _regions(mask, plane, progress)
        notes = mask.source.notes
        return SeenGround(crs, place, built, built=built, observed=observed, notes=notes)
    buildings = read_buildings(polygons, building, mask, layer, value)
    assert buildings.crs is not None
    if mask is None:
        crs = metric_crs(buildings.crs, buildings.bounds_xy)
        place = buildings.bounds_xy, buildings.crs
    outlined = reprojected(buildings.geometry, buildings.crs, crs, BEND_M)
    ground = SeenGround(crs, place, outlined, numbers=buildings.numbers)
    if mask is None:
        if (file := observed_file(polygons)) is None:
            # A mask has no statuses of a comparison.
            remedy = "" if building else "; give the mask as well where it has nodata"
            note = f"{polygons.name} does not contain the observed area: all ground counts as seen"
            return replace(ground, notes=(*buildings.notes, f"{note}{remedy}."))
        seen = file.read([])
        observed = without_overlaps(reprojected(seen.geometry, seen.crs, crs, BEND_M))
        note = f"{file.path.name}, beside {polygons.name}, says which ground was seen."
        return replace(ground, observed=observed, notes=(*buildings.notes, note))
    mask, said = buildings.shares_of(mask)
    built, observed = _regions(mask, plane, progress)
    counted = np.zeros(len(outlined), np.bool_)
    centres = np.asarray(shapely.points(centres_of(outlined)))
    counted[shapely.STRtree(centres).query(observed, "intersects")[1]] = True
    return replace(
        ground,
        counted=counted,
        built=built,
        observed=observed,
        notes=(*mask.source.notes, *buildings.notes, *said),
    )


def _joined(grounds: Sequence[SeenGround]) -> SeenGround:
    """Return the ground of several images, on a plane that suits all of them."""
    first = grounds[0].plane
    bounds = bounds_on(np.concatenate([one.extent(first) for one in grounds]))
    if not np.isfinite(bounds).all():
        raise GeoreferenceError(
            f"Some images lie too far from the first one, in {crs_text(first)}, to be measured "
            "with it.",
            remedy="Measure the images of each region by themselves.",
        )
    plane = metric_crs(first, bounds)
    # A building that no image shows is no neighbour, either: another image may show it, too.
    moved = [(one if one.counted is None else one.only(one.counted)).on(plane) for one in grounds]
    shown_twice = 0.0
    areas: list[shapely.Geometry] = []
    own: list[SeenGround] = []
    again: list[BoolArray] = []
    for one in moved:
        assert one.observed is not None
        area = shapely.union_all(one.observed)
        earlier = shapely.union_all([other for other in areas if shapely.intersects(other, area)])
        areas.append(area)
        shapely.prepare(earlier)
        again.append(shapely.intersects_xy(earlier, centres_of(one.buildings)))
        if twice := float(shapely.intersection(area, earlier).area):
            shown_twice += twice
            one = one.without(earlier)
        own.append(one)
    notes = list(dict.fromkeys(note for one in own for note in one.notes))
    notes += outside_notes(sum(one.outside for one in grounds))
    notes.append(f"{len(own)} images, whose masks say which ground was seen, measured as one.")
    if shown_twice >= _LEAST_TWICE_M2:
        is_same_place = shown_twice > 0.4 * float(shapely.area(areas).sum())
        notes.append(
            f"{shown_twice / 10_000:,.2f} ha that several images show counted once, as the first "
            f"of them shows it{'; --by-date measures each date' if is_same_place else ''}."
        )
    names = set.intersection(*({*one.numbers} for one in own))

    def of_all(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(one, name) for one in own])

    numbers = {name: np.concatenate([one.numbers[name] for one in own]) for name in sorted(names)}
    images = np.repeat(np.arange(len(own)), [len(one.buildings) for one in own])
    buildings, chosen = _across_seams(of_all("buildings"), images, areas, np.concatenate(again))
    return SeenGround(
        plane, (bounds, first), buildings, None, of_all("built"), of_all("observed"),
        {name: values[chosen] for name, values in numbers.items()}, tuple(notes),
        tuple(dict.fromkeys(one.place[1] for one in grounds)),
    )  # fmt: skip


def _across_seams(
    buildings: Polygons, images: Ints, areas: Sequence[shapely.Geometry], again: BoolArray
) -> tuple[Polygons, Ints]:
    """Return each building once, with the parts that several images show of it joined.

    Args:
        images: (n,) index of the image of each.
        again: (n,) True for those whose centre an earlier image shows.

    Returns:
        (k,) buildings, and for each the index of its largest part.
    """
    is_cut = np.zeros(len(buildings), np.bool_)
    for index, area in enumerate(areas):
        edge = shapely.boundary(area)
        shapely.prepare(edge)
        rows = np.flatnonzero(images == index)
        is_cut[rows] = shapely.dwithin(edge, buildings[rows], _SEAM_M)
    rows = np.flatnonzero(is_cut)
    tree = shapely.STRtree(buildings)
    one, other = tree.query(buildings[rows], predicate="dwithin", distance=_SEAM_M)
    one = rows[one]
    across = (images[one] != images[other]) & ~(is_cut[other] & (other < one))
    one, other = one[across], other[across]
    area_m2 = shapely.area(buildings)
    ground = np.array(areas, np.object_)[images]
    # On ground that both images show, parts of one building show the same.
    both = [
        shapely.area(shapely.intersection(buildings[rows], ground[others]))
        for rows, others in ((one, other), (other, one))
    ]
    common = shapely.area(shapely.intersection(buildings[one], buildings[other]))
    is_same = common >= np.maximum(_SAME_BUILDING * np.minimum(*both), _SEAM_M * _CONTACT_M)
    strip = shapely.intersection(shapely.buffer(buildings[one], _SEAM_M), buildings[other])
    meets = is_cut[other] & (shapely.area(strip) >= _SEAM_M * _CONTACT_M)
    meets &= np.maximum(*both) <= _LEAST_BOTH * np.minimum(area_m2[one], area_m2[other])
    one, other = one[is_same | meets], other[is_same | meets]
    group = components(len(buildings), one, other)
    rows = np.flatnonzero(np.isin(group, group[~again]))
    order = rows[np.lexsort((-area_m2[rows], group[rows]))]
    first = np.diff(group[order], prepend=-1) != 0
    chosen = order[first]
    joined = buildings[chosen]
    starts = np.flatnonzero(first)
    sizes = np.diff(starts, append=len(order))
    for row in np.flatnonzero(sizes > 1):
        joined[row] = shapely.union_all(buildings[order[starts[row] : starts[row] + sizes[row]]])
    return joined, chosen


def bounds_on(polygons: Polygons) -> Bounds:
    """Return left, bottom, right and top of polygons on a plane."""
    left, bottom, right, top = shapely.total_bounds(polygons).tolist()
    return left, bottom, right, top


def outside_notes(count: int) -> list[str]:
    """Return the note on buildings that are not counted."""
    return [f"{plural(count, 'building')} outside the observed area not counted."] if count else []


def _regions(
    mask: MaskFile, ground: GroundPlane, progress: Progress | None
) -> tuple[Polygons, Polygons]:
    """Return the built-up area and the valid area of a mask, on the plane of the figures."""
    shape = mask.grid.shape
    built = ((window, values * (values != NODATA)) for window, values in mask.blocks())
    known = (
        (window, (values != NODATA).view(np.uint8)) for window, values in mask.blocks(progress)
    )
    found, observed = (
        np.concatenate(
            [np.empty(0, np.object_)]
            + [ground.reproject(regions, None) for regions in trace_regions(shape, blocks)]
        )
        for blocks in (built, known)
    )
    return found, observed
