"""`rooftrace calibrate`: a bundle whose scores of buildings are probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError
from rooftrace.core.types import Scene
from rooftrace.data.config import SourceConfig
from rooftrace.data.source import SceneSet
from rooftrace.data.split import parse_reference
from rooftrace.flows.labelled import (
    beside_label,
    buildings_of,
    drawn_buildings,
    labelled_buildings,
    open_labelled,
)
from rooftrace.io.atomic import replacing
from rooftrace.metrics.calibration import CalibrationFit, JudgedBuildings, fit_calibration
from rooftrace.metrics.objects import judge_predicted
from rooftrace.metrics.reliability import Reliability, draw_reliability
from rooftrace.models.bundle import write_bundle
from rooftrace.predict.predictor import Predictor, load

__all__ = ["CalibrateReport", "Compared", "judge_buildings", "run_calibrate", "uncalibrated"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Compared:
    """Reliability of scores.

    Args:
        before: None where there is no building.
        after: of the values of a calibration that did not see these buildings; None without one.
    """

    before: Reliability | None
    after: Reliability | None

    @classmethod
    def of(
        cls,
        score: NDArray[np.floating],
        value: NDArray[np.floating] | None,
        right: NDArray[np.bool_],
    ) -> Compared:
        """Count buildings: (n,) scores, what they became, and whether each is right."""
        if not len(score):
            return cls(None, None)
        after = None if value is None else Reliability.of(value, right)
        return cls(Reliability.of(score, right), after)

    def to_json(self) -> dict[str, Any]:
        """`before` and `after`: calibration error, Brier score and log loss, or None."""
        return {
            name: None
            if one is None
            else {key: round(getattr(one, key), 5) for key in ("ece", "brier", "log_loss")}
            for name, one in (("before", self.before), ("after", self.after))
        }


@dataclass(frozen=True)
class CalibrateReport:
    """What a calibration came to.

    Args:
        bundle: the new bundle.
        picture: reliability before and after; None where no building was predicted.
        fit: the function, with its figures.
        folders: what it was fitted on.
    """

    bundle: Path
    picture: Path | None
    fit: CalibrationFit
    folders: tuple[JudgedBuildings, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not done, for the person to see."""
        return (f"no calibration was fitted: {self.fit.reason}",) if self.fit.reason else ()

    @cached_property
    def by_folder(self) -> tuple[Compared, ...]:
        """Figures of each folder."""
        ends = np.cumsum([len(folder.score) for folder in self.folders])
        values = self.fit.left_out
        parts = [None] * len(ends) if values is None else np.split(values, ends[:-1])
        return tuple(
            Compared.of(folder.score, value, folder.right)
            for folder, value in zip(self.folders, parts)
        )

    @cached_property
    def whole(self) -> Compared:
        """Figures of all buildings together."""
        score, right = (
            np.concatenate([getattr(folder, name) for folder in self.folders])
            for name in ("score", "right")
        )
        return Compared.of(score, self.fit.left_out, right)

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`. Figures after are of scenes that were left out of the fit."""
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
    progress: Progress | None = None,
) -> CalibrateReport:
    """Predict labelled scenes, see which buildings are right, fit the best function, and write the
    bundle again with it; nothing else of the bundle changes. An earlier calibration is replaced.

    Beside the bundle goes NAME_reliability.png. Where nothing is fitted, the bundle is written
    without a calibration, and a note says why.

    Args:
        bundle: the model; None for the one that comes with rooftrace.
        folders: labelled data that the model was not trained on; each counts alike.
        out: the new bundle.
        split: `FILE:PART`: only these scenes.
        engine, precision: default what `rooftrace predict` would take.
        progress: called with the images that are done and that there are.

    Raises:
        DataError: there is no folder; a split leaves no image of one; files cannot be read.
        ConfigError, BundleError, PredictError, ExportError: as the model or `out` gives cause.
    """
    if not folders:
        raise DataError("There is no data to calibrate on.", remedy="Name labelled data.")
    predictor = uncalibrated(load(bundle, engine=engine, precision=precision))
    part = "all" if split is None else parse_reference(split)[1]
    sources = [open_labelled(predictor, folder, split) for folder in folders]
    total = sum(map(len, sources))
    judged: list[JudgedBuildings] = []
    for source in sources:
        done = sum(one.scenes for one in judged)

        def told(more: int, _: int, done: int = done) -> None:
            if progress is not None:
                progress(done + more, total)

        judged.append(judge_buildings(predictor, source, part, told))
    run_by = predictor.engine
    protocol = f"whole images as by rooftrace predict, {run_by.name} {run_by.precision}"
    fit = fit_calibration(judged, protocol=protocol)
    spec = predictor.bundle.spec.model_copy(update={"calibration": fit.calibration})
    write_bundle(out, spec, predictor.bundle.parts)
    picture = out.with_name(f"{out.stem}_reliability.png")
    report = CalibrateReport(out, picture, fit, tuple(judged))
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
    """The same, with the scores that the network gives."""
    spec = predictor.bundle.spec.model_copy(update={"calibration": None})
    return Predictor(replace(predictor.bundle, spec=spec), predictor.engine)


def judge_buildings(
    predictor: Predictor, source: SceneSet, split: str, progress: Progress | None = None
) -> JudgedBuildings:
    """Predict every scene of a set, and see which buildings are right.

    Args:
        predictor: its scores are taken as they come.
        source: labelled scenes.
        split: what part of the data this is, for the record.
        progress: called with the scenes that are done and that there are.
    """
    scores, rights = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
    for number, scene in enumerate(source):
        score, right = _judge(predictor, scene)
        scores.append(score)
        rights.append(right)
        if progress is not None:
            progress(number + 1, len(source))
    return JudgedBuildings(
        data=source.name,
        split=split,
        score=np.concatenate(scores),
        right=np.concatenate(rights),
        scene=np.repeat(np.arange(len(rights) - 1), [len(part) for part in rights[1:]]),
        scenes=len(rights) - 1,
    )


def _judge(predictor: Predictor, scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(n,) scores of the buildings of a scene, and whether each is right."""
    truth, prediction = beside_label(predictor, scene, None)
    which = predictor.bundle.spec.building_class
    numbers, right = judge_predicted(
        labelled_buildings(scene, truth, which),
        drawn_buildings(prediction, which),
        truth.valid & prediction.mask.valid,
    )
    return buildings_of(prediction, which).score[numbers - 1], right
