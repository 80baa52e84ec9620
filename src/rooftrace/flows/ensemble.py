"""`rooftrace ensemble`: several models as one, fitted on labelled data, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.config import SourceConfig
from rooftrace.data.source import SceneSet
from rooftrace.data.split import parse_reference
from rooftrace.flows.ensemble_counts import Answers
from rooftrace.flows.ensemble_fit import Judged, TeamFit, fit_team
from rooftrace.flows.labelled import open_labelled
from rooftrace.flows.scored import check_labelled, score_set, threshold_at
from rooftrace.metrics.curves import CurveMetric
from rooftrace.metrics.paired import PairedTest
from rooftrace.models.spec import BundleSpec, Measured
from rooftrace.predict.ensemble import as_member, combine
from rooftrace.predict.ensemble_engine import Combine
from rooftrace.predict.ensemble_file import (
    EnsembleFile,
    is_ensemble,
    members_from,
    write_ensemble,
)
from rooftrace.predict.predictor import Predictor, load

__all__ = ["EnsembleReport", "run_ensemble"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EnsembleReport:
    """What was made.

    Args:
        out: the ensemble file.
        combine: how.
        metric: that was to be highest, as the mean over the sets.
        members: names of the models in it.
        weights: of these; None where they are not weighted.
        threshold: on the building's probability, or on the share of votes.
        fit: the figures.
        names: of the sets of data.
        notes: what was left out, for the person to see.
    """

    out: Path
    combine: Combine
    metric: CurveMetric
    members: tuple[str, ...]
    weights: tuple[float, ...] | None
    threshold: float
    fit: TeamFit
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> Judged:
        """The way to combine that is in the file."""
        return _way(self.fit, self.combine)

    @property
    def rows(self) -> tuple[Judged, ...]:
        """Every model alone, and every way to combine them."""
        fit = self.fit
        return (*fit.models, fit.average, fit.weighted, fit.vote)

    @property
    def gain(self) -> PairedTest | None:
        """The ensemble against the best model alone, on scenes left out."""
        return self.fit.against_best(self.chosen)

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
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
            "tied": round(self.fit.tied, 6),
            "gain": None if gain is None else gain.to_json(),
            "notes": list(self.notes),
        }


def _to_json(one: Judged, names: Sequence[str]) -> dict[str, Any]:
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
    progress: Progress | None = None,
) -> EnsembleReport:
    """Predict every model over labelled scenes, fit how they are combined, and write the ensemble
    file. Figures are of scenes that were left out of the fit, in five parts.

    Each model is run as it answers in the ensemble, and where its scale is another also by itself.
    Votes have nothing to fit: the majority of the models' own answers. A model that gets no weight
    is left out of the file.

    Args:
        bundles: two or more, which agree in bands and classes; None is the one that comes with
            rooftrace.
        folders: labelled data that no model was trained on; the mean over them counts.
        out: the ensemble file, `NAME.ensemble.json`.
        how: see `Combine`.
        metric: of pixels, pooled over a set.
        split: `FILE:PART`: only these scenes.
        engine, precision: default what `rooftrace predict` would take.
        progress: called with the images that are done and that there are, over all models.

    Raises:
        ConfigError: fewer than two bundles, an ensemble file among them, or more than two classes;
            a name of another ending.
        DataError: there is no data, it has no labelled image or no building, or cannot be read.
        BundleError, PredictError, ExportError: as a model or `out` gives cause.
    """
    _check(bundles, folders, out)
    members = [load(path, engine=engine, precision=precision) for path in bundles]
    team = combine(members).bundle.spec
    sources = [open_labelled(members[0], folder, split) for folder in folders]
    for source in sources:
        check_labelled(members[0], source)
    specs = [member.bundle.spec for member in members]
    with TemporaryDirectory(prefix="rooftrace-") as folder:
        scratch = Path(folder)
        sets = _answers(members, team, sources, scratch, progress)
        for one in sets:
            if not any((scene.truth & scene.judged).any() for scene in one.team[0]):
                raise DataError(
                    f"{one.source.name} has no pixel that is labelled as a building, where the "
                    "models say something.",
                    remedy="Name data with buildings, or another part of the split.",
                )
        names = _distinct([spec.name for spec in specs])
        fit = fit_team(sets, [spec.threshold for spec in specs], names, metric, scratch)
    kept = [place for place, weight in enumerate(fit.weights) if how != "weighted" or weight]
    if len(kept) > 1 and _tiles(combine([members[i] for i in kept]).bundle.spec) != _tiles(team):
        # Without these models tiles are others, and so are the answers that weights were fitted to.
        report = run_ensemble(
            [bundles[place] for place in kept], folders, out, how=how, metric=metric, split=split,
            engine=engine, precision=precision, progress=progress,
        )  # fmt: skip
        return replace(report, notes=(*_dropped(names, kept), *report.notes))
    chosen = _way(fit, how)
    part = "all" if split is None else parse_reference(split)[1]
    threshold = 0.5 if how == "vote" else threshold_at(chosen.threshold_level)
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
        metrics=_measured(chosen, metric, [one.name for one in sources], part, members[0]),
    )
    write_ensemble(out, file)
    report = EnsembleReport(
        out=out, combine=how, metric=metric, members=tuple(names[place] for place in kept),
        weights=weights, threshold=threshold, fit=fit,
        names=tuple(source.name for source in sources), notes=_dropped(names, kept),
    )  # fmt: skip
    gain = report.gain
    if gain is None or gain.difference.value > 0:
        return report
    told = f"on images left out {how} is no better than {fit.best_model.name} alone"
    return replace(report, notes=(*report.notes, told))


def _check(bundles: Sequence[Path | None], folders: Sequence[SourceConfig], out: Path) -> None:
    if len(bundles) < 2:
        raise ConfigError(
            f"{len(bundles)} models were given; an ensemble is of two or more.",
            remedy='Name several .rooftrace files, or "default" for the bundled one, then data.',
        )
    for path in bundles:
        if is_ensemble(path):
            raise ConfigError(
                f"{path} is an ensemble, which cannot be a model of another.",
                remedy="Name its bundles.",
            )
    if not folders:
        raise DataError("There is no data to fit on.", remedy="Name labelled data.")
    if not is_ensemble(out):
        raise ConfigError(
            f"{out} was given for the ensemble file; expected a name that ends in .json.",
            remedy="For example: -o team.ensemble.json",
        )


def _answers(
    members: Sequence[Predictor],
    team: BundleSpec,
    sources: Sequence[SceneSet],
    scratch: Path,
    progress: Progress | None,
) -> list[Answers]:
    """What every model says of every set."""
    # One that works at the ensemble's own scale says by itself what it says there.
    scaled = [member.bundle.spec.gsd_m != team.gsd_m for member in members]
    total = (len(members) + sum(scaled)) * sum(map(len, sources))
    done = 0

    def tell(_done: int, _of: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    made = []
    for number, source in enumerate(sources):
        together, alone = [], []
        for place, (member, is_scaled) in enumerate(zip(members, scaled)):
            folder = scratch / f"{number}-{place}"
            seen = score_set(as_member(member, team), source, folder / "team", tell)
            together.append(seen)
            own = score_set(member, source, folder / "alone", tell) if is_scaled else seen
            alone.append(own)
        made.append(Answers(tuple(together), tuple(alone)))
    for member in members:
        getattr(member.engine, "release", lambda: None)()
    return made


def _way(fit: TeamFit, how: Combine) -> Judged:
    return {"average": fit.average, "weighted": fit.weighted, "vote": fit.vote}[how]


def _tiles(spec: BundleSpec) -> tuple[object, ...]:
    """What a scene is laid out by."""
    return spec.gsd_m, spec.input_px, spec.input_multiple_px, spec.context_px


def _dropped(names: Sequence[str], kept: Sequence[int]) -> tuple[str, ...]:
    left_out = [name for place, name in enumerate(names) if place not in kept]
    if not left_out:
        return ()
    told = f"without weight, and so not in the ensemble: {', '.join(left_out)}"
    return (told if len(kept) > 1 else f"{told}; none was better together with {names[kept[0]]}",)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of which several are alike get a number."""
    return tuple(
        f"{name} ({place + 1})" if list(names).count(name) > 1 else name
        for place, name in enumerate(names)
    )


def _measured(
    chosen: Judged, metric: CurveMetric, names: Sequence[str], part: str, member: Predictor
) -> tuple[Measured, ...]:
    if math.isnan(chosen.left_out):
        return ()
    engine = member.engine
    return tuple(
        Measured(
            data=name,
            split=part,
            protocol=(
                f"pooled over pixels, whole images as by rooftrace predict, {engine.name} "
                f"{engine.precision}; each image by an ensemble that was fitted without it, in "
                "five parts"
            ),
            values={metric: round(float(value), 5)},
        )
        for name, value in zip(names, chosen.by_set)
        if not math.isnan(value)
    )
