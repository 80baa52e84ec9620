"""`rooftrace vectorize`: a mask or probabilities, from whatever tool, to polygons."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import Footprints
from rooftrace.flows.machine import peak_rss_mb
from rooftrace.flows.vectorize_inputs import MaskInput, open_mask
from rooftrace.io.atomic import export_error
from rooftrace.io.vector import check_vector_path, write_footprints_chunks
from rooftrace.vector.assemble import FootprintAssembler, FootprintSet
from rooftrace.vector.options import VectorOptions

__all__ = ["ClassCount", "VectorizeReport", "run_vectorize"]

Progress = Callable[[int, int], None]

_CHUNK = 20_000
_NO_CLASS = 0
"""The background, in place of a class of buildings where there is none."""


@dataclass(frozen=True)
class ClassCount:
    """How much there is of one class.

    Args:
        name: of the class.
        class_id: its value in the mask; 1 where all are buildings.
        polygons: how many.
        area_m2: of these; None where metres are not known.
    """

    name: str
    class_id: int
    polygons: int
    area_m2: float | None


@dataclass(frozen=True)
class VectorizeReport:
    """What was made.

    Args:
        input, output: the files.
        polygons: how many of all classes.
        classes: of each that has any.
        regularized: which share of the buildings became regular; None where nobody asked, or there
            are none.
        pixels: of the raster.
        seconds: from the first pixel read to the file.
        peak_rss_mb: of the process.
        notes: what was assumed, for the person to see.
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
        """The contract of `--json`."""
        return {
            "input": self.input,
            "output": self.output,
            "polygons": self.polygons,
            "classes": [vars(one) for one in self.classes],
            "regularized": self.regularized,
            "pixels": self.pixels,
            "seconds": self.seconds,
            "mpx_per_s": self.pixels / 1e6 / max(self.seconds, 1e-9),
            "peak_rss_mb": self.peak_rss_mb,
            "notes": list(self.notes),
        }


def run_vectorize(
    mask: Path,
    out: Path,
    options: VectorOptions,
    *,
    threshold: float | None = None,
    classes: Sequence[str] = (),
    score: Path | None = None,
    gsd_m: float | None = None,
    progress: Progress | None = None,
) -> VectorizeReport:
    """Polygons of a raster, in memory that does not grow with its height.

    Args:
        mask: see `open_mask`.
        out: the file to write; its suffix tells the format.
        options: in pixels of the mask.
        threshold, classes, score: see `open_mask`.
        gsd_m: metres per pixel, where the raster does not say.
        progress: called with what is done and what there is to do, in pixels.

    Raises:
        ConfigError: the result would be written over an input; see also `open_mask`.
        DataError, LabelError, GeoreferenceError: the raster cannot be used so.
        ExportError, MissingExtraError: the file cannot be written.
    """
    started = time.perf_counter()
    check_vector_path(out)
    for given in (mask, score):
        if given is not None and out.exists() and out.samefile(given):
            raise ConfigError(
                f"The polygons would be written over the input {given}.",
                remedy="Give another file with -o.",
            )
    meter = _Meter(progress)
    source = open_mask(
        mask, threshold=threshold, classes=classes, score=score, progress=meter.advance
    )
    pixels = source.grid.height * source.grid.width
    meter.total = pixels * (1 if source.table is None else 2)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise export_error(out, error) from error
    with _assembled(source, options, out.parent, gsd_m, meter) as found:
        areas = np.zeros(256)
        notes = write_footprints_chunks(out, _measured(found.chunks(_CHUNK), areas))
        counts = _counts(found, source, areas)
        buildings = options.regularize and found.considered
        regular = found.regularized / found.considered if buildings else None
    if source.grid.crs is None:
        notes = (f"{mask} lies nowhere: coordinates are pixels, x right and y down.", *notes)
    return VectorizeReport(
        input=str(mask),
        output=str(out),
        polygons=sum(one.polygons for one in counts),
        classes=counts,
        regularized=regular,
        pixels=pixels,
        seconds=time.perf_counter() - started,
        peak_rss_mb=peak_rss_mb(),
        notes=(*source.notes, *notes),
    )


class _Meter:
    """Adds up what was done in both passes over a mask."""

    def __init__(self, progress: Progress | None) -> None:
        self.total: int | None = None
        self._progress = progress
        self._done = 0

    def advance(self, pixels: int) -> None:
        self._done += pixels
        if self._progress is not None:
            self._progress(self._done, self.total or 0)


def _assembled(
    source: MaskInput, options: VectorOptions, folder: Path, gsd_m: float | None, meter: _Meter
) -> FootprintSet:
    building = _NO_CLASS if source.building is None else source.building
    with FootprintAssembler(
        source.grid, source.classes, building, options,
        folder=folder, gsd_m=gsd_m, class_names=source.names,
    ) as assembler:  # fmt: skip
        for block in source.blocks():
            assembler.feed(block.window, block.mask, block.score, block.occurring)
            meter.advance(block.window.area_px)
        return assembler.finish()


def _measured(chunks: Iterator[Footprints], areas: np.ndarray[Any, Any]) -> Iterator[Footprints]:
    """The chunks, while their areas are added to those of their classes (256,)."""
    for chunk in chunks:
        ids = np.ones(len(chunk), np.uint8) if chunk.class_id is None else chunk.class_id
        areas += np.bincount(ids, chunk.area_m2, minlength=256)
        yield chunk


def _counts(
    found: FootprintSet, source: MaskInput, areas: np.ndarray[Any, Any]
) -> tuple[ClassCount, ...]:
    known = np.isfinite(areas)
    return tuple(
        ClassCount(
            source.names[index] if source.names else "building",
            index,
            count,
            float(areas[index]) if known[index] else None,
        )
        for index, count in sorted(found.counts.items())
    )
