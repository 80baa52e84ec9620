"""`rooftrace demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import Json
from rooftrace.cli.show import say


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the results.")
    ] = Path("rooftrace-demo"),
    as_json: Json = False,
) -> None:
    """Predict a small scene that comes with rooftrace, to see what it writes."""
    from rooftrace.cli.commands import load_command
    from rooftrace.io.files import demo_scene_path

    given = [str(demo_scene_path()), "-o", str(out), *(["--json"] if as_json else [])]
    load_command("predict").main(given, prog_name="rooftrace demo", standalone_mode=False)
    if not as_json:
        say(
            f"Open the files of {out} in QGIS or a browser. Your own image: rooftrace predict IMAGE"
        )
