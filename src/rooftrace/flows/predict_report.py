"""What `rooftrace predict` tells of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rooftrace.core.errors import RooftraceError
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.result import ClassFigures, OutputPaths, SceneResult

__all__ = ["PredictOutput", "PredictReport", "output_of"]


@dataclass(frozen=True)
class PredictOutput:
    """One image: where its results are, and their figures.

    Args:
        polygons, preview, density: None where there is none.
        buildings: None where polygons were not asked for.
        seconds: from its first pixel to its last file; images that are done together share them.
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
    def from_json(cls, record: Mapping[str, Any]) -> PredictOutput:
        """What `asdict` made of one."""
        classes = tuple(ClassFigures(**one) for one in record["classes"])
        return cls(**{**record, "classes": classes})


@dataclass(frozen=True)
class PredictReport:
    """A run.

    Args:
        outputs: one for each image, in order.
        mpx_per_s: over all of them, files included, without what an earlier run had finished.
        peak_rss_mb: of the process.
        resumed_images, resumed_blocks: that an earlier run had finished.
        notes: what was assumed or skipped, for the person to see.
        failures: what the images that failed are called, and why they did.
    """

    outputs: tuple[PredictOutput, ...]
    mpx_per_s: float
    peak_rss_mb: float
    resumed_images: int = 0
    resumed_blocks: int = 0
    notes: tuple[str, ...] = ()
    failures: tuple[tuple[str, RooftraceError], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "outputs": [asdict(output) for output in self.outputs],
            "mpx_per_s": self.mpx_per_s,
            "peak_rss_mb": self.peak_rss_mb,
            "resumed_images": self.resumed_images,
            "resumed_blocks": self.resumed_blocks,
        }


def output_of(
    shown: str, paths: OutputPaths, result: SceneResult, options: SceneOptions
) -> PredictOutput:
    """What is told of an image whose files are written."""
    summary = result.summary
    made = {
        "mask": str(paths.mask) if "mask" in options.outputs else None,
        "polygons": str(paths.polygons) if "polygons" in options.outputs else None,
        "preview": None if result.preview is None else str(paths.preview),
        "density": None if result.density is None else f"{paths.density}.tif",
    }
    return PredictOutput(
        input=shown,
        **made,
        buildings=None if summary.regularized is None else summary.buildings,
        built_up_share=summary.built_up_share,
        pixels=summary.pixels,
        seconds=summary.seconds,
        classes=summary.classes,
    )
