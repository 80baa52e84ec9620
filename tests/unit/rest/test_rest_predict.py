"""POST /v1/predict returns the outputs of `rooftrace predict` in the requested format."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from affine import Affine
from PIL import Image
from starlette.testclient import TestClient

from raster_files import write_geotiff
from rest_service import Gate, fake_service, geotiff, png, roofs
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.vector_write import write_footprints
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.rest.api import create_api
from rooftrace.service.service import Service

TIFF = {"Content-Type": "image/tiff"}
PNG = {"Content-Type": "image/png"}


def alone(path: Path, **options: object):
    return Predictor(tiny_bundle(), PointwiseEngine()).predict(
        path, options=SceneOptions(**options)
    )


@pytest.mark.campaign
def test_geojson_is_what_predict_writes(client: TestClient, tmp_path: Path) -> None:
    data = geotiff(tmp_path / "town.tif")
    answer = client.post("/v1/predict", files={"file": ("town.tif", data, "image/tiff")})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/geo+json"
    assert answer.headers["content-encoding"] == "gzip"
    headers = TIFF | {"Accept-Encoding": "identity"}
    plain = client.post("/v1/predict?filename=town.tif", content=data, headers=headers)
    assert plain.content == answer.content
    assert "content-encoding" not in plain.headers
    found = answer.json()
    expected = alone(tmp_path / "town.tif")
    write_footprints(tmp_path / "town.geojson", expected.outlines)
    written = json.loads((tmp_path / "town.geojson").read_text())
    assert found["features"] == written["features"]
    assert len(found["features"]) == len(expected.outlines) > 0
    assert (found["name"], found["coordinate_system"]) == ("town", "longitude-latitude")
    # RFC 7946, section 7.1: these are members of other objects.
    assert not {"coordinates", "geometries", "geometry", "properties", "crs"} & set(found)
    # Zone 36 is centred at 33° E. The image lies just south of 100 km north of the equator.
    longitude, latitude = found["features"][0]["geometry"]["coordinates"][0][0]
    assert longitude == pytest.approx(33, abs=0.001)
    assert latitude == pytest.approx(0.904, abs=0.002)
    figures = found["figures"]
    assert figures["buildings"] == len(written["features"])
    assert figures["built_up_share"] == expected.summary.built_up_share
    assert figures["density"] == "dense" if expected.summary.built_up_share >= 0.2 else "sparse"
    assert figures["gsd_m"] == pytest.approx(0.5, rel=0.01)


def test_the_mask_is_the_one_that_predict_writes(client: TestClient, tmp_path: Path) -> None:
    pixels = roofs(3)
    answer = client.post(
        "/v1/predict?filename=a.png", content=png(pixels), headers=PNG | {"Accept": "image/png"}
    )
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == 'inline; filename="a_mask.png"'
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    expected = alone(tmp_path / "a.png")
    paths = expected.save(tmp_path / "out")
    assert answer.content == paths.mask.read_bytes()
    share = float(answer.headers["rooftrace-built-up-share"])
    assert share == pytest.approx(expected.mask.data.mean(), abs=1e-6)
    assert answer.headers["rooftrace-density"] == ("dense" if share >= 0.2 else "sparse")
    assert answer.headers["rooftrace-threshold"] == "0.5"
    assert "rooftrace-buildings" not in answer.headers
    unnamed = client.post("/v1/predict?format=png", content=png(pixels), headers=PNG)
    assert b'"source":null' in unnamed.content


def test_options_reach_the_prediction(client: TestClient, tmp_path: Path) -> None:
    data = geotiff(tmp_path / "town.tif")
    query = "threshold=0.1&min_area=60&outline=simplified&separate=false"
    found = client.post(f"/v1/predict?{query}", content=data, headers=TIFF).json()
    expected = alone(
        tmp_path / "town.tif", threshold=0.1, min_area_m2=60, outline="simplified", separate=False
    )
    assert found["figures"]["threshold"] == 0.1
    assert found["figures"]["buildings"] == len(expected.outlines)
    # The ground of 30/255 exceeds the threshold, so the whole image is one building.
    assert found["figures"]["built_up_share"] == 1
    bare = client.post("/v1/predict?gsd=0.25", content=png(roofs()), headers=PNG).json()
    assert bare["figures"]["gsd_m"] == 0.25
    assert bare["figures"]["classes"][1]["area_m2"] == pytest.approx(
        bare["figures"]["classes"][1]["pixels"] * 0.0625
    )
    # What the file says of itself is a note, too.
    exif, photograph = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8825).update({1: "N", 2: (27.0, 37.0, 12.0), 3: "E", 4: (85.0, 31.0, 1.0)})
    Image.fromarray(roofs()).save(photograph, "JPEG", exif=exif)
    seen = client.post("/v1/predict?gsd=0.25", content=photograph.getvalue(), headers=PNG).json()
    assert "not an orthophoto" in seen["figures"]["notes"][0]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/geo+json"),
        ("application/json", "application/geo+json"),
        ("text/html, image/png;q=0.9, */*;q=0.1", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/png;q=0.5, application/geo+json", "application/geo+json"),
        ("application/geo+json;q=0, image/*", "image/png"),
    ],
)
def test_the_form_is_negotiated(client: TestClient, accept: str, kind: str) -> None:
    answer = client.post(
        "/v1/predict", content=png(roofs(side=40)), headers=PNG | {"Accept": accept}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


@pytest.mark.parametrize(
    ("query", "body", "status", "said"),
    [
        ("threshold=1.5", {}, 422, "The parameter 'threshold' is '1.5'"),
        ("gsd=0", {}, 422, "'gsd'"),
        ("treshold=0.5", {}, 422, "The parameter 'treshold' is not known."),
        ("format=gif", {}, 422, "'format'"),
        ("", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "'text/plain'"),
        ("", {"content": b"x"}, 415, "no Content-Type"),
        ("", {"content": b"", "headers": PNG}, 422, "The upload is empty."),
        ("", {"content": b"x", "headers": PNG}, 422, "image"),
        ("", {"files": {"picture": ("a.png", b"x")}}, 422, "expected. Send the image"),
        ("", {"files": {"file": ("a.png", b"x")}, "data": {"threshold": "1"}}, 422, "'threshold'"),
        ("", {"files": [("file", ("a.jpg", b"x")), ("file", ("a.jgw", b"x"))]}, 422, "-a_srs"),
        ("", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "bound"),
        (
            "", {"content": b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--b--",
                 "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            422, "is a string",
        ),
        ("min_area=4", {"content": png(roofs()), "headers": PNG}, 422, "minimum area of 4"),
    ],
)  # fmt: skip
def test_errors_are_sentences(
    client: TestClient, query: str, body: dict, status: int, said: str
) -> None:
    body = body or {"content": png(roofs()), "headers": PNG}
    answer = client.post(f"/v1/predict?{query}", **body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert said in f"{problem['detail']} {problem['remedy']}"
    assert problem["status"] == status


def test_a_place_without_longitude_and_latitude_is_an_error_of_the_image(
    client: TestClient, tmp_path: Path
) -> None:
    """The British grid does not reach this far."""
    far = Affine(0.5, 0, 1e8, 0, -0.5, 1e8)
    data = geotiff(tmp_path / "far.tif", crs="EPSG:27700", transform=far)
    answer = client.post("/v1/predict?filename=far.tif&gsd=0.5", content=data, headers=TIFF)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/georeference-error")
    assert "Start a job" in answer.json()["remedy"]
    whole = client.post("/v1/predict?format=png&gsd=0.5", content=data, headers=TIFF)
    assert whole.status_code == 200


def test_a_drawing_that_lies_nowhere_is_in_pixels(client: TestClient, tmp_path: Path) -> None:
    data = geotiff(tmp_path / "local.tif", crs='LOCAL_CS["somewhere",UNIT["metre",1]]')
    answer = client.post("/v1/predict", content=data, headers=TIFF)
    assert answer.json()["coordinate_system"] == "pixels"


def test_an_image_without_a_valid_pixel(client: TestClient, tmp_path: Path) -> None:
    write_geotiff(
        tmp_path / "empty.tif", np.zeros((3, 20, 20), np.uint8), crs=None, nodata=0,
        transform=Affine.scale(2),
    )  # fmt: skip
    data = (tmp_path / "empty.tif").read_bytes()
    figures = client.post("/v1/predict", content=data, headers=TIFF).json()["figures"]
    assert figures["valid_pixels"] == 0
    assert figures["density"] is None


@pytest.mark.campaign
def test_a_client_that_goes_away_ends_its_request() -> None:
    """Use ASGI directly, because the test client never disconnects."""
    import asyncio

    gate = Gate()
    service: Service = fake_service(gate, running=1)
    # Starting a decoder takes long on a busy machine.
    service.warm()
    app = create_api(service)
    gate.go.clear()
    gate.begun.clear()
    sent: list[dict] = []
    body = png(roofs())
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": "/v1/predict", "raw_path": b"/v1/predict", "query_string": b"", "root_path": "",
        "scheme": "http", "headers": [(b"content-type", b"image/png"), (b"host", b"x")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def ask() -> None:
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict:
            for message in given:
                return message
            await asyncio.to_thread(gate.begun.wait, 60)
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            sent.append(message)

        await app(scope, receive, send)

    try:
        # The request ends while the network still waits.
        asyncio.run(asyncio.wait_for(ask(), 60))
        assert sent[0]["status"] == 499
        assert service.figures().running == 1
        gate.go.set()
        deadline = time.monotonic() + 60
        while service.figures().running and time.monotonic() < deadline:
            time.sleep(0.01)
        assert service.figures().running == 0
    finally:
        gate.go.set()
        service.close()


def test_the_model_is_described(client: TestClient) -> None:
    card = client.get("/v1/model").json()
    spec = tiny_bundle().spec
    assert (card["name"], card["bands"], card["threshold"]) == (
        spec.name, ["red", "green", "blue"], 0.5,
    )  # fmt: skip
    assert [one["name"] for one in card["classes"]] == ["background", "building"]
    assert card["sha256"] == tiny_bundle().sha256
    assert card["engine"] == "pointwise"
    # Each pixel of several classes takes the most probable one.
    three = spec.model_copy(update={"classes": ("ground", "building", "road")})
    predictor = Predictor(replace(tiny_bundle(), spec=three), PointwiseEngine())
    other = TestClient(create_api(Service(predictor)))
    assert other.get("/v1/model").json()["threshold"] is None
