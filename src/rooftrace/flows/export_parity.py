"""How far an exported model is from the bundle that it was made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.data.source import SceneSet
from rooftrace.engines.base import Engine
from rooftrace.models.spec import BundleSpec, Output
from rooftrace.train.whole import judge_whole

__all__ = ["TOLERANCES", "Parity", "measure_parity"]

TOLERANCES = {"fp32": 0.002, "fp16": 0.02, "bf16": 0.05, "int8": 0.1}
"""Of `Parity.mask_change`, by precision: three to fifteen times what the bundled model comes to."""

_AT_ONCE = 4
_LEAST_SHARE = 0.01
"""Of all pixels, which a change is held against where hardly a building is seen."""


@dataclass(frozen=True)
class Parity:
    """Figures of one engine on one file, against the bundle's graph in fp32 on OpenVINO.

    Args:
        engine, precision: which ran it.
        output: which of a model's answers.
        max_difference, mean_difference: of probabilities.
        changed_share: of all pixels, those whose class changes at the model's threshold.
        mask_iou: of what both call other than background; 1 where both call nothing so.
        mask_change: pixels that change over those that either calls other than background, or
            over one in a hundred of all pixels where these are fewer. It is what is judged.
        label_iou: against labels, where the data has them, and that of the bundle's graph: over
            whole images, of buildings, or the mean over classes where there are more than two.
    """

    engine: str
    precision: str
    output: Output
    max_difference: float
    mean_difference: float
    changed_share: float
    mask_iou: float
    mask_change: float
    label_iou: float | None = None
    label_iou_before: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Figures to five significant digits."""
        return {
            key: float(f"{value:.5g}") if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }

    def figures(self) -> dict[str, float]:
        """Those for the record of the exported model."""
        return {key: value for key, value in self.to_json().items() if isinstance(value, float)}


def measure_parity(
    reference: Engine,
    engine: Engine,
    spec: BundleSpec,
    tiles: Sequence[NDArray[Any]],
    output: Output = "probabilities",
    labelled: SceneSet | None = None,
) -> Parity:
    """Run two engines on the same tiles.

    Args:
        reference: the bundle's graph.
        engine: the exported model, loaded from its file.
        spec: the contract, with the threshold of the output.
        tiles: (band, y, x) pixel values each, all of one size.
        labelled: also judged against labels.
    """
    most = total = 0.0
    answered = changed = pixels = both = either = 0
    for first in range(0, len(tiles), _AT_ONCE):
        batch = np.stack(tiles[first : first + _AT_ONCE])
        before, after = reference.run(batch), engine.run(batch)
        apart = np.abs(before - after)
        # What is no number compares as nothing, and would look like no difference.
        most = max(most, float(apart.max()) if np.isfinite(apart).all() else math.inf)
        total += float(apart.sum(dtype=np.float64))
        answered += apart.size
        old, new = _mask(before, spec), _mask(after, spec)
        changed += int(np.count_nonzero(old != new))
        both += int(np.count_nonzero((old > 0) & (new > 0)))
        either += int(np.count_nonzero((old > 0) | (new > 0)))
        pixels += old.size
    mean = total / answered
    finite = math.isfinite(most) and math.isfinite(mean)
    old_iou = new_iou = None
    if labelled is not None and finite:
        old_iou = _label_iou(labelled, spec, reference)
        new_iou = _label_iou(labelled, spec, engine)
    return Parity(
        engine=engine.name,
        precision=engine.precision,
        output=output,
        max_difference=most if finite else 1.0,
        mean_difference=mean if finite else 1.0,
        changed_share=changed / pixels,
        mask_iou=both / either if either else 1.0,
        # A network that answers no numbers has lost everything.
        mask_change=changed / max(either, _LEAST_SHARE * pixels) if finite else 1.0,
        label_iou=new_iou,
        label_iou_before=old_iou,
    )


def _mask(answer: NDArray[np.float32], spec: BundleSpec) -> NDArray[np.uint8]:
    """(n, y, x) class indices."""
    if spec.is_binary:
        return (answer[:, 0] >= spec.threshold).astype(np.uint8)
    best: NDArray[np.uint8] = answer[:, : spec.channels].argmax(axis=1).astype(np.uint8)
    return best


def _label_iou(labelled: SceneSet, spec: BundleSpec, engine: Engine) -> float | None:
    counts = judge_whole(labelled, spec, engine.run)
    value = counts.iou(1) if spec.is_binary else counts.mean_iou
    return None if math.isnan(value) else value
