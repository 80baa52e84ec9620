"""`rooftrace calibrate`: a bundle in which scores of buildings are calibrated probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError
from rooftrace.core.types import BoolArray, Footprints, Progress, Window
from rooftrace.flows.labelled_predictions import (
    ProgressCounter,
    ScaleCounts,
    labelled_instances,
    open_labelled,
    rasterize_footprints,
)
from rooftrace.io.files import replacing
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import parse_reference
from rooftrace.metrics.calibration import (
    BuildingOutcomes,
    CalibrationFit,
    Reliability,
    draw_reliability,
    fit_calibration,
)
from rooftrace.metrics.objects import Labels, match_predicted
from rooftrace.models.bundle import check_bundle_path, write_bundle
from rooftrace.models.spec import Calibration
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor, load


@dataclass(frozen=True)
class ReliabilityComparison:
    """Reliability of scores before and after a calibration.

    Args:
        before: Reliability of the scores that the model as given writes; None without a building.
        after: Reliability of the calibrated scores, from a calibration that was fitted without
            these buildings; None without a calibration.
        uncalibrated: Reliability of the scores without any calibration; None without a building.
    """

    before: Reliability | None
    after: Reliability | None
    uncalibrated: Reliability | None

    @classmethod
    def of(
        cls,
        folders: Sequence[BuildingOutcomes],
        value: NDArray[np.floating] | None,
        given: Calibration | None,
    ) -> ReliabilityComparison:
        """Count the buildings of folders.

        Args:
            folders: Buildings with their scores without a calibration.
            value: (n,) newly calibrated scores, folder after folder; None without a calibration.
            given: Calibration of the model as given; None without one.
        """
        score = np.concatenate([folder.score for folder in folders])
        right = np.concatenate([folder.right for folder in folders])
        if not len(score):
            return cls(None, None, None)
        uncalibrated = before = Reliability.of(score, right)
        if given is not None:
            divided = np.concatenate([folder.divided for folder in folders])
            before = Reliability.of(given.apply(score, divided), right)
        return cls(before, None if value is None else Reliability.of(value, right), uncalibrated)

    def to_json(self) -> dict[str, Any]:
        """Return calibration error, Brier score and log loss by the names of the fields."""
        return {
            name: None
            if one is None
            else {key: round(getattr(one, key), 5) for key in ("ece", "brier", "log_loss")}
            for name, one in vars(self).items()
        }


@dataclass(frozen=True)
class CalibrateReport:
    """Result of `rooftrace calibrate`.

    Args:
        bundle: The new bundle.
        picture: Reliability diagram before and after; None where no building was predicted.
        fit: The fitted function, with its figures.
        folders: Buildings to which it was fitted.
        given: Calibration of the model as given, which is replaced; None without one.
        scale_notes: Notes on metres per pixel that were assumed.
    """

    bundle: Path
    picture: Path | None
    fit: CalibrationFit
    folders: tuple[BuildingOutcomes, ...]
    given: Calibration | None = None
    scale_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on what was assumed, and on what was not done."""
        if not self.fit.reason:
            return self.scale_notes
        lost = "" if self.given is None else "; the new model is without the one it had"
        return (*self.scale_notes, f"no calibration was fitted: {self.fit.reason}{lost}")

    @cached_property
    def by_folder(self) -> tuple[ReliabilityComparison, ...]:
        """Reliability for each folder."""
        ends = np.cumsum([len(folder.score) for folder in self.folders])
        values = self.fit.left_out
        parts = [None] * len(ends) if values is None else np.split(values, ends[:-1])
        return tuple(
            ReliabilityComparison.of([folder], value, self.given)
            for folder, value in zip(self.folders, parts)
        )

    @cached_property
    def whole(self) -> ReliabilityComparison:
        """Reliability for the buildings of all folders together."""
        return ReliabilityComparison.of(self.folders, self.fit.left_out, self.given)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints.

        Figures `before` are those of the model as given. Figures `after` are from buildings that
        were left out of the fit.
        """
        calibration = self.fit.calibration
        return {
            "bundle": str(self.bundle),
            "picture": None if self.picture is None else str(self.picture),
            "calibration": None if calibration is None else calibration.map.model_dump(mode="json"),
            **self.whole.to_json(),
            "data": [
                folder.record.model_dump(mode="json") | figures.to_json()
                for folder, figures in zip(self.folders, self.by_folder)
            ],
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
    the bundle changes; an earlier calibration is replaced. NAME_reliability.png is written beside
    the bundle. If no function is better than the scores, the bundle is written without a
    calibration, and a note says why.

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
    picture = out.with_name(f"{out.stem}_reliability.png")
    report = CalibrateReport(
        out, picture, fit, outcomes, given=loaded.bundle.spec.calibration,
        scale_notes=scales.notes_if_unknown(spec.gsd_m, images),
    )  # fmt: skip
    figures = report.whole
    if figures.before is None:
        return replace(report, picture=None)
    curves = [("before", figures.before)]
    if figures.after is not None:
        curves.append(("after", figures.after))
    with replacing(picture) as partial:
        drawn = draw_reliability(curves, f"{spec.name}: {figures.before.objects:,} buildings")
        drawn.save(partial, format="PNG")
    return report


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
            options = replace(images, gsd_m=scene.stated_gsd_m)
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
