"""`rooftrace density --by-image`: whole images are sparse or dense; `--fit` fits the threshold."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError, LabelError
from rooftrace.core.text import plural, reason_of
from rooftrace.core.types import BoolArray, Floats, Progress
from rooftrace.density.files import DEFAULT_THRESHOLD, DensityThreshold, ThresholdFit, write_table
from rooftrace.flows.density.inputs import MaskFile, stem_of
from rooftrace.io.companions import RESULT_FILES, holds_results, images_under
from rooftrace.io.files import check_exists, check_outputs
from rooftrace.io.legend import NODATA

_COLUMNS = ("image", "built_up_share", "class")


@dataclass(frozen=True)
class ImagesReport:
    """Built-up shares of images.

    Args:
        shares: (n,) built-up shares of the valid pixels; NaN where an image has none.
        threshold: Threshold, with the quality of its fit where it was fitted.
    """

    files: tuple[Path, ...]
    shares: NDArray[np.float64]
    threshold: DensityThreshold
    notes: tuple[str, ...]

    @property
    def classes(self) -> dict[str | None, int]:
        """Number of images by class; None counts those without a valid pixel."""
        return self.threshold.counts(self.shares)

    def to_json(self) -> dict[str, Any]:
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

    Raises:
        DataError, LabelError: A mask cannot be read, or there is none.
    """
    masks = _masks(data, glob)
    stem = stem_of(out, data.resolve().stem)
    check_outputs([Path(f"{stem}.csv")], masks.values())
    shares = _shares(list(masks.values()), building, progress)
    return _report(list(masks), shares, threshold, stem)


def fit_images(
    data: Path,
    labels: Path,
    out: Path,
    *,
    building: str | None = None,
    progress: Progress | None = None,
) -> ImagesReport:
    """Fit the threshold on labelled masks; write it to OUT.json, and their shares to OUT.csv.

    Args:
        labels: CSV with the columns `image` (a path relative to `data` or to the CSV) and `label`:
            `sparse` or `dense`.
        out, building, progress: See `run_by_image`.

    Raises:
        LabelError: The table has other contents, or fewer than two images of a label.
    """
    rows = _read_labels(labels)
    stem = stem_of(out, labels.resolve().stem)
    masks = [_find(image, data, labels) for image, _ in rows]
    check_outputs([Path(f"{stem}.csv"), Path(f"{stem}.json")], [labels, *masks])
    shares = _shares(masks, building, progress)
    known = np.isfinite(shares)
    dense = np.array([label == "dense" for _, label in rows])
    unseen = plural(int((~known).sum()), "mask")
    notes = [] if known.all() else [f"{unseen} without a valid pixel left out."]
    threshold, fit_notes = fit_threshold(shares[known], dense[known])
    report = _report([image for image, _ in rows], shares, threshold, stem, (*notes, *fit_notes))
    path = Path(f"{stem}.json")
    threshold.write(path)
    return replace(report, files=(path, *report.files))


def _shares(
    masks: Sequence[Path], building: str | None, progress: Progress | None
) -> NDArray[np.float64]:
    """Return the share of building among the valid pixels of each mask; NaN where none is valid."""
    shares = np.full(len(masks), np.nan)
    for done, path in enumerate(masks, 1):
        built = valid = 0
        for _, values in MaskFile.of(path, building).blocks():
            built += int(np.count_nonzero(values == 1))
            valid += int(np.count_nonzero(values != NODATA))
        if valid:
            shares[done - 1] = built / valid
        if progress is not None:
            progress(done, len(masks))
    return shares


def _report(
    images: Sequence[str],
    shares: NDArray[np.float64],
    threshold: DensityThreshold,
    stem: Path,
    notes: Sequence[str] = (),
) -> ImagesReport:
    path = Path(f"{stem}.csv")
    write_table(path, _COLUMNS, zip(images, shares.tolist(), threshold.classes(shares)))
    return ImagesReport((path,), shares, threshold, tuple(notes))


def _masks(data: Path, glob: Sequence[str]) -> dict[str, Path]:
    """Return the masks of a folder by their names in the table."""
    if data.is_file():
        return {data.name: data}
    check_exists(data)
    # Beside the masks of a prediction lie its previews and densities.
    others = tuple(end for kind, ends in RESULT_FILES.items() if kind != "mask" for end in ends)
    masks = {
        path.relative_to(data).as_posix(): path
        for path in images_under(data, glob)
        if not (path.name.endswith(others) and holds_results(path.parent))
    }
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
            rows = [
                ((row.get("image") or "").strip(), (row.get("label") or "").strip())
                for row in table
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(
            f"The labels {path} cannot be read: {reason_of(error)}.",
            remedy="Give a CSV with the columns image and label.",
        ) from error
    if not {"image", "label"} <= set(names):
        raise LabelError(
            f"The labels {path} have the columns {list(names)}; expected image and label.",
            remedy="Write these two names in the first line.",
        )
    seen: set[str] = set()
    for number, (image, label) in enumerate(rows, 2):
        if not image or label not in ("sparse", "dense") or image in seen:
            raise LabelError(
                f"Line {number} of {path} has the image {image!r} and the label {label!r}; "
                "expected sparse or dense, and each image once.",
                remedy="Correct the line, or remove it.",
            )
        seen.add(image)
    return rows


def _find(image: str, data: Path, labels: Path) -> Path:
    for folder in (data, labels.parent):
        if (folder / image).is_file():
            return folder / image
    raise LabelError(
        f"The mask {image!r} of {labels} is neither in {data} nor beside the table.",
        remedy="Write paths in the column image relative to one of them, with endings.",
    )


_MIN_EXAMPLES = 10
"""Number of examples of each class below which a fit is unreliable."""


def balanced_accuracy(dense: BoolArray, called: BoolArray) -> float:
    """Return the mean of the shares of dense and of sparse examples that are classified correctly.

    Args:
        dense: (n,) True for dense examples; both classes occur.
        called: (n,) True for examples classified as dense.
    """
    return float(np.mean([called[dense].mean(), (~called)[~dense].mean()]))


def fit_threshold(shares: Floats, dense: BoolArray) -> tuple[DensityThreshold, tuple[str, ...]]:
    """Return the threshold with the best balanced accuracy.

    Where several thresholds are equally good, it is the middle of the widest gap between two
    examples.

    Args:
        shares: (n,) built-up shares, 0..1.
        dense: (n,) True for dense examples; at least two of each class.

    Returns:
        The threshold, and notes for the user.

    Raises:
        LabelError: A class has fewer than two examples.
    """
    counts = {"dense": int(dense.sum()), "sparse": int((~dense).sum())}
    for name, count in counts.items():
        if count < 2:
            raise LabelError(
                f"{count} example{'s are' if count != 1 else ' is'} labelled {name}; a "
                "threshold needs two or more of each class.",
                remedy=f"Label more images; a reliable fit needs {_MIN_EXAMPLES} of each class.",
            )
    threshold = _best(shares, dense)
    called = shares >= threshold
    one_out = np.array(
        [_best(np.delete(shares, i), np.delete(dense, i)) for i in range(len(shares))]
    )
    fit = ThresholdFit(
        balanced_accuracy=balanced_accuracy(dense, called),
        leave_one_out=balanced_accuracy(dense, shares >= one_out),
        sparse_as_sparse=int((~dense & ~called).sum()),
        sparse_as_dense=int((~dense & called).sum()),
        dense_as_sparse=int((dense & ~called).sum()),
        dense_as_dense=int((dense & called).sum()),
    )
    notes = [
        f"only {plural(count, 'example is', 'examples are')} labelled {name}: with fewer than "
        f"{_MIN_EXAMPLES} the threshold is unreliable."
        for name, count in counts.items()
        if count < _MIN_EXAMPLES
    ]
    least, most = float(shares[dense].min()), float(shares[~dense].max())
    if least <= most:
        between = int(((shares >= least) & (shares <= most)).sum())
        notes.append(
            f"the classes overlap: the smallest share of dense is {least:.1%}, the largest of "
            f"sparse is {most:.1%}, and {between} of {len(shares)} examples lie between them."
        )
    return DensityThreshold(threshold=threshold, fit=fit), tuple(notes)


def _best(shares: Floats, dense: BoolArray) -> float:
    """Return the middle of the widest gap between shares among those with the best accuracy."""
    at, place = np.unique(shares, return_inverse=True)
    dense_at = np.bincount(place, dense, minlength=len(at))
    sparse_at = np.bincount(place, ~dense, minlength=len(at))
    # A threshold in gap k calls the examples from k on dense: in the first gap all, in the last
    # none.
    right_dense = dense_at.sum() - np.concatenate([[0], np.cumsum(dense_at)])
    right_sparse = np.concatenate([[0], np.cumsum(sparse_at)])
    # Scores are integers, so that equally good thresholds compare equal.
    score = right_dense * sparse_at.sum() + right_sparse * dense_at.sum()
    edges = np.concatenate([[0.0], at, [1.0]])
    width = np.where(score == score.max(), np.diff(edges), -1.0)
    gap = int(width.argmax())
    middle = float((edges[gap] + edges[gap + 1]) / 2)
    # The middle of two adjacent floating-point numbers may be the lower one, which would then be
    # dense.
    return max(middle, float(np.nextafter(edges[gap], 1.0))) if 0 < gap < len(at) else middle
