"""The results of a study: its trials, and the best of them as configuration and as model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial

from rooftrace.core.config import find_paths
from rooftrace.io.files import relative_name, write_atomically
from rooftrace.train.callbacks import BEST_MONITORED
from rooftrace.train.config import TrainConfig, WatchConfig
from rooftrace.train.export_bundle import export_bundle
from rooftrace.train.loop import fit
from rooftrace.train.tune.space import Parameter, Tuning, set_value
from rooftrace.train.tune.study import (
    TrialOutcome,
    best_of,
    failure_reason,
    finished,
    folder_name,
    monitored_epoch,
    outcome,
)

_MIN_TRIALS_FOR_IMPORTANCE = 4
"""Minimum number of complete trials from which importance is estimated."""


@dataclass(frozen=True)
class StudySummary:
    """The results of a study.

    Args:
        study: Name of the study.
        monitor: The monitored figure.
        parameters: The open values of the configuration.
        counts: Number of trials by outcome.
        best: The best trial; None if no trial has a value.
        importance: Share of each parameter; empty if there are too few trials.
    """

    study: str
    monitor: str
    parameters: tuple[Parameter, ...]
    counts: Mapping[str, int]
    best: FrozenTrial | None
    importance: Mapping[str, float]


def summarise(study: Study, tuning: Tuning) -> StudySummary:
    """Read a study.

    The importance of a parameter is the share that it alone has in the variance of the values of
    complete trials, estimated by a forest of regression trees (functional ANOVA: Hutter, Hoos and
    Leyton-Brown 2014).
    """
    done = finished(study)
    counts = Counter(outcome(trial) for trial in study.get_trials(deepcopy=False))
    return StudySummary(
        study=study.study_name,
        monitor=tuning.settings.monitor,
        parameters=tuning.space.parameters,
        counts={str(kind): counts[kind] for kind in TrialOutcome},
        best=best_of(study, done),
        importance=_importance(study, done),
    )


def _importance(study: Study, done: list[FrozenTrial]) -> dict[str, float]:
    complete = [t for t in done if outcome(t) == TrialOutcome.complete]
    if len(complete) < _MIN_TRIALS_FOR_IMPORTANCE or len({t.value for t in complete}) == 1:
        return {}
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}


class TrialReporter:
    """Prints a line for each trial that has ended since the last call.

    Args:
        notify: Function called with each line.
    """

    def __init__(self, study: Study, tuning: Tuning, notify: Callable[[str], None]) -> None:
        self._study = study
        self._monitor = tuning.settings.monitor
        self._notify = notify
        self._reported = {trial.number for trial in self._ended()}

    def __call__(self) -> None:
        for trial in self._ended():
            if trial.number not in self._reported:
                self._reported.add(trial.number)
                self._notify(self._line(trial))

    def _ended(self) -> list[FrozenTrial]:
        return [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]

    def _line(self, trial: FrozenTrial) -> str:
        end = outcome(trial)
        if end == TrialOutcome.lost:
            return f"trial {trial.number}  lost with its process; another takes its place"
        text = {
            TrialOutcome.complete: f"{self._monitor} {trial.value or 0:.4f}",
            TrialOutcome.pruned: f"pruned after epoch {trial.last_step}",
        }.get(end, f"failed {failure_reason(trial)}")
        best = best_of(self._study, finished(self._study))
        so_far = f"  (best {best.value:.4f}, trial {best.number})" if best is not None else ""
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.params.items()
        )
        return f"trial {trial.number}  {text}{so_far}  {values}"


def write_config(
    path: Path, tuning: Tuning, best: FrozenTrial, trials: Sequence[FrozenTrial]
) -> None:
    """Write the configuration of the best trial, ready for `rooftrace train`.

    Args:
        path: File to write; relative paths in it are changed to start from its folder.
        best: The best trial.
        trials: All finished trials.
    """
    raw = _with_moved_paths(tuning.space.resolve(best.params), tuning.base, path.parent)
    value = f"{tuning.settings.monitor} {best.value:.6g}"
    lines = [
        f"The best of {len(trials)} trials of {tuning.name!r}: trial {best.number}, {value}.",
        *(f"{p.name} = {best.params[p.name]}, of {p}" for p in tuning.space.parameters),
    ]
    head = "".join(f"# {line}\n" for line in lines)
    write_atomically(path, f"{head}\n{tomlkit.dumps(raw)}".encode())


def export_best(
    tuning: Tuning, best: FrozenTrial, out: Path, path: Path, *, notify: Callable[[str], None]
) -> None:
    """Write the bundle of the best epoch of the best trial, by the figure of the study.

    Raises:
        ExportError: See `train.export_bundle`.
    """
    run = out / folder_name(best.number)
    config, settings = tuning.config(best.params, source=run.name), tuning.settings
    name, monitor = "best_iou" if settings.maximises else "best_loss", ""
    if (monitored := monitored_epoch(settings)) is not None:
        name, monitor = BEST_MONITORED, settings.monitor
    record = run / "config.json"
    before = record.read_bytes()
    try:
        # Resuming a run that already has its number of epochs opens it, and trains nothing.
        update = {"epochs": len(best.intermediate_values), "watch": WatchConfig(panel=0)}
        result = fit(
            config.model_copy(update=update),
            run,
            base=tuning.base,
            resume=True,
            monitored=monitored,
        )
    finally:
        write_atomically(record, before)
    export_bundle(config, result, name, path, monitor=monitor, notify=notify)


def _with_moved_paths(raw: dict[str, Any], base: Path, folder: Path) -> dict[str, Any]:
    """Change relative paths that start from `base` so that they start from `folder`."""
    for key, text in list(find_paths(raw, TrainConfig)):
        # A path that starts with a variable, a home or a root is the same from everywhere.
        if not (text.startswith(("$", "~")) or Path(text).is_absolute()):
            set_value(raw, key, relative_name(base / text, folder))
    return raw
