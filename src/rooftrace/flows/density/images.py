"""`rooftrace density --by-image` and `--fit`: classify whole images as sparse or dense."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import did_you_mean
from rooftrace.core.errors import DataError, LabelError
from rooftrace.density.files import beside, write_table
from rooftrace.density.threshold import (
    DEFAULT_THRESHOLD,
    DensityThreshold,
    fit_threshold,
)
from rooftrace.flows.density.inputs import MaskFile, Progress, stem_of
from rooftrace.io.legend import NODATA
from rooftrace.labels.image_files import images_under

__all__ = ["ImagesReport", "built_up_share", "fit_images", "run_by_image"]

_COLUMNS = ("image", "built_up_share", "class")
_OWN_NAMES = {"sparse", "dense"}


@dataclass(frozen=True)
class ImagesReport:
    """Built-up shares of images.

    Args:
        files: Files that were written.
        shares: (n,) built-up shares of the valid pixels; NaN where an image has none.
        classes: Number of images by class; None counts those without a valid pixel.
        threshold: Threshold, with the quality of its fit where it was fitted.
        notes: Notes for the user.
    """

    files: tuple[Path, ...]
    shares: NDArray[np.float64]
    classes: dict[str | None, int]
    threshold: DensityThreshold
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints."""
        return {
            "files": [str(file) for file in self.files],
            "images": len(self.shares),
            "classes": {name or "not observed": count for name, count in self.classes.items()},
            "threshold": self.threshold.model_dump(),
            "notes": list(self.notes),
        }


def run_by_image(
    data: Path,
    out: Path,
    *,
    building: str | None = None,
    glob: Sequence[str] = (),
    threshold: DensityThreshold = DEFAULT_THRESHOLD,
    progress: Progress | None = None,
) -> ImagesReport:
    """Write the built-up share and the class of each mask of a folder to OUT.csv.

    Args:
        data: Folder of masks, or one mask.
        out: Path of the result without its ending, or an existing folder.
        building: Class index of buildings; default 1, or 255 where a mask has no 1.
        glob: Patterns of file names; only masks that match one of them are read.
        threshold: Threshold from which an image is dense.
        progress: Function that is called with the numbers of finished and of all masks.

    Raises:
        DataError, LabelError: A mask cannot be read, or there is none.
        ExportError: The result cannot be written.
    """
    masks = _masks(data, glob)
    stem = stem_of(out, data.resolve().stem)
    shares = _shares(list(masks.values()), building, progress)
    return _report(list(masks), shares, threshold, stem)


def fit_images(
    data: Path,
    labels: Path,
    out: Path,
    *,
    building: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ImagesReport:
    """Fit the threshold on labelled masks; write it to OUT.json, and their shares to OUT.csv.

    Args:
        data: Folder of the masks.
        labels: CSV with the columns `image` (a path relative to `data` or to the CSV) and `label`,
            which has two values. Unless these are sparse and dense, the label whose images have the
            larger mean share is dense.
        out, building, progress: See `run_by_image`.
        seed: Seed of the bootstrap.

    Raises:
        LabelError: The table has other contents, or fewer than two images of a label.
        DataError: A mask cannot be read.
        ExportError: A result cannot be written.
    """
    rows = _read_labels(labels)
    stem = stem_of(out, labels.resolve().stem)
    masks = [_find(image, data, labels) for image, _ in rows]
    shares = _shares(masks, building, progress)
    known = np.isfinite(shares)
    names = np.array([label for _, label in rows], np.object_)
    notes = [] if known.all() else [f"{(~known).sum()} masks have no valid pixel and are ignored"]
    sparse, dense = _order(names[known], shares[known], labels)
    if {sparse, dense} != _OWN_NAMES:
        notes.append(f"{dense!r} is used as the denser label: its images have the larger shares")
    threshold, fit_notes = fit_threshold(
        shares[known], names[known] == dense, sparse_name=sparse, dense_name=dense, seed=seed
    )
    report = _report([image for image, _ in rows], shares, threshold, stem, (*notes, *fit_notes))
    path = beside(stem, ".json")
    threshold.write(path)
    return replace(report, files=(path, *report.files))


def built_up_share(mask: MaskFile) -> float:
    """Return the share of building among the valid pixels of a mask; NaN where none is valid."""
    built = valid = 0
    for _, values in mask.blocks():
        built += int(np.count_nonzero(values == 1))
        valid += int(np.count_nonzero(values != NODATA))
    return built / valid if valid else float("nan")


def _shares(
    masks: Sequence[Path], building: str | None, progress: Progress | None
) -> NDArray[np.float64]:
    shares = np.empty(len(masks))
    for done, path in enumerate(masks):
        shares[done] = built_up_share(MaskFile.of(path, building))
        if progress is not None:
            progress(done + 1, len(masks))
    return shares


def _report(
    images: Sequence[str],
    shares: NDArray[np.float64],
    threshold: DensityThreshold,
    stem: Path,
    notes: Sequence[str] = (),
) -> ImagesReport:
    names = threshold.classes(shares).tolist()
    path = beside(stem, ".csv")
    write_table(path, _COLUMNS, zip(images, shares.tolist(), names))
    classes = {name: names.count(name) for name in (threshold.dense, threshold.sparse, None)}
    return ImagesReport((path,), shares, classes, threshold, tuple(notes))


def _masks(data: Path, glob: Sequence[str]) -> dict[str, Path]:
    """Return the masks of a folder by their names in the table."""
    if data.is_file():
        return {data.name: data}
    if not data.is_dir():
        raise DataError(f"{data} does not exist.", remedy="Check the path.")
    masks = {path.relative_to(data).as_posix(): path for path in images_under(data, glob)}
    if not masks:
        condition = f" whose name matches {', '.join(glob)}" if glob else ""
        raise DataError(
            f"The folder {data} has no mask{condition}.", remedy="Give the folder of the masks."
        )
    return masks


def _read_labels(path: Path) -> list[tuple[str, str]]:
    """Return the image and the label of each row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            names = table.fieldnames or []
            rows = [(row.get("image") or "", row.get("label") or "") for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(
            f"The labels {path} cannot be read: {error}.",
            remedy="Give a CSV with the columns image and label.",
        ) from error
    if not {"image", "label"} <= set(names):
        raise LabelError(
            f"The labels {path} have the columns {list(names)}; expected image and label.",
            remedy="Write these two names in the first line.",
        )
    for number, (image, label) in enumerate(rows, 2):
        if not image.strip() or not label.strip():
            raise LabelError(
                f"Line {number} of {path} has the image {image!r} and the label {label!r}; both "
                "are required.",
                remedy="Complete the line, or remove it.",
            )
    twice = [image for image, count in Counter(image for image, _ in rows).items() if count > 1]
    if twice:
        raise LabelError(
            f"{path} labels {twice[0]!r} more than once.", remedy="Keep one line for each image."
        )
    return [(image.strip(), label.strip()) for image, label in rows]


def _find(image: str, data: Path, labels: Path) -> Path:
    for folder in (data, labels.parent):
        if (folder / image).is_file():
            return folder / image
    known = [path.relative_to(data).as_posix() for path in images_under(data)]
    raise LabelError(
        f"The mask {image!r} of {labels} is neither in {data} nor beside the table. "
        f"{did_you_mean(image, known)}".rstrip(),
        remedy="Write paths in the column image relative to one of them, with endings.",
    )


def _order(
    names: NDArray[np.object_], shares: NDArray[np.float64], labels: Path
) -> tuple[str, str]:
    """Return the names of the sparser and of the denser label."""
    found = sorted(set(names.tolist()))
    if len(found) != 2:
        raise LabelError(
            f"{labels} has {len(found)} labels among its masks with a valid pixel: {found}; "
            "expected two.",
            remedy="Use two labels, such as sparse and dense.",
        )
    one, other = found
    if set(found) == _OWN_NAMES:
        return "sparse", "dense"
    larger = shares[names == other].mean() >= shares[names == one].mean()
    return (one, other) if larger else (other, one)
