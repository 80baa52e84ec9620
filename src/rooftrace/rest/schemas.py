"""What goes over the wire, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ClassOut",
    "Feature",
    "FeatureCollection",
    "FieldProblem",
    "Figures",
    "Health",
    "Measured",
    "ModelCard",
    "ModelClass",
    "Polygon",
    "ProblemDetails",
    "ProblemPage",
    "Properties",
    "Readiness",
]

Share = Annotated[float, Field(ge=0, le=1)]


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldProblem(_Out):
    """What is wrong with one parameter or field."""

    parameter: str
    in_: Annotated[str, Field(alias="in", description="query, path, header or body")]
    message: str


class ProblemDetails(_Out):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="Of the problem; its address explains it.")]
    title: Annotated[str, Field(description="The same whenever a problem of the type occurs.")]
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Annotated[str, Field(description="What is wrong with this request, in a sentence.")]
    remedy: Annotated[str, Field(description="What to do now.")] = ""
    instance: Annotated[str, Field(description="The request, as the server's log knows it.")]
    errors: Annotated[list[FieldProblem], Field(description="By parameter.")] = []


class ClassOut(_Out):
    """How much there is of one class."""

    name: str
    class_id: Annotated[int, Field(ge=0, le=254, description="Its value in the mask.")]
    polygons: Annotated[int | None, Field(ge=0, description="null where polygons were not made.")]
    pixels: Annotated[int, Field(ge=0)]
    share: Annotated[Share, Field(description="Of the valid pixels.")]
    area_m2: Annotated[float | None, Field(description="null where metres are not known.")]


class Figures(_Out):
    """The figures of one image."""

    buildings: Annotated[int | None, Field(ge=0, description="null where they were not counted.")]
    built_up_share: Annotated[Share, Field(description="Of the valid pixels.")]
    density: Annotated[
        Literal["sparse", "dense"] | None,
        Field(description="dense from a built-up share of 0.2 on; null without a valid pixel."),
    ]
    gsd_m: Annotated[float | None, Field(description="Metres per pixel; null where not known.")]
    threshold: Annotated[
        float | None,
        Field(description="On the building's probability; null with more than two classes."),
    ]
    pixels: Annotated[int, Field(ge=1)]
    valid_pixels: Annotated[int, Field(ge=0, description="Of them, those that are not nodata.")]
    classes: list[ClassOut]
    notes: Annotated[list[str], Field(description="What was assumed.")]
    model: Annotated[str, Field(description="Its name.")]
    model_sha256: str


class Polygon(_Out):
    """Rings of longitude and latitude, or of pixels; the first is the outline."""

    type: Literal["Polygon"]
    coordinates: list[list[Annotated[list[float], Field(min_length=2, max_length=2)]]]


class Properties(BaseModel):
    """Of a building."""

    model_config = ConfigDict(extra="allow")

    id: Annotated[int, Field(ge=1)]
    score: Annotated[Share, Field(description="How sure the model is of it.")]
    area_m2: float | None


class Feature(_Out):
    """One building, or one region of a class."""

    type: Literal["Feature"]
    properties: Properties
    geometry: Polygon


class FeatureCollection(_Out):
    """Footprints as GeoJSON (RFC 7946), with figures beside them."""

    type: Literal["FeatureCollection"]
    name: str
    description: str = ""
    coordinates: Annotated[
        Literal["longitude-latitude", "pixels"],
        Field(
            description="pixels (x right, y down, from the upper left corner) where the image lies "
            "nowhere: then it is GeoJSON in form alone."
        ),
    ]
    figures: Figures
    features: list[Feature]


class ModelClass(_Out):
    """A class that the model knows."""

    class_id: Annotated[int, Field(ge=0, le=254)]
    name: str
    colour: Annotated[str, Field(description="#RRGGBB, in masks.")]


class Measured(_Out):
    """Figures, with what they were measured on."""

    data: str
    split: str
    protocol: str
    values: dict[str, float]


class ModelCard(_Out):
    """The model's contract, and what is known of it."""

    name: str
    sha256: Annotated[str, Field(description="Of the contract with all parts.")]
    bands: list[str]
    dtype: str
    gsd_m: Annotated[float | None, Field(description="That images are brought to.")]
    classes: list[ModelClass]
    building_class: int
    threshold: float
    calibrated: Annotated[bool, Field(description="Whether scores are probabilities.")]
    metrics: list[Measured]
    licence: str
    attribution: str
    created: str
    versions: dict[str, str]
    engine: str
    precision: str


class Health(_Out):
    """That the server is there."""

    status: Literal["alive"]
    version: str


class Readiness(_Out):
    """That the server takes requests."""

    status: Literal["ready"]
    model: str


class ProblemPage(_Out):
    """What a kind of problem means."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    meaning: str
    remedy: str
