"""A scene on a web server is the scene on disk, of which only what is needed is fetched."""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from pyproj import CRS

from local_server import LocalServer, QuietHandler, running
from raster_files import write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.core.types import SparseSource, Window
from rooftrace.io import remote as remote_files
from rooftrace.io.area import Area, AreaSource, select_overview
from rooftrace.io.raster import open_raster
from rooftrace.io.remote import Retry, _classified
from rooftrace.io.remote_raster import RemoteRaster

SIDE = 1200
UTM = CRS.from_epsg(32633)


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1200², 0.1 m, with overviews, a mask, and blocks that do not compress."""
    path = tmp_path_factory.mktemp("cog") / "scene.tif"
    pixels = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8)
    valid = np.ones((SIDE, SIDE), bool)
    valid[:300, 500:] = False
    plain = path.with_name("plain.tif")
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            plain, "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint8",
            crs="EPSG:32633", transform=Affine(0.1, 0, 5e5, 0, -0.1, 5e6), tiled=True,
        ) as out,
    ):  # fmt: skip
        out.write(pixels)
        out.write_mask(valid)
    rasterio.shutil.copy(plain, path, driver="COG", compress="deflate", blocksize=256)
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "_RETRY", Retry(attempts=3, delay_s=0.01))


@pytest.fixture
def server(cog: Path) -> Iterator[RangeServer]:
    with running(RangeServer(cog.read_bytes())) as server:
        yield server


def remote(server: RangeServer) -> RemoteRaster:
    return RemoteRaster(server.url)


def windows() -> list[Window]:
    return [Window(row, col, 500, 500) for row in (0, 350, 700) for col in (0, 350, 700)]


def test_windows_are_those_of_the_file(server: RangeServer, cog: Path) -> None:
    here, there = open_raster(cog), remote(server)
    assert isinstance(there, SparseSource)
    assert (there.grid, there.bands, there.dtype) == (here.grid, here.bands, here.dtype)
    assert "secret" not in there.name
    for window in windows():
        one, other = here.read(window), there.read(window)
        np.testing.assert_array_equal(other.data, one.data)
        np.testing.assert_array_equal(other.valid, one.valid)
    there.close()
    np.testing.assert_array_equal(there.read(windows()[4]).data, here.read(windows()[4]).data)


def test_jpeg_2000_is_read_from_a_server(tmp_path: Path) -> None:
    path = tmp_path / "scene.jp2"
    pixels = np.random.default_rng(0).integers(1, 255, (3, 300, 400), dtype=np.uint8)
    write_geotiff(
        path, pixels, driver="JP2OpenJPEG", crs="EPSG:32633",
        transform=Affine(0.1, 0, 5e5, 0, -0.1, 5e6), QUALITY=100, REVERSIBLE=True,
    )  # fmt: skip
    with running(RangeServer(path.read_bytes())) as server:
        there = remote(server)
        assert there.grid == open_raster(path).grid
        window = Window(40, 70, 200, 128)
        np.testing.assert_array_equal(there.read(window).data, pixels[:, *window.slices()])


def test_another_format_on_a_server_is_named() -> None:
    with (
        running(RangeServer(b"\x89PNG\r\n\x1a\n" + bytes(1000))) as server,
        pytest.raises(DataError, match=r"not a GeoTIFF or JPEG 2000.*Download it"),
    ):
        _ = remote(server).grid


def test_only_what_a_window_needs_is_fetched_and_all_is_counted(server: RangeServer) -> None:
    there = remote(server)
    there.read(Window(600, 600, 200, 200))
    assert there.ranges.nbytes == server.sent_bytes < len(server.content) / 4
    assert there.ranges.requests == len(server.asked) <= 4
    for window in windows():
        there.read(window)
    assert there.ranges.nbytes == server.sent_bytes < 1.3 * len(server.content)
    assert any(f"{len(server.asked)} requests" in note for note in there.notes)


def test_it_is_read_in_another_thread_than_opened_and_after_pickling(
    server: RangeServer, cog: Path
) -> None:
    there = remote(server)
    expected = open_raster(cog).read(Window(0, 0, 400, 400)).data
    assert there.grid.shape == (SIDE, SIDE)
    with ThreadPoolExecutor(1) as pool:
        np.testing.assert_array_equal(
            pool.submit(there.read, Window(0, 0, 400, 400)).result().data, expected
        )
        pool.submit(there.close).result()
    again = pickle.loads(pickle.dumps(there))
    np.testing.assert_array_equal(again.read(Window(0, 0, 400, 400)).data, expected)


@pytest.mark.parametrize("failing", [[503], [500, 429], [0], [-1], [0, 503]])
def test_what_passes_is_asked_again(server: RangeServer, cog: Path, failing: list[int]) -> None:
    there = remote(server)
    assert there.bands == 3
    server.failing = list(failing)
    window = Window(600, 600, 500, 500)
    np.testing.assert_array_equal(there.read(window).data, open_raster(cog).read(window).data)
    assert there.ranges.repeated >= len(failing)
    assert "repeated" in there.notes[-1]


@pytest.mark.parametrize(
    ("status", "text"), [(404, "404 Not Found"), (403, "403 Forbidden"), (503, "503 .*3 attempts")]
)
def test_a_failure_names_address_and_status(server: RangeServer, status: int, text: str) -> None:
    server.status = status
    with pytest.raises(DataError, match=rf"/folder/scene%20one\.tif .*{text}") as caught:
        _ = remote(server).grid
    assert "secret" not in str(caught.value)
    assert len(server.asked) == (3 if status == 503 else 1)


def test_a_failure_in_mid_run_names_the_window_and_passes(server: RangeServer, cog: Path) -> None:
    there = remote(server)
    assert there.bands == 3
    server.status = 502
    with pytest.raises(DataError, match=r"rows 700:1200, columns 0:500.*502"):
        there.read(Window(700, 0, 500, 500))
    server.status = None
    window = Window(700, 0, 500, 500)
    np.testing.assert_array_equal(there.read(window).data, open_raster(cog).read(window).data)


def test_a_server_without_ranges_is_named(server: RangeServer) -> None:
    server.knows_ranges = False
    with pytest.raises(DataError, match="parts of files") as caught:
        _ = remote(server).grid
    assert "Download" in caught.value.remedy


def test_a_file_that_changes_meanwhile_is_not_mixed(server: RangeServer) -> None:
    there = remote(server)
    assert there.bands == 3
    server.content += b"more"
    with pytest.raises(DataError, match="changed on the server"):
        there.read(Window(0, 0, 1200, 1200))


def test_an_overview_is_read_where_it_is_fine_enough(server: RangeServer, cog: Path) -> None:
    there = remote(server)
    assert there.overview_for(0.15) is there
    half = there.overview_for(0.39)
    assert half.grid.shape == (SIDE // 2, SIDE // 2)
    assert half.grid.gsd_m == pytest.approx(0.2, rel=1e-2)
    assert half.overview_for(9.0) is half
    with rasterio.open(cog, overview_level=0) as expected:
        np.testing.assert_array_equal(half.read().data, expected.read())
        np.testing.assert_array_equal(half.read().valid, expected.dataset_mask() > 0)
    assert there.ranges is half.ranges
    assert there.ranges.nbytes < len(server.content) / 2


def test_a_scene_much_finer_than_the_model_is_read_at_an_overview(
    server: RangeServer, cog: Path
) -> None:
    there = remote(server)
    source, note = select_overview(there, 0.3)
    assert source.grid.shape == (SIDE // 2, SIDE // 2)
    assert note is not None
    assert "0.1 m per pixel" in note
    assert "600 × 600 pixels with 0.2 m" in note
    area = Area(np.array([shapely.box(500_000, 4_999_950, 500_060, 5_000_000)]), UTM, "area")
    limited, _ = select_overview(AreaSource(there, area), 0.3)
    assert isinstance(limited, AreaSource)
    valid = limited.read().valid
    np.testing.assert_array_equal(valid[:250, :300], source.read().valid[:250, :300])
    assert not valid[250:].any()
    for model_gsd_m in (0.15, None):
        assert select_overview(there, model_gsd_m) == (there, None)
    here = open_raster(cog)
    assert select_overview(here, 0.3) == (here, None)


@pytest.mark.parametrize(
    ("key", "answer", "reason", "transient"),
    [
        ("404/x.tif", "HTTP error: error sending request", "the server does not answer", True),
        ("404.tif", "non-2xx status code: 503 Slow Down", "the server answered 503", True),
        ("a.tif", "non-2xx status code: 425 Too Early", "the server answered 425", True),
        ("503.tif", "non-2xx status code: 400 Bad Request", "the server answered 400", False),
        ("redirect/credential.tif", "status code: 500 Error", "the server answered 500", True),
        ("a.tif", "non-2xx status code: 416 Range", "the object is empty", False),
        ("a.tif", "PUT http://169.254.169.254/latest/api/token in 5s", "no credentials were found",
         False),
    ],
)  # fmt: skip
def test_an_object_may_have_any_name(key: str, answer: str, reason: str, transient: bool) -> None:
    """The messages are those of the client of S3, which contain the URL of the object."""
    address = f"http://127.0.0.1:9/bucket/{key}"
    error = _classified(
        f"Generic S3 error: Error performing GET {address} in 2.7ms - {answer}\n\nDebug source:\n"
        f"Generic {{ method: GET, uri: Some({address}), retries: 0, elapsed: 500.1ms }}"
    )
    assert (error.reason, error.transient) == (reason, transient)


class RangeServer(LocalServer):
    """Serves `content` under any path, in ranges."""

    def __init__(self, content: bytes) -> None:
        super().__init__(_Handler)
        self.content = content
        self.failing: list[int] = []
        """Statuses of the next answers; 0 breaks off in the middle, -1 sends nothing in time."""
        self.status: int | None = None
        """Status of all answers; None for correct answers."""
        self.knows_ranges = True
        self.asked: list[tuple[int, int]] = []
        self.sent_bytes = 0

    @property
    def url(self) -> str:
        return f"{super().url}/folder/scene%20one.tif?key=secret"


class _Handler(QuietHandler):
    server: RangeServer

    def do_GET(self) -> None:
        served = self.server
        status = served.status or (served.failing.pop(0) if served.failing else 206)
        start, stop = self._range()
        served.asked.append((start, stop))
        if status == -1:
            time.sleep(0.6)
            status = 503
        if status not in (0, 206):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = served.content[start:stop]
        if served.knows_ranges:
            self.send_response(206)
            size = len(served.content)
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{size}")
        else:
            body = served.content
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status == 0:
            body = body[: len(body) // 2]
            self.close_connection = True
        served.sent_bytes += len(body)
        self.wfile.write(body)

    def _range(self) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found is not None
        return int(found[1]), min(int(found[2]) + 1, len(self.server.content))
