"""A study gets exactly the wanted number of trials, from any processes and after any loss."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from optuna.study import Study
from optuna.trial import Trial, TrialState

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.train.tune import study as study_module
from rooftrace.train.tune.space import Tuning, read_tuning
from rooftrace.train.tune.study import (
    TrialAllocator,
    TrialOutcome,
    active_and_finished,
    best_of,
    failure_reason,
    finished,
    heartbeat,
    hide_password,
    mark_failed,
    mark_lost,
    open_storage,
    outcome,
    this_process,
    translate_storage_errors,
    trials_running_in,
)

Open = Callable[..., AbstractContextManager[Study]]


def run(study: Study, tuning: Tuning, total: int, **options: Any) -> list[Trial]:
    """Give each trial a value that its parameters decide."""
    claims = TrialAllocator(study, tuning.settings, total, **options)
    done = []
    while (trial := claims.next()) is not None:
        drawn = tuning.space.sample(trial)
        study.tell(trial, float(str(drawn["optimizer.lr"])))
        done.append(trial)
    return done


def test_so_many_trials_in_all_and_the_best_of_them(opened: Open, tuning: Tuning) -> None:
    with opened() as study:
        assert len(run(study, tuning, 3)) == 3
    with opened() as study:
        assert [t.number for t in run(study, tuning, 5)] == [3, 4]
        assert run(study, tuning, 5) == []
        best = best_of(study, finished(study))
        assert best is not None
        assert best.value == max(t.params["optimizer.lr"] for t in finished(study))


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_several_that_share_a_study_do_each_trial_once(
    opened: Open, tuning: Tuning, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "_POLL_S", 0.01)
    storage = f"sqlite:///{tmp_path / 'shared.db'}" if kind == "sqlite" else f"{tmp_path}/j.log"
    done: list[list[Trial]] = []
    together = threading.Barrier(3)

    def work() -> None:
        with opened(storage) as study:
            together.wait()
            done.append(run(study, tuning, 12))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 3
    assert len({trial.number for part in done for trial in part}) == sum(map(len, done)) == 12
    with opened(storage) as study:
        assert len(finished(study)) == len(active_and_finished(study)) == 12
        values = [t.params["optimizer.lr"] for t in finished(study)]
        assert len(set(values)) == 12  # no two drew the same


def test_who_asked_for_one_too_many_gives_it_back(
    opened: Open, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process asks between the count and the own question."""
    monkeypatch.setattr(study_module, "_POLL_S", 0.01)
    with opened() as study:
        run(study, tuning, 1)
        ask, others = study.ask, []

        def ask_second() -> Trial:
            if not others:
                others.append(ask())
            return ask()

        monkeypatch.setattr(study, "ask", ask_second)
        begins = iter([True, False])
        claims = TrialAllocator(study, tuning.settings, 2, may_begin=lambda: next(begins))
        assert claims.next() is None
        assert [outcome(t) for t in study.trials] == [
            TrialOutcome.complete, TrialOutcome.running, TrialOutcome.lost,
        ]  # fmt: skip
        assert [t.number for t in active_and_finished(study)] == [0, 1]


def test_a_trial_without_a_sign_of_life_is_done_again(
    opened: Open, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "_POLL_S", 0.01)
    with opened() as study:
        lost = study.ask()  # by a process that is killed at once
        alive = study.ask()
        over = threading.Event()
        said: list[int] = []

        def may_begin() -> bool:
            # The other process ends its trial when the lost one is given up.
            states = [t.state for t in study.get_trials(deepcopy=False)]
            if states[lost.number] == TrialState.FAIL and not over.is_set():
                over.set()
                study.tell(alive, 0.5)
            said.append(len(states))
            return True

        with heartbeat(alive, every_s=0.02):
            done = run(study, tuning, 3, silence_s=0.3, may_begin=may_begin)
        assert over.is_set()
        assert len(said) > 5  # it waited for the two before it gave one up
        found = study.get_trials(deepcopy=False)
        assert [outcome(t) for t in found[:2]] == [TrialOutcome.lost, TrialOutcome.complete]
        assert [t.number for t in done] == [2, 3]
        assert len(finished(study)) == 3


def test_no_trial_begins_when_the_time_is_over(opened: Open, tuning: Tuning) -> None:
    with opened() as study:
        assert run(study, tuning, 3, may_begin=lambda: False) == []
        assert study.trials == []


@pytest.mark.campaign
def test_what_is_drawn_depends_on_the_seed_and_the_trials_before(
    tmp_path: Path, tuning: Tuning, opened: Open
) -> None:
    def draws(name: str, interrupted_after: int) -> list[dict[str, Any]]:
        storage = f"sqlite:///{tmp_path / name}.db"
        for total in (interrupted_after, 6):
            with opened(storage) as study:
                run(study, tuning, total)
        with opened(storage) as study:
            return [t.params for t in finished(study)]

    once = draws("once", 6)
    assert draws("again", 2) == once
    assert len({str(params) for params in once}) == 6


def test_a_failed_trial_counts_and_a_lost_one_does_not(opened: Open, tuning: Tuning) -> None:
    with opened() as study:
        claims = TrialAllocator(study, tuning.settings, 2)
        first, second = claims.next(), claims.next()
        assert first is not None
        assert second is not None
        assert {t.number for t in trials_running_in(study, this_process())} == {0, 1}
        mark_failed(study, first, "too large")
        mark_lost(study, [second])
        mark_lost(study, [first, second])  # nothing is said twice
        assert failure_reason(study.trials[0]) == "too large"
        assert Counter(map(outcome, study.trials)) == {TrialOutcome.failed: 1, TrialOutcome.lost: 1}
        assert [t.number for t in finished(study)] == [0]
        assert trials_running_in(study, this_process()) == []
        assert best_of(study, finished(study)) is None


def test_a_study_is_one_of_one_configuration(tmp_path: Path, opened: Open, tuning: Tuning) -> None:
    with opened():
        pass
    changed = read_tuning(tmp_path / "space.toml", ["batch_size=3", "optimizer.lr.high=0.5"])
    with pytest.raises(ConfigError) as raised, opened(tuning=changed):
        pass
    assert "batch_size was None, is 3" in raised.value.message
    assert "optimizer.lr.high was 0.1, is 0.5" in raised.value.message
    assert "--study" in raised.value.remedy
    free = read_tuning(tmp_path / "space.toml", ["workers=2", "tune.timeout_minutes=9"])
    with opened(tuning=free):
        pass


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("nothing://user:geheim@here/it", "is not an address|needs a driver|cannot be opened"),
        ("postgresql://user:geheim@127.0.0.1:1/it", "needs a driver|cannot be opened"),
        ("://", "is not an address"),
    ],
)
def test_an_invalid_storage_is_reported_without_its_password(
    storage: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooftrace.train.tune.study._ATTEMPTS", 1)
    with pytest.raises(ConfigError, match=expected) as raised, open_storage(storage):
        pass
    assert "geheim" not in str(raised.value)


def test_a_file_that_is_not_a_database_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooftrace.train.tune.study._ATTEMPTS", 1)
    (tmp_path / "study.db").write_bytes(b"not a database" * 99)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(ConfigError, match="cannot be opened"), open_storage(storage):
        pass


def test_a_storage_that_fails_later_is_an_error(tmp_path: Path) -> None:
    from optuna.exceptions import StorageInternalError

    output = translate_storage_errors("mysql://user:geheim@host/it")
    with pytest.raises(DataError, match=r"user:\*\*\*@host.*gone"), output:
        raise StorageInternalError("gone")


def test_what_people_read_of_an_address() -> None:
    assert hide_password("postgresql://a:b@h/n") == "postgresql://a:***@h/n"
    assert hide_password("sqlite:///a.db") == "sqlite:///a.db"
    assert hide_password("journal.log") == "journal.log"
