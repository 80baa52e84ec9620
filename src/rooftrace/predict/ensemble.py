"""Several models as one: their answers to the same tile averaged, or counted as votes."""

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

__all__ = ["Combine", "EnsembleEngine", "Models", "combine", "load_models"]

Combine = Literal["average", "vote"]
"""`average`: the mean of the probabilities. `vote`: the share of the models whose own answer, at
their own threshold, is the class."""

Models = Path | Sequence[Path | None] | None
"""One bundle, or several that are combined; None is the one that comes with rooftrace."""

_SHARED = ("bands", "dtype", "classes", "building_class", "gsd_m")


class EnsembleEngine:
    """An `Engine` that asks several.

    Args:
        members: loaded models that `combine` accepts.
        how: see `Combine`.
    """

    name = "ensemble"

    def __init__(self, members: Sequence[Predictor], how: Combine) -> None:
        self._members = tuple(members)
        self._how = how
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
                }
                for member in self._members
            ],
        }

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x): means, or shares of the votes."""
        total: NDArray[np.float32] | None = None
        for member in self._members:
            spec = member.bundle.spec
            answer = _classes_of(member.engine, spec, batch)
            part = answer if self._how == "average" else _votes(answer, spec)
            total = part.copy() if total is None else total + part
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
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> Predictor:
    """A model, or several as one.

    Args:
        models: one is loaded as it is.
        engine, precision, output: of each, see `load`.

    Raises:
        As `load` and `combine`.
    """
    paths = [models] if models is None or isinstance(models, Path) else list(models)
    members = [load(path, engine=engine, precision=precision, output=output) for path in paths]
    return members[0] if len(members) == 1 else combine(members, how)


def combine(members: Sequence[Predictor], how: Combine = "average") -> Predictor:
    """Loaded models as one.

    The threshold is the mean of the models' own where their probabilities are averaged, and one
    half where they vote: of an even number of models a tie is for the building.

    Raises:
        BundleError: the models differ in what they take or answer: bands, pixel type, classes,
            metres per pixel; or no size of tile suits all.
        ConfigError: no model.
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
    spec = BundleSpec(
        name=f"{how} of {', '.join(spec.name for spec in specs)}",
        **{field: getattr(first, field) for field in _SHARED},
        colours=first.colours,
        mean=first.mean,
        std=first.std,
        threshold=0.5 if how == "vote" else math.fsum(s.threshold for s in specs) / len(specs),
        input_multiple_px=multiple,
        input_px=side,
        context_px=max(spec.context_px for spec in specs),
        training={"ensemble": [bundle.sha256 for bundle in bundles]}
        | {key: value for key, value in first.training.items() if key == "data"},
    )
    source = " + ".join(bundle.source for bundle in bundles)
    return Predictor(ModelBundle(spec, {}, source), EnsembleEngine(members, how))


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
