"""Options of a comparison, with the limits and the words of each."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rooftrace.core.config import Options
from rooftrace.core.errors import ConfigError

Keep = Literal["old", "new", "both"]
"""Layer whose outlines a conflated layer has where both layers have a building."""


class CompareOptions(Options):
    """Options of a comparison.

    Raises:
        ConfigError: A value is outside of its limits, or the limits of moves contradict each other.
    """

    options_of = "a comparison"

    threshold: Annotated[
        float | None,
        Field(
            ge=0, le=1,
            description="Probability from which a pixel is a building; default: the model's or "
            "0.5.",
        ),
    ] = None  # fmt: skip
    imagery: Annotated[
        tuple[Path, ...],
        Field(
            description="Image of NEW, or folder of adjacent ones: what its nodata hides is not "
            "gone; repeatable."
        ),
    ] = ()
    area: Annotated[Path | None, Field(description="Polygons of the area that is compared.")] = None
    layer: Annotated[
        str | None,
        Field(
            description="Layer of files with several; * joins them. For NEW and OLD with "
            "layers of different names, both: footprints,parcels."
        ),
    ] = None
    id: Annotated[
        str | None,
        Field(
            description="Column of OLD with its ids, such as a cadastral number; of NEW, too, "
            "if it has it."
        ),
    ] = None
    remove_offset: Annotated[
        bool, Field(description="Move NEW onto OLD by the systematic offset between them.")
    ] = False
    same_iou: Annotated[
        float, Field(ge=0.5, le=1, description="Minimum IoU of a building that is the same.")
    ] = 0.6
    move_m: Annotated[
        float, Field(ge=0, description="Minimum distance in metres of a building that has moved.")
    ] = 3.0
    max_move_m: Annotated[
        float, Field(ge=0, description="Maximum distance in metres of a building that has moved.")
    ] = 10.0
    reference: Annotated[
        bool, Field(description="OLD is a map of the same time, not an earlier date.")
    ] = False
    keep: Annotated[
        Keep | None,
        Field(description="Write conflated.gpkg, one layer without duplicates: old, new or both."),
    ] = None

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        if self.move_m > self.max_move_m:
            raise ConfigError(
                f"--move received {self.move_m:g} m, which is more than --max-move, "
                f"{self.max_move_m:g} m.",
                remedy="Give a larger --max-move, or a smaller --move.",
            )
