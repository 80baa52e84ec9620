"""The charts of an evaluation's page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rooftrace.io.svg import Curve, curves
from rooftrace.metrics.objects import F1_IOUS
from rooftrace.metrics.report import EvalReport

__all__ = ["draw_charts"]


def draw_charts(reports: Sequence[EvalReport]) -> dict[str, Markup]:
    """Each chart that there is something for: `precision_recall`, `iou` over the threshold, `f1`
    over the IoU that a match needs, `reliability`. All models are in each.
    """
    made: dict[str, Markup] = {}
    # A line of nothing stands for who has none: colours go by the place among the reports.
    if any(report.curve is not None for report in reports):
        recall_precision, over_threshold = [], []
        for report in reports:
            if (curve := report.curve) is None:
                recall_precision.append(Curve(report.name, (), ()))
                over_threshold.append(Curve(report.name, (), ()))
                continue
            at = report.context.get("threshold")
            precision, recall = curve.precision().tolist(), curve.recall().tolist()
            iou, thresholds = curve.iou().tolist(), curve.thresholds.tolist()
            step = _nearest(thresholds, at)
            mark = None if step is None else (recall[step], precision[step])
            recall_precision.append(Curve(report.name, recall, precision, mark))
            mark = None if step is None else (thresholds[step], iou[step])
            over_threshold.append(Curve(report.name, thresholds, iou, mark))
        made["precision_recall"] = curves(recall_precision, x="recall", y="precision")
        made["iou"] = curves(over_threshold, x="threshold", y="IoU")
    if any(report.objects.labelled or report.objects.predicted for report in reports):
        lines = [
            Curve(r.name, F1_IOUS, [r.objects.f1_at(iou) for iou in F1_IOUS], dots=True)
            for r in reports
        ]
        made["f1"] = curves(lines, x="IoU that a match needs", y="F1", x_range=(0.5, 1.0))
    if any(report.reliability is not None for report in reports):
        lines = [
            Curve(report.name, one.mean_score.tolist(), one.share_right.tolist(), dots=True)
            if (one := report.reliability) is not None
            else Curve(report.name, (), ())
            for report in reports
        ]
        made["reliability"] = curves(lines, x="score", y="share that is right", diagonal=True)
    return made


def _nearest(thresholds: Sequence[float], at: float | None) -> int | None:
    if at is None:
        return None
    return min(range(len(thresholds)), key=lambda step: abs(thresholds[step] - at))
