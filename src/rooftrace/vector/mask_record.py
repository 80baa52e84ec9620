"""Record in a mask of how `rooftrace predict` makes its polygons, so that others can make the same.

The record is the tag `ROOFTRACE` of a GeoTIFF, or a text of this name in a PNG, as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from rooftrace.core.config import Config
from rooftrace.core.errors import DataError
from rooftrace.core.text import first_line
from rooftrace.core.types import UNKNOWN_PROVENANCE, GeoGrid, ResultProvenance
from rooftrace.io.gdal import environment, open_quietly, reading_errors
from rooftrace.vector.prepare import VectorOptions

TAG = "ROOFTRACE"
"""Name of the tag that holds the record."""

_MAX_CHARACTERS = 100_000

_SAME_SIZE = 0.02
"""Largest difference of pixel sizes, as a share, that a part of a mask shows: the metres of a pixel
in degrees or in Web Mercator depend on its latitude."""


class MaskRecord(Config):
    """Options from which the polygons of a mask were made.

    Args:
        polygons: See `VectorOptions`.
        gsd_m: Metres per pixel that the user gave; None for those of the georeference.
        building: Class index of the buildings.
        has_markers: True if a channel of the model separated touching buildings; the mask does not
            contain it.
        origin: Origin of the mask.
        shape: Rows and columns of the mask as it was written; None in masks of earlier editions.
        pixel_m: Metres of its pixels down a column and along a row; None where the georeference
            did not have them.
    """

    polygons: VectorOptions
    gsd_m: Annotated[float, Field(gt=0)] | None = None
    building: Annotated[int, Field(ge=0, le=254)]
    has_markers: bool = False
    origin: ResultProvenance = UNKNOWN_PROVENANCE
    shape: tuple[int, int] | None = None
    pixel_m: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        options: VectorOptions,
        building: int,
        *,
        gsd_m: float | None,
        has_markers: bool,
        origin: ResultProvenance = UNKNOWN_PROVENANCE,
        grid: GeoGrid | None = None,
    ) -> MaskRecord:
        """Return the record of a prediction on a grid; see the class for the other arguments."""
        return cls(
            polygons=options,
            gsd_m=gsd_m,
            building=building,
            has_markers=has_markers,
            origin=origin,
            shape=None if grid is None else grid.shape,
            pixel_m=None if grid is None else grid.gsd_yx_m,
        )

    @classmethod
    def read(cls, path: Path) -> MaskRecord | None:
        """Return the record of a raster; None if `rooftrace predict` has not written it.

        Raises:
            DataError: The raster cannot be opened, or its record is damaged.
        """
        with reading_errors(path, "tags"), environment(), open_quietly(path) as dataset:
            text = dataset.tags().get(TAG)
        if text is None:
            return None
        try:
            if len(text) > _MAX_CHARACTERS:
                raise ValueError(f"it has {len(text)} characters")
            return cls.model_validate(json.loads(text))
        except (ValidationError, ValueError) as error:
            raise DataError(
                f"{path} has a damaged tag {TAG}, from which rooftrace makes its polygons: "
                f"{first_line(error)}.",
                remedy=f"Remove the tag: gdal_edit.py -unsetmd {path.name}",
            ) from error

    def tags(self) -> dict[str, str]:
        """Return the tags to write to the mask."""
        return {TAG: json.dumps(self.model_dump(mode="json"), separators=(",", ":"))}

    def is_of(self, grid: GeoGrid) -> bool:
        """Return True if a raster has the pixels for which the record was written, or some of them.

        Other programs copy the tag when they resample a mask.
        """
        found = grid.gsd_yx_m
        if self.pixel_m is None or found is None:
            return self.shape is None or self.shape == grid.shape
        pairs = zip(self.pixel_m, found, strict=True)
        return all(abs(now / then - 1) <= _SAME_SIZE for then, now in pairs)
