"""Data of the API's requests and responses, as the OpenAPI description shows them; first those of
predictions, then those of jobs.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from rooftrace.core.text import in_api_terms
from rooftrace.density.files import DEFAULT_THRESHOLD
from rooftrace.predict.options import (
    AS_FOUND,
    OUTPUTS,
    CellSide,
    SceneOptions,
    SceneOutput,
    SceneParameters,
    public_name,
)
from rooftrace.service.job_store import Job, JobState

Share = Annotated[float, Field(ge=0, le=1)]


class ApiModel(BaseModel):
    """Base of all responses."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldProblem(ApiModel):
    """A wrong parameter or field."""

    parameter: str
    in_: Annotated[str, Field(alias="in", description="query, path, header or body")]
    message: str


class ProblemDetails(ApiModel):
    """An error response (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="URL of an explanation of this kind of problem")]
    title: Annotated[str, Field(description="Short name of the kind of problem")]
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Annotated[str, Field(description="Description of the error in this request")]
    remedy: Annotated[str, Field(description="Advice what to do next")] = ""
    instance: Annotated[str, Field(description="Id of the request in the server's log")]
    errors: Annotated[list[FieldProblem], Field(description="Wrong parameters")] = []


class ClassOut(ApiModel):
    """Area of one class."""

    name: str
    class_id: Annotated[int, Field(ge=0, le=254, description="Value of the class in the mask")]
    polygons: Annotated[int | None, Field(ge=0, description="null if polygons were not traced")]
    pixels: Annotated[int, Field(ge=0)]
    share: Annotated[Share, Field(description="Share of the valid pixels")]
    area_m2: Annotated[float | None, Field(description="null if the pixel size is not known")]


class ImageFigures(ApiModel):
    """Figures of one image."""

    buildings: Annotated[
        int | None, Field(ge=0, description="Number of buildings; null if they were not counted")
    ]
    built_up_share: Annotated[Share, Field(description="Building share of the valid pixels")]
    density: Annotated[
        Literal["sparse", "dense"] | None,
        Field(description="dense if the built-up share is at least 0.2; null without valid pixels"),
    ]
    gsd_m: Annotated[float | None, Field(description="Metres per pixel; null if not known")]
    threshold: Annotated[
        float | None,
        Field(description="Threshold of the building probability; null for more than two classes"),
    ]
    pixels: Annotated[int, Field(ge=1)]
    valid_pixels: Annotated[int, Field(ge=0, description="Pixels that are not nodata")]
    classes: list[ClassOut]
    notes: Annotated[list[str], Field(description="Assumptions that were made")]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the figures of an image from those of its prediction.

        Args:
            values: Values of the other fields, with `buildings` None if they were not counted.
        """
        fields = {name: values[name] for name in cls.model_fields if name in values}
        if fields["buildings"] is None:
            fields["classes"] = [{**one, "polygons": None} for one in fields["classes"]]
        is_dense = fields["built_up_share"] >= DEFAULT_THRESHOLD.threshold
        fields["density"] = ("dense" if is_dense else "sparse") if fields["valid_pixels"] else None
        fields["notes"] = [in_api_terms(note) for note in fields["notes"]]
        return cls.model_validate(fields)


class Figures(ImageFigures):
    """Figures of one image, with the model that predicted it."""

    model: Annotated[str, Field(description="Name of the model")]
    model_sha256: str


class PolygonGeometry(ApiModel):
    """Rings of longitude and latitude, or of pixels; the first ring is the outline."""

    type: Literal["Polygon"]
    coordinates: list[list[Annotated[list[float], Field(min_length=2, max_length=2)]]]


class Properties(BaseModel):
    """Properties of a building."""

    model_config = ConfigDict(extra="allow")

    id: Annotated[int, Field(ge=1)]
    score: Annotated[Share, Field(description="Confidence of the model")]
    area_m2: float | None


class Feature(ApiModel):
    """One building, or one region of a class."""

    type: Literal["Feature"]
    properties: Properties
    geometry: PolygonGeometry


class FeatureCollection(ApiModel):
    """Footprints as GeoJSON (RFC 7946), with figures as an additional member."""

    type: Literal["FeatureCollection"]
    name: str
    description: str = ""
    xy_coordinate_resolution: Annotated[
        float | None, Field(gt=0, description="Unit of the last decimal of coordinates, by GDAL")
    ] = None
    coordinate_system: Annotated[
        Literal["longitude-latitude", "pixels"],
        Field(
            description="pixels (x right, y down, from the upper left corner) if the image has no "
            "georeference; other GeoJSON programs cannot place such features"
        ),
    ]
    figures: Figures
    features: list[Feature]


class ModelClass(ApiModel):
    """A class of the model."""

    class_id: Annotated[int, Field(ge=0, le=254)]
    name: str
    colour: Annotated[str, Field(description="Colour in masks, as #RRGGBB")]


class MetricsOut(ApiModel):
    """Metrics, with the data and split on which they were measured."""

    data: str
    split: str
    protocol: str
    values: dict[str, float]


class ModelCard(ApiModel):
    """Description of the model: its input, its classes, its origin and its metrics."""

    name: str
    sha256: Annotated[str, Field(description="Hash of the model and its description")]
    bands: list[str]
    dtype: str
    gsd_m: Annotated[
        float | None, Field(description="Metres per pixel to which images are resampled")
    ]
    finest_gsd_m: Annotated[
        float | None,
        Field(
            description="If not null, images between these metres per pixel and gsd_m are "
            "predicted at their own, and only finer ones are resampled to these"
        ),
    ]
    interpolated_gsd_m: Annotated[
        float | None,
        Field(
            description="If not null, images coarser than gsd_m are resampled to these metres per "
            "pixel"
        ),
    ]
    classes: list[ModelClass]
    building_class: int
    threshold: Annotated[float | None, Field(description="null for more than two classes")]
    calibrated: Annotated[bool, Field(description="True if the scores are calibrated")]
    metrics: list[MetricsOut]
    licence: str
    attribution: str
    created: str
    versions: dict[str, str]
    engine: str
    precision: str


class ProcessorRecord(ApiModel):
    """Processor of the server, on which the bytes of its answers depend."""

    name: str
    instruction_set: str = Field(
        description='Instruction set that the engine uses, such as "AVX512_CORE_VNNI"; "" on a GPU'
    )


class Health(ApiModel):
    """Response of a server that runs."""

    status: Literal["alive"]
    version: str
    processor: ProcessorRecord


class Readiness(ApiModel):
    """Response of a server that accepts predictions."""

    status: Literal["ready"]
    model: str


class ProblemPage(ApiModel):
    """Explanation of a kind of problem."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    meaning: str
    remedy: str


class SceneQuery(SceneParameters):
    """Query parameters of a prediction; unknown parameters are refused."""

    model_config = ConfigDict(alias_generator=public_name, defer_build=False)

    filename: Annotated[
        str | None,
        Field(
            max_length=255,
            description="Name of the image if the body is the image itself. An image without a "
            "georeference takes its position from a name in the form of a slippy map tile.",
        ),
    ] = None

    def scene_options(self, outputs: tuple[SceneOutput, ...], **others: Any) -> SceneOptions:
        """Return the predictor's options; `others` are further fields."""
        # They were checked as parameters; bands and stretch are when the scene is planned.
        values = {name: getattr(self, name) for name in SceneParameters.model_fields}
        return AS_FOUND.model_copy(update=values | others | {"outputs": outputs})


class JobQuery(SceneQuery):
    """Query parameters of a job."""

    outputs: Annotated[
        list[SceneOutput],
        Field(min_length=1, max_length=len(OUTPUTS), description="Outputs; all by default"),
    ] = list(OUTPUTS)  # noqa: RUF012  # pydantic copies it
    cell_m: CellSide = 100.0
    forgiving: Annotated[
        bool, Field(description="Turn tiles that fail into nodata instead of failing the job")
    ] = False

    def job_options(self) -> SceneOptions:
        """Return the options of the prediction."""
        outputs = tuple(output for output in OUTPUTS if output in self.outputs)
        return self.scene_options(outputs, cell_m=self.cell_m, forgiving=self.forgiving)


class JobChanges(SceneOptions):
    """Options in which a repeated job differs, named as in the job or as in the query of one."""

    model_config = ConfigDict(alias_generator=public_name, populate_by_name=True, defer_build=False)


class JobListQuery(BaseModel):
    """Query parameters of the list of jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=100, description="Maximum number of jobs")] = 20
    before: Annotated[
        str | None, Field(max_length=64, description="Id of a job; only older jobs are listed")
    ] = None


class JobProgress(ApiModel):
    """Progress of a job."""

    pixels_done: Annotated[int, Field(ge=0)]
    pixels: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(ge=0, le=1)]
    buildings: Annotated[int, Field(ge=0, description="Number of buildings found so far")]


class JobFailure(ApiModel):
    """Reason why a job failed."""

    type: str
    message: str
    remedy: str


class JobFigures(ImageFigures):
    """Figures of the image of a job that is done."""

    polygons: Annotated[
        str | None, Field(description="Name of the file with the buildings; null without one")
    ]
    seconds: Annotated[float, Field(ge=0, description="Duration of the prediction")]
    mpx_per_s: Annotated[float, Field(ge=0)]


class JobLinks(ApiModel):
    """URLs of the job on this server."""

    self: str
    results: str
    archive: str


class JobOut(ApiModel):
    """A job in its current state."""

    id: Annotated[str, Field(description="Random id; a job can be found only with its id")]
    name: Annotated[str, Field(description="File name of the uploaded image")]
    state: JobState
    reviewed: Annotated[
        bool,
        Field(
            description="A person has reviewed the buildings. Such a job does not expire, and is "
            "deleted only with discard_review"
        ),
    ]
    created: datetime
    started: datetime | None
    finished: datetime | None
    progress: JobProgress
    attempts: Annotated[int, Field(ge=0, description="Number of times the job was started")]
    options: Annotated[SceneOptions, Field(description="Options of the prediction")]
    error: Annotated[JobFailure | None, Field(description="Error, if the job failed")]
    figures: Annotated[JobFigures | None, Field(description="Figures, if the job is done")]
    links: JobLinks

    @classmethod
    def of(cls, job: Job, root: str) -> Self:
        """Return a job as the API shows it.

        Args:
            job: Job of the store.
            root: Path prefix of the server's URLs, "" without a prefix.
        """
        job_url = f"{root}/v1/jobs/{job.id}"
        error = job.error and {key: in_api_terms(text) for key, text in job.error.items()}
        return cls.model_validate({
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "reviewed": job.reviewed,
            "created": time_of(job.created_s),
            "started": time_of(job.started_s),
            "finished": time_of(job.finished_s),
            "progress": {
                "pixels_done": job.pixels_done, "pixels": job.pixels, "share": share_of(job),
                "buildings": job.buildings,
            },
            "attempts": job.attempts,
            "options": job.options,
            "error": error,
            "figures": job.figures and JobFigures.of(job.figures),
            "links": {
                "self": job_url,
                "results": f"{job_url}/results",
                "archive": f"{job_url}/results.zip",
            },
        })  # fmt: skip


class JobPage(ApiModel):
    """One page of the list of jobs, newest first."""

    jobs: list[JobOut]
    next: Annotated[
        str | None, Field(description="URL of the page of older jobs; null on the last page")
    ]


class JobResultFile(ApiModel):
    """A result file of a job."""

    name: str
    bytes: Annotated[int, Field(ge=0)]
    url: Annotated[str, Field(description="URL of the file on this server")]


class JobResults(ApiModel):
    """Result files of a job that is done."""

    files: list[JobResultFile]
    archive: Annotated[str, Field(description="URL of a zip of all files")]

    @classmethod
    def of(cls, job: Job, root: str) -> Self:
        """Return the results of a job; arguments as for `JobOut.of`."""
        results_url = f"{root}/v1/jobs/{job.id}/results"
        files: list[dict[str, Any]] = [
            {"name": file.name, "bytes": file.size, "url": f"{results_url}/{quote(file.name)}"}
            for file in job.files
        ]
        return cls.model_validate({"files": files, "archive": f"{results_url}.zip"})


def share_of(job: Job) -> float:
    """Return the share of a job that is done, from 0 to 1."""
    return min(job.pixels_done / job.pixels, 1.0)


def time_of(seconds: float | None) -> datetime | None:
    """Return a time of a job, in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
