"""Tiles of a map service by three clients: GDAL's WMS driver, obstore, and the one of rooftrace.

The server is on this machine. In each case it answers in one way that real servers know. obstore is
not a dependency: without it (`pip install obstore`) its rows are missing.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, rounded, say, start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Client = Callable[[str, float | None], NDArray[np.uint8]]

CASES = ("plain", "latency", "half_missing", "page", "forbidden", "too_many", "hangs", "limited")
"""No latency; 50 ms; every second tile 404; a page in place of one tile; 403 for one tile; 429 with
`Retry-After: 1` for the first request of each tile; a tile that never comes; 50 requests per second
as the limit."""

_SIDE = 10
_TILE_PX = 256
_CONNECTIONS = 4
_TIMEOUT_S = 5.0
_PER_SECOND = 50.0
_ODD_ONE = (5, 5)
"""Column and row of the tile that is answered otherwise."""

_PAGE = b"<html><head><title>Please sign in</title></head></html>"


def main() -> dict[str, Any]:
    options = _options()
    rows: dict[str, dict[str, Any]] = {}
    for case in options.cases:
        rows[case] = {name: _row(client, name, case) for name, client in _clients().items()}
    return {"tiles": _SIDE**2, "connections": _CONNECTIONS, "cases": rows}


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    return parser.parse_args()


def _clients() -> dict[str, Client]:
    clients: dict[str, Client] = {"gdal": _gdal, "rooftrace": _rooftrace}
    return clients | ({"obstore": _obstore} if find_spec("obstore") else {})


def _row(client: Client, name: str, case: str) -> dict[str, Any]:
    import numpy as np

    with _serving(case) as (url, asked):
        begun = time.perf_counter()
        try:
            pixels = client(url, _PER_SECOND if case == "limited" else None)
        except Exception as error:  # what a person would see
            outcome = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            found: dict[str, Any] = {"error": outcome}
        else:
            found = {"equal_tiles": int(np.count_nonzero(_equal_tiles(pixels)))}
        seconds = time.perf_counter() - begun
    row = {"seconds": rounded(seconds), "requests": sum(asked.values()), **found}
    say(f"{case} {name}: {row}")
    return row


def _equal_tiles(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (row, column), True for tiles whose pixels are those of the server."""
    import numpy as np

    tiles = pixels.reshape(3, _SIDE, _TILE_PX, _SIDE, _TILE_PX)
    numbers = np.arange(_SIDE)
    red, green = np.meshgrid(20 * numbers, 20 * numbers)
    wanted = np.stack([red, green, np.full_like(red, 60)])[:, :, None, :, None]
    return np.asarray((tiles == wanted).all(axis=(0, 2, 4)))


# The clients read all tiles at a limit of requests per second, if they have one.


def _gdal(url: str, per_second: float | None) -> NDArray[np.uint8]:
    import rasterio

    side = _SIDE * _TILE_PX
    service = f"""<GDAL_WMS><Service name="TMS">
    <ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>{side}</UpperLeftY>
    <LowerRightX>{side}</LowerRightX><LowerRightY>0</LowerRightY><SizeX>{side}</SizeX>
    <SizeY>{side}</SizeY><TileLevel>4</TileLevel><YOrigin>top</YOrigin></DataWindow>
    <Projection>EPSG:3857</Projection><BandsCount>3</BandsCount><BlockSizeX>{_TILE_PX}</BlockSizeX>
    <BlockSizeY>{_TILE_PX}</BlockSizeY><MaxConnections>{_CONNECTIONS}</MaxConnections>
    <Timeout>{_TIMEOUT_S:.0f}</Timeout></GDAL_WMS>"""
    with rasterio.Env(GDAL_ENABLE_WMS_CACHE="NO"), rasterio.open(service) as image:
        pixels: NDArray[np.uint8] = image.read()
    return pixels


def _obstore(url: str, per_second: float | None) -> NDArray[np.uint8]:
    import obstore
    from obstore.store import HTTPStore

    store = HTTPStore.from_url(
        url, client_options={"allow_http": True, "timeout": f"{_TIMEOUT_S:.0f}s"},
        retry_config={"max_retries": 2},
    )  # fmt: skip

    def fetch(path: str) -> bytes:
        return bytes(obstore.get(store, path).bytes())

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return _decoded(dict(zip(_paths(), pool.map(fetch, _paths()))))


def _rooftrace(url: str, per_second: float | None) -> NDArray[np.uint8]:
    from rooftrace.io.service_options import ServiceOptions
    from rooftrace.io.tile_requests import TileRequests

    with tempfile.TemporaryDirectory() as folder:
        limits = ServiceOptions(attempts=3, timeout_s=_TIMEOUT_S, tile_cache=Path(folder))
        rates = {"connections": _CONNECTIONS, "per_second": per_second or 1e6}
        limits = limits.model_copy(update=rates)
        client = TileRequests(url, limits)
        tiles = client.fetch(f"{url}/{path}" for path in _paths())
    return _decoded({address.removeprefix(f"{url}/"): data for address, data in tiles.items()})


def _paths() -> list[str]:
    return [f"4/{col}/{row}.png" for row in range(_SIDE) for col in range(_SIDE)]


def _decoded(tiles: dict[str, bytes]) -> NDArray[np.uint8]:
    """Return the pixels of all tiles as one image; missing tiles are black."""
    import cv2
    import numpy as np

    image = np.zeros((3, _SIDE * _TILE_PX, _SIDE * _TILE_PX), np.uint8)
    for path, data in tiles.items():
        col, row = (int(part) * _TILE_PX for part in path[2:-4].split("/"))
        if data:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels is None:
                raise ValueError(f"{path} is no image")
            part = image[:, row : row + _TILE_PX, col : col + _TILE_PX]
            part[:] = pixels.transpose(2, 0, 1)
    return image


@contextmanager
def _serving(case: str) -> Iterator[tuple[str, Counter[str]]]:
    """Serve tiles in one way; yield the address, and the number of requests by path."""
    asked: Counter[str] = Counter()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            col, row = (int(part) for part in self.path[3:-4].split("/"))
            asked[self.path] += 1
            is_odd = (col, row) == _ODD_ONE
            if case == "latency":
                time.sleep(0.05)
            if case == "hangs" and is_odd:
                ended.wait()
            elif case == "half_missing" and (col + row) % 2:
                self._send(404)
            elif case == "forbidden" and is_odd:
                self._send(403)
            elif case == "too_many" and asked[self.path] == 1:
                self._send(429, b"", "Retry-After", "1")
            elif case == "page" and is_odd:
                self._send(200, _PAGE, "Content-Type", "text/html")
            else:
                self._send(200, _tile(col, row), "Content-Type", "image/png")

        def _send(self, status: int, body: bytes = b"", name: str = "", value: str = "") -> None:
            self.send_response(status)
            if name:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


@cache
def _tile(col: int, row: int) -> bytes:
    import cv2
    import numpy as np

    pixels = np.full((_TILE_PX, _TILE_PX, 3), (60, 20 * row, 20 * col), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


if __name__ == "__main__":
    start(main)
