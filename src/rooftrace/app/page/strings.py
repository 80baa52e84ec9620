"""Texts of the page as HTML: results, notes and the model card.

Everything that comes from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from rooftrace.app.page.files import DOWNLOADS, LOW_SCORE, RAMP, dense_or_sparse
from rooftrace.app.page.results import Result
from rooftrace.core.errors import BusyError, RooftraceError, TooLargeError
from rooftrace.core.text import in_page_terms, plain_number, plural
from rooftrace.density.threshold import DEFAULT_THRESHOLD
from rooftrace.engines.base import Engine
from rooftrace.io.legend import Legend
from rooftrace.io.resample import COARSEST_RATIO
from rooftrace.models.spec import BundleSpec, MeasuredMetrics
from rooftrace.predict.result import Prediction, PredictionSummary


def sentence(error: RooftraceError) -> str:
    """Return an error and its remedy as one text; for a full queue, with the time to try again."""
    text = in_page_terms(str(error))
    if isinstance(error, BusyError) and error.retry_after_s:
        text += f" Come again in about {error.retry_after_s:.0f} s."
    return text


def status(text: str, kind: str = "", action: str = "") -> str:
    """Return a status line; `kind` is "", `error` or `note`, and `action` is HTML after it."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="rt-status {kind}" role="{role}">{escape(text)} {action}</p>'


def images_done(done: int, count: int, failed: int) -> str:
    """Return how many of the images of a run are done and how many failed, as a sentence."""
    text = f"{done:,} of {plural(count, 'image')} {'is' if count == 1 else 'are'} done"
    return text + (f"; {failed:,} failed, see the table." if failed else ".")


def job_button(root: str, run: str, index: int, result: Result) -> str:
    """Return a button that makes a job of an image, for `drop.js`; "" if no job can help.

    It leads to the map of the results, or begins what was too large for the page.
    """
    if result.error is not None and not isinstance(result.error, TooLargeError):
        return ""
    text, shown = ("Map and review", " data-map") if result.error is None else ("Start a job", "")
    return (
        f'<button type="button" class="rt-button" data-job="{root}/{run}/{index}/job"'
        f' data-name="{escape(result.name)}"{shown}>{text}</button>'
    )


def figures(prediction: Prediction) -> str:
    """Return the number of buildings, built-up share, density class and scale."""
    summary = prediction.summary
    named = dense_or_sparse(summary.built_up_share, summary.valid_pixels)
    bound = f"dense from {DEFAULT_THRESHOLD.threshold:.0%} built up"
    at = "" if summary.threshold is None else f"at a threshold of {summary.threshold:g}"
    rows, cols = prediction.mask.grid.shape
    cells = [
        ("buildings", f"{summary.buildings:,}", at, "buildings"),
        ("built up", f"{summary.built_up_share:.1%}", _ground(summary), "share"),
        ("density", named or "no pixel is valid", bound, f"density {named or ''}"),
        ("scale", _scale(summary), f"{cols:,} × {rows:,} px", "scale"),
    ]
    made = "".join(
        f'<div class="rt-figure {kind}"><dt>{title}</dt><dd>{escape(value)}</dd>'
        f'<dd class="more">{escape(more)}</dd></div>'
        for title, value, more, kind in cells
    )
    return f'<dl class="rt-figures">{made}</dl>'


def _scale(summary: PredictionSummary) -> str:
    return "not known" if summary.gsd_m is None else f"{plain_number(summary.gsd_m)} m/px"


def _ground(summary: PredictionSummary) -> str:
    if summary.gsd_m is None:
        return "of the valid pixels"
    area_m2 = summary.built_up_share * summary.valid_pixels * summary.gsd_m**2
    return f"{area_m2:,.0f} m²" if area_m2 < 10_000 else f"{area_m2 / 10_000:,.1f} ha"


def legend(prediction: Prediction) -> str:
    """Return the legend of the colours."""
    if prediction.summary.threshold is not None:
        stops = ", ".join(RAMP)
        return (
            '<div class="rt-legend"><span>confidence</span>'
            f"<span>{LOW_SCORE:g}</span>"
            f'<i class="rt-ramp" style="background:linear-gradient(to right, {stops})"></i>'
            "<span>1</span></div>"
        )
    return f'<div class="rt-legend">{_swatches(prediction.legend, prediction.summary)}</div>'


def _swatches(legend: Legend, summary: PredictionSummary) -> str:
    made = []
    for one in summary.classes[1:]:
        if one.pixels:
            red, green, blue = legend.rgb(one.class_id)
            made.append(
                f'<span><i class="rt-swatch" style="background:rgb({red},{green},{blue})"></i>'
                f"{escape(one.name)} {one.share:.1%}</span>"
            )
    return "".join(made)


def downloads(root: str, run: str, index: int, results: Sequence[Result], button: str = "") -> str:
    """Return links to the files of one image and to the table of the run, and `job_button`."""
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
    text = "".join([*links, button])
    return f'<nav class="rt-downloads" aria-label="Downloads"><b>Download</b>{text}</nav>'


def notes(summary: PredictionSummary) -> str:
    """Return the assumptions of a prediction as sentences."""
    ended = (note if note.endswith(".") else f"{note}." for note in summary.notes)
    return in_page_terms(" ".join(ended))


_COLUMNS = ("image", "buildings", "built up", "density", "m/px", "threshold", "note")


def table(results: Sequence[Result], buttons: Sequence[str] = ()) -> str:
    """Return a table with a row for each image: a button that shows it, and figures or the
    error.

    Args:
        results: Results of a run.
        buttons: `job_button` of each result, shown where it failed.
    """
    rows = []
    for index, result in enumerate(results):
        name = f'<button type="button" data-pick="{index}">{escape(result.name)}</button>'
        *figures, note = (escape(text) for text in _cells(result))
        if result.error is not None and buttons:
            note += f" {buttons[index]}"
        cells = "".join(f"<td>{text}</td>" for text in (*figures, note))
        kind = "" if result.error is None else ' class="failed"'
        rows.append(f"<tr{kind}><th scope='row'>{name}</th>{cells}</tr>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in _COLUMNS)
    body = "".join(rows)
    return f'<table class="rt-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cells(result: Result) -> list[str]:
    summary = result.summary
    if summary is None:
        message = "" if result.error is None else sentence(result.error)
        return [""] * (len(_COLUMNS) - 2) + [message]
    return [
        f"{summary.buildings:,}",
        f"{summary.built_up_share:.1%}",
        dense_or_sparse(summary.built_up_share, summary.valid_pixels) or "",
        "" if summary.gsd_m is None else plain_number(summary.gsd_m),
        "" if summary.threshold is None else f"{summary.threshold:g}",
        notes(summary),
    ]


_FIRST = ("iou", "precision", "recall", "f1", "accuracy")


def model_card(spec: BundleSpec, engine: Engine) -> str:
    """Return the model card: contract, measured figures, limits and licence."""
    facts = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in _facts(spec, engine)
    )
    return (
        f'<div class="rt-card"><h2>{escape(spec.name)}</h2><table>{facts}</table>'
        f"<h3>Measured</h3>{_measured(spec.metrics)}"
        f"<h3>Where it fails</h3><ul>{''.join(f'<li>{escape(one)}</li>' for one in _limits(spec))}"
        "</ul></div>"
    )


def _facts(spec: BundleSpec, engine: Engine) -> Iterator[tuple[str, str]]:
    yield "Bands", f"{', '.join(spec.bands)} ({spec.dtype})"
    yield "Metres per pixel", spec.gsd_text
    yield "Classes", ", ".join(spec.classes)
    if spec.is_binary:
        yield "Threshold", f"{spec.threshold:g}"
    if spec.separation is not None:
        yield "Touching buildings", f"separated by a second head ({spec.separation})"
    if spec.calibration is not None:
        error = spec.calibration
        yield (
            "Confidence",
            (
                "calibrated: the probability that a building is one (calibration error "
                f"{error.ece_before:.3f} uncalibrated, {error.ece_after:.3f} calibrated)"
            ),
        )
    yield "Runs on", f"{engine.name}, {engine.precision}"
    if spec.created:
        yield "Made", spec.created[:10]
    yield "Licence", spec.licence or "the bundle names none"
    if spec.attribution:
        yield "Attribution", spec.attribution


def _metric_title(name: str) -> str:
    """Return the title of a figure: `boundary_f1_2px` becomes “boundary F1, 2 px”."""
    words = name.replace("iou", "IoU").replace("f1", "F1").split("_")
    if words[-1][:1].isdigit() and words[-1].endswith("px"):
        return f"{' '.join(words[:-1])}, {words[-1].removesuffix('px')} px"
    return " ".join(words)


def _measured(metrics: tuple[MeasuredMetrics, ...]) -> str:
    if not metrics:
        return "<p>The bundle has no figures: it was not measured, or they were left out.</p>"
    known = {name for one in metrics for name in one.values}
    names = [name for name in _FIRST if name in known]
    names += sorted(known - {*names})[: max(0, 6 - len(names))]
    head = "".join(f"<th scope='col'>{escape(_metric_title(name))}</th>" for name in names)
    rows = "".join(
        f"<tr><th scope='row'>{escape(one.data)}</th><td>{escape(one.split)}</td>"
        + "".join(
            f"<td>{one.values[name]:.3f}</td>" if name in one.values else "<td>–</td>"
            for name in names
        )
        + "</tr>"
        for one in metrics
    )
    how = "".join(
        f"<p class='rt-small'>{escape(text)}.</p>"
        for text in dict.fromkeys(one.protocol.rstrip(".") for one in metrics)
    )
    return (
        f"<table class='rt-measured'><thead><tr><th scope='col'>data</th><th scope='col'>split</th>"
        f"{head}</tr></thead><tbody>{rows}</tbody></table>{how}{_OTHER_FIGURES}"
    )


_OTHER_FIGURES = (
    "<p class='rt-small'>These figures are in the model's file: they were measured when it was "
    "made, with the protocol above. The figures in rooftrace's documentation are of "
    "<code>rooftrace evaluate</code>, on whole images as rooftrace predicts them, and differ.</p>"
)


def _limits(spec: BundleSpec) -> Iterator[str]:
    """Yield the limits that follow from the contract and the figures of a bundle."""
    scored = [one for one in spec.metrics if "iou" in one.values]
    if len(scored) > 1:
        worst, best = (pick(scored, key=lambda one: one.values["iou"]) for pick in (min, max))
        yield (
            f"Places differ: an IoU of {worst.values['iou']:.2f} on {worst.data}, of "
            f"{best.values['iou']:.2f} on {best.data}. Expect the lower one of a place that it has "
            "not seen."
        )
    pairs = [
        (one.values["precision"], one.values["recall"])
        for one in spec.metrics
        if {"precision", "recall"} <= {*one.values}
    ]
    if pairs and all(precision < recall for precision, recall in pairs):
        yield (
            "More is taken for buildings than is (precision is below recall everywhere): a higher "
            "threshold takes less."
        )
    elif pairs and all(precision > recall for precision, recall in pairs):
        yield (
            "Buildings are missed (recall is below precision everywhere): a lower threshold finds "
            "more."
        )
    if spec.gsd_m is not None:
        yield (
            f"Images coarser than {COARSEST_RATIO:g} times its {spec.gsd_m:g} m per pixel are "
            "refused, finer ones are averaged, and the figures are of images near that scale."
        )
    if spec.separation is None and spec.is_binary:
        yield (
            "Touching houses are separated only where the outline shows a neck: rows and dense "
            "quarters are counted too low; the built-up share is better than the count."
        )
    yield f"Other bands than {', '.join(spec.bands)}, such as infrared or radar, were never seen."
