"""`rooftrace calibrate`: a bundle whose scores of buildings are probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

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

__all__ = ["CalibrateReport", "judge_buildings", "run_calibrate"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CalibrateReport:
    """What a calibration came to.

    Args:
        bundle: the new bundle.
        picture: reliability before and after; None where no building was predicted.
        fit: the function, with its figures.
        folders: what it was fitted on.
        notes: what was assumed, for the person to see.
    """

    bundle: Path
    picture: Path | None
    fit: CalibrationFit
    folders: tuple[JudgedBuildings, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`. Figures after are of scenes that were left out of the fit."""
        calibration = self.fit.calibration
        return {
            "bundle": str(self.bundle),
            "picture": None if self.picture is None else str(self.picture),
            "calibration": None if calibration is None else calibration.map.model_dump(mode="json"),
            "data": [folder.record.model_dump(mode="json") for folder in self.folders],
            "before": _figures(self.fit.before),
            "after": _figures(self.fit.after),
            "log_loss_by_kind": {k: round(v, 5) for k, v in self.fit.by_kind.items()},
            "notes": list(self.notes),
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Name of a figure, before, after; for a table."""
        before, after = _figures(self.fit.before), _figures(self.fit.after)

        def shown(figures: dict[str, float] | None, key: str) -> str:
            return "–" if figures is None else f"{figures[key]:.4f}"

        return [(name, shown(before, key), shown(after, key)) for key, name in _NAMES.items()]


_NAMES = {"ece": "expected calibration error", "brier": "Brier score", "log_loss": "log loss"}


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
    loaded = load(bundle, engine=engine, precision=precision)
    # The scores are to be those of the network.
    spec = loaded.bundle.spec.model_copy(update={"calibration": None})
    predictor = Predictor(replace(loaded.bundle, spec=spec), loaded.engine)
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
    fit = fit_calibration(judged)
    made = spec.model_copy(update={"calibration": fit.calibration})
    write_bundle(out, made, loaded.bundle.parts)
    picture = None
    if fit.before is not None:
        picture = out.with_name(f"{out.stem}_reliability.png")
        curves = [("before", fit.before)]
        if fit.after is not None:
            curves.append(("after", fit.after))
        with replacing(picture) as partial:
            drawn = draw_reliability(curves, f"{spec.name}: {fit.before.objects:,} buildings")
            drawn.save(partial, format="PNG")
    notes = (f"no calibration was fitted: {fit.reason}",) if fit.reason else ()
    return CalibrateReport(out, picture, fit, tuple(judged), notes)


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


def _judge(
    predictor: Predictor, scene: Scene
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """(n,) scores of the buildings of a scene, and whether each is right."""
    truth, prediction = beside_label(predictor, scene, None)
    which = predictor.bundle.spec.building_class
    numbers, right = judge_predicted(
        labelled_buildings(scene, truth, which),
        drawn_buildings(prediction, which),
        truth.valid & prediction.mask.valid,
    )
    return buildings_of(prediction, which).score[numbers - 1], right


def _figures(one: Reliability | None) -> dict[str, float] | None:
    if one is None:
        return None
    return {
        "ece": round(one.ece, 5),
        "brier": round(one.brier, 5),
        "log_loss": round(one.log_loss, 5),
    }
