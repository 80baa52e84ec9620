"""What a study has come to, read from its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial

from rooftrace.train.tune.config import Tuning
from rooftrace.train.tune.space import Parameter
from rooftrace.train.tune.study import Outcome, best_of, finished, outcome, reason

__all__ = ["Summary", "Tried", "summarise", "tried"]

_FEW = 4
"""With fewer complete trials than this nothing can be said of what matters."""


@dataclass(frozen=True)
class Tried:
    """One trial.

    Args:
        value: of its best epoch; of its last one where it was pruned; None where it failed.
        curve: the figure that the study watches, by epoch, from 1.
        params: by parameter name, as the study recorded them.
        told: why it failed, or after which epoch it was pruned.
        seconds: that it took; None where that is not known.
    """

    number: int
    outcome: Outcome
    value: float | None
    curve: Mapping[int, float]
    params: Mapping[str, Any]
    told: str
    seconds: float | None


@dataclass(frozen=True)
class Summary:
    """A study as people and programs are told of it.

    Args:
        trials: those that are finished, run or were lost under way; by number.
        best: None where no trial came to a value.
        importance: of each parameter, a share of the whole; empty where there are too few trials.
    """

    study: str
    monitor: str
    maximises: bool
    parameters: tuple[Parameter, ...]
    trials: tuple[Tried, ...]
    best: Tried | None
    importance: Mapping[str, float]

    @property
    def counts(self) -> dict[str, int]:
        """Trials by outcome."""
        found = Counter(str(trial.outcome) for trial in self.trials)
        return {str(kind): found[str(kind)] for kind in Outcome}

    def best_so_far(self) -> list[float | None]:
        """The best value up to each trial."""
        pick, best, values = max if self.maximises else min, None, []
        for trial in self.trials:
            if trial.outcome == Outcome.complete and trial.value is not None:
                best = trial.value if best is None else pick(best, trial.value)
            values.append(best)
        return values


def summarise(study: Study, tuning: Tuning) -> Summary:
    """Read a study.

    Importance is the share of a parameter alone in the variance of the values, by a forest of
    regression trees (functional ANOVA: Hutter, Hoos and Leyton-Brown 2014), over complete trials.
    """
    done = finished(study)
    best = best_of(study, done)
    # What has no values never began: two asked for the last trial at the same moment.
    shown = [t for t in study.get_trials(deepcopy=False) if t.params]
    return Summary(
        study=study.study_name,
        monitor=tuning.settings.monitor,
        maximises=tuning.settings.maximises,
        parameters=tuning.space.parameters,
        trials=tuple(tried(trial) for trial in shown),
        best=None if best is None else tried(best),
        importance=_importance(study, done),
    )


def tried(trial: FrozenTrial) -> Tried:
    """A trial as it is recorded."""
    end = outcome(trial)
    told = reason(trial)
    if end == Outcome.pruned:
        told = f"after epoch {trial.last_step}"
    return Tried(
        number=trial.number,
        outcome=end,
        value=trial.value,
        curve=dict(sorted(trial.intermediate_values.items())),
        params=trial.params,
        told=told,
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
    )


def _importance(study: Study, done: list[FrozenTrial]) -> dict[str, float]:
    complete = [t for t in done if outcome(t) == Outcome.complete]
    if len(complete) < _FEW or len({t.value for t in complete}) == 1:
        return {}
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}
