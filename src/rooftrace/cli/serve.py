"""`rooftrace serve`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rooftrace.cli.option_groups import ImageOptions, nodata_of, with_groups
from rooftrace.cli.options import EngineName, Json, ModelFile, Nodata, Precision, option
from rooftrace.cli.show import print_json, say
from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.core.system import bind, limit_kept_memory, user_folder
from rooftrace.core.text import reason_of
from rooftrace.service.decode import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

    from rooftrace.service.live import LiveCamera

_PACKAGES = ("fastapi", "uvicorn", "multipart", "prometheus_client")
_BACKLOG = 128

_MAX_CONNECTIONS = 1000
"""Maximum number of open connections; further requests are answered 503."""

_SHUTDOWN_S = 10
"""Time that running requests have to finish when the server stops."""

_MAP = "Basemap"
_JOBS = "Jobs"
_ACCESS = "Access"
_LIMITS = "Limits of one request"
_LABEL_STUDIO = "Label Studio"


@with_groups
def serve(
    *,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Port to listen on; 0 for any free port."
        ),
    ] = 8000,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="Folder of results of predict or compare to show; repeatable."
        ),
    ] = None,
    basemap: Annotated[
        list[str] | None,
        option(
            _MAP, metavar="URL",
            help="URL of tiles under the map, with {z}, {x}, {y}, or NAME=URL; repeatable.",
        ),
    ] = None,
    basemap_credit: Annotated[
        list[str] | None,
        option(_MAP, metavar="TEXT", help="Attribution of each basemap, in order."),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Video to show live: flight.mp4, camera:0, rtsp://…, NAME=SOURCE; repeatable.",
        ),
    ] = None,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: Json = False,
    model: ModelFile = None,
    engine: EngineName = None,
    precision: Precision = None,
    images: ImageOptions,
    nodata: Nodata = None,
    api_key: Annotated[
        str | None,
        option(
            _ACCESS, metavar="KEY", envvar="ROOFTRACE_API_KEY", show_default=False,
            help="Key that all clients must send; safer in the environment.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        option(
            _ACCESS, metavar="ORIGIN",
            help="Site whose pages may call the API: https://example.org; repeatable.",
        ),
    ] = None,
    jobs: Annotated[
        Path | None,
        option(
            _JOBS, metavar="FOLDER",
            help="Folder of jobs and their results; default: in your state folder.",
        ),
    ] = None,
    workers: Annotated[
        int, option(_JOBS, rare=True, min=1, metavar="N", help="Jobs that run at the same time.")
    ] = 1,
    keep_jobs: Annotated[
        float,
        option(
            _JOBS, min=0.01, metavar="DAYS", help="Days to keep a job and its files after its end."
        ),
    ] = 7.0,
    max_upload: Annotated[
        float, option(_LIMITS, rare=True, min=0.001, metavar="MIB", help="Maximum MiB of an image.")
    ] = Limits.upload_bytes / 2**20,
    max_mpx: Annotated[
        float,
        option(
            _LIMITS, rare=True, min=0.01, metavar="MPX",
            help="Maximum millions of pixels of an image.",
        ),
    ] = Limits.pixels / 1e6,
    queue: Annotated[
        int,
        option(
            _LIMITS, rare=True, min=1, metavar="N",
            help="Maximum number of requests that run or wait; others are refused.",
        ),
    ] = Limits.waiting,
    timeout: Annotated[
        float, option(_LIMITS, rare=True, min=1, metavar="S", help="Maximum seconds of a request.")
    ] = Limits.seconds,
    label_studio: Annotated[
        str | None,
        option(
            _LABEL_STUDIO, metavar="URL",
            help="URL of the Label Studio server that uses this ML backend.",
        ),
    ] = None,
    label_studio_token: Annotated[
        str | None,
        option(
            _LABEL_STUDIO,
            rare=True,
            metavar="TOKEN",
            help="Access token of that server; safer in the environment.",
            envvar="LABEL_STUDIO_API_KEY",
            show_default=False,
        ),
    ] = None,
) -> None:  # fmt: skip
    """Serve a prediction page, a map of results, live video, and a REST API with jobs."""
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError.of("serve", "rooftrace serve", package)
    with ExitStack() as stack:
        # The port comes first, because imports and a model take longer.
        listening = stack.enter_context(_listen(host, port))
        url = _address(host, listening.getsockname()[1])
        if not as_json:
            say(f"Starting {url} …")
        from rooftrace.io.video import require_av
        from rooftrace.service.live import CameraSource, LiveCamera

        # The web parts take seconds to import; a wrong option is reported before.
        sources = [CameraSource.parse(one) for one in camera or ()]
        if sources:
            require_av("rooftrace serve --camera")
        from rooftrace.app.map.router import Basemap
        from rooftrace.app.server import create_server
        from rooftrace.predict.options import VideoOptions
        from rooftrace.rest.security import LOOPBACK
        from rooftrace.service.job_runner import JobRunner
        from rooftrace.service.job_store import JobStore
        from rooftrace.service.service import RequestDefaults, Service

        defaults = RequestDefaults(images, nodata_of(nodata))
        watching = VideoOptions(images=images) if sources else None
        limits = replace(
            Limits(), upload_bytes=int(max_upload * 2**20), pixels=int(max_mpx * 1e6),
            waiting=queue, seconds=timeout,
        )  # fmt: skip
        limit_kept_memory()
        service = Service.load(
            model, engine=engine, precision=precision, limits=limits, defaults=defaults
        )
        stack.callback(service.close)
        store = JobStore(
            jobs or user_folder("state") / "jobs",
            jobs_waiting=limits.jobs_waiting,
            keep_days=keep_jobs,
        )
        runner = JobRunner(store, model, workers, engine, precision, defaults=defaults)
        cameras = [LiveCamera(one, service.predictor, watching) for one in sources]
        for one in cameras:
            stack.callback(one.close, _SHUTDOWN_S)
        app = create_server(
            service,
            runner,
            results=results or (),
            basemaps=[
                Basemap.parse(*one)
                for one in zip_longest(basemap or (), basemap_credit or (), fillvalue="")
            ],
            cameras=cameras,
            api_key=api_key,
            label_studio=label_studio,
            label_studio_token=label_studio_token,
            local=host in LOOPBACK,
            allow_origins=allow_origin or (),
        )
        runner.start()
        stack.callback(runner.stop)
        if as_json:
            addresses = {"url": url, "map": f"{url}/map", "api": f"{url}/v1"}
            if sources:
                addresses["live"] = f"{url}/live"
            print_json({**addresses, "pid": os.getpid(), "model": service.bundle.spec.name})
        else:
            say(f"model {service.bundle.spec.name} on {service.predictor.engine.name}")
            live = f"   live {url}/live" if sources else ""
            say(f"page {url}   map {url}/map{live}   API {url}/v1/docs")
            if others := _address_for_others(host, listening.getsockname()[1]):
                say(f"other machines: {others}")
            if host not in LOOPBACK and api_key is None:
                say("note: no API key is set; anyone who reaches this machine can use the server.")
        for path in results or ():
            if not path.exists():
                say(f"note: there is no folder {path} yet; the map is empty until it is written.")
        sys.stdout.flush()
        if browse:
            # The socket listens already: the page waits until the server answers.
            webbrowser.open(url)
        _run(app, listening, cameras)


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a listening socket. Clients that connect before the server is ready wait."""
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            bind(listening, address)
            listening.listen(_BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {host}, port {port}: {reason_of(error)}.",
                remedy="Choose another port with --port (0 for any free port) or another --host.",
            ) from error
        yield listening


def _address(host: str, port: int) -> str:
    # Nothing is bound here: an address of all interfaces is shown as one that can be opened.
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # nosec B104
    name = everywhere.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"


def _address_for_others(host: str, port: int) -> str:
    """Return the address for other machines where all interfaces are listened on, else ""."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104  # nosec B104
        return ""
    return f"http://{socket.gethostname()}:{port}"


def _run(app: FastAPI, listening: socket.socket, cameras: Sequence[LiveCamera]) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Their viewers would stay until the end of the time that requests have to finish.
            for camera in cameras:
                camera.close()
            await super().shutdown(sockets)
            if self.force_exit:
                # After a second Ctrl-C uvicorn cancels the app, which logs that as an error.
                await self.lifespan.shutdown()

    logging.basicConfig(format="%(asctime)s %(levelname)s: %(message)s")
    settings: dict[str, Any] = {
        "log_level": "warning",
        # Uvicorn's lines get the time, too.
        "log_config": None,
        "server_header": False,
        # With these headers, a client could choose the address by which it gets its places.
        # X-Forwarded-Proto is read by `rest.security`.
        "proxy_headers": False,
        "timeout_graceful_shutdown": _SHUTDOWN_S,
        # This includes clients that only follow the events of jobs.
        "limit_concurrency": _MAX_CONNECTIONS,
    }
    # After its shutdown uvicorn raises the signal again. Without a handler, this process would end
    # before its jobs do.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(uvicorn.Config(app, **settings)).run(sockets=[listening])
