"""Results of the page: from files to results, how long they are held, and their routes."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from fastapi import FastAPI
from page_images import UTM, classes_of, kept_of, predictor_of, result_of
from PIL import Image
from starlette.testclient import TestClient

from rooftrace.app.page.results import (
    DOWNLOADS,
    Result,
    add_result,
    chosen_options,
    download,
    new_results,
    page_router,
    predict_file,
)
from rooftrace.core.errors import BusyError, ConfigError, DataError, PredictError
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.plan import SceneOptions


def test_a_result_is_decided_anew() -> None:
    result = result_of()
    assert [result.at(at).summary.buildings for at in (None, 0.8)] == [2, 1]
    assert result.at().summary.threshold == 0.8
    assert result.at(0.8) is result.at()


def test_what_was_not_asked_for_expires_first() -> None:
    size = result_of().nbytes
    assert size > 80 * 100 * 5
    results = new_results(2 * size + 10)
    keys = [add_result(results, result_of(name)) for name in "abc"]
    assert [results.get(key) is None for key in keys] == [True, False, False]
    assert len(keys[0]) >= 20


@dataclass
class Request:
    answer: Future[Any]


@dataclass
class FakeService:
    """Answers by the content of the file: `full`, `broken` or `bug`."""

    @property
    def bundle(self) -> ModelBundle:
        return predictor_of().bundle

    def submit(self, data: bytes, name: str, options: SceneOptions, work: object) -> Request:
        if data == b"full":
            raise BusyError("Busy.", retry_after_s=0.01)
        future: Future[Any] = Future()
        if data == b"broken":
            future.set_exception(DataError(f"{name} is broken."))
        elif data == b"bug":
            future.set_exception(ZeroDivisionError("a secret"))
        else:
            future.set_result(kept_of(name))
        return Request(future)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("full", BusyError, "Busy"),
        ("broken", DataError, "is broken"),
        ("bug", PredictError, "an error inside rooftrace"),
        (None, DataError, "has expired. Drop it again"),
    ],
)
def test_errors_of_a_file_are_sentences(
    tmp_path: Path, content: str | None, kind: type[Exception], message: str
) -> None:
    service: Any = FakeService()
    path = tmp_path / "a.tif"
    if content is not None:
        path.write_text(content)
    with pytest.raises(kind, match=message) as caught:
        predict_file(service, path, SceneOptions())
    assert "secret" not in str(caught.value)


def test_fields_become_options() -> None:
    service: Any = FakeService()
    options = chosen_options(service, " 0,5 m", 0.5, " 3,2,1 ", " 200, 2500 ")
    assert (options.gsd_m, options.threshold) == (0.5, None)
    assert (options.bands, options.stretch) == ("3,2,1", "200, 2500")
    options = chosen_options(service, "  ", 0.505)
    assert (options.gsd_m, options.threshold) == (None, 0.505)
    assert (options.bands, options.stretch) == (None, None)
    for text in ("0", "-1", "nan", "fine", "1e999"):
        with pytest.raises(ConfigError, match="above 0"):
            chosen_options(service, text, None)
    with pytest.raises(ConfigError, match="received 'bright'"):
        chosen_options(service, "", None, "", "bright")


def test_every_download_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    prediction = kept_of().prediction
    made = {}
    for kind in DOWNLOADS:
        name, data = download(prediction, kind)
        made[kind] = tmp_path / name
        made[kind].write_bytes(data)
    assert [path.name for path in made.values()] == [
        "town_mask.tif", "town_buildings.geojson", "town_buildings.gpkg", "town_overlay.png"
    ]  # fmt: skip
    assert not [*temporary.iterdir()]
    with rasterio.open(made["mask"]) as mask:
        np.testing.assert_array_equal(mask.read(1), prediction.mask.data)
    frame = gpd.read_file(made["gpkg"])
    assert (len(frame), frame.crs) == (2, UTM)
    assert frame.area.sum() == pytest.approx((20 * 30 + 20 * 20) * 0.25)
    assert len(gpd.read_file(made["geojson"])) == 2


def test_an_image_without_a_georeference_gives_a_png_mask() -> None:
    prediction = kept_of("town.png", placed=False).prediction
    name, data = download(prediction, "mask")
    assert name == "town_mask.png"
    with Image.open(io.BytesIO(data)) as mask:
        np.testing.assert_array_equal(np.asarray(mask), prediction.mask.data)


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A client whose `keys` are those of a good, a failed and a class result."""
    store = new_results()
    results = [
        result_of("Zürich (x).tif"),
        Result("lake.png", classes_of()),
    ]
    app = FastAPI()
    app.include_router(page_router(store))
    app.state.keys = [add_result(store, result) for result in results]
    with TestClient(app) as client:
        yield client


def get(client: TestClient, path: str) -> Any:
    number, _, rest = path.partition("/")
    keys = client.app.state.keys  # type: ignore[attr-defined]
    return client.get(f"/page/{keys[int(number)] if number.isdecimal() else number}/{rest}")


@pytest.mark.parametrize(
    ("path", "kind", "begin"),
    [
        ("0/picture.jpg", "image/jpeg", b"\xff\xd8"),
        ("0/fill.png", "image/png", b"\x89PNG"),
        ("0/outlines.bin?threshold=0.8", "application/octet-stream", b"\x01\0\0\0"),
        ("0/gpkg", "application/octet-stream", b"SQLite format 3"),
        ("1/outlines.bin", "application/octet-stream", b"\x01\0\0\0"),
    ],
)
def test_routes(client: TestClient, path: str, kind: str, begin: bytes) -> None:
    answer = get(client, path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(begin)


def test_a_download_is_of_the_threshold_that_it_names(client: TestClient) -> None:
    counts = [len(get(client, f"0/geojson?threshold={at}").json()["features"]) for at in (0.5, 0.8)]
    assert counts == [2, 1]


def test_a_name_cannot_leave_its_header(client: TestClient) -> None:
    assert get(client, "0/mask").headers["content-disposition"] == (
        'attachment; filename="Z_rich (x)_mask.tif"; '
        "filename*=UTF-8''Z%C3%BCrich%20%28x%29_mask.tif"
    )


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("unknown/mask", 404, "expired"),
        ("0/passwd", 404, "does not exist"),
        ("0/..%2f..%2fetc%2fpasswd", 404, ""),
        ("0/mask?threshold=nan", 409, "from 0 to 1"),
        ("1/mask?threshold=0.5", 409, "3 classes"),
    ],
)
def test_invalid_requests_are_reported(
    client: TestClient, path: str, code: int, words: str
) -> None:
    answer = get(client, path)
    assert (answer.status_code, words in answer.json()["detail"]) == (code, True)
