"""`rooftrace demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import Json
from rooftrace.cli.predict import show_run
from rooftrace.cli.show import bar, pixels, say


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the results.")
    ] = Path("rooftrace-demo"),
    as_json: Json = False,
) -> None:
    """Predict a small scene that comes with rooftrace, to see what it writes."""
    from rooftrace.flows.predict.inputs import find_inputs
    from rooftrace.flows.predict.run import run_predict
    from rooftrace.io.files import demo_scene_path
    from rooftrace.predict.model_set import read_models

    with bar("predict", pixels, hidden=as_json) as progress:
        inputs = find_inputs([demo_scene_path()])
        report = run_predict(inputs, read_models(Path("default")), out, progress=progress)
    show_run(report, out, as_json=as_json)
    if not as_json:
        say(
            f"Open the files of {out} in QGIS or a browser. Your own image: rooftrace predict IMAGE"
        )
