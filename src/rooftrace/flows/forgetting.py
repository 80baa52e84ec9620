"""Measure forgetting: compare a tuned model with its start model on data of the start model.

The data is the validation data of the start model, as its bundle records it, if that lies on this
machine. Otherwise it is generated scenes, which every model of buildings can be tested on: they
show a large loss, but no small one, since they resemble no real place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.core.config import expand_path
from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import Mask, Scene
from rooftrace.flows.evaluate.evaluation import Evaluation
from rooftrace.flows.evaluate.predictions import ModelPredictions
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels
from rooftrace.flows.labelled_predictions import select_part, training_labels
from rooftrace.io.sources import ArraySource
from rooftrace.labels.config import DataConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import MaskLabel, SceneEntry, SceneSet
from rooftrace.metrics.resampling import PairedTest
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.predictor import Predictor
from rooftrace.testing import generate_scene

__all__ = ["ForgettingReport", "measure_forgetting"]

_MAX_IMAGES = 12
"""Maximum number of validation images of the start model; of more, as many are drawn at random."""

_GENERATED, _SIDE_PX = 12, 320
"""Number and side of generated scenes."""

_FIRST_SEED = 9000
"""Seed of the first generated scene; no data of ours has it."""

_GSD_M = (0.1, 1.0)
"""Finest and coarsest metres per pixel of generated scenes."""


@dataclass(frozen=True)
class ForgettingReport:
    """Comparison of a tuned model with its start model on data of the start model.

    Args:
        data: Name of the data.
        is_generated: Whether it is generated scenes, not real images.
        test: IoU of the tuned and of the start model, with the interval of the difference.
    """

    data: str
    is_generated: bool
    test: PairedTest

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "data": self.data, "generated": self.is_generated, "images": self.test.scenes,
            "iou": self.test.to_json(),
        }  # fmt: skip


def measure_forgetting(
    tuned: Predictor, start: Predictor, trained_on: SourceConfig, *, seed: int = 0
) -> ForgettingReport | None:
    """Compare both models on data of the start model.

    Args:
        tuned: The tuned model.
        start: The start model.
        trained_on: Data that the tuned model was trained on; it is not used.
        seed: Seed of the choice among many images.

    Returns:
        The comparison; None if the data of the start model is not at hand, and generated scenes do
        not suit it: it has other classes than buildings, or other bands than red, green and blue.

    Raises:
        DataError, PredictError: An image cannot be read or predicted.
    """
    found = _recorded_validation(start.bundle, trained_on, seed)
    is_generated = found is None
    if found is None:
        found = _generated(start.bundle.spec)
    if found is None:
        return None
    options = EvalOptions(pixels_only=True)
    sources = [ModelPredictions(one, pixels_only=True) for one in (tuned, start)]
    evaluation = Evaluation(tuple(compare_with_labels(sources, found, options)), baseline=1)
    test = evaluation.comparisons[0].figures[evaluation.headline]
    return ForgettingReport(found.name, is_generated, test)


def _recorded_validation(
    bundle: ModelBundle, trained_on: SourceConfig, seed: int
) -> SceneSet | None:
    """Return images of the recorded validation that are on this machine; None without any."""
    try:
        data = DataConfig.model_validate(bundle.spec.training["data"])
    except (KeyError, ValueError):
        return None
    labels = training_labels(bundle)
    sets: list[SceneSet] = []
    for given in data.val or data.train:
        try:
            path = expand_path(given.path, Path.cwd(), key="path")
            if path == expand_path(trained_on.path, Path.cwd(), key="path"):
                continue
            source = open_source(given, labels)
            if not data.val:
                source = select_part(source, f"{data.split}:val", given.path)
        except (RooftraceError, OSError, ValueError):
            # It is not on this machine, or is not what it was.
            continue
        if source.entries:
            sets.append(source)
    if not sets:
        return None
    entries = [
        replace(entry, id=f"{number}/{entry.id}", key=(number, entry))
        for number, source in enumerate(sets)
        for entry in source.entries
    ]
    drawn = np.random.default_rng(seed).permutation(len(entries))[:_MAX_IMAGES]
    chosen = tuple(entries[at] for at in sorted(drawn.tolist()))
    opened = _OpenAny(tuple(one.open_scene for one in sets))
    name = "validation of the start model: " + ", ".join(one.name for one in sets)
    return replace(sets[0], name=name, entries=chosen, unlabelled=(), open_scene=opened)


@dataclass(frozen=True)
class _OpenAny:
    """Opens the scene of an entry whose key is (number of its set, entry)."""

    openers: tuple[Callable[[SceneEntry], Scene], ...]

    def __call__(self, entry: SceneEntry) -> Scene:
        number, own = entry.key
        scene: Scene = self.openers[number](own)
        return replace(scene, id=entry.id)


def _generated(spec: BundleSpec) -> SceneSet | None:
    """Return generated scenes at the scale of a model; None if they do not suit it."""
    if not spec.is_binary or tuple(spec.bands) != ("red", "green", "blue"):
        return None
    gsd_m = min(max(spec.gsd_m or 0.3, _GSD_M[0]), _GSD_M[1])
    entries = tuple(
        SceneEntry(f"generated {seed}", None, key=seed)
        for seed in range(_FIRST_SEED, _FIRST_SEED + _GENERATED)
    )
    return SceneSet(
        "generated scenes", "generated", spec.classes, spec.building_class, entries,
        _OpenGenerated(gsd_m),
    )  # fmt: skip


@dataclass(frozen=True)
class _OpenGenerated:
    """Generates the scene of an entry whose key is its seed."""

    gsd_m: float

    def __call__(self, entry: SceneEntry) -> Scene:
        made = generate_scene(entry.key, (_SIDE_PX, _SIDE_PX), self.gsd_m)
        mask = made.mask()
        label = MaskLabel(Mask(mask, np.ones_like(mask, dtype=bool), made.grid))
        image = ArraySource(made.image, made.grid, name=entry.id)
        return Scene(entry.id, image, label, gsd_m=made.grid.gsd_m)
