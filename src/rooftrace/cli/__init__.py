"""The command line: parse, call a flow, show. Tables and bars go to stderr, `--json` to stdout."""

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.exceptions import Abort, TyperException

from rooftrace.cli.commands import COMMANDS, CommandList, command_name, other_options
from rooftrace.cli.show import people, print_json, print_line, say
from rooftrace.core.errors import (
    DEBUG,
    ConfigError,
    DataError,
    DefectError,
    ExportError,
    RooftraceError,
    explained,
    is_out_of_memory,
)
from rooftrace.core.interrupt import STOPPED, was_interrupted
from rooftrace.core.text import in_terms, reason_of
from rooftrace.io.files import NOT_WRITABLE

__all__ = ["app", "main"]

app = typer.Typer(
    name="rooftrace",
    cls=CommandList,
    help="Make building maps from overhead imagery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_CONTINUED_BY = {
    "predict": "the same command continues",
    "catalogue": "the same command continues",
    "train": "--resume continues after the last finished epoch, if there is one",
    "finetune": "--resume continues after the last finished epoch, if there is one",
}
"""What continues a command that Ctrl-C has stopped, by its name."""


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib import metadata

        print_line(metadata.version("rooftrace"))
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; never a traceback for a user's mistake.

    An exception that nothing has translated is reported as a defect. Where the environment variable
    `ROOFTRACE_DEBUG` is set, it is raised instead.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    # rasterio hides it from itself by catch_warnings, which threads take away from one another.
    warnings.filterwarnings("ignore", "Dataset has no geotransform")
    try:
        code = app(words, prog_name="rooftrace", standalone_mode=False)
    except TyperException as error:
        # A wrong option, a missing argument; without any argument, its text is the help.
        if error.__cause__ is not None and hasattr(error, "message"):
            error.message = _plain(error.__cause__) or error.message
        message = " ".join(str(getattr(error, "format_message", error.__str__)()).split())
        message = message or "No command was given"
        context = getattr(error, "ctx", None)
        name = context.command_path if context else command_name(words)
        usage = ConfigError(
            message if message.endswith("?") else f"{message.rstrip('.')}.",
            remedy=f"See {name} --help.",
        )
        _fail(usage, as_json=as_json)
    except (Abort, KeyboardInterrupt):
        _stop(words)
    except BrokenPipeError:
        # Its reader went away, and Python would try again to write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if was_interrupted():
            _stop(words)
        translated = _translated(error, command_name(words))
        if words[0] in COMMANDS and "--" in translated.remedy:
            translated.remedy = in_terms(translated.remedy, other_options(words[0]))
        _fail(translated, as_json=as_json)
    if code == STOPPED:
        _stop(words)
    sys.exit(code if isinstance(code, int) else 0)


def _stop(given: Sequence[str]) -> NoReturn:
    """End a command that Ctrl-C has stopped, and say what continues it."""
    # The next Ctrl-C ends the process, though threads still work.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    note = _CONTINUED_BY.get("predict" if "--trials" in given else "".join(given[:1]))
    people().print(f"stopped; {note}" if note else "stopped")
    sys.exit(STOPPED)


def _plain(error: BaseException) -> str | None:
    """Return the first problem of a value that pydantic refused, in plain words; else None."""
    from pydantic import ValidationError

    from rooftrace.core.config import plain_reason

    if not isinstance(error, ValidationError):
        return None
    problem = error.errors()[0]
    reason = plain_reason(problem)
    # The errors of choices name the value.
    return reason if problem["type"] == "value_error" else f"{reason}; got {problem['input']!r}"


def _translated(error: Exception, name: str) -> RooftraceError:
    """Return the error that is shown for an exception; raise a defect if `DEBUG` asks to see it."""
    if isinstance(error, OSError) and error.errno is not None and not is_out_of_memory(error):
        return _from_system(error)
    translated = explained(error, name)
    if isinstance(translated, DefectError) and os.environ.get(DEBUG):
        raise error
    return translated


def _from_system(error: OSError) -> RooftraceError:
    """Return the error for what the system refuses: a result, or a name that is too long."""
    about = f"{error.filename}: " if error.filename else ""
    message = f"{about}{reason_of(error)}."
    if error.errno in NOT_WRITABLE:
        return ExportError(
            message, remedy="Choose a folder with write permission and free space, or make space."
        )
    if "temporary directory" in message:
        return ExportError(message, remedy="Name a folder with write permission in TMPDIR.")
    return DataError(message, remedy="Check the path and who may read it.")


def _fail(error: RooftraceError, *, as_json: bool) -> None:
    if as_json:
        finished = {} if error.report is None else error.report.to_json()
        print_json({**finished, "error": error.to_json()})
        sys.exit(error.exit_code)
    people().print("error: ", style="bold red", end="")
    say(error.message)
    if error.remedy:
        say(error.remedy)
    sys.exit(error.exit_code)
