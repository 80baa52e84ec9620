"""`rooftrace inspect`, `split` and `convert`: labelled data before a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rooftrace.cli.data_options import DataFields, source_config
from rooftrace.cli.option_groups import Fields, Shown, scene_fields, with_groups
from rooftrace.cli.options import Json, Order, option, out_option, result_file
from rooftrace.cli.show import answered, bar, counted, people, print_json, say
from rooftrace.core.text import plural, set_option
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.split import SplitOptions
from rooftrace.predict.options import SceneOptions

_TONES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@with_groups
def inspect(
    data: Annotated[SourceConfig, DataFields("Training data of any kind.")],
    *,
    images: Annotated[SceneOptions, scene_fields("bands", "stretch")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Set to compare with, such as the test images."),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Split file whose parts are checked for shared ground."),
    ] = None,
    out: Annotated[Path | None, out_option("HTML page to write.")] = None,
    against_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--against-set", metavar="KEY=VALUE",
            help="Value of the data card of the --against set; repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Audit training data: its figures, its problems, and what to do first."""
    from rooftrace.flows.inspect import run_inspect

    second = None if against is None else source_config(against, against_settings)
    with bar("inspect", counted("images"), hidden=as_json) as progress:
        audit = run_inspect(
            data, second, out, split=split, progress=progress,
            bands=images.bands, stretch=images.stretch or "auto",
        )  # fmt: skip
    if as_json:
        print_json(audit.to_json() | {"report": None if out is None else str(out)})
        return
    say(audit.verdict.paragraph)
    for finding in audit.findings:
        people().print(f"[{_TONES[finding.severity]}]{finding.severity:8}[/] ", end="")
        say(finding.title)
    for note in audit.data.source.notes:
        say(f"note: {note}")
    say("To do first:")
    for number, action in enumerate(audit.verdict.actions, 1):
        say(f"  {number}. {action}")
    if out is not None:
        say(f"page: {out}")


TOGETHER = "How images are divided"
"""Title of the group of options for the division in the help."""


@with_groups
def split(
    data: Annotated[SourceConfig, DataFields("Labelled images of any kind.")],
    out: Annotated[Path, out_option("Split file (JSON) to write.", parser=result_file)],
    options: Annotated[
        SplitOptions,
        Fields(
            SplitOptions,
            {
                "val": Shown(TOGETHER, "SHARE"),
                "test": Shown(TOGETHER, "SHARE"),
                "fold": Shown(TOGETHER, "I/K"),
                "seed": Shown(TOGETHER, "N"),
                "by": Shown(TOGETHER, "UNIT"),
                "group_pattern": Shown(TOGETHER, "REGEX"),
                "block_m": Shown(TOGETHER, "M", name="--block-m"),
                "gap_m": Shown(TOGETHER, "M", name="--gap-m"),
                "duplicates": Shown(TOGETHER, name="--duplicates/--no-duplicates"),
                "stratify": Shown(TOGETHER, name="--stratify/--no-stratify"),
            },
        ),
    ],
    as_json: Json = False,
) -> None:
    """Divide labelled images into training, validation and test parts."""
    from rooftrace.flows.split import run_split

    with bar("reading", counted("images"), hidden=as_json) as progress:
        result = run_split(data, out, options, progress=progress)
    counts = {name: len(ids) for name, ids in result.parts.items()}
    if as_json:
        print_json(
            {
                "split": str(out),
                **counts,
                "dropped": len(result.dropped),
                "copies": result.copies,
                "built_up": result.built_up,
                "notes": list(result.notes),
            }
        )
        return
    parts = ", ".join(
        f"{name} {count}"
        + (f" ({result.built_up[name]:.1%} built-up)" if name in result.built_up else "")
        for name, count in counts.items()
    )
    say(f"{out}: {parts}")
    if result.by == "block":
        say(
            f"blocks of {result.block_m:g} m with gaps of {result.gap_m:g} m: "
            f"{plural(len(result.dropped), 'image')} in the gaps left out"
        )
    if result.copies:
        say(f"{plural(result.copies, 'near-duplicate or overlapping image')} kept in one part")
    for note in result.notes:
        say(note)
    if not result.notes:
        where = data.path if data.images is None else f"{data.images} --truth {data.path}"
        settings = data.model_dump(mode="json", exclude_defaults=True, exclude={"path", "images"})
        say(f"next: rooftrace finetune {where}{_settings(settings)} --split {out} -o tuned")


def _settings(values: Mapping[str, Any], within: str = "") -> str:
    """Return the options that give settings of data again, each after a space."""
    return "".join(
        _settings(value, f"{within}{key}.")
        if isinstance(value, dict)
        else f" {set_option(within + key, value)}"
        for key, value in values.items()
    )


WRITTEN = "How data is written"
"""Title of the group of options for writing in the help."""


@with_groups
def convert(
    data: Annotated[SourceConfig, DataFields("Labelled data of any kind.")],
    out: Annotated[Path, out_option("File or folder to write.", "PATH")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Kind to write, such as folder, rle or coco; default by the ending: labelled data "
            "as rle (.csv), coco (.json), footprints (.gpkg, .geojson, .shp, …) or a folder, "
            "polygons as the vector format.",
        ),
    ] = None,
    copy_images: Annotated[
        bool, option(WRITTEN, "--copy-images", help="Copy the images beside the labels.")
    ] = False,
    order: Annotated[
        Order | None, option(WRITTEN, help="Direction of the runs of an RLE table.")
    ] = None,
    columns: Annotated[
        str | None, option(WRITTEN, metavar="A,B,C", help="Columns of an RLE table.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="FILE:PART", help="Write only one part, such as split.json:train."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write even if the output already exists.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Convert labelled data to another kind, or a vector file to another format."""
    from rooftrace.flows.convert import run_convert
    from rooftrace.labels.source import WriteOptions

    options = WriteOptions(
        images="copy" if copy_images else "refer",
        order=order,
        columns=None if columns is None else tuple(name.strip() for name in columns.split(",")),
    )
    with bar("convert", counted("scenes"), hidden=as_json) as progress:
        report = run_convert(
            data, to, out, options, split=split, overwrite=overwrite, progress=progress
        )
    if answered(report, as_json=as_json):
        return
    as_kind = f"{plural(report.scenes, 'scene')} as {report.kind}, read as "
    say(f"{report.written}: {as_kind if report.scenes else ''}{report.read_as}")
