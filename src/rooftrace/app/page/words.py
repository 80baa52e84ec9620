"""What the page says of results, as HTML. Whatever comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rooftrace.app.page.downloads import DOWNLOADS, dense_or_sparse
from rooftrace.app.page.pictures import LOW_SCORE, RAMP
from rooftrace.app.page.results import Result
from rooftrace.core.errors import BusyError, RooftraceError
from rooftrace.io.legend import Legend
from rooftrace.predict.result import Prediction, Summary
from rooftrace.vector.density_threshold import DEFAULT_THRESHOLD

__all__ = ["downloads", "figures", "legend", "notes", "on_page", "sentence", "status", "table"]


def sentence(error: RooftraceError) -> str:
    """What went wrong and what can be done, as one text; of a full queue, when to come again."""
    text = on_page(str(error))
    if isinstance(error, BusyError) and error.retry_after_s:
        text += f" Come again in about {error.retry_after_s:.0f} s."
    return text


def on_page(text: str) -> str:
    """A text that names options of the command line, for who sees fields."""
    text = text.replace("--gsd", "the field “Metres per pixel”")
    return text.replace("--scale", "rooftrace predict --scale")


def status(text: str, kind: str = "") -> str:
    """A line for the person: `kind` is empty, `error` or `note`."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="rt-status {kind}" role="{role}">{escape(text)}</p>'


def figures(prediction: Prediction) -> str:
    """Buildings, built-up share, sparse or dense, scale."""
    summary = prediction.summary
    named = dense_or_sparse(summary.built_up_share, summary.valid_pixels)
    bound = f"dense from {DEFAULT_THRESHOLD.threshold:.0%} built up"
    at = "" if summary.threshold is None else f"at a threshold of {summary.threshold:g}"
    rows, cols = prediction.mask.grid.shape
    cells = [
        ("buildings", f"{summary.buildings:,}", at, "buildings"),
        ("built up", f"{summary.built_up_share:.1%}", _ground(summary), "share"),
        ("density", named or "no pixel is valid", bound, f"density {named or ''}"),
        ("scale", _scale(summary), f"{rows:,} × {cols:,} px", "scale"),
    ]
    made = "".join(
        f'<div class="rt-figure {kind}"><dt>{title}</dt><dd>{escape(value)}</dd>'
        f"<small>{escape(more)}</small></div>"
        for title, value, more, kind in cells
    )
    return f'<dl class="rt-figures">{made}</dl>'


def _scale(summary: Summary) -> str:
    return "not known" if summary.gsd_m is None else f"{summary.gsd_m:.3g} m/px"


def _ground(summary: Summary) -> str:
    if summary.gsd_m is None:
        return "of the valid pixels"
    area_m2 = summary.built_up_share * summary.valid_pixels * summary.gsd_m**2
    return f"{area_m2:,.0f} m²" if area_m2 < 10_000 else f"{area_m2 / 10_000:,.1f} ha"


def legend(prediction: Prediction) -> str:
    """What the colours mean."""
    if prediction.summary.threshold is not None:
        stops = ", ".join(RAMP)
        return (
            '<div class="rt-legend"><span>confidence</span>'
            f"<span>{LOW_SCORE:g}</span>"
            f'<i class="rt-ramp" style="background:linear-gradient(to right, {stops})"></i>'
            "<span>1</span></div>"
        )
    return f'<div class="rt-legend">{_swatches(prediction.legend, prediction.summary)}</div>'


def _swatches(legend: Legend, summary: Summary) -> str:
    made = []
    for one in summary.classes[1:]:
        if one.pixels:
            red, green, blue = legend.rgb(one.class_id)
            made.append(
                f'<span><i class="rt-swatch" style="background:rgb({red},{green},{blue})"></i>'
                f"{escape(one.name)} {one.share:.1%}</span>"
            )
    return "".join(made)


def downloads(root: str, run: str, index: int, results: Sequence[Result]) -> str:
    """Links to the files of one image, and to the table of all."""
    result = results[index]
    summary = result.summary
    if summary is None:
        return ""
    asked = "" if summary.threshold is None else f"?threshold={summary.threshold:g}"
    links = [
        f'<a href="{root}/{run}/{index}/{kind}{asked}" download data-kind="{kind}">{one.label}</a>'
        for kind, one in DOWNLOADS.items()
    ]
    links.append(f'<a href="{root}/{run}/table.csv" download data-kind="table">Table</a>')
    return f'<nav class="rt-downloads" aria-label="Downloads"><b>Download</b>{"".join(links)}</nav>'


def notes(summary: Summary) -> str:
    """What was assumed, in sentences."""
    ended = (note if note.endswith(".") else f"{note}." for note in summary.notes)
    return on_page(" ".join(ended))


_COLUMNS = ("image", "buildings", "built up", "density", "m/px", "threshold", "note")


def table(results: Sequence[Result]) -> str:
    """A row for each image, whose name is a button that shows it; of those that failed, why."""
    rows = []
    for index, result in enumerate(results):
        name = f'<button type="button" data-pick="{index}">{escape(result.name)}</button>'
        cells = "".join(f"<td>{escape(text)}</td>" for text in _cells(result))
        kind = "" if result.error is None else ' class="failed"'
        rows.append(f"<tr{kind}><th scope='row'>{name}</th>{cells}</tr>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in _COLUMNS)
    body = "".join(rows)
    return f'<table class="rt-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cells(result: Result) -> list[str]:
    summary = result.summary
    if summary is None:
        told = "" if result.error is None else sentence(result.error)
        return [""] * (len(_COLUMNS) - 2) + [told]
    return [
        f"{summary.buildings:,}",
        f"{summary.built_up_share:.1%}",
        dense_or_sparse(summary.built_up_share, summary.valid_pixels) or "",
        "" if summary.gsd_m is None else f"{summary.gsd_m:.3g}",
        "" if summary.threshold is None else f"{summary.threshold:g}",
        notes(summary),
    ]
