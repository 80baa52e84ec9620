"""Scenes in object storage, on a real S3 server on this machine."""

import io
import json
import logging
import pickle
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from command_line import command
from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.io import remote as objects
from rooftrace.io.raster import open_image
from rooftrace.io.remote import Retry, read_object
from rooftrace.io.remote_raster import RemoteRaster
from tiny_models import write_tiny_bundle

pytestmark = pytest.mark.campaign

boto3 = pytest.importorskip("boto3")
server_module = pytest.importorskip("moto.server")
pytest.importorskip("obstore", reason="the extra s3 is not installed")

SECRET = "canary-of-the-secret-key"
BUCKET = "imagery"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    for name, value in {
        "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "canary-of-the-key", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "eu-central-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "_RETRY", Retry(delay_s=0.01))


@pytest.fixture
def bucket(endpoint: str) -> Iterator[Any]:
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="y",
        region_name="eu-central-1",
    )  # fmt: skip
    where = {"LocationConstraint": "eu-central-1"}
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    yield client
    for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=one["Key"])
    client.delete_bucket(Bucket=BUCKET)


def scene(seed: int = 0, side: int = 700) -> bytes:
    rng = np.random.default_rng(seed)
    data = np.kron(
        rng.integers(0, 256, (3, side // 20, side // 20), np.uint8), np.ones((1, 20, 20), np.uint8)
    )
    with rasterio.MemoryFile() as file:
        with file.open(
            driver="GTiff", count=3, height=data.shape[1], width=data.shape[2], dtype="uint8",
            crs="EPSG:32737", transform=Affine(1, 0, 5e5, 0, -1, 9e6), tiled=True,
            blockxsize=128, blockysize=128, compress="deflate",
        ) as out:  # fmt: skip
            out.write(data)
        return file.read()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny.rooftrace")


def test_a_scene_is_read_in_parts(bucket: Any) -> None:
    content = scene()
    bucket.put_object(Bucket=BUCKET, Key="a/s.tif", Body=content)
    source = open_image(f"s3://{BUCKET}/a/s.tif")
    assert isinstance(source, RemoteRaster)
    with rasterio.open(io.BytesIO(content)) as expected:
        np.testing.assert_array_equal(source.read().data, expected.read())
    assert source.ranges.requests >= 1
    assert source.ranges.repeated == 0
    sent = pickle.dumps(source)
    assert SECRET.encode() not in sent
    assert b"canary" not in sent
    np.testing.assert_array_equal(pickle.loads(sent).read().data, source.read().data)


def test_a_folder_of_scenes_and_a_catalogue(bucket: Any, model: Path, tmp_path: Path) -> None:
    for number in range(3):
        bucket.put_object(Bucket=BUCKET, Key=f"many/{number}.tif", Body=scene(number, 200))
    bucket.put_object(Bucket=BUCKET, Key="many/readme.txt", Body=b"words")
    jobs = find_inputs([f"s3://{BUCKET}/many/"]).scenes
    assert [job.name for job in jobs] == ["0", "1", "2"]
    with pytest.raises(DataError, match=r"no object that ends with \.tif"):
        find_inputs([f"s3://{BUCKET}/none/"])
    (tmp_path / "list.txt").write_text("\n".join(f"s3://{BUCKET}/many/{n}.tif" for n in range(3)))
    layer = tmp_path / "layer"
    assert command("catalogue", tmp_path / "list.txt", "-m", model, "-o", layer).code == 0
    assert (layer / "scenes/1_buildings.gpkg").exists()


@pytest.mark.parametrize("form", ["folder", "list", "items"])
def test_catalogues_that_lie_there_too(form: str, bucket: Any, model: Path, tmp_path: Path) -> None:
    for number in range(3):
        bucket.put_object(Bucket=BUCKET, Key=f"c/in/{number}.tif", Body=scene(number, 200))
    written: dict[str, tuple[str, bytes]] = {}
    written["list"] = "scenes.LST", b"in/0.tif\nin/1.tif\ns3://" + f"{BUCKET}/c/in/2.tif".encode()
    items = [
        {"type": "Feature", "id": f"i{number}", "assets": {"visual": {"href": f"in/{number}.tif"}}}
        for number in range(3)
    ]
    collection = {"type": "FeatureCollection", "features": items}
    written["items"] = "items.json", json.dumps(collection).encode()
    if form == "folder":
        bucket.put_object(Bucket=BUCKET, Key="c/readme.md", Body=b"words")
        given = [f"s3://{BUCKET}/c/"]
    else:
        name, content = written[form]
        bucket.put_object(Bucket=BUCKET, Key=f"c/{name}", Body=content)
        given = [f"s3://{BUCKET}/c/{name}"]
    assert command("catalogue", *given, "-m", model, "-o", tmp_path).code == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [one["location"] for one in manifest["scenes"]] == [
        f"s3://{BUCKET}/c/in/{number}.tif" for number in range(3)
    ]
    assert {one["state"] for one in manifest["scenes"]} == {"done"}
    assert manifest["made_with"]["catalogue"]["name"] == given[0]


def test_what_is_not_there(bucket: Any) -> None:
    with pytest.raises(DataError, match="the object or bucket does not exist"):
        _ = open_image(f"s3://{BUCKET}/none.tif").grid
    with pytest.raises(DataError, match="the object or bucket does not exist"):
        read_object("s3://no-such-bucket/a.json")
    for bad in ("s3://", "s3://UPPER/a", "s3://user:secret@host/a", "s3://a_b/c"):
        with pytest.raises(DataError, match="not the URL of an object"):
            read_object(bad)


def test_a_scene_that_changes_while_it_is_read(bucket: Any) -> None:
    bucket.put_object(Bucket=BUCKET, Key="c.tif", Body=scene(0, 2000))
    source = open_image(f"s3://{BUCKET}/c.tif")
    _ = source.grid
    bucket.put_object(Bucket=BUCKET, Key="c.tif", Body=scene(1, 1500))
    with pytest.raises(DataError, match="changed on the server"):
        source.read()


def test_a_store_that_refuses_at_first_is_asked_again(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore
    from obstore.exceptions import GenericError

    refused: list[int] = []
    get = obstore.get

    def busy(*given: Any, **more: Any) -> Any:
        if len(refused) < 3:
            refused.append(1)
            raise GenericError("Generic S3 error: status 503 SlowDown <Secret>canary</Secret>")
        return get(*given, **more)

    bucket.put_object(Bucket=BUCKET, Key="f", Body=b"1")
    monkeypatch.setattr(obstore, "get", busy)
    assert read_object(f"s3://{BUCKET}/f") == b"1"
    assert len(refused) == 3
    monkeypatch.setattr(objects, "_RETRY", Retry(attempts=2, delay_s=0.01))
    refused.clear()
    with pytest.raises(DataError, match=f"s3://{BUCKET}/f cannot be read: the server answered 503"):
        read_object(f"s3://{BUCKET}/f")


def test_no_secret_is_reported_anywhere(
    bucket: Any, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Everything that can go wrong, and what is left of it: screens, logs, errors, folders."""
    caplog.set_level(logging.DEBUG)
    bucket.put_object(Bucket=BUCKET, Key="s.tif", Body=scene(0, 200))
    seen: list[str] = []

    def note(error: BaseException) -> None:
        seen.append("".join(traceback.format_exception(error)) + repr(error))
        seen.append(json.dumps(error.to_json()) if isinstance(error, RooftraceError) else "")

    monkeypatch.setattr(objects, "_RETRY", Retry(attempts=2, delay_s=0.01))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        unused_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for place in ("none.tif", "s.tif"):
            for server in (None, unused_url):
                if server:
                    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
                try:
                    read_object(f"s3://{BUCKET}/{place}")
                    read_object("s3://no-such-bucket/k")
                except RooftraceError as error:
                    note(error)
    monkeypatch.undo()
    work = tmp_path / "work"
    code, *printed = command("predict", f"s3://{BUCKET}/s.tif", "-m", model,
                             "-o", work)  # fmt: skip
    assert code == 3
    assert f"s3://{BUCKET}/s.tif" in printed[1]
    left = b"".join(path.read_bytes() for path in work.rglob("*") if path.is_file())
    out, err = capfd.readouterr()
    assert len(seen) > 4
    everything = "\n".join([*seen, *printed, out, err, caplog.text, left.decode("latin-1")])
    assert "canary" not in everything
