"""Implement `rooftrace label next`: choose the images that are most worth labelling.

Images are chosen one at a time. The next one has the largest product of two figures: the model's
uncertainty about it, and the distance of its features to those of the nearest image that is
labelled or already chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.audit.duplicates import thumbnail_of
from rooftrace.core.errors import DataError
from rooftrace.core.report import Report
from rooftrace.core.text import merge_notes, plural
from rooftrace.core.types import Progress, Scene
from rooftrace.flows.split import first_copies
from rooftrace.io.files import check_outputs, write_atomically
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.uncertainty import (
    Features,
    ImageUncertainty,
    image_features,
    measure_uncertainty,
)

_LEAST_VALID = 0.5
"""Least share of valid pixels of an image that is worth labelling."""


@dataclass(frozen=True)
class NextImage:
    """One image to label.

    Args:
        image: Path of its file; None if it is a chip of a scene.
        uncertainty: Entropy plus disagreement, see `predict.uncertainty.ImageUncertainty`.
        distance: Distance of its features to those of the nearest image that is labelled or was
            chosen before; None for the first image if none is labelled.
    """

    id: str
    image: str | None
    uncertainty: float
    entropy: float
    disagreement: float
    built_up: float
    distance: float | None


@dataclass(frozen=True)
class NextReport(Report):
    """The images to label, in order; each beginning of the list is a choice of its own.

    Args:
        labelled: Number of these that are labelled or being labelled.
        nodata: Ids of other images that are mostly nodata.
        empty: Ids of other images that show nothing like a building.
        near_duplicates: Ids of other images that repeat a labelled image, or one with a higher
            uncertainty.
    """

    chosen: tuple[NextImage, ...]
    images: int
    labelled: int
    nodata: tuple[str, ...]
    empty: tuple[str, ...]
    near_duplicates: tuple[str, ...]
    notes: tuple[str, ...] = ()


def run_next(
    data: SourceConfig,
    count: int,
    *,
    bundle: Path | None = None,
    labelled_data: SourceConfig | None = None,
    taken: Collection[str] = (),
    images: SceneOptions = AS_FOUND,
    out: Path | None = None,
    progress: Progress | None = None,
) -> NextReport:
    """Choose the unlabelled images that are most worth labelling.

    Images that are mostly nodata, that show nothing like a building, or that repeat another image
    are not chosen.

    Args:
        data: Images, some of which may be labelled.
        bundle: Model; default the one that comes with rooftrace.
        labelled_data: Further images, of which the labelled ones count; they may be the same images
            in another place.
        taken: Ids of images that are being labelled elsewhere; they count as labelled.
        images: Bands, stretch and scale with which images are read.
        out: File for the paths of the images to label, in order, one per line; or the id of a chip.

    Raises:
        DataError: No image is left to choose from, or an image cannot be read.
        ConfigError: `out` is a file that is read.
        ConfigError, BundleError, PredictError: The model causes an error.
        ExportError: `out` cannot be written.
    """
    source = open_source(data)
    others = None if labelled_data is None else open_source(labelled_data)
    if out is not None:
        read = [*data.paths, *source.files, bundle]
        if labelled_data is not None and others is not None:
            read += [*labelled_data.paths, *others.files]
        check_outputs([out], read)
    unlabelled = {entry.id for entry in source.unlabelled}.difference(taken)
    source = source.with_unlabelled()
    if not unlabelled:
        raise DataError(
            f"{data.path} has {plural(len(source), 'image')}, and all are labelled or being "
            "labelled.",
            remedy="Add images without a label.",
        )
    # Mirrored tiles are compared, so the model may not average over them itself.
    predictor = read_models(bundle, tta="none").ready()
    scenes = []
    for part in (source, others) if others is not None else (source,):
        for entry, scene in part.opened():
            is_labelled = part is others or entry.id not in unlabelled
            scenes.append(_Measured.of(predictor, scene, images, labelled=is_labelled))
            if progress is not None:
                progress(len(scenes), len(source) + (0 if others is None else len(others)))
    labelled = np.array([one.uncertainty is None for one in scenes])
    nodata = np.array([one.is_nodata for one in scenes])
    empty = np.array([one.is_empty for one in scenes])
    weights = np.array([one.weight for one in scenes])
    usable = ~(labelled | nodata | empty)
    copies = usable & _copies(scenes, np.where(labelled, np.inf, np.where(usable, weights, -1.0)))
    candidates = np.flatnonzero(usable & ~copies)
    order, distances = weighted_k_centre(
        _stack([scenes[n].features for n in candidates]),
        weights[candidates],
        count,
        _stack([scenes[n].features for n in np.flatnonzero(labelled)]),
    )
    found_notes = [note for one in scenes if one.uncertainty for note in one.uncertainty.notes]
    notes = [*source.notes, *merge_notes(found_notes, {one.name for one in scenes})]
    if len(order) < count:
        cut = "; cut large ones into tiles with --set chip_px=512" if len(source) < count else ""
        asked = f"{count:,} were asked for"
        notes.append(f"Only {plural(len(order), 'image')} could be chosen, {asked}{cut}.")
    chosen = []
    for n, distance in zip(candidates[order].tolist(), distances.tolist()):
        entry, found = source.entries[n], scenes[n].uncertainty
        assert found is not None
        chosen.append(
            NextImage(
                entry.id, None if entry.image is None else str(entry.image), found.total,
                found.entropy, found.disagreement, found.built_up,
                distance if np.isfinite(distance) else None,
            )
        )  # fmt: skip

    if out is not None:
        lines = "".join(f"{one.image or one.id}\n" for one in chosen)
        write_atomically(out, lines.encode())

    def ids(these: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(source.ids[n] for n in np.flatnonzero(these).tolist())

    return NextReport(
        tuple(chosen),
        images=len(source),
        labelled=len(source) - len(unlabelled),
        nodata=ids(nodata),
        empty=ids(empty),
        near_duplicates=ids(copies),
        notes=tuple(notes),
    )


def weighted_k_centre(
    features: NDArray[np.float32],
    weights: NDArray[np.float64],
    count: int,
    centres: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the points that a greedy weighted k-centre chooses, in order.

    Each step chooses the point with the largest product of weight and Euclidean distance to the
    nearest centre (M. E. Dyer and A. M. Frieze, A Simple Heuristic for the p-Centre Problem, 1985),
    and makes it a centre. With equal weights this is the core-set of O. Sener and S. Savarese,
    Active Learning for Convolutional Neural Networks, 2018. Without any centre, the first point is
    the one with the largest weight. The first of equal points is chosen.

    Args:
        features: (n, feature) points to choose from.
        weights: (n,) weights, at least 0.
        centres: (m, feature) points that are centres from the beginning.

    Returns:
        (k,) indices of points, at most `count`; (k,) distances of each to the nearest centre when
        it was chosen, infinite without a centre.
    """
    nearest = np.full(len(features), np.inf)
    for centre in centres:
        nearest = np.minimum(nearest, np.linalg.norm(features - centre, axis=1))
    order, distances = [], []
    left = np.ones(len(features), dtype=bool)
    for _ in range(min(count, len(features))):
        gain = np.where(left, weights if np.isinf(nearest).all() else weights * nearest, -1.0)
        best = int(gain.argmax())
        order.append(best)
        distances.append(float(nearest[best]))
        left[best] = False
        nearest = np.minimum(nearest, np.linalg.norm(features - features[best], axis=1))
    return np.array(order, dtype=np.intp), np.array(distances, dtype=np.float64)


@dataclass(frozen=True)
class _Measured:
    """Figures of one image: no features if no pixel is valid, no uncertainty if it is labelled."""

    name: str
    features: Features | None
    thumbnail: NDArray[np.float16]
    uncertainty: ImageUncertainty | None = None

    @classmethod
    def of(
        cls, predictor: Predictor, scene: Scene, images: SceneOptions, *, labelled: bool
    ) -> _Measured:
        options = images.model_copy(update={"gsd_m": scene.stated_gsd_m})
        small = thumbnail_of(scene.image).astype(np.float16)
        if labelled:
            features = image_features(predictor, scene.image, options)
            return cls(scene.image.name, features, small)
        found = measure_uncertainty(predictor, scene.image, options)
        return cls(scene.image.name, found.features, small, found)

    @property
    def weight(self) -> float:
        return 0.0 if self.uncertainty is None else self.uncertainty.total

    @property
    def is_nodata(self) -> bool:
        return self.uncertainty is not None and self.uncertainty.valid_share < _LEAST_VALID

    @property
    def is_empty(self) -> bool:
        found = self.uncertainty
        return found is not None and not self.is_nodata and not found.shows_building


def _copies(scenes: Sequence[_Measured], preference: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the (n,) images of which a near-duplicate is preferred, or comes first if equal."""
    member = first_copies([one.thumbnail for one in scenes])
    # Within a group the preferred image comes first.
    order = np.lexsort((-preference, member))
    first = np.ones(len(scenes), dtype=bool)
    first[1:] = member[order][1:] != member[order][:-1]
    copies = np.ones(len(scenes), dtype=bool)
    copies[order[first]] = False
    return copies


def _stack(features: Sequence[Features | None]) -> NDArray[np.float32]:
    """Return the rows of the images that have features."""
    rows = [one for one in features if one is not None]
    return np.stack(rows) if rows else np.zeros((0, 1), np.float32)
