"""What an audit knows: plain figures, of which the page and the JSON are two views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_IDS", "Finding", "LabelFacts", "Offset", "SceneFacts", "Severity"]

MOST_IDS = 100
"""So many scenes a finding names at most; it is known of how many it tells."""

Severity = Literal["error", "warning", "note"]
"""`error`: training on it would fail or teach what is wrong; `warning`: it costs accuracy, or the
figures of an evaluation would be too good; `note`: good to know."""


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """One label, in figures.

    Args:
        class_px: valid pixels of each class.
        buildings_px: (n,) int64, area of every building: 8-connected components of the building
            class among valid pixels.
        cut: how many of them touch the edge of the image.
        specks: how many of the others are smaller than `components.SPECK_PX`.
        holes: how many smaller than that they have inside.
        vanished: shapes too small to colour a pixel, where labels are shapes.
        unknown_share: of the image's valid pixels, those about which the label says nothing.
    """

    class_px: tuple[int, ...]
    buildings_px: NDArray[np.int64]
    cut: int
    specks: int
    holes: int
    vanished: int = 0
    unknown_share: float = 0.0


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """One scene, in figures; a few hundred bytes whatever its size.

    Args:
        id: of the scene.
        image: name of its image (a path, if it is a file).
        group: see `core.types.Scene`.
        shape_yx: pixels.
        bands: without alpha.
        dtype: of the pixels.
        file_format: what the file is by its content ("PNG", "JPEG", "GTiff"); "" if no file.
        has_alpha: whether the file has a band of alpha.
        gsd_m: metres per pixel, None where not known.
        valid_share: of all pixels, those that are not nodata.
        inner_nodata_share: of all pixels, those that are nodata in pieces that reach no edge.
        flat_share: of the valid pixels, those of the commonest extreme colour (all bands at their
            minimum or maximum of the dtype) in one piece at the edge: nodata that nothing marks.
        flat_colour: that colour; None where flat_share is 0.
        mean, std: per band, of the valid pixels, in shares of the dtype's full scale.
        brightness: mean luma (ITU-R BT.601 of the first three bands), 0..1.
        contrast: standard deviation of the luma.
        saturation: mean of (max - min) of the first three bands, 0..1; 0 for fewer bands.
        sharpness: variance of the Laplacian of the luma over its variance: no unit, from 0.
        phash: 64-bit perceptual hash, see `data.duplicates`.
        label: figures of its label; None where it has none or it could not be read.
        image_error, label_error: why the image or its label could not be read, else "".
        label_values: what a mask file holds whose pixels are no classes: value ("17") or colour
            ("#3C1098") and its pixels, the commonest first.
        measured_share: of all pixels, those that were looked at; below 1 for a large scene, whose
            other figures are then those of that part.
    """

    id: str
    image: str
    group: str = ""
    shape_yx: tuple[int, int] = (0, 0)
    bands: int = 0
    dtype: str = ""
    file_format: str = ""
    has_alpha: bool = False
    gsd_m: float | None = None
    valid_share: float = 0.0
    inner_nodata_share: float = 0.0
    flat_share: float = 0.0
    flat_colour: tuple[int, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    sharpness: float = 0.0
    phash: int = 0
    label: LabelFacts | None = None
    image_error: str = ""
    label_error: str = ""
    label_values: tuple[tuple[str, int], ...] = ()
    measured_share: float = 1.0

    def built_up(self, building_class: int) -> float | None:
        """Share of the building class among the pixels that label and image know; None if none."""
        if self.label is None or not (total := sum(self.label.class_px)):
            return None
        return self.label.class_px[building_class] / total


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a scene's label lies from what its image shows, or those of several together.

    Args:
        id: of the scene; or name of the group or of the set.
        rows, cols: move the label by so many pixels (down, right) and it fits best.
        confidence: 0..1; below `offset.SURE` the image tells too little to say.
        level: what it is of.
        scenes: how many it was made of; all have about the same metres per pixel.
        gsd_m: metres per pixel, None where not known.
    """

    id: str
    rows: float
    cols: float
    confidence: float
    level: Literal["scene", "group", "set"] = "scene"
    scenes: int = 1
    gsd_m: float | None = None

    @property
    def px(self) -> float:
        """Length of the shift."""
        return float(np.hypot(self.rows, self.cols))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know of a set.

    Args:
        key: stable name for programs, such as `label.offset`.
        severity: how bad it is.
        title: one line for people, with the figure in it.
        detail: what it means, and how it was found.
        remedy: what to do; empty where there is nothing to do.
        ids: scenes that it is about, the worst first; at most `MOST_IDS` of them.
        count: of all scenes that it is about.
    """

    key: str
    severity: Severity
    title: str
    detail: str = ""
    remedy: str = ""
    ids: tuple[str, ...] = field(default=())
    count: int = 0
