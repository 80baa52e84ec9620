"""Several models as one: their answers to the same tile averaged, weighted, or counted as votes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.ensemble_engine import Combine, EnsembleEngine
from rooftrace.predict.ensemble_tiles import context_px, fitted, scaling_of, tile_size
from rooftrace.predict.predictor import Predictor

__all__ = ["Combine", "EnsembleEngine", "as_member", "check_weights", "combine"]

_SHARED = ("bands", "dtype", "classes", "building_class")


def combine(
    members: Sequence[Predictor], how: Combine = "average", weights: Sequence[float] | None = None
) -> Predictor:
    """Loaded models as one.

    It works at the metres per pixel of the finest: a tile is resampled for those that are coarser,
    and their answers are brought back (`RescaledEngine`), so that nobody is given less than it was
    trained on, whatever the order. Within 5 % scales are taken for alike, as of images.

    The threshold is the mean of the models' own where their probabilities are averaged, weighted as
    they are, and one half where they vote: of an even number of models a tie is for the building,
    of more classes for the first.
    A calibration is of one model's scores; what is combined has none, unless all have the same and
    do not vote.

    Args:
        members: the models.
        how: see `Combine`.
        weights: with `weighted`, of each model, in order; any unit. Default the IoU that each had
            on its validation data, the mean over them.

    Raises:
        BundleError: the models differ in what they take or answer: bands, pixel type, classes; some
            know metres per pixel and others do not; no size of tile suits all.
        GsdMismatch: one is more than four times coarser than another.
        ConfigError: no model; weights that do not fit, or none where a bundle has no IoU on record.
    """
    if not members:
        raise ConfigError("An ensemble of no models was asked for.", remedy="Name bundles with -m.")
    bundles = [member.bundle for member in members]
    first = bundles[0].spec
    for bundle in bundles[1:]:
        for field in _SHARED:
            _check_alike(bundles[0], bundle, field)
        if bundle.spec.gsd_m is None or first.gsd_m is None:
            _check_alike(bundles[0], bundle, "gsd_m")
    specs = [bundle.spec for bundle in bundles]
    gsd_m = min((spec.gsd_m for spec in specs if spec.gsd_m is not None), default=None)
    scalings = [scaling_of(bundle, gsd_m) for bundle in bundles]
    multiple, side = tile_size(bundles, scalings)
    check_weights(weights, how, len(members))
    notes = [
        f"{spec.name} was trained at {spec.gsd_m:g} m per pixel: what it sees is resampled from "
        f"the ensemble's {gsd_m:g} m, and its answer back"
        for spec, scaling in zip(specs, scalings)
        if not scaling.is_identity
    ]
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
        gsd_m=gsd_m,
        colours=first.colours,
        mean=first.mean,
        std=first.std,
        threshold=0.5 if how == "vote" else _mean([s.threshold for s in specs], weights),
        calibration=first.calibration if how != "vote" and _all_calibrated_alike(specs) else None,
        input_multiple_px=multiple,
        input_px=side,
        context_px=max(map(context_px, specs, scalings)),
        training={"ensemble": [bundle.sha256 for bundle in bundles], "weights": shares}
        | {key: value for key, value in first.training.items() if key == "data"},
    )
    source = " + ".join(bundle.source for bundle in bundles)
    ready = [fitted(m, scaling, spec) for m, scaling in zip(members, scalings)]
    engine = EnsembleEngine(ready, how, shares, notes)
    return Predictor(ModelBundle(spec, {}, source, tuple(bundles)), engine)


def as_member(member: Predictor, team: BundleSpec) -> Predictor:
    """One model as it answers in an ensemble: on its tiles, and by its contract but for the
    threshold, which stays the model's own.

    Args:
        member: one of those that were combined.
        team: the contract of what came out.
    """
    scaling = scaling_of(member.bundle, team.gsd_m)
    update = {"threshold": member.bundle.spec.threshold, "calibration": None}
    bundle = ModelBundle(team.model_copy(update=update), {}, member.bundle.source)
    return Predictor(bundle, fitted(member, scaling, team).engine)


def _check_alike(first: ModelBundle, other: ModelBundle, field: str) -> None:
    own, wanted = getattr(other.spec, field), getattr(first.spec, field)
    if own != wanted:
        raise BundleError(
            f"{other.source} cannot be combined with {first.source}: its {field} is "
            f"{own}, but {wanted} was expected.",
            remedy="Combine models of one contract, or predict with each apart.",
        )


def check_weights(weights: Sequence[float] | None, how: Combine, count: int) -> None:
    """Raises ConfigError where weights do not fit so many models that are combined so."""
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
    if not all(weight > 0 for weight in weights) or not math.isfinite(sum(weights)):
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
