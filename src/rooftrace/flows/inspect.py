"""`rooftrace inspect`: audit a set, and write its page of summary, findings, pictures and charts.

The page is one HTML file that needs no network.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from rooftrace.audit.facts import SceneFacts
from rooftrace.audit.report import Audit, SetAudit, run_audit
from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import Scene, Window
from rooftrace.io.bands import in_colours, parse_bands
from rooftrace.io.files import write_atomically
from rooftrace.io.html import check_page_path, draw_histogram, render_page
from rooftrace.io.legend import class_colours
from rooftrace.io.picture import PagePicture, as_rgb, data_url, encoded
from rooftrace.io.pixels import prepare
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import Split, read_split

_RGB = ("red", "green", "blue")


def run_inspect(
    data: SourceConfig,
    against: SourceConfig | None = None,
    out: Path | None = None,
    *,
    split: Path | None = None,
    bands: str | None = None,
    stretch: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Audit a set, and write the page.

    Args:
        data: Configuration of the set, of any kind, with or without labels.
        against: Configuration of a set to compare with, such as the images to predict.
        out: HTML file to write; None to write none.
        split: Split file of the set; default the data's own parts.
        bands: Bands of the images of both sets, by number or name; default: all bands.
        stretch: Way in which values are stretched to 8 bits; `auto` without `bands` leaves them as
            they are.

    Raises:
        ConfigError: `out` is a folder, or its name is not that of an HTML file; `split` is no
            split file.
        DataError: The data cannot be opened. Problems of single images or labels are findings.
        ExportError: The page cannot be written.
    """
    if out is not None:
        check_page_path(out, "audit.html")
    source, other = open_source(data), None if against is None else open_source(against)
    if bands is not None or stretch != "auto":
        prepared = partial(_prepared, bands, stretch)
        source = source.mapped(prepared)
        other = None if other is None else other.mapped(prepared)
    parts = None
    if split is not None:
        matched = read_split(split).match(source.ids, path=split, data=data.path)
        parts = Split(parts=matched.parts)
    audit = run_audit(source, other, split=parts, progress=progress)
    if out is not None:
        write_atomically(out, audit_page(audit).encode())
    return audit


def _prepared(bands: str | None, stretch: str, scene: Scene) -> Scene:
    """Return a scene with chosen bands, and with values of 8 bits."""
    count = len(parse_bands(bands) or _RGB)
    wanted = _RGB if count == len(_RGB) else [f"band {number + 1}" for number in range(count)]
    image = prepare(
        scene.image, wanted, np.dtype(np.uint8), [(0.0, 1.0)] * count, bands=bands, stretch=stretch
    )
    return replace(scene, image=image)


_SIDE_PX = 232
"""Longer side of a picture in pixels."""

_LARGEST_READ_PX = 1536
"""Maximum side in pixels of the part of a scene that is read for a picture."""

_TINT = 0.42
"""Weight of the class colours in a picture."""

_OUTLINE = (255, 214, 10)
_NODATA = np.array([[[92, 92, 98]], [[74, 74, 80]]], dtype=np.uint8)
_QUALITY = 82

_PER_SHEET = 8
"""Number of scenes on a contact sheet."""

_PER_FINDING = 6
"""Number of scenes shown with a finding."""

_SHEETS = {
    "strangest": "Most different from the others",
    "emptiest": "Least built up",
    "fullest": "Most built up",
    "typical": "From the middle",
}
"""Title of each contact sheet."""


def choose_scenes(
    facts: Sequence[SceneFacts], building_class: int, count: int
) -> dict[str, dict[str, str]]:
    """Return up to `count` scenes for each contact sheet: reasons by id, by the name of the sheet.

    The strangest scenes lie farthest from the median of the set in brightness, contrast,
    saturation, sharpness or valid share, in units of the median absolute deviation.
    """
    read = [f for f in facts if not f.image_error]
    shares = {f.id: share for f in read if (share := f.built_up(building_class)) is not None}
    by_share = sorted(shares, key=lambda i: (shares[i], i))
    empty = [i for i in by_share if shares[i] == 0] or by_share[:count]
    fullest = [i for i in by_share[::-1] if shares[i] > 0][:count]
    middle = [i for i in by_share if shares[i] > 0]

    def with_shares(ids: Sequence[str]) -> dict[str, str]:
        return {i: f"{shares[i]:.1%} built up" for i in ids}

    sheets = {
        "strangest": _strangest(read, count),
        "emptiest": with_shares(_spread(empty, count)),
        "fullest": with_shares(fullest),
        "typical": with_shares(_spread(middle or by_share, count)),
    }
    if not shares:
        sheets["typical"] = dict.fromkeys(_spread([f.id for f in read], count), "")
    return {name: choices for name, choices in sheets.items() if choices}


def _spread(ids: Sequence[str], count: int) -> list[str]:
    if len(ids) <= count:
        return list(ids)
    places = np.linspace(0, len(ids) - 1, count + 2).round().astype(int)[1:-1]
    return [ids[i] for i in places]


def _strangest(read: Sequence[SceneFacts], count: int) -> dict[str, str]:
    if len(read) < 3:
        return {}
    names = ("brightness", "contrast", "saturation", "sharpness", "valid share")
    values = np.array(
        [[f.brightness, f.contrast, f.saturation, f.sharpness, f.valid_share] for f in read]
    )
    compared = values.copy()
    # Sharpness is compared as a ratio, the others as differences.
    compared[:, 3] = np.log2(values[:, 3] + 0.01)
    away = compared - np.median(compared, axis=0)
    # The limits keep tiny differences among equal scenes from counting as large.
    away /= np.maximum(np.median(np.abs(away), axis=0), (0.01, 0.01, 0.01, 0.1, 0.02))
    worst = np.abs(away).argmax(axis=1)
    order = np.argsort(-np.abs(away).max(axis=1), kind="stable")[:count]
    usual = np.median(values, axis=0)
    found = {}
    for index in order:
        feature = int(worst[index])
        if abs(away[index, feature]) < 3:
            break
        side = "low" if away[index, feature] < 0 else "high"
        value = values[index, feature]
        found[read[index].id] = f"{side} {names[feature]}: {value:.2f}, usual {usual[feature]:.2f}"
    return found


def draw_scene(scene: Scene, building_class: int) -> str:
    """Return a JPEG of a scene as a `data:` address, with its label drawn in.

    Buildings are outlined and all classes tinted; nodata is drawn as grey stripes. Only the middle
    of a large scene is shown. A scene that cannot be read gives an empty string, and a label that
    cannot be read is left out; findings report both.
    """
    try:
        window = Window.middle(scene.image.grid.shape, _LARGEST_READ_PX)
        raster = in_colours(scene.image).read(window)
    except RooftraceError:
        return ""
    mask = None
    if scene.label is not None:
        with suppress(RooftraceError):
            mask = scene.label.read(window)
    shown = as_rgb(raster.data, raster.valid)
    scale = _SIDE_PX / max(shown.shape[:2])
    size = [max(1, round(side * scale)) for side in shown.shape[1::-1]]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small: NDArray[np.uint8] = np.asarray(cv2.resize(shown, size, interpolation=way), np.uint8)
    valid = cv2.resize(raster.valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    stripes = np.broadcast_to(
        _NODATA[(np.add.outer(np.arange(size[1]), np.arange(size[0])) // 4) % 2, 0], small.shape
    )
    small = np.where(valid[..., None], small, stripes)
    if mask is not None:
        drawn = cv2.resize(mask.data, size, interpolation=cv2.INTER_NEAREST)
        classes = np.asarray(drawn, dtype=np.uint8)
        _draw_label(small, classes, building_class)
    # Colour keeps its full resolution, because outlines are one pixel wide.
    return data_url(encoded(Image.fromarray(small), "JPEG", quality=_QUALITY, subsampling=0))


def _draw_label(
    picture: NDArray[np.uint8], classes: NDArray[np.uint8], building_class: int
) -> None:
    """Tint all classes except the background and outline the buildings, in place."""
    drawn = classes > 0
    colours = class_colours()[classes][..., :3]
    mixed = picture * (1 - _TINT) + colours * _TINT
    picture[drawn] = mixed[drawn].astype(np.uint8)
    found, _ = cv2.findContours(
        (classes == building_class).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, found, -1, _OUTLINE, 1)


def audit_page(audit: Audit) -> str:
    """Return the page; its pictures are read from the scenes again."""
    data = audit.data
    pictures = _PictureCache([data] + ([audit.against] if audit.against is not None else []))
    return render_page(
        "audit.html", {"area": _area}, audit=audit, data=data, other=audit.against,
        summary=audit.verdict,
        findings=[(finding, pictures.of(finding.ids[:_PER_FINDING])) for finding in audit.findings],
        sheets=_sheets(data, pictures),
        other_sheets=[] if audit.against is None else _sheets(audit.against, pictures),
        charts=_charts(audit), classes=_classes(data),
    )  # fmt: skip


class _PictureCache:
    """Pictures of scenes by id, each drawn once."""

    def __init__(self, sets: Sequence[SetAudit]) -> None:
        self._entries = [(s.source, {e.id: e for e in s.source.entries}) for s in sets]
        self._drawn: dict[tuple[int, str], str] = {}

    def of(self, ids: Sequence[str]) -> list[PagePicture]:
        """Return the pictures of scenes, each from the first set that has it."""
        pictures = [self.one(scene_id, scene_id) for scene_id in ids]
        return [picture for picture in pictures if picture is not None]

    def one(
        self, scene_id: str, caption: str, source: SceneSet | None = None
    ) -> PagePicture | None:
        """Return a picture; None if the scene cannot be opened, which is a finding of its own."""
        for number, (scenes, entries) in enumerate(self._entries):
            if scene_id in entries and (source is None or source is scenes):
                key = number, scene_id
                with suppress(RooftraceError):
                    if key not in self._drawn:
                        scene = scenes.open_scene(entries[scene_id])
                        self._drawn[key] = draw_scene(scene, scenes.building_class)
                    return PagePicture(scene_id, caption, self._drawn[key])
                return None
        return None


def _sheets(data: SetAudit, pictures: _PictureCache) -> list[tuple[str, list[PagePicture]]]:
    chosen = choose_scenes(data.facts, data.source.building_class, _PER_SHEET)
    return [
        (_SHEETS[name], [s for c in reasons.items() if (s := pictures.one(*c, data.source))])
        for name, reasons in chosen.items()
    ]


def _classes(data: SetAudit) -> list[tuple[str, float, str]]:
    """Return the name, the share of the pixels and the colour of each class."""
    colours = class_colours()
    return [
        (name, share, "#{:02x}{:02x}{:02x}".format(*colours[index, :3].tolist()))
        for index, (name, share) in enumerate(zip(data.source.classes, data.statistics.class_share))
    ]


def _charts(audit: Audit) -> dict[str, Markup]:
    """Return histograms of the labels, with the other set as an outline if it has labels."""
    mine = audit.data.statistics
    other = None if audit.against is None else audit.against.statistics
    charts = {}
    if mine.built_up_histogram is not None:
        over = None if other is None else other.built_up_histogram
        charts["built_up"] = draw_histogram(
            mine.built_up_histogram.edges,
            mine.built_up_histogram.counts,
            None if over is None else over.counts,
            x="built-up share of an image",
            percent=True,
        )
    for name, shown, unit in (
        ("size_px", mine.size_px_histogram, "px"),
        ("size_m2", mine.size_m2_histogram, "m²"),
    ):
        if shown is not None:
            charts[name] = draw_histogram(
                shown.edges,
                shown.counts,
                x=f"area of a building, {unit}",
                y="buildings",
                logarithmic=True,
            )
    return charts


def _area(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
