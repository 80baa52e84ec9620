"""Models of a run: read once, and loaded into engines here or on another machine.

Test-time augmentation is a wrapper of an engine, which averages over mirrored copies of each tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.models.bundle import BUNDLED_MODELS, ModelBundle, default_bundle
from rooftrace.models.exported import read_model
from rooftrace.models.spec import Output
from rooftrace.predict.ensemble import Combine, check_weights, combine
from rooftrace.predict.ensemble_file import EnsembleFile, is_ensemble, read_ensemble
from rooftrace.predict.predictor import Predictor

__all__ = [
    "MirroredEngine",
    "ModelSet",
    "Models",
    "Tta",
    "TtaEngine",
    "read_models",
]

Models = Path | Sequence[Path | None] | None
"""One bundle or ensemble file, or several bundles to combine. A bundled model has its name in place
of a path; None is the default one."""


Tta = Literal["flips", "d4"]
"""Kind of augmentation. `flips`: the tile itself, mirrored left to right, top to bottom, and both.
`d4`: in addition the same four of the transposed tile, which gives all eight symmetries of the
square (the dihedral group D4)."""

Mirror = Callable[[NDArray[Any]], NDArray[Any]]
"""Function that mirrors (…, y, x) arrays; it is its own inverse."""


def _left_right(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles[..., ::-1]


def _top_bottom(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles[..., ::-1, :]


def _transposed(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles.swapaxes(-1, -2)


# Each mirror is its own inverse; the augmented copies are all products of the mirrors.
_MIRRORS: dict[Tta, tuple[Mirror, ...]] = {
    "flips": (_left_right, _top_bottom),
    "d4": (_left_right, _top_bottom, _transposed),
}


class TtaEngine:
    """Engine that runs another one on mirrored copies of each tile, and averages the outputs.

    Outputs are mirrored back before they are averaged. The output for a mirrored tile is the
    mirrored output for the tile, bit for bit: outputs are added in mirror pairs, and the sum of two
    numbers does not depend on their order.

    With `d4` the other engine also receives tiles whose height and width are exchanged.

    Args:
        inner: Engine of the network; it runs 4 times (`flips`) or 8 times (`d4`) for each tile.
        tta: Kind of augmentation.
    """

    def __init__(self, inner: Engine, tta: Tta) -> None:
        self._inner = inner
        self._mirrors = _MIRRORS[tta]
        self.name = inner.name
        self.precision = inner.precision
        self.settings: dict[str, Any] = {**getattr(inner, "settings", {}), "tta": tta}

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run (n, band, y, x) pixel values to (n, class, y, x) mean probabilities in 0..1."""
        total = self._sum(batch, self._mirrors)
        # The number of copies is a power of two, so that the mean is as exact as the sum.
        total *= np.float32(0.5 ** len(self._mirrors))
        return total

    def release(self) -> None:
        """Release the compiled networks of the engine."""
        getattr(self._inner, "release", lambda: None)()

    def _sum(self, batch: NDArray[Any], mirrors: tuple[Mirror, ...]) -> NDArray[np.float32]:
        if not mirrors:
            return np.array(self._inner.run(np.ascontiguousarray(batch)), dtype=np.float32)
        *others, mirror = mirrors
        total = self._sum(batch, tuple(others))
        total += mirror(self._sum(mirror(batch), tuple(others)))
        return total


class MirroredEngine:
    """Engine that runs another one on tiles mirrored left to right, and mirrors its outputs back.

    Args:
        inner: Engine of the network.
    """

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.name = inner.name
        self.precision = inner.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run (n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1."""
        return _left_right(self._inner.run(np.ascontiguousarray(_left_right(batch))))


@dataclass(frozen=True)
class ModelSet:
    """Bundles that were read, with the settings for loading them; it can be pickled.

    Args:
        bundles: One bundle, or several bundles that are combined into one model.
        how, weights: Method of combination and weights of several bundles, see `combine`.
        tta: Test-time augmentation of each model, see `Tta`; None for none.
        engine, precision, output: Settings of each model, see `load`.
        file: Ensemble file that names the bundles, and its path; None if there is none.
    """

    bundles: tuple[ModelBundle, ...]
    how: Combine = "average"
    weights: Sequence[float] | None = None
    tta: Tta | None = None
    engine: str | None = None
    precision: str | None = None
    output: Output = "probabilities"
    file: tuple[EnsembleFile, str] | None = None

    def ready(self, build: Callable[[ModelBundle], Engine] | None = None) -> Predictor:
        """Return the loaded model; several models are combined into one.

        The values that were fitted for an ensemble file are applied.

        Args:
            build: Function that returns the engine of a bundle; default: the engine of the
                settings.

        Raises:
            BundleError, ConfigError, GsdMismatch, MissingExtraError: See `load` and `combine`.
        """
        members = [self._member(bundle, build or self._engine) for bundle in self.bundles]
        if self.file is None:
            return members[0] if len(members) == 1 else combine(members, self.how, self.weights)
        made = combine(members, self.how, self.weights)
        file, path = self.file
        name = Path(path).name.removesuffix(".json").removesuffix(".ensemble")
        update: dict[str, Any] = {"name": name, "metrics": file.metrics}
        if file.threshold is not None:
            # A calibration holds for one threshold only.
            update |= {"threshold": file.threshold, "calibration": file.calibration}
        spec = made.bundle.spec.model_copy(update=update)
        return Predictor(ModelBundle(spec, {}, path, made.bundle.members), made.engine)

    def _engine(self, bundle: ModelBundle) -> Engine:
        return load_engine(bundle, engine=self.engine, precision=self.precision, output=self.output)

    def _member(self, bundle: ModelBundle, build: Callable[[ModelBundle], Engine]) -> Predictor:
        engine = build(bundle)
        if self.tta is not None:
            engine = TtaEngine(engine, self.tta)
        return Predictor(bundle.for_output(self.output), engine)


def read_models(
    models: Models,
    how: Combine = "average",
    *,
    weights: Sequence[float] | None = None,
    tta: Tta | None = None,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> ModelSet:
    """Read one or several models without loading their engines, which `ModelSet.ready` does.

    Args:
        models: Models to read. An ensemble file determines itself how its members are combined.
        how, weights, tta, engine, precision, output: See `ModelSet`.

    Raises:
        BundleError: A file cannot be read; a member of an ensemble file is missing or has changed.
        ConfigError: The weights do not fit the models; an ensemble file was given with other models
            or with weights.
    """
    paths = [models] if models is None or isinstance(models, Path) else list(models)
    file = None
    files = [path for path in paths if path is not None and is_ensemble(path)]
    if files:
        _check_ensemble_file(files[0], paths, weights)
        read = read_ensemble(files[0])
        file = read, str(files[0])
        how, weights = read.combine, read.weights
        bundles = _members_of(read, files[0], output)
    else:
        check_weights(weights, how, len(paths))
        bundles = [_read(path) for path in paths]
    return ModelSet(tuple(bundles), how, weights, tta, engine, precision, output, file)


def _read(path: Path | None) -> ModelBundle:
    return default_bundle() if path is None else read_model(path)


def _check_ensemble_file(
    file: Path, paths: Sequence[Path | None], weights: Sequence[float] | None
) -> None:
    """Raise ConfigError if an ensemble file was given with other models or with weights."""
    if len(paths) > 1:
        raise ConfigError(
            f"{file} is an ensemble file, but {len(paths)} models were given.",
            remedy="Give only this file, or combine all bundles with rooftrace ensemble.",
        )
    if weights is not None:
        raise ConfigError(
            f"Weights were given, but {file} contains its own.", remedy="Leave out --weights."
        )


def _members_of(file: EnsembleFile, path: Path, output: Output) -> list[ModelBundle]:
    """Return the bundles that an ensemble file names.

    Raises:
        BundleError: A bundle is missing, or is not the one that the file was made with.
    """
    bundles = []
    for one in file.members:
        where = one.at(path)
        if one.path not in BUNDLED_MODELS and not _is_file(where):
            raise BundleError(
                f"{path} names the member {one.path!r}, but there is no bundle at {where}.",
                remedy="Put the bundle there, or make the file again with rooftrace ensemble.",
            )
        bundle = _read(where)
        digest = bundle.for_output(output).sha256
        if digest != one.sha256:
            raise BundleError(
                f"{path} was made with another bundle than {bundle.source}: expected "
                f"sha256 {one.sha256[:12]}…, received {digest[:12]}….",
                remedy="Restore that bundle, or make the file again with rooftrace ensemble.",
            )
        bundles.append(bundle)
    return bundles


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the path is not valid on this system
        return False
