"""`rooftrace submit`: write the masks of many images as one table of run lengths.

Computed runs are kept in a partial table beside the table, from which a stopped command resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rooftrace.core.errors import ConfigError, DataError, LayoutError, RooftraceError
from rooftrace.core.machine import peak_rss_mb
from rooftrace.core.text import list_and_count, list_first, merge_notes, plural
from rooftrace.core.types import Progress
from rooftrace.io.files import check_outputs, export_error, read_head
from rooftrace.io.masks import MemoryMask
from rooftrace.io.nodata import NodataRule, nodata_to_json
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.labels.folders import masks_under
from rooftrace.labels.image_files import images_under
from rooftrace.labels.rle.codec import NO_RUNS, Order, encode_runs
from rooftrace.labels.rle.source import NamedImages
from rooftrace.labels.rle.table import RleTable, TableColumns, TableRow
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import run_scenes
from rooftrace.predict.plan import SceneOptions, plan_scene
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene_blocks import SceneBlocks
from rooftrace.predict.tta import applied_tta

_LINE = re.compile(rb"(\d{1,12}) ([-0-9][ 0-9]*)\n")
"""Pattern of a line of a partial table: index of an image, and its runs."""


class PartialTable:
    """File with one line for each image; written lines survive the end of the process.

    The first line contains the settings with which the runs were computed. A file of the same
    settings is resumed; any other is replaced.

    Args:
        path: Path of the file.
        made_with: Everything on which the result depends, as plain data.

    Raises:
        ExportError: The file cannot be written.
    """

    def __init__(self, path: Path, made_with: Mapping[str, Any]) -> None:
        self.path = path
        self._offsets: dict[int, int] = {}
        head = json.dumps(made_with, sort_keys=True).encode() + b"\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.replaced = path.exists() and not self._begins_with(head)
            self._file = path.open("r+b" if path.exists() and not self.replaced else "w+b")
            if self._file.readline() != head:
                self._file.write(head)
            self._find_lines()
        except OSError as error:
            raise export_error(path, error) from error

    def __enter__(self) -> PartialTable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, index: object) -> bool:
        return index in self._offsets

    def __getitem__(self, index: int) -> str:
        """Return the runs of an image."""
        self._file.seek(self._offsets[index])
        return self._file.readline().rstrip(b"\n").decode("ascii")

    def add(self, index: int, runs: str) -> None:
        """Write the runs of an image immediately, so that they survive the end of the process.

        Args:
            index: Index of the image.
            runs: Its runs, see `encode_runs`.

        Raises:
            ExportError: The file cannot be written.
        """
        try:
            self._file.seek(0, 2)
            line = f"{index} ".encode()
            self._offsets[index] = self._file.tell() + len(line)
            self._file.write(line + runs.encode("ascii") + b"\n")
            self._file.flush()
        except OSError as error:
            raise export_error(self.path, error) from error

    def discard(self) -> None:
        """Remove the file, after the table is written."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _begins_with(self, head: bytes) -> bool:
        return read_head(self.path, len(head)) == head

    def _find_lines(self) -> None:
        """Find the lines of an earlier run, and remove an incomplete line at the end."""
        end = self._file.tell()
        for line in iter(self._file.readline, b""):
            match = _LINE.fullmatch(line)
            if match is None:
                break
            self._offsets[int(match[1])] = end + match.start(2)
            end += len(line)
        self._file.seek(end)
        self._file.truncate()


_COLUMNS = ("img_id", "mask_rle")
_MAX_LISTED = 5
"""Maximum number of names that an error message lists."""

_MAX_MASKS_LISTED = 10
"""Maximum number of masks that the note on masks among the images lists."""

_MAX_FAILED = 10
"""Number of failed images after which the run stops: an unsuitable model fails on all images."""


@dataclass(frozen=True)
class SubmitReport:
    """Report of a written table.

    Args:
        path: Path of the table.
        images: Number of its rows.
        empty: Number of images without a building.
        resumed: Number of images that an earlier run computed.
        order: Pixel order of the runs.
        images_per_s: Images that this run computed per second, with reading and writing.
        peak_rss_mb: Peak memory of the process in MB.
        notes: Assumptions that the user should know.
    """

    path: Path
    images: int
    empty: int
    resumed: int
    order: Order
    images_per_s: float
    peak_rss_mb: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `--json`."""
        return asdict(self) | {"path": str(self.path), "notes": list(self.notes)}


def run_submit(
    inputs: Sequence[Path],
    models: ModelSet,
    out: Path,
    *,
    sample: Path | None = None,
    order: Order | None = None,
    options: SceneOptions | None = None,
    nodata: NodataRule | None = None,
    progress: Progress | None = None,
) -> SubmitReport:
    """Write the buildings of every image as a row of run lengths, at the image's own size.

    Results are written to `OUT.partial` immediately. A run that was stopped, or in which images
    failed, is resumed by the same call with the same model, images, sample and options.

    Args:
        inputs: Images, and folders of images with their subfolders.
        models: Models to predict with.
        out: Path of the table; the file appears when it is complete.
        sample: Table whose rows, columns and line ends are kept; default: one row for each image,
            sorted by name, with the columns `img_id,mask_rle`.
        order: Pixel order of the runs; default: the usual order for these columns.
        options: Options of every image; of the outputs, only the mask is made.
        nodata: Pixel values that mean nodata, in addition to those that the images declare;
            nodata is not a building.
        progress: See `Progress`.

    Raises:
        LayoutError: The sample lists an image that does not exist, or lacks one that exists. This
            is checked before the prediction.
        ConfigError: The pixel order is unknown; `out` is the sample; a threshold was given for a
            model of more than two classes.
        DataError, BundleError, PredictError, ExportError: An image or the model cannot be used.
    """
    table, images, notes = _table_and_images(inputs, sample, out)
    order = order or table.columns.custom
    if order is None:
        raise ConfigError(
            f"The columns of {sample} do not determine the pixel order of its runs.",
            remedy="Give the order with --order row or --order column.",
        )
    predictor = models.ready()
    spec = predictor.bundle.spec
    options = replace(options or SceneOptions(), outputs=("mask",))
    threshold = predictor.threshold_for(options.threshold)
    made_with = {
        "bundle": predictor.bundle.sha256,
        "engine": [predictor.engine.name, predictor.engine.precision],
        "tta": applied_tta(predictor.bundle, models.tta),
        "images": _stamp(images),
        "order": order,
        "options": {**asdict(options), "threshold": threshold},
        "nodata": nodata_to_json(nodata),
    }
    with PartialTable(out.with_name(f"{out.name}.partial"), made_with) as partial:
        run = _SubmitRun(predictor, partial, order, progress)
        run.notes += notes
        run.predict(images, options, nodata=nodata)
        # The engine adds notes while it runs.
        run.notes += getattr(predictor.engine, "notes", ())
        if partial.replaced:
            run.notes.append(
                f"{partial.path} was made with another model, other images or options. It cannot "
                "be resumed, so this run starts from the beginning."
            )
        if run.failed:
            raise _failure(run, len(images))
        table.write(out, map(partial.__getitem__, range(len(images))))
        empty = sum(partial[index] == NO_RUNS for index in range(len(images)))
        partial.discard()
    if len(spec.classes) > 2:
        building = spec.classes[spec.building_class]
        run.notes.append(
            f"Only the class {building} is written: a table holds the masks of one class."
        )
    return run.report(out, len(images), empty)


class _SubmitRun:
    """Prediction of images whose runs are written to a partial table.

    Images are opened in the thread that reads; their runs are written in the thread that finishes.

    Args:
        predictor: Model to predict with.
        partial: Table of the runs so far.
        order: Pixel order of the runs.
        progress: See `Progress`.
    """

    def __init__(
        self, predictor: Predictor, partial: PartialTable, order: Order, progress: Progress | None
    ) -> None:
        self.predictor = predictor
        self.partial = partial
        self.order: Order = order
        self.resumed = len(partial)
        self.failed: dict[int, tuple[Path, RooftraceError]] = {}
        self.notes: list[str] = []
        self._assumed: list[str] = []
        self._progress = progress
        self._computed = 0
        self._started = time.perf_counter()

    def predict(
        self,
        images: Sequence[Path],
        options: SceneOptions,
        *,
        nodata: NodataRule | None,
    ) -> None:
        """Predict the images that are not in the partial table yet; errors are stored in `failed`.

        Args:
            images: All images, in the order of the rows.
            options: Options of every image.
            nodata: See `run_submit`.
        """
        plans: dict[SceneBlocks, tuple[int, RasterFile]] = {}

        def scenes() -> Iterator[SceneBlocks]:
            for index, path in enumerate(images):
                if index in self.partial:
                    continue
                if len(self.failed) >= _MAX_FAILED:
                    return
                source = open_raster(path, nodata=nodata)
                try:
                    plan = plan_scene(source, self.predictor.bundle.spec, options)
                except RooftraceError as error:
                    self.failed[index] = path, error
                    source.close()
                    continue
                blocks = SceneBlocks(plan)
                plans[blocks] = index, source
                yield blocks

        for blocks in run_scenes(scenes(), self.predictor.engine):
            index, source = plans.pop(blocks)
            mask = MemoryMask(blocks.plan.shape_yx)
            try:
                for block in blocks.run_here():
                    mask.write(block.window, block.mask)
            except RooftraceError as error:
                self.failed[index] = source.path, error
                continue
            finally:
                source.close()
            building = mask.data == self.predictor.bundle.spec.building_class
            self.partial.add(index, encode_runs(building, self.order))
            self._computed += 1
            self._assumed += blocks.plan.notes
            if self._progress is not None:
                self._progress(len(self.partial), len(images))
        self.notes += merge_notes(self._assumed, {str(path) for path in images})

    def report(self, out: Path, images: int, empty: int) -> SubmitReport:
        seconds = time.perf_counter() - self._started
        return SubmitReport(
            path=out,
            images=images,
            empty=empty,
            resumed=self.resumed,
            order=self.order,
            images_per_s=self._computed / max(seconds, 1e-9),
            peak_rss_mb=peak_rss_mb(),
            notes=tuple(self.notes),
        )


def _table_and_images(
    inputs: Sequence[Path], sample: Path | None, out: Path
) -> tuple[RleTable, list[Path], list[str]]:
    """Return the table to fill, the image of each of its rows, and notes on the images."""
    if out.is_dir():
        raise ConfigError(
            f"{out} is a folder; expected the path of a table.",
            remedy="Give the path of a .csv file.",
        )
    images, notes = _images(inputs)
    check_outputs([out], [sample, *images])
    if sample is None:
        names = _names(images)
        rows = tuple(TableRow(index + 2, (names[path], "")) for index, path in enumerate(names))
        table = RleTable(TableColumns.of(_COLUMNS, str(out)), rows, name=str(out))
        return table, list(names), notes
    table = RleTable.read(sample)
    return table, _listed(table, images), notes


def _images(inputs: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the images, and notes on the masks that were left out."""
    images: list[Path] = []
    skipped: list[Path] = []
    for given in inputs:
        if not given.exists():
            raise DataError(f"There is no image at {given}.", remedy="Check the path.")
        if given.is_dir():
            # Masks are images, too, but not those of a table.
            masks = masks_under(given)
            for path in images_under(given):
                (skipped if path in masks else images).append(path)
        else:
            images.append(given)
    if not images:
        raise DataError(
            f"There is no image in {', '.join(map(str, inputs))}.",
            remedy="Give the folder that holds the images.",
        )
    # A file may be given twice, by itself and by its folder.
    images = list(dict.fromkeys(images))
    names = [path.name for path in dict.fromkeys(skipped) if path not in images]
    if not names:
        return images, []
    reason = "it is a mask" if len(names) == 1 else f"they are masks ({len(names):,})"
    return images, [f"skipped, because {reason}: {list_and_count(names, _MAX_MASKS_LISTED)}"]


def _names(images: Sequence[Path]) -> dict[Path, str]:
    """Return the name of each image in the table, in the order of the rows.

    Rows are sorted by name. Names have no file extension if they are unique without it.

    Raises:
        ConfigError: Two images would have the same name.
    """
    names = {path: path.stem for path in images}
    if len(set(names.values())) < len(names):
        names = {path: path.name for path in images}
    by_name: dict[str, Path] = {}
    for path, name in names.items():
        other = by_name.setdefault(name, path)
        if other != path:
            raise ConfigError(
                f"{other} and {path} would both be {name!r} in the table.",
                remedy="Rename one of them, or give a sample whose names include their folders.",
            )
    return {by_name[name]: name for name in sorted(by_name)}


def _listed(table: RleTable, images: Sequence[Path]) -> list[Path]:
    """Return the image of each row of a sample.

    Raises:
        LayoutError: The rows do not list each of the images exactly once.
    """
    by_name = NamedImages(images)
    found: dict[Path, TableRow] = {}
    missing: list[str] = []
    for row in table.rows:
        name = table.image_id(row)
        image = by_name.find(Path(name).name if table.columns.id is None else name)
        if image is None:
            missing.append(f"{name} (row {row.line})")
            continue
        other = found.setdefault(image, row)
        if other is not row:
            raise LayoutError(
                f"{table.name} lists {image} twice, in row {other.line} and row {row.line}.",
                remedy="Remove one of the rows.",
            )
    surplus = [str(path) for path in images if path not in found]
    if not (missing or surplus):
        return list(found)
    differences = []
    if missing:
        count = plural(len(table.rows), "image")
        shown = list_first(missing, _MAX_LISTED)
        differences.append(f"{len(missing)} of its {count} cannot be found: {shown}")
    if surplus:
        count = plural(len(surplus), "image is", "images are")
        differences.append(f"{count} not in it: {list_first(surplus, _MAX_LISTED)}")
    raise LayoutError(
        f"{table.name} does not fit the images: {'; '.join(differences)}.",
        remedy="Give the folder that holds exactly the images of the sample.",
    )


def _stamp(images: Sequence[Path]) -> str:
    """Return a digest that changes when an image or the order of the images changes."""
    stamp = hashlib.sha256()
    for path in images:
        status = path.stat()
        stamp.update(os.fsencode(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    return stamp.hexdigest()


def _failure(run: _SubmitRun, count: int) -> RooftraceError:
    path, error = run.failed[min(run.failed)]
    message = error.message if str(path) in error.message else f"{path}: {error.message}"
    stopped = "; the others were not tried" if len(run.failed) >= _MAX_FAILED else ""
    kept = plural(len(run.partial), "image is", "images are")
    return type(error)(
        f"{message} {len(run.failed)} of {plural(count, 'image')} failed{stopped}. "
        f"{kept} finished and kept in {run.partial.path}.",
        remedy=f"{error.remedy} Then run the same command again to resume.".strip(),
    )
