"""A prediction as what a client asks for: GeoJSON, a mask, or a zip of all files."""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np

from rooftrace.core.errors import ExportError, GeoreferenceError
from rooftrace.core.types import Window
from rooftrace.io.legend import NODATA
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector import write_footprints
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.options import OUTPUTS, SceneOutput
from rooftrace.predict.result import Prediction
from rooftrace.rest.schemas import ClassOut, Figures
from rooftrace.vector.density_threshold import DEFAULT_THRESHOLD

__all__ = ["MEDIA_TYPES", "Answer", "Format", "encoded", "figures_of", "outputs_for"]

Format = Literal["geojson", "png", "zip"]

MEDIA_TYPES: dict[Format, str] = {
    "geojson": "application/geo+json",
    "png": "image/png",
    "zip": "application/zip",
}

_HEAD = b'{\n"type": "FeatureCollection",\n'
_LONGEST_STEM_BYTES = 120
_DATE = (1980, 1, 1, 0, 0, 0)


class Answer:
    """What is sent.

    Args:
        body: the bytes.
        headers: figures, and what the file may be called.
    """

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        self.body = body
        self.headers = headers


def outputs_for(form: Format, *, count: bool) -> tuple[SceneOutput, ...]:
    """What has to be made of an image for a form of answer.

    Args:
        form: that was asked for.
        count: whether buildings are to be counted for a mask, too: to outline them takes longer
            than the network does.
    """
    if form == "zip":
        return OUTPUTS
    if form == "geojson" or count:
        return ("mask", "polygons")
    return ("mask",)


def figures_of(prediction: Prediction, bundle: ModelBundle, *, counted: bool) -> Figures:
    """The figures of an image, without those of the moment, so that they are always the same.

    Args:
        prediction: of the image.
        bundle: that made it.
        counted: whether outlines were made.
    """
    summary = prediction.summary
    share = summary.built_up_share if summary.valid_pixels else float("nan")
    return Figures(
        buildings=summary.buildings if counted else None,
        built_up_share=summary.built_up_share,
        density=DEFAULT_THRESHOLD.classes(np.array([share])).tolist()[0],
        gsd_m=summary.gsd_m,
        threshold=summary.threshold,
        pixels=summary.pixels,
        valid_pixels=summary.valid_pixels,
        classes=[
            ClassOut(
                name=one.name, class_id=one.class_id, polygons=one.polygons if counted else None,
                pixels=one.pixels, share=one.share, area_m2=one.area_m2,
            )
            for one in summary.classes
        ],
        notes=list(summary.notes),
        model=bundle.spec.name,
        model_sha256=bundle.sha256,
    )  # fmt: skip


def encoded(prediction: Prediction, form: Format, figures: Figures) -> Answer:
    """The answer in the form that was asked for; the same prediction gives the same bytes.

    Raises:
        GeoreferenceError: GeoJSON of an image whose coordinate system has no longitude and
            latitude.
    """
    prediction = replace(prediction, name=_stem(prediction.name))
    make = {"geojson": _geojson, "png": _png, "zip": _zip}[form]
    with tempfile.TemporaryDirectory(prefix="rooftrace-") as folder:
        name, body = make(prediction, figures, Path(folder))
    return Answer(body, _headers(figures) | {"Content-Disposition": _disposition(name)})


def _geojson(prediction: Prediction, figures: Figures, folder: Path) -> tuple[str, bytes]:
    """What `rooftrace predict` writes, with more members."""
    crs = prediction.mask.grid.crs
    path = folder / f"{prediction.name}.geojson"
    try:
        write_footprints(path, prediction.outlines)
    except ExportError as error:
        if crs is None:
            raise
        raise GeoreferenceError(
            f"{prediction.name}: where it lies in {crs.name!r} there is no way to the longitude "
            "and latitude that GeoJSON has.",
            remedy="Ask for format=zip: its GeoPackage keeps the image's own coordinates.",
        ) from error
    written = path.read_bytes()
    if not written.startswith(_HEAD):
        raise ValueError(f"{path.name} begins with {written[:40]!r}, not with {_HEAD!r}")
    members = {
        "coordinates": "pixels" if crs is None else "longitude-latitude",
        "figures": figures.model_dump(mode="json"),
    }
    lines = "".join(f'"{key}": {json.dumps(value)},\n' for key, value in members.items())
    return path.name, b"".join([_HEAD, lines.encode(), written[len(_HEAD) :]])


def _png(prediction: Prediction, figures: Figures, folder: Path) -> tuple[str, bytes]:
    mask = prediction.mask
    path = folder / f"{prediction.name}_mask.png"
    with mask_sink(path, mask.grid, prediction.legend) as sink:
        values = np.where(mask.valid, mask.data, np.uint8(NODATA))
        sink.write(Window.whole(values.shape), values)
    return path.name, path.read_bytes()


def _zip(prediction: Prediction, figures: Figures, folder: Path) -> tuple[str, bytes]:
    prediction.save(folder)
    summary = folder / "summary.json"
    summary.write_text(figures.model_dump_json(indent=1) + "\n", encoding="utf-8")
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(path.name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), compresslevel=1)
    return f"{prediction.name}.zip", whole.getvalue()


def _headers(figures: Figures) -> dict[str, str]:
    """The figures for clients that get no JSON."""
    told = {
        "Rooftrace-Buildings": figures.buildings,
        "Rooftrace-Built-Up-Share": round(figures.built_up_share, 6),
        "Rooftrace-Density": figures.density,
        "Rooftrace-Gsd-M": figures.gsd_m,
        "Rooftrace-Threshold": figures.threshold,
        "Rooftrace-Valid-Pixels": figures.valid_pixels,
        # As JSON a sentence stays within ASCII, and within one line.
        "Rooftrace-Notes": json.dumps(figures.notes) if figures.notes else None,
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def _disposition(name: str) -> str:
    """RFC 6266, whatever letters a name has."""
    if name.isascii():
        return f'inline; filename="{name}"'
    return f"inline; filename*=utf-8''{quote(name, safe='')}"


def _stem(name: str) -> str:
    """A name that leaves room for endings in the 255 bytes that a file's may have."""
    return name.encode()[:_LONGEST_STEM_BYTES].decode(errors="ignore") or "image"
