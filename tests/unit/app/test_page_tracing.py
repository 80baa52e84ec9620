"""The way from files to results: order, errors, a full queue."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from page_images import kept_of, predictor_of

from rooftrace.app.page import results as tracing
from rooftrace.app.page.results import Result, ResultStore, chosen_options, predict_files
from rooftrace.core.errors import BusyError, ConfigError, DataError, PredictError
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.decode import Limits


@dataclass
class Request:
    answer: Future[Any]


@dataclass
class FakeService:
    """Answers by the content of the file: `broken`, `bug`, or how often it is refused before."""

    limits: Limits = field(default_factory=lambda: Limits(running=2))
    refused: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def bundle(self) -> ModelBundle:
        return predictor_of().bundle

    def submit_keeping(self, data: bytes, name: str, options: SceneOptions) -> Request:
        if self.refused:
            self.refused -= 1
            raise BusyError("Busy.", retry_after_s=0.01)
        self.asked.append(name)
        future: Future[Any] = Future()
        if data == b"broken":
            future.set_exception(DataError(f"{name} is broken."))
        elif data == b"bug":
            future.set_exception(ZeroDivisionError("a secret"))
        else:
            future.set_result(kept_of(name))
        return Request(future)


def files(folder: Path, *contents: str) -> list[Path]:
    paths = [folder / f"{number}.tif" for number in range(len(contents))]
    for path, text in zip(paths, contents):
        path.write_text(text)
    return paths


def run(service: Any, paths: list[Path]) -> tuple[list[Result], list[Result]]:
    store = ResultStore()
    name = store.begin()
    made = [*predict_files(service, store, name, paths, SceneOptions())]
    return made, [*store.run(name)]


def test_results_come_in_order_and_one_error_stops_none(tmp_path: Path) -> None:
    paths = files(tmp_path, "a", "broken", "c", "bug", "e")
    made, stored = run(FakeService(), [*paths, tmp_path / "gone.tif"])
    assert made == stored
    assert [result.name for result in made] == ["0.tif", "1.tif", "2.tif", "3.tif", "4.tif",
                                                "gone.tif"]  # fmt: skip
    assert [type(result.error) for result in made] == [
        type(None), DataError, type(None), PredictError, type(None), DataError
    ]  # fmt: skip
    assert "secret" not in str(made[3].error)
    assert "Drop it once more" in str(made[5].error)


def test_a_full_queue_is_reported_at_once(tmp_path: Path) -> None:
    service = FakeService(refused=1)
    (made, *_), _ = run(service, files(tmp_path, "a"))
    assert isinstance(made.error, BusyError)
    assert service.asked == []


def test_in_the_middle_of_a_run_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    class Later(FakeService):
        def submit_keeping(self, data: bytes, name: str, options: SceneOptions) -> Request:
            if name == "2.tif" and not self.refused and "2.tif" not in self.asked:
                self.refused, self.asked = 2, [*self.asked, "2.tif"]
            return super().submit_keeping(data, name, options)

    made, _ = run(Later(), files(tmp_path, "a", "b", "c", "d"))
    assert [result.error for result in made] == [None] * 4


def test_no_more_than_may_run_are_asked_for_at_once(tmp_path: Path) -> None:
    service = FakeService()
    store = ResultStore()
    results = predict_files(
        service,
        store,
        store.begin(),
        files(tmp_path, *"abcdef"),
        SceneOptions(),  # type: ignore[arg-type]
    )
    next(results)
    assert service.asked == ["0.tif", "1.tif"]
    next(results)
    assert service.asked == ["0.tif", "1.tif", "2.tif"]


@pytest.mark.parametrize(
    ("text", "metres"), [("", None), ("  ", None), ("0.3", 0.3), ("0,5", 0.5), (" 1 m", 1.0)]
)
def test_metres_per_pixel(text: str, metres: float | None) -> None:
    assert chosen_options(FakeService(), text, None).gsd_m == metres  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fine", "1e999"])
def test_what_are_no_metres(text: str) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        chosen_options(FakeService(), text, None)  # type: ignore[arg-type]


def test_a_slider_that_was_not_moved_is_the_models_own() -> None:
    service: Any = FakeService()
    assert chosen_options(service, "", 0.5).threshold is None
    assert chosen_options(service, "", 0.5).bands is None
    assert chosen_options(service, "", 0.5, " 3,2,1 ").bands == "3,2,1"
    assert chosen_options(service, "", 0.505).threshold == 0.505


def test_values_are_stretched_as_the_field_says() -> None:
    service: Any = FakeService()
    assert chosen_options(service, "", None).stretch is None
    assert chosen_options(service, "", None, "", " 200, 2500 ").stretch == "200, 2500"
    assert chosen_options(service, "", None, "", "none").stretch == "none"
    with pytest.raises(ConfigError, match="received 'bright'"):
        chosen_options(service, "", None, "", "bright")


def test_a_run_has_a_limit() -> None:
    assert tracing.MOST_IMAGES > 1
