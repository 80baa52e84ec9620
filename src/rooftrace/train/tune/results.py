"""The results of a study: its trials, the best of them as configuration and as model, and its page.

The page has charts and tables in one HTML file that needs no network.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from math import isfinite, log, nan
from pathlib import Path
from typing import Any

import tomlkit
from markupsafe import Markup
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial
from tomlkit.items import Table

from rooftrace.core.config import find_paths
from rooftrace.io.files import write_atomically
from rooftrace.io.html import Axis, Series, draw_chart, render_page
from rooftrace.train.callbacks import BEST_MONITORED
from rooftrace.train.checkpoint import last_checkpoint
from rooftrace.train.config import Key, TrainConfig, WatchConfig
from rooftrace.train.export_bundle import export_bundle
from rooftrace.train.loop import fit
from rooftrace.train.tune.space import Choices, Parameter, Tuning, set_value
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
        curve: The monitored figure by epoch, from 1.
        params: Values by parameter name, as the study recorded them.
        note: Reason why it failed, or the epoch after which it was pruned.
        seconds: Duration; None if it is unknown.
    """

    number: int
    outcome: TrialOutcome
    value: float | None
    curve: Mapping[int, float]
    params: Mapping[str, Any]
    note: str
    seconds: float | None


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

    def best_so_far(self) -> list[float | None]:
        """Return the best value up to each trial."""
        pick, best, values = max if self.maximises else min, None, []
        for trial in self.trials:
            if trial.outcome == TrialOutcome.complete and trial.value is not None:
                best = trial.value if best is None else pick(best, trial.value)
            values.append(best)
        return values


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
        curve=dict(sorted(trial.intermediate_values.items())),
        params=trial.params,
        note=f"after epoch {trial.last_step}" if pruned else failure_reason(trial),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
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


_DONE, _BEST, _PRUNED = "var(--s0)", "var(--s1)", "var(--faint)"
_MAX_LABEL_CHARS = 28
"""Maximum number of letters of a choice at an axis."""


def draw_charts(summary: StudySummary) -> dict[str, list[Markup]]:
    """Return charts by name; names without charts are left out.

    `history`: the value of each trial, and the best so far; `curves`: the figure by epoch;
    `slices`: the value by each parameter; `parallel`: one line per trial, from parameter to
    parameter.
    """
    valued = [t for t in summary.trials if t.value is not None and isfinite(t.value)]
    complete = [t for t in valued if t.outcome == TrialOutcome.complete]
    drawn: dict[str, list[Markup]] = {}
    if valued:
        drawn["history"] = [_history(summary, valued)]
        drawn["curves"] = [_curves(summary)]
        drawn["slices"] = [_slice(summary, valued, p) for p in summary.parameters]
    if len(complete) > 1:
        drawn["parallel"] = [_parallel(summary, complete)]
    return drawn


def _history(summary: StudySummary, valued: Sequence[TrialSummary]) -> Markup:
    numbers = [t.number for t in summary.trials]
    best = [nan if v is None or not isfinite(v) else v for v in summary.best_so_far()]
    # Each value of the best lasts until the next trial, so that the line has steps.
    steps = Series(
        "best so far",
        [n for n in numbers for _ in range(2)][1:],
        [v for v in best for _ in range(2)][:-1],
        colour=_BEST,
    )
    return draw_chart(
        [*_dots(valued, lambda trial: trial.number), steps],
        Axis.numbered("trial", numbers[0], numbers[-1]),
        _value_axis(summary, valued),
    )


def _curves(summary: StudySummary) -> Markup:
    """Return the figure of each trial by epoch; the best trial lies on top of the others."""
    lines: list[Series] = []
    for trial in summary.trials:
        epochs = list(trial.curve)
        values = [value if isfinite(value) else nan for value in trial.curve.values()]
        is_best = summary.best is not None and trial.number == summary.best.number
        whole = trial.outcome == TrialOutcome.complete
        line = Series(
            f"trial {trial.number}",
            epochs,
            values,
            mark=None if whole or not epochs else (epochs[-1], values[-1]),
            colour=_BEST if is_best else _DONE if whole else _PRUNED,
            thin=not is_best,
        )
        lines.insert(0 if is_best else len(lines), line)
    return draw_chart(
        lines,
        Axis.numbered("epoch", 1, max((int(e) for line in lines for e in line.x), default=1)),
        Axis.around(summary.monitor, [v for line in lines for v in line.y if isfinite(v)] or [1.0]),
    )


def _slice(summary: StudySummary, valued: Sequence[TrialSummary], parameter: Parameter) -> Markup:
    place = _place_of(parameter)
    if isinstance(parameter, Choices):
        ticks = tuple((float(n), _short(label)) for n, label in enumerate(parameter.labels))
        axis = Axis(parameter.name, -0.5, len(parameter.labels) - 0.5, ticks)
    else:
        tried = [place(t.params[parameter.name]) for t in valued]
        axis = Axis.around(parameter.name, tried, logarithmic=parameter.log)
    dots = _dots(valued, lambda trial: place(trial.params[parameter.name]))
    return draw_chart(dots, axis, _value_axis(summary, valued))


def _parallel(summary: StudySummary, complete: Sequence[TrialSummary]) -> Markup:
    """Return one line per trial, coloured by its value; the best lies on top of the others."""
    values = [t.value or 0.0 for t in complete]
    low, width = min(values), (max(values) - min(values)) or 1.0
    names = [p.name for p in summary.parameters] + [summary.monitor]
    shares = [_share(p, complete) for p in summary.parameters]
    lines = []
    for trial in _ranked(summary, complete):
        height = ((trial.value or 0.0) - low) / width
        rank = height if summary.maximises else 1 - height
        heights = [at(trial.params[p.name]) for p, at in zip(summary.parameters, shares)]
        lines.append(
            Series(
                f"trial {trial.number}: {trial.value:.4f}",
                range(len(names)),
                [*heights, height],
                colour=f"color-mix(in oklab, {_BEST} {100 * rank:.0f}%, {_DONE})",
            )
        )
    scales = [Series(n, [at] * 2, [0, 1], colour="var(--line)") for at, n in enumerate(names)]
    texts = [
        (at + 0.02, share(value), _short(value))
        for at, (parameter, share) in enumerate(zip(summary.parameters, shares))
        for value in _marks(parameter, complete)
    ]
    last = len(names) - 0.98
    texts += [(last, (v - low) / width, f"{v:.4f}") for v in {min(values), max(values)}]
    return draw_chart(
        [*lines, *scales],
        Axis("key", 0, len(names) - 0.85, tuple((float(at), n) for at, n in enumerate(names))),
        Axis("low to high", -0.06, 1.06),
        texts=texts,
        width=1060,
        height=420,
    )


def _dots(trials: Sequence[TrialSummary], x: Callable[[TrialSummary], float]) -> list[Series]:
    """Return a dot for the value of each trial that is complete or pruned."""
    colours = {TrialOutcome.complete: _DONE, TrialOutcome.pruned: _PRUNED}
    return [
        Series(f"trial {t.number}, {t.outcome}", [x(t)], [t.value or 0.0], colour=colour)
        for t in trials
        if (colour := colours.get(t.outcome)) is not None
    ]


def _value_axis(summary: StudySummary, valued: Sequence[TrialSummary]) -> Axis:
    return Axis.around(summary.monitor, [t.value or 0.0 for t in valued])


def _place_of(parameter: Parameter) -> Callable[[Any], float]:
    """Return a function from a value of a parameter to its place on an axis of its own."""
    if isinstance(parameter, Choices):
        return lambda value: float(parameter.labels.index(value))
    return float


def _share(parameter: Parameter, trials: Sequence[TrialSummary]) -> Callable[[Any], float]:
    """Return a function from a value to its place between the lowest and the highest value, in
    0..1.
    """
    place = _place_of(parameter)
    if isinstance(parameter, Choices):
        return lambda value: place(value) / max(1, len(parameter.labels) - 1)
    scale = log if parameter.log else float
    tried = [scale(place(t.params[parameter.name])) for t in trials]
    low, width = min(tried), (max(tried) - min(tried)) or 1.0
    return lambda value: (scale(place(value)) - low) / width


def _marks(parameter: Parameter, trials: Sequence[TrialSummary]) -> list[Any]:
    """Return the values that are written at an axis."""
    if isinstance(parameter, Choices):
        return list(parameter.labels)
    tried = [t.params[parameter.name] for t in trials]
    return sorted({min(tried), max(tried)})


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    return text if len(text) <= _MAX_LABEL_CHARS else text[: _MAX_LABEL_CHARS - 1] + "…"


def study_page(summary: StudySummary, *, best_config: str, notes: tuple[str, ...] = ()) -> str:
    """Return the whole page.

    Args:
        summary: The study.
        best_config: Configuration of the best trial as TOML; empty if there is none.
        notes: Further sentences for the reader.
    """
    return render_page(
        "tune.html",
        {"figure": _figure, "value": _value, "minutes": _minutes},
        summary=summary,
        counts=summary.counts,
        rows=_ranked(summary, summary.trials),
        charts=draw_charts(summary),
        best_config=best_config,
        notes=notes,
        minutes=sum(trial.seconds or 0.0 for trial in summary.trials) / 60,
        version=metadata.version("rooftrace"),
    )


def _ranked(summary: StudySummary, trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Sort trials: complete ones from the best to the worst, then pruned ones, then the others."""
    sign = -1 if summary.maximises else 1
    places = {TrialOutcome.complete: 0, TrialOutcome.pruned: 1, TrialOutcome.failed: 2}

    def rank(trial: TrialSummary) -> tuple[int, float, int]:
        value = 0.0 if trial.value is None else sign * trial.value
        return places.get(trial.outcome, 3), value, trial.number

    return sorted(trials, key=rank)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _value(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _minutes(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 60:.1f}"
