"""The results of a study: its trials, and the best of them as configuration and as model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial
from tomlkit.items import Table

from rooftrace.core.config import find_paths
from rooftrace.io.files import write_atomically
from rooftrace.train.callbacks import BEST_MONITORED
from rooftrace.train.checkpoint import last_checkpoint
from rooftrace.train.config import Key, TrainConfig, WatchConfig
from rooftrace.train.export_bundle import export_bundle
from rooftrace.train.loop import fit
from rooftrace.train.tune.space import Parameter, Tuning, set_value
from rooftrace.train.tune.study import TrialOutcome, best_of, failure_reason, finished, outcome
from rooftrace.train.tune.trial import folder_name, monitored_epoch

_MIN_TRIALS_FOR_IMPORTANCE = 4
"""Minimum number of complete trials from which importance is estimated."""


@dataclass(frozen=True)
class TrialSummary:
    """One trial.

    Args:
        number: Number of the trial, from 0.
        outcome: State of the trial, or how it ended.
        value: Value of the best epoch; of the last epoch if it was pruned; None if it failed.
        params: Values by parameter name, as the study recorded them.
        note: Reason why it failed, or the epoch after which it was pruned.
    """

    number: int
    outcome: TrialOutcome
    value: float | None
    params: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class StudySummary:
    """The results of a study.

    Args:
        study: Name of the study.
        monitor: The monitored figure.
        maximises: True if higher is better.
        parameters: The open values of the configuration.
        trials: Trials that are finished, that run, or that were lost; by number.
        best: The best trial; None if no trial has a value.
        importance: Share of each parameter; empty if there are too few trials.
    """

    study: str
    monitor: str
    maximises: bool
    parameters: tuple[Parameter, ...]
    trials: tuple[TrialSummary, ...]
    best: TrialSummary | None
    importance: Mapping[str, float]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by outcome."""
        found = Counter(str(trial.outcome) for trial in self.trials)
        return {str(kind): found[str(kind)] for kind in TrialOutcome}


def summarise(study: Study, tuning: Tuning) -> StudySummary:
    """Read a study.

    The importance of a parameter is the share that it alone has in the variance of the values of
    complete trials, estimated by a forest of regression trees (functional ANOVA: Hutter, Hoos and
    Leyton-Brown 2014).
    """
    done = finished(study)
    best = best_of(study, done)
    return StudySummary(
        study=study.study_name,
        monitor=tuning.settings.monitor,
        maximises=tuning.settings.maximises,
        parameters=tuning.space.parameters,
        trials=tuple(summarise_trial(trial) for trial in _started(study)),
        best=None if best is None else summarise_trial(best),
        importance=_importance(study, done),
    )


def summarise_trial(trial: FrozenTrial) -> TrialSummary:
    """Return the summary of a recorded trial."""
    end = outcome(trial)
    pruned = end == TrialOutcome.pruned
    return TrialSummary(
        number=trial.number,
        outcome=end,
        value=trial.value,
        params=trial.params,
        note=f"after epoch {trial.last_step}" if pruned else failure_reason(trial),
    )


def _started(study: Study) -> list[FrozenTrial]:
    """Return the trials that have values.

    A trial without values never began: two processes asked for the last trial at once.
    """
    return [trial for trial in study.get_trials(deepcopy=False) if trial.params]


def _importance(study: Study, done: list[FrozenTrial]) -> dict[str, float]:
    complete = [t for t in done if outcome(t) == TrialOutcome.complete]
    if len(complete) < _MIN_TRIALS_FOR_IMPORTANCE or len({t.value for t in complete}) == 1:
        return {}
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}


class TrialReporter:
    """Prints a line for each trial that has ended since the last call, wherever it ran.

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

    def _ended(self) -> list[TrialSummary]:
        return [
            summarise_trial(t) for t in _started(self._study) if outcome(t) != TrialOutcome.running
        ]

    def _line(self, trial: TrialSummary) -> str:
        if trial.outcome == TrialOutcome.lost:
            return f"trial {trial.number}  lost with its process; another takes its place"
        line = f"trial {trial.number}  "
        if trial.outcome == TrialOutcome.complete:
            line += f"{self._monitor} {trial.value:.4f}"
        else:
            line += f"{trial.outcome} {trial.note}" if trial.note else str(trial.outcome)
        best = best_of(self._study, finished(self._study))
        if best is not None and best.value is not None:
            line += f"  (best {best.value:.4f}, trial {best.number})"
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.params.items()
        )
        return f"{line}  {values}"


def write_config(
    path: Path, tuning: Tuning, best: FrozenTrial, trials: Sequence[FrozenTrial], study: str
) -> None:
    """Write the configuration of the best trial, ready for `rooftrace train`.

    Args:
        path: File to write; relative paths in it are changed to start from its folder.
        best: The best trial.
        trials: All finished trials.
        study: Name of the study.
    """
    raw = _with_moved_paths(tuning.space.resolve(best.params), tuning.base, path.parent)
    head = (
        f"The best of {len(trials)} trials of the study {study!r}: trial {best.number}, "
        f"{tuning.settings.monitor} {best.value:.6g}."
    )
    write_atomically(path, render_config(raw, tuning.space.parameters, head).encode())


def render_config(raw: dict[str, Any], parameters: Sequence[Parameter], head: str) -> str:
    """Return TOML in which each value that was searched for has its search space as a comment.

    Args:
        raw: Plain data without open values.
        parameters: Values that were searched for.
        head: Comment at the top.
    """
    notes = {p.key: f"searched: {p}" for p in parameters}
    document = tomlkit.document()
    document.add(tomlkit.comment(head))
    _fill(document, raw, (), notes)
    return tomlkit.dumps(document)


def export_best(
    tuning: Tuning, best: FrozenTrial, out: Path, path: Path, *, notify: Callable[[str], None]
) -> bool:
    """Write the bundle of the best epoch of the best trial, by the figure of the study.

    Returns:
        False if the weights of that trial are not in this folder: it ran on another machine.

    Raises:
        ExportError: See `train.export_bundle`.
    """
    run = out / folder_name(best.number)
    if not last_checkpoint(run).is_file():
        return False
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
    return True


def _fill(
    into: tomlkit.TOMLDocument | Table, raw: Mapping[str, Any], key: Key, notes: Mapping[Key, str]
) -> None:
    """Add values first, then tables, then lists of tables, as TOML demands."""
    for name, value in raw.items():
        if isinstance(value, dict) or _is_list_of_tables(value):
            continue
        item = tomlkit.item(value)
        if note := notes.get((*key, name)):
            item.comment(note)
        into.add(name, item)
    for left_out in (k for k in notes if k[:-1] == key and k[-1] not in raw):
        into.add(tomlkit.comment(f"{left_out[-1]}: its default, {notes[left_out]}"))
    for name, value in raw.items():
        if isinstance(value, dict):
            table = tomlkit.table()
            _add_note(table, notes.get((*key, name)))
            _fill(table, value, (*key, name), notes)
            into.add(name, table)
    for name, value in raw.items():
        if _is_list_of_tables(value):
            tables = tomlkit.aot()
            for index, entry in enumerate(value):
                table = tomlkit.table()
                _add_note(table, notes.get((*key, name, index)) or notes.get((*key, name)))
                _fill(table, entry, (*key, name, index), notes)
                tables.append(table)
            into.add(name, tables)


def _add_note(table: Table, note: str | None) -> None:
    if note is not None:
        table.add(tomlkit.comment(note))


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _with_moved_paths(raw: dict[str, Any], base: Path, folder: Path) -> dict[str, Any]:
    """Change relative paths that start from `base` so that they start from `folder`."""
    for key, text in list(find_paths(raw, TrainConfig)):
        # A path that starts with a variable, a home or a root is the same from everywhere.
        if not (text.startswith(("$", "~")) or Path(text).is_absolute()):
            set_value(raw, key, os.path.relpath(base.resolve() / text, folder.resolve()))
    return raw
