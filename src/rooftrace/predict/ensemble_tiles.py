"""Tiles that suit several models at once, be their scales and sizes ever so different."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rooftrace.core.errors import BundleError, GsdMismatch
from rooftrace.core.types import GeoGrid
from rooftrace.io.resample import LARGEST_RATIO, Scaling, scaling_for
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.rescaled import RescaledEngine

__all__ = ["context_px", "fitted", "scaling_of", "tile_size"]


def scaling_of(bundle: ModelBundle, gsd_m: float | None) -> Scaling:
    """How many of the ensemble's pixels one of a model's spans.

    Args:
        bundle: the model.
        gsd_m: of the ensemble, which no model of it is finer than; None where none knows metres.

    Raises:
        GsdMismatch: more than four times as coarse.
    """
    own = bundle.spec.gsd_m
    if own is None or gsd_m is None:
        return Scaling()
    try:
        return scaling_for(GeoGrid((1, 1)), own, gsd_m=gsd_m)
    except GsdMismatch as error:
        raise GsdMismatch(
            f"{bundle.source} was trained at {own:g} m per pixel, and another model of the "
            f"ensemble at {gsd_m:g} m; up to {LARGEST_RATIO:g} times as coarse can be combined.",
            remedy="Combine models of nearer scales, or predict with each apart.",
        ) from error


def context_px(spec: BundleSpec, scaling: Scaling) -> int:
    """How far from an edge of the ensemble's tile a model's answer is bent, in its pixels."""
    if scaling.is_identity:
        return spec.context_px
    # Its last pixel but one is bent by what lies beyond the edge, and blended over its width.
    return math.ceil((spec.context_px + 1.5) * scaling.scale_yx[0])


def tile_size(
    bundles: Sequence[ModelBundle], scalings: Sequence[Scaling]
) -> tuple[int, int | None]:
    """What tiles are laid by: the multiple of their sides, and the one side that they have, where a
    model takes one size alone. What a model's own size is more, `RescaledEngine` fills up.
    """
    free = [b.spec for b, s in zip(bundles, scalings) if b.spec.input_px is None and s.is_identity]
    multiple = math.lcm(*(spec.input_multiple_px for spec in free))
    sides = [
        math.floor(bundle.spec.input_px * scaling.scale_yx[0])
        for bundle, scaling in zip(bundles, scalings)
        if bundle.spec.input_px is not None
    ]
    if not sides:
        return multiple, None
    side = min(sides) // multiple * multiple
    if not side:
        told = ", ".join(
            f"{b.spec.name} {b.spec.input_px or f'multiples of {b.spec.input_multiple_px}'}"
            for b in bundles
        )
        raise BundleError(
            f"No size of tile suits all models; they take (px): {told}.",
            remedy="Train them with the same crop_px.",
        )
    return multiple, side


def fitted(member: Predictor, scaling: Scaling, team: BundleSpec) -> Predictor:
    """A model, made to take the ensemble's tiles where it takes others."""
    spec = member.bundle.spec
    as_it_is = (
        spec.input_px == team.input_px
        if spec.input_px is not None
        else ((team.input_px or team.input_multiple_px) % spec.input_multiple_px == 0)
    )
    if scaling.is_identity and as_it_is:
        return member
    return Predictor(member.bundle, RescaledEngine(member.engine, spec, scaling))
