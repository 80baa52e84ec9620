"""The command line: parse, call a flow, show. Tables and bars go to stderr, `--json` to stdout."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from rooftrace.cli import (
    calibrate,
    convert,
    data,
    density,
    doctor,
    ensemble,
    export,
    inspect,
    label,
    runs,
    serve,
    threshold,
    tune,
    vectorize,
    video,
)
from rooftrace.cli import evaluate as evaluation
from rooftrace.cli import predict as prediction
from rooftrace.cli import train as training
from rooftrace.cli.show import people, print_json, print_line, say
from rooftrace.core.errors import ConfigError, DataError, RooftraceError

__all__ = ["app", "main"]

app = typer.Typer(
    name="rooftrace",
    help="From overhead imagery to a building map.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (
    prediction.predict, training.train, tune.tune, evaluation.evaluate, calibrate.calibrate,
    threshold.threshold, ensemble.ensemble, runs.runs, inspect.inspect, data.split,
    convert.convert, density.density, vectorize.vectorize, video.video, export.export,
    serve.serve, doctor.doctor,
):  # fmt: skip
    app.command()(_command)
app.add_typer(label.label)

_STOPPED = 130
"""What shells and typer know Ctrl-C as."""


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print_line(metadata.version("rooftrace"))
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; never a traceback for a user's mistake."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    # rasterio hides it from itself by catch_warnings, which threads take away from one another.
    warnings.filterwarnings("ignore", "Dataset has no geotransform")
    try:
        code = app(given, prog_name="rooftrace", standalone_mode=False)
    except RooftraceError as error:
        _fail(error, as_json=as_json)
    except TyperException as error:
        # A wrong option, a missing argument; without any argument, its text is the help.
        told = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        usage = ConfigError(
            f"{told}." if told else "No command was given.",
            remedy="See rooftrace --help, or rooftrace COMMAND --help.",
        )
        _fail(usage, as_json=as_json)
    except (Abort, KeyboardInterrupt):
        code = _STOPPED
    except BrokenPipeError:
        # The reader of a pipe went away; what is left to flush has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # Where a name is too long, or may not be looked at, before anything was made of it.
        about = f"{error.filename}: " if error.filename else ""
        unread = DataError(
            f"{about}{error.strerror or error}.", remedy="Check the path and who may read it."
        )
        _fail(unread, as_json=as_json)
    if code == _STOPPED:
        people.print("stopped")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: RooftraceError, *, as_json: bool) -> None:
    if as_json:
        print_json({"error": error.to_json()})
    else:
        people.print("[bold red]error:[/] ", end="")
        say(error.message)
        if error.remedy:
            say(error.remedy)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
