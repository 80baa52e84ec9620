"""Results that the page holds in memory, and which of them it removes first."""

from __future__ import annotations

from threading import Thread

import pytest
from page_images import kept_of, result_of

from rooftrace.app.page.results import Result, ResultStore
from rooftrace.core.errors import DataError


def test_a_result_is_decided_anew() -> None:
    result = result_of()
    assert result.at().summary.buildings == 2
    assert result.at(0.8).summary.buildings == 1
    assert result.at().summary.threshold == 0.8
    assert result.summary == result.at().summary
    assert result.at(0.8) is result.at()


def test_an_error_is_reported_again() -> None:
    result = Result("broken.tif", error=DataError("It is broken."))
    with pytest.raises(DataError, match="broken"):
        result.at()
    assert (result.summary, result.nbytes) == (None, 0)


def test_a_run_is_found_by_its_name_alone() -> None:
    store = ResultStore()
    first, second = store.begin(), store.begin()
    result = result_of()
    store.add(first, result)
    assert store.get(first, 0) is result
    assert [store.get(*which) for which in ((first, 1), (first, -1), (second, 0), ("", 0))] == [
        None
    ] * 4
    assert len(first) >= 20


def test_what_was_not_asked_for_goes_first() -> None:
    one = result_of().nbytes
    assert one > 80 * 100 * 5
    store = ResultStore(most_bytes=2 * one + 10)
    run = store.begin()
    for name in "abc":
        store.add(run, result_of(name))
        store.get(run, 0)
    assert store.nbytes == 2 * one
    kept = [result.nbytes > 0 for result in store.run(run)]
    assert kept == [True, False, True]
    gone = store.run(run)[1]
    assert gone.summary is not None
    with pytest.raises(DataError, match="let go") as reported:
        gone.at(0.4)
    assert reported.value.remedy


def test_one_that_is_too_large_by_itself_is_not_held() -> None:
    store = ResultStore(most_bytes=10)
    run = store.begin()
    store.add(run, result_of())
    assert store.nbytes == 0
    assert store.run(run)[0].summary is not None


def test_a_run_that_is_forgotten_leaves_nothing() -> None:
    store = ResultStore()
    run = store.begin()
    store.add(run, result_of())
    store.forget(run)
    assert (store.nbytes, [*store.run(run)]) == (0, [])
    late = result_of("late.tif")
    store.add(run, late)
    store.forget("never known")
    assert (store.nbytes, [*store.run(run)]) == (0, [])


def test_runs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rooftrace.app.page.results._MOST_RUNS", 3)
    store = ResultStore()
    runs = [store.begin() for _ in range(2)]
    store.add(runs[0], result_of())
    runs += [store.begin() for _ in range(2)]
    assert [bool(store.run(run)) for run in runs] == [False] * 4
    assert store.nbytes == 0


def test_many_who_ask_at_once_get_what_they_asked_for() -> None:
    result = Result("town.tif", kept=kept_of())
    wrong: list[float | None] = []

    def ask(threshold: float) -> None:
        found = [result.at(threshold).summary.threshold for _ in range(5)]
        wrong.extend(at for at in found if at != threshold)

    threads = [Thread(target=ask, args=(at,)) for at in (0.2, 0.4, 0.6, 0.8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
