"""Options of the prediction of a scene, with the limits and the words of each.

`SceneParameters` are those that every user may set: the command line turns the fields into options
and the API into parameters of its query. `SceneOptions` adds what the caller decides; its JSON is
that of a job and of `run.json`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from rooftrace.core.config import Config, Options
from rooftrace.core.errors import ConfigError
from rooftrace.core.scales import LEAST_GSD_M, MOST_GSD_M

OutlineStyle = Literal["pixel", "simplified", "regular"]
"""Outlines of buildings, see `vector.prepare.OutlineStyle`."""

SceneOutput = Literal["mask", "polygons", "preview", "density"]
"""Kind of output of a scene."""

OUTPUTS: tuple[SceneOutput, ...] = get_args(SceneOutput)

NEED_POLYGONS: frozenset[SceneOutput] = frozenset({"polygons", "preview", "density"})
"""Outputs that are made from polygons."""


class SceneParameters(Config):
    """Options of a scene that every user may set; see the descriptions."""

    gsd_m: Annotated[
        float | None,
        Field(
            ge=LEAST_GSD_M, le=MOST_GSD_M,
            description="Metres per pixel, where the files do not state it.",
        ),
    ] = None  # fmt: skip
    scale: Annotated[
        float | None,
        Field(
            ge=1 / 128, le=16,
            description="Scale factor of the image before prediction; metres count for areas only.",
        ),
    ] = None  # fmt: skip
    threshold: Annotated[
        float | None,
        Field(
            ge=0, le=1,
            description="Least building probability; default: the model's.",
        ),
    ] = None  # fmt: skip
    bands: Annotated[
        str | None,
        Field(
            max_length=200,
            description="Bands, such as 3,2,1 or red,nir; default: from the file.",
        ),
    ] = None
    stretch: Annotated[
        str | None,
        Field(
            max_length=50,
            description="Stretch of values to the model's range: none, per-band, LOW,HIGH or auto "
            "(default).",
        ),
    ] = None
    min_area_m2: Annotated[
        float | None,
        Field(ge=0, le=1e9, description="Drop polygons with a smaller area, in m²."),
    ] = None
    min_score: Annotated[
        float | None,
        Field(
            ge=0, le=1,
            description="Drop buildings with a lower score; default: 0.2 where scores are "
            "calibrated.",
        ),
    ] = None  # fmt: skip
    min_hole_m2: Annotated[
        float | None,
        Field(ge=0, le=1e9, description="Fill holes with a smaller area in buildings, in m²."),
    ] = None
    outline: Annotated[
        OutlineStyle,
        Field(description="regular (straight walls), simplified or pixel (edges)."),
    ] = "regular"
    separate: Annotated[bool, Field(description="Separate buildings that touch.")] = True


CellSide = Annotated[float, Field(ge=0.1, le=1e6, description="Side of a density cell in metres.")]


class SceneOptions(Options, SceneParameters):
    """Options of the prediction of a scene.

    Args:
        cell_m: Side of a density cell in metres; used if metres per pixel are known.
        forgiving: Whether a tile that cannot be read or run becomes nodata, instead of failing the
            scene.
        outputs: Outputs to make. Without polygons, buildings are not counted.
        valid_outline: Whether the result contains the outline of the scene's valid data.

    Raises:
        ConfigError: A value is outside of its limits; bands or stretch cannot be read.
    """

    cell_m: CellSide = 100.0
    forgiving: bool = False
    outputs: tuple[SceneOutput, ...] = OUTPUTS
    valid_outline: bool = False

    @field_validator("bands", "stretch")
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        from rooftrace.io.bands import parse_bands
        from rooftrace.io.pixels import parse_stretch

        if value is not None:
            (parse_bands if info.field_name == "bands" else parse_stretch)(value)
        return value


AS_FOUND = SceneOptions()
"""Options of images whose bands, values and scale are those that their files state."""


Smoothing = Literal["none", "flow"]
"""Smoothing of the frames of a video over time, see `predict.smoothing`."""


class VideoOptions(Options):
    """Options of a video besides its model.

    Args:
        images: Bands, stretch, scale and threshold of the frames, and the minimum area of a
            building. The stretch is the same in every frame: `LOW,HIGH`, or none.
        start_s, end_s: Range to process, in seconds from the beginning.

    Raises:
        ConfigError: A value is out of its range.
    """

    options_of = "a video"

    images: SceneOptions = AS_FOUND
    stride: Annotated[int, Field(ge=1, description="Predict every n-th frame only.")] = 1
    smoothing: Annotated[
        Smoothing,
        Field(description="Smoothing over time; flow follows the moving ground."),
    ] = "flow"
    time_constant_s: Annotated[
        float, Field(ge=0, description="Time constant of the smoothing in seconds.")
    ] = 0.15
    opacity: Annotated[
        float, Field(ge=0, le=1, description="Opacity of the fill of buildings.")
    ] = 0.35
    table: Annotated[Path | None, Field(description="CSV table with one row a frame.")] = None
    crf: Annotated[
        int, Field(ge=0, le=51, description="Constant rate factor: 0 is lossless, 51 is worst.")
    ] = 20
    start_s: Annotated[float, Field(ge=0, description="First second to process.")] = 0.0
    end_s: float | None = None

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if self.images.stretch == "per-band":
            raise ConfigError(
                "--stretch per-band was given for a video, whose frames would be stretched "
                "differently one after the other.",
                remedy="Give two values for all frames: --stretch 0,120",
            )
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ConfigError(
                f"A video was to be processed from {self.start_s:g} to {self.end_s:g} s; expected "
                "an end after the start.",
                remedy="Correct the option.",
            )


def public_name(field: str) -> str:
    """Return the name of a field on the command line and in the API, which has no unit."""
    return field.removesuffix("_m2").removesuffix("_m").removesuffix("_s")
