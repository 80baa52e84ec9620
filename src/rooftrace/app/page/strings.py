"""Texts of the page as HTML: results and notes.

Everything that comes from outside is escaped.
"""

from __future__ import annotations

from html import escape

import numpy as np

from rooftrace.app.page.results import DOWNLOADS, LOW_SCORE, RAMP, ROOT
from rooftrace.core.errors import BusyError, RooftraceError, TooLargeError
from rooftrace.core.text import in_page_terms, plain_number
from rooftrace.density.files import DEFAULT_THRESHOLD
from rooftrace.predict.outputs import Prediction, PredictionSummary


def sentence(error: RooftraceError) -> str:
    """Return an error and its remedy as one text; for a full queue, with the time to try again."""
    text = in_page_terms(error.in_full)
    if isinstance(error, BusyError) and error.retry_after_s:
        text += f" Try again in about {error.retry_after_s:.0f} s."
    if isinstance(error, TooLargeError):
        text += " The page Jobs takes images of any size."
    return text


def status(text: str, kind: str = "") -> str:
    """Return a status line; `kind` is "", `error` or `note`."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="rt-status {kind}" role="{role}">{escape(text)}</p>'


def dense_or_sparse(built_up_share: float, valid_pixels: int) -> str | None:
    """Return the class that `rooftrace density` gives; None if no pixel is valid."""
    share = np.array([built_up_share if valid_pixels else np.nan])
    name: str | None = DEFAULT_THRESHOLD.classes(share)[0]
    return name


def figures(prediction: Prediction) -> str:
    """Return the number of buildings, built-up share, density class and scale."""
    summary = prediction.result.summary
    name = dense_or_sparse(summary.built_up_share, summary.valid_pixels)
    bound = f"dense from {DEFAULT_THRESHOLD.threshold:.0%} built up"
    at = "" if summary.threshold is None else f"at a threshold of {summary.threshold:g}"
    rows, cols = prediction.mask.grid.shape
    scale = "not known" if summary.gsd_m is None else f"{plain_number(summary.gsd_m)} m/px"
    cells = [
        ("buildings", f"{summary.buildings:,}", at, "buildings"),
        ("built up", f"{summary.built_up_share:.1%}", _ground(summary), "share"),
        ("density", name or "no pixel is valid", bound, f"density {name or ''}"),
        ("scale", scale, f"{cols:,} × {rows:,} px", "scale"),
    ]
    parts = "".join(
        f'<div class="rt-figure {kind}"><dt>{title}</dt><dd>{escape(value)}</dd>'
        f'<dd class="more">{escape(more)}</dd></div>'
        for title, value, more, kind in cells
    )
    return f'<dl class="rt-figures">{parts}</dl>'


def _ground(summary: PredictionSummary) -> str:
    if summary.gsd_m is None:
        return "of the valid pixels"
    area_m2 = summary.built_up_share * summary.valid_pixels * summary.gsd_m**2
    return f"{area_m2:,.0f} m²" if area_m2 < 10_000 else f"{area_m2 / 10_000:,.1f} ha"


def legend(prediction: Prediction) -> str:
    """Return the legend of the colours."""
    if prediction.summary.threshold is not None:
        return (
            f'<div class="rt-legend"><span>confidence</span><span>{LOW_SCORE:g}</span><i '
            f'class="rt-ramp" style="background:linear-gradient(to right, {", ".join(RAMP)})"></i>'
            "<span>1</span></div>"
        )
    swatches = "".join(
        f'<span><i class="rt-swatch" style="background:rgb{prediction.legend.rgb(one.class_id)}">'
        f"</i>{escape(one.name)} {one.share:.1%}</span>"
        for one in prediction.summary.classes[1:]
        if one.pixels
    )
    return f'<div class="rt-legend">{swatches}</div>'


def downloads(key: str, summary: PredictionSummary) -> str:
    """Return links to the files of one image."""
    query = "" if summary.threshold is None else f"?threshold={summary.threshold:g}"
    links = "".join(
        f'<a href="{ROOT}/{key}/{kind}{query}" download data-kind="{kind}">{label}</a>'
        for kind, label in DOWNLOADS.items()
    )
    return f'<nav class="rt-downloads" aria-label="Downloads"><b>Download</b>{links}</nav>'


def notes(summary: PredictionSummary) -> str:
    """Return the assumptions of a prediction as sentences."""
    return in_page_terms(" ".join(f"{note.rstrip('.')}." for note in summary.notes))
