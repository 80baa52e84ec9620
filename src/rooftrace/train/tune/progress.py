"""A line for each trial that ends, wherever it ran."""

from __future__ import annotations

from collections.abc import Callable

from optuna.study import Study

from rooftrace.train.tune.config import Tuning
from rooftrace.train.tune.study import Outcome, best_of, finished, outcome
from rooftrace.train.tune.summary import Tried, tried

__all__ = ["Teller"]


class Teller:
    """Tells of the trials that ended since it was made, each once.

    Args:
        tell: takes a line.
    """

    def __init__(self, study: Study, tuning: Tuning, tell: Callable[[str], None]) -> None:
        self._study = study
        self._monitor = tuning.settings.monitor
        self._tell = tell
        self._told = {trial.number for trial in self._ended()}

    def __call__(self) -> None:
        for trial in self._ended():
            if trial.number not in self._told:
                self._told.add(trial.number)
                self._tell(self._line(trial))

    def _ended(self) -> list[Tried]:
        """Without those that were given back before they had any value to try."""
        trials = self._study.get_trials(deepcopy=False)
        return [tried(t) for t in trials if t.params and outcome(t) != Outcome.running]

    def _line(self, trial: Tried) -> str:
        if trial.outcome == Outcome.lost:
            return f"trial {trial.number}  lost with its process; another takes its place"
        said = f"trial {trial.number}  "
        if trial.outcome == Outcome.complete:
            said += f"{self._monitor} {trial.value:.4f}"
        else:
            said += f"{trial.outcome} {trial.told}" if trial.told else str(trial.outcome)
        best = best_of(self._study, finished(self._study))
        if best is not None and best.value is not None:
            said += f"  (best {best.value:.4f}, trial {best.number})"
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.params.items()
        )
        return f"{said}  {values}"
