"""Ensembles: several models as one, fitted on labelled data, and the measured gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural
from rooftrace.core.types import Progress
from rooftrace.flows.ensemble_fit import (
    EnsembleFit,
    MethodFigures,
    fit_ensemble,
)
from rooftrace.flows.labelled_predictions import (
    LabelledSets,
    check_threshold_data,
    predict_set,
    protocol_of,
    threshold_at,
)
from rooftrace.flows.threshold import check_buildings
from rooftrace.io.files import check_outputs, check_replaced
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.split import parse_reference
from rooftrace.metrics.pixel import CurveMetric
from rooftrace.metrics.resampling import PairedTest
from rooftrace.models.spec import MeasuredMetrics
from rooftrace.predict.model_set import (
    Combine,
    EnsembleFile,
    combine,
    is_ensemble,
    member_in_ensemble,
    members_from,
    read_ensemble,
    write_ensemble,
)
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor, load


@dataclass(frozen=True)
class EnsembleReport:
    """Result of `rooftrace fit` for several models.

    Args:
        out: The ensemble file.
        combine: Method of combination.
        metric: The figure that was maximised, as the mean over the sets.
        members: Names of the models in the ensemble.
        weights: Weights of the members; None where they are not weighted.
        threshold: Threshold on the building's probability.
        fit: Figures of all models and methods.
        names: Names of the sets of data.
        notes: Models and results to mention to the user.
    """

    out: Path
    combine: Combine
    metric: CurveMetric
    members: tuple[str, ...]
    weights: tuple[float, ...] | None
    threshold: float
    fit: EnsembleFit
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> MethodFigures:
        """Figures of the method in the file."""
        return _figures_of(self.fit, self.combine)

    @property
    def rows(self) -> tuple[MethodFigures, ...]:
        """Figures of every model alone and of every method of combination."""
        fit = self.fit
        return (*fit.models, fit.average, fit.weighted)

    @property
    def gain(self) -> PairedTest | None:
        """Test of the ensemble against the best single model, on scenes that were left out of the
        fit.
        """
        return self.fit.against_best(self.chosen)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        gain = self.gain
        return {
            "ensemble": str(self.out),
            "combine": self.combine,
            "metric": self.metric,
            "members": list(self.members),
            "weights": None if self.weights is None else list(self.weights),
            "threshold": self.threshold,
            "images": self.fit.scenes,
            "figures": [_to_json(one, self.names) for one in self.rows],
            "gain": None if gain is None else gain.to_json(),
            "notes": list(self.notes),
        }


def _to_json(one: MethodFigures, names: Sequence[str]) -> dict[str, Any]:
    def known(value: float) -> float | None:
        return None if math.isnan(value) else round(float(value), 5)

    return {
        "name": one.name,
        "threshold": threshold_at(one.threshold_level),
        "at_own_threshold": known(one.own),
        "fitted": known(one.fitted),
        "left_out": known(one.left_out),
        "left_out_by_data": {name: known(v) for name, v in zip(names, one.by_set)},
    }


def run_ensemble(
    bundles: Sequence[Path | None],
    folders: Sequence[SourceConfig],
    out: Path,
    *,
    how: Combine = "weighted",
    metric: CurveMetric = "iou",
    split: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    images: SceneOptions = AS_FOUND,
    progress: Progress | None = None,
) -> EnsembleReport:
    """Fit an ensemble: predict labelled scenes with every model, fit the combination, and write the
    ensemble file.

    Figures are measured on scenes that were left out of the fit, in five folds. Each model predicts
    on the tiles of the ensemble. A model with weight 0 is left out of the file. An earlier
    ensemble file of the same name is replaced; any other file is not.

    Args:
        bundles: At least two models of one contract, see `combine`; None is the default model.
        folders: Labelled data that no model was trained on; the mean over the folders is maximised.
        out: Path of the ensemble file, `NAME.ensemble.json`.
        how: Method of combination, see `Combine`.
        metric: Figure of pixels to maximise, pooled over a set.
        split: `FILE:PART` to choose scenes; None for all.
        engine, precision: Engine and precision; default as in `rooftrace predict`.
        images: Bands, stretch and scale with which images are read.
        progress: Function called with the number of images done and their total number, over all
            models.

    Raises:
        ConfigError: There are fewer than two bundles, one of them is an ensemble file or has more
            than two classes, or `out` has another file ending or is a file that is no ensemble.
        DataError: There is no data, it has no labelled image or no building, or it cannot be read.
        BundleError, PredictError, ExportError: A model cannot be used, or `out` cannot be written.
    """
    replaced = _check(bundles, out)
    read = [path for folder in folders for path in folder.paths]
    check_outputs([out], [*bundles, *read, None if split is None else parse_reference(split)[0]])
    members = [load(path, engine=engine, precision=precision) for path in bundles]
    specs = [member.bundle.spec for member in members]
    combined = combine(members).bundle.spec
    data = LabelledSets.open(members[0], folders, split, images, progress)
    for source in data.sources:
        check_threshold_data(specs[0], source)
    data.rounds = len(members)
    with TemporaryDirectory(prefix="rooftrace-") as folder:
        scratch, sets = Path(folder), []
        for number, source in enumerate(data.sources):
            sets.append(
                tuple(
                    predict_set(
                        member_in_ensemble(member, combined), source, scratch / f"{number}-{place}",
                        data,
                    )
                    for place, member in enumerate(members)
                )
            )  # fmt: skip
            has_any = any((scene.truth & scene.evaluated).any() for scene in sets[-1][0])
            check_buildings(has_any, source)
        for member in members:
            member.engine.release()
        names = _distinct_names([spec.name for spec in specs])
        fit = fit_ensemble(sets, [spec.threshold for spec in specs], names, metric, scratch)
    kept = [place for place, weight in enumerate(fit.weights) if how != "weighted" or weight]
    chosen = _figures_of(fit, how)
    threshold = threshold_at(chosen.threshold_level)
    weights = tuple(fit.weights[place] for place in kept) if how == "weighted" else None
    file = EnsembleFile(
        members=members_from(
            [bundles[place] for place in kept],
            [members[place].bundle.sha256 for place in kept],
            out,
        ),
        combine=how,
        weights=weights,
        threshold=threshold,
        metrics=_measured(chosen, metric, data, members[0]),
    )
    write_ensemble(out, file)
    report = EnsembleReport(
        out=out, combine=how, metric=metric, members=tuple(names[place] for place in kept),
        weights=weights, threshold=threshold, fit=fit,
        names=data.names,
        notes=(
            *replaced, *_left_out_note(names, kept), *data.scale_notes(combined.gsd_m)
        ),
    )  # fmt: skip
    gain = report.gain
    if gain is None or gain.difference.value > 0:
        return report
    text = f"on images left out {how} is no better than {fit.best_model.name} alone"
    return replace(report, notes=(*report.notes, text))


def _check(bundles: Sequence[Path | None], out: Path) -> list[str]:
    """Check the request, and return a note on an earlier ensemble file that is replaced."""
    if len(bundles) < 2:
        raise ConfigError(
            f"{plural(len(bundles), 'model was', 'models were')} given; "
            "an ensemble needs at least two.",
            remedy='Name several .rooftrace files, or "default" for the bundled one, then data.',
        )
    for path in bundles:
        if is_ensemble(path):
            raise ConfigError(
                f"{path} is an ensemble file; an ensemble cannot be a member of another one.",
                remedy="Name its bundles instead.",
            )
    if not is_ensemble(out):
        raise ConfigError(
            f"{out} was given for the ensemble file; expected a name that ends in .json.",
            remedy="For example: -o team.ensemble.json",
        )
    return check_replaced([out], partial(read_ensemble, out), "an ensemble file")


def _figures_of(fit: EnsembleFit, how: Combine) -> MethodFigures:
    return fit.average if how == "average" else fit.weighted


def _left_out_note(names: Sequence[str], kept: Sequence[int]) -> tuple[str, ...]:
    left_out = [name for place, name in enumerate(names) if place not in kept]
    if not left_out:
        return ()
    text = f"without weight, and so not in the ensemble: {', '.join(left_out)}"
    return (text if len(kept) > 1 else f"{text}; none was better together with {names[kept[0]]}",)


def _distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Append a number to names that occur several times."""
    return tuple(
        f"{name} ({place + 1})" if list(names).count(name) > 1 else name
        for place, name in enumerate(names)
    )


def _measured(
    chosen: MethodFigures, metric: CurveMetric, data: LabelledSets, member: Predictor
) -> tuple[MeasuredMetrics, ...]:
    if math.isnan(chosen.left_out):
        return ()
    protocol = (
        f"pooled over pixels, {protocol_of(member)}; each image by an ensemble that was fitted "
        "without it, in five parts"
    )
    return tuple(
        MeasuredMetrics(
            data=name, split=data.part, protocol=protocol, values={metric: round(float(value), 5)}
        )
        for name, value in zip(data.names, chosen.by_set)
        if not math.isnan(value)
    )
