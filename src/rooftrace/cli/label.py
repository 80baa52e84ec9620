"""`rooftrace label push` and `rooftrace label pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import (
    Json,
    ModelFile,
    Threshold,
    takes_data,
)
from rooftrace.cli.show import answered, bar, say
from rooftrace.data.config import SourceConfig

__all__ = ["label"]

label = typer.Typer(
    name="label", help="Images and predictions to Label Studio, and labels back.",
    no_args_is_help=True,
)  # fmt: skip

Url = Annotated[str, typer.Argument(help="The server's address.", show_default=False)]
Project = Annotated[str, typer.Option(help="The project's number or title.")]
Token = Annotated[
    str,
    typer.Option(
        help="A token of yours, personal or legacy; rather in the environment than here.",
        envvar="LABEL_STUDIO_API_KEY",
        show_default=False,
    ),
]


@label.command()
@takes_data("Images, or data of any kind.")
def push(
    url: Url,
    data: SourceConfig,
    project: Annotated[
        str, typer.Option(help="The project's number, or a title; made where there is none.")
    ],
    token: Token,
    bundle: ModelFile = None,
    local_files_root: Annotated[
        Path | None,
        typer.Option(help="The server's document root: images below it are not uploaded."),
    ] = None,
    threshold: Threshold = None,
    as_json: Json = False,
) -> None:
    """Make a task of each image, with the model's buildings as polygons to start from."""
    from rooftrace.data.labelstudio.client import LabelStudio
    from rooftrace.flows.label import run_push

    server = LabelStudio(url, token)
    with bar("push", "images", hidden=as_json) as progress:
        report = run_push(
            data, server, project,
            bundle=bundle, local_files_root=local_files_root, threshold=threshold,
            progress=progress,
        )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    there = f", {len(report.skipped):,} were there already" if report.skipped else ""
    made = " (new)" if report.created else ""
    say(f"{len(report.pushed):,} images with {report.buildings:,} buildings pushed{there}")
    say(f"project {report.project}{made}: {report.url}")


@label.command()
def pull(
    url: Url,
    project: Project,
    token: Token,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="A folder, or a .json file, for the tasks.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Where images lie already, such as what was pushed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch the tasks of a project with their annotations, and the images that are not here."""
    from rooftrace.data.labelstudio.client import LabelStudio
    from rooftrace.flows.label import run_pull

    server = LabelStudio(url, token)
    with bar("pull", "tasks", hidden=as_json) as progress:
        report = run_pull(server, project, out, images=images, progress=progress)
    if answered(report, as_json=as_json):
        return
    say(
        f"{report.path}: {report.tasks:,} tasks, {report.annotated:,} annotated, "
        f"{report.downloaded:,} images downloaded"
    )
