"""`rooftrace compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rooftrace.cli.option_groups import Fields, Shown, with_groups
from rooftrace.cli.options import Json, PolygonFormats, Results, model_of, option
from rooftrace.cli.show import answered, bar, say
from rooftrace.core.errors import ConfigError
from rooftrace.flows.compare.options import CompareOptions

if TYPE_CHECKING:
    from rooftrace.flows.compare.run import CompareReport

_DATES, _SEEN, _RULES, _OUTPUTS = (
    "Two dates of imagery",
    "Ground that was seen",
    "Statuses",
    "Outputs",
)

_OPTIONS: dict[str, Shown] = {
    "threshold": Shown(_DATES, "P"),
    "imagery": Shown(_SEEN, "FILE"),
    "area": Shown(_SEEN, "FILE"),
    "layer": Shown(_SEEN, "NAME", rare=True),
    "id": Shown(_OUTPUTS, "COLUMN"),
    "remove_offset": Shown(_RULES, name="--remove-offset"),
    "same_iou": Shown(_RULES, "IOU", rare=True),
    "move_m": Shown(_RULES, "M", rare=True),
    "max_move_m": Shown(_RULES, "M", rare=True),
    "keep": Shown(_OUTPUTS, "WHICH"),
}


@with_groups
def compare(
    new: Annotated[
        Path,
        typer.Argument(
            metavar="NEW",
            help="Vector file, folder of a prediction, mask or probabilities; or an image with -m.",
        ),
    ],
    old: Annotated[
        Path | None,
        typer.Argument(metavar="OLD", help="Buildings of an earlier date.", show_default=False),
    ] = None,
    *,
    out: Results,
    model: Annotated[
        Path | None,
        option(
            _DATES, "-m", "--model", metavar="FILE",
            help="Predict two images with it: a .rooftrace file, default or accurate.",
        ),
    ] = None,
    options: Annotated[CompareOptions, Fields(CompareOptions, _OPTIONS)],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="In place of OLD: a map of the same time (osm.geojson); recall and precision.",
        ),
    ] = None,
    formats: PolygonFormats = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Compare two layers of buildings: find which are new, gone, changed, moved, split or merged.

    Both may be any vector file of polygons, in any coordinate system, or masks, which are
    vectorised. Extracts of OpenStreetMap and tables of Google and Microsoft are read, too. Two
    rasters of probabilities, or two images with -m, are two dates: only changes of which both are
    sure count.
    """
    from rooftrace.flows.compare.run import run_compare
    from rooftrace.io.vector_write import known_formats
    from rooftrace.predict.model_set import read_models

    if (old is None) == (reference is None):
        raise ConfigError(
            "OLD and --reference were both given." if old else "Only one layer was given.",
            remedy="Give an earlier date as OLD, or a map of the same time as --reference.",
        )
    options = options.model_copy(update={"reference": reference is not None})
    before = old or reference
    assert before is not None
    further = known_formats(formats)
    models = None if model is None else read_models(model_of(model))
    with bar("compare", _step, hidden=as_json) as progress:
        report = run_compare(
            new, before, out, options, models=models, formats=further, progress=progress
        )
    if not answered(report, as_json=as_json):
        _print_report(report)


def _step(_: float, done: int, total: int) -> str:
    """Return the words for hundredths of steps."""
    return f"step {min(done + 100, total) // 100} of {total // 100}"


def _print_report(report: CompareReport) -> None:
    if (agreement := report.against_map) is not None:
        agreed = agreement.to_json()
        say(f"{'buildings':22}{'of the map':>12}{'found':>12}")
        for word, *names in (
            ("in both, one to one", "pairs", "pairs"),
            ("in both, otherwise", "otherwise_map", "otherwise_found"),
            ("only in the map", "only_map", None),
            ("only found", None, "only_found"),
            ("on seen ground", "mapped", "found"),
        ):
            cells = ("" if name is None else f"{agreed[name]:,}" for name in names)
            say(f"{word:22}{''.join(f'{cell:>12}' for cell in cells)}")
        for name, whole in (("recall", "mapped"), ("precision", "found")):
            if agreed[name] is not None:
                say(f"{name} {agreed['pairs']:,} / {agreed[whole]:,} = {agreed[name]:.1%}")
    for status, row in () if agreement else report.statuses.items():
        if row.new or row.old:
            say(f"{status:8} {row.new:10,} of NEW {row.old:10,} of OLD")
    if report.offset is not None:
        # The sum with 0 makes 0 of -0.
        east, north = (round(metres, 2) + 0.0 for metres in report.offset.xy.tolist())
        removed = "removed" if report.offset_removed else "not removed"
        say(f"offset {east:+.2f} m east, {north:+.2f} m north, {removed}")
    say(", ".join(map(str, report.files)))
    say(f"next: rooftrace serve --results {report.files[0].parent} --open")
