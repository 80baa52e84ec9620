"""`rooftrace vectorize`: turn a mask or a raster of probabilities into polygons.

`open_mask` decides how a raster of any tool is read: as class indices or as probabilities.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError, DataError, LabelError
from rooftrace.core.report import Report
from rooftrace.core.system import peak_rss_mb
from rooftrace.core.text import plural, size_text
from rooftrace.core.types import Footprints, GeoGrid, Progress, Raster, RasterSource, Window
from rooftrace.io.companions import predicted_file
from rooftrace.io.files import prepare_folder, read_head
from rooftrace.io.georeferenced import check_crs, in_crs
from rooftrace.io.legend import BUILDING_NAMES, NODATA, Legend, read_categories
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.io.vector_write import check_vector_path, write_footprints
from rooftrace.labels.mask_source import without_blur
from rooftrace.labels.mask_values import instance_numbers
from rooftrace.vector.assemble import FootprintAssembler
from rooftrace.vector.footprints import ValidOutline
from rooftrace.vector.prepare import MIN_MARKER_PX, MaskRecord, OutlineStyle, VectorOptions
from rooftrace.vector.trace import Prob
from rooftrace.vector.watershed import WatershedOptions

OnBlock = Callable[[int], None]
"""Function that is called with the number of pixels of each block that has been read."""

_BLOCK_PX = 2**24
_BAND_PX = 256
"""Rows of a block are a multiple of this, so that few tiles of a GeoTIFF are decoded twice."""

_SHOWN = 6
_MAX_CLASSES = 40
"""Maximum number of classes without names; a raster with more values shows shades of grey."""

DEFAULT_THRESHOLD = 0.5


Mask8 = NDArray[np.uint8]

_RING = np.ones((3, 3), np.uint8)


MaskBlock = tuple[Window, Mask8, Prob | None, list[int], Mask8 | None]
"""Window of the raster; (y, x) class indices, NODATA where unknown; (y, x) probabilities, float32
in 0..1 or uint8 in 255ths, NaN where unknown, None without any; the values that occur; and (y, x)
markers inside single buildings, None without any."""


@dataclass(frozen=True)
class MaskInput:
    """A raster that is read as class indices.

    Args:
        names: Class names by index; empty where all classes are buildings.
        building: Index of the building class; None where it is unknown.
        table: (256,) class index for each value; None for probabilities.
        threshold: Threshold on probabilities; None for a mask.
    """

    source: RasterSource
    classes: tuple[int, ...] = (1,)
    names: tuple[str, ...] = ()
    building: int | None = 1
    table: NDArray[np.uint8] | None = None
    threshold: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> GeoGrid:
        return self.source.grid

    @property
    def default_options(self) -> VectorOptions:
        """Options for a raster that `rooftrace predict` has not written; for probabilities those of
        a prediction at the resolution of its model.
        """
        if self.threshold is None:
            return VectorOptions(min_area_px=0, watershed=WatershedOptions())
        return VectorOptions(watershed=WatershedOptions.at_threshold(self.threshold))

    def blocks(self) -> Iterator[MaskBlock]:
        """Yield blocks of whole rows that partition the raster, from top to bottom.

        Raises:
            LabelError: A probability is outside 0..1.
        """
        for window, raster in _blocks(self.source):
            score: Prob | None = None
            if self.table is None:
                assert self.threshold is not None
                score = _probabilities(raster, self.source.name)
                least = self.threshold * (255 if score.dtype == np.uint8 else 1)
                mask = np.where(raster.valid, score >= least, NODATA).astype(np.uint8)
            else:
                mask = self.table[_indices(raster, self.source.name)]
                mask[~raster.valid] = NODATA
            occurring = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
            yield window, mask, score, occurring, None


@dataclass(frozen=True)
class InstanceInput(MaskInput):
    """A raster in which every value above 0 is one building."""

    @property
    def default_options(self) -> VectorOptions:
        """Options that keep each building, however small, and divide those that touch."""
        return VectorOptions(min_area_px=0, min_marker_px=1, separate=True, watershed=None)

    def blocks(self) -> Iterator[MaskBlock]:
        """Yield blocks like those of a mask, with markers: pixels away from other buildings."""
        whole = Window.whole(self.grid.shape)
        for window in _strips(whole):
            around = window.padded(1).intersection(whole)
            assert around is not None
            raster = self.source.read(around)
            numbers = np.where(raster.valid, instance_numbers(raster.data), 0)
            # Of a float's precision, so that OpenCV compares neighbours.
            _, ranks = np.unique(numbers, return_inverse=True)
            ranks = ranks.reshape(numbers.shape).astype(np.float32) + (numbers.min() > 0)
            highest = cv2.dilate(ranks, _RING)
            lowest = cv2.erode(np.where(ranks > 0, ranks, np.float32(np.inf)), _RING)
            inside = (ranks > 0) & (highest == ranks) & (lowest == ranks)
            part = window.slices(around)
            mask = (ranks[part] > 0).astype(np.uint8)
            yield window, mask, None, np.unique(mask).tolist(), inside[part].astype(np.uint8)


def open_mask(
    path: Path,
    *,
    threshold: float | None = None,
    classes: Sequence[str] = (),
    option: str = "--class",
    progress: OnBlock | None = None,
) -> MaskInput:
    """Decide how a raster is to be read. Reads a mask as a whole to find its values.

    Fractions are probabilities, and so are bytes where a threshold is given. In a mask 0 is the
    background; of two values without 0, the smaller is. A mask with one other value shows
    buildings. In a mask with several values each value is a class, and 255 is nodata; shades along
    the edges of 0 and 255, as JPEG makes them, are rounded to one of both.

    Args:
        threshold: Smallest probability that is a building; default 0.5.
        classes: Values or names of the classes to trace; default all.
        option: Name of the option that gave `classes`, for messages; a mask may lack the class of
            `--building`.

    Raises:
        LabelError: The values are neither classes nor probabilities.
        ConfigError: An option does not apply to such a raster, or a class does not occur.
    """
    if is_vector_file(path):
        raise DataError(
            f"{path} holds polygons already; a mask or probabilities were expected.",
            remedy="Convert the polygons to another format: "
            f"rooftrace convert {path} -o {path.with_suffix('.parquet').name}",
        )
    source = open_raster(path, palette="indices")
    if source.dtype.kind == "f" or threshold is not None:
        if classes:
            raise ConfigError(
                f"{option} was given, but {path} is read as probabilities of buildings.",
                remedy=f"Remove {option}, or give a mask without --threshold.",
            )
        return _probability_input(source, threshold)
    count = np.zeros(256, np.int64)
    for window, raster in _blocks(source):
        values = _indices(raster, source.name)
        count += np.bincount(values[raster.valid], minlength=256)
        if progress is not None:
            progress(window.area_px)
    present, names = np.flatnonzero(count).tolist(), read_categories(path)
    if len(present) > 2 and not (names or classes):
        sharp = without_blur(source, read_head(path, 3))
        if sharp is not source:
            return replace(_mask_input(source, [0, NODATA], (), (), option), source=sharp)
    return _mask_input(source, present, names, classes, option)


def _probability_input(source: RasterFile, threshold: float | None) -> MaskInput:
    if source.bands != 1 and source.dtype != np.uint8:
        raise LabelError(
            f"{source.name} has {plural(source.bands, 'band')} of {source.dtype}; expected one "
            "band of probabilities.",
            remedy="Extract the band of the buildings: gdal_translate -b 2 IN OUT",
        )
    if source.dtype.kind != "f" and source.dtype != np.uint8:
        raise LabelError(
            f"{source.name} holds {source.dtype} values; expected fractions from 0 to 1, "
            "or bytes from 0 to 255.",
            remedy="Remove --threshold if it is a mask.",
        )
    notes: tuple[str, ...] = ()
    if threshold is None:
        threshold = DEFAULT_THRESHOLD
        notes = (f"{source.name} holds probabilities: pixels of 0.5 or more are buildings.",)
    return MaskInput(source, (1,), (), 1, None, threshold, notes=notes)


def _mask_input(
    source: RasterFile, present: list[int], names: tuple[str, ...], wanted: Sequence[str],
    option: str,
) -> MaskInput:  # fmt: skip
    """Return how to read a mask, given its values and the names of its classes."""
    notes = []
    has_zero, present = 0 in present, [value for value in present if value]
    if not (present or names) and source.nodata[0]:
        notes.append(
            f"{source.name} has only background, and declares {source.nodata[0]:g} as "
            "nodata; if that is a class, unset it: gdal_edit.py -unsetnodata FILE"
        )
    if len(present) > _MAX_CLASSES and not (names or wanted):
        raise LabelError(
            f"{source.name} has {len(present)} different values; for a mask without names of "
            f"classes, at most {_MAX_CLASSES} were expected.",
            remedy="If they are probabilities, or JPEG has blurred black and white, add "
            f"--threshold 0.5; if some are classes, select them: {option} 3",
        )
    if len(present) > 1 and NODATA in present:
        present.remove(NODATA)
        notes.append(f"{source.name}: {NODATA} beside other classes is read as nodata.")
    if len(present) == 2 and not (has_zero or names or wanted):
        ground = present.pop(0)
        notes.append(
            f"{source.name} has no 0: {ground} is read as the background and {present[0]} as "
            f"buildings; if {ground} is the buildings, add {option} {ground}"
        )
    chosen = [_value_of(text, present, names, source.name, option) for text in wanted] or present
    table = np.zeros(256, np.uint8)
    if len(names) <= 2 and len(chosen) <= 1:
        # A single class of any value on a background.
        table[chosen] = 1
        return MaskInput(source, (1,), (), 1, table, None, tuple(notes))
    table[chosen] = chosen
    called = tuple(
        names[value] if value < len(names) and names[value] else str(value)
        for value in range(max(chosen, default=1) + 1)
    )
    building = [value for value in chosen if called[value].casefold() in BUILDING_NAMES]
    if not building:
        notes.append(
            f"{source.name}: none of the classes {', '.join(called[v] for v in chosen)} is named "
            f"building, so no polygon gets a regular outline. For one alone: {option} {chosen[-1]}"
        )
    return MaskInput(
        source, tuple(sorted(set(chosen))), called, next(iter(building), None), table, None,
        tuple(notes),
    )  # fmt: skip


def _value_of(text: str, present: list[int], names: tuple[str, ...], name: str, option: str) -> int:
    folded = [known.casefold() for known in names]
    value = folded.index(text.casefold()) if text.casefold() in folded else None
    if value is None and text.isdecimal():
        value = int(text)
    may_lack = option == "--building"
    if value is not None and (value in present or (may_lack and 0 < value < NODATA)):
        return value
    shown = [f"{v} ({names[v]})" if v < len(names) else str(v) for v in present]
    raise ConfigError(
        f"{option} received {text!r}, which is not in {name}; expected one of "
        f"{', '.join(shown) or 'no classes'}.",
        remedy="Give one of these values or names.",
    )


def _blocks(source: RasterSource) -> Iterator[tuple[Window, Raster]]:
    for window in _strips(Window.whole(source.grid.shape)):
        yield window, source.read(window)


def _strips(whole: Window) -> Iterator[Window]:
    rows = max(_BLOCK_PX // whole.width // _BAND_PX, 1) * _BAND_PX
    return whole.strips(rows)


def _indices(raster: Raster, name: str) -> Mask8:
    """Return the values (y, x) of a mask; values of invalid pixels are arbitrary."""
    data = raster.data
    if raster.is_coloured:
        raise LabelError(
            f"{name} is coloured: its {len(data)} bands differ. Expected one band, or bands "
            "that are equal.",
            remedy="If its colours are classes, convert it to a mask of values: rooftrace convert. "
            "If it is an image, predict it: rooftrace predict; or compare two images with a model: "
            "rooftrace compare NEW OLD -m default",
        )
    values = data[0]
    if values.dtype == np.uint8:
        return np.asarray(values, np.uint8)
    strange = ((values < 0) | (values > NODATA)) & raster.valid
    if strange.any():
        shown = np.unique(values[strange])[:_SHOWN].tolist()
        raise LabelError(
            f"{name} holds values such as {', '.join(map(str, shown))}; classes are 0 to 254.",
            remedy="If each value is one building, add --instances.",
        )
    return np.where(raster.valid, values, 0).astype(np.uint8)


def _probabilities(raster: Raster, name: str) -> Prob:
    """Return the probabilities (y, x); 0 for invalid pixels."""
    if raster.data.dtype == np.uint8:
        return np.where(raster.valid, _indices(raster, name), np.uint8(0))
    values = raster.data[0]
    known = np.where(raster.valid, values, 0).astype(np.float32)
    low, high = float(known.min()), float(known.max())
    if low < 0 or high > 1:
        raise LabelError(
            f"{name} holds values from {low:g} to {high:g}; expected fractions from 0 to 1.",
            remedy="Give a mask of whole numbers, or probabilities divided by their largest value. "
            "Heights belong to --surface of rooftrace heights.",
        )
    return known


_CHUNK = 20_000

_NO_CLASS = 0
"""Index of the background, used as building class where there is none."""


@dataclass(frozen=True)
class ClassCount:
    """Number and area of the polygons of one class.

    Args:
        class_id: Value of the class in the mask; 1 where all polygons are buildings.
        area_m2: Their total area; None where metres are unknown.
    """

    name: str
    class_id: int
    polygons: int
    area_m2: float | None


@dataclass(frozen=True)
class VectorizeReport(Report):
    """Result of `run_vectorize`.

    Args:
        regularized: Share of the buildings that became regular; None if regularization is off or
            there are no buildings.
        seconds: Time from reading the first pixel to the finished file.
    """

    input: str
    output: str
    polygons: int
    classes: tuple[ClassCount, ...]
    regularized: float | None
    pixels: int
    seconds: float
    peak_rss_mb: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "mpx_per_s": self.pixels / 1e6 / max(self.seconds, 1e-9)}


def run_vectorize(
    mask: Path,
    out: Path,
    options: VectorOptions | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    outline: OutlineStyle | None = None,
    threshold: float | None = None,
    classes: Sequence[str] = (),
    instances: bool = False,
    gsd_m: float | None = None,
    crs: CRS | None = None,
    progress: Progress | None = None,
) -> VectorizeReport:
    """Write the polygons of a raster, in memory that does not grow with its height.

    Args:
        mask: See `open_mask`; or the folder of `rooftrace predict` with the mask of one image.
        out: File to write; its suffix selects the format.
        options: Options in pixels of the mask. By default they are those with which `rooftrace
            predict` made the polygons of this mask; for others see `MaskInput.default_options`.
        changes: Fields of the options that get other values.
        outline: Style of the outlines; default: that of the options.
        threshold, classes: See `open_mask`.
        instances: Whether every value above 0 is one building, which gets its own polygon.
        gsd_m: Metres per pixel, where the raster does not contain them.
        crs: Coordinate system of a raster that has a position but states none.

    Raises:
        ConfigError: The result would replace an input; see also `open_mask`.
        DataError, LabelError, GeoreferenceError: The raster cannot be used.
        ExportError, MissingExtraError: The file cannot be written.
    """
    started = time.perf_counter()
    check_vector_path(out)
    mask = predicted_file(mask, "mask")
    prepare_folder(out.parent, [out], [mask])
    # A mask is read twice, the first time to find its values, before its size is known.
    done_px, total_px = 0, 0

    def advance(pixels: int) -> None:
        nonlocal done_px
        done_px += pixels
        if progress is not None:
            progress(done_px, total_px)

    source: MaskInput
    if instances:
        if threshold is not None or classes:
            raise ConfigError(
                "--instances was given with --threshold or --class.",
                remedy="Give only one: the values of a mask are buildings, or they are classes.",
            )
        source = InstanceInput(open_raster(mask, palette="indices"))
    else:
        source = open_mask(mask, threshold=threshold, classes=classes, progress=advance)
    record = None if options is not None or threshold is not None else MaskRecord.read(mask)
    origin = None if record is None else record.origin
    own_notes = list(source.notes)
    if record is not None and not record.is_of(source.grid):
        own_notes.append(_resampled_note(mask, record, source.grid))
        record = None
    if crs is not None:
        check_crs(source.source, crs, str(mask))
        source = replace(source, source=in_crs(source.source, crs))
    options = options or (source.default_options if record is None else record.polygons)
    if record is not None and options.watershed is None and not instances:
        own_notes.append(f"A head of the model separated the buildings of {mask}: here shapes do.")
        px = max(1.0, math.sqrt(options.min_marker_px / MIN_MARKER_PX))
        options = replace(options, watershed=WatershedOptions().scaled(px))
    options = replace(options, **(changes or {}))
    if outline is not None:
        options = options.drawn(outline)
    if gsd_m is None and record is not None:
        gsd_m = record.gsd_m
    pixels = source.grid.height * source.grid.width
    total_px = pixels * (1 if source.table is None else 2)
    building = _NO_CLASS if source.building is None else source.building
    with FootprintAssembler(
        source.grid, source.classes, building, options,
        folder=out.parent, gsd_m=gsd_m, class_names=source.names,
    ) as assembler:  # fmt: skip
        valid = ValidOutline(source.grid)
        for block in source.blocks():
            assembler.feed(*block)
            valid.feed(*block[:2])
            advance(block[0].area_px)
        found = assembler.finish()
    areas = np.zeros(256)

    def measured() -> Iterator[Footprints]:
        for chunk in found.chunks(_CHUNK):
            ids = np.ones(len(chunk), np.uint8) if chunk.class_id is None else chunk.class_id
            np.add(areas, np.bincount(ids, chunk.area_m2, minlength=256), out=areas)
            yield replace(
                chunk, provenance=origin or chunk.provenance, cut=valid.cuts(chunk.geometry)
            )

    with found:
        notes = write_footprints(
            out, measured(), gsd_m=gsd_m or source.grid.gsd_m, legend=Legend(source.names),
        )  # fmt: skip
        counts = tuple(
            ClassCount(
                source.names[index] if source.names else "building",
                index,
                count,
                float(areas[index]) if np.isfinite(areas[index]) else None,
            )
            for index, count in sorted(found.counts.items())
        )
        buildings = options.regularize and found.considered
        regular = found.regularized / found.considered if buildings else None
    watershed = options.watershed if record is not None and options.separate else None
    if watershed is not None and watershed.core_probability:
        note = (
            f"The prediction separated touching buildings by probabilities, too, which {mask} "
            "does not contain: some are separated in another way here"
        )
        if options.min_score:
            note += f", and those with a score below {options.min_score:g} are kept"
        notes = (f"{note}.", *notes)
    if source.grid.crs is None:
        notes = (f"{mask} is not georeferenced: coordinates are pixels, x right, y down.", *notes)
    return VectorizeReport(
        input=str(mask),
        output=str(out),
        polygons=sum(one.polygons for one in counts),
        classes=counts,
        regularized=regular,
        pixels=pixels,
        seconds=time.perf_counter() - started,
        peak_rss_mb=peak_rss_mb(),
        notes=(*own_notes, *notes),
    )


def _resampled_note(mask: Path, record: MaskRecord, grid: GeoGrid) -> str:
    now, then = size_text(grid.shape), "another size"
    if record.pixel_m is not None and grid.gsd_m is not None:
        now = f"pixels of {grid.gsd_m:.3g} m"
        then = f"pixels of {math.sqrt(math.prod(record.pixel_m)):.3g} m"
    elif record.shape is not None:
        then = size_text(record.shape)
    return (
        f"{mask} has {now}, but was predicted with {then}: another program has changed it, so the "
        "options and the --gsd of its prediction do not apply."
    )
