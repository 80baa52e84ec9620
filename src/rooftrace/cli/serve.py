"""`rooftrace serve`."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rooftrace.cli.options import EngineName, Json, ModelFile, Precision
from rooftrace.cli.show import print_json, say
from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.service.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["serve"]

_PACKAGES = ("fastapi", "uvicorn", "gradio", "multipart", "prometheus_client")
_BACKLOG = 128

_MOST_CONNECTIONS = 1000
"""At the same time; one more is answered 503 at once."""

_STOPPING_S = 10
"""For so long answers that are under way may go on when the server is being stopped."""


def serve(
    model: ModelFile = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, help="Jobs that are predicted at the same time.")
    ] = 1,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that rooftrace predict has written, for the map; repeatable."),
    ] = None,
    jobs: Annotated[
        Path | None,
        typer.Option(help="Where jobs and their results are kept; default in your state folder."),
    ] = None,
    keep_jobs: Annotated[
        float, typer.Option(min=0.01, help="Days that a job is kept after its end.")
    ] = 7.0,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="What everybody must know who asks; rather in the environment than here.",
            envvar="ROOFTRACE_API_KEY",
            show_default=False,
        ),
    ] = None,
    label_studio: Annotated[
        str | None,
        typer.Option(help="Address of the Label Studio that this is an ML backend of."),
    ] = None,
    label_studio_token: Annotated[
        str | None,
        typer.Option(
            help="Its token; rather in the environment than here.",
            envvar="LABEL_STUDIO_API_KEY",
            show_default=False,
        ),
    ] = None,
    engine: EngineName = None,
    precision: Precision = None,
    max_upload: Annotated[
        float, typer.Option(min=0.001, help="MB of an image that is answered at once.")
    ] = Limits.upload_bytes / 2**20,
    max_mpx: Annotated[
        float, typer.Option(min=0.01, help="Millions of pixels of such an image.")
    ] = Limits.pixels / 1e6,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; more are told to come again.")
    ] = Limits.waiting,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that a request may take.")
    ] = Limits.seconds,
    as_json: Json = False,
) -> None:
    """A page to try the model, a map of results, and a REST API with jobs."""
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError.of("serve", "rooftrace serve", package)
    from rooftrace.app.server import create_server
    from rooftrace.rest.security import LOOPBACK
    from rooftrace.service.jobs.runner import JobRunner
    from rooftrace.service.jobs.store import JobStore
    from rooftrace.service.service import Service

    limits = replace(
        Limits(), upload_bytes=int(max_upload * 2**20), pixels=int(max_mpx * 1e6),
        waiting=queue, seconds=timeout,
    )  # fmt: skip
    with ExitStack() as stack:
        # The port first: to load a model in vain takes longer.
        listening = stack.enter_context(_listening(host, port))
        service = Service.load(model, engine=engine, precision=precision, limits=limits)
        stack.callback(service.close)
        store = JobStore(
            jobs or _default_jobs(), jobs_waiting=limits.jobs_waiting, keep_days=keep_jobs
        )
        stack.callback(store.close)
        runner = JobRunner(store, model, workers, engine, precision)
        app = create_server(
            service,
            runner,
            results=results or (),
            api_key=api_key,
            label_studio=label_studio,
            label_studio_token=label_studio_token,
            local=host in LOOPBACK,
        )
        runner.start()
        stack.callback(runner.stop)
        url = _address(host, listening.getsockname()[1])
        if as_json:
            told = {"url": url, "map": f"{url}/map", "api": f"{url}/v1", "pid": os.getpid()}
            print_json({**told, "model": service.bundle.spec.name})
        else:
            say(f"model {service.bundle.spec.name} on {service.predictor.engine.name}")
            say(f"page {url}   map {url}/map   API {url}/v1/docs")
            if host not in LOOPBACK and api_key is None:
                say("note: anybody who reaches this machine can use it: no API key was given.")
        sys.stdout.flush()
        _run(app, listening)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at the port. Who asks from then on waits, and is not turned away.

    Raises:
        ConfigError: the port is taken, or the address is not one of this machine.
    """
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"Nothing can listen on {host}, port {port}: {error.strerror or error}.",
                remedy="Choose another with --port (0 takes any that is free), or another --host.",
            ) from error
        yield listening


def _default_jobs() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "rooftrace" / "jobs"


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def _run(app: FastAPI, listening: socket.socket) -> None:
    import uvicorn

    settings: dict[str, Any] = {
        "log_level": "warning",
        "server_header": False,
        "timeout_graceful_shutdown": _STOPPING_S,
        # Those that only listen to the progress of jobs are among them.
        "limit_concurrency": _MOST_CONNECTIONS,
    }
    # Once it has stopped, uvicorn raises the signal again, which would end us before the jobs are.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listening])
