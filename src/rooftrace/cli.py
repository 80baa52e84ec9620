"""The command line: parse, call a flow, show. Tables and bars go to stderr, `--json` to stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.exceptions import Abort, TyperException

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError, DataError, RooftraceError
from rooftrace.data.config import FolderConfig, nodata_rule

__all__ = ["app", "main"]

app = typer.Typer(
    name="rooftrace",
    help="From overhead imagery to a building map.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_people = Console(stderr=True)

_STOPPED = 130
"""What shells and typer know Ctrl-C as."""

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for programs.")]
Layout = Annotated[
    str | None,
    typer.Option(help='Which mask belongs to which image: "a/{id}.jpg=b/{id}_gt.png".'),
]
Glob = Annotated[list[str] | None, typer.Option(help="Only images whose file name matches.")]
Part = Annotated[str | None, typer.Option(help='A slice of the names in sorted order: "[:15]".')]
Nodata = Annotated[
    str | None,
    typer.Option(help="What is nodata in the images: a value, or a colour such as 255,255,255."),
]
Gsd = Annotated[
    float | None, typer.Option("--gsd", min=1e-4, help="Metres per pixel, if not in the file.")
]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="On the probability; default the model's own.")
]
EngineName = Annotated[str | None, typer.Option("--engine", help="openvino or onnxruntime.")]
Precision = Annotated[
    str | None, typer.Option(help="fp32, bf16 or int8; default the fastest that runs well here.")
]


class SplitBy(StrEnum):
    """What is kept together."""

    image = "image"
    group = "group"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        _print(metadata.version("rooftrace"))
        raise typer.Exit


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, GeoTIFFs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    bundle: Annotated[
        Path | None, typer.Option("-m", "--model", help="A .rooftrace file; default: bundled.")
    ] = None,
    gsd: Gsd = None,
    threshold: Threshold = None,
    min_area: Annotated[
        float | None, typer.Option("--min-area", min=0, help="Smallest building, m².")
    ] = None,
    nodata: Nodata = None,
    engine: EngineName = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Mask, building polygons and a preview of each image."""
    from rooftrace.flows.predict import run_predict

    with _bar("predict", "px", hidden=as_json) as progress:
        report = run_predict(
            inputs,
            bundle,
            out,
            gsd_m=gsd,
            threshold=threshold,
            min_area_m2=min_area,
            engine=engine,
            precision=precision,
            nodata=None if nodata is None else nodata_rule(_parse_nodata(nodata)),
            progress=progress,
        )
    if as_json:
        _print_json(report.to_json())
        return
    for note in report.notes:
        _say(f"note: {note}")
    for output in report.outputs:
        _say(
            f"{output.input}: {output.buildings:,} buildings, "
            f"{output.built_up_share:.1%} built up, "
            f"{output.pixels / 1e6:.2f} Mpx in {output.seconds:.2f} s"
        )
        for kind in ("mask", "polygons", "preview"):
            _say(f"  {kind:9}{getattr(output, kind)}")
    _say(
        f"{report.mpx_per_s:.1f} Mpx/s, peak memory {report.peak_rss_mb:.0f} MB, "
        f"record {out / 'run.json'}"
    )


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see recipes/.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE over the file; repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in the folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model on folders of image/mask pairs."""
    from rooftrace.flows.train import run_train

    report = run_train(config, out, overrides=overrides or (), resume=resume, console=_people)
    if as_json:
        _print_json(report.to_json())
        return
    table = Table("bundle", "epoch", "value")
    for name, (epoch, value, path) in report.best.items():
        table.add_row(str(path), str(epoch), f"{name.removeprefix('best_')} {value:.4f}")
    _people.print(table)
    speed = f"; {report.images_per_s:.1f} images/s" if report.images_per_s else ""
    _say(
        f"{report.epochs} epochs, {report.stopped_because}{speed}; "
        f"figures in {report.run / 'metrics.csv'}, curves in {report.run / 'curves.png'}"
    )


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help='A .rooftrace file, or "default".')],
    data: Annotated[Path, typer.Argument(help="A folder of image/mask pairs.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for report.json and pictures.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only one part of a split: split.json:test.")
    ] = None,
    layout: Layout = None,
    glob: Glob = None,
    part: Part = None,
    nodata: Nodata = None,
    gsd: Gsd = None,
    threshold: Threshold = None,
    engine: EngineName = None,
    precision: Precision = None,
    pictures: Annotated[int, typer.Option(min=0, help="At most so many pictures.")] = 24,
    as_json: Json = False,
) -> None:
    """How well a model agrees with labels that it has not seen."""
    from rooftrace.flows.evaluate import EvalOptions, run_evaluate

    options = EvalOptions(split, threshold, engine, precision, pictures)
    folder = _folder(data, layout, glob, part, nodata, gsd)
    chosen = None if str(bundle) == "default" else bundle
    with _bar("evaluate", "images", hidden=as_json) as progress:
        report = run_evaluate(chosen, folder, out, options, progress=progress)
    if as_json:
        _print_json(report.to_json())
        return
    table = Table("figure", "value")
    for row in report.rows():
        table.add_row(*row)
    _people.print(table)
    if out is not None:
        _say(f"report and pictures in {out}")


@app.command()
def split(
    data: Annotated[Path, typer.Argument(help="A folder of image/mask pairs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The JSON file to write.")],
    val: Annotated[float, typer.Option(help="Share for validation.")] = 0.05,
    test: Annotated[float, typer.Option(help="Share for the final test.")] = 0.05,
    by: Annotated[SplitBy, typer.Option(help="Whether groups stay together.")] = SplitBy.image,
    group_pattern: Annotated[
        str | None, typer.Option(help="Regular expression; its first bracket is the group.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    layout: Layout = None,
    glob: Glob = None,
    as_json: Json = False,
) -> None:
    """Divide a folder into training, validation and test parts."""
    from rooftrace.flows.split import run_split

    made = run_split(
        _folder(data, layout, glob),
        out,
        val=val,
        test=test,
        by=by.value,
        group_pattern=group_pattern,
        seed=seed,
    )
    counts = {name: len(ids) for name, ids in made.parts.items()}
    if as_json:
        _print_json({"split": str(out), **counts})
        return
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    _say(f"{out}: {shown}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """What is installed, which engines run, and a short test of each."""
    from rooftrace.flows.doctor import run_doctor

    report = run_doctor()
    if as_json:
        _print_json(report.to_json())
    else:
        table = Table("part", "state")
        for row in report.rows():
            table.add_row(*map(escape, row))
        _people.print(table)
    if not report.healthy:
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; never a traceback for a user's mistake."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
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
        _people.print("stopped")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: RooftraceError, *, as_json: bool) -> None:
    if as_json:
        _print_json({"error": error.to_json()})
    else:
        _people.print("[bold red]error:[/] ", end="")
        _say(error.message)
        if error.remedy:
            _say(error.remedy)
    sys.exit(error.exit_code)


def _folder(
    data: Path,
    layout: str | None,
    glob: Sequence[str] | None,
    part: str | None = None,
    nodata: str | None = None,
    gsd: float | None = None,
) -> FolderConfig:
    given: dict[str, Any] = {"path": str(data), "layout": layout, "part": part, "gsd_m": gsd}
    if glob:
        given["glob"] = tuple(glob)
    if nodata is not None:
        given["nodata"] = _parse_nodata(nodata)
    return parse_config(given, FolderConfig, source="The command line")


def _parse_nodata(text: str) -> float | tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--nodata received {text!r}; expected a value, or a colour with commas.",
            remedy="For example: --nodata 0, or --nodata 255,255,255",
        ) from None
    return values[0] if len(values) == 1 else values


@contextmanager
def _bar(title: str, unit: str, *, hidden: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr, where that is a terminal."""
    if hidden or not _people.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[done]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_people, transient=True) as bar:
        task = bar.add_task(title, total=None, done="")

        def update(done: int, total: int) -> None:
            shown = f"{done / 1e6:,.0f} M{unit}" if total >= 10**7 else f"{done:,} {unit}"
            bar.update(task, completed=done, total=total, done=shown)

        yield update


def _say(text: str) -> None:
    """A line for people, whatever brackets its paths have."""
    _people.print(text, highlight=False, markup=False, soft_wrap=True)


def _print_json(value: dict[str, Any]) -> None:
    _print(json.dumps(value, allow_nan=False))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
