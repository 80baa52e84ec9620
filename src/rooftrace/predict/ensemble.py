"""Several models as one: their answers to the same tile averaged, weighted, or counted as votes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.engines.base import Engine
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec, Output
from rooftrace.predict.predictor import Predictor, load
from rooftrace.predict.tta import Tta, TtaEngine

__all__ = ["Combine", "EnsembleEngine", "Models", "combine", "load_models"]

Combine = Literal["average", "vote", "weighted"]
"""`average`: the mean of the probabilities. `weighted`: their weighted mean. `vote`: the share of
the models whose own answer, at their own threshold, is the class."""

Models = Path | Sequence[Path | None] | None
"""One bundle, or several that are combined; None is the one that comes with rooftrace."""

_SHARED = ("bands", "dtype", "classes", "building_class", "gsd_m")


class EnsembleEngine:
    """An `Engine` that asks several.

    Args:
        members: loaded models that `combine` accepts.
        how: see `Combine`.
        weights: one of each, their sum being 1.
        notes: what was assumed of them, for the person to see.
    """

    name = "ensemble"

    def __init__(
        self,
        members: Sequence[Predictor],
        how: Combine,
        weights: Sequence[float],
        notes: Sequence[str] = (),
    ) -> None:
        self._members = tuple(members)
        self._how = how
        # Around one, so that equal weights are exactly a mean.
        self._factors = [np.float32(weight * len(weights)) for weight in weights]
        self.notes = tuple(notes)
        self.precision = "+".join(
            dict.fromkeys(member.engine.precision for member in self._members)
        )
        self.settings: dict[str, Any] = {
            "combined_by": how,
            "members": [
                {
                    "name": member.bundle.spec.name,
                    "sha256": member.bundle.sha256,
                    "engine": member.engine.name,
                    "precision": member.engine.precision,
                    "settings": getattr(member.engine, "settings", {}),
                    "weight": round(weight, 6),
                }
                for member, weight in zip(self._members, weights)
            ],
        }

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x): means, or shares of the votes."""
        total: NDArray[np.float32] | None = None
        for member, factor in zip(self._members, self._factors):
            spec = member.bundle.spec
            answer = _classes_of(member.engine, spec, batch)
            part = factor * (_votes(answer, spec) if self._how == "vote" else answer)
            total = part if total is None else total + part
        assert total is not None
        return np.asarray(total / np.float32(len(self._members)), dtype=np.float32)

    def release(self) -> None:
        """Give back what the engines' compiled networks hold."""
        for member in self._members:
            getattr(member.engine, "release", lambda: None)()


def load_models(
    models: Models,
    how: Combine = "average",
    *,
    weights: Sequence[float] | None = None,
    tta: Tta | None = None,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> Predictor:
    """A model, or several as one.

    Args:
        models: one is loaded as it is.
        how, weights: of several, see `combine`.
        tta: each model is asked for mirrored tiles too, see `Tta`.
        engine, precision, output: of each, see `load`.

    Raises:
        As `load` and `combine`.
    """
    paths = [models] if models is None or isinstance(models, Path) else list(models)
    _check_weights(weights, how, len(paths))
    members = [load(path, engine=engine, precision=precision, output=output) for path in paths]
    if tta is not None:
        members = [Predictor(m.bundle, TtaEngine(m.engine, tta)) for m in members]
    return members[0] if len(members) == 1 else combine(members, how, weights)


def combine(
    members: Sequence[Predictor], how: Combine = "average", weights: Sequence[float] | None = None
) -> Predictor:
    """Loaded models as one.

    The threshold is the mean of the models' own where their probabilities are averaged, weighted as
    they are, and one half where they vote: of an even number of models a tie is for the building.
    A calibration is of one model's scores; what is combined has none, unless all have the same and
    do not vote.

    Args:
        members: the models.
        how: see `Combine`.
        weights: with `weighted`, of each model, in order; any unit. Default the IoU that each had
            on its validation data, the mean over them.

    Raises:
        BundleError: the models differ in what they take or answer: bands, pixel type, classes,
            metres per pixel; or no size of tile suits all.
        ConfigError: no model; weights that do not fit, or none where a bundle has no IoU on record.
    """
    if not members:
        raise ConfigError("An ensemble of no models was asked for.", remedy="Name bundles with -m.")
    bundles = [member.bundle for member in members]
    first = bundles[0].spec
    for bundle in bundles[1:]:
        for field in _SHARED:
            own, wanted = getattr(bundle.spec, field), getattr(first, field)
            if own != wanted:
                raise BundleError(
                    f"{bundle.source} cannot be combined with {bundles[0].source}: its {field} is "
                    f"{own}, but {wanted} was expected.",
                    remedy="Combine models of one contract, or predict with each apart.",
                )
    specs = [bundle.spec for bundle in bundles]
    multiple, side = _size(bundles)
    _check_weights(weights, how, len(members))
    notes = []
    if how != "weighted":
        weights = [1.0] * len(members)
    elif weights is None:
        weights = [_validation_iou(bundle) for bundle in bundles]
        told = ", ".join(f"{spec.name} {iou:.3f}" for spec, iou in zip(specs, weights))
        notes.append(f"weighted by the IoU that each model had on its own validation data: {told}")
    shares = [weight / math.fsum(weights) for weight in weights]
    spec = BundleSpec(
        name=f"{how} of {', '.join(spec.name for spec in specs)}",
        **{field: getattr(first, field) for field in _SHARED},
        colours=first.colours,
        mean=first.mean,
        std=first.std,
        threshold=0.5 if how == "vote" else _mean([s.threshold for s in specs], weights),
        calibration=first.calibration if how != "vote" and _all_calibrated_alike(specs) else None,
        input_multiple_px=multiple,
        input_px=side,
        context_px=max(spec.context_px for spec in specs),
        training={"ensemble": [bundle.sha256 for bundle in bundles], "weights": shares}
        | {key: value for key, value in first.training.items() if key == "data"},
    )
    source = " + ".join(bundle.source for bundle in bundles)
    return Predictor(ModelBundle(spec, {}, source), EnsembleEngine(members, how, shares, notes))


def _check_weights(weights: Sequence[float] | None, how: Combine, count: int) -> None:
    if weights is None:
        return
    given = ", ".join(f"{weight:g}" for weight in weights)
    if how != "weighted":
        raise ConfigError(
            f"The weights {given} were given, but models are combined by {how!r}.",
            remedy="Weights belong to the ensemble 'weighted'.",
        )
    if len(weights) != count:
        raise ConfigError(
            f"The {len(weights)} weights {given} were given; expected one for each model, {count}.",
            remedy="Give them in the order of the models.",
        )
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ConfigError(
            f"The weights {given} were given; each must be above 0 and finite.",
            remedy="Leave out a model that is to have no weight.",
        )


def _validation_iou(bundle: ModelBundle) -> float:
    """The mean over a bundle's validation data of the IoU that it has on record."""
    # Of a refined model the refined answer's figures stand before those of its segmenter.
    ious: dict[str, float] = {}
    for measured in bundle.spec.metrics:
        if measured.split == "val" and "iou" in measured.values:
            ious.setdefault(measured.data, measured.values["iou"])
    mean = math.fsum(ious.values()) / len(ious) if ious else 0.0
    if not mean > 0:
        raise ConfigError(
            f"The bundle {bundle.source} has no IoU on validation data on record, from which its "
            "weight could be taken.",
            remedy="Give the weights with --weights, or combine by average.",
        )
    return mean


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    weighted = math.fsum(value * weight for value, weight in zip(values, weights))
    return weighted / math.fsum(weights)


def _all_calibrated_alike(specs: Sequence[BundleSpec]) -> bool:
    return all(spec.calibration == specs[0].calibration for spec in specs)


def _size(bundles: Sequence[ModelBundle]) -> tuple[int, int | None]:
    """What all take: the multiple of a tile's sides, and the one side, where a model has one."""
    multiple = math.lcm(*(bundle.spec.input_multiple_px for bundle in bundles))
    sides = {bundle.spec.input_px for bundle in bundles} - {None}
    side = sides.pop() if sides else None
    if sides or (side is not None and side % multiple):
        told = ", ".join(
            f"{b.spec.name} {b.spec.input_px or f'multiples of {b.spec.input_multiple_px}'}"
            for b in bundles
        )
        raise BundleError(
            f"No size of tile suits all models; they take (px): {told}.",
            remedy="Train them with the same crop_px.",
        )
    return multiple, side


def _classes_of(engine: Engine, spec: BundleSpec, batch: NDArray[Any]) -> NDArray[np.float32]:
    """(n, class, y, x) probabilities, without what else a network may answer."""
    return engine.run(batch.astype(spec.numpy_dtype, copy=False))[:, : spec.channels]


def _votes(answer: NDArray[np.float32], spec: BundleSpec) -> NDArray[np.float32]:
    """1 for the class that one model sees, else 0."""
    if spec.is_binary:
        return (answer >= np.float32(spec.threshold)).astype(np.float32)
    classes = np.arange(answer.shape[1])[:, None, None]
    return np.asarray(answer.argmax(axis=1)[:, None] == classes, dtype=np.float32)
