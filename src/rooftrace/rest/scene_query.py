"""What can be chosen for an image, as parameters of an address."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rooftrace.predict.options import SceneOptions, SceneOutput

__all__ = ["SceneQuery"]

SquareMetres = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class SceneQuery(BaseModel):
    """The options of an image; what is unknown is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filename: Annotated[
        str | None,
        Field(
            max_length=255,
            description="What the image is called, where the body is the image itself. One "
            "without a georeference that is called like a slippy tile lies where that is.",
        ),
    ] = None
    threshold: Annotated[
        float | None,
        Field(
            ge=0, le=1, allow_inf_nan=False,
            description="On the building's probability; default the model's own.",
        ),
    ] = None  # fmt: skip
    gsd: Annotated[
        float | None,
        Field(
            ge=0.001, le=1000, allow_inf_nan=False,
            description="Metres per pixel, where the file does not say or is wrong.",
        ),
    ] = None  # fmt: skip
    scale: Annotated[
        float | None,
        Field(
            ge=0.05, le=4, allow_inf_nan=False,
            description="The image is taken so many times as large, whatever metres say.",
        ),
    ] = None  # fmt: skip
    min_area: Annotated[
        SquareMetres | None, Field(description="m²: smaller footprints are left out.")
    ] = None
    min_hole: Annotated[
        SquareMetres | None, Field(description="m²: smaller holes of buildings are filled.")
    ] = None
    regularize: Annotated[
        bool, Field(description="Whether outlines get right angles where buildings have them.")
    ] = True
    separate: Annotated[bool, Field(description="Whether buildings that touch are cut apart.")] = (
        True
    )
    cell: Annotated[
        float,
        Field(
            ge=1, le=1e6, allow_inf_nan=False,
            description="The side of a cell of the density, in metres.",
        ),
    ] = 100.0  # fmt: skip

    def scene_options(
        self, outputs: tuple[SceneOutput, ...], *, forgiving: bool = False
    ) -> SceneOptions:
        """What the predictor is told."""
        return SceneOptions(
            gsd_m=self.gsd, scale=self.scale, threshold=self.threshold,
            min_area_m2=self.min_area, min_hole_m2=self.min_hole, regularize=self.regularize,
            separate=self.separate, cell_m=self.cell, forgiving=forgiving, outputs=outputs,
        )  # fmt: skip
