"""Audit a set and write the page: the flow of `rooftrace inspect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rooftrace.audit.page import render
from rooftrace.audit.report import Audit, run_audit
from rooftrace.core.types import Scene
from rooftrace.io.bands import parse_bands
from rooftrace.io.files import write_atomically
from rooftrace.io.pixels import prepare
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneEntry, SceneSet

__all__ = ["run_inspect"]

_RGB = ("red", "green", "blue")


def run_inspect(
    data: SourceConfig,
    against: SourceConfig | None = None,
    out: Path | None = None,
    *,
    bands: str | None = None,
    stretch: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Audit a set, and write the page.

    Args:
        data: Configuration of the set, of any kind, with or without labels.
        against: Configuration of a set to compare with, such as the images to predict.
        out: HTML file to write; None to write none.
        bands: Bands of the images of both sets, by number or name; default: all bands.
        stretch: Way in which values are stretched to 8 bits; `auto` without `bands` leaves them as
            they are.
        progress: Function called with the number of finished images and the number of all images.

    Raises:
        DataError: The data cannot be opened. Problems of single images or labels are findings.
        ExportError: The page cannot be written.
    """
    source, other = (
        None if one is None else _prepared(open_source(one), bands, stretch)
        for one in (data, against)
    )
    assert source is not None
    audit = run_audit(source, other, progress=progress)
    if out is not None:
        write_atomically(out, render(audit).encode())
    return audit


@dataclass(frozen=True)
class _PreparedScenes:
    """Opens the scenes of a set with chosen bands, and with values of 8 bits."""

    open_scene: Callable[[SceneEntry], Scene]
    bands: str | None
    stretch: str

    def __call__(self, entry: SceneEntry) -> Scene:
        scene = self.open_scene(entry)
        count = len(parse_bands(self.bands) or _RGB)
        wanted = _RGB if count == len(_RGB) else [f"band {number + 1}" for number in range(count)]
        image = prepare(
            scene.image, wanted, np.dtype(np.uint8), [(0.0, 1.0)] * count,
            bands=self.bands, stretch=self.stretch,
        )  # fmt: skip
        return replace(scene, image=image)


def _prepared(source: SceneSet, bands: str | None, stretch: str) -> SceneSet:
    if bands is None and stretch == "auto":
        return source
    return replace(source, open_scene=_PreparedScenes(source.open_scene, bands, stretch))
