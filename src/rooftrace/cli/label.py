"""The commands `rooftrace label next`, `label push` and `label pull`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rooftrace.cli.data_options import DATA, DataFields, source_config
from rooftrace.cli.option_groups import CheckedCommand, LabelledOptions, with_groups
from rooftrace.cli.options import Json, ModelFile, Threshold, option, out_option
from rooftrace.cli.show import answered, bar, counted, people, print_json, say
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural
from rooftrace.labels.config import SourceConfig

if TYPE_CHECKING:
    from rooftrace.flows.label import PushReport
    from rooftrace.flows.label_next import NextReport
    from rooftrace.labels.labelstudio_client import LabelStudio

label = typer.Typer(
    name="label", help="Choose images to label, push them to Label Studio, and pull labels back.",
    no_args_is_help=True,
)  # fmt: skip

SERVER = "Server"
"""Title of the group of options for the server in the help."""

Url = Annotated[
    str, typer.Argument(metavar="URL", help="Address of the server.", show_default=False)
]
Token = Annotated[
    str,
    option(
        SERVER, envvar="LABEL_STUDIO_API_KEY", show_default=False, metavar="TOKEN",
        help="Personal or legacy token; better set in the environment.",
    ),
]  # fmt: skip


LocalFilesRoot = Annotated[
    Path | None,
    option(
        SERVER, metavar="FOLDER",
        help="Document root of the server; images below it are not uploaded.",
    ),
]  # fmt: skip


@label.command("next", cls=CheckedCommand)
@with_groups
def choose_next(
    data: Annotated[SourceConfig, DataFields("Images, some of which may be labelled.")],
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, metavar="N", help="Number of images to choose.")
    ] = 40,
    *,
    images: LabelledOptions,
    bundle: ModelFile = None,
    labelled: Annotated[
        Path | None,
        option(
            DATA, metavar="DATA",
            help="Labelled data; its images and those that resemble them are not needed again.",
        ),
    ] = None,
    out: Annotated[Path | None, out_option("List to write, with one path per line.")] = None,
    push_to: Annotated[
        str | None,
        option(
            SERVER, "--push", metavar="URL",
            help="Label Studio server to push the chosen images to, in their order.",
        ),
    ] = None,
    project: Annotated[
        str | None,
        option(
            SERVER, metavar="PROJECT",
            help="Number or title of the project, with --push; its images are not chosen again.",
        ),
    ] = None,
    token: Token = "",
    local_files_root: LocalFilesRoot = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Choose the unlabelled images that are most worth labelling, the best first."""
    from rooftrace.flows.label_next import run_next

    others = None if labelled is None else source_config(labelled)
    server = None if push_to is None else _server(push_to, project, token)
    taken: frozenset[str] = frozenset()
    if server is not None:
        from rooftrace.flows.label import pushed_ids

        taken = pushed_ids(server, str(project))
    with bar("measuring", counted("images"), hidden=as_json) as progress:
        report = run_next(
            data, count, bundle=bundle, labelled_data=others, taken=taken, images=images,
            out=out, progress=progress,
        )  # fmt: skip
    pushed = None
    if server is not None:
        from rooftrace.flows.label import run_push

        with bar("push", counted("images"), hidden=as_json) as progress:
            pushed = run_push(
                data, server, str(project), ids=[one.id for one in report.chosen],
                bundle=bundle, local_files_root=local_files_root, images=images,
                progress=progress,
            )  # fmt: skip
    if as_json:
        more = {"list": None if out is None else str(out)}
        print_json(report.to_json() | more | {"push": None if pushed is None else pushed.to_json()})
        return
    answered(report, as_json=False)
    _show_next(report)
    if out is not None:
        say(f"{out}: {plural(len(report.chosen), 'image')}")
    if pushed is not None:
        _show_push(pushed)


def _server(url: str, project: str | None, token: str) -> LabelStudio:
    """Return the server of `--push`."""
    from rooftrace.labels.labelstudio_client import LabelStudio

    if project is None:
        raise ConfigError(
            "--push was given without --project.",
            remedy="Add the number or title of the project; a new title creates a project.",
        )
    if not token:
        raise ConfigError(
            "--push was given without a token.",
            remedy="Set LABEL_STUDIO_API_KEY in the environment, or give --token.",
        )
    return LabelStudio(url, token)


def _show_next(report: NextReport) -> None:
    """Print the images to label as a table, and the number of those that were left out."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "image", "entropy", "disagreement", "built-up"):
        table.add_column(name, justify="left" if name == "image" else "right", overflow="fold")
    for number, one in enumerate(report.chosen, start=1):
        table.add_row(
            str(number), escape(one.id), f"{one.entropy:.2f} bit", f"{one.disagreement:.1%}",
            f"{one.built_up:.0%}",
        )  # fmt: skip
    people().print(table)
    left_out = {
        "labelled": report.labelled, "mostly nodata": len(report.nodata),
        "without anything like a building": len(report.empty),
        "near-duplicates": len(report.near_duplicates),
    }  # fmt: skip
    listed = ", ".join(f"{number:,} {what}" for what, number in left_out.items() if number)
    say(
        f"{len(report.chosen):,} of {plural(report.images, 'image')} chosen"
        + (f"; left out: {listed}" if listed else "")
    )


@label.command(cls=CheckedCommand)
@with_groups
def push(
    url: Url,
    data: Annotated[SourceConfig, DataFields("Images, or data of any kind.")],
    project: Annotated[
        str,
        option(
            SERVER, metavar="PROJECT",
            help="Number or title of the project; a new title creates a project.",
        ),
    ],
    token: Token,
    *,
    images: LabelledOptions,
    bundle: ModelFile = None,
    local_files_root: LocalFilesRoot = None,
    threshold: Threshold = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Create a task for each image, with predicted buildings as polygons to correct."""
    from rooftrace.flows.label import run_push
    from rooftrace.labels.labelstudio_client import LabelStudio

    server = LabelStudio(url, token)
    with bar("push", counted("images"), hidden=as_json) as progress:
        report = run_push(
            data, server, project,
            bundle=bundle, local_files_root=local_files_root, threshold=threshold,
            images=images, progress=progress,
        )  # fmt: skip
    if not answered(report, as_json=as_json):
        _show_push(report)


def _show_push(report: PushReport) -> None:
    skipped = f", {len(report.skipped):,} already existed" if report.skipped else ""
    new = " (new)" if report.created else ""
    say(
        f"{plural(len(report.pushed), 'image')} with {report.buildings:,} buildings pushed{skipped}"
    )
    say(f"project {report.project}{new}: {report.url}")


@label.command(cls=CheckedCommand)
def pull(
    url: Url,
    project: Annotated[
        str, option(SERVER, metavar="PROJECT", help="Number or title of the project.")
    ],
    token: Token,
    out: Annotated[Path, out_option("Folder or .json file for the tasks.", "PATH")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of existing images, such as those pushed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch the tasks of a project with their annotations, and missing images."""
    from rooftrace.flows.label import run_pull
    from rooftrace.labels.labelstudio_client import LabelStudio

    server = LabelStudio(url, token)
    with bar("pull", counted("tasks"), hidden=as_json) as progress:
        report = run_pull(server, project, out, images=images, progress=progress)
    if answered(report, as_json=as_json):
        return
    say(
        f"{report.path}: {report.tasks:,} tasks, {report.annotated:,} annotated, "
        f"{report.downloaded:,} images downloaded"
    )
