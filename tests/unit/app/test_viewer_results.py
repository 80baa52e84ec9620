"""Results of the page: from files to results, how long they are held, and their routes."""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image
from starlette.testclient import TestClient
from viewer_images import UTM, classes_of, kept_of, predictor_of, result_of, roofs

from rest_service import app_with
from rooftrace.app.viewer import DOWNLOADS, Result, add_result, download, new_results, viewer_router
from rooftrace.service.decode import Limits
from rooftrace.service.service import Service


def test_a_result_is_decided_anew() -> None:
    result = result_of()
    assert [result.at(at).summary.buildings for at in (None, 0.8)] == [2, 1]
    assert result.at().summary.threshold == 0.8
    assert result.at(0.8) is result.at()


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
    """A client whose `keys` are those of a good and a class result."""
    store = new_results()
    results = [result_of("Zürich (x).tif"), Result("lake.png", classes_of())]
    service = Service(predictor_of(gsd_m=0.5), Limits())
    app = app_with(viewer_router(store, service))
    app.state.keys = [add_result(store, result) for result in results]
    with TestClient(app) as client:
        yield client
    service.close()


def test_an_image_is_shown_at_once(client: TestClient) -> None:
    data = io.BytesIO()
    Image.fromarray(roofs().transpose(1, 2, 0)).save(data, "PNG")
    sent = {"content": data.getvalue(), "headers": {"Content-Type": "application/octet-stream"}}
    view = client.post("/page/results?filename=town.png&gsd=0.5", **sent).json()
    assert (view["kind"], view["threshold"], view["shape"]) == ("score", 0.5, [80, 100])
    assert (view["figures"]["buildings"], view["figures"]["density"]) == (2, "sparse")
    assert view["built_up"] == f"{view['figures']['built_up_share']:.1%}".replace("%", " %")
    for url in (view["picture"], view["fill"], view["outlines"], view["downloads"]["gpkg"][1]):
        assert client.get(f"/{url}").status_code == 200
    again = client.get(f"/page/{view['key']}?threshold=0.8").json()
    assert (again["figures"]["buildings"], again["threshold"]) == (1, 0.8)
    # Mistakes are problems, as those of the API.
    refused = client.post("/page/results?gds=0.5", **sent)
    assert "Did you mean" not in refused.text
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-request")
    broken = client.post("/page/results?filename=a.tif", **{**sent, "content": b"no image"})
    assert "a.tif has none of the supported image formats: it is a text file" in broken.text


def get(client: TestClient, path: str) -> Any:
    number, _, rest = path.partition("/")
    keys = client.app.state.keys  # type: ignore[attr-defined]
    return client.get(f"/page/{keys[int(number)] if number.isdecimal() else number}/{rest}")


@pytest.mark.parametrize(("path", "kind", "begin"), [
    ("0/picture.jpg", "image/jpeg", b"\xff\xd8"),
    ("0/fill.png", "image/png", b"\x89PNG"),
    ("0/outlines.bin?threshold=0.8", "application/octet-stream", b"\x01\0\0\0"),
    ("0/gpkg", "application/octet-stream", b"SQLite format 3"),
    ("1/outlines.bin", "application/octet-stream", b"\x01\0\0\0"),
])  # fmt: skip
def test_routes(client: TestClient, path: str, kind: str, begin: bytes) -> None:
    answer = get(client, path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(begin)


@pytest.mark.parametrize(("path", "code", "words"), [
    ("unknown/mask", 404, "expired"),
    ("0/mask?threshold=nan", 422, "less than or equal to 1"),
    ("1/mask?threshold=0.5", 409, "3 classes"),
])  # fmt: skip
def test_invalid_requests_are_reported(
    client: TestClient, path: str, code: int, words: str
) -> None:
    answer = get(client, path)
    assert (answer.status_code, words in answer.json()["detail"]) == (code, True)
