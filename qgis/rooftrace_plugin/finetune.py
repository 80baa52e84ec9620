"""`rooftrace finetune`: a model for one's own place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputFile,
    QgsProcessingOutputHtml,
    QgsProcessingOutputString,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterLayer,
)

from .inputs import vector_file
from .run import RooftraceAlgorithm


class FinetuneAlgorithm(RooftraceAlgorithm):
    """`rooftrace finetune`."""

    NAME = "finetune"
    TITLE = "Fine-tune a model on labelled buildings"
    PURPOSE = (
        "Trains a model further on buildings that you have drawn or reviewed, and compares it with "
        "the start model on images that it has not seen. It needs PyTorch: choose “Fine-tuning” "
        "when you set up rooftrace."
    )
    TAGS = ("training", "deep learning", "fine-tuning")

    def initAlgorithm(self, configuration: Any = None) -> None:
        polygons = [QgsProcessing.SourceType.TypeVectorPolygon]
        self.add(
            QgsProcessingParameterFeatureSource("LABELS", "Labelled buildings", polygons),
            "Polygons of all buildings of the image; ground without a polygon is background.",
        )
        self.add(QgsProcessingParameterRasterLayer("IMAGE", "Image"), "Image file of the labels.")
        self.add(
            QgsProcessingParameterFeatureSource("AREA", "Labelled area", polygons, None, True),
            "Polygons inside which the labels are complete. Empty: the whole image.",
            "--area",
        )
        self.add_model("Start model")
        self.add_number(
            "MINUTES", "--minutes", "Minutes of training", "Empty: 10 minutes.", 0.1, 10_000
        )
        self.add_last("finetune")
        self.addOutput(QgsProcessingOutputFile("TUNED", "Tuned model"))
        self.addOutput(QgsProcessingOutputString("VERDICT", "better, no different, worse …"))
        self.addOutput(QgsProcessingOutputHtml("REPORT", "Comparison with the start model"))

    def arguments(self, parameters: Any, context: Any, feedback: Any) -> list[str]:
        # A canceled run resumes only with the same paths.
        labels, area = (
            vector_file(self, parameters, name, context, feedback, self.out / name.lower())
            for name in ("LABELS", "AREA")
        )
        image = str(self.image(parameters, "IMAGE", context))
        found = ["finetune", str(labels), "--images", image, "--set", "chip_px=512"]
        model = self.parameterAsString(parameters, "MODEL", context)
        found += [] if area is None else ["--area", area]
        found += ["--resume"] if any(self.out.glob("**/checkpoints/last.ckpt")) else []
        return [*found, *(["--model", model] if model else []), "-o", str(self.out)]

    def results(self, answer: dict[str, Any], context: Any, feedback: Any) -> dict[str, Any]:
        feedback.pushInfo(f"The tuned model against the start model: {answer['verdict']}")
        for advice in answer["advice"]:
            feedback.pushInfo(advice)
        return {
            "OUTPUT": str(self.out), "TUNED": str(Path(self.out) / "best_iou.rooftrace"),
            "VERDICT": answer["verdict"], "REPORT": answer["report"],
        }  # fmt: skip
