"""The model card: what a bundle says of itself, as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from rooftrace.engines.base import Engine
from rooftrace.io.resample import LARGEST_RATIO
from rooftrace.models.spec import BundleSpec, Measured

__all__ = ["model_card"]

_FIRST = ("iou", "precision", "recall", "f1", "accuracy")


def model_card(spec: BundleSpec, engine: Engine) -> str:
    """Contract, figures with what they were measured on, where it fails, licence.

    Args:
        spec: of the model.
        engine: that runs it.
    """
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
    yield "Metres per pixel", "any" if spec.gsd_m is None else f"{spec.gsd_m:g}"
    yield "Classes", ", ".join(spec.classes)
    if spec.is_binary:
        yield "Threshold", f"{spec.threshold:g}"
    if spec.separation is not None:
        yield "Touching buildings", f"told apart by a second head ({spec.separation})"
    if spec.calibration is not None:
        error = spec.calibration
        yield (
            "Confidence",
            (
                "calibrated: the probability that a building is one (calibration error "
                f"{error.ece_before:.3f} before, {error.ece_after:.3f} after)"
            ),
        )
    yield "Runs on", f"{engine.name}, {engine.precision}"
    if spec.created:
        yield "Made", spec.created[:10]
    yield "Licence", spec.licence or "the bundle names none"
    if spec.attribution:
        yield "Attribution", spec.attribution


def _measured(metrics: tuple[Measured, ...]) -> str:
    if not metrics:
        return "<p>The bundle holds no figures: nobody measured it, or they were left out.</p>"
    known = {name for one in metrics for name in one.values}
    names = [name for name in _FIRST if name in known]
    names += sorted(known - {*names})[: max(0, 6 - len(names))]
    head = "".join(f"<th scope='col'>{escape(name.replace('_', ' '))}</th>" for name in names)
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
        f"{head}</tr></thead><tbody>{rows}</tbody></table>{how}"
    )


def _limits(spec: BundleSpec) -> Iterator[str]:
    """What follows from the contract and the figures; no more is known of a bundle."""
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
            f"Images coarser or finer than {LARGEST_RATIO:g} times its {spec.gsd_m:g} m per pixel "
            "are refused, and the figures are of images near that scale."
        )
    if spec.separation is None and spec.is_binary:
        yield (
            "Houses that touch are cut apart only where the outline shows a neck: rows and dense "
            "quarters are counted too low; the built-up share is better than the count."
        )
    yield f"Other bands than {', '.join(spec.bands)}, such as infrared or radar, were never seen."
