"""Reports of prediction runs: the files and figures of each image, and the failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rooftrace.core.errors import RooftraceError
from rooftrace.predict.result import ClassFigures, OutputPaths, SceneResult

__all__ = ["FailedImage", "PredictOutput", "PredictReport"]


@dataclass(frozen=True)
class PredictOutput:
    """Paths and figures of the results of one image.

    Args:
        input: Path or address of the image.
        mask: Path of the mask; None if it was not requested.
        polygons, preview, density: Paths of the other results; None for a result that was not
            made.
        buildings: Number of buildings; None if polygons were not requested.
        built_up_share: Share of the valid pixels that are buildings, 0..1.
        pixels: Number of pixels of the image.
        seconds: Time of this image: from its first pixel to its last file, without the time before
            the previous image of the run was finished.
        classes: Figures of each class.
    """

    input: str
    mask: str | None
    polygons: str | None
    preview: str | None
    density: str | None
    buildings: int | None
    built_up_share: float
    pixels: int
    seconds: float
    classes: tuple[ClassFigures, ...]

    @classmethod
    def of(
        cls, shown: str, outputs: Sequence[str], paths: OutputPaths, result: SceneResult
    ) -> PredictOutput:
        """Describe the results of an image whose files are written.

        Args:
            shown: Path or address of the image.
            outputs: Names of the results that were requested.
            paths: Paths of all results.
            result: Results of the image.
        """
        summary = result.summary
        return cls(
            input=shown,
            mask=str(paths.mask) if "mask" in outputs else None,
            polygons=str(paths.polygons) if "polygons" in outputs else None,
            preview=None if result.preview is None else str(paths.preview),
            density=None if result.density is None else f"{paths.density}.tif",
            buildings=None if summary.regularized is None else summary.buildings,
            built_up_share=summary.built_up_share,
            pixels=summary.pixels,
            seconds=summary.seconds,
            classes=summary.classes,
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PredictOutput:
        """Return the output that `to_json` has turned into a mapping."""
        classes = tuple(ClassFigures(**one) for one in record["classes"])
        return cls(**{**record, "classes": classes})

    def to_json(self) -> dict[str, Any]:
        # Not `asdict`, which copies every value and takes as long as a small mask.
        return vars(self) | {"classes": tuple(vars(one).copy() for one in self.classes)}


@dataclass(frozen=True)
class FailedImage:
    """An image that failed, and its error.

    Args:
        name: First part of the names of its results, which no other image of the run has.
        shown: Path or address of the image without its query, which other images may share.
        error: Error of the image.
    """

    name: str
    shown: str
    error: RooftraceError


@dataclass(frozen=True)
class PredictReport:
    """Result of a prediction run.

    Args:
        outputs: Output of each image, in order.
        mpx_per_s: Megapixels per second over all images that this run predicted, with the time for
            reading and writing files.
        peak_rss_mb: Peak memory in MB of the process, or of the largest one that predicted images.
        resumed_images, resumed_blocks: Numbers of images and blocks that an earlier run finished.
        notes: Assumptions and skipped files that the user should know.
        failures: Images that failed, in order.
    """

    outputs: tuple[PredictOutput, ...]
    mpx_per_s: float
    peak_rss_mb: float
    resumed_images: int = 0
    resumed_blocks: int = 0
    notes: tuple[str, ...] = ()
    failures: tuple[FailedImage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `--json`."""
        return {
            "outputs": [output.to_json() for output in self.outputs],
            "mpx_per_s": self.mpx_per_s,
            "peak_rss_mb": self.peak_rss_mb,
            "resumed_images": self.resumed_images,
            "resumed_blocks": self.resumed_blocks,
        }
