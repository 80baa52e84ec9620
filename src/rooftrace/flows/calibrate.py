"""Calibration: a bundle in which scores of buildings are calibrated probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rooftrace.core.errors import DataError
from rooftrace.core.types import BoolArray, Footprints, Progress, Window
from rooftrace.flows.labelled_predictions import (
    ProgressCounter,
    ScaleCounts,
    labelled_instances,
    open_labelled,
    rasterize_footprints,
)
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import parse_reference
from rooftrace.metrics.calibration import (
    BuildingOutcomes,
    CalibrationFit,
    fit_calibration,
)
from rooftrace.metrics.objects import Labels, match_predicted
from rooftrace.models.bundle import check_bundle_path, write_bundle
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor, load


@dataclass(frozen=True)
class CalibrateReport:
    """Result of a calibration.

    Args:
        bundle: The new bundle.
        fit: The fitted function, with its figures.
        folders: Buildings to which it was fitted.
        replaced: Whether the model had a calibration, which the new bundle does not keep.
        scale_notes: Notes on metres per pixel that were assumed.
    """

    bundle: Path
    fit: CalibrationFit
    folders: tuple[BuildingOutcomes, ...]
    replaced: bool = False
    scale_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on what was assumed, and on what was not done."""
        if not self.fit.reason:
            return self.scale_notes
        lost = "; the new model is without the one it had" if self.replaced else ""
        return (*self.scale_notes, f"no calibration was fitted: {self.fit.reason}{lost}")

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        calibration = self.fit.calibration
        return {
            "bundle": str(self.bundle),
            "calibration": None if calibration is None else calibration.model_dump(mode="json"),
            "data": [folder.record.model_dump(mode="json") for folder in self.folders],
            "log_loss_by_kind": {k: round(v, 5) for k, v in self.fit.by_kind.items()},
            "notes": list(self.notes),
        }


def run_calibrate(
    bundle: Path | None,
    folders: Sequence[SourceConfig],
    out: Path,
    *,
    split: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    images: SceneOptions = AS_FOUND,
    progress: Progress | None = None,
) -> CalibrateReport:
    """Calibrate a bundle: predict labelled scenes, fit the best function, write the new bundle.

    The function maps the score of a building to its probability of being right. Nothing else in
    the bundle changes; an earlier calibration is replaced. If no function is better than the
    scores, the bundle is written without a calibration, and a note says why.

    Args:
        bundle: The model; None for the default model.
        folders: Labelled data that the model was not trained on; each folder has the same weight.
        out: Path of the new bundle.
        split: `FILE:PART` to choose scenes; None for all.
        engine, precision: Engine and precision; default as in `rooftrace predict`.
        images: Bands, stretch and scale with which images are read.
        progress: Function called with the number of images done and their total number.

    Raises:
        DataError: There is no folder, a split contains no image of one, or a file cannot be read.
        ConfigError, BundleError, PredictError, ExportError: The model cannot be used, or `out`
            cannot be written.
    """
    if not folders:
        raise DataError("No data to calibrate on was given.", remedy="Name labelled data.")
    check_bundle_path(out)
    loaded = load(bundle, engine=engine, precision=precision)
    predictor = uncalibrated(loaded)
    part = "all" if split is None else parse_reference(split)[1]
    sources = [open_labelled(predictor, folder, split) for folder in folders]
    counter = ProgressCounter(progress, sum(map(len, sources)))
    matched = [
        match_buildings(predictor, source, part, counter.advance, images=images)
        for source in sources
    ]
    outcomes = tuple(one.outcomes for one in matched)
    scales = ScaleCounts.joined(one.scales for one in matched)
    run_by = predictor.engine
    protocol = f"whole images as by rooftrace predict, {run_by.name} {run_by.precision}"
    fit = fit_calibration(outcomes, protocol=protocol)
    spec = predictor.bundle.spec.model_copy(update={"calibration": fit.calibration})
    write_bundle(out, spec, predictor.bundle.parts)
    return CalibrateReport(
        out, fit, outcomes, replaced=loaded.bundle.spec.calibration is not None,
        scale_notes=scales.notes_if_unknown(spec.gsd_m, images),
    )  # fmt: skip


def uncalibrated(predictor: Predictor) -> Predictor:
    """Return the same model without its calibration."""
    spec = predictor.bundle.spec.model_copy(update={"calibration": None})
    return Predictor(replace(predictor.bundle, spec=spec), predictor.engine)


@dataclass(frozen=True)
class MatchedSet:
    """Buildings that a model predicts in the scenes of one set, matched with the labels.

    Args:
        outcomes: The buildings.
        scales: Metres per pixel of the images.
    """

    outcomes: BuildingOutcomes
    scales: ScaleCounts


def match_buildings(
    predictor: Predictor,
    source: SceneSet,
    split: str,
    on_scene: Callable[[], None] = lambda: None,
    *,
    images: SceneOptions = AS_FOUND,
) -> MatchedSet:
    """Predict every scene of a set, and match its buildings with the labels.

    Args:
        predictor: The model; its scores are used unchanged.
        source: Labelled scenes.
        split: Name of the part of the data, for the record.
        on_scene: Function called after each scene.
        images: Bands, stretch and scale with which images are read.
    """
    which = predictor.bundle.spec.building_class
    scales = ScaleCounts()

    def outcomes() -> Iterator[tuple[Footprints, Labels, BoolArray]]:
        for scene in source:
            scales.add(scene)
            assert scene.label is not None
            truth = scene.label.read(Window.whole(scene.image.grid.shape))
            options = images.model_copy(update={"gsd_m": scene.stated_gsd_m})
            prediction = predictor.predict(scene.image, options=options)
            buildings = prediction.outlines.of_class(which)
            numbers, right = match_predicted(
                labelled_instances(scene, truth, which),
                rasterize_footprints(prediction.mask.grid, buildings),
                truth.valid & prediction.mask.valid,
            )
            yield buildings, numbers, right
            on_scene()

    return MatchedSet(BuildingOutcomes.of_scenes(source.name, split, outcomes()), scales)
