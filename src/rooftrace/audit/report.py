"""The audit of a set: its figures, its findings, and a summary of what to do first.

Two sets are compared in scale, bands, pixel type and nodata.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from rooftrace.audit.checks import findings_of, worst_first
from rooftrace.audit.duplicates import duplicate_findings, find_copies
from rooftrace.audit.facts import (
    MOST_IDS,
    Finding,
    LabelFacts,
    Offset,
    SceneFacts,
    SetStatistics,
    compute_statistics,
)
from rooftrace.audit.measure import measure_set
from rooftrace.audit.offset import estimate_offsets, offset_findings
from rooftrace.audit.overlaps import overlap_findings
from rooftrace.audit.scale import ScaleEstimate, ScaleShift, estimate_scale
from rooftrace.core.report import Report
from rooftrace.core.text import plain_number, plural
from rooftrace.core.types import Progress
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import PARTS, Split, own_split

_LEAST_FLAT = 0.02
"""Share of an image from which unmarked nodata matters."""

_SAME_SCALE = 1.15
"""Factor within which two scales are called the same; every augmentation covers it."""


@dataclass(frozen=True)
class _SetForm:
    """Size, bands and resolution of the images of a set that could be read.

    `bands` and `dtypes` come with the number of images of each; sizes and metres per pixel are
    medians.
    """

    images: int
    height_px: float
    width_px: float
    bands: tuple[tuple[int, int], ...]
    dtypes: tuple[tuple[str, int], ...]
    gsd_m: float | None


@dataclass(frozen=True)
class SetComparison(Report):
    """Two sets side by side: A is the training data, B the images that the model is for.

    Args:
        a, b: Form of the images of each set.
        scale: Scale of B relative to A.
        unmarked: Ids of the images of B with unmarked nodata.
        unmarked_colour: The commonest colour of that nodata, a value per band.
    """

    a: _SetForm
    b: _SetForm
    scale: ScaleShift
    unmarked: tuple[str, ...] = ()
    unmarked_colour: tuple[float, ...] = ()

    @property
    def rows(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Name and cells of the comparison table, one row for each figure."""
        rows = [
            ("images", (f"{self.a.images:,}", f"{self.b.images:,}")),
            ("size, median (px)", (_size(self.a), _size(self.b))),
            ("bands", (_list_names(self.a.bands), _list_names(self.b.bands))),
            ("pixel values", (_list_names(self.a.dtypes), _list_names(self.b.dtypes))),
            ("metres per pixel", (_metres(self.a.gsd_m), _metres(self.b.gsd_m))),
        ]
        rows += [
            (
                f"scale, by {each.method}",
                ("1", f"{_format_factor(each)}{'' if each.sure else ' (not sure)'}"),
            )
            for each in self.scale.estimates
        ]
        return tuple(rows)


def compare_sets(
    a: Sequence[SceneFacts], b: Sequence[SceneFacts], scale: ScaleShift
) -> SetComparison:
    """Compare the figures of two sets.

    Scenes whose image could not be read or has no valid pixel are left out.
    """
    a = [facts for facts in a if not facts.image_error and facts.valid_share > 0]
    b = [facts for facts in b if not facts.image_error and facts.valid_share > 0]
    unmarked = [facts for facts in b if facts.flat_share > _LEAST_FLAT]
    colours = Counter(facts.flat_colour for facts in unmarked if facts.flat_colour is not None)
    colour = max(colours, key=colours.__getitem__, default=())
    return SetComparison(_form(a), _form(b), scale, tuple(one.id for one in unmarked), colour)


def _form(facts: Sequence[SceneFacts]) -> _SetForm:
    shapes = np.array([f.shape_yx for f in facts], dtype=float).reshape(-1, 2)
    height, width = np.median(shapes, axis=0) if len(shapes) else (0.0, 0.0)
    gsds = [f.gsd_m for f in facts if f.gsd_m is not None]
    return _SetForm(
        images=len(facts),
        height_px=float(height),
        width_px=float(width),
        bands=tuple(Counter(f.bands for f in facts).most_common()),
        dtypes=tuple(Counter(f.dtype for f in facts).most_common()),
        gsd_m=float(np.median(gsds)) if gsds else None,
    )


def _format_factor(estimate: ScaleEstimate) -> str:
    """Return a factor with its interval: `2.10 (1.80 to 2.45)`."""
    if estimate.high - estimate.low < 0.005 * estimate.factor:
        return f"{estimate.factor:.2f}"
    return f"{estimate.factor:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _size(form: _SetForm) -> str:
    return f"{form.height_px:.0f} × {form.width_px:.0f}"


def _list_names(counts: Sequence[tuple[object, int]]) -> str:
    """Return the names of counts as text, the commonest first."""
    return ", ".join(str(name) for name, _ in counts) or "none"


def _metres(gsd_m: float | None) -> str:
    return "unknown" if gsd_m is None else plain_number(gsd_m)


def shift_findings(comparison: SetComparison) -> list[Finding]:
    """Return what to know before a model that is trained on set A is used on set B."""
    return [*_form_findings(comparison), *_scale_findings(comparison)]


def _form_findings(comparison: SetComparison) -> Iterator[Finding]:
    a, b = comparison.a, comparison.b
    if a.bands and b.bands and {n for n, _ in b.bands} - {n for n, _ in a.bands}:
        yield Finding(
            "shift.bands",
            "error",
            f"The other images have {_list_names(b.bands)} bands, these {_list_names(a.bands)}",
            "A model reads a fixed number of bands.",
            "Convert both sets to the same bands before training.",
        )
    if a.dtypes and b.dtypes and {n for n, _ in b.dtypes} - {n for n, _ in a.dtypes}:
        yield Finding(
            "shift.dtype",
            "warning",
            f"The other images are {_list_names(b.dtypes)}, these {_list_names(a.dtypes)}",
            "The same ground then has other pixel values than in the training data.",
            "Convert both sets to the same pixel type with the same stretch.",
        )
    if comparison.unmarked:
        yield Finding(
            "shift.nodata",
            "warning",
            f"Unmarked nodata in {len(comparison.unmarked)} of {b.images} other images",
            "A model would look for buildings there.",
            "Declare the colour as nodata of the other set: --against-set "
            f"nodata=[{','.join(f'{value:g}' for value in comparison.unmarked_colour)}].",
            comparison.unmarked[:MOST_IDS],
            len(comparison.unmarked),
        )


def _scale_findings(comparison: SetComparison) -> Iterator[Finding]:
    scale = comparison.scale
    best = scale.best
    if best is None:
        factors = " ".join(f"By {e.method}: {_format_factor(e)}." for e in scale.estimates)
        yield Finding(
            "shift.scale.unknown",
            "note",
            "The scale of the other images relative to these is unknown",
            " ".join([factors, *(each.detail for each in scale.estimates)]).strip()
            or "Too few images could be read, or they are too small.",
            "Find out the metres per pixel of both sets and give them: --gsd for this set, "
            "--against-set gsd_m=… for the other.",
        )
        return
    if not (1 / _SAME_SCALE <= best.factor <= _SAME_SCALE):
        yield Finding(
            "shift.scale",
            "warning",
            f"The other images are {_times(best)} than these",
            f"Estimated by {best.method}. {best.detail} A model finds buildings less "
            "reliably if their size in pixels changes.",
            _scale_remedy(comparison, best),
        )
    for other in scale.estimates:
        differs = other.low > best.high * _SAME_SCALE or other.high < best.low / _SAME_SCALE
        if other.sure and differs:
            yield Finding(
                "shift.scale.contradiction",
                "warning",
                f"Two estimates of the scale contradict each other: {_format_factor(best)} by "
                f"{best.method}, {_format_factor(other)} by {other.method}",
                other.detail,
                "Check the metres per pixel of both sets, in their files and in the "
                "configuration, and check that both show the same kind of place.",
            )


def _scale_remedy(comparison: SetComparison, best: ScaleEstimate) -> str:
    """Return TOML lines, in metres if they are known, otherwise as a range of scales."""
    gsd_a = comparison.scale.gsd_a_m
    if gsd_a is not None:
        gsd_b = comparison.scale.gsd_b_m or gsd_a * best.factor
        coarse = max(gsd_a, gsd_b)
        given = f" Predict with --gsd {plain_number(gsd_b, 2)}."
        predict = "" if comparison.scale.gsd_b_m else given
        finest_m, coarsest_m = (plain_number(one, 2) for one in (coarse / 1.25, coarse * 1.25))
        return (
            "Train at the coarser scale; finer images are resampled to it: "
            f"gsd_m = {plain_number(coarse, 2)}; "
            f"[augment] gsd_range_m = [{finest_m}, {coarsest_m}].{predict}"
        )
    low, high = best.low / 1.1, best.high * 1.1
    finer = "" if best.factor > 1 else " Enlarging adds no detail; finer images would be better."
    return (
        f"Train on samples that cover {best.factor:.2g} times the length along each side: "
        f"[augment] scale_range = [{low:.2g}, {high:.2g}]; "
        f"crop_px = {_crop_px(comparison, high)}.{finer}"
    )


def _crop_px(comparison: SetComparison, largest_factor: float) -> int:
    """Return the largest usual crop that images of A still fill at the coarsest scale drawn."""
    side = min(comparison.a.height_px, comparison.a.width_px) / max(largest_factor, 1.0)
    return int(np.clip(side // 32 * 32, 64, 512))


def _times(estimate: ScaleEstimate) -> str:
    """Return a factor in words: `2.1 times coarser (1.8 to 2.5)`."""
    factor, low, high = estimate.factor, estimate.low, estimate.high
    word = "coarser"
    if factor < 1:
        factor, low, high, word = 1 / factor, 1 / high, 1 / low, "finer"
    spread = f" ({low:.1f} to {high:.1f})" if f"{low:.1f}" != f"{high:.1f}" else ""
    return f"{factor:.1f} times {word}{spread}"


_LEAST_BUILDINGS = 300
"""Number of buildings below which a set is called small (a rule of thumb). A network trained on
fewer learns these buildings by heart instead of learning what a building is."""

_ACTIONS = 3
"""Number of actions in a summary."""

_SET_ASIDE = "Set a test part aside before the first training: rooftrace split DATA -o split.json"

_BY_BLOCK = f"{_SET_ASIDE}, with --by group or, if images lie side by side, --by block."

_WITHOUT_BLOCKS = (
    f"{_SET_ASIDE}. Keep images of the same place together: --by group, with --group-pattern if "
    "they are in one folder."
)
"""The first action if an image has no georeference, without which there are no blocks."""

_USUAL_ACTIONS = (
    "Look at the contact sheets that -o writes. A wrong label is easier to see than to compute.",
    "Train a first model, then look at its worst images: rooftrace evaluate -o.",
)

Fitness = Literal["yes", "with care", "no"]

_FITNESS: dict[Fitness, str] = {
    "yes": "It is fit to train on.",
    "with care": "It can be trained on, with care.",
    "no": "It is not fit to train on as it is.",
}


@dataclass(frozen=True)
class AuditSummary:
    """The summary at the top of an audit.

    Args:
        fit: `yes`; `with care` if a model can be trained but will be worse than necessary, or its
            scores will be too good; `no`.
        paragraph: A few sentences.
        actions: Three things to do, the most useful first.
    """

    fit: Fitness
    paragraph: str
    actions: tuple[str, ...]


def summarize_audit(
    name: str, statistics: SetStatistics, findings: Sequence[Finding], *, has_test: bool = False
) -> AuditSummary:
    """Return the summary of a set."""
    errors = [f for f in findings if f.severity == "error"]
    warnings = [f for f in findings if f.severity == "warning"]
    is_small = statistics.buildings < _LEAST_BUILDINGS
    fit: Fitness
    if errors or not statistics.labelled:
        fit = "no"
    elif warnings or is_small:
        fit = "with care"
    else:
        fit = "yes"
    sentences = [_describe_set(name, statistics), _FITNESS[fit]]
    if statistics.unreadable_labels == statistics.images:
        sentences.append("None of its labels could be read.")
    elif not statistics.labelled:
        sentences.append("It has no labels.")
    elif is_small:
        sentences.append(f"With {plural(statistics.buildings, 'building')}, it is a small set.")
    if errors or warnings:
        kinds = (("error", errors), ("warning", warnings))
        counts = [plural(len(found), kind) for kind, found in kinds if found]
        sentences.append(f"The audit found {' and '.join(counts)}.")
    return AuditSummary(fit, " ".join(sentences), _actions(statistics, findings, has_test=has_test))


def _describe_set(name: str, statistics: SetStatistics) -> str:
    gsd_m = statistics.gsd_m
    gsd = "" if gsd_m is None else f" at {plain_number(gsd_m.median, 2)} m per pixel"
    size = f"{plural(statistics.images, 'image')} ({statistics.pixels / 1e6:,.1f} Mpx{gsd})"
    if statistics.built_up is None:
        return f"{name} holds {size}."
    empty = f"{statistics.low_share:.0%}" if statistics.low_share else "none"
    return (
        f"{name} holds {size} with {plural(statistics.buildings, 'building')}. On average "
        f"{statistics.built_up.mean:.1%} of an image is built up, and {empty} of the images have a "
        "built-up share of 1 % or less."
    )


def _actions(
    statistics: SetStatistics, findings: Sequence[Finding], *, has_test: bool
) -> tuple[str, ...]:
    """Return the remedies of the worst findings, followed by what is always worth doing."""
    worst = [f for f in findings if f.severity != "note" and f.remedy]
    # One remedy may help against several findings. It is listed once, with the worst of them.
    first = {finding.remedy: finding for finding in reversed(worst)}
    # Which values or colours a label has, says its error.
    details = {f.remedy: f"{f.detail} " for f in worst if f.key == "label.unreadable"}
    remedies = [
        f"{f.title.rstrip('.')}. {details.get(f.remedy, '')}{f.remedy}"
        for f in worst if first[f.remedy] is f
    ]  # fmt: skip
    usual = []
    if not (statistics.labelled or statistics.unreadable_labels):
        usual.append("Label some images: rooftrace label push sends them to Label Studio.")
    else:
        if statistics.labelled and statistics.buildings < _LEAST_BUILDINGS:
            usual.append("Add images, from other places rather than more of the same.")
        has_blocks = statistics.georeferenced == statistics.images
        if not has_test:
            usual.append(_BY_BLOCK if has_blocks else _WITHOUT_BLOCKS)
        usual += _USUAL_ACTIONS
    return tuple([*remedies, *usual][:_ACTIONS])


@dataclass(frozen=True)
class SetAudit:
    """The figures of one set.

    Args:
        source: The set, including its scenes without a label.
        facts: Facts of each scene, in the order of the set.
        statistics: Figures of the whole set.
        offsets: Offsets of the scenes on which the place of the label was estimated.
    """

    source: SceneSet
    facts: tuple[SceneFacts, ...]
    statistics: SetStatistics
    offsets: tuple[Offset, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.source.name,
            "kind": self.source.kind,
            "reading": self.source.reading,
            "classes": list(self.source.classes),
            "building": self.source.classes[self.source.building_class],
            "notes": list(self.source.notes),
            "summary": self.statistics.to_json(),
            "offsets": [asdict(offset) for offset in self.offsets],
            "scenes": [_scene_json(f) for f in self.facts],
        }


@dataclass(frozen=True)
class Audit(Report):
    """The result of `rooftrace inspect`; its keys in JSON are a contract.

    Args:
        verdict: Main facts, and what to do first.
        findings: All findings, the worst first.
        data: The set.
        against: The other set, if one was given.
        comparison: Comparison of the two sets.
    """

    verdict: AuditSummary
    findings: tuple[Finding, ...]
    data: SetAudit
    against: SetAudit | None
    comparison: SetComparison | None


def run_audit(
    source: SceneSet,
    against: SceneSet | None = None,
    *,
    split: Split | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Measure every scene of a set, and of another set to compare it with.

    A scene that cannot be read is a finding, not an error.

    Args:
        source: The set, usually the training data.
        against: The set to compare with, usually the images that the model is for. It needs no
            labels.
        split: Parts of the set; default the data's own, see `labels.split.own_split`.
        progress: Function called with the number of finished scenes and the number of all scenes.
    """
    own = split or own_split(source.ids)
    if own is not None and split is None:
        note = own.own_note(source.name, "finetune and train use them.")
        source = replace(source, notes=(*source.notes, note))
    total = sum(_count(s) for s in (source, against) if s is not None)
    first = _measure(source, 0, total, progress)
    second = None if against is None else _measure(against, _count(source), total, progress)
    found = [
        *findings_of(first.facts, first.source),
        *offset_findings(first.offsets, first.source.label_shift_px),
        *duplicate_findings(
            first.facts,
            None if second is None else second.facts,
            part_of=None if own is None else own.part_of,
        ),
    ]
    if own is not None:
        ordered = [part for part in dict.fromkeys((*PARTS, *own.parts)) if part in own.parts]
        parts = {part: source.subset(own.parts[part]) for part in ordered}
        pairs, ids = find_copies(first.facts), [one.id for one in first.facts]
        copies = [(ids[i], ids[j]) for i, j in zip(pairs.first.tolist(), pairs.second.tolist())]
        found += overlap_findings("leakage.overlap", parts, copies)
    if second is not None:
        known = {finding.key: finding.count for finding in found}.get("copies.across", 0)
        sets = {"this set": first.source, "the other set": second.source}
        found += overlap_findings("leakage.across", sets, known=known)
    comparison = None
    if second is not None:
        # Of the other set they are notes, because nothing is trained on it.
        found += [
            replace(
                finding,
                key=f"other.{finding.key}",
                severity="note",
                title=f"{second.source.name}: {finding.title}",
            )
            for finding in findings_of(second.facts, second.source)
            if finding.severity != "note"
        ]
        comparison = compare_sets(
            first.facts, second.facts, estimate_scale(first.source, second.source)
        )
        found += shift_findings(comparison)
    found = worst_first(found)
    has_test = own is not None and "test" in own.parts
    summary = summarize_audit(source.name, first.statistics, found, has_test=has_test)
    return Audit(summary, tuple(found), first, second, comparison)


def _count(source: SceneSet) -> int:
    return len(source.entries) + len(source.unlabelled)


def _measure(source: SceneSet, before: int, total: int, progress: Progress | None) -> SetAudit:
    def report(done: int, _of: int) -> None:
        if progress is not None:
            progress(before + done, total)

    whole = source.with_unlabelled()
    facts = measure_set(whole, progress=report)
    statistics = compute_statistics(facts, len(source.classes), source.building_class)
    offsets = estimate_offsets(source, facts)
    return SetAudit(whole, facts, statistics, offsets)


def _scene_json(facts: SceneFacts) -> dict[str, Any]:
    values = asdict(facts)
    del values["thumbnail"]
    values["phash"] = f"{facts.phash:016x}"
    if isinstance(facts.label, LabelFacts):
        values["label"]["buildings_px"] = facts.label.buildings_px.tolist()
    return values
