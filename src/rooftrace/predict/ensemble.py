"""Ensembles: several models combined into one by average, weighted average or vote.

An ensemble is an engine that runs its members on the same tiles. A member with another scale or
tile size is wrapped in `RescaledEngine`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, GsdMismatch
from rooftrace.core.text import plural
from rooftrace.core.types import GeoGrid, Window, WorkingScales
from rooftrace.engines.base import Engine
from rooftrace.io.resample import (
    COARSEST_RATIO,
    Resampler,
    Scaling,
    enlarge,
    scaling_for,
)
from rooftrace.io.sources import ArraySource
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.predictor import Predictor
from rooftrace.tiling.blend import check_probabilities

Combine = Literal["average", "vote", "weighted"]
"""Methods of combination. `average`: mean of the probabilities. `weighted`: weighted mean. `vote`:
share of the members that choose the class at their own threshold."""


class EnsembleEngine:
    """Engine that runs several members.

    Args:
        members: Loaded models that `combine` accepts, all with the same tile size.
        how: Method of combination, see `Combine`.
        weights: Weight of each member; they sum to 1.
        notes: Notes on the members for the user.
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
        # Factors are near 1, so that equal weights give exactly the mean.
        self._factors = [np.float32(weight * len(weights)) for weight in weights]
        self.notes = tuple(notes)
        is_binary = self._members[0].bundle.spec.is_binary
        if how == "vote" and len(members) > 1 and (len(members) % 2 == 0 or not is_binary):
            rule = "is for the building" if is_binary else "is for the first class in order"
            self.notes += (f"{len(members)} models vote: a tie {rule}.",)
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
        """Run (n, band, y, x) pixel values to (n, class, y, x) means, or shares of the votes."""
        total: NDArray[np.float32] | None = None
        for member, factor in zip(self._members, self._factors):
            spec = member.bundle.spec
            # Further outputs of a network are dropped.
            given = batch.astype(spec.numpy_dtype, copy=False)
            answer = member.engine.run(given)[:, : spec.channels]
            # A vote would hide NaN.
            check_probabilities(answer, spec.name)
            part = factor * (_votes(answer, spec) if self._how == "vote" else answer)
            total = part if total is None else total + part
        assert total is not None
        return np.asarray(total / np.float32(len(self._members)), dtype=np.float32)

    def release(self) -> None:
        """Release the compiled networks of the members."""
        for member in self._members:
            getattr(member.engine, "release", lambda: None)()


def _votes(answer: NDArray[np.float32], spec: BundleSpec) -> NDArray[np.float32]:
    """Return 1 for the class that a member chooses, otherwise 0."""
    if spec.is_binary:
        return (answer >= np.float32(spec.threshold)).astype(np.float32)
    classes = np.arange(answer.shape[1])[:, None, None]
    return np.asarray(answer.argmax(axis=1)[:, None] == classes, dtype=np.float32)


_ONE = 65535
"""Number that stands for a probability of 1 during resampling."""


class RescaledEngine:
    """Engine that resamples tiles to the scale and size of another one, and its output back.

    Both directions work as in `io.resample` for whole scenes: antialiased down, bilinear up. A tile
    is resampled from its own first pixel. Therefore the position of the model's pixels differs
    between tiles, as it also does if the layout of the tiles changes. Tiles that are too small are
    padded by mirroring at the lower and right edge, and the output is cropped.

    Args:
        inner: The network's engine.
        spec: Contract of the network.
        scaling: Number of tile pixels per pixel of the network; 1 or more.
    """

    def __init__(self, inner: Engine, spec: BundleSpec, scaling: Scaling) -> None:
        self._inner = inner
        self._spec = spec
        self._scaling = scaling
        self.name = inner.name
        self.precision = inner.precision
        own = getattr(inner, "settings", {})
        scale = {} if scaling.is_identity else {"pixels_of_tile_per_own": scaling.scale_yx[0]}
        self.settings: dict[str, Any] = {**own, **scale}

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run (n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1.

        Further outputs of the network are dropped.

        Raises:
            ValueError: The tiles are larger than the only size of the network.
        """
        shape_yx = int(batch.shape[2]), int(batch.shape[3])
        own_yx = self._scaling.model_shape(shape_yx)
        tiles = batch
        if not self._scaling.is_identity:
            tiles = np.stack([self._resampled(tile, own_yx) for tile in batch])
        lacking = [self._size(side) - side for side in own_yx]
        if any(lacking):
            beyond = ((0, 0), (0, 0), (0, lacking[0]), (0, lacking[1]))
            tiles = np.pad(tiles, beyond, mode="reflect")
        answer = self._inner.run(np.ascontiguousarray(tiles))
        answer = answer[:, : self._spec.channels, : own_yx[0], : own_yx[1]]
        if self._scaling.is_identity:
            return answer
        # Whole numbers would hide NaN.
        check_probabilities(answer, self._spec.name)
        return np.stack([self._enlarged(one, shape_yx) for one in answer])

    def release(self) -> None:
        """Release the compiled networks."""
        getattr(self._inner, "release", lambda: None)()

    def _size(self, side: int) -> int:
        """Return the smallest size that the network takes and that holds `side` pixels."""
        multiple = self._spec.input_multiple_px
        size = self._spec.input_px or -(-side // multiple) * multiple
        if size < side:
            raise ValueError(f"{self._spec.name} takes tiles of {size} px, but received {side} px")
        return size

    def _resampled(self, tile: NDArray[Any], own_yx: tuple[int, int]) -> NDArray[Any]:
        resampler = Resampler(ArraySource(tile), self._scaling)
        return resampler.read(Window.whole(own_yx))[0]

    def _enlarged(
        self, answer: NDArray[np.float32], shape_yx: tuple[int, int]
    ) -> NDArray[np.float32]:
        whole = Window.whole(shape_yx)
        origin = self._scaling.to_model(whole, shape_yx)
        steps = (answer[:, *origin.slices()] * np.float32(_ONE) + np.float32(0.5)).astype(np.uint16)
        return enlarge(steps, origin, whole, self._scaling).astype(np.float32) / np.float32(_ONE)


def scaling_of(bundle: ModelBundle, gsd_m: float | None) -> Scaling:
    """Return the number of ensemble pixels per pixel of a member.

    Args:
        bundle: Bundle of the member.
        gsd_m: Metres per pixel of the ensemble; None if unknown.

    Raises:
        GsdMismatch: The member is more than four times as coarse as the ensemble.
    """
    if bundle.spec.scales is None or gsd_m is None:
        return Scaling()
    own = bundle.spec.scales.for_image(gsd_m)
    if own > gsd_m * COARSEST_RATIO:
        raise GsdMismatch(
            f"{bundle.source} was trained at {own:g} m per pixel, and another model of the "
            f"ensemble at {gsd_m:g} m; the ratio may be at most {COARSEST_RATIO:g}.",
            remedy="Combine models with more similar scales, or predict with each separately.",
        )
    return scaling_for(GeoGrid((1, 1)), WorkingScales(own), gsd_m=gsd_m)


def context_px(spec: BundleSpec, scaling: Scaling) -> int:
    """Return the distance in pixels of the ensemble within which a tile's edge affects a member."""
    if scaling.is_identity:
        return spec.context_px
    # The edge affects the last pixel but one, and interpolation spreads this over one pixel.
    return math.ceil((spec.context_px + 1.5) * scaling.scale_yx[0])


def tile_size(
    bundles: Sequence[ModelBundle], scalings: Sequence[Scaling]
) -> tuple[int, int | None]:
    """Return the tile size of an ensemble.

    `RescaledEngine` pads tiles for members with a larger size.

    Args:
        bundles: Bundles of the members.
        scalings: Scaling of each member.

    Returns:
        Number of pixels of which the sides of tiles are a multiple, and the only possible side;
        None if no member requires one size.

    Raises:
        BundleError: No size suits all members.
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
        text = ", ".join(
            f"{b.spec.name} {b.spec.input_px or f'multiples of {b.spec.input_multiple_px}'}"
            for b in bundles
        )
        raise BundleError(
            f"No tile size suits all models; they take these sizes in pixels: {text}.",
            remedy="Train them with the same crop_px.",
        )
    return multiple, side


def adapt_member(member: Predictor, scaling: Scaling, combined: BundleSpec) -> Predictor:
    """Return a member that runs on the ensemble's tiles; it is adapted only if necessary."""
    spec = member.bundle.spec
    as_it_is = (
        spec.input_px == combined.input_px
        if spec.input_px is not None
        else ((combined.input_px or combined.input_multiple_px) % spec.input_multiple_px == 0)
    )
    if scaling.is_identity and as_it_is:
        return member
    return Predictor(member.bundle, RescaledEngine(member.engine, spec, scaling))


_SHARED = ("bands", "dtype", "classes", "building_class")
"""Fields of the contract that must be equal for all members."""


def combine(
    members: Sequence[Predictor], how: Combine = "average", weights: Sequence[float] | None = None
) -> Predictor:
    """Combine loaded models into one.

    The ensemble works at the metres per pixel of its finest member. Tiles are resampled for coarser
    members, and their output is resampled back (`RescaledEngine`). Each member thus receives tiles
    at the scale of its training, independently of the order of the members. Scales that differ by
    at most 5 % count as equal, as for images.

    The threshold is the mean of the members' thresholds, with their weights, or one half for votes.
    With an even number of members, a tied vote is for the building; with more classes, for the
    first class. A calibration belongs to the scores of one model: the ensemble has none, unless all
    members have the same one and do not vote.

    Args:
        members: Loaded models.
        how: Method of combination, see `Combine`.
        weights: For `weighted`, one weight for each model, in any unit. Default: the mean IoU of
            each model on its validation data.

    Raises:
        BundleError: Bands, pixel type or classes differ; only some models have metres per pixel; no
            tile size suits all models.
        GsdMismatch: One model is more than four times as coarse as another.
        ConfigError: There is no model; the weights do not fit; there are no weights, and a bundle
            has no recorded IoU.
    """
    if not members:
        raise ConfigError("An ensemble needs at least one model.", remedy="Give bundles with -m.")
    bundles = [member.bundle for member in members]
    first = bundles[0].spec
    for bundle in bundles[1:]:
        for field in _SHARED:
            _check_alike(bundles[0], bundle, field)
        if bundle.spec.gsd_m is None or first.gsd_m is None:
            _check_alike(bundles[0], bundle, "gsd_m")
    specs = [bundle.spec for bundle in bundles]
    scales = _shared_scales(specs)
    gsd_m = None if scales is None else scales.gsd_m
    scalings = [scaling_of(bundle, gsd_m) for bundle in bundles]
    multiple, side = tile_size(bundles, scalings)
    check_weights(weights, how, len(members))
    notes = [
        f"{spec.name} works at {spec.gsd_text} m per pixel: its tiles are resampled from "
        f"the ensemble's {gsd_m:g} m, and its output is resampled back"
        for spec, scaling in zip(specs, scalings)
        if not scaling.is_identity
    ]
    if how != "weighted":
        weights = [1.0] * len(members)
    elif weights is None:
        weights = [_validation_iou(bundle) for bundle in bundles]
        text = ", ".join(f"{spec.name} {iou:.3f}" for spec, iou in zip(specs, weights))
        notes.append(f"weighted by the IoU that each model had on its own validation data: {text}")
    shares = [weight / math.fsum(weights) for weight in weights]
    is_calibrated = how != "vote" and all(one.calibration == first.calibration for one in specs)
    spec = BundleSpec(
        name=f"{how} of {', '.join(spec.name for spec in specs)}",
        **{field: getattr(first, field) for field in _SHARED},
        gsd_m=gsd_m,
        finest_gsd_m=None if scales is None else scales.finest_gsd_m,
        interpolated_gsd_m=None if scales is None else scales.interpolated_gsd_m,
        colours=first.colours,
        mean=first.mean,
        std=first.std,
        threshold=0.5
        if how == "vote"
        else math.fsum(map(mul, [one.threshold for one in specs], weights)) / math.fsum(weights),
        calibration=first.calibration if is_calibrated else None,
        input_multiple_px=multiple,
        input_px=side,
        context_px=max(map(context_px, specs, scalings)),
        training={"ensemble": [bundle.sha256 for bundle in bundles], "weights": shares}
        | {key: value for key, value in first.training.items() if key == "data"},
    )
    source = " + ".join(bundle.source for bundle in bundles)
    ready = [adapt_member(m, scaling, spec) for m, scaling in zip(members, scalings)]
    engine = EnsembleEngine(ready, how, shares, notes)
    return Predictor(ModelBundle(spec, {}, source, tuple(bundles)), engine)


def _shared_scales(specs: Sequence[BundleSpec]) -> WorkingScales | None:
    """Return the scales at which all members of an ensemble work; None if they know no metres.

    Without such a scale it works at the finest `gsd_m`, and tiles are resampled for the others.
    Coarser images are interpolated to a finer scale only if that is the same for all members.
    """
    own = [spec.scales for spec in specs if spec.scales is not None]
    if not own:
        return None
    coarsest = min(one.gsd_m for one in own)
    finest = max(one.finest_gsd_m or one.gsd_m for one in own)
    wanted = {one.interpolated_gsd_m for one in own}
    interpolated = wanted.pop() if len(wanted) == 1 else None
    return WorkingScales(
        coarsest,
        finest if finest < coarsest else None,
        interpolated if interpolated is not None and interpolated <= coarsest else None,
    )


def member_in_ensemble(member: Predictor, combined: BundleSpec) -> Predictor:
    """Return a member with the ensemble's tiles and contract, but its own threshold.

    Args:
        member: Member of the ensemble.
        combined: Contract of the ensemble.
    """
    scaling = scaling_of(member.bundle, combined.gsd_m)
    update = {"threshold": member.bundle.spec.threshold, "calibration": None}
    bundle = ModelBundle(combined.model_copy(update=update), {}, member.bundle.source)
    return Predictor(bundle, adapt_member(member, scaling, combined).engine)


def _check_alike(first: ModelBundle, other: ModelBundle, field: str) -> None:
    own, wanted = getattr(other.spec, field), getattr(first.spec, field)
    if own != wanted:
        raise BundleError(
            f"{other.source} cannot be combined with {first.source}: its {field} is "
            f"{own}, but {wanted} was expected.",
            remedy="Combine models with one contract, or predict with each separately.",
        )


def check_weights(weights: Sequence[float] | None, how: Combine, count: int) -> None:
    """Raise ConfigError where weights do not fit the number of models or the method."""
    if weights is None:
        return
    given = ", ".join(f"{weight:g}" for weight in weights)
    if how != "weighted":
        raise ConfigError(
            f"The weights {given} were given, but the models are combined by {how!r}.",
            remedy="Leave out the weights, or combine the models with the method 'weighted'.",
        )
    if len(weights) != count:
        raise ConfigError(
            f"{plural(len(weights), 'weight was', 'weights were')} given ({given}) for "
            f"{plural(count, 'model')}; expected one weight for each model.",
            remedy="Give the weights in the order of the models.",
        )
    if not all(weight > 0 for weight in weights) or not math.isfinite(sum(weights)):
        raise ConfigError(
            f"The weights {given} were given; each weight must be above 0 and finite.",
            remedy="Leave out models with weight 0.",
        )


def _validation_iou(bundle: ModelBundle) -> float:
    """Return the mean recorded IoU over a bundle's validation data."""
    # For a refined model, the metrics of the refined output come before those of its segmenter.
    ious: dict[str, float] = {}
    for measured in bundle.spec.metrics:
        if measured.split == "val" and "iou" in measured.values:
            ious.setdefault(measured.data, measured.values["iou"])
    mean = math.fsum(ious.values()) / len(ious) if ious else 0.0
    if not mean > 0:
        raise ConfigError(
            f"The bundle {bundle.source} contains no IoU on validation data to use as its weight.",
            remedy="Give the weights with --weights, or combine by average.",
        )
    return mean
