"""Schemas of the review of buildings: what a reviewer sends, and what the server answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rooftrace.rest.schemas import ApiModel
from rooftrace.service.review.store import ReviewStatus

__all__ = [
    "MAX_CORNERS",
    "OpenBuildings",
    "ReviewChange",
    "ReviewChanged",
    "ReviewCounts",
    "ReviewGeometry",
    "ReviewNext",
    "ReviewState",
    "ReviewUndo",
    "ReviewedBuilding",
    "Shown",
]

MAX_CORNERS = 2000
"""Maximum number of corners of an outline that a person draws."""

Number = Annotated[int, Field(ge=-(2**53), le=2**53)]
Reviewer = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=80),
    Field(description="Name of the person"),
]
OpenBuildings = Literal["leave-out", "include", "ignore"]
Shown = Literal["open", "accepted", "rejected", "all"]
Position = Annotated[
    list[Annotated[float, Field(ge=-720, le=720, allow_inf_nan=False)]],
    Field(min_length=2, max_length=2),
]
Ring = Annotated[list[Position], Field(min_length=4, max_length=MAX_CORNERS)]
Rings = Annotated[list[Ring], Field(min_length=1, max_length=100)]


class ReviewOutline(ApiModel):
    """A polygon in longitude and latitude of the map; the first ring is the outline."""

    type: Literal["Polygon"]
    coordinates: Rings


class ReviewGeometry(ApiModel):
    """A polygon or multipolygon in longitude and latitude of the map."""

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: list[Any]


class ReviewedBuilding(ApiModel):
    """A building and what a reviewer has decided."""

    id: Annotated[int, Field(description="Number of the building: its attribute id")]
    row: Annotated[int | None, Field(description="Its id in the vector tiles; null if added")]
    status: Annotated[
        ReviewStatus, Field(description="changed: accepted with another outline; added: drawn")
    ]
    revision: Annotated[int, Field(ge=0, description="Number of its last change; 0 for none")]
    reviewer: Annotated[str, Field(description="Name of the last reviewer, or empty")]
    time: Annotated[str, Field(description="Time of the last change in UTC, or empty")]
    origin: Annotated[
        int | None, Field(description="Building that it was split from, or merged into")
    ]
    score: Annotated[float | None, Field(description="Confidence of the model")]
    compared: Annotated[
        str, Field(description="Status in a comparison with another layer, such as new; or empty")
    ]
    outline: Annotated[
        ReviewGeometry | None, Field(description="null in lists, if it is the predicted one")
    ]


class ReviewCounts(ApiModel):
    """Numbers of buildings by status; `reviewed` counts all but the open ones."""

    total: int
    reviewed: int
    open: int
    accepted: int
    rejected: int
    changed: int
    added: int


class ReviewState(ApiModel):
    """State of a review, and the buildings that were changed after a revision."""

    revision: Annotated[int, Field(ge=0, description="Number of the last change")]
    counts: ReviewCounts
    buildings: list[ReviewedBuilding]
    removed: Annotated[
        list[int], Field(description="Added buildings that were removed by an undo since")
    ]


class ReviewNext(ApiModel):
    """The next building in the order of doubt."""

    building: Annotated[ReviewedBuilding | None, Field(description="null if there is none")]


class ReviewChanged(ApiModel):
    """Buildings after a change."""

    buildings: list[ReviewedBuilding]


class SeenBuilding(BaseModel):
    """A building and the revision that the reviewer saw."""

    model_config = ConfigDict(extra="forbid")

    id: Number
    revision: Annotated[int, Field(ge=0, le=2**53)]


class ReviewChange(BaseModel):
    """A change by a reviewer.

    It is saved as a whole or not at all. It is refused if a building has another revision.
    """

    model_config = ConfigDict(extra="forbid")

    action: Annotated[
        Literal["accept", "reject", "reopen", "redraw", "add", "split", "merge"],
        Field(
            description="redraw and add need an outline, split a line; add has no building, merge "
            "has two, of which the first keeps its number"
        ),
    ]
    reviewer: Reviewer
    buildings: Annotated[list[SeenBuilding], Field(max_length=1000)] = []
    outline: ReviewOutline | None = None
    line: Annotated[
        list[Position] | None,
        Field(min_length=2, max_length=100, description="Longitude and latitude of its corners"),
    ] = None


class ReviewUndo(BaseModel):
    """The person whose last change is undone."""

    model_config = ConfigDict(extra="forbid")

    reviewer: Reviewer
