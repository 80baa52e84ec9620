"""`rooftrace predict --rle`: the masks of many images as one table of run lengths."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rooftrace.core.errors import ConfigError, DataError, LayoutError, RooftraceError
from rooftrace.data.layout import images_under
from rooftrace.data.rle.images import NamedImages
from rooftrace.data.rle.table import Columns, RleTable, Row
from rooftrace.data.runs import NO_RUNS, Order, encode_runs
from rooftrace.flows.journal import Journal
from rooftrace.flows.machine import peak_rss_mb
from rooftrace.io.masks import MemoryMask
from rooftrace.io.raster import NodataRule, RasterFile, open_raster
from rooftrace.predict.ensemble import Combine
from rooftrace.predict.model_set import Models, load_models
from rooftrace.predict.passage import SceneStream
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene import plan_scene
from rooftrace.predict.stream import run_streams
from rooftrace.predict.tta import Tta

__all__ = ["SubmitReport", "run_submit"]

Progress = Callable[[int, int], None]

_COLUMNS = ("img_id", "mask_rle")
_LISTED = 5
_MOST_FAILED = 10
"""Images that may fail before the rest is not tried: a model that does not fit fails on all."""


@dataclass(frozen=True)
class SubmitReport:
    """A table that was written.

    Args:
        path: of the table.
        images: how many rows it has.
        empty: of them, those without a building.
        resumed: of them, those that an earlier run had computed.
        order: of the runs.
        images_per_s: of those that this run computed, files included.
        peak_rss_mb: of the process.
        notes: what was assumed, for the person to see.
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
        """The contract of `--json`."""
        return asdict(self) | {"path": str(self.path), "notes": list(self.notes)}


def run_submit(
    inputs: Sequence[Path],
    bundle: Models,
    out: Path,
    *,
    sample: Path | None = None,
    order: Order | None = None,
    gsd_m: float | None = None,
    threshold: float | None = None,
    ensemble: Combine = "average",
    weights: Sequence[float] | None = None,
    tta: Tta | None = None,
    engine: str | None = None,
    precision: str | None = None,
    nodata: NodataRule | None = None,
    progress: Progress | None = None,
) -> SubmitReport:
    """Write the buildings of every image as a row of run lengths, at the image's own size.

    What is computed is kept in `OUT.partial` at once. A run that was stopped, or in which images
    failed, is gone on with by the same call: with the same model, images, sample and options.

    Args:
        inputs: images, and folders of images with those in their folders.
        bundle: the model, several that are combined, or None for the one that comes with
            rooftrace.
        out: the table; it appears when all of it is there.
        sample: a table whose rows, columns and line ends are kept; default one row for each image,
            sorted by name, with the columns `img_id,mask_rle`.
        order: of the runs; default as is the custom with such columns.
        gsd_m: metres per pixel of the images, where their georeference does not say.
        threshold: on the building's probability; default the model's own.
        ensemble, weights: how several models are combined.
        tta: each model also sees mirrored tiles, see `Tta`.
        engine, precision: default the fastest that runs well here.
        nodata: what is nodata in the images besides what they say themselves; it is no building.
        progress: called with the images that are done and that there are.

    Raises:
        LayoutError: the sample lists an image that is not there, or not one that is; told before
            anything is predicted.
        ConfigError: the order is not known, or `out` is the sample; a threshold for a model of
            more than two classes.
        DataError, BundleError, PredictError, ExportError: as an image or the model gives cause.
    """
    table, images = _planned(inputs, sample, out)
    order = order or table.columns.custom
    if order is None:
        raise ConfigError(
            f"By its columns {sample} does not say in which order its runs are.",
            remedy="Say it with --order row or --order column.",
        )
    predictor = load_models(
        bundle, ensemble, weights=weights, tta=tta, engine=engine, precision=precision
    )
    spec = predictor.bundle.spec
    threshold = predictor.threshold_for(threshold)
    made_with = {
        "bundle": predictor.bundle.sha256,
        "engine": [predictor.engine.name, predictor.engine.precision],
        "tta": tta,
        "images": _stamp(images),
        "order": order,
        "gsd_m": gsd_m,
        "threshold": threshold,
        "nodata": None if nodata is None else asdict(nodata),
    }
    with Journal(out.with_name(f"{out.name}.partial"), made_with) as journal:
        run = _Run(predictor, journal, order, progress)
        run.all(images, nodata=nodata, gsd_m=gsd_m, threshold=threshold)
        # Some are of what the engine met on its way.
        run.notes += getattr(predictor.engine, "notes", ())
        if journal.replaced:
            run.notes.append(f"{journal.path} was of another model, set or options: begun anew.")
        if run.failed:
            raise _failure(run, len(images))
        table.write(out, map(journal.__getitem__, range(len(images))))
        empty = sum(journal[index] == NO_RUNS for index in range(len(images)))
        journal.discard()
    if len(spec.classes) > 2:
        building = spec.classes[spec.building_class]
        run.notes.append(f"Only {building} is written: a table holds the masks of one class.")
    return run.report(out, len(images), empty)


class _Run:
    """What is gathered while images are predicted.

    They are opened in the thread that reads, and their runs kept in the one that finishes.
    """

    def __init__(
        self, predictor: Predictor, journal: Journal, order: Order, progress: Progress | None
    ) -> None:
        self.predictor = predictor
        self.journal = journal
        self.order: Order = order
        self.resumed = len(journal)
        self.failed: dict[int, tuple[Path, RooftraceError]] = {}
        self.notes: list[str] = []
        self._assumed: list[str] = []
        self._progress = progress
        self._computed = 0
        self._started = time.perf_counter()

    def all(
        self,
        images: Sequence[Path],
        *,
        nodata: NodataRule | None,
        gsd_m: float | None,
        threshold: float | None,
    ) -> None:
        """Predict what is not in the journal yet, small images together."""

        def scenes() -> Iterator[SceneStream]:
            for index, path in enumerate(images):
                if index in self.journal:
                    continue
                if len(self.failed) >= _MOST_FAILED:
                    return
                source = open_raster(path, nodata=nodata)
                try:
                    yield self._scene(index, source, len(images), gsd_m, threshold)
                except RooftraceError as error:
                    self.failed[index] = path, error
                    source.close()

        run_streams(scenes(), self.predictor.engine)
        if self._assumed:
            count = len(self._assumed) - 1
            more = f" So for {count:,} images more." if count else ""
            self.notes.append(self._assumed[0] + more)

    def _scene(
        self,
        index: int,
        source: RasterFile,
        count: int,
        gsd_m: float | None,
        threshold: float | None,
    ) -> SceneStream:
        spec = self.predictor.bundle.spec
        plan = plan_scene(source, spec, gsd_m=gsd_m)
        mask = MemoryMask(source.grid.shape)

        def close(scene: SceneStream) -> None:
            source.close()
            if scene.error is not None:
                self.failed[index] = source.path, scene.error
                return
            self.journal.add(index, encode_runs(mask.data == spec.building_class, self.order))
            self._computed += 1
            if plan.scaling.note:
                self._assumed.append(plan.scaling.note)
            if self._progress is not None:
                self._progress(len(self.journal), count)

        return SceneStream(
            source, spec, plan, lambda block: mask.write(block.window, block.mask),
            threshold=threshold, close=close,
        )  # fmt: skip

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


def _planned(inputs: Sequence[Path], sample: Path | None, out: Path) -> tuple[RleTable, list[Path]]:
    """The table to fill, and the image of each of its rows."""
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; a table is one file.", remedy="Name a .csv file.")
    images = _images(inputs)
    if sample is None:
        names = _names(images)
        rows = tuple(Row(index + 2, (names[path], "")) for index, path in enumerate(names))
        return RleTable(Columns.of(_COLUMNS, str(out)), rows, name=str(out)), list(names)
    if out.exists() and out.samefile(sample):
        raise ConfigError(
            f"The table would be written over the sample {sample}.",
            remedy="Write it under another name.",
        )
    table = RleTable.read(sample)
    return table, _listed(table, images)


def _images(inputs: Sequence[Path]) -> list[Path]:
    images: list[Path] = []
    for given in inputs:
        if not given.exists():
            raise DataError(f"There is no image at {given}.", remedy="Check the path.")
        images += images_under(given) if given.is_dir() else [given]
    if not images:
        raise DataError(
            f"There is no image in {', '.join(map(str, inputs))}.",
            remedy="Name the folder that holds the images.",
        )
    # A file may be named twice, by itself and by its folder.
    return list(dict.fromkeys(images))


def _names(images: Sequence[Path]) -> dict[Path, str]:
    """Image to name, sorted by name; without endings, if that is enough to tell them apart.

    Returns:
        In the order of the rows.
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
                remedy="Rename one, or give a sample that names them by their folders.",
            )
    return {by_name[name]: name for name in sorted(by_name)}


def _listed(table: RleTable, images: Sequence[Path]) -> list[Path]:
    """The image of each row of a sample: every one that is there once, and no other."""
    by_name = NamedImages(images)
    found: dict[Path, Row] = {}
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
                remedy="Take one of the rows out.",
            )
    surplus = [str(path) for path in images if path not in found]
    if not (missing or surplus):
        return list(found)
    told = []
    if missing:
        told.append(
            f"{len(missing)} of its {len(table.rows)} images are not there: {_some(missing)}"
        )
    if surplus:
        told.append(f"{len(surplus)} images are not in it: {_some(surplus)}")
    raise LayoutError(
        f"{table.name} does not fit the images: {'; '.join(told)}.",
        remedy="Name the folder that holds exactly the images of the sample.",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")


def _stamp(images: Sequence[Path]) -> str:
    """What changes when an image does, or their order."""
    stamp = hashlib.sha256()
    for path in images:
        status = path.stat()
        stamp.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return stamp.hexdigest()


def _failure(run: _Run, count: int) -> RooftraceError:
    path, error = run.failed[min(run.failed)]
    message = error.message if str(path) in error.message else f"{path}: {error.message}"
    stopped = "; the rest was not tried" if len(run.failed) >= _MOST_FAILED else ""
    return type(error)(
        f"{message} {len(run.failed)} of {count} images failed{stopped}. "
        f"{len(run.journal)} are done and kept in {run.journal.path}.",
        remedy=f"{error.remedy} Then run the same again: it goes on from there.".strip(),
    )
