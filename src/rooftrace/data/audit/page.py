"""The audit as one HTML page that needs no network: figures, findings, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from markupsafe import Markup

from rooftrace.data.audit.charts import histogram
from rooftrace.data.audit.facts import SceneFacts
from rooftrace.data.audit.report import Audit, SetAudit
from rooftrace.data.audit.sheet import Choice, choose, picture
from rooftrace.data.audit.summary import Histogram
from rooftrace.data.source import SceneSet
from rooftrace.io.legend import class_colours
from rooftrace.io.page import render_page

__all__ = ["render"]

_ON_A_SHEET = 8
_ON_A_FINDING = 6
_SHOWN_SHARE = 0.95
_ROWS = 60
"""Scenes that the table at the end lists; the JSON has all."""

_SHEETS = {
    "strangest": "What differs most from the rest",
    "emptiest": "Emptiest",
    "fullest": "Fullest",
    "typical": "From the middle",
}


@dataclass(frozen=True)
class _Shown:
    id: str
    caption: str
    address: str


def render(audit: Audit) -> str:
    """The whole page, text in UTF-8; pictures are read from the scenes again."""
    data = audit.data
    pictures = _Pictures([data] + ([audit.against] if audit.against is not None else []))
    return render_page(
        "audit.html",
        {"number": _number, "share": _share, "area": _area},
        audit=audit,
        data=data,
        other=audit.against,
        verdict=audit.verdict,
        findings=[
            (finding, pictures.of(finding.ids[:_ON_A_FINDING])) for finding in audit.findings
        ],
        sheets=_sheets(data, pictures),
        other_sheets=[] if audit.against is None else _sheets(audit.against, pictures),
        charts=_charts(audit),
        pixel_charts=_pixel_charts(audit),
        rows=_table(data),
        classes=_classes(data),
        version=metadata.version("rooftrace"),
    )


class _Pictures:
    """Pictures of scenes by id, each drawn once."""

    def __init__(self, sets: Sequence[SetAudit]) -> None:
        self._sets = [s.source for s in sets]
        self._entries = [{e.id: e for e in s.source.entries} for s in sets]
        self._drawn: dict[tuple[int, str], str] = {}

    def of(self, ids: Sequence[str]) -> list[_Shown]:
        """Those of the first set that has them."""
        return [shown for i in ids if (shown := self.one(i, i)) is not None]

    def one(self, scene_id: str, caption: str, source: SceneSet | None = None) -> _Shown | None:
        for number, (known, entries) in enumerate(zip(self._sets, self._entries)):
            if scene_id not in entries or (source is not None and source is not known):
                continue
            key = number, scene_id
            if key not in self._drawn:
                scene = known.open_scene(entries[scene_id])
                self._drawn[key] = picture(scene, known.building_class)
            return _Shown(scene_id, caption, self._drawn[key])
        return None


def _sheets(data: SetAudit, pictures: _Pictures) -> list[tuple[str, list[_Shown]]]:
    chosen: Mapping[str, Sequence[Choice]] = choose(
        data.facts, data.source.building_class, _ON_A_SHEET
    )
    return [
        (
            _SHEETS[name],
            [s for c in choices if (s := pictures.one(c.id, c.reason, data.source)) is not None],
        )
        for name, choices in chosen.items()
    ]


def _classes(data: SetAudit) -> list[tuple[str, float, str]]:
    """Name, share of the pixels, and the colour that the contact sheets tint with."""
    colours = class_colours()
    return [
        (name, share, "#{:02x}{:02x}{:02x}".format(*colours[index, :3].tolist()))
        for index, (name, share) in enumerate(zip(data.source.classes, data.summary.class_share))
    ]


def _charts(audit: Audit) -> dict[str, Markup]:
    """Histograms of the labels; over the other set's where both have them."""
    mine = audit.data.summary
    other = None if audit.against is None else audit.against.summary
    charts = {}
    if mine.built_up_histogram is not None:
        charts["built_up"] = histogram(
            mine.built_up_histogram,
            None if other is None else other.built_up_histogram,
            x="built-up share of an image",
            percent=True,
        )
    for name, shown, unit in (
        ("size_px", mine.size_px_histogram, "px"),
        ("size_m2", mine.size_m2_histogram, "m²"),
    ):
        if shown is not None:
            charts[name] = histogram(
                shown, x=f"area of a building, {unit}", y="buildings", logarithmic=True
            )
    return charts


def _pixel_charts(audit: Audit) -> list[Markup]:
    charts = []
    for name in ("brightness", "contrast", "saturation", "sharpness"):
        values = _values(audit.data.facts, name)
        others = [] if audit.against is None else _values(audit.against.facts, name)
        both = [*values, *others]
        if not both:
            continue
        # What lies beyond is counted in the last bar: a few would press all others into the first.
        high = max(float(np.quantile(both, _SHOWN_SHARE)) * 1.1, 1e-3)
        edges = np.linspace(0, high, 33)
        shown = Histogram.of(np.minimum(values, edges[-1]), edges)
        over = Histogram.of(np.minimum(others, edges[-1]), edges) if others else None
        charts.append(histogram(shown, over, x=name))
    return charts


def _values(facts: Sequence[SceneFacts], name: str) -> list[float]:
    return [getattr(f, name) for f in facts if not f.image_error]


def _table(data: SetAudit) -> list[dict[str, Any]]:
    building = data.source.building_class
    ordered = sorted(
        data.facts,
        key=lambda f: (not (f.image_error or f.label_error), -(f.built_up(building) or 0), f.id),
    )
    return [
        {
            "id": f.id,
            "size": f"{f.shape_yx[0]} × {f.shape_yx[1]}",
            "gsd": f.gsd_m,
            "valid": f.valid_share,
            "built_up": f.built_up(building),
            "buildings": None if f.label is None else len(f.label.buildings_px),
            "problem": f.image_error or f.label_error,
        }
        for f in ordered[:_ROWS]
    ]


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _area(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
