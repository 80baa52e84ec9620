"""The files that the page hands out, made when they are asked for."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rooftrace.app.page.results import Result
from rooftrace.core.types import Window
from rooftrace.io.display import write_picture
from rooftrace.io.masks import NODATA, mask_sink
from rooftrace.io.vector import write_footprints
from rooftrace.predict.result import OutputPaths, Prediction
from rooftrace.vector.density_threshold import DEFAULT_THRESHOLD

__all__ = ["DOWNLOADS", "Download", "table_csv"]


@dataclass(frozen=True)
class Download:
    """A kind of file.

    Args:
        label: what its link says.
        make: writes it into a folder; gives the file.
    """

    label: str
    make: Callable[[Prediction, Path], Path]

    def of(self, prediction: Prediction) -> tuple[str, bytes]:
        """Its name and its content; nothing is left on disk.

        Raises:
            ExportError: there is no room for it.
        """
        with tempfile.TemporaryDirectory(prefix="rooftrace-") as folder:
            path = self.make(prediction, Path(folder))
            return path.name, path.read_bytes()


def _mask(prediction: Prediction, folder: Path) -> Path:
    grid = prediction.mask.grid
    path = OutputPaths.of(folder, prediction.name, grid, prediction.legend).mask
    with mask_sink(path, grid, prediction.legend) as sink:
        values = np.where(prediction.mask.valid, prediction.mask.data, np.uint8(NODATA))
        sink.write(Window.whole(values.shape), values)
    return path


def _outlines(suffix: str) -> Callable[[Prediction, Path], Path]:
    def make(prediction: Prediction, folder: Path) -> Path:
        paths = OutputPaths.of(folder, prediction.name, prediction.mask.grid, prediction.legend)
        path = paths.polygons.with_suffix(suffix)
        write_footprints(path, prediction.outlines)
        return path

    return make


def _overlay(prediction: Prediction, folder: Path) -> Path:
    path = folder / f"{prediction.name}_overlay.png"
    assert prediction.result.preview is not None
    write_picture(path, prediction.result.preview)
    return path


DOWNLOADS = {
    "mask": Download("Mask", _mask),
    "geojson": Download("GeoJSON", _outlines(".geojson")),
    "gpkg": Download("GeoPackage", _outlines(".gpkg")),
    "overlay": Download("Picture", _overlay),
}
"""By what an address calls them."""

_COLUMNS = (
    "image", "buildings", "built_up_share", "density", "gsd_m", "threshold", "pixels",
    "valid_pixels", "error",
)  # fmt: skip


def table_csv(results: Sequence[Result]) -> str:
    """The figures of the images of a run, a row each; of those that failed, why."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for result in results:
        summary = result.summary
        if summary is None:
            writer.writerow(
                [_plain(result.name), *[""] * (len(_COLUMNS) - 2), _plain(str(result.error))]
            )
            continue
        writer.writerow([
            _plain(result.name), summary.buildings, f"{summary.built_up_share:.6f}",
            dense_or_sparse(summary.built_up_share, summary.valid_pixels) or "",
            "" if summary.gsd_m is None else f"{summary.gsd_m:.6g}",
            "" if summary.threshold is None else f"{summary.threshold:g}",
            summary.pixels, summary.valid_pixels, "",
        ])  # fmt: skip
    return text.getvalue()


def dense_or_sparse(built_up_share: float, valid_pixels: int) -> str | None:
    """What `rooftrace density` would call it; None where no pixel is valid."""
    share = np.array([built_up_share if valid_pixels else np.nan])
    named: str | None = DEFAULT_THRESHOLD.classes(share)[0]
    return named


def _plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
