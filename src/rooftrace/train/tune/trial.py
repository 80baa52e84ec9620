"""One trial: a training run whose figures a study watches."""

from __future__ import annotations

import math
import platform
import traceback
from collections.abc import Mapping
from pathlib import Path

import rooftrace.models._torch  # noqa: F401

# isort: split
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.io.atomic import write_atomically
from rooftrace.train.config import TrainConfig
from rooftrace.train.fit import fit
from rooftrace.train.monitor import check_monitor
from rooftrace.train.tune.config import Tuning
from rooftrace.train.tune.study import Outcome, beating, fail, give_up

__all__ = ["draw_config", "folder_name", "folder_of", "run_trial"]

_FOLDER, _HOST = "folder", "host"


def folder_name(number: int) -> str:
    """Of a trial's run, in the folder of the study."""
    return f"trial_{number:04d}"


def folder_of(trial: FrozenTrial) -> str:
    """Where a trial's run lies, as it is told to people: `HOST:PATH`."""
    return f"{trial.user_attrs.get(_HOST, '?')}:{trial.user_attrs.get(_FOLDER, '?')}"


def draw_config(trial: Trial, tuning: Tuning) -> TrainConfig:
    """What a trial is to try.

    Raises:
        ConfigError: what was drawn does not go together.
    """
    drawn = tuning.space.draw(trial)
    return tuning.config(drawn, source=folder_name(trial.number))


def run_trial(
    study: Study, trial: Trial, config: TrainConfig, tuning: Tuning, out: Path
) -> Outcome:
    """Train, and record what came of it.

    Args:
        out: folder of the study; the run is in a folder of its own there.

    Returns:
        How the trial ended; `lost` where another process has given it up in the meantime.

    Raises:
        ConfigError: the figure that the study watches is none of a run. That is no fault of this
            trial, which does not count.
        KeyboardInterrupt, SystemExit: somebody stopped the process; the trial does not count.
    """
    run = out / folder_name(trial.number)
    trial.set_user_attr(_HOST, platform.node())
    trial.set_user_attr(_FOLDER, str(run.resolve()))
    try:
        with beating(trial):
            value = _train(trial, config, tuning, run)
        study.tell(trial, value)
        return Outcome.complete
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return Outcome.pruned
    except optuna.exceptions.UpdateFinishedTrialError:
        return Outcome.lost
    except optuna.exceptions.OptunaError:
        raise
    except _NoSuchFigureError as error:
        give_up(study, [trial])
        raise ConfigError(error.message, remedy=error.remedy) from error
    except RooftraceError as error:
        fail(study, trial, str(error))
    except Exception as error:  # whatever a network of odd proportions runs into
        write_atomically(run / "error.txt", traceback.format_exc().encode())
        fail(study, trial, f"{type(error).__name__}: {error}"[:500])
    except BaseException:
        give_up(study, [trial])
        raise
    return Outcome.failed


class _NoSuchFigureError(ConfigError):
    """The study watches what no run has."""


class _Watch:
    """Hands the figures of a run on to the study, which may end it."""

    def __init__(self, trial: Trial, tuning: Tuning, epochs: int) -> None:
        self._trial = trial
        self._monitor = tuning.settings.monitor
        self._better = max if tuning.settings.maximises else min
        self._epochs = epochs
        self.best: float | None = None

    def __call__(self, epoch: int, figures: Mapping[str, float]) -> None:
        try:
            check_monitor("tune.monitor", self._monitor, figures)
        except ConfigError as error:
            raise _NoSuchFigureError(error.message, remedy=error.remedy) from error
        value = figures[self._monitor]
        if math.isfinite(value):
            self.best = value if self.best is None else self._better(self.best, value)
        self._trial.report(value, epoch)
        # After the last epoch there is nothing to spare.
        if epoch < self._epochs and self._trial.should_prune():
            raise optuna.TrialPruned


def _train(trial: Trial, config: TrainConfig, tuning: Tuning, run: Path) -> float:
    watch = _Watch(trial, tuning, config.epochs)
    fit(config, run, base=tuning.base, on_epoch=watch)
    if watch.best is None:
        raise ConfigError(f"{tuning.settings.monitor} was not a finite number in any epoch.")
    return watch.best
