"""The paragraph at the top of an audit: fit to train or not, and what to do first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rooftrace.data.audit.facts import Finding
from rooftrace.data.audit.summary import Summary
from rooftrace.data.audit.told import plural

__all__ = ["Verdict", "conclude"]

_LEAST_BUILDINGS = 300
"""With fewer, a network learns these buildings and not what a building is; a rule of thumb."""

_ACTIONS = 3

_SPLIT = (
    "Set a test part aside before the first training: rooftrace split DATA -o split.json, with "
    "--by group or, where images lie side by side, --by block."
)
_USUAL = (
    _SPLIT,
    "Look at the contact sheets below: a wrong label is seen sooner than it is computed.",
    "Train a first model, then look at its worst images: rooftrace evaluate -o.",
)


@dataclass(frozen=True)
class Verdict:
    """What a person reads if nothing else.

    Args:
        fit: `yes`; `with care`: a model would come of it, but a worse one or one that is judged
            too well; `no`.
        paragraph: a few sentences.
        actions: three things to do, the most useful first.
    """

    fit: Literal["yes", "with care", "no"]
    paragraph: str
    actions: tuple[str, ...]


def conclude(name: str, summary: Summary, findings: Sequence[Finding]) -> Verdict:
    """From the figures and the findings (the worst first) to a judgement."""
    errors = [f for f in findings if f.severity == "error"]
    warnings = [f for f in findings if f.severity == "warning"]
    fit: Literal["yes", "with care", "no"]
    if errors or not summary.labelled:
        fit = "no"
    elif warnings or summary.buildings < _LEAST_BUILDINGS:
        fit = "with care"
    else:
        fit = "yes"
    sentences = [_what_it_is(name, summary), _JUDGED[fit]]
    if summary.unreadable_labels == summary.images:
        sentences.append("None of its labels could be read.")
    elif not summary.labelled:
        sentences.append("It has no labels.")
    elif summary.buildings < _LEAST_BUILDINGS:
        sentences.append(f"With {summary.buildings:,} buildings it is small.")
    if errors or warnings:
        kinds = (("error", errors), ("warning", warnings))
        told = [plural(len(found), name) for name, found in kinds if found]
        sentences.append(f"The audit found {' and '.join(told)}.")
    return Verdict(fit, " ".join(sentences), _actions(summary, findings))


_JUDGED = {
    "yes": "It is fit to train on.",
    "with care": "It can be trained on, with care.",
    "no": "It is not fit to train on as it is.",
}


def _what_it_is(name: str, summary: Summary) -> str:
    gsd = "" if summary.gsd_m is None else f" at {summary.gsd_m.median:.2g} m per pixel"
    told = f"{name} holds {plural(summary.images, 'image')} ({summary.pixels / 1e6:,.1f} Mpx{gsd})"
    if summary.built_up is None:
        return f"{told}."
    return (
        f"{told} with {summary.buildings:,} buildings; "
        f"{summary.built_up.mean:.1%} of an image is built up on average, and "
        + (f"{summary.low_share:.0%}" if summary.low_share else "none")
        + " of the images hold next to no building."
    )


def _actions(summary: Summary, findings: Sequence[Finding]) -> tuple[str, ...]:
    """The remedies of the worst findings; then what is always worth doing."""
    worst = [f for f in findings if f.severity != "note" and f.remedy]
    # One remedy may help against several; it is told with the worst of them.
    first = {finding.remedy: finding for finding in reversed(worst)}
    remedies = [f"{f.title.rstrip('.')}. {f.remedy}" for f in worst if first[f.remedy] is f]
    usual = []
    if not (summary.labelled or summary.unreadable_labels):
        usual.append("Label some images: rooftrace label push sends them to Label Studio.")
    else:
        if summary.labelled and summary.buildings < _LEAST_BUILDINGS:
            usual.append("Add images: from other places rather than more of the same.")
        usual += _USUAL
    return tuple([*remedies, *usual][:_ACTIONS])
