"""The outcome of a trial for every end of its training."""

import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

from optuna.study import Study

from rooftrace.core.errors import DataError
from rooftrace.train import tune as tune_module
from rooftrace.train.config import TrainConfig
from rooftrace.train.tune import (
    TrialOutcome,
    TuningJob,
    delete_checkpoints,
    failure_reason,
    finished,
    folder_name,
    outcome,
    run_trials,
)
from rooftrace.train.tune_space import Tuning

Open = Callable[..., AbstractContextManager[Study]]

Script = Callable[[TrainConfig], list[float] | BaseException]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    """Trainings that leave a checkpoint, and whose figures, or whose end, are made up."""

    def use(script: Script) -> None:
        def fake(config: TrainConfig, run: Path, *, on_epoch: Any, **_: Any) -> None:
            (run / "checkpoints").mkdir(parents=True)
            (run / "checkpoints" / "last.ckpt").touch()
            output = script(config)
            if isinstance(output, BaseException):
                raise output
            for epoch, value in enumerate(output, 1):
                on_epoch(epoch, {"epoch": epoch, "val_iou": value, "val_loss": 1 - value})

        monkeypatch.setattr(tune_module, "fit", fake)

    return use


def make_plan(tuning: Tuning, out: Path, trials: int, *, keep: bool = False) -> TuningJob:
    return TuningJob(tuning, out, trials, math.inf, keep, print)


def run_one(study: Study, tuning: Tuning, out: Path) -> TrialOutcome:
    """Run one more trial, and return how it ended."""
    plan = make_plan(tuning, out, len(finished(study)) + 1, keep=True)
    run_trials(plan, study, lambda: None)
    return outcome(study.trials[-1])


def test_the_value_is_that_of_the_best_epoch(
    opened: Open, tuning: Tuning, tmp_path: Path, scripted: Any
) -> None:
    scripted(lambda config: [0.2, math.nan, 0.7, 0.5])
    with opened() as study:
        assert run_one(study, tuning, tmp_path) == TrialOutcome.complete
        (trial,) = finished(study)
        assert trial.value == 0.7
        assert [trial.intermediate_values[e] for e in (1, 3, 4)] == [0.2, 0.7, 0.5]


def test_a_trial_below_the_median_is_given_up_after_its_warmup(
    opened: Open, tuning: Tuning, tmp_path: Path, scripted: Any
) -> None:
    with opened() as study:
        for figures in (
            [0.5, 0.5, 0.5, 0.9],
            [0.3, 0.3, 0.3, 0.8],
            [0.1, 0.1, 0.1, 0.1],
            # Below the others in its last epoch alone, when there is nothing to spare any more.
            [0.6, 0.6, 0.6, 0.6],
        ):
            scripted(lambda config, figures=figures: figures)
            run_one(study, tuning, tmp_path)
        found = finished(study)
        assert [outcome(t) for t in found] == [
            TrialOutcome.complete, TrialOutcome.complete,
            TrialOutcome.pruned, TrialOutcome.complete,
        ]  # fmt: skip
        assert found[2].last_step == 2
        assert found[2].value == 0.1


@pytest.mark.parametrize(
    ("error", "expected", "is_traced"),
    [
        (DataError("no such folder", remedy="Look."), "no such folder Look.", False),
        (RuntimeError("sizes differ"), "RuntimeError: sizes differ", True),
    ],
)
def test_a_training_that_fails_is_recorded(
    opened: Open, tuning: Tuning, tmp_path: Path, scripted: Any, error: Exception, expected: str,
    is_traced: bool,
) -> None:  # fmt: skip
    scripted(lambda config: error)
    with opened() as study:
        assert run_one(study, tuning, tmp_path) == TrialOutcome.failed
        assert failure_reason(finished(study)[0]) == expected
    trace = tmp_path / "trial_0000" / "error.txt"
    assert trace.is_file() is is_traced
    if is_traced:
        assert "Traceback" in trace.read_text()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_who_stops_the_process_takes_no_trial_away(
    opened: Open, tuning: Tuning, tmp_path: Path, scripted: Any, stop: BaseException
) -> None:
    scripted(lambda config: stop)
    with opened() as study:
        with pytest.raises(type(stop)):
            run_one(study, tuning, tmp_path)
        scripted(lambda config: [0.5])
        assert run_one(study, tuning, tmp_path) == TrialOutcome.complete
        assert outcome(study.trials[0]) == TrialOutcome.lost


def test_a_trial_of_a_killed_command_is_lost_and_another_takes_its_place(
    opened: Open, tuning: Tuning, tmp_path: Path, scripted: Any
) -> None:
    scripted(lambda config: [0.5])
    with opened() as study:
        study.ask()
    with opened() as study:
        run_trials(make_plan(tuning, tmp_path, 2), study, lambda: None)
        ends = [outcome(t) for t in study.trials]
        assert ends == [TrialOutcome.lost, TrialOutcome.complete, TrialOutcome.complete]


def test_so_many_trials_in_all_and_none_after_the_time(
    opened: Open, tuning: Tuning, tmp_path: Path, scripted: Any
) -> None:
    scripted(lambda config: [0.5])
    with opened() as study:
        late = dataclasses.replace(make_plan(tuning, tmp_path, 3), until=0.0)
        run_trials(late, study, lambda: None)
        assert study.trials == []
        for total, expected in ((2, 2), (5, 5), (4, 5)):
            run_trials(make_plan(tuning, tmp_path, total), study, lambda: None)
            assert len(finished(study)) == expected
        assert len({t.params["optimizer.lr"] for t in study.trials}) == 5


def test_only_the_best_keeps_its_checkpoints(
    opened: Open, tuning: Tuning, tmp_path: Path, scripted: Any
) -> None:
    values = iter([0.3, 0.8, 0.5, 0.6])
    scripted(lambda config: [next(values)])
    seen: list[int] = []
    with opened() as study:
        plan = make_plan(tuning, tmp_path, 2)
        run_trials(plan, study, lambda: seen.append(len(finished(study))))
        assert seen == [1, 2]
        run_trials(make_plan(tuning, tmp_path, 4, keep=True), study, lambda: None)
        kept = [(tmp_path / folder_name(n) / "checkpoints").is_dir() for n in range(4)]
        assert kept == [False, True, True, True]
        delete_checkpoints(study, tmp_path)
    kept = [(tmp_path / folder_name(n) / "checkpoints").is_dir() for n in range(4)]
    assert kept == [False, True, False, False]
